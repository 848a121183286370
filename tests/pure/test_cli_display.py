"""How far a fetch has come, for people."""

from __future__ import annotations

import io
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcbackend import FetchProgress, JobID
from arcbackend.cli import display
from arcbackend.cli.bar import Bar
from arcbackend.cli.display import Lines
from arcbackend.cli.figures import Share, counts, sized

START = FetchProgress("listed", JobID("a"), None, None, None, 0, 4, 0, 0, 10, 0, 1_000_000)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.00 kB"),
        (1234, "1.23 kB"),
        (9_996, "10.0 kB"),
        (99_960, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (5 * 2**30, "5.37 GB"),
        (10**18, "1000 PB"),
        (12.6, "13 bytes"),
    ],
)
def test_sizes(amount: float, text: str) -> None:
    assert sized(amount) == text


@given(st.floats(0, 10**17))
def test_every_size_is_short(amount: float) -> None:
    number, _ = sized(amount).split()
    assert len(number) <= 4
    assert float(number) < 1000


def test_counts() -> None:
    assert counts(START) == "0/4 jobs, 0/10 files, 0 bytes/1.00 MB"
    some = replace(START, jobs_done=1, files_done=3, files_refused=2, bytes_done=250_000)
    assert counts(some) == "1/4 jobs, 3/10 files, 250 kB/1.00 MB, 2 not fetched"
    assert counts(replace(some, bytes_done=1_000_000, bytes_known=2_000_000)).endswith(
        "1.00/2.00 MB, 2 not fetched"
    )
    assert counts(replace(START, jobs_total=1, bytes_known=None)) == "0/10 files, 0 bytes"


def test_the_share_of_the_work() -> None:
    share = Share()
    share.note(START)
    assert share.of(START) == 0
    # One job of four is listed: what is known is about a quarter of it all.
    assert share.of(replace(START, files_done=10, bytes_done=1_000_000)) == 0.25
    # Neither many small files nor one large one are forgotten.
    assert 0 < share.of(replace(START, files_done=5)) < 0.25
    assert 0 < share.of(replace(START, bytes_done=500_000)) < 0.25
    half = replace(START, files_done=4, files_refused=1, bytes_known=None)
    assert share.of(half) == 0.125
    for number in range(4):
        share.note(replace(START, what="done", job=JobID(str(number))))
        share.note(replace(START, what="bytes", job=None))
    everything = replace(START, jobs_done=4, files_done=9, files_refused=1, bytes_done=1_000_000)
    assert Share().of(everything) == 0  # (told nothing of)


def test_the_share_of_jobs_that_left_nothing() -> None:
    share = Share()
    empty = replace(START, what="done", files_known=0, bytes_known=0)
    share.note(empty)
    share.note(empty)
    assert share.of(empty) == 0.25


# lines


def test_a_line_now_and_then_and_the_last(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(interval=3600) as lines:
        for number in range(10):
            lines(replace(START, files_done=number))
        assert capsys.readouterr().err == ""
    assert capsys.readouterr().err == "0/4 jobs, 9/10 files, 0 bytes/1.00 MB\n"
    with Lines(interval=0.0) as lines:
        lines(START)
        lines(replace(START, files_done=1))
    assert capsys.readouterr().err.count("\n") == 2


def test_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with display.display(quiet=True, plain=False) as shown:
        shown(START)
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        ((True, "xterm", True, False), Bar),
        ((True, "xterm", True, True), Lines),
        ((True, "xterm", False, False), Lines),
        ((True, "dumb", True, False), Lines),
        ((True, None, True, False), Lines),
        ((False, "xterm", True, False), Lines),
    ],
)
def test_what_is_shown_where(
    monkeypatch: pytest.MonkeyPatch, where: tuple[bool, str | None, bool, bool], kind: type
) -> None:
    terminal, term, rich, plain = where
    monkeypatch.setattr(sys, "stderr", Terminal() if terminal else io.StringIO())
    if term is None:
        monkeypatch.delenv("TERM", raising=False)
    else:
        monkeypatch.setenv("TERM", term)
    if not rich:
        monkeypatch.setattr(display, "find_spec", lambda _name: None)
    shown = display.display(quiet=False, plain=plain)
    assert type(shown) is kind
    assert shown.on_terminal is (kind is Bar)


def test_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    one = replace(START, jobs_total=1)
    with Bar() as bar:
        bar(one)
        bar(replace(one, what="done", jobs_done=1, files_done=10, bytes_done=1_000_000))
    text = terminal.getvalue()
    assert "asking the CE" in text
    last = text.splitlines()[-2]
    assert "100%" in last
    assert "10/10 files, 1.00/1.00 MB" in last
    assert text.endswith("\x1b[?25h")  # the cursor is back


def test_a_bar_of_which_nothing_came(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(ValueError, match="why"), Bar():
        raise ValueError("why")
    assert terminal.getvalue().endswith("\x1b[?25h")
