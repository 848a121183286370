"""Arguments that several commands take."""

from __future__ import annotations

import argparse
from typing import Any, TypeAlias

from arcbackend.jobids import canonical_endpoint
from arcbackend.lifecycle.policy import Policy

__all__ = ["Arguments", "Subparsers", "add_policy_argument", "endpoint"]

Arguments: TypeAlias = argparse.Namespace
"""What a command is called with."""

Subparsers: TypeAlias = Any  # (argparse's class for it is private)
"""What a command is added to."""


def add_policy_argument(command: argparse.ArgumentParser, name: str, what: str) -> None:
    """Add an argument that names a policy."""
    command.add_argument(
        name,
        metavar="POLICY",
        help=f"{what}: a TOML file, or one that ships: {', '.join(Policy.shipped())}",
    )


def endpoint(text: str) -> str:
    """The type of an argument that names a CE."""
    try:
        return canonical_endpoint(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
