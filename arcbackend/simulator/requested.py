"""What a job description asks for, as it is read, in ARC's words and with its defaults."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

__all__ = [
    "NOT_SAID",
    "Input",
    "Language",
    "Output",
    "Refused",
    "Request",
    "integer",
    "is_url",
    "remote",
]

Language: TypeAlias = Literal["adl", "xrsl"]

NOT_SAID: Final = -1
"""What ARC has for a number that nobody gave."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_PATH_SCHEMES = ("file", "urllist", "link")
_INTEGER = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]{1,19})")


@dataclass(frozen=True, slots=True)
class Input:
    """A file that the job needs.

    Attributes:
        name: in the session directory.
        source: URL that the CE fetches it from; None: the client uploads it.
        executable: whether it is made executable.
    """

    name: str
    source: str | None = None
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Output:
    """A file that the job leaves.

    Attributes:
        name: in the session directory; a closing ``/`` names a directory, ``/`` all of it.
        target: URL that the CE stores it at; None: it is kept.
    """

    name: str
    target: str | None = None


class Refused(Exception):  # noqa: N818 - it is an answer, no error
    """No job is made of one description, for this reason, in A-REX's words."""


@dataclass(slots=True)
class Request:
    """What has been read of one description. Where it is not the same as of a `Description`:

    Attributes:
        slots: `NOT_SAID`: not said. So are the numbers that follow.
        slots_per_host: on one node.
        memory: MiB per slot.
        wall_time: s.
        cpu_time: s.
        unsupported: why it is refused, though it can be read.
    """

    language: Language
    name: str = ""
    executable: str = ""
    arguments: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    inputs: list[Input] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    slots: int = NOT_SAID
    slots_per_host: int = NOT_SAID
    memory: int = NOT_SAID
    wall_time: int = NOT_SAID
    cpu_time: int = NOT_SAID
    queue: str = ""
    delegation: str = ""
    delegations: list[str] = field(default_factory=list)
    log_directory: str = ""
    runtime_environments: list[str] = field(default_factory=list)
    reruns: int = NOT_SAID
    priority: int = NOT_SAID
    unsupported: list[str] = field(default_factory=list)


def integer(text: str, bits: int = 31) -> int | None:
    """A number as ``stringto`` reads it: blanks before it, and nothing behind."""
    match = _INTEGER.fullmatch(text)
    number = int(match[1]) if match else None
    return number if number is not None and -(2**bits) < number < 2**bits else None


def is_url(text: str) -> bool:
    """Whether ARC takes a text for a URL (``URL.cpp``): a path is one, too."""
    scheme = _SCHEME.match(text)
    if scheme is None:
        return bool(text) and not text.startswith(":")
    return text.startswith("//", scheme.end()) or scheme[1].lower() in _PATH_SCHEMES


def remote(url: str) -> str | None:
    """A URL that the CE itself fetches or stores; None for a path, or a ``file:`` URL."""
    scheme = _SCHEME.match(url)
    return None if scheme is None or scheme[1].lower() == "file" else url
