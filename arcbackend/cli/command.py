"""The command's parser, and its exit codes. What goes wrong is told in one line on stderr."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from arcbackend.cli.codes import Exit
from arcbackend.cli.diagram import add_diagram
from arcbackend.cli.fetch import add_fetch
from arcbackend.cli.policy import add_policy
from arcbackend.cli.running import Interrupted
from arcbackend.cli.simulator import add_simulator
from arcbackend.errors import (
    AuthenticationError,
    ConfigurationError,
    InterCEdeError,
    ProtocolError,
    TransportError,
)

__all__ = ["main", "parser"]

_EPILOG = """\
exit codes:
  0  done
  1  what was asked failed, or failed for some of the jobs
  2  the arguments, or a file that they name, are wrong
  3  the CE could not be asked: it is away, or does not accept the credentials
  130, 143  ended by Ctrl-C, by SIGTERM
"""


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
    run: Callable[[argparse.Namespace], Exit] = arguments.run
    try:
        code = run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone. Nothing is left to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    except (InterCEdeError, OSError) as error:
        # A file without credentials is the caller's to mend, though asking the CE failed by it.
        cause = error.__cause__ if isinstance(error.__cause__, ConfigurationError) else error
        _complain(str(cause))
        return _code(cause)
    except (Interrupted, KeyboardInterrupt) as error:
        _complain("interrupted")
        return 128 + (error.signal if isinstance(error, Interrupted) else signal.SIGINT)
    return code


def parser() -> argparse.ArgumentParser:
    """The arguments that the command takes. Each command's parser sets ``run``."""
    whole = argparse.ArgumentParser(
        prog="arcbackend",
        description="Jobs on NorduGrid ARC 7 Computing Elements.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument("--version", action="version", version=f"arcbackend {version('arcbackend')}")
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (add_fetch, add_diagram, add_policy, add_simulator):
        add(commands)
    return whole


def _code(error: Exception) -> Exit:
    if isinstance(error, ConfigurationError):
        return Exit.WRONG
    if isinstance(error, AuthenticationError | TransportError | ProtocolError):
        return Exit.NO_CE
    return Exit.FAILED


def _complain(text: str) -> None:
    sys.stderr.write(f"arcbackend: {' '.join(text.split())}\n")
