"""The pictures in docs/reference.

What Graphviz makes of a diagram depends on its version, so a picture bears the hash of what it was
made of: that tells whether it is stale.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from arcbackend.graphviz import svg
from arcbackend.lifecycle.definition import JOB
from arcbackend.lifecycle.diagram import dot
from arcbackend.lifecycle.policy import Policy


def drawings() -> dict[str, str]:
    """File name → the diagram's source."""
    found = {"machine.svg": dot(JOB)}
    for name in Policy.shipped():
        found[f"machine-{name}.svg"] = dot(JOB, Policy.load(name))
    return found


def is_fresh(path: Path, source: str) -> bool:
    """Whether the picture was made of this source."""
    return path.exists() and path.read_text(encoding="utf-8").endswith(_seal(source))


def draw(path: Path, source: str) -> None:
    """Make the picture."""
    path.write_text(svg(source) + _seal(source), encoding="utf-8")


def _seal(source: str) -> str:
    digest = hashlib.sha256(source.encode()).hexdigest()
    return f"<!-- made by docs/generate.py; SHA-256 of the diagram: {digest} -->\n"
