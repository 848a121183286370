"""Exit codes."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Exit"]


class Exit(IntEnum):
    """What the command's exit code says. One that a signal ended exits with 128 and its number."""

    DONE = 0
    """What was asked is done."""
    FAILED = 1
    """What was asked failed, or failed for some of the jobs."""
    WRONG = 2
    """The arguments, or a file that they name, are wrong. (argparse's own)"""
    NO_CE = 3
    """The CE could not be asked: it is away, is none, or does not accept the credentials."""
