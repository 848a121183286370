"""The example of README.md, run as its readers would run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.ce import CE
from tests.packaging.readme import example

pytestmark = [pytest.mark.slurm, pytest.mark.once]


def test_the_example_runs(ce: CE, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.touch(mode=0o600)
    token_file.write_text(ce.token())
    (tmp_path / "example.py").write_text(example())
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        env={
            **os.environ,
            "ARC_ENDPOINT": ce.endpoint,
            "ARC_TOKEN_FILE": str(token_file),
            "ARC_CA_FILE": str(ce.ca_file),
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *_, verdict = done.stdout.splitlines()
    assert verdict == "99 done, 1 aborted; 100 purged"
