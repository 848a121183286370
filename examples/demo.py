"""The main job, to watch: submit, follow, kill what is held, fetch, diagnose, purge.

python examples/demo.py          # on a simulated CE, whose jobs are processes of this machine
python examples/demo.py --endpoint https://ce.example.org:443 --token-file /path/to/token
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import structlog
import trio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from arcbackend import (
    ARCBackend,
    ARCConfig,
    BearerToken,
    CopyVars,
    CredentialProvider,
    FileRef,
    InterCEdeError,
    JobEvent,
    JobHandle,
    JobID,
    JobOutput,
    JobStatus,
    OutputSpec,
    Policy,
    Poller,
    StaticCredentials,
    SubmissionSpec,
)

WORKERS = 16
EXIT_CODE = 3
POLICY = Path(__file__).parent / "policies" / "demo.toml"
# Seconds; somebody watches. A WMS has more patience, and leaves the CE in peace.
POLLING = {"listing": 1.0, "documents": 1.0}
PATIENCE_SECONDS = 600.0
LAST_EVENTS = 8
COLOURS = {
    JobStatus.WAITING: "yellow",
    JobStatus.RUNNING: "cyan",
    JobStatus.HELD: "magenta",
    JobStatus.DONE: "green",
    JobStatus.FAILED: "red",
    JobStatus.ABORTED: "bright_black",
    JobStatus.UNKNOWN: "white",
}
# Each copy's own number comes in its environment; the greeting is a file that we stage.
SCRIPT = """\
#!/bin/sh
echo "copy $COPY on $(uname -n), greeted by: $(cat greeting.txt)"
sleep $((COPY % 4 + 1))
echo "$((COPY * COPY))" >result.txt
"""
FAILING = f"""\
#!/bin/sh
echo "cannot open calibration.db: No such file or directory" >&2
exit {EXIT_CODE}
"""


@dataclass
class Part:
    """Some of the demo's jobs, and how they are to end."""

    what: str
    end: str
    handles: list[JobHandle] = field(default_factory=list)


class Board:
    """The machine's states with the jobs in them, and the last events."""

    def __init__(self, names: Mapping[JobID, str]) -> None:
        self.names = names
        self.states: dict[JobID, tuple[str, JobStatus]] = {}
        self.seen: dict[str, JobStatus] = {}
        self.lines: list[Text] = []
        self.steps: Counter[tuple[str, str, str]] = Counter()
        self.began = time.monotonic()

    def take(self, event: JobEvent) -> None:
        """Note what an event tells."""
        outcome = event.outcome
        if event.source != event.dest:
            self.states[event.id] = (event.dest, event.status_after)
            self.seen.setdefault(event.dest, event.status_after)
            self.steps[event.source, event.dest, event.seen_by.value] += 1
        elif outcome is None:
            return
        line = f"{time.monotonic() - self.began:5.1f} s  {self.names[event.id]:<10} "
        line += f"{event.source} → {event.dest} by {event.seen_by}"
        if outcome is not None:
            line += f": {outcome.reason or 'taken'}"
        self.lines.append(Text(line, style=COLOURS[event.status_after], no_wrap=True))

    def over(self) -> bool:
        """Whether all jobs are."""
        return len(self.states) == len(self.names) and all(
            status.is_final for _, status in self.states.values()
        )

    def __rich__(self) -> RenderableType:
        """A row for each state that a job has been in, in the order in which they came."""
        now = Counter(state for state, _ in self.states.values())
        table = Table(box=None, pad_edge=False, show_header=False)
        for state, status in self.seen.items():
            bar = ProgressBar(
                total=len(self.names),
                completed=now[state],
                width=40,
                complete_style=COLOURS[status],
            )
            table.add_row(Text(state, style=COLOURS[status]), f"{now[state]:>3}", bar)
        title = Text(f"\n{time.monotonic() - self.began:5.1f} s, {len(self.names)} jobs", "bold")
        return Group(title, table, Text(), *self.lines[-LAST_EVENTS:])


async def submit(backend: ARCBackend, folder: Path, simulated: bool) -> list[Part]:
    """Jobs of three kinds. Their inputs may be deleted as soon as this returns."""
    (folder / "job.sh").write_text(SCRIPT)
    (folder / "failing.sh").write_text(FAILING)
    (folder / "greeting.txt").write_text("hello from the demo\n")
    script, failing, greeting = (
        FileRef(name=name, source=folder / name)
        for name in ("job.sh", "failing.sh", "greeting.txt")
    )
    worker = SubmissionSpec(
        executable="job.sh",
        inputs=(script, greeting),
        outputs=OutputSpec(include_unlisted=True),
        tag="demo",
    )
    broken = SubmissionSpec(executable="failing.sh", inputs=(failing,), tag="demo")
    # The simulator's batch system suspends it after a second; a real one does not know the word.
    held = SubmissionSpec(
        executable="/bin/sleep",
        arguments=("5",),
        environment={"SIMULATOR_HOLD_AFTER": "1"},
        tag="demo",
    )
    parts = [
        Part("worker", "finished"),
        Part("failing", "failed"),
        Part("held", "killed" if simulated else "finished"),
    ]
    copies = [CopyVars(environment={"COPY": str(number)}) for number in range(WORKERS)]
    submissions = [
        await backend.submit(worker, copies=copies),
        await backend.submit(broken),
        await backend.submit(held),
    ]
    for part, submission in zip(parts, submissions, strict=True):
        part.handles = list(submission.handles)
        for copy, reason in submission.failures.items():
            raise InterCEdeError(f"{part.what}: copy {copy} was not created: {reason}")
    return parts


async def follow(poller: Poller, board: Board, console: Console) -> None:
    """Show what happens until all jobs are over."""
    events = poller.events()
    live = Live(board, console=console, refresh_per_second=8)
    shown = live if console.is_terminal else nullcontext()
    with shown, trio.move_on_after(PATIENCE_SECONDS):
        async for event in events:
            if isinstance(event, JobEvent):
                board.take(event)
                if not console.is_terminal:
                    console.print(board.lines[-1])
            if board.over():
                break
    events.close()


def show_outputs(outputs: Sequence[JobOutput], console: Console) -> bool:
    """What came back; tells whether it is what the jobs computed."""
    files = sum(len(output.files) for output in outputs)
    size = sum(output.size for output in outputs)
    console.print(f"fetched the outputs of {len(outputs)} jobs: {files} files, {size} bytes in all")
    for output in outputs[:2]:
        if output.stdout is not None:
            console.print(f"  {output.stdout.read_text().strip()}", style="cyan", markup=False)
    results = [
        int(file.read_text())
        for output in outputs
        for file in output.files
        if file.name == "result.txt"
    ]
    return results == [number**2 for number in range(WORKERS)]


async def demo(
    config: ARCConfig, credentials: CredentialProvider, console: Console, *, simulated: bool
) -> bool:
    """Run it all; tells whether everything ended as it should."""
    with tempfile.TemporaryDirectory() as name, structlog.testing.capture_logs() as log:
        folder = Path(name)
        async with (
            ARCBackend(config, credentials) as backend,
            backend.poller(Policy.load(POLICY)) as poller,
        ):
            began = time.monotonic()
            parts = await submit(backend, folder, simulated)
            handles = [handle for part in parts for handle in part.handles]
            console.print(
                f"submitted [bold]{len(handles)}[/] jobs, {len(handles) * 2 - 2} input files, to "
                f"{config.endpoint} in {time.monotonic() - began:.2f} s"
            )
            names = {
                handle.id: f"{part.what} {handle.copy_index}".removesuffix(" 0")
                if part.what != "worker"
                else f"worker {handle.copy_index}"
                for part in parts
                for handle in part.handles
            }
            board = Board(names)
            poller.track(handles)
            await follow(poller, board, console)
            ended = {
                handle.id: board.states.get(handle.id, ("not seen", None))[0] for handle in handles
            }
            good = all(ended[handle.id] == part.end for part in parts for handle in part.handles)

            workers, failing, _ = parts
            outputs = await poller.fetch_output(workers.handles, folder / "outputs")
            good = show_outputs(list(outputs.values()), console) and good

            (diagnosis,) = (await backend.diagnostics(failing.handles)).values()
            console.print(f"why {names[failing.handles[0].id]!r} failed: ", end="")
            console.print(str(diagnosis.failure_reason), style="red", markup=False)
            good = good and diagnosis.exit_code == EXIT_CODE

            outcomes = await poller.purge(handles)
            purged = [outcome.ok for outcome in outcomes.values()].count(True)
            good = good and purged == len(handles)
    requests = Counter(entry["operation"] for entry in log if entry["event"] == "arc.request")
    summary(board, ended, purged, requests, console)
    return good


def summary(
    board: Board,
    ended: Mapping[JobID, str],
    purged: int,
    requests: Counter[str],
    console: Console,
) -> None:
    """What happened, in three tables."""
    ways = Table(title="the ways that the jobs took", title_justify="left")
    for heading, justify in (
        ("jobs", "right"),
        ("from", "left"),
        ("to", "left"),
        ("seen by", "left"),
    ):
        ways.add_column(heading, justify="right" if justify == "right" else "left")
    for (source, dest, seen_by), number in board.steps.items():
        ways.add_row(str(number), source, dest, seen_by)
    console.print(ways)
    ends = ", ".join(f"{number} {state}" for state, number in Counter(ended.values()).items())
    console.print(f"[bold]{len(ended)} jobs[/]: {ends}; {purged} purged")
    told = ", ".join(f"{number} {operation}" for operation, number in requests.most_common())
    console.print(f"[bold]{requests.total()} requests[/]: {told}")


def draw(console: Console) -> None:
    """The picture of the machine under this policy, beside where the demo was started."""
    command = [sys.executable, "-m", "arcbackend", "diagram", "--policy", str(POLICY)]
    for kind, name in (("svg", "demo-machine.svg"), ("mermaid", "demo-machine.mmd")):
        done = subprocess.run(  # noqa: S603 - our own command
            [*command, "--format", kind, "--output", name], capture_output=True, check=False
        )
        if done.returncode == 0:
            console.print(f"the machine under this policy, drawn: [bold]{name}[/]")
            return


async def on_simulator(console: Console) -> bool:
    """The same on a CE of our own: its jobs are real processes, its answers A-REX's."""
    from arcbackend.simulator import Simulator  # noqa: PLC0415 - an extra

    # A real CE publishes the states of the batch system once a minute.
    async with Simulator.serving(
        execution="local", lrms="condor", slots=8, publish_every=1.0
    ) as ce:
        console.print(f"a simulated CE at {ce.endpoint}; its jobs are processes of this machine")
        credentials = StaticCredentials(ce.credentials())
        config = ce.config(polling=POLLING)
        return await demo(config, credentials, console, simulated=True)


async def on_ce(options: argparse.Namespace, console: Console) -> bool:
    """On the CE that the command line names."""
    config = ARCConfig.from_dict(
        {
            "endpoint": options.endpoint,
            "ca_file": options.ca_file,
            "ca_dir": options.ca_dir,
            "queue": options.queue,
            "polling": POLLING,
        }
    )
    token = BearerToken(value=options.token_file.read_text().strip())
    return await demo(config, StaticCredentials(token), console, simulated=False)


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--endpoint", help="https://host:port of a CE; none: a simulated one")
    parser.add_argument("--token-file", type=Path)
    parser.add_argument("--ca-file", type=Path)
    parser.add_argument("--ca-dir", type=Path)
    parser.add_argument("--queue")
    options = parser.parse_args()
    if options.endpoint and not options.token_file:
        parser.error("--endpoint goes with --token-file")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(10))
    console = Console()
    try:
        if options.endpoint:
            good = trio.run(on_ce, options, console)
        else:
            good = trio.run(on_simulator, console)
    except (InterCEdeError, OSError) as error:
        console.print(f"{type(error).__name__}: {error}", style="red", markup=False)
        return 1
    draw(console)
    console.print("[bold green]as it should be[/]" if good else "[bold red]not as it should be[/]")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
