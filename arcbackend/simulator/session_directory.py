"""A job's session directory: what is in it, and what A-REX lets a client do with it.

Names are the bytes that they are on disk. A path is what a request names, unescaped; where it leads
out of the directory, A-REX refuses it. Its links are followed when they are read, if the CE does
so, and never when something is written or removed, other than A-REX does it.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final, TypeAlias
from xml.sax.saxutils import escape

from arcbackend.simulator.ranges import Part, Sent, part
from arcbackend.simulator.traps import Trap, Traps

__all__ = [
    "Entry",
    "Hangs",
    "Listing",
    "NotDone",
    "NotFound",
    "Properties",
    "SessionDirectory",
    "Slice",
    "Upload",
    "WrongPath",
]

PIECE: Final = 256 * 1024
"""Bytes that are read at a time: in between, others have their turn."""

_DEEPEST_WALK = 10  # "infinite with common sense": rest.cpp
_NO_LINK = os.O_NOFOLLOW | os.O_CLOEXEC
# What XML cannot hold, and what becomes of it in newer libxml2.
_NO_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_LOST = "\N{REPLACEMENT CHARACTER}"


class WrongPath(Exception):  # noqa: N818 - these are answers, no errors
    """A path leads out of the session directory: 404 ``Wrong path``."""


class NotFound(Exception):  # noqa: N818
    """There is nothing to be had: 404 ``Not found``."""


class Hangs(Exception):  # noqa: N818
    """A-REX would wait for ever: it is a FIFO."""


class NotDone(Exception):  # noqa: N818
    """A-REX does not do it: 500.

    Attributes:
        reason: its words.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or a directory in a listing.

    Attributes:
        name: as A-REX tells it, bytes that are no UTF-8 as lone surrogates.
        size: in bytes; None: it is a directory.
    """

    name: str
    size: int | None


@dataclass(frozen=True, slots=True)
class Listing:
    """What is in a directory, in its own order; links and the like are not told.

    Attributes:
        entries: files and directories.
    """

    entries: tuple[Entry, ...]

    def document(self) -> Mapping[str, Sequence[str]]:
        """The names, for JSON and HTML: those of files and of directories, which came first."""
        named: dict[str, list[str]] = {}
        for entry in self.entries:
            named.setdefault("dir" if entry.size is None else "file", []).append(entry.name)
        return {**named, **{kind: [] for kind in ("file", "dir") if kind not in named}}

    def xml(self, traps: Traps) -> bytes:
        """The listing in XML, which has sizes. Names are in it as they are."""
        entries = [
            entry
            for entry in self.entries
            if Trap.XML_NOT_WELL_FORMED in traps or _fits_xml(entry.name)
        ]
        if not entries:
            return b"<list/>"
        lines = ["<list>", *(f"  {_element(entry)}" for entry in entries), "</list>"]
        return "\n".join(lines).encode("utf-8", "surrogateescape")


def _element(entry: Entry) -> str:
    text = escape(entry.name, {"\r": "&#13;"})
    if entry.size is None:
        return f"<dir>{text}</dir>"
    return f'<file size="{entry.size}">{text}</file>'


def _fits_xml(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return _NO_XML.search(name) is None


@dataclass(frozen=True, slots=True)
class Slice:
    """What is sent of a file.

    Attributes:
        part: which part it is.
        chunks: opens the file, and reads it piece by piece. What a running job has cut off by then
            is missing.
    """

    part: Part
    chunks: Callable[[], Iterator[bytes]]


@dataclass(frozen=True, slots=True)
class Properties:
    """What PROPFIND tells of one name.

    Attributes:
        path: below the session directory, in bytes; empty: that itself.
        found: whether there is a file or a directory; if not, the rest is nothing.
        size: in bytes; None: it is a directory.
        modified: when its content changed, in seconds since 1970.
        changed: when its inode did, likewise.
    """

    path: bytes
    found: bool
    size: int | None = None
    modified: int = 0
    changed: int = 0


@dataclass(slots=True)
class _Pieces:
    """Which parts of a file have been sent (``FileChunks.cpp``)."""

    size: int = 0
    spans: list[tuple[int, int]] | None = None

    def add(self, first: int, length: int) -> None:
        spans = sorted([*(self.spans or ()), (first, first + length)])
        merged = spans[:1]
        for begin, end in spans[1:]:
            last_begin, last_end = merged[-1]
            if begin <= last_end:
                merged[-1] = (last_begin, max(last_end, end))
            else:
                merged.append((begin, end))
        self.spans = merged
        self.size = max(self.size, merged[-1][1])

    @property
    def complete(self) -> bool:
        return self.spans == [(0, self.size)]


class Upload:
    """A file that a client sends, piece by piece.

    Attributes:
        name: its path in the session directory, as it counts for the job.
    """

    def __init__(
        self, name: str, descriptor: int, sent: Sent, pieces: _Pieces, room: int | None
    ) -> None:
        self.name = name
        self._descriptor = descriptor
        self._at = sent.offset
        self._sent = sent
        self._pieces = pieces
        self._room = room
        pieces.size = max(pieces.size, sent.size or 0)

    def write(self, data: bytes) -> None:
        """Write the next bytes.

        Raises:
            NotDone: the disk is full, or what is kept of a job is.
        """
        if self._room is not None:
            self._room -= len(data)
            if self._room < 0:
                raise NotDone("Error writing to file")
        view = memoryview(data)
        while view:
            try:
                written = os.pwrite(self._descriptor, view[:PIECE], self._at)
            except OSError:
                raise NotDone("Error writing to file") from None
            self._pieces.add(self._at, written)
            self._at += written
            view = view[written:]

    @property
    def complete(self) -> bool:
        """Whether all of the file has been sent by now, in this request or earlier ones."""
        nothing = self._at == self._sent.offset == 0 and not self._sent.size
        return nothing or self._pieces.complete


_Canonical: TypeAlias = tuple[bytes, ...]


class SessionDirectory:
    """One session directory.

    Args:
        root: where it is; it need not exist yet.
        traps: of the CE.
        limit: bytes that clients may upload in all; None: what the disk holds.
    """

    def __init__(self, root: Path, traps: Traps, limit: int | None = None) -> None:
        self._root = os.fsencode(root)
        self._traps = traps
        self._limit = limit
        self._pieces: dict[_Canonical, _Pieces] = {}

    @property
    def root(self) -> Path:
        """Where it is."""
        return Path(os.fsdecode(self._root))

    def make(self) -> None:
        """Make it, unless it is there."""
        os.makedirs(self._root, 0o700, exist_ok=True)

    # What clients ask for.

    def get(self, path: bytes, range_: str | None = None) -> Listing | Slice:
        """What a path names: the listing of a directory, or a part of a file.

        Args:
            path: as the request has it behind ``/session/``, unescaped.
            range_: the header field ``Range``.

        Raises:
            WrongPath, NotFound, Hangs: see there.
        """
        full = self._readable(path)
        mode = self._stat(full).st_mode
        if stat.S_ISDIR(mode):
            return self._listing(full)
        if stat.S_ISFIFO(mode):
            raise Hangs if Trap.FIFO_HANGS in self._traps else NotFound
        if not stat.S_ISREG(mode):
            raise NotFound
        asked = part(self._stat(full).st_size, range_, self._traps)
        return Slice(asked, lambda: _read(full, asked))

    @contextmanager
    def put(self, path: bytes, sent: Sent) -> Iterator[Upload]:
        """Take in a file, or a part of one; directories above it are made.

        Args:
            path: as the request has it behind ``/session/``, unescaped.
            sent: what part it is.

        Raises:
            WrongPath: see there.
            NotDone: it cannot be written: it is a directory, or below a file. Other than A-REX,
                this does not write through links, nor into FIFOs.
        """
        names = self._canonical(path)
        descriptor = self._open_for_writing(names)
        try:
            if Trap.PUT_DOES_NOT_TRUNCATE not in self._traps and not sent.offset:
                os.ftruncate(descriptor, 0)
            pieces = self._pieces.setdefault(names, _Pieces())
            name = os.fsdecode(b"/".join(names))
            yield Upload(name, descriptor, sent, pieces, self._room(descriptor))
        finally:
            os.close(descriptor)

    def delete(self, path: bytes) -> None:
        """Remove a file, or a directory with all that is in it; of a link, the link.

        Raises:
            WrongPath: see there.
            NotDone: there is no such thing, or it is the session directory itself.
        """
        names = self._canonical(path)
        self._pieces.pop(names, None)
        if not names:
            raise NotDone("Failed to delete")
        try:
            with self._directory(names[:-1]) as parent:
                _remove(parent, names[-1])
        except OSError:
            raise NotDone("Failed to delete") from None

    def properties(self, path: bytes, depth: int = _DEEPEST_WALK) -> Iterator[Properties]:
        """What PROPFIND tells of a path, and of what is in it.

        Args:
            path: as the request has it behind ``/session/``, unescaped.
            depth: how far down it goes; 0: not at all.

        Raises:
            WrongPath: see there.
        """
        names = self._canonical(path)
        return self._properties(b"/".join(names), min(depth, _DEEPEST_WALK))

    # What A-REX, the job and the simulator do.

    def write(self, name: str, content: bytes, mode: int = 0o600) -> None:
        """Write a file that the job leaves, and the directories above it.

        Raises:
            NotDone: it cannot be written.
        """
        self.copy_in(name, BytesIO(content).read, mode)

    def copy_in(self, name: str, read: Callable[[int], bytes], mode: int = 0o600) -> None:
        """Write such a file piece by piece, of what is read from somewhere.

        Raises:
            NotDone: it cannot be written.
        """
        with self._writing(name) as descriptor:
            os.ftruncate(descriptor, 0)
            os.fchmod(descriptor, mode)
            while piece := read(PIECE):
                view = memoryview(piece)
                while view:
                    view = view[os.write(descriptor, view) :]

    def make_executable(self, name: str) -> None:
        """Let the owner execute a file, if there is one of this name."""
        with suppress(OSError, WrongPath):
            names = self._canonical(os.fsencode(name))
            with self._directory(names[:-1]) as parent:
                descriptor = os.open(
                    names[-1], os.O_RDONLY | os.O_NONBLOCK | _NO_LINK, dir_fd=parent
                )
                try:
                    os.fchmod(descriptor, stat.S_IMODE(os.fstat(descriptor).st_mode) | 0o100)
                finally:
                    os.close(descriptor)

    def has(self, name: str) -> bool:
        """Whether there is a file, or a directory, of this name."""
        try:
            self._stat(self._full(self._canonical(os.fsencode(name))))
        except (WrongPath, NotFound):
            return False
        return True

    def keep_only(self, names: Collection[str]) -> None:
        """Remove all but these; ``/`` is everything, and a directory all that is in it."""
        kept: set[_Canonical] = set()
        for name in names:
            with suppress(WrongPath):
                kept.add(self._canonical(os.fsencode(name)))
        if () in kept or not os.path.isdir(self._root):
            return
        with self._directory(()) as root:
            _tidy(root, (), kept)

    # Within.

    def _canonical(self, path: bytes) -> _Canonical:
        """The names in a path. As in A-REX, a NUL ends it (``CanonicalDir`` in FileUtils.cpp)."""
        names: list[bytes] = []
        for name in path.split(b"\0", 1)[0].split(b"/"):
            if name == b"..":
                if not names:
                    raise WrongPath
                names.pop()
            elif name not in (b"", b"."):
                names.append(name)
        return tuple(names)

    def _full(self, names: _Canonical) -> bytes:
        return b"/".join((self._root, *names))

    def _readable(self, path: bytes) -> bytes:
        """The full path of what may be read there: as the job's owner, who is not root."""
        names = self._canonical(path)
        for count in range(1, len(names) + 1):
            full = self._full(names[:count])
            if os.path.islink(full) and Trap.LINKS_FOLLOWED_UNLISTED not in self._traps:
                raise NotFound
            mode = self._stat(full).st_mode
            needed = stat.S_IRUSR if count == len(names) else stat.S_IXUSR
            if not mode & needed or (count < len(names) and not stat.S_ISDIR(mode)):
                raise NotFound
        return self._full(names)

    def _stat(self, full: bytes) -> os.stat_result:
        try:
            return os.stat(full)
        except OSError:
            raise NotFound from None

    def _listing(self, full: bytes) -> Listing:
        entries: list[Entry] = []
        try:
            with os.scandir(full) as found:
                for each in found:
                    with suppress(OSError):
                        entries += self._entry(each)
        except OSError:
            raise NotFound from None
        return Listing(tuple(entries))

    def _entry(self, found: os.DirEntry[bytes]) -> Iterator[Entry]:
        status = found.stat(follow_symlinks=False)
        name = found.name.decode("utf-8", "surrogateescape")
        if Trap.CONTROL_CHARACTERS_LOST in self._traps:
            name = _NO_XML.sub(_LOST, name)
        if not status.st_mode & stat.S_IRUSR and Trap.UNREADABLE_IS_LISTED not in self._traps:
            return
        if stat.S_ISREG(status.st_mode):
            yield Entry(name, status.st_size)
        elif stat.S_ISDIR(status.st_mode):
            yield Entry(name, None)

    def _properties(self, path: bytes, depth: int) -> Iterator[Properties]:
        full = b"/".join((self._root, path)) if path else self._root
        try:
            status = self._stat(full)
        except NotFound:
            yield Properties(path, found=False)
            return
        times = (int(status.st_mtime), int(status.st_ctime))
        if stat.S_ISREG(status.st_mode):
            yield Properties(path, True, status.st_size, *times)
        elif stat.S_ISDIR(status.st_mode):
            yield Properties(path, True, None, *times)
            names: list[bytes] = []
            if depth:
                with suppress(OSError), os.scandir(full) as found:
                    names = [each.name for each in found]
            for name in names:
                yield from self._properties(b"/".join((path, name)) if path else name, depth - 1)
        else:
            yield Properties(path, found=False)

    @contextmanager
    def _directory(self, names: _Canonical, *, make: bool = False) -> Iterator[int]:
        """A descriptor of a directory that is reached without a link.

        Raises:
            OSError: it cannot be opened.
        """
        if make:
            self.make()
        descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in names:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(name, 0o700, dir_fd=descriptor)
                below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | _NO_LINK, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            yield descriptor
        finally:
            os.close(descriptor)

    def _open_for_writing(self, names: _Canonical) -> int:
        if not names:
            raise NotDone("Error creating file")
        flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | _NO_LINK
        try:
            with self._directory(names[:-1], make=True) as parent:
                descriptor = os.open(names[-1], flags, 0o600, dir_fd=parent)
        except OSError:
            raise NotDone("Error creating file") from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise NotDone("Error creating file")
        return descriptor

    @contextmanager
    def _writing(self, name: str) -> Iterator[int]:
        try:
            descriptor = self._open_for_writing(self._canonical(os.fsencode(name)))
        except WrongPath:
            raise NotDone("Error creating file") from None
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _room(self, descriptor: int) -> int | None:
        """Bytes that may be added, one file replaced."""
        if self._limit is None:
            return None
        used = sum(found.size or 0 for found in self._properties(b"", _DEEPEST_WALK) if found.found)
        return self._limit - used + os.fstat(descriptor).st_size


def _read(full: bytes, asked: Part) -> Iterator[bytes]:
    try:
        descriptor = os.open(full, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        raise NotFound from None
    try:
        at, end = asked.first, asked.first + asked.length
        while at < end:
            piece = os.pread(descriptor, min(PIECE, end - at), at)
            if not piece:
                return
            at += len(piece)
            yield piece
    finally:
        os.close(descriptor)


def _remove(parent: int, name: bytes) -> None:
    """Remove whatever has this name; links in it are not followed.

    Raises:
        OSError: it cannot be removed.
    """
    if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=parent)
        return
    try:
        shutil.rmtree(name, dir_fd=parent)
    except RecursionError:
        raise OSError("nested too deeply") from None


def _tidy(directory: int, above: _Canonical, kept: Collection[_Canonical]) -> None:
    """Remove what is in a directory and not kept, nor above what is."""
    for inside in os.listdir(directory):
        name = os.fsencode(inside)
        names = (*above, name)
        if names in kept:
            continue
        if any(path[: len(names)] == names for path in kept):
            with suppress(OSError):
                below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | _NO_LINK, dir_fd=directory)
                try:
                    _tidy(below, names, kept)
                finally:
                    os.close(below)
            continue
        with suppress(OSError):
            _remove(directory, name)
