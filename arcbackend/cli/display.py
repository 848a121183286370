"""How far a fetch has come, for people: on standard error, so that standard output is the result.

A bar if standard error is a terminal and rich is installed (the extra ``cli``), else a line now
and then.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import AbstractContextManager
from importlib.util import find_spec
from types import TracebackType
from typing import Protocol, Self

from arcbackend.cli.figures import counts
from arcbackend.output.progress import FetchProgress

__all__ = ["Display", "Lines", "display"]

_INTERVAL = 5.0  # seconds between two lines


class Display(AbstractContextManager["Display"], Protocol):
    """Shows what it is called with until the context is left."""

    on_terminal: bool
    """Whether it keeps a part of the terminal to itself until then."""

    def __call__(self, progress: FetchProgress) -> None:
        """Show it, if it is time to."""
        ...


def display(*, quiet: bool, plain: bool) -> Display:
    """What can be had here.

    Args:
        quiet: show nothing.
        plain: no bar, since others write to the terminal.
    """
    if quiet:
        return Lines(interval=None)
    if plain or not sys.stderr.isatty() or os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        return Lines()
    if find_spec("rich") is None:
        return Lines()
    from arcbackend.cli.bar import Bar  # noqa: PLC0415 - rich is optional

    return Bar()


class Lines:
    """A line now and then, and one at the end.

    Args:
        interval: seconds between two; None: not a single one.
    """

    on_terminal = False

    def __init__(self, interval: float | None = _INTERVAL) -> None:
        self._interval = interval
        self._next = 0.0
        self._untold: FetchProgress | None = None

    def __enter__(self) -> Self:
        """The first line comes after the interval."""
        self._next = time.monotonic() + (self._interval or 0)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """The last line."""
        self._tell()

    def __call__(self, progress: FetchProgress) -> None:
        """See `Display`."""
        if self._interval is None:
            return
        self._untold = progress
        if (now := time.monotonic()) >= self._next:
            self._next = now + self._interval
            self._tell()

    def _tell(self) -> None:
        if self._untold is not None:
            sys.stderr.write(f"{counts(self._untold)}\n")
            sys.stderr.flush()
            self._untold = None
