"""A backend whose way to the real CE can be broken."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trustme

from arcbackend import ARCBackend, CredentialSet, StaticCredentials
from arcbackend._tls import client_context
from tests.integration.ce import CE
from tests.wire.proxy import FaultyProxy, faulty

_ALLOW_PROXY_CERTS = 0x40  # X509_V_FLAG_ALLOW_PROXY_CERTS, for which the ssl module has no name


@asynccontextmanager
async def behind_proxy(
    ce: CE, credentials: CredentialSet, tmp_path: Path, **settings: object
) -> AsyncIterator[tuple[ARCBackend, FaultyProxy]]:
    """A backend whose way to the CE can be broken; the CE has another address there.

    TLS ends at the proxy, and with it what the backend shows in the handshake: where that tells who
    it is, the proxy asks for it as the CE does, and shows the same to the CE.
    """
    authority = trustme.CA()
    for_clients = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(for_clients)
    ca_file = tmp_path / "proxy-ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    shown = None
    if ce.auth == "proxy":
        assert credentials.proxy is not None
        shown = credentials.proxy.pem.get_secret_value()
        for_clients.verify_mode = ssl.CERT_OPTIONAL
        for_clients.verify_flags |= _ALLOW_PROXY_CERTS
        for_clients.load_verify_locations(ce.ca_file)
    for_server = client_context(ce.ca_file, None, shown)
    port = int(ce.endpoint.rsplit(":", 1)[1])
    async with faulty("localhost", port, for_clients, for_server) as proxy:
        config = ce.config(**{"ca_file": ca_file, "endpoint": proxy.endpoint, **settings})
        async with ARCBackend(config, StaticCredentials(credentials)) as backend:
            yield backend, proxy
