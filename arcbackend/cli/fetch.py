"""``arcbackend fetch``: what jobs left, to disk."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from arcbackend.cli.arguments import Arguments, Subparsers
from arcbackend.cli.codes import Exit
from arcbackend.cli.connection import add_connection, backend_of
from arcbackend.cli.display import display
from arcbackend.cli.ids import add_ids, read_ids
from arcbackend.cli.running import add_log_option, logging_as_asked, run
from arcbackend.models import JobID, JobOutput
from arcbackend.output.progress import FetchProgress

__all__ = ["add_fetch"]

_DESCRIPTION = """\
Fetch what jobs left into DIR/<the CE's id of the job>/. The CE is left as it
is, so that it can be repeated. All jobs are of one CE.

On standard output comes a line for each job as soon as it is done, of columns
separated by tabs:

  complete or incomplete, the job, bytes, directory (- if there is none), reason

How far it has come is told on standard error: by a bar on a terminal, if rich
is installed (pip install "arcbackend[cli]"), else by a line now and then.
"""


def add_fetch(commands: Subparsers) -> None:
    """Add the command."""
    command = commands.add_parser(
        "fetch",
        help="fetch what jobs left",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_ids(command)
    command.add_argument(
        "--dest", metavar="DIR", type=Path, required=True, help="made if it is not there"
    )
    command.add_argument(
        "--json",
        action="store_true",
        help="on standard output, a manifest for each job instead: a JobOutput in JSON, with id",
    )
    command.add_argument("--quiet", action="store_true", help="do not tell how far it has come")
    add_log_option(command)
    add_connection(command)
    command.set_defaults(run=_fetch)


def _fetch(arguments: Arguments) -> Exit:
    jobs = read_ids(arguments.ids)
    if not jobs:
        return Exit.DONE
    backend = backend_of(arguments, jobs)
    shown = display(quiet=arguments.quiet, plain=arguments.log)
    # What the terminal's line is kept for is not written over: lines for it wait.
    report = _Report(arguments.json, wait=shown.on_terminal and sys.stdout.isatty())

    def tell(progress: FetchProgress) -> None:
        shown(progress)
        if progress.output is not None and progress.job is not None:
            report.add(progress.job, progress.output)

    async def work() -> None:
        async with backend:
            await backend.fetch_output(jobs, arguments.dest, progress=tell)

    try:
        with logging_as_asked(arguments), shown:
            run(work)
    finally:
        report.flush()
    return Exit.DONE if report.all_complete else Exit.FAILED


class _Report:
    """What comes of jobs, on standard output.

    Args:
        as_json: manifests instead of lines.
        wait: write only when told to.
    """

    def __init__(self, as_json: bool, *, wait: bool) -> None:
        self.all_complete = True
        self._as_json = as_json
        self._wait = wait
        self._lines: list[str] = []

    def add(self, job: JobID, output: JobOutput) -> None:
        """A job is done."""
        self.all_complete = self.all_complete and output.complete
        self._lines.append(_manifest(job, output) if self._as_json else _line(job, output))
        if not self._wait:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        lines, self._lines = self._lines, []
        sys.stdout.writelines(lines)
        sys.stdout.flush()


def _manifest(job: JobID, output: JobOutput) -> str:
    return json.dumps({"id": job, **output.model_dump(mode="json")}) + "\n"


def _line(job: JobID, output: JobOutput) -> str:
    columns = (
        "complete" if output.complete else "incomplete",
        job,
        str(output.size),
        "-" if output.directory is None else str(output.directory),
        output.reason or "",
    )
    return "\t".join(" ".join(column.split()) for column in columns).rstrip() + "\n"
