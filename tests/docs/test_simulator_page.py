"""The Python in docs/explanation/simulator.md runs."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from arcbackend import SubmissionSpec
from arcbackend.simulator import Simulator

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "simulator.md"


def block(beginning: str, **given: Any) -> dict[str, Any]:
    """What a piece of code defines, which is named by how it begins."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (code,) = [block for block in blocks if block.startswith(beginning)]
    found: dict[str, Any] = {"pytest": pytest, **given}
    exec(code, found)
    return found


async def test_hours_without_a_socket(autojump_clock: trio.testing.MockClock) -> None:
    test: Callable[[Any], Awaitable[None]]
    test = block("import trio\n")["test_an_afternoon_of_jobs"]
    await test(autojump_clock)


def test_the_fixture() -> None:
    named = block("pytest_plugins")["pytest_plugins"]
    assert named == ["arcbackend.simulator.plugin"]
    (marker,) = block("@pytest.mark")["test_ours"].pytestmark
    assert (marker.name, marker.kwargs) == ("arc_ce", {"lrms": "condor", "publish_every": 1.0})


async def test_a_reply_that_is_lost() -> None:
    async with Simulator() as ce, ce.backend() as backend:
        block("from arcbackend.simulator import Cut", ce=ce)
        submission = await backend.submit(SubmissionSpec(executable="/bin/true"), count=3)
        assert len(submission.handles) == 3
