"""Whom the transport believes."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
import trio

from arcbackend import _tls
from arcbackend.errors import ConfigurationError, TransportError
from tests.wire.helpers import LIST, Connect, Serve
from tests.wire.server import always, serving


def hashed(ca_file: Path, directory: Path) -> Path:
    """A directory as in /etc/grid-security/certificates."""
    command = ["openssl", "x509", "-noout", "-hash", "-in", str(ca_file)]
    name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    shutil.copy(ca_file, directory / f"{name}.0")
    (directory / f"{name}.r0").write_text("a revocation list")
    return directory


async def test_grid_directory(
    serve: Serve, connect: Connect, ca_file: Path, tmp_path: Path
) -> None:
    directory = hashed(ca_file, tmp_path)
    async with (
        serve(always()) as server,
        connect(server, ca_file=None, ca_dir=directory) as transport,
    ):
        assert (await transport.send(LIST)).status == 200


async def test_another_directory(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "01234567.0").write_text("no certificate")
    async with (
        serve(always()) as server,
        connect(server, ca_file=None, ca_dir=tmp_path) as transport,
    ):
        with pytest.raises(TransportError, match=f"verification failed.*ca_dir={tmp_path}"):
            await transport.send(LIST)


async def test_the_systems_store(
    serve: Serve, connect: Connect, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(always()) as server:
        async with connect(server, ca_file=None) as transport:
            with pytest.raises(TransportError, match="the system's store"):
                await transport.send(LIST)
        monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
        async with connect(server, ca_file=None) as transport:
            assert (await transport.send(LIST)).status == 200


@pytest.mark.parametrize("setting", ["ca_file", "ca_dir"])
@pytest.mark.parametrize("content", [None, "empty", "wrong"])
async def test_trust_anchors_that_cannot_be_used(
    connect: Connect, tmp_path: Path, setting: str, content: str | None
) -> None:
    path = tmp_path / "anchors"
    if content is not None and setting == "ca_dir":
        path.mkdir()
        (path / ("ca.pem" if content == "wrong" else ".keep")).touch()
    elif content is not None:
        path.write_text("" if content == "empty" else "no certificate")
    async with connect("https://localhost:1", **{"ca_file": None, setting: path}) as transport:
        with pytest.raises(ConfigurationError, match=f"{setting}: .*{path}") as caught:
            await transport.send(LIST)
        assert caught.value.ce == "https://localhost:1"


async def test_built_once_and_not_in_the_event_loop(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[Any] = []
    build = _tls.client_context

    def recorded(*args: Any) -> ssl.SSLContext:
        threads.append(threading.current_thread())
        return build(*args)

    monkeypatch.setattr("arcbackend.transport.client_context", recorded)
    async with serve(always()) as server, connect(server) as transport:
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(
                    lambda who: transport.send(LIST, authorization=who), f"Bearer {number}"
                )
        assert len(threads) == 1
        assert threads[0] is not threading.current_thread()


async def test_slow_trust_anchors(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    def stuck(*args: Any) -> ssl.SSLContext:
        go_on.wait(30)
        raise ConfigurationError("late")

    monkeypatch.setattr("arcbackend.transport.client_context", stuck)
    async with connect("https://localhost:1", connect_timeout=0.05) as transport:
        with pytest.raises(TransportError, match=r"authorities were not read within 0\.05 s"):
            await transport.send(LIST)
        go_on.set()


async def test_old_tls_is_refused(connect: Connect, authority: Any) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with serving(always(), context) as server, connect(server) as transport:
        with pytest.raises(TransportError, match="TLS handshake"):
            await transport.send(LIST)


def test_the_same_on_every_python(ca_file: Path) -> None:
    context = _tls.client_context(ca_file, None)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
