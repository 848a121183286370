"""``arcbackend diagram``: the life of a job, drawn."""

from __future__ import annotations

import sys
from pathlib import Path

from arcbackend.cli.arguments import Arguments, Subparsers, add_policy_argument, endpoint
from arcbackend.cli.codes import Exit
from arcbackend.errors import ConfigurationError
from arcbackend.graphviz import svg
from arcbackend.lifecycle.definition import JOB
from arcbackend.lifecycle.diagram import dot, mermaid
from arcbackend.lifecycle.policy import Policy

__all__ = ["add_diagram"]


def add_diagram(commands: Subparsers) -> None:
    """Add the command."""
    what = "draw the life of a job, as it is or under a policy"
    command = commands.add_parser("diagram", help=what, description=f"{what.capitalize()}.")
    add_policy_argument(command, "--policy", "draw only what exists under this policy")
    command.add_argument(
        "--ce",
        metavar="URL",
        type=endpoint,
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
    command.set_defaults(run=_draw)


def _draw(arguments: Arguments) -> Exit:
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
    return Exit.DONE
