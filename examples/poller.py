"""A workload manager in small: submit, follow by events, survive restarts and outages, purge.

python examples/poller.py --endpoint https://ce.example.org:443 --token-file /path/to/token \\
    [--policy examples/policies/my-site.toml] [--state state.json]

Interrupt or kill it at any moment and start it again with the same --state: it goes on.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from pathlib import Path

import structlog
import trio
from pydantic import BaseModel
from rich.console import Console

from arcbackend import (
    ARCBackend,
    ARCConfig,
    BearerToken,
    CEBack,
    CEUnreachable,
    EventsMissed,
    InterCEdeError,
    JobEvent,
    JobID,
    JobStatus,
    Poller,
    PollerEvent,
    PollerSnapshot,
    StaticCredentials,
    SubmissionSpec,
)

SAVE_SECONDS = 2.0


class Books(BaseModel):
    """What a WMS keeps in its database: its view of the jobs, and the snapshot that goes with it.

    Both are stored together, always. A snapshot that is newer than the view would lose events in a
    restart, one that is older would tell some again.
    """

    snapshot: PollerSnapshot | None = None
    jobs: dict[JobID, JobStatus] = {}
    awaiting: set[JobID] = set()
    """Held jobs about which the policy has asked us."""

    def take(self, id_: JobID, state: str, status: JobStatus) -> None:
        """Note where a job is."""
        # One that the CE no longer knows has no status; to us it has failed.
        self.jobs[id_] = JobStatus.FAILED if state in ("lost", "expired") else status
        if state == "awaiting":
            self.awaiting.add(id_)
        else:
            self.awaiting.discard(id_)

    def save(self, file: Path) -> None:
        """The old file or the new one is there, never half of one."""
        new = file.with_name(file.name + ".new")
        new.write_text(self.model_dump_json())
        os.replace(new, file)


class Manager:
    """Handles events."""

    def __init__(self, poller: Poller, books: Books, file: Path, console: Console) -> None:
        self.poller = poller
        self.books = books
        self.file = file
        self.console = console
        self.known = 0
        """Events up to this one are in the books."""
        self.saved = 0.0
        self.to_save: PollerSnapshot | None = None

    def keep_books(self) -> None:
        """Save a snapshot when the events up to it have been handled, neither earlier nor later."""
        if self.to_save is None and time.monotonic() > self.saved + SAVE_SECONDS:
            self.to_save = self.poller.snapshot()
        if self.to_save is not None and self.known >= self.to_save.sequence:
            self.books.snapshot, self.to_save = self.to_save, None
            self.books.save(self.file)
            self.saved = time.monotonic()

    def handle(self, event: PollerEvent) -> None:
        """Deal with one event."""
        if event.sequence <= self.known:
            return  # caught up with after a miss
        self.known = event.sequence
        match event:
            case JobEvent():
                self.job_moved(event)
            case CEUnreachable():
                # Nothing to do: no job is lost, polling goes on. New jobs had better go elsewhere.
                self.console.print(f"{event.ce} is away: {event.reason}", markup=False)
            case CEBack():
                away = (event.seen_at - event.away_since).total_seconds()
                self.console.print(f"{event.ce} is back after {away:.0f} s", markup=False)
            case EventsMissed():
                self.console.print(f"{event.count} events missed", markup=False)
                self.catch_up()

    def job_moved(self, event: JobEvent) -> None:
        """A job came into a state, or a verb was answered for it."""
        job = event.id.rsplit("/", 1)[-1]
        line = f"{event.seen_at:%H:%M:%S} {job} {event.source} -> {event.dest} by {event.seen_by}"
        if event.outcome is not None:
            line += f": {'taken' if event.outcome.ok else event.outcome.reason}"
        self.console.print(line, markup=False)
        if event.source != event.dest:
            self.books.take(event.id, event.dest, event.status_after)

    def catch_up(self) -> None:
        """The states as of now replace what was missed, and what is still to be heard of before."""
        states = self.poller.states()
        for id_, status in self.poller.statuses().items():
            self.books.take(id_, states[id_], status)
        self.known = self.poller.sequence

    async def decide(self) -> None:
        """Answer the policy: what has been held for so long is not worth waiting for.

        ``poller.keep(...)`` would give it as much time again.
        """
        if self.books.awaiting:
            try:
                await self.poller.kill(list(self.books.awaiting))
                self.books.awaiting.clear()
            except InterCEdeError as error:  # the CE is away: asked again, later
                self.console.print(f"not killed: {error}", markup=False)


async def work(config: ARCConfig, token: str, options: argparse.Namespace) -> bool:
    """Run it all; tells whether every job ended well."""
    console: Console = options.console
    credentials = StaticCredentials(BearerToken(value=token))
    books = Books()
    if options.state.exists():
        books = Books.model_validate_json(options.state.read_bytes())
    async with (
        ARCBackend(config, credentials) as backend,
        backend.poller(options.policy) as poller,
        poller.events() as events,  # before anything is tracked, so that nothing is missed
    ):
        manager = Manager(poller, books, options.state, console)
        if books.snapshot is not None:
            poller.restore(books.snapshot)
            manager.known = books.snapshot.sequence
            console.print(f"going on with {len(books.jobs)} jobs")
        else:
            await submit(backend, manager, options)
        while not all(status.is_final for status in books.jobs.values()):
            event = None
            with trio.move_on_after(SAVE_SECONDS):  # (what is cancelled here has taken no event)
                event = await anext(events)
            if event is not None:
                manager.handle(event)
            await manager.decide()
            manager.keep_books()
        counts = Counter(str(status) for status in books.jobs.values())
        console.print(", ".join(f"{count} {status}" for status, count in counts.items()))
        good = set(books.jobs.values()) == {JobStatus.DONE}
        for id_, outcome in (await poller.purge(list(books.jobs))).items():
            if not outcome.ok:
                console.print(f"{id_} was not removed: {outcome.reason}", markup=False)
                good = False
    options.state.unlink(missing_ok=True)
    return good


async def submit(backend: ARCBackend, manager: Manager, options: argparse.Namespace) -> None:
    """New jobs, in the books before anything else happens to them."""
    spec = SubmissionSpec(executable="/bin/sleep", arguments=(str(options.seconds),), tag="poller")
    submission = await backend.submit(spec, count=options.jobs)
    for copy, reason in submission.failures.items():
        manager.console.print(f"copy {copy} was not created: {reason}", markup=False)
    manager.poller.track(submission.handles)
    manager.books.jobs = {handle.id: JobStatus.WAITING for handle in submission.handles}
    manager.console.print(f"submitted {len(submission.handles)} jobs")
    manager.keep_books()


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--endpoint", required=True, help="https://host:port of the CE")
    parser.add_argument("--token-file", type=Path, required=True)
    parser.add_argument("--ca-file", type=Path)
    parser.add_argument("--ca-dir", type=Path)
    parser.add_argument("--queue")
    parser.add_argument("--policy", default="report", help="a file, or a policy that ships")
    parser.add_argument("--state", type=Path, default=Path("state.json"), help="kept over restarts")
    parser.add_argument("--jobs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20, help="that each of them sleeps")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    options.console = console = Console(highlight=False, soft_wrap=True)
    try:
        config = ARCConfig.from_dict(
            {
                "endpoint": options.endpoint,
                "ca_file": options.ca_file,
                "ca_dir": options.ca_dir,
                "queue": options.queue,
            }
        )
        good = trio.run(work, config, options.token_file.read_text().strip(), options)
    except (InterCEdeError, OSError) as error:
        console.print(f"{type(error).__name__}: {error}", style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print(f"interrupted: start again to go on from {options.state}")
        return 130
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
