"""What README.md promises, as far as no CE is needed.

That its example runs is shown on the real ones: tests/integration/test_readme.py.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import arcbackend
from tests.packaging.readme import README, example

ROOT = README.parent


def test_the_example_imports_only_what_is_public() -> None:
    imported = [
        alias.name
        for node in ast.walk(ast.parse(example()))
        if isinstance(node, ast.ImportFrom) and node.module == "arcbackend"
        for alias in node.names
    ]
    assert imported
    assert set(imported) <= set(arcbackend.__all__)


def test_the_example_passes_strict_type_checks(tmp_path: Path) -> None:
    path = tmp_path / "readme_example.py"
    path.write_text(example())
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", README.read_text())
    assert links
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert missing == []


def test_the_make_targets_exist() -> None:
    text = README.read_text()
    named = set(re.findall(r"\bmake ([a-z]+(?:-[a-z]+)*)", text))
    rules = re.findall(r"^([a-z][a-z -]*):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert named >= {"demo", "test"}
    assert named <= {target for rule in rules for target in rule.split()}
