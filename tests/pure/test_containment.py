"""Hostile names: each becomes a path inside, byte for byte, or a reason."""

from __future__ import annotations

import os
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from arcbackend.output.containment import MemberPath, Refused, joined, member_path, shown, split

NASTY = st.sampled_from(
    [b"..", b".", b"/", b"\0", b"%2e%2e%2f", b"..foo", b"-dash", b"\n", b"\xff", b"~", b"con"]
)
NAMES = st.one_of(
    st.binary(max_size=300), st.lists(NASTY | st.binary(max_size=5), max_size=6).map(b"".join)
)


def place(name: bytes, parent: MemberPath = (), max_depth: int = 5, max_path: int = 1000) -> object:
    return member_path(parent, name, max_depth=max_depth, max_path=max_path)


@pytest.mark.parametrize(
    "name",
    [
        b"a b",
        b"\xc3\xa9.txt",
        b"e\xcc\x81",
        b"\xff\xfe",
        b"..foo",
        b"...",
        b".hidden",
        b"-rf",
        b"%2e%2e%2f",
        b"new\nline",
        b"\x01\x1b[31m",
        b'q"uo\\te',
        b"a?b;c#d",
        b"~root",
        b"$(id)",
        b"C:\\windows",
        b" ",
        b"x" * 255,
    ],
)
def test_a_strange_name_is_a_name(name: bytes) -> None:
    assert place(name) == (name,)
    assert place(name, (b"d",)) == (b"d", name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (b"", "empty"),
        (b".", "another directory"),
        (b"..", "another directory"),
        (b"/", "holds a /"),
        (b"/etc/passwd", "holds a /"),
        (b"../../x", "holds a /"),
        (b"a/b", "holds a /"),
        (b"a/", "holds a /"),
        (b"a\0b", "NUL"),
        (b"x" * 256, "256 bytes"),
    ],
)
def test_what_leads_out_is_refused(name: bytes, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        place(name)


def test_depth_and_length() -> None:
    parent = (b"d",) * 5
    assert place(b"f", parent) == (*parent, b"f")
    with pytest.raises(Refused, match=r"limits\.max_depth = 5"):
        place(b"f", (b"d",) * 6)
    assert place(b"f" * 100, (b"d" * 99,), max_path=200)
    with pytest.raises(Refused, match="201 bytes; here 200"):
        place(b"f" * 101, (b"d" * 99,), max_path=200)


@given(st.lists(NAMES, min_size=1, max_size=8))
@example([b"..", b"..", b"etc"])
def test_every_path_is_inside_and_faithful(names: list[bytes]) -> None:
    parent: MemberPath = ()
    for name in names:
        try:
            path = member_path(parent, name, max_depth=6, max_path=600)
        except Refused:
            continue
        assert path == (*parent, name)
        whole = os.fsdecode(joined(path))
        # What the system makes of it when it is opened as a whole is what it is name by name.
        assert os.path.normpath(f"/dest/{whole}") == f"/dest/{whole}"
        assert PurePosixPath(whole).parts == tuple(os.fsdecode(part) for part in path)
        assert len(path) <= 7
        assert len(os.fsencode(whole)) <= 600
        parent = path


@given(st.binary(max_size=2000) | st.text(max_size=500))
def test_what_is_shown_is_printable(name: bytes | str) -> None:
    text = shown((name,)) if isinstance(name, bytes) else shown(name)
    assert text.isprintable()
    assert len(text) <= 300
    text.encode()  # no surrogates


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_what_is_shown_tells_bytes_apart(one: bytes, other: bytes) -> None:
    if b"\\" not in one + other and one != other:
        assert shown((one,)) != shown((other,))


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("out", (b"out",)),
        ("logs/out", (b"logs", b"out")),
        ("./logs//out", (b"logs", b"out")),
        ("/out", (b"out",)),
        ("é", (b"\xc3\xa9",)),
        ("a/../b", None),
        ("..", None),
        ("", None),
        (".", None),
    ],
)
def test_names_in_descriptions(name: str, path: MemberPath | None) -> None:
    assert split(name) == path
