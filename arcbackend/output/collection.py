"""One job's output while it is collected: what is to be done, what came of it, the manifest."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from arcbackend.config import Limits
from arcbackend.jobids import JobRef
from arcbackend.models import JobOutput, RefusedMember
from arcbackend.output.budget import Account
from arcbackend.output.containment import MemberPath, Refused, member_path, shown, split
from arcbackend.output.progress import Meter
from arcbackend.output.writer import Destination, FileKey
from arcbackend.protocol.outputs import Listing, Streams

__all__ = ["Collection", "Task"]

_LOG = "the CE's log"
# What costs a connection each time, or a timeout, must not do so for each of 100,000 members.
_REFUSALS, _FAILURES = 100, 4
# Nobody tells it, and it is small.
_LOG_SIZE = 0
# A hostile listing can hold a million names to refuse.
_TOLD = 10_000


@dataclass(frozen=True, slots=True)
class Task:
    """One thing to ask the CE for.

    Attributes:
        kind: a directory's listing, a file, or the CE's log.
        path: the member; of a log, where it goes.
        size: bytes of a file, if the listing tells.
    """

    kind: Literal["directory", "file", "log"]
    path: MemberPath
    size: int | None = None

    def __str__(self) -> str:
        return _LOG if self.kind == "log" else shown(self.path) or "its session directory"


class Collection:
    """One job's output.

    Args:
        ref: the job.
        over: whether the job was over before the first listing was asked for.
        streams: the names of stdout and stderr; None: to be asked.
        limits: what is refused.
        meter: told what happens.
        own: names at the top of the session directory that are the CE's, and left there.
    """

    def __init__(
        self,
        ref: JobRef,
        over: bool,
        streams: Streams | None,
        limits: Limits,
        meter: Meter,
        *,
        own: frozenset[bytes] = frozenset(),
    ) -> None:
        self.ref = ref
        self.over = over
        self.account = Account(limits.max_total_bytes, "the job")
        self.todo: deque[Task] = deque([Task("directory", ())])
        self.busy = 0
        self.written: dict[FileKey, MemberPath] = {}
        self.streams = streams
        self._limits = limits
        self._meter = meter
        self._own = own
        self._members = 0
        self._done: dict[MemberPath, int] = {}
        self._log: MemberPath | None = None
        self._refused: list[tuple[str, str]] = []
        self._untold = 0
        self._reason: str | None = None
        self._too_much = 0
        self._failed = 0

    @property
    def local(self) -> str:
        """The CE's own id of the job."""
        return self.ref.local

    def found(self, directory: MemberPath, listing: Listing, max_path: int) -> None:
        """Note what a directory holds; its members become tasks."""
        own = frozenset() if directory else self._own
        files = self._taken(
            directory, (name for name in listing.files if name not in own), max_path
        )
        directories = self._taken(directory, listing.directories, max_path)
        for name in listing.illegible:
            self.refuse(name, "a name that is not bytes, as A-REX lists them")
        streams = self._stream_paths()
        files.sort(key=lambda path: path not in streams)  # first, so that limits do not meet them
        room = self._limits.max_files - self._members
        kept = (*files, *directories)[: max(room, 0)]
        if left_out := len(files) + len(directories) - len(kept):
            self.refuse(
                shown(directory) or ".",
                f"{left_out} of its entries: limits.max_files = {self._limits.max_files}",
            )
        self._members += len(kept)
        if not directory:
            names = {path[0] for path in (*files, *directories)}
            self.todo.append(Task("log", (_log_name(names),)))
            self._meter.expect(_LOG_SIZE)
        firsts = set(files[: len(kept)])
        tasks = [
            Task("file", path, listing.sizes.get(path[-1]))
            if path in firsts
            else Task("directory", path)
            for path in kept
        ]
        for task in tasks:
            if task.kind == "file":
                self._meter.expect(task.size)
        first = [task for task in tasks if task.path in streams]
        self.todo.extendleft(reversed(first))
        self.todo.extend(task for task in tasks if task.path not in streams)
        if not directory:
            self._meter.listed(self.ref.id)

    def _taken(
        self, directory: MemberPath, names: Iterable[bytes], max_path: int
    ) -> list[MemberPath]:
        paths = []
        for name in names:
            try:
                paths.append(
                    member_path(
                        directory, name, max_depth=self._limits.max_depth, max_path=max_path
                    )
                )
            except Refused as refused:
                self.refuse(shown((*directory, name)), refused.reason)
        return paths

    def fetched(self, task: Task, size: int) -> None:
        """Note a file that is on disk."""
        self._done[task.path] = size
        if task.kind == "log":
            self._log = task.path
        self._settle(task)
        self._meter.fetched(self.ref.id, str(task), size)

    def absent(self, task: Task) -> None:
        """Note a file that the CE does not have, which is no fault."""
        self._settle(task)

    def refuse(self, name: str, reason: str) -> None:
        """Note a member that is not fetched."""
        if len(self._refused) < _TOLD:
            self._refused.append((shown(name), reason))
            self._meter.refused(self.ref.id, shown(name), reason)
        else:
            self._untold += 1
            self._meter.refused_untold()

    def limited(self, task: Task, reason: str) -> None:
        """Note a file that a limit, or the disk, refused."""
        self._drop(task, reason)
        self._too_much += 1
        if self._too_much == _REFUSALS:
            self.give_up(f"not asked for after {_REFUSALS} others were refused")

    def failed(self, task: Task, reason: str) -> None:
        """Note a transfer that failed for good."""
        if task.kind == "directory" and not task.path:
            self._reason = f"its session directory could not be listed: {reason}"
            return
        self._drop(task, reason)
        self._failed += 1
        if self._failed == _FAILURES:
            self.give_up(f"not asked for after {_FAILURES} others failed")

    def give_up(self, reason: str) -> None:
        """Ask for nothing more."""
        for task in self.todo:
            if task.path:
                self._drop(task, reason)
            else:
                self.failed(task, reason)
        self.todo.clear()

    def close(self, reason: str) -> None:
        """Say of the job as a whole why nothing is fetched."""
        self._reason = reason
        self.todo.clear()

    def _drop(self, task: Task, reason: str) -> None:
        self._settle(task)
        self.refuse(str(task), reason)

    def _settle(self, task: Task) -> None:
        if task.kind != "directory":
            self._meter.settle(_LOG_SIZE if task.kind == "log" else task.size)

    def manifest(self, destination: Destination) -> JobOutput:
        """What came of it."""

        def place(path: MemberPath) -> MemberPath:
            return (self.local.encode(), *path)

        streams = self._streams_found()
        special = {path for path in (*streams, self._log) if path is not None}
        files = sorted(path for path in self._done if path not in special)
        stdout, stderr, log = (
            None if path is None else destination.on_disk(place(path))
            for path in (*streams, self._log)
        )
        refused = sorted(self._refused)
        if self._untold:
            refused.append(("…", f"and {self._untold} more"))
        reason = self._reason
        if reason is None and not self.over:
            reason = "the job was not over: its output may be incomplete"
        if reason is None and self.streams is None:
            reason = "the CE does not tell which files are stdout and stderr"
        if reason is None and refused:
            (name, why), count = refused[0], len(self._refused) + self._untold
            reason = f"{count} not fetched, e.g. {name}: {why}"
        return JobOutput(
            directory=destination.on_disk(place(())) if self._done else None,
            stdout=stdout,
            stderr=stderr,
            log=log,
            files=tuple(destination.on_disk(place(path)) for path in files),
            refused=tuple(RefusedMember(name=name, reason=why) for name, why in refused),
            size=sum(self._done.values()),
            complete=reason is None,
            reason=reason,
        )

    def _streams_found(self) -> tuple[MemberPath | None, MemberPath | None]:
        streams = self.streams or Streams(None, None)
        stdout, stderr = (
            path if path in self._done and path != self._log else None
            for path in (_named(streams.stdout), _named(streams.stderr))
        )
        return stdout, stderr

    def _stream_paths(self) -> frozenset[MemberPath]:
        streams = self.streams or Streams(None, None)
        paths = (_named(streams.stdout), _named(streams.stderr))
        return frozenset(path for path in paths if path is not None)


def _named(name: str | None) -> MemberPath | None:
    return None if name is None else split(name)


def _log_name(taken: set[bytes]) -> bytes:
    """A name for the CE's log that no member has."""
    name, number = b"ce.log", 0
    while name in taken:
        number += 1
        name = b"ce.%d.log" % number
    return name
