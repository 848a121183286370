"""A progress bar, by rich."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column

from arcbackend.cli.figures import Share, counts, sized
from arcbackend.output.progress import FetchProgress

__all__ = ["Bar"]

_INTERVAL = 0.1  # seconds
_NOTHING_YET = "asking the CE"


class Bar:
    """One line on standard error, which stays there at the end."""

    on_terminal = True

    def __init__(self) -> None:
        self._progress = Progress(
            # Where it is narrow, the counts are cut.
            BarColumn(bar_width=None, table_column=Column(min_width=5)),
            TaskProgressColumn(table_column=Column(min_width=4, no_wrap=True)),
            TextColumn("{task.fields[counts]}", markup=False),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(
                compact=True,
                elapsed_when_finished=True,
                table_column=Column(min_width=5, no_wrap=True),
            ),
            console=Console(stderr=True),
            expand=True,
            # Nothing of ours writes there meanwhile, and what goes to a pipe must go there.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._whole = self._progress.add_task("", total=None, counts=_NOTHING_YET, speed="")
        # Not shown: rich tells its speed.
        self._bytes = self._progress.add_task("", total=None, visible=False, counts="", speed="")
        self._share = Share()
        self._latest: FetchProgress | None = None
        self._next = 0.0

    def __enter__(self) -> Self:
        """Show it."""
        self._progress.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave it as it is then."""
        self._show()
        self._progress.stop()

    def __call__(self, progress: FetchProgress) -> None:
        """See `Display`."""
        self._share.note(progress)
        self._latest = progress
        if (now := time.monotonic()) >= self._next:
            self._next = now + _INTERVAL
            self._show()

    def _show(self) -> None:
        if self._latest is None:
            return
        self._progress.update(self._bytes, completed=self._latest.bytes_done)
        speed = self._progress.tasks[self._bytes].speed
        self._progress.update(
            self._whole,
            total=1,
            completed=self._share.of(self._latest),
            counts=counts(self._latest),
            speed="" if speed is None else f"{sized(speed)}/s",
        )
