"""The verb fetch_output: many jobs' members, side by side, each job in its turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from pathlib import Path

import structlog
import trio

from arcbackend.config import ARCConfig
from arcbackend.errors import ConfigurationError, InterCEdeError, ProtocolError, TransportError
from arcbackend.jobids import resolve
from arcbackend.listing import LiveListing
from arcbackend.models import JobHandle, JobID, JobOutput
from arcbackend.output import streams
from arcbackend.output.budget import Account, Allowance
from arcbackend.output.collection import Collection, Task
from arcbackend.output.containment import MemberPath, Refused, joined
from arcbackend.output.transfer import Download, Downloader
from arcbackend.output.writer import Destination, Sink
from arcbackend.protocol.messages import Request, Response
from arcbackend.protocol.outputs import parse_directory, parse_sized_directory
from arcbackend.protocol.requests import RequestBuilder, is_sendable
from arcbackend.session import Session
from arcbackend.states import TERMINAL
from arcbackend.tasks import run_all

__all__ = ["Retriever"]

_log = structlog.get_logger("arcbackend")

_GONE = "the CE knows no such job, or no longer has its output (purged or expired)"
_FEW = 8
# A-REX's own state of a job that is over, however it ended (job.<id>.status in its control
# directory).
_OVER = b"FINISHED"
_NOT_THERE = "the CE cannot read this file, or it is gone (HTTP 404)"
# What a libxml2 of 2.14 or newer, in the CE, makes of a control character.
_REPLACEMENT = "\ufffd".encode()
_REPLACED = ", or its name holds a control character, which this CE lists as \ufffd"
# Jobs whose members take turns; the next job comes in when one is done. Their listings are what
# a call holds in memory.
_ABREAST = 4
# So many jobs in a row that could not even be listed mean that the CE is gone.
_LOST = 4


class Retriever:
    """Fetches the output of jobs.

    Args:
        session: the CE.
        listing: tells which jobs are over.
        config: limits, retries and concurrency.
    """

    def __init__(self, session: Session, listing: LiveListing, config: ARCConfig) -> None:
        self._session = session
        self._listing = listing
        self._config = config

    async def fetch(self, ids: Sequence[JobID | JobHandle], dest: Path) -> dict[JobID, JobOutput]:
        """Fetch what each job left; see `ARCBackend.fetch_output`."""
        refs = resolve(self._session.endpoint, ids)
        if not refs:
            return {}
        # Asked before any listing: what is over then has nothing more to come.
        over = await self._over([ref.local for ref in refs])
        known = streams.of_handles(self._session.endpoint, ids)
        bare = [ref.local for ref in refs if ref.local not in known]
        known |= await streams.documented(self._session, bare)
        limits = self._config.limits
        jobs = [Collection(ref, ref.local in over, known.get(ref.local), limits) for ref in refs]
        destination = await self._open(dest)
        try:
            await _Fetch(self._session, self._config, destination, jobs).run()
            return {job.ref.id: job.manifest(destination) for job in jobs}
        finally:
            destination.close()

    async def _over(self, ids: Sequence[str]) -> set[str]:
        """Tell which jobs are over now.

        Of many by the live listing, which names all jobs of the identity; of few one by one, since
        a consumer may fetch each job as it ends.
        """
        if len(ids) > _FEW:
            live = await self._listing.late_states()
            return {local for local in ids if live.get(local) in TERMINAL}
        builder = await self._session.builder()
        over: set[str] = set()

        async def ask(local: str) -> None:
            answer = await self._session.call(builder.diagnose(local, "status"))
            if answer.status == HTTPStatus.OK and answer.body.strip() == _OVER:
                over.add(local)

        await run_all(ask, ids)
        return over

    async def _open(self, dest: Path) -> Destination:
        keep_free = self._config.limits.keep_free_bytes
        try:
            return await trio.to_thread.run_sync(Destination, dest, keep_free)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ConfigurationError(
                f"dest: {dest} cannot be written to: {reason}",
                ce=self._session.endpoint,
                operation="fetch_output",
            ) from None


class _Fetch:
    """One call under way."""

    def __init__(
        self,
        session: Session,
        config: ARCConfig,
        destination: Destination,
        jobs: Sequence[Collection],
    ) -> None:
        self._session = session
        self._limits = config.limits
        self._workers = config.concurrency
        self._destination = destination
        self._account = Account(config.limits.max_total_bytes, "the call")
        self._downloader = Downloader(session, config.limits, config.retries)
        self._landing = trio.Semaphore(config.concurrency)
        self._turns = _Turns(jobs, _ABREAST * config.concurrency)
        self._lost_in_a_row = 0
        self._any_listed = False
        self._ce_gone: InterCEdeError | None = None

    async def run(self) -> None:
        """Do everything.

        Raises:
            AuthenticationError: the whole operation failed.
            TransportError: the CE could not be reached for a single job.
        """
        builder = await self._session.builder()

        async def worker(_number: int) -> None:
            while (turn := await self._turns.next()) is not None:
                job, task = turn
                download = None
                try:
                    download = await self._do(builder, job, task)
                finally:
                    if download is None:
                        self._turns.done(job)
                if download is not None:
                    nursery.start_soon(self._land, job, task, download)

        failed: Exception | None = None
        # A nursery of its own for what is written while the workers go on; nothing in it raises.
        async with trio.open_nursery() as nursery:
            try:
                await run_all(worker, range(self._workers), workers=self._workers)
            except Exception as error:
                failed = error  # raised outside: a nursery would wrap it into a group
                nursery.cancel_scope.cancel()
        if failed is not None:
            raise failed
        if self._ce_gone is not None and not self._any_listed:
            raise self._ce_gone

    async def _do(self, builder: RequestBuilder, job: Collection, task: Task) -> Download | None:
        """Do one task; a download that has arrived is still to be landed."""
        download = None
        if self._ce_gone is not None:
            job.failed(task, f"the CE is gone: {self._ce_gone.message}")
            job.give_up(f"the CE is gone: {self._ce_gone.message}")
            return None
        try:
            if task.kind == "directory":
                await self._list(builder, job, task)
            else:
                download = await self._download(builder, job, task)
        except Refused as refused:
            job.limited(task, refused.reason)
        except TransportError as error:
            job.failed(task, error.message)
            if not task.path or not error.maybe_done:
                self._lost_in_a_row += 1
                if self._lost_in_a_row >= max(_LOST, self._workers):
                    self._ce_gone = self._ce_gone or error
        except ProtocolError as error:
            job.failed(task, error.message)
        else:
            self._lost_in_a_row = 0
        return download

    async def _land(self, job: Collection, task: Task, download: Download) -> None:
        try:
            job.fetched(task, await download.land())
        except Refused as refused:
            job.limited(task, refused.reason)
        finally:
            await download.aclose()
            self._landing.release()
            self._turns.done(job)

    async def _list(self, builder: RequestBuilder, job: Collection, task: Task) -> None:
        response = await self._ask(builder.list_directory(job.local, joined(task.path), sizes=True))
        self._any_listed = True
        if response.status == HTTPStatus.NOT_FOUND:
            if task.path:
                raise Refused("the CE cannot read this directory (HTTP 404)")
            job.close(_GONE)
            return
        if not task.path and job.streams is None:
            job.streams = await streams.of_description(self._session, job.local)
        most = self._limits.max_files
        listing = parse_sized_directory(response, most=most)
        if listing is None:
            # Most often a name that XML cannot be trusted with.
            response = await self._ask(builder.list_directory(job.local, joined(task.path)))
            listing = parse_directory(response, self._session.endpoint, most=most)
        room = self._destination.max_path - len(job.local) - 1
        job.found(task.path, listing, room)

    async def _ask(self, request: Request) -> Response:
        if not is_sendable(request):
            raise Refused("its path is longer than A-REX reads")
        return await self._session.call(request)

    async def _download(
        self, builder: RequestBuilder, job: Collection, task: Task
    ) -> Download | None:
        if task.kind == "log":
            request = builder.diagnose(job.local, "errors")
        else:
            request = builder.get_file(job.local, joined(task.path))
        if not is_sendable(request):
            raise Refused("its path is longer than A-REX reads")
        accounts = (job.account, self._account)
        for account in accounts:
            if account.left <= 0:
                raise Refused(
                    f"limits.max_total_bytes = {account.limit} is reached for {account.owner}"
                )
        place: MemberPath = (job.local.encode(), *task.path)
        download = self._downloader.download(
            request,
            Sink(self._destination, place, job.written),
            Allowance(accounts, self._limits.max_file_bytes),
            settled=job.over,
            announced=task.size if job.over else None,
        )
        arrived = False
        try:
            if await download.receive():
                await self._landing.acquire()
                arrived = True
                return download
        finally:
            if not arrived:
                await download.aclose()
        if task.kind == "file":
            raise Refused(_NOT_THERE + (_REPLACED if _REPLACEMENT in joined(task.path) else ""))
        return None


class _Turns:
    """Whose turn it is: the jobs that are abreast go round, one task each.

    Args:
        jobs: all jobs.
        abreast: how many go round at one time.
    """

    def __init__(self, jobs: Iterable[Collection], abreast: int) -> None:
        self._waiting = deque(jobs)
        self._round: deque[Collection] = deque()
        self._room = abreast
        self._busy = 0
        self._lot = trio.lowlevel.ParkingLot()

    async def next(self) -> tuple[Collection, Task] | None:
        """The next task, as soon as there is one; None when everything is done."""
        await trio.lowlevel.checkpoint()
        while True:
            while self._room and self._waiting:
                self._room -= 1
                self._round.append(self._waiting.popleft())
            if self._round:
                job = self._round.popleft()
                task = job.todo.popleft()
                job.busy += 1
                self._busy += 1
                if job.todo:
                    self._round.append(job)
                return job, task
            if not self._busy:
                self._lot.unpark_all()
                return None
            await self._lot.park()

    def done(self, job: Collection) -> None:
        """A task of this job is done; it may have left others to do."""
        job.busy -= 1
        self._busy -= 1
        if job.todo:
            if job not in self._round:
                self._round.append(job)
        else:
            # It may have given up what it still had to do.
            if job in self._round:
                self._round.remove(job)
            if not job.busy:
                self._room += 1
                job.written.clear()
        self._lot.unpark_all()
