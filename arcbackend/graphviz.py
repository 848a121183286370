"""Pictures through Graphviz: its program ``dot``, which must be installed."""

from __future__ import annotations

import shutil
import subprocess

from arcbackend.errors import ConfigurationError, InterCEdeError

__all__ = ["svg"]


def svg(source: str, *, timeout: float = 60.0) -> str:
    """Draw a diagram.

    Args:
        source: what ``dot`` reads.
        timeout: seconds that it may take.

    Raises:
        ConfigurationError: Graphviz is not installed.
        InterCEdeError: it failed, or took too long.
    """
    program = shutil.which("dot")
    if program is None:
        raise ConfigurationError(
            "Graphviz is not installed (there is no program dot): as root, apt-get install graphviz"
        )
    try:
        done = subprocess.run(  # noqa: S603  (no shell, no arguments from outside)
            [program, "-Tsvg"],
            input=source.encode(),
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InterCEdeError(f"Graphviz took longer than {timeout:g} s") from None
    except OSError as error:
        raise ConfigurationError(f"Graphviz cannot be run: {error}") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise InterCEdeError(f"Graphviz failed: {said or f'exit code {done.returncode}'}")
    return done.stdout.decode()
