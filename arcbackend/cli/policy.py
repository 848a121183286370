"""``arcbackend policy``: policies for held, lost and killed jobs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

from arcbackend.cli.arguments import Arguments, Subparsers, add_policy_argument
from arcbackend.cli.codes import Exit
from arcbackend.lifecycle.policy import Policy

__all__ = ["add_policy"]


def add_policy(commands: Subparsers) -> None:
    """Add the commands."""
    what = "policies for held, lost and killed jobs"
    group = commands.add_parser("policy", help=what, description=f"{what.capitalize()}.")
    actions = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    what = "validate a policy, and print what it sets, defaults included"
    command = actions.add_parser("check", help=what, description=f"{what.capitalize()}.")
    add_policy_argument(command, "policy", "the policy")
    command.set_defaults(run=_check)


def _check(arguments: Arguments) -> Exit:
    policy = Policy.load(arguments.policy)
    sys.stdout.write(f"name = {json.dumps(policy.name)}\n")
    for line in _settings(policy):
        sys.stdout.write(f"{line}\n")
    for ce in policy.ce:
        sys.stdout.write(f"\n[ce.{json.dumps(ce)}]\n")
        for line in _settings(policy.for_ce(ce)):
            sys.stdout.write(f"{line}\n")
    return Exit.DONE


def _settings(policy: Policy) -> Iterator[str]:
    """As TOML, so that it is a policy file again."""
    for field, value in policy.settings():
        yield f"{field} = {json.dumps('never' if value is None else value)}"
