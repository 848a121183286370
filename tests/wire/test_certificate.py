"""A certificate shown in the TLS handshake: an identity like a token, and as secret."""

from __future__ import annotations

import os
import random
import socket
import ssl
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trustme

from arcbackend import _tls
from arcbackend.errors import AuthenticationError, TransportError
from arcbackend.transport import Transport
from tests.wire.helpers import LIST, Connect, assert_at_rest
from tests.wire.server import Peer, always, serving


def pem(authority: trustme.CA, name: str) -> bytes:
    """A certificate with its key and chain, in one piece, as a proxy is."""
    return authority.issue_cert(f"{name}@example.org").private_key_and_cert_chain_pem.bytes()


@pytest.fixture(scope="session")
def asking(authority: trustme.CA) -> ssl.SSLContext:
    """A server that takes nobody without a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def who(peer: Peer) -> str:
    """Whose certificate a connection showed."""
    shown = peer.stream.getpeercert()
    assert isinstance(shown, dict)
    ((_, name),) = shown["subjectAltName"]
    return str(name).partition("@")[0]


async def test_shown_and_never_shared(
    authority: trustme.CA, asking: ssl.SSLContext, connect: Connect
) -> None:
    names = ["a", "b", "c"]
    certificates = {name: pem(authority, name) for name in names}
    chance = random.Random(3)
    wrong: list[str] = []

    async def script(peer: Peer) -> None:
        while True:
            seen = await peer.request()
            if seen.headers["who"] != who(peer):
                wrong.append(who(peer))
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async def worker(transport: Transport) -> None:
        for _ in range(10):
            name = chance.choice(names)
            request = replace(LIST, headers={"who": name})
            await transport.send(request, certificate=certificates[name])

    async with serving(script, asking) as server, connect(server, connections=4) as transport:
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(worker, transport)
        assert len(server.requests) == 60
        assert wrong == []


async def test_a_token_with_and_without_it_are_two(
    authority: trustme.CA, server_context: ssl.SSLContext, connect: Connect
) -> None:
    certificate = pem(authority, "a")
    async with serving(always(), server_context) as server, connect(server) as transport:
        await transport.send(LIST, authorization="Bearer a")
        await transport.send(LIST, authorization="Bearer a", certificate=certificate)
        await transport.send(LIST, certificate=certificate)
        assert server.accepted == 3
        await transport.discard("Bearer a", certificate)
        await transport.send(LIST, authorization="Bearer a")
        async with transport.stream(LIST, certificate=certificate) as answer:
            assert [chunk async for chunk in answer] == [b"ok"]
        assert server.accepted == 3
        await transport.send(LIST, authorization="Bearer a", certificate=certificate)
        assert server.accepted == 4


async def test_built_once_for_many_at_once(
    authority: trustme.CA,
    asking: ssl.SSLContext,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built: list[bytes | None] = []
    build = _tls.client_context

    def recorded(*args: object) -> ssl.SSLContext:
        built.append(args[2])  # type: ignore[arg-type]
        return build(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("arcbackend.transport.client_context", recorded)
    certificates = [pem(authority, name) for name in "ab"]
    async with serving(always(), asking) as server, connect(server) as transport:
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(_send, transport, certificates[number % 2])
        await _send(transport, certificates[0])
    assert sorted(map(certificates.index, filter(None, built))) == [0, 1]
    assert len(built) == 2


async def _send(transport: Transport, certificate: bytes) -> None:
    await transport.send(LIST, certificate=certificate)


async def test_none_where_one_is_wanted(asking: ssl.SSLContext, connect: Connect) -> None:
    async with (
        serving(always(), asking) as server,
        connect(server, attempts=1) as transport,
    ):
        with pytest.raises(TransportError):
            await transport.send(LIST)
        assert_at_rest(transport)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_one_that_the_server_does_not_know(
    authority: trustme.CA, connect: Connect, version: ssl.TLSVersion
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = version
    foreign = pem(trustme.CA(), "a")
    with socket.create_server(("localhost", 0)) as listener:
        endpoint = f"https://localhost:{listener.getsockname()[1]}"

        def refuse_once() -> None:
            connection, _ = listener.accept()
            with connection.dup() as same:
                with suppress(ssl.SSLError):
                    context.wrap_socket(connection, server_side=True)  # closes it
                same.settimeout(5)
                while same.recv(1000):  # what is unread would undo the alert
                    pass

        async with trio.open_nursery() as nursery, connect(endpoint) as transport:
            nursery.start_soon(trio.to_thread.run_sync, refuse_once)
            with pytest.raises(AuthenticationError, match="does not know its CA") as caught:
                await transport.send(LIST, certificate=foreign)  # (once: again would not help)
            assert caught.value.ce == endpoint


def _encrypted(whole: bytes, folder: Path) -> bytes:
    key = folder / "key.pem"
    key.write_bytes(whole)
    command = ["openssl", "pkey", "-in", str(key), "-aes128", "-passout", "pass:x"]
    return subprocess.run(command, check=True, capture_output=True).stdout


@pytest.mark.parametrize("how", ["garbage", "empty", "no key", "another's key", "encrypted"])
async def test_one_that_cannot_be_used(
    authority: trustme.CA, connect: Connect, tmp_path: Path, how: str
) -> None:
    whole = pem(authority, "a")
    key, _, chain = whole.partition(b"-----BEGIN CERTIFICATE-----")
    chain = b"-----BEGIN CERTIFICATE-----" + chain
    other = pem(authority, "b").partition(b"-----BEGIN CERTIFICATE-----")[0]
    certificate = {
        "garbage": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "empty": b"",
        "no key": chain,
        "another's key": other + chain,
        "encrypted": _encrypted(whole, tmp_path) + chain,
    }[how]
    async with connect("https://localhost:1") as transport:
        with pytest.raises(AuthenticationError, match="cannot be used for TLS") as caught:
            await transport.send(LIST, certificate=certificate)
        assert caught.value.ce == "https://localhost:1"
        assert caught.value.__context__ is None or caught.value.__suppress_context__
        await transport.aclose()
    for secret in (key.split()[-5], other.split()[-5]):
        assert secret.decode() not in repr(caught.value)


def test_no_file_is_left(authority: trustme.CA, ca_file: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    _tls.client_context(ca_file, None, pem(authority, "a"))
    with pytest.raises(AuthenticationError):
        _tls.client_context(ca_file, None, b"garbage")
    assert descriptors() == before


async def test_cancelled_while_it_is_loaded(
    authority: trustme.CA, asking: ssl.SSLContext, connect: Connect
) -> None:
    certificate = pem(authority, "a")
    async with serving(always(), asking) as server, connect(server) as transport:
        for delay in (0, 0.0005, 0.002, 0.005, 0.01):
            with trio.move_on_after(delay):
                await transport.send(LIST, certificate=certificate)
            assert_at_rest(transport)
        assert (await transport.send(LIST, certificate=certificate)).status == 200
