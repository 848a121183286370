"""The verb submit: create, upload, and leave nothing unexplained behind."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from http import HTTPStatus

import structlog
import trio

from arcbackend.bulk import ask_all
from arcbackend.config import ARCConfig
from arcbackend.delegations import Delegations
from arcbackend.errors import (
    AuthenticationError,
    InterCEdeError,
    ProtocolError,
    SubmissionRefused,
    TransportError,
)
from arcbackend.jobids import job_id
from arcbackend.models import CopyVars, JobHandle, Submission, SubmissionSpec
from arcbackend.plan import Chunk, Plan, copy_index
from arcbackend.protocol import responses
from arcbackend.protocol.requests import RequestBuilder
from arcbackend.recovery import Search, settled_jobs_named
from arcbackend.session import Session
from arcbackend.staging import Upload, opened_inputs

__all__ = ["submit_jobs"]

_log = structlog.get_logger("arcbackend")

_FULL = "the CE takes no more jobs now (No more jobs allowed)"
_CLEANUP_PAUSE = 1.0
# So many uploads lost one after the other, of however few connections, mean that the CE is gone.
_UPLOADS_LOST = 4


async def submit_jobs(
    session: Session,
    config: ARCConfig,
    delegations: Delegations,
    spec: SubmissionSpec,
    *,
    count: int,
    copies: Sequence[CopyVars] | None,
) -> Submission:
    """Create the jobs and stage their inputs; see `ARCBackend.submit`."""
    plan = Plan.check(spec, count, copies, token=uuid.uuid4().hex, queue=config.queue)
    with ExitStack() as stack:
        inputs = await opened_inputs(spec, config.limits.max_file_bytes, stack)
        builder = await session.builder()
        delegation = await delegations.for_jobs()
        return await _Run(session, config, plan, inputs, builder, delegation=delegation).run()


class _Run:
    """One submission under way.

    ``created`` holds every job known to exist on the CE, until it is handed out or cleaned away.
    """

    def __init__(
        self,
        session: Session,
        config: ARCConfig,
        plan: Plan,
        inputs: Sequence[Upload],
        builder: RequestBuilder,
        *,
        delegation: str | None,
    ) -> None:
        self._session = session
        self._config = config
        self._plan = plan
        self._inputs = inputs
        self._builder = builder
        self._delegation = delegation
        self._created: dict[int, str] = {}
        self._failures: dict[int, str] = {}
        self._surplus: list[str] = []
        self._unresolved: Chunk | None = None
        self._refusal: str | None = None
        self._fatal: InterCEdeError | None = None
        self._failed_in_a_row = 0
        # Once something has gone wrong: when putting it right has to be over.
        self._deadline: float | None = None

    async def run(self) -> Submission:
        try:
            await self._create_and_upload()
            if self._fatal is not None:
                raise self._fatal
            await self._drop_failed()
        except BaseException as error:
            await self._undo(error)
            raise
        return Submission(
            handles=tuple(self._handle(copy) for copy in sorted(self._created)),
            failures=dict(sorted(self._failures.items())),
        )

    async def _create_and_upload(self) -> None:
        """Create jobs request by request, while the inputs of those created are uploaded."""
        send, receive = trio.open_memory_channel[int](self._plan.count)
        async with trio.open_nursery() as nursery:

            async def guarded(work: Callable[[], Awaitable[None]]) -> None:
                # Caught here, since a nursery would wrap it into a group.
                try:
                    await work()
                except InterCEdeError as error:
                    self._fatal = self._fatal or error
                    nursery.cancel_scope.cancel()

            async def create() -> None:
                with send:
                    await self._create_all(send)

            async def upload() -> None:
                async for copy in receive:
                    await self._upload_all(copy)

            nursery.start_soon(guarded, create)
            for _ in range(self._config.concurrency):
                nursery.start_soon(guarded, upload)

    async def _create_all(self, send: trio.MemorySendChannel[int]) -> None:
        chunks = self._plan.chunks(self._builder, self._config.batches, self._delegation)
        for chunk in chunks:
            await self._create(chunk)
            for copy in chunk.copies:
                if copy in self._created:
                    if self._inputs or self._plan.vars_of(copy).secrets:
                        send.send_nowait(copy)
                elif copy not in self._failures:
                    self._failures[copy] = self._refusal or "the CE did not create this copy"
            if self._refusal is not None:
                break
        for copy in range(self._plan.count):
            if copy not in self._created and copy not in self._failures:
                self._failures[copy] = self._refusal or "the CE was not asked for this copy"

    async def _create(self, chunk: Chunk) -> None:
        """Ask for the jobs of one chunk; sets ``_refusal`` if it is no use to ask for more."""
        try:
            await self._post(chunk)
        except SubmissionRefused as error:
            if not self._created:
                raise
            self._refusal = str(error)
        except (TransportError, ProtocolError) as error:
            if self._unresolved is None:
                raise
            _log.warning(
                "submission.reply_lost",
                ce=self._session.endpoint,
                name=self._plan.name,
                why=error.message,
            )
            await self._adopt(chunk)

    async def _post(self, chunk: Chunk) -> None:
        """Send the request and record the jobs.

        A cancellation does not cut the request off: the CE would go on creating jobs that nobody
        knows. It waits for the reply, for the clean-up time at most; then they can be removed.
        """
        await trio.lowlevel.checkpoint()  # a cancelled submission asks for nothing
        error: InterCEdeError | None = None
        shield = trio.CancelScope(shield=True)
        done = trio.Event()

        async def ask() -> None:
            nonlocal error
            try:
                with shield:
                    self._unresolved = chunk
                    response = await self._session.call(chunk.request)
                    self._record(
                        chunk,
                        responses.parse_new_jobs(
                            response, len(chunk.copies), self._session.endpoint
                        ),
                    )
                    self._unresolved = None
            except InterCEdeError as raised:
                error = raised
                if _nothing_done(raised):
                    self._unresolved = None
            done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            try:
                await done.wait()
            except trio.Cancelled:
                shield.deadline = self._share(1)
                raise
        if error is not None:
            raise error

    def _record(self, chunk: Chunk, answer: responses.NewJobs) -> None:
        fewer = len(answer.jobs) < len(chunk.copies) and not answer.full
        if fewer and not chunk.alike:
            # Which is missing cannot be told from the answer; their names will tell.
            raise ProtocolError(
                f"{len(answer.jobs)} answers to {len(chunk.copies)} descriptions",
                ce=self._session.endpoint,
                operation=chunk.request.operation.value,
            )
        for copy, job in zip(chunk.copies, answer.jobs, strict=False):
            if job.local is not None:
                self._created[copy] = job.local
            elif job.failure is not None:
                self._failures[copy] = job.failure
        if answer.full:
            self._refusal = _FULL
        elif fewer:
            # The form that a CE's limit takes with instances=: fewer are made, without a word.
            made = f"{len(answer.jobs)} of {len(chunk.copies)} copies"
            self._refusal = f"the CE made only {made}: it is at its limit"

    async def _adopt(self, chunk: Chunk) -> None:
        """Take over the jobs of a request whose reply was lost."""
        search = await self._find(chunk)
        self._take(chunk, search.found)
        if not search.settled:
            raise TransportError(
                "the CE's reply to a submission was lost, and the CE could not be asked in time "
                f"which of up to {len(chunk.copies)} jobs exist"
                + (f" ({search.why})" if search.why else ""),
                ce=self._session.endpoint,
            )
        self._unresolved = None
        self._deadline = None
        for copy in chunk.copies:
            if copy not in self._created:
                self._failures[copy] = (
                    "the CE's reply was lost, and it has no such job; should it come late: "
                    f"find({self._plan.name!r})"
                )

    async def _find(self, chunk: Chunk) -> Search:
        return await settled_jobs_named(
            self._session,
            self._plan.name,
            expected=len(chunk.copies),
            known=frozenset(self._created.values()),
            deadline=self._share(2),
        )

    def _take(self, chunk: Chunk, found: dict[str, str]) -> None:
        """Note jobs that were found as this submission's, under their copy index."""
        free = (copy for copy in chunk.copies if copy not in self._created)
        for local, name in sorted(found.items()):
            index = copy_index(self._plan.name, name)
            copy = next(free, None) if index is None else index
            if copy is None or copy not in chunk.copies or copy in self._created:
                # More than was asked for. It is ours all the same: it must not be left behind.
                self._surplus.append(local)
            else:
                self._created[copy] = local

    def _share(self, thirds: int) -> float:
        """When so many thirds of the time for putting things right are over.

        One for a reply that is under way, two for finding out what exists, three for removing it.
        """
        cleanup = self._config.timeouts.cleanup
        if self._deadline is None:
            self._deadline = trio.current_time() + cleanup
        return self._deadline - cleanup * (3 - thirds) / 3

    def _uploads(self, copy: int) -> list[Upload]:
        secrets = self._plan.vars_of(copy).secrets.items()
        return [
            *self._inputs,
            *(Upload.of_bytes(name, secret.get_secret_value()) for name, secret in secrets),
        ]

    async def _upload_all(self, copy: int) -> None:
        for upload in self._uploads(copy):
            try:
                with trio.fail_after(self._config.limits.transfer_timeout):
                    response = await self._session.call(
                        self._builder.put_file(self._created[copy], upload.name),
                        content=upload.content,
                        content_length=upload.size,
                    )
            except AuthenticationError:
                raise
            except (TransportError, trio.TooSlowError) as error:
                why = str(error) or f"not done after {self._config.limits.transfer_timeout:g} s"
                self._failures[copy] = f"upload of {upload.name} failed: {why}"
                # One copy's bad luck, or the CE is gone: then each of thousands of copies would
                # try and wait for itself.
                self._failed_in_a_row += 1
                if self._failed_in_a_row >= max(_UPLOADS_LOST, self._config.concurrency):
                    raise TransportError(
                        f"{self._failed_in_a_row} uploads in a row failed; the last: {why}",
                        ce=self._session.endpoint,
                    ) from error
                return
            except (InterCEdeError, OSError) as error:
                self._failures[copy] = f"upload of {upload.name} failed: {error}"
                return
            self._failed_in_a_row = 0
            if response.status == HTTPStatus.NOT_FOUND:
                self._failures[copy] = f"upload of {upload.name} failed: the CE lost the job"
                return

    async def _drop_failed(self) -> None:
        """Remove the jobs whose upload failed, and those that nobody asked for."""
        failed = {copy: self._created[copy] for copy in self._failures if copy in self._created}
        left = await self._remove([*failed.values(), *self._surplus])
        for copy, local in failed.items():
            del self._created[copy]
            if local in left:
                (job,) = self._ids([local])
                self._failures[copy] += f"; {job} could not be removed from the CE"
        if surplus := self._ids([local for local in self._surplus if local in left]):
            _log.warning(
                "submission.surplus", ce=self._session.endpoint, name=self._plan.name, left=surplus
            )
        if left and not self._created:
            raise TransportError(
                "every upload failed, and the jobs could not be removed",
                ce=self._session.endpoint,
                jobs=self._ids(left),
            )

    async def _undo(self, error: BaseException) -> None:
        """Remove every job of this submission from the CE, whatever is going on around."""
        lost = False
        with trio.CancelScope(shield=True):
            if self._unresolved is not None:
                try:
                    search = await self._find(self._unresolved)
                except InterCEdeError:
                    lost = True
                else:
                    self._take(self._unresolved, search.found)
                    lost = not search.settled
            jobs = [*self._created.values(), *self._surplus]
            left = await self._remove(jobs)
        if not jobs and not lost:
            return
        _log.warning(
            "submission.undone",
            ce=self._session.endpoint,
            name=self._plan.name,
            removed=len(jobs) - len(left),
            left=left[:10],
            left_count=len(left),
            unresolved=lost,
        )
        if isinstance(error, InterCEdeError):
            error.jobs = tuple(dict.fromkeys((*error.jobs, *self._ids(left))))
            error.submission = self._plan.name if lost else None
        elif left or lost:
            error.add_note(
                f"arcbackend: submission {self._plan.name} left on {self._session.endpoint}: "
                f"{', '.join(self._ids(left)) or 'possibly jobs of this name'}"
            )

    async def _remove(self, ids: Sequence[str]) -> list[str]:
        """Kill and clean; returns the ids for which the CE did not take both.

        Both are marks: the CE removes a job marked so as soon as it is dead. A mark set while A-REX
        moves a job that is just being accepted can be lost, so they are set twice.
        """
        left = list(ids)
        batch = self._config.batches.ids
        rounds = 2 if ids else 0
        with trio.CancelScope(deadline=self._share(3), shield=True):
            while rounds:
                try:
                    killed = await ask_all(self._session, self._builder.kill, ids, batch=batch)
                    cleaned = await ask_all(self._session, self._builder.clean, ids, batch=batch)
                except AuthenticationError:
                    break
                except InterCEdeError:
                    pass  # again, until the time is over
                else:
                    rounds -= 1
                    left = [
                        local
                        for local in ids
                        if not (_taken(killed[local].code) and _taken(cleaned[local].code))
                    ]
                if rounds:
                    await trio.sleep(_CLEANUP_PAUSE)
        return left

    def _ids(self, locals_: Sequence[str]) -> tuple[str, ...]:
        return tuple(job_id(self._session.endpoint, local) for local in locals_)

    def _handle(self, copy: int) -> JobHandle:
        spec = self._plan.spec
        return JobHandle(
            id=job_id(self._session.endpoint, self._created[copy]),
            copy_index=copy,
            name=self._plan.name_of(copy),
            stdout=spec.stdout,
            stderr=spec.stderr,
        )


def _nothing_done(error: InterCEdeError) -> bool:
    """Whether the failed request certainly created no job."""
    if isinstance(error, TransportError):
        return not error.maybe_done
    return not isinstance(error, ProtocolError)


def _taken(code: int) -> bool:
    return code < HTTPStatus.BAD_REQUEST or code == HTTPStatus.NOT_FOUND
