"""What a fetch tells while it goes on: one frozen value for each thing that happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import trio

from arcbackend.models import JobID, JobOutput
from arcbackend.output.budget import Account

__all__ = ["FetchProgress", "Meter"]

_INTERVAL = 0.2  # seconds between two values that tell of nothing but bytes


@dataclass(frozen=True, slots=True)
class FetchProgress:
    """How far a call of ``fetch_output`` has come, and what has just happened.

    A dataclass and no model, since there is one for each file, thousands a second.

    Attributes:
        what: ``listed``: the job's session directory has been listed; ``fetched``: a file is on
            disk; ``refused``: something is not fetched; ``done``: nothing more comes of the job;
            ``bytes``: bytes of files under way have come, told at most five times a second.
        job: the job that it happened to; None with ``bytes``.
        name: of what was fetched or refused, its path in the session directory, printable (as in
            `RefusedMember`); or ``the CE's log``.
        reason: why it was refused.
        output: the manifest of the job that is done; the call returns the same.
        jobs_done: jobs of which nothing more comes.
        jobs_total: jobs asked for, each counted once.
        files_done: files on disk, the CE's logs included.
        files_refused: what is not fetched, as in `JobOutput.refused`.
        files_known: files that listings have told of so far: those done, those refused, those to
            come. It grows until every directory has been listed.
        bytes_done: bytes that have come, those of files under way included. What is lost when a
            transfer begins again, or is given up, is taken off.
        bytes_known: bytes of the files known so far: those that came, and those that the listings
            tell of the others, a log's not included; never less than ``bytes_done``. None while a
            file is to come of which no size is told (names that XML cannot carry).
    """

    what: Literal["listed", "fetched", "refused", "done", "bytes"]
    job: JobID | None
    name: str | None
    reason: str | None
    output: JobOutput | None
    jobs_done: int
    jobs_total: int
    files_done: int
    files_refused: int
    files_known: int
    bytes_done: int
    bytes_known: int | None


class Meter:
    """Counts what happens in one call, and tells it to its listener.

    A listener that raises is told nothing more, and ends the call: `failure` is what it raised.
    It is not raised where it happened, in the middle of what is being counted.

    Args:
        tell: the listener; None: nobody listens.
        account: what the call takes, bytes under way included.
        jobs: how many jobs are asked for.
    """

    def __init__(
        self, tell: Callable[[FetchProgress], None] | None, account: Account, jobs: int
    ) -> None:
        self.account = account
        self.failure: Exception | None = None
        self._tell = tell
        self._told = 0
        self._stop: Callable[[], None] | None = None
        self._jobs_total, self._jobs_done = jobs, 0
        self._files_done = self._refused = self._to_come = 0
        self._bytes_came = self._bytes_to_come = self._without_size = 0

    def start(self, nursery: trio.Nursery) -> None:
        """Tell of bytes under way until the nursery is cancelled; it is if the listener fails."""
        self._stop = nursery.cancel_scope.cancel
        if self._tell is not None:
            nursery.start_soon(self._tick)

    def expect(self, size: int | None) -> None:
        """A file is to come, of so many bytes by the listing; 0 where nobody can tell."""
        self._to_come += 1
        self._without_size += size is None
        self._bytes_to_come += size or 0

    def settle(self, size: int | None) -> None:
        """A file that was expected, with this size, is no longer to come."""
        self._to_come -= 1
        self._without_size -= size is None
        self._bytes_to_come -= size or 0

    def listed(self, job: JobID) -> None:
        """A job's session directory has been listed."""
        self._happened("listed", job)

    def fetched(self, job: JobID, name: str, size: int) -> None:
        """A file of so many bytes is on disk."""
        self._files_done += 1
        self._bytes_came += size
        self._happened("fetched", job, name)

    def refused(self, job: JobID, name: str, reason: str) -> None:
        """Something is not fetched."""
        self._refused += 1
        self._happened("refused", job, name, reason)

    def refused_untold(self) -> None:
        """The same, of which nobody is told."""
        self._refused += 1

    def done(self, job: JobID, output: JobOutput) -> None:
        """Nothing more comes of a job."""
        self._jobs_done += 1
        self._happened("done", job, output=output)

    async def _tick(self) -> None:
        while True:
            await trio.sleep(_INTERVAL)
            if self.account.taken != self._told:
                self._happened("bytes")

    def _happened(
        self,
        what: Literal["listed", "fetched", "refused", "done", "bytes"],
        job: JobID | None = None,
        name: str | None = None,
        reason: str | None = None,
        output: JobOutput | None = None,
    ) -> None:
        if self._tell is None:
            return
        self._told = taken = self.account.taken
        known = None if self._without_size else max(self._bytes_came + self._bytes_to_come, taken)
        progress = FetchProgress(
            what,
            job,
            name,
            reason,
            output,
            self._jobs_done,
            self._jobs_total,
            self._files_done,
            self._refused,
            self._files_done + self._refused + self._to_come,
            taken,
            known,
        )
        try:
            self._tell(progress)
        except Exception as error:
            self.failure, self._tell = error, None
            if self._stop is not None:
                self._stop()
