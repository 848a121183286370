"""How far a fetch has come, in figures for people."""

from __future__ import annotations

from arcbackend.models import JobID
from arcbackend.output.progress import FetchProgress

__all__ = ["Share", "counts", "sized"]

_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")
_THOUSAND = 1000
# What could have come in the time that a file costs whatever its size: 8 connections bring about
# 1,000 files a second, or 100 MB.
_FILE_BYTES = 100_000


class Share:
    """Estimates which share of the work is done.

    Jobs are listed as their turn comes, so that what is known of files and bytes is about those
    listed so far: of the others as much is assumed.
    """

    def __init__(self) -> None:
        self._listed: set[JobID] = set()

    def note(self, progress: FetchProgress) -> None:
        """Take note; of every value that comes."""
        if progress.what in ("listed", "done") and progress.job is not None:
            self._listed.add(progress.job)

    def of(self, progress: FetchProgress) -> float:
        """From 0 to 1."""
        done: float = progress.files_done + progress.files_refused
        known: float = progress.files_known
        if progress.bytes_known is not None:
            done += progress.bytes_done / _FILE_BYTES
            known += progress.bytes_known / _FILE_BYTES
        listed = len(self._listed) / progress.jobs_total
        return listed * done / known if known else listed


def counts(progress: FetchProgress) -> str:
    """The counts, on a line."""
    parts = [
        f"{progress.jobs_done}/{progress.jobs_total} jobs",
        f"{progress.files_done}/{progress.files_known} files",
        sized(progress.bytes_done)
        if progress.bytes_known is None
        else _of(sized(progress.bytes_done), sized(progress.bytes_known)),
    ]
    if progress.jobs_total == 1:
        del parts[0]
    if progress.files_refused:
        parts.append(f"{progress.files_refused} not fetched")
    return ", ".join(parts)


def sized(amount: float) -> str:
    """Bytes, in three digits."""
    unit = 0
    # (999.5 would be written as 1000)
    while round(amount) >= _THOUSAND and unit < len(_UNITS) - 1:
        amount /= _THOUSAND
        unit += 1
    digits = 0 if unit == 0 or round(amount, 1) >= 100 else 1 if round(amount, 2) >= 10 else 2  # noqa: PLR2004
    return f"{amount:.{digits}f} {_UNITS[unit]}"


def _of(part: str, whole: str) -> str:
    """With the unit once, if it is one."""
    number, unit = part.split()
    return f"{number}/{whole}" if whole.endswith(f" {unit}") else f"{part}/{whole}"
