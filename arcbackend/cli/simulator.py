"""``arcbackend simulator serve``: a simulated CE, for curl, other languages, and by hand."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from arcbackend.cli.arguments import Arguments, Subparsers
from arcbackend.cli.codes import Exit
from arcbackend.cli.running import add_log_option, logging_as_asked, run
from arcbackend.errors import ConfigurationError
from arcbackend.validation import read_toml, validated

if TYPE_CHECKING:
    from arcbackend.simulator import Simulator

__all__ = ["add_simulator"]

_DESCRIPTION = """\
Serve a simulated ARC 7 CE on a loopback port, until Ctrl-C. What it is like, and
what it can be made to do: docs/explanation/simulator.md.

On standard output comes what is needed to use it: a line for each of endpoint,
ca_file, token_file and proxy_file (or one JSON object). The files are in
--credentials, readable by you alone; a folder that is made for them is removed
at the end.

Needs the extra: pip install "arcbackend[simulator]".
"""
_SUBJECT = "user"


def add_simulator(commands: Subparsers) -> None:
    """Add the command."""
    simulator = commands.add_parser("simulator", help="serve a simulated CE")
    verbs = simulator.add_subparsers(title="commands", metavar="COMMAND", required=True)
    command = verbs.add_parser(
        "serve",
        help="serve a simulated CE on a loopback port",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--port", type=int, default=0, help="0 (the default): a free one")
    command.add_argument(
        "--settings",
        metavar="FILE",
        type=Path,
        help="a TOML file of settings: docs/reference/simulator.md",
    )
    command.add_argument("--arc-version", choices=["7.0.0", "7.2.0"], help="of the CE")
    command.add_argument("--lrms", choices=["slurm", "condor"], help="the batch system behind it")
    command.add_argument(
        "--execution",
        choices=["simulated", "local"],
        help="whether jobs only take their time, or run as processes of this machine",
    )
    command.add_argument(
        "--publish-every",
        metavar="SECONDS",
        type=float,
        help="how often the states of the batch system are published",
    )
    command.add_argument(
        "--credentials", metavar="DIR", type=Path, help="where credentials are written"
    )
    command.add_argument("--json", action="store_true", help="print one JSON object")
    add_log_option(command)
    command.set_defaults(run=_serve)


def _serve(arguments: Arguments) -> Exit:
    try:
        # It is an extra, and takes time to import.
        from arcbackend.simulator import Simulator, SimulatorSettings  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f'the simulator needs {error.name}: pip install "arcbackend[simulator]"'
        ) from None
    given = _given(arguments)

    def settled(from_file: dict[str, Any]) -> SimulatorSettings:
        return validated(SimulatorSettings, from_file | given, "settings")

    if arguments.settings is None:
        settings = settled({})
    else:
        settings = read_toml(arguments.settings, "a simulator's settings", settled)

    async def work() -> None:
        async with Simulator.serving(settings, port=arguments.port) as ce:
            told = _told(ce, folder)
            if arguments.json:
                sys.stdout.write(json.dumps(told) + "\n")
            else:
                sys.stdout.writelines(f"{name:<11} {value}\n" for name, value in told.items())
            sys.stdout.flush()
            await trio.sleep_forever()

    with ExitStack() as stack:
        folder = arguments.credentials
        if folder is None:
            name = stack.enter_context(tempfile.TemporaryDirectory(prefix="arcbackend-simulator-"))
            folder = Path(name)
        else:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with logging_as_asked(arguments):
            run(work)
    return Exit.DONE


def _given(arguments: Arguments) -> dict[str, Any]:
    """The settings that the command line has, which come before the file's."""
    given = {
        "arc_version": arguments.arc_version,
        "lrms": arguments.lrms,
        "execution": arguments.execution,
        "publish_every": arguments.publish_every,
    }
    return {name: value for name, value in given.items() if value is not None}


def _told(ce: Simulator, folder: Path) -> dict[str, str]:
    """Write credentials into files; tells what is needed to use the CE."""
    told = {"endpoint": ce.endpoint}
    credentials = ce.credentials(_SUBJECT)
    contents = {"ca_file": ("ca.pem", ce.ca_file.read_bytes())}
    if credentials.token is not None:
        token = credentials.token.value.get_secret_value().encode()
        contents["token_file"] = ("token", token)
    if credentials.proxy is not None:
        contents["proxy_file"] = ("proxy.pem", credentials.proxy.pem.get_secret_value())
    for what, (name, content) in contents.items():
        path = folder.absolute() / name
        _write_privately(path, content)
        told[what] = str(path)
    return told


def _write_privately(path: Path, content: bytes) -> None:
    """Whole or not at all, and never readable by others, whatever was there before."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    os.replace(file.name, path)
