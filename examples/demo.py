"""The main job, to watch: submit, follow, kill one, fetch the verdicts, purge.

python examples/demo.py --endpoint https://ce.example.org:443 --token-file /path/to/token
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog
import trio
from rich.console import Console
from rich.live import Live
from rich.table import Table

from arcbackend import (
    ARCBackend,
    ARCConfig,
    BearerToken,
    FileRef,
    InterCEdeError,
    JobHandle,
    JobID,
    JobStatus,
    OutputSpec,
    StaticCredentials,
    SubmissionSpec,
)

JOBS = 20
VICTIM = 7
POLL_SECONDS = 1.0
PATIENCE_SECONDS = 300.0
COLOURS = {
    JobStatus.WAITING: "yellow",
    JobStatus.RUNNING: "cyan",
    JobStatus.HELD: "magenta",
    JobStatus.DONE: "green",
    JobStatus.FAILED: "red",
    JobStatus.ABORTED: "bright_black",
    JobStatus.UNKNOWN: "white",
}
SCRIPT = """\
#!/bin/sh
echo "job $1 on $(hostname), greeted by: $(cat greeting.txt)"
sleep 5
"""


def spec(folder: Path) -> SubmissionSpec:
    """A script and a text file, both staged from this machine."""
    (folder / "job.sh").write_text(SCRIPT)
    (folder / "greeting.txt").write_text("hello from the demo\n")
    return SubmissionSpec(
        executable="job.sh",
        arguments=("of the demo",),
        inputs=(
            FileRef(name="job.sh", source=folder / "job.sh"),
            FileRef(name="greeting.txt", source=folder / "greeting.txt"),
        ),
        outputs=OutputSpec(include_unlisted=True),
        tag="demo",
    )


def board(handles: Sequence[JobHandle], states: Mapping[JobID, JobStatus], began: float) -> Table:
    """The jobs' states as of now."""
    counts = Counter(states.values())
    title = f"{time.monotonic() - began:5.1f} s   " + "   ".join(
        f"{status}: {counts[status]}" for status in JobStatus if counts[status]
    )
    table = Table(title=title, title_justify="left")
    for heading in ("copy", "job", "status"):
        table.add_column(heading)
    for handle in handles:
        status = states.get(handle.id, JobStatus.UNKNOWN)
        colour = COLOURS[status]
        note = "  (killed by us)" if handle.copy_index == VICTIM else ""
        table.add_row(
            str(handle.copy_index),
            handle.id.rsplit("/", 1)[-1],
            f"[{colour}]{status}[/]{note}",
        )
    return table


async def follow(
    backend: ARCBackend, handles: Sequence[JobHandle], console: Console
) -> Mapping[JobID, JobStatus]:
    """Show the states until all jobs are over."""
    began = time.monotonic()
    states: Mapping[JobID, JobStatus] = {}
    with Live(console=console, refresh_per_second=4) as live, trio.move_on_after(PATIENCE_SECONDS):
        while not states or not all(status.is_final for status in states.values()):
            states = await backend.status(handles)
            live.update(board(handles, states, began))
            await trio.sleep(POLL_SECONDS)
    return states


async def demo(config: ARCConfig, token: str, console: Console) -> bool:
    """Run it all; tells whether every job ended as it should."""
    credentials = StaticCredentials(BearerToken(value=token))
    async with ARCBackend(config, credentials) as backend:
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            submission = await backend.submit(spec(Path(folder)), count=JOBS)
        console.print(
            f"submitted [bold]{len(submission.handles)}[/] jobs with two inputs each to "
            f"{config.endpoint} in {time.monotonic() - began:.2f} s; "
            f"{len(submission.failures)} failures"
        )
        for copy, reason in submission.failures.items():
            console.print(f"  copy {copy}: {reason}", style="red", markup=False)
        handles = submission.handles
        victims = [handle for handle in handles if handle.copy_index == VICTIM]
        for outcome in (await backend.kill(victims)).values():
            console.print(f"killed copy {VICTIM}: {outcome}", markup=False)
        states = await follow(backend, handles, console)
        good = all(
            states[handle.id]
            is (JobStatus.ABORTED if handle.copy_index == VICTIM else JobStatus.DONE)
            for handle in handles
        )
        outcomes = await backend.purge(handles)
        table = Table(title="purge")
        for heading in ("outcome", "jobs"):
            table.add_column(heading)
        for text, jobs in Counter(
            "removed" if outcome.ok else str(outcome.reason) for outcome in outcomes.values()
        ).items():
            table.add_row(text, str(jobs))
        console.print(table)
    return good and len(handles) == JOBS and all(outcome.ok for outcome in outcomes.values())


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--endpoint", required=True, help="https://host:port of the CE")
    parser.add_argument("--token-file", type=Path, required=True)
    parser.add_argument("--ca-file", type=Path)
    parser.add_argument("--ca-dir", type=Path)
    parser.add_argument("--queue")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    console = Console()
    try:
        config = ARCConfig.from_dict(
            {
                "endpoint": options.endpoint,
                "ca_file": options.ca_file,
                "ca_dir": options.ca_dir,
                "queue": options.queue,
            }
        )
        good = trio.run(demo, config, options.token_file.read_text().strip(), console)
    except (InterCEdeError, OSError) as error:
        console.print(f"{type(error).__name__}: {error}", style="red", markup=False)
        return 1
    console.print("[bold green]as it should be[/]" if good else "[bold red]not as it should be[/]")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
