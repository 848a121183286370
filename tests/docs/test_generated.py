"""The generated parts of the docs are as the code says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_generated_pages_are_fresh() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_links_lead_somewhere() -> None:
    """Every ``docs/….md`` and ``tests/….py`` that a page, or a docstring, names exists."""
    named = re.compile(r"\b(?:docs|tests|examples|machines)/[A-Za-z0-9_./-]+\.(?:md|py|toml|yml)\b")
    pages = [*ROOT.glob("docs/**/*.md"), *ROOT.glob("arcbackend/**/*.py"), ROOT / "README.md"]
    missing = {
        f"{page.relative_to(ROOT)}: {path}"
        for page in pages
        for path in named.findall(page.read_text())
        if not (ROOT / path).exists()
    }
    assert missing == set()
