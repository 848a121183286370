"""Credentials reach no log, no representation, no exception, and no pickle."""

from __future__ import annotations

import base64
import logging
import pickle
import traceback
from typing import Any

import pytest
import trio

from arcbackend.errors import ConfigurationError, InterCEdeError
from arcbackend.transport import Transport, TransportSettings, _Call, _Secret
from tests.wire.helpers import LIST, Connect, Serve
from tests.wire.http import answer
from tests.wire.server import Peer, deaf, in_turn, raw_serving

# Not in a local variable: the frames of these tests are looked through as well.
TOKEN = "eyJhbGciOi.s3cr3t-t0ken.signature"
DELEGATED = "eyJhbGciOi.d3legated.signature"


def authorization() -> str:
    return f"Bearer {TOKEN}"


def put(body: int = 0) -> Any:
    headers = {"X-Token-Delegation": DELEGATED}
    return type(LIST)(LIST.operation, "PUT", "/x", None, True, headers, bytes(body))


def assert_clean(*texts: str) -> None:
    for text in texts:
        for secret in ("s3cr3t", "d3legated", base64.b64encode(TOKEN.encode()).decode()):
            assert secret not in text


async def echo(peer: Peer) -> None:
    seen = await peer.request()
    await peer.send(f"{seen.authorization}\r\n\r\n".encode())


async def echo_delegated(peer: Peer) -> None:
    """Quoted where a message would be cut."""
    seen = await peer.request()
    await peer.send(b"x" * 145 + f"{seen.headers['x-token-delegation']}\r\n\r\n".encode())


async def silent(peer: Peer) -> None:
    await peer.until_gone()


async def garbage(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")


async def never_reads(peer: Peer) -> None:
    await trio.sleep_forever()


async def reset(stream: trio.SocketStream) -> None:
    await stream.receive_some()


@pytest.mark.parametrize(
    "fault",
    [
        echo,
        echo_delegated,
        silent,
        garbage,
        never_reads,
        "refused",
        "deaf",
        "reset",
        "illegal",
        "long",
        "closed",
    ],
    ids=lambda fault: getattr(fault, "__name__", fault),
)
async def test_failures(
    serve: Serve, connect: Connect, events: list[Any], caplog: pytest.LogCaptureFixture, fault: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    settings = {"read_timeout": 0.1, "write_timeout": 0.1, "connect_timeout": 0.2, "attempts": 2}

    async def fail(transport: Transport) -> InterCEdeError:
        size = 30_000_000 if fault is never_reads else 10
        end = "\n" if fault == "illegal" else ""
        if fault == "closed":
            await transport.aclose()
        with pytest.raises(InterCEdeError) as caught:
            await transport.send(put(size), authorization=authorization() + end)
        return caught.value

    if fault == "refused":
        async with connect("https://localhost:1", **settings) as transport:
            error = await fail(transport)
    elif fault == "deaf":
        async with deaf() as endpoint, connect(endpoint, **settings) as transport:
            error = await fail(transport)
    elif fault == "reset":
        async with raw_serving(reset) as endpoint, connect(endpoint, **settings) as transport:
            error = await fail(transport)
    else:
        script = fault if callable(fault) else in_turn(answer(body=bytes(1000)))
        async with serve(script) as server, connect(server, max_body=10, **settings) as transport:
            error = await fail(transport)
            assert_clean(repr(vars(transport)), repr(transport))

    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    assert_clean("".join(shown.format()), repr(error), str(error), repr(vars(error)))
    seen: set[int] = set()
    chain: list[BaseException | None] = [error]
    while chain:
        link = chain.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        assert link is error or link.__traceback__ is None  # no frame that holds the request
        assert_clean(repr(link), str(link), repr(link.args))
        shown = traceback.TracebackException.from_exception(link, capture_locals=True)
        assert_clean("".join(shown.format()))
        chain += [link.__cause__, link.__context__]
    data = pickle.dumps(error)
    assert TOKEN.encode() not in data
    assert_clean(repr(events))
    if fault in (echo, echo_delegated):
        assert "…" in str(error)  # httpcore2's own DEBUG lines do quote what such a server says
    else:
        assert_clean(caplog.text, repr([record.args for record in caplog.records]))


async def test_success(
    serve: Serve, connect: Connect, events: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    query = type(LIST)(LIST.operation, "GET", "/x?access_token=s3cret", None, idempotent=True)
    async with serve(in_turn(answer())) as server, connect(server) as transport:
        await transport.send(put(), authorization=authorization())
        async with transport.stream(query, authorization=authorization()) as response:
            assert_clean(repr(response))
            assert "s3cret" not in caplog.text + repr(events)
    assert_clean(repr(events), caplog.text)


def test_representations() -> None:
    secret = _Secret(authorization())
    assert_clean(repr(secret), str(secret), repr(_Call(put(), secret)))
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    transport = Transport(TransportSettings("https://localhost:1"))
    assert_clean(repr(transport))


async def test_construction_errors_name_no_value(serve: Serve, connect: Connect) -> None:
    async with serve(in_turn(answer())) as server, connect(server) as transport:
        with pytest.raises(ConfigurationError) as caught:
            await transport.send(LIST, authorization=authorization() + "\x00")
    assert_clean(str(caught.value))
