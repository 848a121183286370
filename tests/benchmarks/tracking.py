"""What a tracked job costs, in memory and time, beside what it may cost.

    python tests/benchmarks/tracking.py [--jobs 1000000]

No CE, no network: the poller's bookkeeping alone (`Tracker`, and the wheel of `Poller`), fed with
what a CE would say. Memory is the growth of the process (VmRSS), so that everything
counts: ids, records, the dictionary, the wheel, and what the allocator wastes. Time is the CPU's,
so that it matters little who else is busy.
"""

from __future__ import annotations

import argparse
import gc
import random
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from arcbackend import Policy, PollerSnapshot, SeenBy
from arcbackend.polling.schedule import Wheel
from arcbackend.polling.snapshot import TrackedState
from arcbackend.polling.tracker import TrackedJob, Tracker

CE = "https://ce.example.org:443"
AT = datetime(2026, 1, 1, tzinfo=UTC)
BYTES, UNCHANGED, TRANSITION = 400, 1.0, 25.0
SLICE = 500
MOVED = 200_000


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    (line,) = [
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmRSS:")
    ]
    return int(line.split()[1]) * 1024


def timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def told(what: str, value: float, unit: str, target: float | None = None) -> None:
    line = f"{what:<52} {value:>10.2f} {unit}"
    if target is not None:
        line += f"  (target: <= {target:g}) {'ok' if value <= target else 'MISSED'}"
    print(line)


def said(states: Iterable[tuple[str, str]], *, in_order: bool = False) -> list[tuple[str, str]]:
    """As a CE says it: every string an object of its own."""
    fresh = [(local[:1] + local[1:], state[:1] + state[1:]) for local, state in states]
    if not in_order:
        random.shuffle(fresh)
    return fresh


def observe(tracker: Tracker, pairs: Sequence[tuple[str, str]], source: SeenBy) -> int:
    """In slices, as the poller does; the number of events."""
    return sum(
        len(tracker.observe(pairs[start : start + SLICE], source, 2e4, AT))
        for start in range(0, len(pairs), SLICE)
    )


def tracked(jobs: int) -> tuple[Tracker, Wheel[TrackedJob]]:
    """Jobs in all states of a life, as after hours on a busy CE."""
    tracker, wheel = Tracker(CE, Policy.load("patient-kill")), Wheel[TrackedJob](5.0)
    states: list[tuple[str, str, str | None]] = [
        *[("queuing", "QUEUING", None)] * 6,
        *[("running", "RUNNING", None)] * 3,
        ("finishing", "RUNNING", "FINISHING"),
    ]
    for number in range(jobs):
        state, documented, listed = states[number % len(states)]
        now = number * 0.001
        row = TrackedState(
            secrets.token_hex(6), state, documented, listed, now, ("stdout", "stderr"), None
        )
        tracker.restore(row, now, now)
        wheel.add(tracker.jobs[row.id], now + 60.0)
    return tracker, wheel


def snapshot(tracker: Tracker) -> PollerSnapshot:
    return PollerSnapshot(
        ce=CE,
        taken_at=AT,
        sequence=tracker.sequence,
        jobs=tuple(
            TrackedState(
                job.local, job.state, job.documented, job.listed, job.since, job.names, None
            )
            for job in tracker.jobs.values()
        ),
    )


def main(jobs: int) -> None:
    tracked(1000)  # what is loaded once is no job's
    before = resident()
    tracker, wheel = tracked(jobs)
    told(f"memory, each of {jobs} tracked jobs (RSS)", (resident() - before) / jobs, "B", BYTES)

    documents = [(job.local, job.documented) for job in tracker.jobs.values() if job.documented]
    listing = [(job.local, job.listed) for job in tracker.jobs.values() if job.listed]
    # Documents come in the order in which they are asked for: about that in which jobs came.
    for what, pairs, source in (
        ("documents, in order", said(documents, in_order=True), SeenBy.DOCUMENTS),
        ("documents, in any order", said(documents), SeenBy.DOCUMENTS),
        ("listing, in any order", said(listing), SeenBy.LISTING),
    ):
        best = min(timed(partial(observe, tracker, pairs, source)) for _ in range(3))
        told(f"unchanged, {what} ({len(pairs)})", best / len(pairs) * 1e6, "us", UNCHANGED)
    assert tracker.sequence == 0

    some = [local for local, _ in random.sample(documents, min(MOVED, len(documents)))]
    took = 0.0
    for state in ("QUEUING", "RUNNING", "QUEUING", "FINISHED"):
        pairs = said([(one, state) for one in some])
        took += timed(partial(observe, tracker, pairs, SeenBy.DOCUMENTS))
    events = tracker.sequence
    told(f"transition and its event ({events})", took / events * 1e6, "us", TRANSITION)

    began = time.process_time()
    value = snapshot(tracker)
    told("snapshot", time.process_time() - began, "s")
    began = time.process_time()
    text = value.model_dump_json()
    told("snapshot to JSON", time.process_time() - began, "s")
    told("snapshot's JSON, each job", len(text) / jobs, "B")
    told("snapshot from JSON", timed(partial(PollerSnapshot.model_validate_json, text)), "s")
    assert wheel.next() is not None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    main(parser.parse_args().jobs)
