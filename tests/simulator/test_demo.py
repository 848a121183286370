"""examples/demo.py on the simulator, as ``make demo`` runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


def test_the_demo_ends_as_it_should(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(DEMO)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "why 'failing' failed: exit code 3" in done.stdout
    assert "16 finished, 1 failed, 1 killed; 18 purged" in done.stdout
    (picture,) = tmp_path.iterdir()
    assert picture.name.startswith("demo-machine.")
    assert "held" in picture.read_text()
