"""Names that are one to the file system: on one that ignores case, and normalises.

Linux has none at hand without help of the kernel, so that one is made here of what the writer
calls: every name reaches the disk case-folded and composed, as on APFS or a Windows share.
"""

from __future__ import annotations

import os
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import example, given
from hypothesis import strategies as st

from arcbackend.output import writer
from arcbackend.output.containment import MemberPath, Refused
from arcbackend.output.writer import Destination, FileKey, Sink

NAMES = ["a", "A", "b", "README", "readme", "é", "e\u0301", "É", "ß", "ss", "SS", "\uff21"]
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(
    lambda parts: tuple(part.encode() for part in parts)
)


def fold(name: bytes) -> bytes:
    text = name.decode("utf-8", "surrogateescape")
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return folded.encode("utf-8", "surrogateescape")


class FoldingSystem:
    """The module os, on such a file system: what is named below a directory is folded."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(os, name)
        return self._folded(found) if name in self.NAMED else found

    NAMED = ("link", "mkdir", "open", "rename", "replace", "rmdir", "stat", "unlink")

    @staticmethod
    def _folded(call: Callable[..., Any]) -> Callable[..., Any]:
        def folded(*arguments: Any, **keywords: Any) -> Any:
            if any("dir_fd" in keyword for keyword in keywords):
                arguments = tuple(fold(a) if isinstance(a, bytes) else a for a in arguments)
            return call(*arguments, **keywords)

        return folded


@contextmanager
def folding_destination() -> Iterator[Destination]:
    with tempfile.TemporaryDirectory() as folder, patch.object(writer, "os", FoldingSystem()):
        destination = Destination(Path(folder), keep_free=0)
        try:
            yield destination
        finally:
            destination.close()


def put(destination: Destination, paths: list[MemberPath]) -> dict[MemberPath, str | None]:
    """Write every path with its own name as content; path → why not, or None."""
    written: dict[FileKey, MemberPath] = {}
    found: dict[MemberPath, str | None] = {}
    for path in paths:
        sink = Sink(destination, path, written)
        try:
            sink.commit([b"/".join(path)])
            found[path] = None
        except Refused as refused:
            found[path] = refused.reason
        finally:
            sink.discard()
    return found


@given(st.lists(PATHS, min_size=1, max_size=8, unique=True))
@example([(b"README",), (b"readme",)])
@example([(b"a", b"b"), (b"A", b"B".lower())])
@example([("é".encode(),), ("e\u0301".encode(),), ("É".encode(),)])
@example([(b"a",), (b"A", b"b")])
@example([(b"A", b"b"), (b"a",)])
def test_no_member_takes_the_place_of_another(paths: list[MemberPath]) -> None:
    with folding_destination() as destination:
        told = put(destination, paths)
        there = {path: tuple(map(fold, path)) for path, why in told.items() if why is None}
        # Each that is said to be there has a place of its own, with its own content.
        assert len(set(there.values())) == len(there)
        for path, place in there.items():
            assert destination.on_disk(place).read_bytes() == b"/".join(path)
        # The first of those that share a name is there; what is not is told why.
        assert told[paths[0]] is None
        for path, why in told.items():
            assert why is None or "another member's" in why or "in the way" in why
            if why is not None:
                mine = tuple(map(fold, path))
                shared = [other for other in there.values() if other[: len(mine)] == mine]
                shared += [other for other in there.values() if mine[: len(other)] == other]
                assert shared
        # Nothing else, and nothing half written.
        files = [file for file in Path(destination.path).rglob("*") if file.is_file()]
        assert len(files) == len(there)
        assert put(destination, paths) == told  # as often as one likes


def test_the_file_system_made_here_is_one() -> None:
    """Without the check, the second would have taken the first's place."""
    with folding_destination() as destination:
        for path in ((b"README",), (b"readme",)):
            Sink(destination, path, {}).commit([path[0]])
        (file,) = Path(destination.path).iterdir()
        assert file.read_bytes() == b"readme"
