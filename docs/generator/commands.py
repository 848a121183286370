"""The command's help, as its users see it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from unittest.mock import patch

from arcbackend.cli import parser


def usage() -> str:
    """The help of every command."""
    with patch.dict(os.environ, {"COLUMNS": "88"}):
        return "\n\n".join(_help(parser()))


def _help(command: argparse.ArgumentParser) -> Iterator[str]:
    yield f"## {command.prog}\n\n```text\n{command.format_help()}```"
    for action in command._actions:  # (the only way to them)
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _help(inner)
