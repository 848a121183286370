"""Parts of files, as A-REX understands what is asked for and what is sent. Pure.

Sources: ``parse_http_range`` in MCCHTTP.cpp, ``ExtractRange`` in rest.cpp, and ``PayloadHTTP.cpp``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from arcbackend.simulator.traps import Trap, Traps

__all__ = ["Part", "Sent", "part", "sent"]

_UNIT = "bytes="
# What A-REX reads as a number: blanks before it, and nothing behind; more is none (off_t).
_NUMBER = re.compile(r"[ \t\n\v\f\r]*\+?([0-9]{1,19})")
_MOST = 2**63
_CONTENT_RANGE = re.compile(r"bytes\s+([0-9]{1,19})-([0-9]{1,19})(?:/([0-9]{1,19}|\*))?", re.I)


@dataclass(frozen=True, slots=True)
class Part:
    """What is sent of a file.

    Attributes:
        size: of the whole file, in bytes.
        first: where it begins.
        length: how long it is.
        whole: it is all of the file, sent as such (200); else a part (206), or none (416).
        beyond: it begins behind the end of the file.
    """

    size: int
    first: int
    length: int
    whole: bool
    beyond: bool = False

    @property
    def content_range(self) -> str | None:
        """The header field ``Content-Range``; None if it is not a part."""
        if self.whole:
            return None
        if not self.length:
            return f"bytes */{'*' if self.beyond else self.size}"
        return f"bytes {self.first}-{self.first + self.length - 1}/{self.size}"


@dataclass(frozen=True, slots=True)
class Sent:
    """What part of a file a client sends.

    Attributes:
        offset: where it begins.
        size: of the whole file, as far as the client says it; None: it does not.
    """

    offset: int = 0
    size: int | None = None


def part(size: int, range_: str | None, traps: Traps, *, record: bool = False) -> Part:
    """What a range is of a file.

    Args:
        size: of the file, in bytes.
        range_: the header field ``Range``; None: there is none.
        traps: of the CE.
        record: it is one of A-REX's own (``diagnose``), of which a range behind the end tells the
            size; of a file in a session directory it does not.
    """
    first, end = _asked(size, range_, traps)
    if first is None:
        return Part(size, 0, size, whole=True)
    stop = size if end is None or end > size else end
    length = max(stop - first, 0)
    if length == size and (not size or Trap.WHOLE_RANGE_IS_200 in traps):
        return Part(size, 0, size, whole=True)
    return Part(size, first, length, whole=False, beyond=first > size and not record)


def _asked(size: int, range_: str | None, traps: Traps) -> tuple[int | None, int | None]:
    """Where a range begins, and where it ends, exclusively; None: it does not say."""
    if range_ is None or not range_.lower().startswith(_UNIT):
        return None, None
    begin, dash, end = range_[len(_UNIT) :].partition(",")[0].partition("-")
    if not dash:
        return None, None
    if not begin:
        suffix = _number(end)
        if suffix is None or Trap.SUFFIX_RANGE_IGNORED in traps:
            return None, None
        return max(size - suffix, 0), None
    last = _number(end)
    return _number(begin), None if last is None else last + 1


def _number(text: str) -> int | None:
    match = _NUMBER.fullmatch(text)
    number = int(match[1]) if match else None
    return number if number is not None and number < _MOST else None


def sent(content_range: str | None, length: int | None) -> Sent:
    """What part of a file a request brings.

    Args:
        content_range: the header field ``Content-Range``; None: there is none.
        length: of the request's body; None: it does not say.
    """
    match = _CONTENT_RANGE.fullmatch(content_range) if content_range is not None else None
    if match is None:
        return Sent(0, length)
    first, last, size = int(match[1]), int(match[2]), match[3]
    whole = int(size) if size not in (None, "*") else None
    if first > last or first >= _MOST:
        return Sent(0, whole if whole else length)
    return Sent(first, whole if whole else last + 1)
