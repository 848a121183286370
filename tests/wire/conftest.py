"""Certificates, settings and leak checks for the wire tests."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import trustme

from arcbackend import ARCBackend, BearerToken, StaticCredentials, _body
from arcbackend.transport import Transport, TransportSettings
from tests.wire.fake_ce import FakeCE
from tests.wire.helpers import Connect, Open, Serve, assert_at_rest, descriptors
from tests.wire.server import Server, serving


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture(scope="session")
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture(scope="session")
def client_context(ca_file: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ca_file)
    return context


@pytest.fixture
def long_from_a_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let bodies go past h11 as if they were of large files."""
    monkeypatch.setattr(_body, "_LONG", 1)


@pytest.fixture(params=["parsed", "poured"])
def however_bodies_arrive(request: pytest.FixtureRequest) -> None:
    """On the event loop, as those of small files; and in a thread, as those of large ones."""
    if request.param == "poured":
        request.getfixturevalue("long_from_a_byte")


@pytest.fixture
def events() -> Iterator[list[Any]]:
    """The log events of a test."""
    with structlog.testing.capture_logs() as captured:
        yield captured


@pytest.fixture
def connect(ca_file: Path, events: list[Any]) -> Connect:
    """Make a transport to a server or an endpoint; asserts on leaving that nothing leaked."""

    @asynccontextmanager
    async def make(to: Any, **settings: Any) -> AsyncIterator[Transport]:
        settings = {"backoff": 0.001, "backoff_max": 0.01, "read_timeout": 10.0, **settings}
        endpoint = to if isinstance(to, str) else to.endpoint
        settings.setdefault("ca_file", ca_file)
        async with Transport(TransportSettings(endpoint, **settings)) as transport:
            yield transport
            assert_at_rest(transport)
        assert transport._network.open == 0
        assert transport._slots.value == transport._settings.connections

    return make


@pytest.fixture
def serve(server_context: ssl.SSLContext) -> Serve:
    return lambda script: serving(script, server_context)


@pytest.fixture
def opened(serve: Serve, ca_file: Path) -> Open:
    """A backend on a fake CE; asserts on leaving that nothing is left."""

    @asynccontextmanager
    async def make(ce: FakeCE, **settings: Any) -> AsyncIterator[tuple[ARCBackend, Server]]:
        settings["limits"] = {"keep_free_bytes": 0, **settings.get("limits", {})}
        settings.setdefault("retries", {"backoff": 0.001, "backoff_max": 0.01})
        async with serve(ce.script) as server:
            config = {"endpoint": server.endpoint, "ca_file": ca_file, **settings}
            before = descriptors()
            async with ARCBackend(config, StaticCredentials(BearerToken(value="t"))) as backend:
                yield backend, server
                assert_at_rest(backend._session._transport)
            assert backend._session._transport._network.open == 0
            await server.until_idle()
            assert descriptors() == before

    return make
