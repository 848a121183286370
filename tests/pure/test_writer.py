"""Writing below a directory, among planted links."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from arcbackend.output import writer
from arcbackend.output.containment import MemberPath, Refused
from arcbackend.output.writer import Destination, FileKey, Sink

OUTSIDE = "untouched"


@pytest.fixture
def dest(tmp_path: Path) -> Iterator[Destination]:
    """A destination; asserts on leaving that no descriptor stayed open."""
    before = set(os.listdir("/proc/self/fd"))
    destination = Destination(tmp_path / "new" / "dest", keep_free=0)
    yield destination
    destination.close()
    destination.close()
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A directory elsewhere with a file that must stay as it is."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text(OUTSIDE)
    return outside


def put(dest: Destination, *path: bytes, data: bytes = b"data") -> None:
    sink = Sink(dest, path, {})
    try:
        sink.commit([data])
    finally:
        sink.discard()
    assert not sink.is_open


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_what_the_kernel_does_not_take_at_once(
    dest: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    writev, calls = os.writev, 0

    def few(file: int, pieces: list[memoryview]) -> int:
        """Three bytes at most, and each second time none."""
        nonlocal calls
        calls += 1
        return writev(file, [b"".join(pieces)[: 3 * (calls % 2)]])

    monkeypatch.setattr(os, "writev", few)
    monkeypatch.setattr(writer, "_TOGETHER", 4)
    pieces = [b"ab", b"", b"cdefg", b"h", b"", b"ijk", b""]
    sink = Sink(dest, (b"f",), {})
    sink.write(pieces[:6])
    assert sink.size == 11
    sink.commit(pieces[6:])
    assert (dest.path / "f").read_bytes() == b"abcdefghijk"
    assert calls > 4


def test_a_file_arrives_whole_with_our_modes(dest: Destination) -> None:
    old = os.umask(0)
    try:
        sink = Sink(dest, (b"job", b"sub", b"f"), {})
        assert not sink.is_open
        assert names(dest.path) == []  # nothing before the first byte
        sink.write([b"ab", b"", b"c"])
        assert sink.size == 3
        (temporary,) = os.listdir(dest.path / "job" / "sub")
        assert temporary.startswith(".arcbackend-")
        sink.commit([b"de", b"f"])
    finally:
        os.umask(old)
    assert names(dest.path) == ["job", "job/sub", "job/sub/f"]
    file = dest.on_disk((b"job", b"sub", b"f"))
    assert file.read_bytes() == b"abcdef"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_discarded_or_restarted(dest: Destination) -> None:
    sink = Sink(dest, (b"job", b"f"), {})
    sink.restart()
    sink.write([b"abc"])
    sink.restart()
    sink.write([b"xy"])
    sink.discard()
    sink.discard()
    assert names(dest.path) == ["job"]
    again = Sink(dest, (b"job", b"f"), {})
    again.write([b"abc"])
    again.restart()
    again.commit([b"z"])
    assert dest.on_disk((b"job", b"f")).read_bytes() == b"z"


@pytest.mark.parametrize("name", [b"\xff\xfe", b"new\nline", b"\xc3\xa9", b"..foo", b"-x", b"%2f"])
def test_names_are_kept_byte_for_byte(dest: Destination, name: bytes) -> None:
    put(dest, b"job", name)
    assert os.listdir(os.fsencode(dest.path / "job")) == [name]
    assert dest.on_disk((b"job", name)).read_bytes() == b"data"


def test_what_is_there_is_replaced(dest: Destination) -> None:
    put(dest, b"job", b"f", data=b"longer than the second")
    first = dest.on_disk((b"job", b"f")).open("rb")
    put(dest, b"job", b"f", data=b"second")
    with first:
        assert first.read() == b"longer than the second"  # replaced, not written into
    assert dest.on_disk((b"job", b"f")).read_bytes() == b"second"


@pytest.mark.parametrize("kind", ["file", "dangling", "fifo", "hard link"])
def test_what_is_planted_at_a_members_name_is_not_written_to(
    dest: Destination, victim: Path, kind: str
) -> None:
    (dest.path / "job").mkdir()
    planted = dest.path / "job" / "f"
    if kind == "fifo":
        os.mkfifo(planted)
    elif kind == "hard link":
        planted.hardlink_to(victim / "file")
    else:
        planted.symlink_to(victim / ("file" if kind == "file" else "new"))
    put(dest, b"job", b"f")
    assert planted.read_bytes() == b"data"
    assert stat.S_ISREG(planted.lstat().st_mode)
    assert names(victim) == ["file"]
    assert (victim / "file").read_text() == OUTSIDE


@pytest.mark.parametrize("where", ["job", "job/sub"])
@pytest.mark.parametrize("to", ["directory", "dangling", "relative", "file"])
def test_a_link_in_place_of_a_directory_is_not_followed(
    dest: Destination, victim: Path, where: str, to: str
) -> None:
    planted = dest.path / where
    planted.parent.mkdir(exist_ok=True)
    if to == "file":
        planted.write_text("in the way")
    else:
        targets = {"directory": victim, "dangling": victim / "x", "relative": Path("..")}
        planted.symlink_to(targets[to])
    sink = Sink(dest, (b"job", b"sub", b"f"), {})
    with pytest.raises(Refused, match="no directory"):
        sink.write([b"x"])
    sink.discard()
    assert names(victim) == ["file"]
    assert not (dest.path.parent / "f").exists()


def test_a_directory_replaced_by_a_link_meanwhile(dest: Destination, victim: Path) -> None:
    """What was opened stays what it was."""
    sink = Sink(dest, (b"job", b"sub", b"file"), {})
    sink.write([b"evil"])
    (dest.path / "job" / "sub").rename(dest.path / "moved")
    (dest.path / "job" / "sub").symlink_to(victim)
    sink.commit([b""])
    assert names(victim) == ["file"]
    assert (victim / "file").read_text() == OUTSIDE
    assert (dest.path / "moved" / "file").read_bytes() == b"evil"


def test_a_directory_in_the_way(dest: Destination) -> None:
    (dest.path / "job" / "f").mkdir(parents=True)
    with pytest.raises(Refused, match="a directory"):
        put(dest, b"job", b"f")
    assert names(dest.path) == ["job", "job/f"]


def test_names_that_are_one_to_the_file_system(dest: Destination) -> None:
    """As on one that ignores case: made here with a link, since Linux has none at hand."""
    written: dict[FileKey, MemberPath] = {}
    Sink(dest, (b"job", b"README"), written).commit([b"first"])
    (dest.path / "job" / "readme").hardlink_to(dest.path / "job" / "README")
    second = Sink(dest, (b"job", b"readme"), written)
    with pytest.raises(Refused, match="another member's"):
        second.commit([b"second"])
    second.discard()
    assert (dest.path / "job" / "README").read_bytes() == b"first"
    assert names(dest.path) == ["job", "job/README", "job/readme"]
    # Not if the first has gone since, and its inode was given to another file.
    (dest.path / "job" / "README").unlink()
    Sink(dest, (b"job", b"readme"), written).commit([b"second"])
    assert (dest.path / "job" / "readme").read_bytes() == b"second"


def test_free_space_is_kept(tmp_path: Path) -> None:
    about = os.statvfs(tmp_path)
    free = about.f_bavail * about.f_frsize
    destination = Destination(tmp_path / "d", keep_free=free * 2)
    sink = Sink(destination, (b"job", b"f"), {})
    with pytest.raises(Refused, match=r"limits\.keep_free_bytes = "):
        sink.write([b"x"])
    sink.discard()
    with pytest.raises(Refused, match="free"):
        sink.check_room(0)
    destination.close()
    assert names(tmp_path / "d") == ["job"]
    roomy = Destination(tmp_path / "d", keep_free=0)
    roomy.check_room(1)
    with pytest.raises(Refused):
        roomy.check_room(free * 2)
    roomy.close()


def test_the_callers_own_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    destination = Destination(tmp_path / "link", keep_free=0)
    put(destination, b"job", b"f")
    destination.close()
    assert (tmp_path / "real" / "job" / "f").read_bytes() == b"data"


def test_no_destination(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match=r"exists|Not a directory"):
            Destination(path, keep_free=0)


def test_the_longest_path_can_be_opened(tmp_path: Path) -> None:
    destination = Destination(tmp_path, keep_free=0)
    whole = destination.max_path
    parts = [b"d" * 250] * ((whole - 251) // 251)
    last = whole - sum(len(part) + 1 for part in parts)
    path: MemberPath = (*parts, b"f" * min(last, 255))
    assert len(b"/".join(path)) <= whole
    put(destination, *path)
    destination.close()
    assert destination.on_disk(path).read_bytes() == b"data"
    if last <= 255:
        with pytest.raises(OSError, match="too long"):
            destination.on_disk((*path[:-1], b"f" * (last + 1))).stat()
