"""Which jobs: ids as arguments, or on standard input."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator, Sequence

from pydantic import ValidationError

from arcbackend.errors import ConfigurationError
from arcbackend.models import JobHandle, JobID

__all__ = ["add_ids", "read_ids"]


def add_ids(command: argparse.ArgumentParser) -> None:
    """Add the argument that `read_ids` reads."""
    command.add_argument(
        "ids",
        metavar="ID",
        nargs="+",
        help="a job: its URL, or the CE's own id of it. -: from standard input, one a line; there "
        "a JobHandle in JSON, too, which saves asking the CE for what it knows",
    )


def read_ids(words: Sequence[str]) -> list[JobID | JobHandle]:
    """The jobs that the arguments name.

    Raises:
        ConfigurationError: a line of standard input is no id.
    """
    found: list[JobID | JobHandle] = []
    for word in words:
        if word == "-":
            found += _from_stdin()
        else:
            found.append(JobID(word))
    return found


def _from_stdin() -> Iterator[JobID | JobHandle]:
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="backslashreplace")
    for number, line in enumerate(sys.stdin, 1):
        text = line.strip()
        if text.startswith("{"):
            try:
                yield JobHandle.model_validate_json(text)
            except ValidationError:
                raise ConfigurationError(
                    f"line {number} of standard input is no JobHandle"
                ) from None
        elif text:
            yield JobID(text)
