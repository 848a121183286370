"""A simulator on a port: TLS, HTTP/1.1 as A-REX writes it, faults on the wire, and its end."""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio
from pydantic import SecretBytes

from arcbackend import AuthenticationError, JobID, SubmissionSpec
from arcbackend.simulator import (
    Cut,
    Fault,
    FixedTime,
    Latency,
    Simulator,
    SlowAccept,
    Stall,
    Status,
    Trap,
)
from tests.simulator.clients import JOBS, adl
from tests.wire.helpers import descriptors

VERSIONS = b'{"version":["1.0","1.1"]}'


class Line:
    """A TLS connection on which bytes are sent and read as they are."""

    def __init__(self, stream: trio.SSLStream[trio.SocketStream], ce: Simulator) -> None:
        self.stream = stream
        self._ce = ce

    async def ask(
        self, method: str, target: str, *fields: str, body: bytes = b"", who: str | None = "user"
    ) -> bytes:
        """Send a request, and read one answer."""
        await self.send(method, target, *fields, body=body, who=who)
        return await self.answer(method)

    async def send(
        self, method: str, target: str, *fields: str, body: bytes = b"", who: str | None = "user"
    ) -> None:
        lines = [f"{method} {target} HTTP/1.1", "Host: localhost", "Accept: application/json"]
        if who is not None:
            lines.append(f"Authorization: Bearer {self._ce.token(who)}")
        if body:
            lines.append(f"Content-Length: {len(body)}")
        await self.stream.send_all("\r\n".join((*lines, *fields, "", "")).encode() + body)

    async def answer(self, method: str = "GET") -> bytes:
        """Read to the end of an answer."""
        got = b""
        while True:
            head, end, body = got.partition(b"\r\n\r\n")
            if end and (method == "HEAD" or self._whole(head, body)):
                return got
            if not (piece := await self.stream.receive_some()):
                return got
            got += piece

    def _whole(self, head: bytes, body: bytes) -> bool:
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                return len(body) >= int(line.split(b":")[1])
        return body.endswith(b"0\r\n\r\n")

    async def rest(self) -> bytes:
        """Read until the server closes."""
        got = b""
        try:
            async for piece in self.stream:
                got += piece
        except trio.BrokenResourceError:
            pass
        return got


@asynccontextmanager
async def line(
    ce: Simulator, certificate: bytes | None = None, *, tls_1_3: bool = False
) -> AsyncIterator[Line]:
    """Connect to a simulator."""
    context = ssl.create_default_context(cafile=ce.ca_file)
    if tls_1_3:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    if certificate is not None:
        path = ce.ca_file.with_name("certificate.pem")
        path.write_bytes(certificate)
        context.load_cert_chain(path)
        path.unlink()
    raw = await trio.open_tcp_stream("127.0.0.1", port_of(ce))
    stream = trio.SSLStream(raw, context, server_hostname="localhost", https_compatible=True)
    try:
        with trio.fail_after(10):
            await stream.do_handshake()
        yield Line(stream, ce)
    finally:
        await trio.aclose_forcefully(stream)


def port_of(ce: Simulator) -> int:
    port = urlsplit(ce.endpoint).port
    assert port is not None
    return port


def first_line(answer: bytes) -> str:
    return answer.partition(b"\r\n")[0].decode()


def serving(**settings: Any) -> Simulator:
    return Simulator.serving(**settings)


async def test_an_answer_as_it_is_written() -> None:
    async with serving() as ce, line(ce) as to:
        assert await to.ask("GET", "/arex/rest", who=None) == (
            b"HTTP/1.1 200 OK\r\n"
            b"content-length: 25\r\n"
            b"content-type: application/json\r\n"
            b"connection: keep-alive\r\n"
            b"strict-transport-security: max-age=31536000; includeSubDomains\r\n"
            b"\r\n" + VERSIONS
        )


async def test_reason_phrases_are_a_rexs() -> None:
    async with serving() as ce, line(ce) as to:
        assert first_line(await to.ask("GET", JOBS, who=None)) == (
            "HTTP/1.1 500 User can't be assigned configuration"
        )
        assert first_line(await to.ask("GET", "/nosuch")) == "HTTP/1.1 404 Not Found"
        assert first_line(await to.ask("GET", "/simulator/jobs")) == "HTTP/1.1 200 OK"
        assert first_line(await to.ask("GET", "/simulator/nosuch")) == "HTTP/1.1 404 Not Found"


async def test_a_body_that_looks_like_a_head_is_left_alone() -> None:
    body = b"HTTP/1.1 400 \r\narc-reason: x\r\n\r\n"
    async with serving() as ce, line(ce) as to:
        (job,) = await made(to, adl(inputs=["never"]))
        put = await to.ask("PUT", f"{JOBS}/{job}/session/file", body=body)
        assert first_line(put) == "HTTP/1.1 200 OK"
        assert (await to.ask("GET", f"{JOBS}/{job}/session/file")).endswith(b"\r\n\r\n" + body)


async def made(to: Line, description: bytes, who: str | None = "user") -> list[str]:
    answer = await to.ask("POST", f"{JOBS}?action=new", body=description, who=who)
    assert first_line(answer) == "HTTP/1.1 201 Created"
    return [part.split(b'"')[1].decode() for part in answer.split(b'"id"')[1:]]


async def test_what_is_no_http_is_a_bad_request() -> None:
    async with serving() as ce, line(ce) as to:
        await to.stream.send_all(b"garbage\r\n\r\n")
        answer = await to.rest()
        assert first_line(answer) == "HTTP/1.1 400 Bad Request"
        assert b"strict-transport-security" in answer


@pytest.mark.parametrize(
    "head",
    [
        b"GET /arex/rest/\xc3\xa9 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"POST /arex/rest HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
async def test_bad_requests_behind_good_ones(head: bytes) -> None:
    async with serving() as ce, line(ce) as to:
        await to.ask("GET", "/arex/rest")
        await to.stream.send_all(head)
        assert first_line(await to.rest()) == "HTTP/1.1 400 Bad Request"


@pytest.mark.parametrize(
    "bytes_",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(20),
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + bytes(20),
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"G\xffT / HTTP/1.1\r\nHost: h\r\n\r\n",
        bytes(range(256)) * 100,
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\n",
    ],
)
async def test_one_connection_does_not_end_the_others(bytes_: bytes) -> None:
    async with serving() as ce, line(ce) as other:
        async with line(ce) as to:
            await to.stream.send_all(bytes_)
            with trio.move_on_after(0.2):
                await to.rest()
        assert VERSIONS in await other.ask("GET", "/arex/rest")


async def test_a_connection_is_kept() -> None:
    async with serving() as ce, line(ce) as to:
        for _ in range(3):
            assert VERSIONS in await to.ask("GET", "/arex/rest")
        answer = await to.ask("GET", "/arex/rest", "Connection: close")
        assert b"connection: close" in answer.lower()
        assert await to.rest() == b""


async def test_a_head_has_no_body() -> None:
    async with serving() as ce, line(ce) as to:
        answer = await to.ask("HEAD", "/arex/rest")
        assert answer.endswith(b"\r\n\r\n")
        assert b"content-length: 25" in answer
        assert VERSIONS in await to.ask("GET", "/arex/rest")


async def test_a_body_in_chunks_and_one_that_is_waited_for() -> None:
    body = b'{"job":[{"id":"nosuch"}]}'
    async with serving() as ce, line(ce) as to:
        kind = "Content-Type: application/json"
        target = f"{JOBS}?action=status"
        await to.send("POST", target, kind, "Transfer-Encoding: chunked")
        for at in range(0, len(body), 7):
            piece = body[at : at + 7]
            await to.stream.send_all(b"%x\r\n%b\r\n" % (len(piece), piece))
        await to.stream.send_all(b"0\r\n\r\n")
        assert b"Job not found" in await to.answer()
        await to.send("POST", target, kind, "Expect: 100-continue", f"Content-Length: {len(body)}")
        got = bytes(await to.stream.receive_some())
        assert got.startswith(b"HTTP/1.1 100")
        await to.stream.send_all(body)
        assert b"Job not found" in await to.answer()


async def test_an_unread_body_does_no_harm() -> None:
    async with serving() as ce, line(ce) as to:
        answer = await to.ask("POST", "/arex/rest/1.1/nosuch", body=b"x" * 300_000)
        assert first_line(answer) == "HTTP/1.1 404 Functionality Not Supported"
        assert VERSIONS in await to.ask("GET", "/arex/rest")


@pytest.mark.parametrize(
    ("odd", "refused"),
    [
        ({}, None),
        ({"depth": 0}, None),
        ({"depth": 2, "limited": True}, None),
        ({"key": "rsa"}, None),
        ({"lifetime": -60}, "ALERT_CERTIFICATE_EXPIRED"),
        ({"foreign_ca": True}, "ALERT_UNKNOWN_CA"),
        ({"key": "ec", "bits": 256}, "ALERT_ILLEGAL_PARAMETER"),
    ],
)
async def test_client_certificates(odd: dict[str, Any], refused: str | None) -> None:
    async with serving() as ce:
        proxy = ce.proxy("Ann", **odd)
        if refused is None:
            async with line(ce, proxy) as to:
                assert first_line(await to.ask("GET", JOBS, who=None)) == "HTTP/1.1 200 OK"
                (job,) = await made(to, adl(), who=None)
                assert ce.world.find(ce.subject("Ann"), job)
        else:
            with pytest.raises(trio.BrokenResourceError) as caught:
                async with line(ce, proxy):
                    pass
            assert isinstance(caught.value.__cause__, ssl.SSLError)
            assert str(caught.value.__cause__.reason).endswith(refused)


async def test_a_proxy_without_its_chain_is_unknown() -> None:
    async with serving() as ce:
        blocks = re.findall(b"-----BEGIN .*?-----END [A-Z ]*-----\n", ce.proxy(), re.DOTALL)
        alone = [next(each for each in blocks if what in each) for what in (b"CERT", b"PRIVATE")]
        with pytest.raises(trio.BrokenResourceError) as caught:
            async with line(ce, b"".join(alone)):
                pass
        assert "UNKNOWN_CA" in str(caught.value.__cause__)


@pytest.mark.parametrize("kind", ["p-256", "expired", "foreign"])
async def test_the_library_says_what_is_wrong_with_a_proxy(kind: str) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "p-256": {"key": "ec"},
        "expired": {"lifetime": -60},
        "foreign": {"foreign_ca": True},
    }
    odd = kinds[kind]
    said = []
    for ce in (Simulator(), Simulator.serving()):
        async with ce:
            credentials = ce.credentials(kinds=("proxy",))
            assert credentials.proxy is not None
            proxy = credentials.proxy.model_copy(update={"pem": SecretBytes(ce.proxy(**odd))})
            bad = credentials.model_copy(update={"proxy": proxy})
            async with ce.backend(bad, auth="proxy") as backend:
                with pytest.raises(AuthenticationError) as caught:
                    await backend.status([JobID("nosuch")])
                said.append(caught.value.message)
    assert said[0] == said[1], "without a socket it is the same"


async def test_tls_1_3_is_not_spoken() -> None:
    async with serving() as ce:
        with pytest.raises(trio.BrokenResourceError) as caught:
            async with line(ce, tls_1_3=True):
                pass
        assert "PROTOCOL_VERSION" in str(caught.value.__cause__)
    async with serving(without_traps={Trap.TLS_1_2_ONLY}) as ce, line(ce, tls_1_3=True) as to:
        assert VERSIONS in await to.ask("GET", "/arex/rest")


async def test_other_curves_without_the_trap() -> None:
    async with (
        serving(without_traps={Trap.ONE_CURVE_ONLY}) as ce,
        line(ce, ce.proxy(key="ec")) as to,
    ):
        assert first_line(await to.ask("GET", JOBS, who=None)) == "HTTP/1.1 200 OK"


async def test_the_certificate_is_for_the_loopback() -> None:
    async with serving() as ce:
        context = ssl.create_default_context(cafile=ce.ca_file)
        port = port_of(ce)
        for name in ("localhost", "127.0.0.1"):
            raw = await trio.open_tcp_stream("127.0.0.1", port)
            async with trio.SSLStream(raw, context, server_hostname=name) as stream:
                await stream.do_handshake()
        with socket.socket() as elsewhere:
            host = socket.gethostbyname(socket.gethostname())
            if not host.startswith("127."):
                assert elsewhere.connect_ex((host, port)) != 0


async def test_the_identity_sticks_to_the_connection() -> None:
    async with serving() as ce, line(ce) as to:
        await made(to, adl())
        first = await to.ask("GET", JOBS)
        assert (await to.ask("GET", JOBS, who="other")).endswith(first.partition(b"\r\n\r\n")[2])
        async with line(ce) as other:
            assert b'{"job":[]}' in await other.ask("GET", JOBS, who="other")


async def test_a_long_request_line_closes() -> None:
    async with serving() as ce:
        async with line(ce) as to:
            assert first_line(await to.ask("GET", f"{JOBS}?x={'y' * 4900}")).endswith("200 OK")
        async with line(ce) as to:
            assert await to.ask("GET", f"{JOBS}?x={'y' * 5200}") == b""
        async with line(ce) as to:
            assert await to.ask("GET", f"{JOBS}?x={'y' * 100_000}") == b""


@pytest.mark.parametrize(
    ("effect", "got"),
    [
        (Cut(when="before"), b""),
        (Cut(when="done"), b""),
        (Cut(when="answer", after_bytes=5), VERSIONS[:5]),
        (Cut(when="answer"), b""),
    ],
)
async def test_cuts(effect: Cut, got: bytes) -> None:
    async with serving(faults=(Fault(effect=effect, count=1),)) as ce, line(ce) as to:
        await to.send("GET", "/arex/rest")
        answer = await to.rest()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert body == got
        assert bool(head) is (effect.when == "answer")
        async with line(ce) as again:
            assert VERSIONS in await again.ask("GET", "/arex/rest")


async def test_stalls_end_with_the_client() -> None:
    stall = Stall(after_bytes=3)
    async with serving(faults=(Fault(effect=stall, count=1),)) as ce:
        async with line(ce) as to:
            await to.send("GET", "/arex/rest")
            got = b""
            while not got.endswith(VERSIONS[:3]):
                got += await to.stream.receive_some()
            with trio.move_on_after(0.2) as scope:
                await to.stream.receive_some()
            assert scope.cancelled_caught
        async with line(ce) as again:
            assert VERSIONS in await again.ask("GET", "/arex/rest")


async def test_latency_and_slow_accepts_on_the_wire() -> None:
    faults = (
        Fault(effect=SlowAccept(time=FixedTime(seconds=0.3)), count=1),
        Fault(effect=Latency(time=FixedTime(seconds=0.2)), count=1),
    )
    async with serving(faults=faults) as ce:
        began = trio.current_time()
        async with line(ce) as to:
            assert trio.current_time() - began >= 0.3
            await to.ask("GET", "/arex/rest")
            assert trio.current_time() - began >= 0.5


async def test_a_status_on_the_wire() -> None:
    busy = Status(status=503, reason="Busy", retry_after=3)
    async with serving(faults=(Fault(effect=busy, count=1),)) as ce, line(ce) as to:
        answer = await to.ask("GET", "/arex/rest")
        assert first_line(answer) == "HTTP/1.1 503 Busy"
        assert b"retry-after: 3" in answer
        assert VERSIONS in await to.ask("GET", "/arex/rest")


async def test_the_end_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = descriptors()
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with AsyncExitStack() as stack:
        async with serving(faults=(Fault(effect=Stall(), operation="info"),)) as ce:
            idle, stalled, half = [await stack.enter_async_context(line(ce)) for _ in range(3)]
            await idle.ask("GET", "/arex/rest")
            await stalled.send("GET", "/arex/rest/1.1/info")
            await half.stream.send_all(b"GET /arex/rest HTT")
            assert os.listdir(tmp_path)
        for each in (idle, stalled, half):
            assert await each.rest() == b""
    assert descriptors() == before
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert not os.listdir(tmp_path)
    with socket.socket() as attempt:
        assert attempt.connect_ex(("127.0.0.1", port_of(ce))) != 0


async def test_the_end_does_not_wait_for_a_client_that_does_not_read() -> None:
    async with AsyncExitStack() as stack:
        with trio.fail_after(20):
            async with serving() as ce:
                to = await stack.enter_async_context(line(ce))
                (job,) = await made(to, adl(inputs=["never"]))
                found = ce.world.find(ce.owner(), job)
                assert found is not None
                session = ce.world.session(found)
                session.write("large", bytes(64 * 2**20))
                await to.send("GET", f"{JOBS}/{job}/session/large")
                await to.stream.receive_some(1)


async def test_what_the_block_raises_is_raised_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with serving():
            raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        async with Simulator():
            raise ZeroDivisionError


async def test_cancellation_ends_it() -> None:
    before = descriptors()
    with trio.move_on_after(0.1) as scope:
        async with serving() as ce, line(ce) as to:
            await to.ask("GET", "/arex/rest")
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert descriptors() == before


async def test_a_port_that_is_taken_is_told() -> None:
    async with serving() as ce:
        with pytest.raises(OSError, match="in use"):
            async with serving(port=port_of(ce)):
                pass


async def test_a_restart_closes_connections() -> None:
    async with serving() as ce, line(ce) as to:
        await made(to, adl())
        ce.restart()
        assert await to.rest() == b""
        assert sum(ce.world.counts().values()) == 1
        ce.restart(keep=False)
        assert sum(ce.world.counts().values()) == 0


async def test_secrets_are_in_no_file_and_no_command() -> None:
    async with serving() as ce:
        ce.proxy()
        for folder, _, names in os.walk(ce.ca_file.parent):
            for name in names:
                assert b"PRIVATE" not in (Path(folder) / name).read_bytes()
        assert (ce.ca_file.parent.stat().st_mode & 0o777) == 0o700


async def test_the_library_over_tls() -> None:
    async with serving(publish_every=0.2) as ce, ce.backend() as backend:
        submission = await backend.submit(SubmissionSpec(executable="/bin/true"), count=2)
        assert set(await backend.status(submission.handles)) == {
            handle.id for handle in submission.handles
        }
