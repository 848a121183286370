"""The command ``arcbackend``: thin, over the library.

Exit codes: 0; 1: what was asked failed; 2: the arguments, or a file that they name, are wrong.
Whatever goes wrong is told in one line on standard error.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from arcbackend.errors import ConfigurationError, InterCEdeError
from arcbackend.graphviz import svg
from arcbackend.jobids import canonical_endpoint
from arcbackend.lifecycle.definition import JOB
from arcbackend.lifecycle.diagram import dot, mermaid
from arcbackend.lifecycle.policy import Policy

__all__ = ["main", "parser"]

_Arguments = argparse.Namespace
_Subparsers = Any  # (argparse's class for it is private)

_FAILED, _WRONG = 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: the arguments; None: the process's.

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Diagrams are UTF-8 whatever the locale.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    arguments = parser().parse_args(argv)
    run: Callable[[_Arguments], None] = arguments.run
    try:
        run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone. Nothing is left to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    except (InterCEdeError, OSError) as error:
        sys.stderr.write(f"arcbackend: {' '.join(str(error).split())}\n")
        return _WRONG if isinstance(error, ConfigurationError) else _FAILED
    return 0


def parser() -> argparse.ArgumentParser:
    """The arguments that the command takes. Each command's parser sets ``run``."""
    whole = argparse.ArgumentParser(
        prog="arcbackend", description="Jobs on NorduGrid ARC 7 Computing Elements."
    )
    whole.add_argument("--version", action="version", version=f"arcbackend {version('arcbackend')}")
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (_add_diagram, _add_policy):
        add(commands)
    return whole


# --- diagram -------------------------------------------------------------------------------------


def _add_diagram(commands: _Subparsers) -> None:
    what = "draw the life of a job, as it is or under a policy"
    command = commands.add_parser("diagram", help=what, description=f"{what.capitalize()}.")
    _add_policy_argument(command, "--policy", "draw only what exists under this policy")
    command.add_argument(
        "--ce",
        metavar="URL",
        type=_endpoint,
        help="with what the policy says of this CE in particular (https://host:port)",
    )
    command.add_argument(
        "--format",
        choices=["mermaid", "dot", "svg"],
        default="mermaid",
        help="mermaid (the default): for GitHub and other Markdown; dot: for Graphviz; "
        "svg: drawn by Graphviz, which must be installed",
    )
    command.add_argument("--output", metavar="FILE", type=Path, help="write it there")
    command.set_defaults(run=_diagram)


def _diagram(arguments: _Arguments) -> None:
    policy = None if arguments.policy is None else Policy.load(arguments.policy)
    if arguments.ce is not None:
        if policy is None:
            raise ConfigurationError("--ce goes with --policy")
        policy = policy.for_ce(arguments.ce)
    if arguments.format == "mermaid":
        text = mermaid(JOB, policy)
    else:
        text = dot(JOB, policy)
        if arguments.format == "svg":
            text = svg(text)
    if arguments.output is None:
        sys.stdout.write(text)
    else:
        arguments.output.write_text(text, encoding="utf-8")


# --- policy --------------------------------------------------------------------------------------


def _add_policy(commands: _Subparsers) -> None:
    what = "policies for held, lost and killed jobs"
    group = commands.add_parser("policy", help=what, description=f"{what.capitalize()}.")
    actions = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    what = "validate a policy, and print what it sets, defaults included"
    command = actions.add_parser("check", help=what, description=f"{what.capitalize()}.")
    _add_policy_argument(command, "policy", "the policy")
    command.set_defaults(run=_policy_check)


def _policy_check(arguments: _Arguments) -> None:
    policy = Policy.load(arguments.policy)
    sys.stdout.write(f"name = {json.dumps(policy.name)}\n")
    for line in _settings(policy):
        sys.stdout.write(f"{line}\n")
    for endpoint in policy.ce:
        sys.stdout.write(f"\n[ce.{json.dumps(endpoint)}]\n")
        for line in _settings(policy.for_ce(endpoint)):
            sys.stdout.write(f"{line}\n")


def _settings(policy: Policy) -> Iterator[str]:
    """As TOML, so that it is a policy file again."""
    for field, value in policy.settings():
        yield f"{field} = {json.dumps('never' if value is None else value)}"


# --- arguments that several commands take --------------------------------------------------------


def _add_policy_argument(command: argparse.ArgumentParser, name: str, what: str) -> None:
    command.add_argument(
        name,
        metavar="POLICY",
        help=f"{what}: a TOML file, or one that ships: {', '.join(Policy.shipped())}",
    )


def _endpoint(text: str) -> str:
    try:
        return canonical_endpoint(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
