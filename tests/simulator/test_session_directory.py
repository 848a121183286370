"""A session directory lets a client do what a real CE's does, and nothing outside of it."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcbackend.simulator.ranges import sent
from arcbackend.simulator.session_directory import (
    PIECE,
    Hangs,
    Listing,
    NotDone,
    NotFound,
    SessionDirectory,
    Slice,
    WrongPath,
)
from arcbackend.simulator.traps import ArcVersion, Trap, Traps

TRAPS = Traps("7.2.0", "slurm")
RECORDED = {
    path.stem.removeprefix("names-"): json.loads(path.read_text())
    for path in (Path(__file__).parent / "recorded").glob("names-*.json")
}
# What a file can be called.
NAMES = st.binary(min_size=1, max_size=40).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)


@pytest.fixture
def session(tmp_path: Path) -> SessionDirectory:
    made = SessionDirectory(tmp_path / "session", TRAPS)
    made.make()
    return made


@contextmanager
def temporary(traps: Traps = TRAPS) -> Iterator[SessionDirectory]:
    """For tests of Hypothesis, which have no fixtures of their own."""
    with tempfile.TemporaryDirectory() as folder:
        made = SessionDirectory(Path(folder) / "session", traps)
        made.make()
        yield made


def put(
    session: SessionDirectory, path: bytes, content: bytes, content_range: str | None = None
) -> tuple[str, bool]:
    with session.put(path, sent(content_range, len(content))) as upload:
        upload.write(content)
    return upload.name, upload.complete


def read(session: SessionDirectory, path: bytes, range_: str | None = None) -> bytes:
    found = session.get(path, range_)
    assert isinstance(found, Slice)
    return b"".join(found.chunks())


def listed(session: SessionDirectory, path: bytes = b"") -> Listing:
    found = session.get(path)
    assert isinstance(found, Listing)
    return found


def names(session: SessionDirectory, path: bytes = b"") -> set[str]:
    return {entry.name for entry in listed(session, path).entries}


@given(st.lists(NAMES, min_size=1, max_size=4), st.binary(max_size=100))
def test_what_is_put_is_there(path: list[bytes], content: bytes) -> None:
    with temporary() as session:
        name, complete = put(session, b"/".join(path), content)
        assert complete
        assert os.fsencode(name) == b"/".join(path)
        assert read(session, b"/".join(path)) == content
        (entry,) = listed(session, b"/".join(path[:-1])).entries
        assert entry.size == len(content)
        (*_, last) = session.properties(b"")
        assert (last.path, last.size) == (b"/".join(path), len(content))
        session.delete(path[0])
        assert listed(session).entries == ()


@given(st.binary(max_size=200))
def test_no_path_leads_out(path: bytes) -> None:
    with temporary() as session:
        outside = session.root.parent / "outside"
        outside.write_bytes(b"not yours")
        before = set(session.root.parent.iterdir())
        for act in (
            lambda: session.get(path),
            lambda: put(session, path, b"x"),
            lambda: list(session.properties(path)),
            lambda: session.delete(path),
        ):
            with suppress(WrongPath, NotFound, NotDone):
                act()
        assert set(session.root.parent.iterdir()) == before
        assert outside.read_bytes() == b"not yours"


@pytest.mark.parametrize("path", [b"..", b"../outside", b"a/../../outside", b"/..", b"./../x"])
def test_a_way_up_is_refused(session: SessionDirectory, path: bytes) -> None:
    for act in (session.get, session.delete, session.properties):
        with pytest.raises(WrongPath):
            act(path)
    with pytest.raises(WrongPath):
        put(session, path, b"x")


@pytest.mark.parametrize("path", [b"six", b"/six", b"six/", b"./six", b"a/../six", b"six\0.txt"])
def test_a_path_is_taken_as_a_rex_takes_it(session: SessionDirectory, path: bytes) -> None:
    put(session, b"six", b"abcdef")
    assert read(session, path) == b"abcdef"


@pytest.mark.parametrize("version", sorted(RECORDED))
def test_odd_names_are_listed_as_on_the_real_ce(tmp_path: Path, version: ArcVersion) -> None:
    traps = Traps(version, "slurm")
    for number, (name, (as_json, as_xml)) in enumerate(RECORDED[version].items()):
        session = SessionDirectory(tmp_path / str(number), traps)
        put(session, bytes.fromhex(name), b"x")
        listing = listed(session)
        told = {
            kind: [name.encode("utf-8", "surrogateescape").decode("latin-1") for name in named]
            for kind, named in listing.document().items()
        }
        assert told == json.loads(as_json)
        assert listing.xml(traps) == as_xml.encode("latin-1")


def test_what_is_no_file_is_not_listed(session: SessionDirectory) -> None:
    assert listed(session).document() == {"file": [], "dir": []}
    assert listed(session).xml(TRAPS) == b"<list/>"
    (session.root / "sub").mkdir()
    assert listed(session).document() == {"dir": ["sub"], "file": []}
    assert listed(session).xml(TRAPS) == b"<list>\n  <dir>sub</dir>\n</list>"
    os.mkfifo(session.root / "fifo")
    (session.root / "link").symlink_to("sub")
    assert names(session) == {"sub"}


def test_a_fifo_hangs(session: SessionDirectory) -> None:
    os.mkfifo(session.root / "fifo")
    with pytest.raises(Hangs):
        session.get(b"fifo")
    with pytest.raises(NotDone):
        put(session, b"fifo", b"x")
    patient = SessionDirectory(session.root, Traps("7.2.0", "slurm", [Trap.FIFO_HANGS]))
    with pytest.raises(NotFound):
        patient.get(b"fifo")
    session.delete(b"fifo")
    assert list(session.root.iterdir()) == []


def test_links_are_read_and_not_written(session: SessionDirectory) -> None:
    outside = session.root.parent / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"theirs")
    (session.root / "link").symlink_to(outside / "file")
    (session.root / "linkdir").symlink_to(outside)
    (session.root / "dangling").symlink_to(outside / "new")
    assert read(session, b"link") == read(session, b"linkdir/file") == b"theirs"
    assert names(session, b"linkdir") == {"file"}
    strict = SessionDirectory(session.root, Traps("7.2.0", "slurm", [Trap.LINKS_FOLLOWED_UNLISTED]))
    for path in (b"link", b"linkdir/file", b"linkdir", b"dangling"):
        with pytest.raises(NotFound):
            strict.get(path)
    for path in (b"link", b"linkdir/other", b"linkdir", b"dangling"):
        with pytest.raises(NotDone):
            put(session, path, b"mine")
    with pytest.raises(NotDone):
        session.delete(b"linkdir/file")
    with pytest.raises(NotDone):
        session.write("linkdir/other", b"mine")
    session.delete(b"link")
    session.delete(b"linkdir")
    assert (outside / "file").read_bytes() == b"theirs"
    assert {path.name for path in outside.iterdir()} == {"file"}


def test_what_nobody_may_read_is_listed_and_not_found(session: SessionDirectory) -> None:
    put(session, b"locked/file", b"x")
    put(session, b"unreadable", b"x")
    for name in ("locked", "unreadable"):
        (session.root / name).chmod(0)
    try:
        assert names(session) == {"locked", "unreadable"}
        for path in (b"locked", b"locked/file", b"unreadable"):
            with pytest.raises(NotFound):
                session.get(path)
        shy = SessionDirectory(session.root, Traps("7.2.0", "slurm", [Trap.UNREADABLE_IS_LISTED]))
        assert names(shy) == set()
    finally:
        (session.root / "locked").chmod(0o700)


@pytest.mark.parametrize("path", [b"nosuch", b"six/below", b"x" * 300, b"x/" * 3000])
def test_what_is_not_there_is_not_found(session: SessionDirectory, path: bytes) -> None:
    put(session, b"six", b"abcdef")
    with pytest.raises(NotFound):
        session.get(path)
    (found,) = session.properties(path)
    assert not found.found
    with pytest.raises(NotDone):
        session.delete(path)


@pytest.mark.parametrize("path", [b"", b"/", b"sub", b"sub/", b"six/below", b"x" * 300])
def test_what_cannot_be_a_file_is_not_made(session: SessionDirectory, path: bytes) -> None:
    put(session, b"sub/file", b"x")
    put(session, b"six", b"abcdef")
    with pytest.raises(NotDone, match="Error creating file"):
        put(session, path, b"x")


def test_the_session_itself_stays(session: SessionDirectory) -> None:
    put(session, b"sub/file", b"x")
    with pytest.raises(NotDone):
        session.delete(b"")
    assert names(session) == {"sub"}


def test_a_shorter_upload_keeps_the_old_tail(session: SessionDirectory) -> None:
    put(session, b"six", b"abcdef")
    put(session, b"six", b"xyz")
    assert read(session, b"six") == b"xyzdef"
    put(session, b"six", b"")
    assert read(session, b"six") == b"xyzdef"
    honest = SessionDirectory(session.root, Traps("7.2.0", "slurm", [Trap.PUT_DOES_NOT_TRUNCATE]))
    put(honest, b"six", b"xyz")
    assert read(session, b"six") == b"xyz"


def test_parts_make_a_whole(session: SessionDirectory) -> None:
    assert put(session, b"gap", b"zz", "bytes 4-5/6") == ("gap", False)
    assert read(session, b"gap") == b"\0\0\0\0zz"
    assert put(session, b"gap", b"yy", "bytes 0-1/*") == ("gap", False)
    assert put(session, b"gap", b"xx", "bytes 2-3/6") == ("gap", True)
    assert read(session, b"gap") == b"yyxxzz"
    with session.put(b"cut", sent(None, 6)) as upload:
        upload.write(b"abc")
    assert not upload.complete
    with session.put(b"chunked", sent(None, None)) as upload:
        upload.write(b"ab")
        upload.write(b"c")
    assert upload.complete
    assert put(session, b"empty", b"") == ("empty", True)


def test_a_part_of_a_file(session: SessionDirectory) -> None:
    put(session, b"six", b"abcdef")
    assert read(session, b"six", "bytes=2-3") == b"cd"
    assert read(session, b"six", "bytes=6-") == b""


def test_large_files_come_in_pieces(session: SessionDirectory) -> None:
    content = os.urandom(3 * PIECE // 2)
    put(session, b"large", content)
    found = session.get(b"large")
    assert isinstance(found, Slice)
    pieces = list(found.chunks())
    assert [len(piece) for piece in pieces] == [PIECE, PIECE // 2]
    assert b"".join(pieces) == content
    (session.root / "large").unlink()
    with pytest.raises(NotFound):
        list(found.chunks())


def test_a_file_that_is_cut_while_it_is_read_ends(session: SessionDirectory) -> None:
    put(session, b"large", b"x" * (2 * PIECE))
    found = session.get(b"large")
    assert isinstance(found, Slice)
    chunks = found.chunks()
    next(chunks)
    os.truncate(session.root / "large", PIECE)
    assert list(chunks) == []


def test_uploads_are_bounded(tmp_path: Path) -> None:
    small = SessionDirectory(tmp_path / "small", TRAPS, limit=10)
    put(small, b"one", b"123456")
    with pytest.raises(NotDone, match="Error writing to file"):
        put(small, b"two", b"12345")
    put(small, b"one", b"1234567890")


def test_what_a_job_leaves(session: SessionDirectory) -> None:
    session.write("out/result", b"1", 0o644)
    session.write("out/result", b"22")
    session.write("script", b"#!/bin/sh\n")
    session.make_executable("script")
    session.make_executable("nosuch")
    assert session.has("out/result")
    assert session.has("out")
    assert not session.has("nosuch")
    assert not session.has("../session")
    assert os.access(session.root / "script", os.X_OK)
    with pytest.raises(NotDone):
        session.write("../out", b"")


@pytest.mark.parametrize(
    ("kept", "left"),
    [
        (["/"], ["a", "b/c", "b/d/e", "b/d/f"]),
        ([], []),
        (["a", "nosuch", "../x"], ["a"]),
        (["b/"], ["b/c", "b/d/e", "b/d/f"]),
        (["/b/d/e", "a"], ["a", "b/d/e"]),
    ],
)
def test_what_is_kept(session: SessionDirectory, kept: list[str], left: list[str]) -> None:
    for name in ("a", "b/c", "b/d/e", "b/d/f"):
        session.write(name, b"")
    session.keep_only(kept)
    found = [item.path.decode() for item in session.properties(b"") if item.size is not None]
    assert sorted(found) == left


def test_a_directory_that_is_not_there_has_nothing(tmp_path: Path) -> None:
    session = SessionDirectory(tmp_path / "nosuch", TRAPS)
    with pytest.raises(NotFound):
        session.get(b"")
    session.keep_only(["a"])
    assert not session.has("a")


def test_what_xml_cannot_hold_is_left_out_where_the_trap_is_off(session: SessionDirectory) -> None:
    for name in (b"good", b"\xff", b"new\nline", b"\x01"):
        put(session, name, b"x")
    strict = Traps("7.0.0", "slurm", [Trap.XML_NOT_WELL_FORMED])
    listing = listed(SessionDirectory(session.root, strict))
    assert {entry.name for entry in listing.entries} == {"good", "\udcff", "new\nline", "\x01"}
    found = ET.fromstring(listing.xml(strict))
    assert {element.text for element in found} == {"good", "new\nline"}


def test_a_socket_is_not_served(session: SessionDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(session.root)  # a socket's name has to be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        with pytest.raises(NotFound):
            session.get(b"socket")
        with pytest.raises(NotDone):
            put(session, b"socket", b"x")
        (found,) = session.properties(b"socket")
    assert not found.found


def test_links_are_not_tidied_through(session: SessionDirectory) -> None:
    outside = session.root.parent / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"theirs")
    (session.root / "link").symlink_to(outside)
    session.write("kept", b"")
    session.make_executable("link")
    session.keep_only(["kept", "link/other"])
    assert (outside / "file").exists()
    assert names(session) == {"kept"}


def test_what_is_nested_too_deeply_stays(
    session: SessionDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gives_up(*_: object, **__: object) -> None:
        raise RecursionError

    session.write("deep/file", b"")
    monkeypatch.setattr("shutil.rmtree", gives_up)
    with pytest.raises(NotDone, match="Failed to delete"):
        session.delete(b"deep")
    session.keep_only([])
    assert names(session) == {"deep"}
