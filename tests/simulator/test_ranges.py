"""Parts of files are those that a real CE sends; seen on 7.2.0 with a file of six bytes."""

from __future__ import annotations

import pytest

from arcbackend.simulator.ranges import Sent, part, sent
from arcbackend.simulator.traps import Trap, Traps

TRAPS = Traps("7.2.0", "slurm")
WHOLE = None

ASKED = {
    None: WHOLE,
    "bytes=0-0": "bytes 0-0/6",
    "bytes=2-": "bytes 2-5/6",
    "bytes=0-5": WHOLE,
    "bytes=0-": WHOLE,
    "bytes=2-100": "bytes 2-5/6",
    "bytes=0-100": WHOLE,
    "bytes=6-": "bytes */6",
    "bytes=7-9": "bytes */*",
    "bytes=-2": WHOLE,
    "bytes=3-2": "bytes */6",
    "bytes=0-1,3-4": "bytes 0-1/6",
    "bytes= 2-3": "bytes 2-3/6",
    "Bytes=2-3": "bytes 2-3/6",
    "items=2-3": WHOLE,
    "2-3": WHOLE,
    "bytes=x-y": WHOLE,
    "bytes=2x-3": WHOLE,
    "bytes=2-x": "bytes 2-5/6",
    "bytes=-": WHOLE,
    "bytes=2": WHOLE,
    "bytes=": WHOLE,
    "bytes=99999999999999999999-": WHOLE,
    "bytes=2-99999999999999999999": "bytes 2-5/6",
}


@pytest.mark.parametrize("asked", ASKED)
def test_what_is_sent_of_six_bytes(asked: str | None) -> None:
    found = part(6, asked, TRAPS)
    assert found.content_range == ASKED[asked]
    assert found.whole is (ASKED[asked] is WHOLE)
    assert found.first + found.length <= 6 or not found.length


def test_behind_the_end_of_a_record_its_size_is_told() -> None:
    assert part(9, "bytes=1000-", TRAPS, record=True).content_range == "bytes */9"
    assert part(9, "bytes=1-3", TRAPS, record=True).content_range == "bytes 1-3/9"


@pytest.mark.parametrize("asked", ["bytes=0-", "bytes=0-0", "bytes=1-", "bytes=-1"])
def test_an_empty_file_is_sent_whole(asked: str) -> None:
    assert part(0, asked, TRAPS).whole


def test_without_its_traps_a_ce_keeps_to_the_standard() -> None:
    traps = Traps("7.2.0", "slurm", [Trap.WHOLE_RANGE_IS_200, Trap.SUFFIX_RANGE_IGNORED])
    assert part(6, "bytes=0-5", traps).content_range == "bytes 0-5/6"
    assert part(6, "bytes=-2", traps).content_range == "bytes 4-5/6"
    assert part(6, "bytes=-20", traps).content_range == "bytes 0-5/6"


@pytest.mark.parametrize(
    ("content_range", "length", "expected"),
    [
        (None, 3, Sent(0, 3)),
        (None, None, Sent(0, None)),
        ("bytes 4-5/6", 2, Sent(4, 6)),
        ("bytes 0-1/*", 2, Sent(0, 2)),
        ("bytes 2-3", 2, Sent(2, 4)),
        ("bytes 0-0/6", 3, Sent(0, 6)),
        ("bytes 3-1/6", 1, Sent(0, 6)),
        ("nonsense", 1, Sent(0, 1)),
    ],
)
def test_what_a_client_sends(content_range: str | None, length: int | None, expected: Sent) -> None:
    assert sent(content_range, length) == expected
