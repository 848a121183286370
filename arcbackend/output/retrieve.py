"""The verb fetch_output: many jobs' members, side by side, each job in its turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from http import HTTPStatus
from pathlib import Path

import structlog
import trio

from arcbackend.config import ARCConfig
from arcbackend.errors import ConfigurationError, InterCEdeError, ProtocolError, TransportError
from arcbackend.items import FEW
from arcbackend.jobids import resolve
from arcbackend.listing import LiveListing
from arcbackend.models import JobHandle, JobID, JobOutput
from arcbackend.output import streams
from arcbackend.output.budget import Account, Allowance
from arcbackend.output.collection import Collection, Task
from arcbackend.output.containment import MemberPath, Refused, joined
from arcbackend.output.directory import GONE, UNREADABLE, check_sendable, list_directory
from arcbackend.output.landing import Landing
from arcbackend.output.progress import FetchProgress, Meter
from arcbackend.output.transfer import Download, Downloader
from arcbackend.output.writer import Destination, Sink
from arcbackend.protocol.requests import RequestBuilder
from arcbackend.session import Session
from arcbackend.states import TERMINAL
from arcbackend.tasks import run_all

__all__ = ["Retriever"]

_log = structlog.get_logger("arcbackend")

# The job's delegated proxy with its key, which the runtime environment ENV/PROXY leaves there.
_OWN = frozenset({b"user.proxy"})

# A-REX's own state of a job that is over, however it ended (job.<id>.status in its control
# directory).
_OVER = b"FINISHED"
# What a libxml2 of 2.14 or newer, in the CE, makes of a control character.
_REPLACEMENT = "\ufffd".encode()
_REPLACED = ", or its name holds a control character, which this CE lists as \ufffd"
# Jobs whose members take turns; the next job comes in when one is done. Their listings are what
# a call holds in memory.
_ABREAST = 4
# So many jobs in a row that could not even be listed mean that the CE is gone.
_LOST = 4
# Those that receive large files: the second goes on while the first writes.
_THREADS = 2


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

    async def fetch(
        self,
        ids: Sequence[JobID | JobHandle],
        dest: Path,
        progress: Callable[[FetchProgress], None] | None = None,
    ) -> dict[JobID, JobOutput]:
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
        own = _OWN if self._config.auth != "token" else frozenset()
        meter = Meter(progress, Account(limits.max_total_bytes, "the call"), len(refs))
        jobs = [
            Collection(ref, ref.local in over, known.get(ref.local), limits, meter, own=own)
            for ref in refs
        ]
        destination = await self._open(dest)
        try:
            outputs = await _Fetch(self._session, self._config, destination, jobs, meter).run()
            return {ref.id: outputs[ref.id] for ref in refs}
        finally:
            destination.close()

    async def _over(self, ids: Sequence[str]) -> set[str]:
        """Tell which jobs are over now.

        Of many by the live listing, which names all jobs of the identity; of few one by one, since
        a consumer may fetch each job as it ends.
        """
        if len(ids) > FEW:
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
        meter: Meter,
    ) -> None:
        self._session = session
        self._limits = config.limits
        self._workers = config.concurrency
        self._destination = destination
        self._account = meter.account
        self._meter = meter
        threads = trio.CapacityLimiter(_THREADS)  # of this call: another's disk may hang
        self._downloader = Downloader(session, config.limits, config.retries, threads)
        self._landing = Landing(config.concurrency)
        self._turns = _Turns(jobs, _ABREAST * config.concurrency, self._landing.flush)
        self._lost_in_a_row = 0
        self._any_listed = False
        self._ce_gone: InterCEdeError | None = None
        self._outputs: dict[JobID, JobOutput] = {}

    async def run(self) -> dict[JobID, JobOutput]:
        """Do everything; the manifests, in the order in which jobs were done.

        Raises:
            AuthenticationError: the whole operation failed.
            TransportError: the CE could not be reached for a single job.
            Exception: what the listener raised.
        """
        builder = await self._session.builder()
        async with trio.open_nursery() as nursery:
            self._meter.start(nursery)
            failed = await self._work(builder)
            nursery.cancel_scope.cancel()
        # Raised outside: a nursery would wrap it into a group.
        if self._meter.failure is not None:
            raise self._meter.failure
        if failed is not None:
            raise failed
        if self._ce_gone is not None and not self._any_listed:
            raise self._ce_gone
        return self._outputs

    async def _work(self, builder: RequestBuilder) -> Exception | None:
        async def worker(_number: int) -> None:
            while (turn := await self._turns.next()) is not None:
                job, task = turn
                try:
                    download = await self._do(builder, job, task)
                finally:
                    self._turns.asked(job)
                # Not if cancelled: then this file is not here, and what has arrived of the job's
                # others may still land.
                if download is not None:
                    await self._landing.add(download, partial(self._landed, job, task, download))
                elif self._turns.done(job):
                    self._finish(job)

        failed: Exception | None = None
        try:
            # A nursery of its own for what is written while the workers go on; none of it raises.
            async with trio.open_nursery() as nursery:
                self._landing.start(nursery)
                try:
                    await run_all(worker, range(self._workers), workers=self._workers)
                except Exception as error:
                    failed = error
                    nursery.cancel_scope.cancel()
        finally:
            await self._landing.aclose()
        return failed

    def _finish(self, job: Collection) -> None:
        output = self._outputs[job.ref.id] = job.manifest(self._destination)
        self._meter.done(job.ref.id, output)

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
                if download is None:
                    job.absent(task)
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

    def _landed(self, job: Collection, task: Task, download: Download) -> None:
        try:
            job.fetched(task, download.landed())
        except Refused as refused:
            job.limited(task, refused.reason)
        if self._turns.done(job):
            self._finish(job)

    async def _list(self, builder: RequestBuilder, job: Collection, task: Task) -> None:
        listing = await list_directory(
            self._session, builder, job.local, task.path, most=self._limits.max_files
        )
        self._any_listed = True
        if listing is None:
            if task.path:
                raise Refused("the CE cannot read this directory (HTTP 404)")
            job.close(GONE)
            return
        if not task.path and job.streams is None:
            job.streams = await streams.of_description(self._session, job.local)
        room = self._destination.max_path - len(job.local) - 1
        job.found(task.path, listing, room)

    async def _download(
        self, builder: RequestBuilder, job: Collection, task: Task
    ) -> Download | None:
        if task.kind == "log":
            request = builder.diagnose(job.local, "errors")
        else:
            request = builder.get_file(job.local, joined(task.path))
        check_sendable(request)
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
            if arrived := await download.receive():
                return download
        finally:
            if not arrived:
                await download.aclose()
        if task.kind == "file":
            raise Refused(UNREADABLE + (_REPLACED if _REPLACEMENT in joined(task.path) else ""))
        return None


class _Turns:
    """Whose turn it is: the jobs that are abreast go round, one task each.

    Args:
        jobs: all jobs.
        abreast: how many go round at one time.
        pause: called when for now there is nothing more to do.
    """

    def __init__(self, jobs: Iterable[Collection], abreast: int, pause: Callable[[], None]) -> None:
        self._waiting = deque(jobs)
        self._round: deque[Collection] = deque()
        self._most = abreast
        self._abreast: dict[Collection, int] = {}  # with the requests that are under way
        self._busy = 0
        self._pause = pause
        self._lot = trio.lowlevel.ParkingLot()

    async def next(self) -> tuple[Collection, Task] | None:
        """The next task, as soon as there is one; None when everything is done."""
        await trio.lowlevel.checkpoint()
        while True:
            while self._waiting and len(self._abreast) < self._most:
                job = self._waiting.popleft()
                self._abreast[job] = 0
                self._round.append(job)
            if self._round:
                job = self._round.popleft()
                task = job.todo.popleft()
                self._abreast[job] += 1
                job.busy += 1
                self._busy += 1
                if job.todo:
                    self._round.append(job)
                return job, task
            if not self._busy:
                self._lot.unpark_all()
                return None
            self._pause()
            await self._lot.park()

    def asked(self, job: Collection) -> None:
        """A request for this job is over; what it brought may not be written yet."""
        self._abreast[job] -= 1
        self._let_go(job)

    def done(self, job: Collection) -> bool:
        """A task of this job is done, and may have left others to do; True if it was the last."""
        job.busy -= 1
        self._busy -= 1
        self._let_go(job)
        if job.todo:
            if job not in self._round:
                self._round.append(job)
            return False
        # It may have given up what it still had to do.
        if job in self._round:
            self._round.remove(job)
        if job.busy:
            return False
        job.written.clear()
        return True

    def _let_go(self, job: Collection) -> None:
        """Let the next job come in if there is nothing more to ask for."""
        if not job.todo and self._abreast.get(job) == 0:
            del self._abreast[job]
        self._lot.unpark_all()
