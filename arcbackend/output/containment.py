"""Where a member goes: a hostile name becomes a relative path, or the reason why it does not.

Pure. A name is bytes as the CE lists them; the payload chose it, and the CE may lie. A path is a
tuple of names, which the writer opens one by one, so that no byte in a name is ever taken for a
separator. Names are kept byte for byte: nothing is normalised, so nothing collides by that.
"""

from __future__ import annotations

from typing import TypeAlias

__all__ = ["MemberPath", "Refused", "joined", "member_path", "shown", "split"]

MemberPath: TypeAlias = tuple[bytes, ...]
"""A path relative to the job's directory, name by name; the job's directory itself is ``()``."""

_MAX_NAME = 255  # NAME_MAX of Linux's file systems (limits.h)
_SHOWN = 300


class Refused(Exception):  # noqa: N818  (what became of one member, not an error of the program)
    """One member is not taken.

    Attributes:
        reason: why, in words for the user.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def member_path(parent: MemberPath, name: bytes, *, max_depth: int, max_path: int) -> MemberPath:
    """The path of an entry of the directory ``parent``.

    Args:
        parent: the path of the directory that lists it, which this function made.
        name: what the CE lists.
        max_depth: directories below one another, at most.
        max_path: bytes of the whole path, at most.

    Raises:
        Refused: it would lead out of the directory, or no file system could hold it.
    """
    if not name:
        raise Refused("an empty name")
    if name in (b".", b".."):
        raise Refused("a name that stands for another directory")
    if b"/" in name:
        raise Refused("a name that holds a /, which leads elsewhere")
    if b"\0" in name:
        raise Refused("a name that holds a NUL, which no file system takes")
    if len(name) > _MAX_NAME:
        raise Refused(f"a name of {len(name)} bytes; file systems take {_MAX_NAME}")
    if len(parent) > max_depth:
        raise Refused(f"deeper than limits.max_depth = {max_depth} directories")
    path = (*parent, name)
    if len(joined(path)) > max_path:
        raise Refused(f"a path of {len(joined(path))} bytes; here {max_path} are possible")
    return path


def split(name: str) -> MemberPath | None:
    """The path that a description means by a name, to compare members with; None if it is none."""
    parts = tuple(part for part in name.encode("utf-8", "surrogateescape").split(b"/"))
    path = tuple(part for part in parts if part not in (b"", b"."))
    return None if b".." in path or not path else path


def joined(path: MemberPath) -> bytes:
    """The path with slashes, as it goes into an address."""
    return b"/".join(path)


def shown(path: MemberPath | str) -> str:
    """The path for people and logs: printable, on one line, bounded; other bytes escaped."""
    text = path if isinstance(path, str) else joined(path).decode("utf-8", "backslashreplace")
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return safe if len(safe) <= _SHOWN else safe[: _SHOWN - 1] + "…"
