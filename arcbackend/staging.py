"""Local input files: checked before any job exists, opened and read once, sent many times."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from arcbackend.errors import SubmissionRefused
from arcbackend.models import SubmissionSpec

__all__ = ["Upload", "opened_inputs"]

_CHUNK = 2**20
# Up to this size a file is held in memory for the length of the submission: one read, however many
# jobs. Larger ones stay open and are read piece by piece, out of the kernel's cache.
_IN_MEMORY = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Upload:
    """One file to be sent to a job's session directory.

    Attributes:
        name: path relative to the session directory.
        size: bytes.
        data: the whole content, if it is held in memory.
        descriptor: open file, if not.
    """

    name: str
    size: int
    data: bytes | None = field(default=None, repr=False)
    descriptor: int | None = None

    @classmethod
    def of_bytes(cls, name: str, data: bytes) -> Upload:
        """An upload of bytes in memory."""
        return cls(name, len(data), data)

    async def content(self) -> AsyncIterator[bytes]:
        """The content in pieces.

        Raises:
            OSError: the file cannot be read, or has become shorter since it was checked.
        """
        if self.descriptor is None:
            if self.data:
                yield self.data
            return
        position = 0
        while position < self.size:
            wanted = min(_CHUNK, self.size - position)
            piece = await trio.to_thread.run_sync(os.pread, self.descriptor, wanted, position)
            if not piece:
                raise OSError(f"input {self.name} became shorter while it was being sent")
            position += len(piece)
            yield piece


@contextmanager
def _closing(uploads: Sequence[Upload]) -> Iterator[None]:
    try:
        yield
    finally:
        for upload in uploads:
            if upload.descriptor is not None:
                os.close(upload.descriptor)


async def opened_inputs(spec: SubmissionSpec, max_bytes: int, stack: ExitStack) -> list[Upload]:
    """Open every local input of the spec; they are closed with ``stack``.

    Raises:
        SubmissionRefused: a file is missing, unreadable, not a regular file, or larger than
            ``max_bytes``; names the field.
    """
    uploads: list[Upload] = []
    stack.enter_context(_closing(uploads))
    for index, ref in enumerate(spec.inputs):
        if ref.path is not None:
            where = f"inputs[{index}].source"
            # In a thread: the file may lie on a slow network file system. Not abandoned on
            # cancellation, so that no descriptor is lost.
            uploads.append(
                await trio.to_thread.run_sync(partial(_open, ref.name, ref.path, where, max_bytes))
            )
    return uploads


def _open(name: str, path: Path, where: str, max_bytes: int) -> Upload:
    try:
        # Without O_NONBLOCK, opening a FIFO would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SubmissionRefused(f"cannot read {path}: {reason}", field=where) from None
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            kind = "a directory" if stat.S_ISDIR(about.st_mode) else "not a regular file"
            raise SubmissionRefused(f"{path} is {kind}; inputs are files", field=where)
        if about.st_size > max_bytes:
            raise SubmissionRefused(
                f"{path} has {about.st_size} bytes; limits.max_file_bytes allows {max_bytes}",
                field=where,
            )
        if about.st_size > _IN_MEMORY:
            kept, descriptor = descriptor, -1
            return Upload(name, about.st_size, descriptor=kept)
        data = _read_all(descriptor, about.st_size)
        return Upload(name, len(data), data)
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _read_all(descriptor: int, size: int) -> bytes:
    pieces = []
    while size > 0 and (piece := os.read(descriptor, size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
