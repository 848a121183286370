"""A backend whose way to the real CE can be broken."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trustme

from arcbackend import ARCBackend, BearerToken, StaticCredentials
from tests.integration.ce import RealCE
from tests.wire.proxy import FaultyProxy, faulty


@asynccontextmanager
async def behind_proxy(
    ce: RealCE, token: str, tmp_path: Path, **settings: object
) -> AsyncIterator[tuple[ARCBackend, FaultyProxy]]:
    """A backend whose way to the CE can be broken; the CE has another address there."""
    authority = trustme.CA()
    for_clients = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(for_clients)
    ca_file = tmp_path / "proxy-ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    port = int(ce.endpoint.rsplit(":", 1)[1])
    for_server = ssl.create_default_context(cafile=str(ce.ca_file))
    async with faulty("localhost", port, for_clients, for_server) as proxy:
        config = ce.config(**{"ca_file": ca_file, "endpoint": proxy.endpoint, **settings})
        credentials = StaticCredentials(BearerToken(value=token))
        async with ARCBackend(config, credentials) as backend:
            yield backend, proxy
