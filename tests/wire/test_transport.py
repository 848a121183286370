"""What goes over the wire, and what is made of the answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from arcbackend.errors import ConfigurationError, ProtocolError, TransportError
from arcbackend.protocol.messages import Operation, Request
from arcbackend.transport import Transport, TransportSettings
from tests.wire.helpers import LIST, PUT, Connect, Serve, assert_at_rest
from tests.wire.http import answer
from tests.wire.server import Peer, always, in_turn


async def test_request_and_answer(serve: Serve, connect: Connect) -> None:
    async with (
        serve(always(answer(201, b"hello", "Created \xe9", X_A="1", x_a="2"))) as server,
        connect(server) as transport,
    ):
        request = Request(
            Operation.JOBS_STATUS,
            "POST",
            "/a%2fb/../%2e%2e/%7e?x=%20;y",
            None,
            idempotent=True,
            headers={"Accept": "application/json"},
            body=b"{}",
        )
        response = await transport.send(request, authorization="Bearer abc")
        assert response.status == 201
        assert response.reason == "Created \xe9"
        assert response.headers == {"content-length": "5", "x-a": "1, 2"}
        assert response.body == b"hello"
        seen = server.requests[0]
        assert seen.target == request.target  # as it stands: not normalised
        assert seen.body == b"{}"
        assert seen.headers == {
            "host": f"localhost:{server.port}",
            "user-agent": "arcbackend",
            "authorization": "Bearer abc",
            "accept": "application/json",
            "content-length": "2",
        }


async def test_a_connection_is_used_again(serve: Serve, connect: Connect) -> None:
    async with serve(always()) as server, connect(server) as transport:
        for _ in range(5):
            assert (await transport.send(LIST)).body == b"ok"
        assert server.accepted == 1


async def test_an_error_status_is_an_answer(serve: Serve, connect: Connect) -> None:
    reason = "User can't be assigned configuration"
    async with serve(always(answer(500, reason=reason))) as server, connect(server) as transport:
        response = await transport.send(LIST)
        assert (response.status, response.reason, response.body) == (500, reason, b"")
        assert len(server.requests) == 1


async def test_a_redirect_is_not_followed(serve: Serve, connect: Connect) -> None:
    away = answer(302, reason="Found", Location="https://localhost:1/", Set_Cookie="a=b")
    async with serve(always(away)) as server, connect(server) as transport:
        assert (await transport.send(LIST)).status == 302
        assert (await transport.send(LIST)).headers["location"] == "https://localhost:1/"
        assert all("cookie" not in seen.headers for seen in server.requests)


async def test_proxies_of_the_environment_are_not_used(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with serve(always()) as server, connect(server) as transport:
        assert (await transport.send(LIST)).status == 200


async def test_an_answer_without_body(serve: Serve, connect: Connect) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    request = Request(Operation.JOBS_LIST, "HEAD", "/x", None, idempotent=True)
    async with serve(in_turn(head, chunked)) as server, connect(server) as transport:
        response = await transport.send(request)
        assert (response.headers["content-length"], response.body) == ("9999", b"")
        assert (await transport.send(LIST)).body == b""
        assert server.accepted == 1


@pytest.mark.parametrize("size", [10, 70_000, 1_000_000])
@pytest.mark.parametrize("announced", [True, False])
async def test_streamed_request(serve: Serve, connect: Connect, size: int, announced: bool) -> None:
    body = b"0123456789" * (size // 10)

    async def content() -> AsyncIterator[bytes]:
        for start in range(0, size, 65_536):
            yield body[start : start + 65_536]

    async with (
        serve(in_turn(answer(503), answer(200))) as server,
        connect(server) as transport,
    ):
        length = size if announced else None
        response = await transport.send(PUT, content=content, content_length=length)
        assert response.status == 200
        assert [seen.body for seen in server.requests] == [body, body]  # started again


@pytest.mark.parametrize(("announced", "size"), [(10, 5), (10, 15)])
async def test_a_body_of_another_length(
    serve: Serve, connect: Connect, announced: int, size: int
) -> None:
    async def content() -> AsyncIterator[bytes]:
        yield b"x" * size

    async with serve(always()) as server, connect(server) as transport:
        with pytest.raises(ConfigurationError, match="10 bytes announced"):
            await transport.send(PUT, content=content, content_length=announced)
        assert_at_rest(transport)
        assert (await transport.send(LIST)).status == 200
        assert not any(seen.complete for seen in server.requests if seen.method == "PUT")


@pytest.mark.parametrize("error", [OSError("disk"), trio.TooSlowError(), KeyError("x")])
async def test_what_the_body_raises_is_raised_as_it_is(
    serve: Serve, connect: Connect, error: Exception
) -> None:
    started = closed = 0

    async def content() -> AsyncIterator[bytes]:
        nonlocal started, closed
        started += 1
        try:
            yield b"x" * 5
            raise error
        finally:
            closed += 1

    async with serve(always()) as server, connect(server) as transport:
        with pytest.raises(type(error)) as caught:
            await transport.send(PUT, content=content, content_length=10)
        assert caught.value is error
        assert (started, closed) == (1, 1)
        assert_at_rest(transport)


@pytest.mark.parametrize("headers", ["Content-Length: 1001", "Transfer-Encoding: chunked"])
async def test_max_body(serve: Serve, connect: Connect, headers: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(f"HTTP/1.1 200 OK\r\n{headers}\r\n\r\n".encode())
        while "chunked" in headers:  # without end, for a client that would go on reading
            await peer.send(b"5\r\nabcde\r\n")
        await peer.until_gone()  # one that is announced is refused before it comes

    async with serve(script) as server, connect(server, max_body=1000) as transport:
        with pytest.raises(ProtocolError, match="longer than 1000 bytes"):
            await transport.send(LIST)
        await server.until_idle()
        assert len(server.requests) == 1  # not tried again


async def test_max_body_itself_is_taken(serve: Serve, connect: Connect) -> None:
    async with (
        serve(always(answer(body=b"a" * 1000))) as server,
        connect(server, max_body=1000) as transport,
    ):
        assert len((await transport.send(LIST)).body) == 1000


# Streaming


async def test_stream(serve: Serve, connect: Connect, events: list[Any]) -> None:
    body = bytes(1_000_000)
    async with serve(always(answer(body=body))) as server, connect(server) as transport:
        async with transport.stream(LIST, authorization="Bearer a") as response:
            assert (response.status, response.reason) == (200, "OK")
            assert response.headers["content-length"] == "1000000"
            chunks = [chunk async for chunk in response]
        assert b"".join(chunks) == body
        assert len(chunks) > 1
        assert_at_rest(transport)
        assert transport._network.open == 1  # and can be used again
        assert events[-1]["bytes_received"] == 1_000_000


@pytest.mark.parametrize("error", [None, ValueError("caller")])
async def test_leaving_a_stream_early(
    serve: Serve, connect: Connect, error: Exception | None
) -> None:
    async def leave() -> None:
        async with transport.stream(LIST) as response:
            async for _ in response:
                if error is not None:
                    raise error
                break

    async with (
        serve(always(answer(body=bytes(1_000_000)))) as server,
        connect(server, connections=1) as transport,
    ):
        if error is None:
            await leave()
        else:
            with pytest.raises(ValueError, match="caller"):
                await leave()
        assert_at_rest(transport)
        assert transport._network.open == 0
        await server.until_idle()
        assert (await transport.send(LIST)).status == 200


async def test_a_stream_that_breaks(serve: Serve, connect: Connect) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")

    async with serve(script) as server, connect(server) as transport:
        async with transport.stream(LIST) as response:
            chunks = aiter(response)
            assert await anext(chunks) == b"abc"
            with pytest.raises(TransportError, match="in the middle of the answer"):
                await anext(chunks)
        assert len(server.requests) == 1  # what the caller has seen is not started again


async def test_a_stream_is_tried_again_before_its_head(serve: Serve, connect: Connect) -> None:
    async with (
        serve(in_turn(None, answer(503), answer(body=b"x"))) as server,
        connect(server, connections=1) as transport,
        transport.stream(LIST) as response,
    ):
        assert (response.status, [chunk async for chunk in response]) == (200, [b"x"])
        assert len(server.requests) == 3
    assert_at_rest(transport)


# Closing


async def test_construction_does_no_io_and_close_is_idempotent() -> None:
    transport = Transport(TransportSettings("https://localhost:1", ca_file=None))
    await transport.aclose()
    await transport.aclose()
    with pytest.raises(TransportError, match="closed") as caught:
        await transport.send(LIST)
    assert caught.value.maybe_done is False


async def test_close_ends_what_is_in_use(serve: Serve, connect: Connect, events: list[Any]) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.until_gone()

    async def send(authorization: str | None) -> None:
        with pytest.raises(TransportError):
            await transport.send(LIST, authorization=authorization)

    async with serve(script) as server, connect(server) as transport:
        async with trio.open_nursery() as nursery:
            for authorization in (None, None, "Bearer a"):
                nursery.start_soon(send, authorization)
            await server.until(requests=3)
            await transport.aclose()
        await server.until_idle()
        assert len(server.requests) == len(events) == 3  # none tried again


async def test_close_under_cancellation(serve: Serve, connect: Connect) -> None:
    async with serve(always()) as server, connect(server) as transport:
        await transport.send(LIST)
        await transport.send(LIST, authorization="Bearer a")
        with trio.CancelScope() as scope:
            scope.cancel()
            await transport.aclose()
        assert transport._network.open == 0
        await server.until_idle()


async def test_close_while_connecting(connect: Connect) -> None:
    """A connection that comes about after the close is closed too."""
    resolving, go_on = trio.Event(), trio.Event()

    class Resolver(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *args: Any, **kwargs: Any) -> Any:
            resolving.set()
            await go_on.wait()
            return [(trio.socket.AF_INET, trio.socket.SOCK_STREAM, 6, "", address)]

        async def getnameinfo(self, *args: Any) -> Any:
            raise NotImplementedError

    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    address = listener.socket.getsockname()
    async with listener, connect("https://somewhere.example:1") as transport:
        trio.socket.set_custom_hostname_resolver(Resolver())
        try:
            async with trio.open_nursery() as nursery:

                async def send() -> None:
                    with pytest.raises(TransportError):
                        await transport.send(LIST)

                nursery.start_soon(send)
                await resolving.wait()
                await transport.aclose()
                go_on.set()
        finally:
            trio.socket.set_custom_hostname_resolver(None)
        with trio.fail_after(10):
            async with await listener.accept() as stream:
                assert await stream.receive_some() == b""


# Logging


async def test_one_event_per_attempt(serve: Serve, connect: Connect, events: list[Any]) -> None:
    async with (
        serve(in_turn(None, answer(503), answer(body=b"abc"))) as server,
        connect(server) as transport,
    ):
        await transport.send(LIST)
    first, second, third = events
    assert (first["log_level"], first["status"]) == ("warning", None)
    assert "without an answer" in first["error"]
    assert (second["status"], second["error"]) == (503, None)
    assert third.pop("duration") >= 0
    assert third == {
        "event": "arc.request",
        "log_level": "debug",
        "operation": "jobs.list",
        "ce": server.endpoint,
        "method": "GET",
        "ids": 0,
        "attempt": 3,
        "status": 200,
        "bytes_sent": 0,
        "bytes_received": 3,
        "error": None,
    }
