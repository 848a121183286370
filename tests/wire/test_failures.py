"""What is raised, what is tried again, and how long it is waited."""

from __future__ import annotations

import pickle
import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from arcbackend.errors import ConfigurationError, InterCEdeError, ProtocolError, TransportError
from arcbackend.transport import (
    _KEEPALIVE,
    Transport,
    TransportSettings,
    _Call,
    _Exchange,
    _retry_after,
    _Secret,
)
from tests.wire.helpers import LIST, NEW, PUT, Connect, Serve, assert_at_rest
from tests.wire.http import answer
from tests.wire.server import Peer, always, deaf, in_turn, raw_serving, serving


async def fails(
    transport: Transport, error: type[InterCEdeError], match: str, request: Any = NEW
) -> InterCEdeError:
    """The request fails like this, says where, survives pickling, and leaves nothing behind."""
    with pytest.raises(error, match=match) as caught:
        await transport.send(request, authorization="Bearer abc")
    assert caught.value.ce == transport._settings.endpoint
    assert caught.value.operation == str(request.operation)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.__dict__) == (str(caught.value), caught.value.__dict__)
    assert_at_rest(transport)
    return caught.value


def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


# Connecting: certainly not sent


async def test_refused(connect: Connect) -> None:
    async with connect(f"https://localhost:{unused_port()}") as transport:
        error = await fails(transport, TransportError, "connection refused")
        assert isinstance(error, TransportError)
        assert not error.maybe_done
        assert error.__notes__ == ["tried 3 times"]


async def test_unknown_host(connect: Connect) -> None:
    async with connect("https://nowhere.invalid:1") as transport:
        error = await fails(transport, TransportError, "cannot resolve nowhere.invalid")
        assert isinstance(error, TransportError)
        assert not error.maybe_done


async def test_connect_timeout(connect: Connect) -> None:
    async with deaf() as endpoint, connect(endpoint, connect_timeout=0.1) as transport:
        error = await fails(transport, TransportError, r"connect timeout: .* within 0.1 s")
        assert isinstance(error, TransportError)
        assert not error.maybe_done


async def test_connect_timeout_covers_the_handshake(connect: Connect) -> None:
    async def silent(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with raw_serving(silent) as endpoint, connect(endpoint, connect_timeout=0.1) as transport:
        error = await fails(transport, TransportError, "connect timeout")
        assert isinstance(error, TransportError)
        assert not error.maybe_done


async def test_closed_during_the_handshake(connect: Connect) -> None:
    async def rude(stream: trio.SocketStream) -> None:
        await stream.receive_some()

    async with raw_serving(rude) as endpoint, connect(endpoint) as transport:
        error = await fails(transport, TransportError, "closed during the TLS handshake")
        assert isinstance(error, TransportError)
        assert not error.maybe_done


async def test_the_end_of_another_connection_in_the_handshake(
    connect: Connect, events: list[Any]
) -> None:
    """A-REX does so now and then (docs/explanation/arc-rest.md, Connections)."""

    async def confused(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"\x15\x03\x03\x00\x1a" + bytes(range(26)))
        await stream.receive_some()

    async with raw_serving(confused) as endpoint, connect(endpoint) as transport:
        error = await fails(transport, TransportError, "TLS handshake failed: .*Try again")
        assert isinstance(error, TransportError)
        assert not error.maybe_done
        assert len(events) > 1  # it was tried again


async def test_no_tls(connect: Connect, events: list[Any]) -> None:
    async def plain(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer())

    async with raw_serving(plain) as endpoint, connect(endpoint) as transport:
        await fails(transport, TransportError, r"TLS handshake failed: .*TLS 1\.2")
        assert len(events) == 1  # not tried again: it would not help


async def test_untrusted_certificate(
    serve: Serve, connect: Connect, tmp_path: Path, events: list[Any]
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    async with serve(always()) as server, connect(server, ca_file=other) as transport:
        error = await fails(transport, TransportError, "TLS verification failed")
        assert f"ca_file={other}" in str(error)
        assert isinstance(error, TransportError)
        assert not error.maybe_done
        assert len(events) == 1
        assert not server.requests


async def test_certificate_for_another_host(serve: Serve, connect: Connect) -> None:
    async with (
        serve(always()) as server,
        connect(f"https://127.0.0.1:{server.port}") as transport,
    ):
        await fails(transport, TransportError, "TLS verification failed: .*127.0.0.1")
        assert not server.requests


async def test_pool_timeout(serve: Serve, connect: Connect, events: list[Any]) -> None:
    async with (
        serve(always(answer(body=b"0123456789"))) as server,
        connect(server, connections=1, pool_timeout=0.05) as transport,
    ):
        async with transport.stream(LIST):
            with pytest.raises(TransportError, match="pool timeout: none of the 1 conn") as caught:
                await transport.send(LIST)
        assert not caught.value.maybe_done
        assert [event["attempt"] for event in events] == [1, 1]  # waited once, not three times
        assert (await transport.send(LIST)).status == 200


# Sending and receiving: perhaps done


async def silent(peer: Peer) -> None:
    await peer.request()
    await peer.until_gone()


async def test_read_timeout(serve: Serve, connect: Connect) -> None:
    async with serve(silent) as server, connect(server, read_timeout=0.1) as transport:
        error = await fails(transport, TransportError, r"read timeout: .* for 0\.1 s")
        assert isinstance(error, TransportError)
        assert error.maybe_done
        assert len(server.requests) == 1
        await fails(transport, TransportError, "read timeout", LIST)
        assert len(server.requests) == 4  # idempotent: three tries
        await server.until_idle()


async def test_write_timeout(serve: Serve, connect: Connect) -> None:
    async def unread(peer: Peer) -> None:
        await trio.sleep_forever()

    async with (
        serve(unread) as server,
        connect(server, write_timeout=0.1, attempts=1) as transport,
    ):
        with pytest.raises(TransportError, match=r"write timeout: .* for 0\.1 s") as caught:
            await transport.send(
                type(PUT)(PUT.operation, "PUT", "/x", None, True, body=bytes(30_000_000))
            )
        assert caught.value.maybe_done
        assert_at_rest(transport)


@pytest.mark.parametrize("drip", ["head", "body", "interim"])
async def test_total_timeout(serve: Serve, connect: Connect, drip: str) -> None:
    """A server that never stalls for long, and never ends."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n")
        if drip == "body":
            await peer.send(b"Content-Length: 10000\r\n\r\n")
        if drip == "interim":
            await peer.send(b"Content-Length: 0\r\n\r\n")
        while True:
            await peer.send(b"a")
            await trio.sleep(0.01)

    async def interim(peer: Peer) -> None:
        await peer.request()
        while True:
            await peer.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            await trio.sleep(0.01)

    async with (
        serve(interim if drip == "interim" else script) as server,
        connect(server, total_timeout=0.3, read_timeout=5.0) as transport,
    ):
        error = await fails(transport, TransportError, r"total timeout: .* 0\.3 s", LIST)
        assert isinstance(error, TransportError)
        assert error.maybe_done
        assert len(server.requests) == 1
        await server.until_idle()


@pytest.mark.parametrize(
    ("sent", "match"),
    [
        (b"", "closed without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "closed without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "in the middle of the answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "in the middle"),
    ],
)
async def test_cut_short(serve: Serve, connect: Connect, sent: bytes, match: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if sent:
            await peer.send(sent)

    async with serve(script) as server, connect(server) as transport:
        error = await fails(transport, TransportError, match)
        assert isinstance(error, TransportError)
        assert error.maybe_done
        assert len(server.requests) == 1
        await fails(transport, TransportError, match, LIST)
        assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("sent", "match"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "not HTTP .*SSH-2.0"),
        (b"HTTP/1.1 abc\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000, "not HTTP"),
        (b"HTTP/1.1 200 " + b"x" * 1_000_000, "not HTTP"),
        (b"x" * 50_000 + b"\r\n\r\n", "not HTTP"),
    ],
    ids=["ssh", "status", "lengths", "chunk", "many headers", "long line", "long garbage"],
)
async def test_not_http(serve: Serve, connect: Connect, sent: bytes, match: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(sent)
        await peer.until_gone()

    async with serve(script) as server, connect(server) as transport:
        error = await fails(transport, ProtocolError, match, LIST)
        assert len(str(error)) < 500
        assert len(server.requests) == 1  # not tried again
        await server.until_idle()


async def test_an_answer_too_many_is_not_taken_for_the_next(serve: Serve, connect: Connect) -> None:
    async def script(peer: Peer) -> None:
        seen = await peer.request()
        reply = answer(body=seen.target.encode())
        await peer.send(reply + answer(body=b"stale"))
        await peer.until_gone()

    async def in_two_records(peer: Peer) -> None:
        seen = await peer.request()
        incoming = answer(body=seen.target.encode()), answer(body=b"stale")
        raw, send_all = peer.stream.transport_stream, []

        class Both(trio.abc.Stream):
            async def send_all(self, data: Any) -> None:
                send_all.append(bytes(data))

            async def wait_send_all_might_not_block(self) -> None: ...

            async def receive_some(self, max_bytes: int | None = None) -> bytes:
                return bytes(await raw.receive_some(max_bytes))

            async def aclose(self) -> None:
                await raw.aclose()

        peer.stream.transport_stream = Both()  # type: ignore[assignment]
        for part in incoming:
            await peer.send(part)
        await raw.send_all(b"".join(send_all))
        peer.stream.transport_stream = raw
        await peer.until_gone()

    for served in (script, in_two_records):
        async with serve(served) as server, connect(server) as transport:
            for number in range(3):
                request = type(LIST)(LIST.operation, "GET", f"/{number}", None, idempotent=True)
                assert (await transport.send(request)).body == f"/{number}".encode()
            assert server.accepted == 3


# Requests that cannot be written


@pytest.mark.parametrize("value", ["Bearer a\r\nX: y", "Bearer \xe9", "Bearer \udc80", "", " a"])
async def test_illegal_authorization(serve: Serve, connect: Connect, value: str) -> None:
    async with serve(always()) as server, connect(server) as transport:
        with pytest.raises(ConfigurationError, match="credentials hold characters") as caught:
            await transport.send(LIST, authorization=value)
        assert "Bearer" not in repr(caught.value) + str(caught.value)
        assert server.accepted == 0


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("GET ", "/", {}),
        ("GET", "no-slash", {}),
        ("GET", "/a b", {}),
        ("GET", "/\xe9", {}),
        ("GET", "/a\r\n", {}),
        ("GET", "/", {"a b": "c"}),
        ("GET", "/", {"X-Token-Delegation": "s3cret\n"}),
        ("GET", "/", {"X-Token-Delegation": "s3cret\u20ac"}),
    ],
)
async def test_illegal_request(
    serve: Serve, connect: Connect, method: str, target: str, headers: dict[str, str]
) -> None:
    request = type(LIST)(LIST.operation, method, target, None, True, headers)
    async with serve(always()) as server, connect(server) as transport:
        error = await fails(transport, ConfigurationError, "holds characters", request)
        assert "s3cret" not in str(error)
        assert server.accepted == 0


@pytest.mark.parametrize("endpoint", ["http://localhost:1", "localhost:1", "https://"])
def test_endpoint_without_tls(endpoint: str) -> None:
    with pytest.raises(ConfigurationError, match="https://host:port"):
        Transport(TransportSettings(endpoint))


# Trying again


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_status_that_is_tried_again(serve: Serve, connect: Connect, status: int) -> None:
    async with serve(in_turn(answer(status), answer())) as server, connect(server) as transport:
        assert (await transport.send(LIST)).status == 200
        assert len(server.requests) == 2
    async with serve(always(answer(status))) as server, connect(server) as transport:
        assert (await transport.send(LIST)).status == status
        assert len(server.requests) == 3
        assert (await transport.send(NEW)).status == status
        assert len(server.requests) == 4
        assert server.accepted == 1


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 500, 501])
async def test_status_that_is_not_tried_again(serve: Serve, connect: Connect, status: int) -> None:
    async with serve(always(answer(status))) as server, connect(server) as transport:
        assert (await transport.send(LIST)).status == status
        assert len(server.requests) == 1


async def test_attempts_of_one(serve: Serve, connect: Connect) -> None:
    async with serve(in_turn(None, answer())) as server, connect(server, attempts=1) as transport:
        error = await fails(transport, TransportError, "without an answer", LIST)
        assert not hasattr(error, "__notes__")
        assert len(server.requests) == 1


async def test_what_was_not_sent_is_tried_again_whatever_it_is(
    serve: Serve, connect: Connect, server_context: Any
) -> None:
    port = unused_port()
    async with connect(f"https://localhost:{port}", attempts=1000) as transport:
        async with trio.open_nursery() as nursery:
            statuses: list[int] = []

            async def submit() -> None:
                statuses.append((await transport.send(NEW)).status)

            nursery.start_soon(submit)
            await trio.sleep(0.05)
            async with serving(always(), server_context, port) as server:
                await server.until(requests=1)
                await trio.testing.wait_all_tasks_blocked(0.05)
                assert len(server.requests) == 1
        assert statuses == [200]


async def test_an_earlier_attempt_may_have_been_done(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last attempt was certainly not sent, the first perhaps done: perhaps done."""
    async with serve(in_turn(None)) as server, connect(server) as transport:
        made = transport._network.connect_tcp

        async def connect_tcp(host: str, port: int, **kwargs: Any) -> Any:
            return await made("127.0.0.1", 1 if server.requests else port, **kwargs)

        monkeypatch.setattr(transport._network, "connect_tcp", connect_tcp)
        error = await fails(transport, TransportError, "connection refused", LIST)
        assert isinstance(error, TransportError)
        assert error.maybe_done


async def test_closed_while_idle(serve: Serve, connect: Connect) -> None:
    """A server that closes idle connections costs no request, not even a submission."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer())

    async with serve(script) as server, connect(server) as transport:
        for _ in range(5):
            assert (await transport.send(NEW)).status == 200
            await server.until_idle()
        assert server.accepted == 5


async def test_idle_connections_expire(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arcbackend.transport._KEEPALIVE", 0.05)
    async with serve(always()) as server, connect(server) as transport:
        await transport.send(NEW)
        await trio.sleep(0.1)
        await transport.send(NEW)
        assert server.accepted == 2


def test_keepalive_is_shorter_than_the_servers() -> None:
    assert _KEEPALIVE < 60


NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"retry-after": "7"}, 7),
        ({"retry-after": " 7 "}, 7),
        ({"retry-after": "-7"}, 0),
        ({"retry-after": "7.5"}, 0),
        ({"retry-after": "soon"}, 0),
        ({"retry-after": "\u0667"}, 0),
        ({"retry-after": "9" * 5000}, 9_999_999_999),
        (
            # by the CE's clock, which need not be ours
            {
                "retry-after": "Wed, 21 Oct 2015 07:28:30 GMT",
                "date": "Wed, 21 Oct 2015 07:28:00 GMT",
            },
            30,
        ),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 -0000", "date": "nonsense"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    found = _retry_after(headers)
    assert found < 0 if seconds is None else found == seconds


def test_retry_after_without_a_date() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 90 < _retry_after({"retry-after": later}) <= 100


async def test_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = Transport(TransportSettings("https://localhost:1", backoff=1, backoff_max=30))

    def pause(number: int, **headers: str) -> float:
        exchange = _Exchange(transport, _call(), number)
        exchange.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return transport._pause(exchange)

    for number, longest in [(1, 1), (2, 2), (3, 4), (6, 30), (10_000, 30)]:
        pauses = [pause(number) for _ in range(100)]
        assert all(longest / 2 <= seconds <= longest for seconds in pauses)
        assert len(set(pauses)) > 50  # jittered: clients do not come back all at once
    assert pause(1, retry_after="20") == 20
    assert pause(1, retry_after="86400") == 30  # bounded


def _call() -> Any:
    return _Call(LIST, _Secret(None))


async def test_retry_after_is_waited(serve: Serve, connect: Connect) -> None:
    busy = answer(503, Retry_After="100")
    async with (
        serve(in_turn(busy, answer())) as server,
        connect(server, backoff_max=0.5) as transport,
    ):
        started = trio.current_time()
        assert (await transport.send(LIST)).status == 200
        assert trio.current_time() - started >= 0.5
