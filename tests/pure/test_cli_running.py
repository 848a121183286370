"""An event loop that signals end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable

import pytest
import structlog
import trio

from arcbackend.cli.running import Interrupted, logging_as_asked, run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_and_is_told_of(number: int) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    tidied = False

    async def work() -> None:
        nonlocal tidied
        os.kill(os.getpid(), number)
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
                tidied = True

    with pytest.raises(Interrupted) as caught:
        run(work)
    assert caught.value.signal == number
    assert tidied
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_before_the_work_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: Callable[..., None] = trio.run

    def late(*args: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        begun(*args)

    monkeypatch.setattr(trio, "run", late)
    with pytest.raises(Interrupted):
        run(trio.sleep_forever)


def test_a_failure_comes_out_as_it_is() -> None:
    async def work() -> None:
        raise ValueError("why")

    with pytest.raises(ValueError, match="why"):
        run(work)


def test_what_fails_because_of_a_signal_is_an_interruption() -> None:
    async def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("while tidying up")

    with pytest.raises(Interrupted):
        run(work)


def test_the_second_signal_ends_the_process() -> None:
    program = """
import os, signal, trio
from arcbackend.cli.running import run
async def work():
    os.kill(os.getpid(), signal.SIGINT)
    try:
        await trio.sleep_forever()
    finally:
        os.kill(os.getpid(), signal.SIGINT)
run(work)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == -signal.SIGINT


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:

        async def work() -> None:
            os.kill(os.getpid(), signal.SIGINT)
            await trio.lowlevel.checkpoint()

        run(work)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("asked", [False, True])
def test_the_log(asked: bool, capsys: pytest.CaptureFixture[str]) -> None:
    before = structlog.get_config()
    log = structlog.get_logger("arcbackend")
    with logging_as_asked(Namespace(log=asked)):
        log.debug("arc.request", status=200)
        log.warning("jobs.lost")
    out, err = capsys.readouterr()
    assert out == ""
    assert ('"event": "arc.request"' in err) is asked
    assert ('"level": "warning"' in err) is asked
    assert (err == "") is not asked
    assert structlog.get_config() == before
