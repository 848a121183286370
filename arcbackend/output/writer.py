"""Files below one directory, and never outside: opened name by name, links never followed.

Every function here blocks: call them in a thread. Directories are opened from the one above by
their descriptor, so that replacing one by a link, before or meanwhile, leads nowhere. A file is
written under a name of our own and renamed when it is whole. Modes are ours: 0600 and 0700.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from arcbackend.output.containment import MemberPath, Refused

__all__ = ["Destination", "FileKey", "Sink"]

FileKey: TypeAlias = tuple[int, int]
"""Device and inode of a file."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MODE_FILE, _MODE_DIRECTORY = 0o600, 0o700
_PATH_MAX = 4096  # limits.h, with the closing NUL
# Pieces that one call writes: each call is a chance to wait for the interpreter. limits.h: 1024.
_TOGETHER = 256


class Destination:
    """The directory that everything goes below, open until `close`.

    Args:
        path: where; made if it is not there. Its own links are the caller's and are followed.
        keep_free: bytes of the file system to leave free.

    Raises:
        OSError: it is no directory, or cannot be made or opened.
    """

    def __init__(self, path: Path, keep_free: int) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._keep_free = keep_free
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    @property
    def max_path(self) -> int:
        """Bytes of the longest path below, such that the whole can be opened by name."""
        return _PATH_MAX - 1 - len(os.fsencode(self.path.absolute())) - 1

    def on_disk(self, path: MemberPath) -> Path:
        """The path of a file below."""
        return self.path.joinpath(*(os.fsdecode(part) for part in path))

    def check_room(self, size: int) -> None:
        """Check that so many bytes more leave enough free.

        Raises:
            Refused: they do not.
        """
        about = os.fstatvfs(self._descriptor)
        free = about.f_bavail * about.f_frsize
        if free - size < self._keep_free:
            raise Refused(
                f"{self.path} has {free} bytes free, and limits.keep_free_bytes = "
                f"{self._keep_free} of them are to stay so"
            )

    def open_directory(self, path: MemberPath) -> int:
        """Open, or make, a directory below; the descriptor is the caller's to close.

        Raises:
            Refused: something that is no directory is in the way, e.g. a link.
            OSError: it cannot be made.
        """
        current = os.dup(self._descriptor)
        try:
            for name in path:
                following = _open_in(current, name)
                os.close(current)
                current = following
        except BaseException:
            os.close(current)
            raise
        return current

    def key(self, path: MemberPath) -> FileKey | None:
        """What tells a file below from all others; None if there is none."""
        try:
            directory = self.open_directory(path[:-1])
        except (OSError, Refused):
            return None
        try:
            return _key(os.stat(path[-1], dir_fd=directory, follow_symlinks=False))
        except OSError:
            return None
        finally:
            os.close(directory)

    def close(self) -> None:
        """Close the directory. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _key(about: os.stat_result) -> FileKey:
    return about.st_dev, about.st_ino


def _open_in(parent: int, name: bytes) -> int:
    """Open a directory, made if it is not there."""
    for _ in range(2):
        try:
            return os.open(name, _DIRECTORY, dir_fd=parent)
        except FileNotFoundError:
            with suppress(FileExistsError):
                os.mkdir(name, _MODE_DIRECTORY, dir_fd=parent)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise Refused("in the way is something that is no directory, e.g. a link") from None
            raise
    raise Refused("its directory vanishes as it is made")


class Sink:
    """One file on its way: nothing is on disk before the first byte is, or after `discard`.

    Args:
        destination: what it goes below.
        path: where it goes below it.
        others: files written before by the same job: none is overwritten, should the file system
            take two names for one.
    """

    def __init__(
        self, destination: Destination, path: MemberPath, others: dict[FileKey, MemberPath]
    ) -> None:
        self._destination = destination
        self._path = path
        self._others = others
        self._directory = -1
        self._file = -1
        self._temporary = b""
        self.size = 0
        """Bytes on disk."""

    @property
    def is_open(self) -> bool:
        """True if there is anything to `discard`."""
        return self._directory >= 0

    def check_room(self, size: int) -> None:
        """See `Destination.check_room`."""
        self._destination.check_room(size)

    def write(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Append bytes.

        Raises:
            Refused: the file system is to be left with the free space it has.
            OSError: they cannot be written.
        """
        if self._file < 0:
            self._open()
        self._destination.check_room(sum(map(len, pieces)))
        for start in range(0, len(pieces), _TOGETHER):
            rest = [memoryview(piece) for piece in pieces[start : start + _TOGETHER]]
            while rest:
                written = os.writev(self._file, rest)
                self.size += written
                while rest and written >= len(rest[0]):
                    written -= len(rest.pop(0))
                if written:
                    rest[0] = rest[0][written:]

    def restart(self) -> None:
        """Throw away what was written."""
        if self._file >= 0:
            os.ftruncate(self._file, 0)
            os.lseek(self._file, 0, os.SEEK_SET)
        self.size = 0

    def commit(self, pieces: Sequence[bytes]) -> None:
        """Append the last bytes and give the file its name.

        Raises:
            Refused: as `write`; or a directory has the name, or the file system takes the name
                for that of another member.
            OSError: as `write`.
        """
        self.write(pieces)
        name = self._path[-1]
        about = os.fstat(self._file)
        with suppress(FileNotFoundError):
            there = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
            if stat.S_ISDIR(there.st_mode):
                raise Refused("in the way is a directory")
            other = self._others.get(_key(there))
            if other not in (None, self._path) and self._destination.key(other) == _key(there):
                raise Refused("the file system takes its name for another member's")
        os.rename(self._temporary, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._temporary = b""
        self._others[_key(about)] = self._path
        self.discard()

    def discard(self) -> None:
        """Remove what has no name yet, and close. Idempotent."""
        if self._temporary:
            with suppress(OSError):
                os.unlink(self._temporary, dir_fd=self._directory)
            self._temporary = b""
        for descriptor in (self._file, self._directory):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._directory = -1

    def _open(self) -> None:
        self._directory = self._destination.open_directory(self._path[:-1])
        temporary = b".arcbackend-%s.part" % secrets.token_hex(8).encode()
        self._file = os.open(temporary, _NEW_FILE, _MODE_FILE, dir_fd=self._directory)
        self._temporary = temporary
