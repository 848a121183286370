"""The command ``arcbackend``, as its users run it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
from importlib.metadata import version
from pathlib import Path

import pytest

from arcbackend import Policy, graphviz
from arcbackend.cli import main
from arcbackend.errors import ConfigurationError, InterCEdeError
from arcbackend.lifecycle.definition import JOB
from arcbackend.lifecycle.diagram import dot, mermaid

OURS = """
name = "ours"
hold.action = "ask"
hold.other_after = 60
[ce."https://ce.example.org".hold]
action = "kill"
"""


def run(
    *arguments: str | Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "arcbackend", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        env={**os.environ, **(env or {})},
    )


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    path = tmp_path / "ours.toml"
    path.write_text(OURS)
    return path


def refused(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    """What is said on standard error: one line."""
    assert (done.returncode, done.stdout) == (code, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("arcbackend: ")
    return line


def test_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"arcbackend {version('arcbackend')}\n")


def test_without_a_command_its_usage_is_told() -> None:
    done = run()
    assert done.returncode == 2
    assert done.stderr.startswith("usage: arcbackend")


# diagram


def test_the_plain_machine_is_drawn_for_markdown() -> None:
    done = run("diagram")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == mermaid(JOB)


def test_a_diagram_is_utf8_whatever_the_locale() -> None:
    done = run("diagram", env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout) == (0, mermaid(JOB))


def test_a_shipped_policy_by_its_name() -> None:
    done = run("diagram", "--policy", "patient-kill", "--format", "dot")
    assert done.stdout == dot(JOB, Policy.load("patient-kill"))


def test_a_policy_file_and_what_it_says_of_one_ce(ours: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mmd"
    done = run("diagram", "--policy", ours, "--output", out)
    assert (done.returncode, done.stdout) == (0, "")
    assert out.read_text() == mermaid(JOB, Policy.load(ours))
    assert "held --> awaiting" in out.read_text()
    there = run("diagram", "--policy", ours, "--ce", "https://CE.example.org:443").stdout
    assert "held --> killing" in there
    assert "held --> awaiting" not in there


def test_a_ce_goes_with_a_policy() -> None:
    assert "--policy" in refused(run("diagram", "--ce", "https://ce.example.org"))
    done = run("diagram", "--policy", "report", "--ce", "ce.example.org")
    assert done.returncode == 2
    assert "https://host:port" in done.stderr


def test_an_unknown_policy_is_refused_naming_those_there_are() -> None:
    assert "patient-kill" in refused(run("diagram", "--policy", "no-such-policy"))


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    line = refused(run("diagram", "--output", tmp_path / "no" / "such" / "folder"), code=1)
    assert "folder" in line


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "arcbackend", "diagram"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(timeout=60) == 1
        assert process.stderr.read() == b""


# svg


def test_a_picture(tmp_path: Path) -> None:
    if shutil.which("dot") is None:
        text = "NOT RUN: Graphviz is not installed here (apt-get install graphviz)"
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(text)
    out = tmp_path / "out.svg"
    done = run("diagram", "--policy", "patient-kill", "--format", "svg", "--output", out)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    picture = ET.fromstring(out.read_text())
    shown = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert set(JOB.states) - {"awaiting"} <= set(shown)
    assert any(text and "after 1 h [taken] / kill" in text.replace("\xa0", " ") for text in shown)


def test_without_graphviz_it_is_told_what_to_install(tmp_path: Path) -> None:
    line = refused(run("diagram", "--format", "svg", env={"PATH": str(tmp_path)}))
    assert "apt-get install graphviz" in line


def _program(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "dot"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_what_graphviz_complains_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(tmp_path, "cat >/dev/null; echo syntax error >&2; exit 1", monkeypatch)
    with pytest.raises(InterCEdeError, match="syntax error"):
        graphviz.svg("digraph {")


def test_graphviz_may_not_take_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(tmp_path, "exec sleep 60", monkeypatch)
    with pytest.raises(InterCEdeError, match=r"longer than 0\.2 s"):
        graphviz.svg("digraph {}", timeout=0.2)


def test_a_graphviz_that_cannot_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(tmp_path, "", monkeypatch)
    (tmp_path / "dot").write_bytes(b"\0")
    with pytest.raises(ConfigurationError, match="cannot be run"):
        graphviz.svg("digraph {}")


# policy


@pytest.mark.parametrize("name", Policy.shipped())
def test_what_a_policy_sets_is_a_policy_again(name: str) -> None:
    done = run("policy", "check", name)
    assert (done.returncode, done.stderr) == (0, "")
    assert Policy.from_dict(tomllib.loads(done.stdout)) == Policy.load(name)


def test_what_it_sets_for_each_ce_is_told(ours: Path) -> None:
    done = run("policy", "check", ours)
    told, policy = Policy.from_dict(tomllib.loads(done.stdout)), Policy.load(ours)
    assert told.hold == policy.hold
    (ce,) = policy.ce
    assert told.for_ce(ce) == policy.for_ce(ce)
    assert told.for_ce(ce).hold.action == "kill"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("hold.action = 'shoot'", "hold.action"),
        ("hold.graze = 1", "hold.graze"),
        ("[ce.'https://ce.example.org'.hold]\ngrace = -1", "ce.https://ce.example.org:443"),
        ("hold.action = [", "Invalid value"),
    ],
)
def test_a_wrong_policy_is_refused_naming_file_and_field(
    tmp_path: Path, text: str, named: str
) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    line = refused(run("policy", "check", path))
    assert str(path) in line
    assert named in line


def test_the_entry_point_returns_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "check", "report"]) == 0
    assert re.search(r'^hold\.action = "report"$', capsys.readouterr().out, re.MULTILINE)
    assert main(["policy", "check", "no-such-policy"]) == 2
    assert capsys.readouterr().err.startswith("arcbackend: ")
