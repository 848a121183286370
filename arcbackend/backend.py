"""`ARCBackend`: the verbs of the contract on one CE."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from arcbackend.config import ARCConfig
from arcbackend.counts import JobCounts
from arcbackend.credentials import CredentialProvider, CredentialRequirements
from arcbackend.delegations import Delegations
from arcbackend.describe import Describer
from arcbackend.details import JobDetails
from arcbackend.diagnosis import Diagnoser
from arcbackend.ends import Ends
from arcbackend.items import ItemReader
from arcbackend.jobids import job_id, resolve
from arcbackend.lifecycle.policy import Policy
from arcbackend.listing import LiveListing
from arcbackend.load import read_counts
from arcbackend.models import (
    CopyVars,
    Diagnostics,
    FileTail,
    JobHandle,
    JobID,
    JobOutput,
    JobStatus,
    OpOutcome,
    Submission,
    SubmissionSpec,
)
from arcbackend.output.progress import FetchProgress
from arcbackend.output.retrieve import Retriever
from arcbackend.output.tail import Tailer
from arcbackend.plan import copy_index
from arcbackend.polling.poller import Poller, open_poller
from arcbackend.recovery import all_jobs_named
from arcbackend.removal import Remover
from arcbackend.session import Session
from arcbackend.status import StatusReader
from arcbackend.submit import submit_jobs

__all__ = ["ARCBackend"]


class ARCBackend:
    """Jobs on one ARC 7 CE, as one identity.

    An async context manager, run under trio. Construction does no I/O; what it holds is
    connections, closed by ``aclose`` (idempotent) or at the end of the ``async with`` block. It
    keeps no store of jobs: a `JobHandle`, or a `JobID`, drives any verb from any process. (Beside
    connections it remembers, of a bounded number of jobs, how they ended, which saves requests and
    changes no answer.)

    Every ``ids`` may mix handles and ids in any of the accepted forms: the canonical job URL, the
    same with another REST version, ``https://host:port/arex/<id>``, and a bare ``<id>``. Results
    have one entry per distinct job asked, in the order asked.

    Args:
        config: the configuration; a mapping is validated as `ARCConfig`.
        credentials: the consumer's provider; the consumer opens and closes it.

    Raises:
        ConfigurationError: the configuration cannot work.
    """

    destructive = False
    """`fetch_output` leaves the CE as it is."""

    def __init__(
        self, config: ARCConfig | Mapping[str, Any], credentials: CredentialProvider
    ) -> None:
        if not isinstance(config, ARCConfig):
            config = ARCConfig.from_dict(dict(config))
        self._config = config
        self._session = Session(config, credentials)
        self._delegations = Delegations(self._session, config)
        self._listing = LiveListing(self._session, config.live_listing, config.live_listing_budget)
        ids = config.batches.ids
        self._items = ItemReader(self._session, config.timeouts.read)
        self._ends = Ends(self._session, self._items)
        self._describer = Describer(self._session, self._items)
        self._diagnoser = Diagnoser(
            self._session, self._listing, self._items, workers=config.concurrency
        )
        self._reader = StatusReader(self._session, self._listing, self._ends, ids)
        self._remover = Remover(self._session, self._listing, self._reader, ids)
        self._retriever = Retriever(self._session, self._listing, config)
        self._tailer = Tailer(self._session, config)

    def __repr__(self) -> str:
        """The CE's endpoint."""
        return f"<ARCBackend {self._config.endpoint}>"

    async def __aenter__(self) -> Self:
        """Nothing is opened before it is needed."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. Idempotent."""
        await self._session.aclose()

    @property
    def config(self) -> ARCConfig:
        """The configuration."""
        return self._config

    @property
    def credential_requirements(self) -> CredentialRequirements:
        """What the configuration needs: kinds and audience."""
        return self._session.wallet.requirements()

    async def submit(
        self, spec: SubmissionSpec, count: int = 1, *, copies: Sequence[CopyVars] | None = None
    ) -> Submission:
        """Create jobs and stage their inputs.

        Input files are consumed before this returns. Jobs whose upload fails are killed and cleaned
        on the CE. If the whole fails or is cancelled, every job already created is; this takes
        ``timeouts.cleanup`` seconds at most, also when cancelled (what is left then is logged: an
        exception would be swallowed by the cancel scope). When the CE's reply to a request
        is lost, the jobs it created are looked for by their name and taken over.

        Args:
            spec: what to run.
            count: how many like copies.
            copies: one job per element, instead of ``count``.

        Raises:
            ConfigurationError: both count and copies.
            SubmissionRefused: ARC cannot honour the spec (then no job exists), or the CE refused
                the request as a whole.
            AuthenticationError, TransportError, ProtocolError: the whole failed. ``jobs`` names
                what could not be removed from the CE, ``submission`` what to `find` later.
        """
        return await submit_jobs(
            self._session, self._config, self._delegations, spec, count=count, copies=copies
        )

    async def status(self, ids: Sequence[JobID | JobHandle]) -> Mapping[JobID, JobStatus]:
        """Tell the status of each job.

        The CE's status documents are up to a minute old; a live listing corrects them, so that a
        job that is over is not reported as running (``live_listing`` in the configuration).

        Raises:
            ConfigurationError: an id that is none, or of another CE.
            AuthenticationError, TransportError, ProtocolError: the whole failed.
        """
        refs = resolve(self._config.endpoint, ids)
        return await self._reader.statuses(refs)

    async def kill(self, ids: Sequence[JobID | JobHandle]) -> Mapping[JobID, OpOutcome]:
        """Kill jobs; what each case answers: docs/reference/outcomes.md.

        ``ok`` means that the CE has taken the request, and a job that is not over yet will end as
        ABORTED, within minutes on a busy CE. Needs the scopes compute.read and compute.cancel.

        Raises:
            ConfigurationError: an id that is none, or of another CE.
            AuthenticationError, TransportError, ProtocolError: the whole failed.
        """
        refs = resolve(self._config.endpoint, ids)
        return await self._remover.kill(refs)

    async def purge(self, ids: Sequence[JobID | JobHandle]) -> Mapping[JobID, OpOutcome]:
        """Remove jobs that are over, with their files; others are refused, not touched.

        Needs the scopes compute.read and compute.cancel.

        Raises:
            ConfigurationError: an id that is none, or of another CE.
            AuthenticationError, TransportError, ProtocolError: the whole failed.
        """
        refs = resolve(self._config.endpoint, ids)
        return await self._remover.purge(refs)

    async def fetch_output(
        self,
        ids: Sequence[JobID | JobHandle],
        dest: Path | str,
        *,
        progress: Callable[[FetchProgress], None] | None = None,
    ) -> Mapping[JobID, JobOutput]:
        """Fetch what each job left into ``dest/<the CE's id of the job>/``.

        Everything that the job kept is streamed to disk file by file, within the configuration's
        `Limits`; what is not fetched is told, member by member. The CE is left as it is: fetching
        again gives the same, and replaces what is there. A job that is not over is fetched as far
        as it got, and marked incomplete. Needs the scope compute.read. docs/explanation/outputs.md
        tells how hostile names, links and limits are dealt with.

        Args:
            ids: the jobs. With a bare id, the CE is asked which files are stdout and stderr.
            dest: a directory; made if it is not there.
            progress: called with each thing that happens, as it happens: for every file, and while
                a file is under way, at most five times a second. It is called in the event loop,
                which it holds up; it must return soon and must not raise. If it does, the fetch
                ends, and what it raised comes out of this call.

        Raises:
            ConfigurationError: an id that is none, or of another CE; ``dest`` cannot be written to.
            AuthenticationError, TransportError, ProtocolError: the whole failed. What was fetched
                before is on disk.
        """
        return await self._retriever.fetch(ids, Path(dest), progress)

    async def tail(
        self,
        id: JobID | JobHandle,  # noqa: A002  (the names that callers write)
        name: str | None = None,
        bytes: int = 4096,  # noqa: A002
    ) -> FileTail:
        """Read the end of a file of a job, running or over, without the rest.

        Repeatable: each call looks again. Nothing is written to disk. What cannot be read is told
        in ``reason``: an unknown job, a file that is not there (yet), one that is no regular file,
        or that a link leads to. Needs the scope compute.read. docs/explanation/outputs.md tells
        what it costs.

        Args:
            id: the job.
            name: the file's path in the session directory, with ``/`` between its names; bytes that
                are no UTF-8 as `os.fsdecode` makes them. None: the job's standard output; with a
                bare id, the CE is asked which file that is.
            bytes: how much to read, at most; 1 to ``limits.max_answer_bytes``.

        Raises:
            ConfigurationError: an id that is none, or of another CE; ``bytes`` out of range.
            AuthenticationError, TransportError, ProtocolError: the CE could not be asked.
        """
        return await self._tailer.tail(id, name, bytes)

    async def counts(self) -> JobCounts:
        """Tell how many jobs run and wait in the configured queue, or in all queues if there is
        none.

        From the information that the CE publishes of itself, up to a minute old; this needs no
        credentials. docs/explanation/load.md tells what the numbers mean: they are not free slots.

        Raises:
            ConfigurationError: the CE has no such queue; the message names those it has.
            TransportError: the CE could not be asked.
            ProtocolError: it publishes no numbers, or what cannot be made sense of.
        """
        return await read_counts(self._session, self._config.queue)

    async def diagnostics(self, ids: Sequence[JobID | JobHandle]) -> Mapping[JobID, Diagnostics]:
        """Tell what the CE's records say of jobs, and why those failed that did.

        For jobs in any state. One job takes three to six requests; of many, one for each 500 and
        one for each job whose record leaves open why it failed, or is too new to be published.
        Needs the scope compute.read. docs/explanation/diagnostics.md tells what is read, and lists
        the reasons.

        Raises:
            ConfigurationError: an id that is none, or of another CE.
            AuthenticationError, TransportError, ProtocolError: the whole failed. What fails for one
                job is its ``reason``.
        """
        return await self._diagnoser.diagnose(resolve(self._config.endpoint, ids))

    async def describe(self, ids: Sequence[JobID | JobHandle]) -> Mapping[JobID, JobDetails]:
        """Tell what the CE knows of jobs beyond their state: exit code, node, times, usage.

        From the CE's job documents, up to a minute old, 500 jobs a request; of up to eight jobs,
        also from the records that these are made of, which are live and have more. Needs the scope
        compute.read.

        Raises:
            ConfigurationError: an id that is none, or of another CE.
            AuthenticationError, TransportError, ProtocolError: the whole failed.
        """
        return await self._describer.describe(resolve(self._config.endpoint, ids))

    async def find(self, submission: str) -> Sequence[JobHandle]:
        """Find the jobs of a submission by its name, on the CE.

        For a submission whose reply was lost while the CE could not be asked: the exception's
        ``submission`` is the name. Not cheap: it looks at every job of the identity.

        Returns:
            The handles, without the names of stdout and stderr, by copy index; copies that share
            one name are numbered as they come.

        Raises:
            AuthenticationError, TransportError, ProtocolError: the whole failed.
        """
        found = await all_jobs_named(self._session, submission)
        handles = []
        for position, (local, name) in enumerate(sorted(found.items())):
            index = copy_index(submission, name)
            handles.append(
                JobHandle(
                    id=job_id(self._config.endpoint, local),
                    copy_index=position if index is None else index,
                    name=name,
                )
            )
        return sorted(handles, key=lambda handle: handle.copy_index)

    def poller(self, policy: Policy | Path | str = "report") -> AbstractAsyncContextManager[Poller]:
        """Follow jobs by batched polls: ``async with backend.poller() as poller``.

        The poller's tasks end with the block, and what the block raises comes out as it is.

        Args:
            policy: what to do about held, lost and killed jobs: a `Policy`, the path of its file,
                or the name of one that ships; the default reports held jobs and kills nothing.

        Raises:
            ConfigurationError: there is no such policy, or it is none.
        """
        loaded = Policy.load(policy)
        return open_poller(
            lambda: Poller(
                session=self._session,
                config=self._config,
                listing=self._listing,
                ends=self._ends,
                remover=self._remover,
                retriever=self._retriever,
                delegations=self._delegations,
                policy=loaded,
            )
        )
