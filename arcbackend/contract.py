"""interCEde's contract as runtime-checkable protocols: what a backend is judged by.

arcbackend imports nothing from interCEde: a backend qualifies by having the right methods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from arcbackend.counts import JobCounts
from arcbackend.models import (
    CopyVars,
    Diagnostics,
    JobHandle,
    JobID,
    JobOutput,
    JobStatus,
    OpOutcome,
    Submission,
    SubmissionSpec,
)

__all__ = [
    "Cancellable",
    "JobBackend",
    "LoadReporter",
    "Monitor",
    "OutputRetriever",
    "Purgeable",
    "Submitter",
    "SupportsLiveDiagnostics",
]


@runtime_checkable
class Submitter(Protocol):
    """Creates jobs."""

    async def submit(
        self, spec: SubmissionSpec, count: int = 1, *, copies: Sequence[CopyVars] | None = None
    ) -> Submission:
        """Create ``count`` copies of one spec, or one job per element of ``copies``."""
        ...


@runtime_checkable
class Monitor(Protocol):
    """Tells the status of jobs."""

    async def status(self, ids: Sequence[JobID | JobHandle]) -> Mapping[JobID, JobStatus]:
        """The status of each job; unknown and expired ids are UNKNOWN."""
        ...


@runtime_checkable
class JobBackend(Submitter, Monitor, Protocol):
    """The least that a backend has."""


@runtime_checkable
class OutputRetriever(Protocol):
    """Fetches what jobs left."""

    destructive: bool
    """Whether fetching removes the output from the CE."""

    async def fetch_output(
        self, ids: Sequence[JobID | JobHandle], dest: Path | str
    ) -> Mapping[JobID, JobOutput]:
        """Fetch the output of each job below ``dest``."""
        ...


@runtime_checkable
class Cancellable(Protocol):
    """Kills jobs."""

    async def kill(self, ids: Sequence[JobID | JobHandle]) -> Mapping[JobID, OpOutcome]:
        """Kill jobs, with one outcome each."""
        ...


@runtime_checkable
class Purgeable(Protocol):
    """Removes jobs that are over."""

    async def purge(self, ids: Sequence[JobID | JobHandle]) -> Mapping[JobID, OpOutcome]:
        """Remove jobs and their files from the CE, with one outcome each."""
        ...


@runtime_checkable
class LoadReporter(Protocol):
    """Tells how busy a CE is."""

    async def counts(self) -> JobCounts:
        """How many jobs run and wait."""
        ...


@runtime_checkable
class SupportsLiveDiagnostics(Protocol):
    """Tells what is wrong with jobs, running or over."""

    async def diagnostics(self, ids: Sequence[JobID | JobHandle]) -> Mapping[JobID, Diagnostics]:
        """What the CE's records say of each job."""
        ...
