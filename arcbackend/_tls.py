"""The TLS context of a transport: whom it believes, and what it insists on."""

from __future__ import annotations

import os
import re
import ssl
from pathlib import Path

from arcbackend.errors import AuthenticationError, ConfigurationError

__all__ = ["client_context"]

# OpenSSL looks a CA up by the hash of its subject; *.r0 beside them are revocation lists.
_HASHED = re.compile(r"[0-9a-f]{8}\.\d+")


def client_context(
    ca_file: Path | None, ca_dir: Path | None, certificate: bytes | None = None
) -> ssl.SSLContext:
    """Build a context that verifies the CE's certificate and host name, with TLS 1.2 or newer.

    Reads files: not for the event loop's thread.

    Args:
        ca_file: PEM file of certification authorities.
        ca_dir: directory of hashed CA certificates. With neither, the system's store, which
            ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` can move.
        certificate: PEM: what to show the CE, with its private key and chain; None: nothing.

    Raises:
        ConfigurationError: a file or directory that cannot be used, by the setting's name.
        AuthenticationError: the certificate cannot be used.
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
    if certificate is not None:
        _load_certificate(context, certificate)
    return context


def _load_certificate(context: ssl.SSLContext, certificate: bytes) -> None:
    """Give the context a certificate and its key, which the ssl module takes from files only.

    The file is in memory and has no name: it is gone with its descriptor, also when this process is
    killed, and no other user's process can open it.
    """
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.fchmod(descriptor, 0o600)
        with open(descriptor, "wb", closefd=False) as file:
            file.write(certificate)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=_no_password)
    except (ssl.SSLError, ValueError):
        # Chained to nothing: what the ssl module says may quote what it read.
        raise AuthenticationError(
            "the proxy cannot be used for TLS: it is not a certificate in PEM form with its "
            "private key, unencrypted, and the chain behind it"
        ) from None
    finally:
        os.close(descriptor)


def _no_password() -> str:
    """Instead of OpenSSL's own way, which asks on the terminal."""
    raise ValueError


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
