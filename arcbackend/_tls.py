"""The TLS context of a transport: whom it believes, and what it insists on."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

from arcbackend.errors import ConfigurationError

__all__ = ["client_context"]

# OpenSSL looks a CA up by the hash of its subject; *.r0 beside them are revocation lists.
_HASHED = re.compile(r"[0-9a-f]{8}\.\d+")


def client_context(ca_file: Path | None, ca_dir: Path | None) -> ssl.SSLContext:
    """Build a context that verifies the CE's certificate and host name, with TLS 1.2 or newer.

    Reads files: not for the event loop's thread.

    Args:
        ca_file: PEM file of certification authorities.
        ca_dir: directory of hashed CA certificates. With neither, the system's store, which
            ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` can move.

    Raises:
        ConfigurationError: a file or directory that cannot be used, by the setting's name.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificate and host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Off on every Python alike: Python 3.13's default refuses roots without an authority key
    # identifier or with a non-critical basicConstraints, as old grid CAs are.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if ca_file is not None:
        _load_file(context, ca_file)
    if ca_dir is not None:
        _load_dir(context, ca_dir)
    if ca_file is None and ca_dir is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return context


def _load_file(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise ConfigurationError(f"ca_file: {path} holds no certificate in PEM form") from None
    except OSError as error:
        reason = error.strerror or error
        raise ConfigurationError(f"ca_file: cannot read {path}: {reason}") from None


def _load_dir(context: ssl.SSLContext, path: Path) -> None:
    # OpenSSL reads the directory during a handshake and says nothing of one that is not there.
    try:
        hashed = any(_HASHED.fullmatch(entry.name) for entry in path.iterdir())
    except OSError as error:
        reason = error.strerror or error
        raise ConfigurationError(f"ca_dir: cannot read {path}: {reason}") from None
    if not hashed:
        raise ConfigurationError(
            f"ca_dir: {path} holds no hashed certificate (<8 hexadecimal digits>.0); "
            "run `openssl rehash` on it, or name a bundle with ca_file"
        )
    context.load_verify_locations(capath=path)
