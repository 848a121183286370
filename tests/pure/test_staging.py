"""Local input files: what is refused, what is sent, and that nothing stays open."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio

from arcbackend import FileRef, SubmissionRefused, SubmissionSpec
from arcbackend.staging import Upload, opened_inputs

MIB = 2**20
LIMIT = 64 * MIB
SIZES = [0, 1, MIB, 4 * MIB, 4 * MIB + 1, 10 * MIB + 7]


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.fixture(autouse=True)
async def no_hang(nothing_left_open: None) -> object:
    with trio.fail_after(60):
        yield


def _spec(*sources: Path | str) -> SubmissionSpec:
    inputs = tuple(FileRef(name=f"in{n}", source=source) for n, source in enumerate(sources))
    return SubmissionSpec(executable="/bin/true", inputs=inputs)


def _bytes(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


async def _content(upload: Upload) -> bytes:
    return await _rest(upload.content())


async def _rest(content: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in content])


async def _refused(*sources: Path | str, max_bytes: int = LIMIT) -> SubmissionRefused:
    with ExitStack() as stack, pytest.raises(SubmissionRefused) as caught:
        await opened_inputs(_spec(*sources), max_bytes, stack)
    return caught.value


# what is sent


@pytest.mark.parametrize("size", SIZES)
async def test_a_file_is_sent_whole_and_again(tmp_path: Path, size: int) -> None:
    path = tmp_path / "data"
    path.write_bytes(_bytes(size))
    with ExitStack() as stack:
        (upload,) = await opened_inputs(_spec(path), LIMIT, stack)
        assert (upload.name, upload.size) == ("in0", size)
        for _ in range(2):
            assert await _content(upload) == _bytes(size)


@pytest.mark.parametrize("size", [100, 5 * MIB])
async def test_a_file_may_go_once_it_is_open(tmp_path: Path, size: int) -> None:
    path = tmp_path / "data"
    path.write_bytes(_bytes(size))
    with ExitStack() as stack:
        (upload,) = await opened_inputs(_spec(path), LIMIT, stack)
        path.unlink()
        path.write_bytes(b"another")
        assert await _content(upload) == _bytes(size)


async def test_large_files_are_not_held_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(_bytes(20 * MIB))
    with ExitStack() as stack:
        (upload,) = await opened_inputs(_spec(path), LIMIT, stack)
        pieces = [len(piece) async for piece in upload.content()]
    assert sum(pieces) == 20 * MIB
    assert max(pieces) <= 4 * MIB


async def test_one_open_file_is_sent_to_many_at_once(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(_bytes(5 * MIB))
    same: list[bool] = []

    async def send(upload: Upload) -> None:
        same.append(await _content(upload) == _bytes(5 * MIB))

    with ExitStack() as stack:
        (upload,) = await opened_inputs(_spec(path), LIMIT, stack)
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(send, upload)
    assert same == [True] * 5


async def test_urls_are_the_ces_business(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    spec = _spec("https://h/nothing", tmp_path / "a", "root://h//x")
    with ExitStack() as stack:
        assert [upload.name for upload in await opened_inputs(spec, LIMIT, stack)] == ["in1"]


async def test_symbolic_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "link").symlink_to("a")
    with ExitStack() as stack:
        (upload,) = await opened_inputs(_spec(tmp_path / "link"), LIMIT, stack)
    assert await _content(upload) == b"a"


async def test_bytes_are_sent_as_they_are() -> None:
    upload = Upload.of_bytes("token", b"hunter2")
    assert (upload.name, upload.size) == ("token", 7)
    assert await _content(upload) == b"hunter2"
    assert "hunter2" not in repr(upload)


# files that change meanwhile


async def test_a_file_that_shrinks_is_an_error_not_a_short_file(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(_bytes(8 * MIB))
    with ExitStack() as stack:
        (upload,) = await opened_inputs(_spec(path), LIMIT, stack)
        content = upload.content()
        begun = await anext(content)
        os.truncate(path, 2 * MIB)
        with pytest.raises(OSError, match="in0"):
            await _rest(content)
        assert len(begun) < 2 * MIB


async def test_a_file_that_grows_is_sent_as_it_was_announced(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(_bytes(5 * MIB))
    with ExitStack() as stack:
        (upload,) = await opened_inputs(_spec(path), LIMIT, stack)
        with path.open("ab") as file:
            file.write(b"more")
        assert await _content(upload) == _bytes(5 * MIB)


# what is refused


async def test_a_missing_file(tmp_path: Path) -> None:
    error = await _refused(tmp_path / "missing")
    assert error.field == "inputs[0].source"
    assert "missing" in str(error)
    assert "No such file" in str(error)


async def test_a_path_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert (await _refused(tmp_path / "file" / "x")).field == "inputs[0].source"


async def test_a_link_to_itself(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert (await _refused(tmp_path / "loop")).field == "inputs[0].source"


async def test_a_directory(tmp_path: Path) -> None:
    error = await _refused(tmp_path)
    assert error.field == "inputs[0].source"
    assert "directory" in str(error)


async def test_a_fifo_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert (await _refused(tmp_path / "fifo")).field == "inputs[0].source"


async def test_a_device() -> None:
    assert (await _refused("/dev/zero")).field == "inputs[0].source"


async def test_a_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "sock"))
        assert (await _refused(tmp_path / "sock")).field == "inputs[0].source"


@pytest.mark.parametrize("source", ["a\0b", "", "x" * 5000])
async def test_what_is_no_path(source: str) -> None:
    assert (await _refused(source)).field == "inputs[0].source"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
async def test_an_unreadable_file(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"x")
    (tmp_path / "mine").chmod(0)
    error = await _refused(tmp_path / "mine")
    assert "denied" in str(error)


@pytest.mark.parametrize("size", [11, 6 * MIB, 2**40])
async def test_a_file_too_large(tmp_path: Path, size: int) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(size)
    error = await _refused(tmp_path / "big", max_bytes=min(size - 1, 5 * MIB))
    assert error.field == "inputs[0].source"
    assert "max_file_bytes" in str(error)


async def test_a_file_of_just_the_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(_bytes(10))
    with ExitStack() as stack:
        (upload,) = await opened_inputs(_spec(tmp_path / "a"), 10, stack)
    assert upload.size == 10


async def test_the_field_counts_all_inputs_and_the_others_are_closed(tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(_bytes(5 * MIB))
    error = await _refused(big, "https://h/x", big, tmp_path / "missing")
    assert error.field == "inputs[3].source"


async def test_cancelled_between_two_files_nothing_stays_open(tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(_bytes(5 * MIB))
    with trio.CancelScope() as scope, ExitStack() as stack:
        scope.cancel()
        await opened_inputs(_spec(big, big), LIMIT, stack)
    assert scope.cancelled_caught


async def test_abandoned_in_the_middle_nothing_stays_open(tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(_bytes(8 * MIB))
    with ExitStack() as stack:
        (upload,) = await opened_inputs(_spec(big), LIMIT, stack)
        content = upload.content()
        await anext(content)
        await content.aclose()  # type: ignore[attr-defined]
