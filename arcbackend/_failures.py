"""The one boundary between httpcore2's exceptions and ours."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpcore2
import trio

from arcbackend.errors import (
    AuthenticationError,
    ConfigurationError,
    InterCEdeError,
    ProtocolError,
    TransportError,
)

__all__ = ["FOREIGN", "Failure", "Limits", "explain", "without_frames"]

FOREIGN = (
    httpcore2.TimeoutException,
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    httpcore2.UnsupportedProtocol,
    trio.TooSlowError,
)
"""What `explain` takes. Anything else is not the network's and passes through as it is."""

_QUOTED = 200
# What a client's OpenSSL says of a handshake into which A-REX has put the end of another connection
# (docs/explanation/arc-rest.md, Connections).
_DISTURBED = frozenset({"INVALID_ALERT", "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"})

# OpenSSL's names of the alerts that are about the peer's certificate (RFC 5246, section 7.2.2).
_ALERTS = {
    "ALERT_CERTIFICATE_EXPIRED": "it has expired, or is not valid yet: renew it",
    "ALERT_CERTIFICATE_REVOKED": "it, or a certificate that it rests on, is revoked",
    "ALERT_UNKNOWN_CA": "the CE does not know its CA, or its chain is not complete",
    "ALERT_ILLEGAL_PARAMETER": "its key is of a kind that the CE does not take (elliptic curve)",
    "ALERT_BAD_CERTIFICATE": "a certificate in it is not in order",
    "ALERT_UNSUPPORTED_CERTIFICATE": "a certificate in it is of a kind that the CE does not take",
    "ALERT_CERTIFICATE_UNKNOWN": "a certificate in it cannot be verified",
    "ALERT_ACCESS_DENIED": "access is denied",
}
_T = TypeVar("_T", bound=BaseException)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the messages name: the CE, whom we trust, and how long we wait (seconds)."""

    endpoint: str
    ca_file: Path | None
    ca_dir: Path | None
    connect: float
    read: float
    write: float
    total: float

    @property
    def trust(self) -> str:
        """The setting that holds the certification authorities, and its value."""
        if self.ca_file is not None:
            return f"ca_file={self.ca_file}"
        if self.ca_dir is not None:
            return f"ca_dir={self.ca_dir}"
        return "the system's store; set ca_file or ca_dir for another"


@dataclass(frozen=True, slots=True)
class Failure:
    """What `explain` found.

    Attributes:
        error: what to raise.
        cause: what to chain to it; None if it could quote the request.
        again: whether trying again can help.
    """

    error: InterCEdeError
    cause: BaseException | None
    again: bool


def explain(
    exc: BaseException,
    limits: Limits,
    operation: str,
    redact: Callable[[str], str],
    *,
    certified: bool = False,
) -> Failure:
    """Translate one of `FOREIGN`, most specific first.

    Args:
        exc: what was raised.
        limits: what the message names.
        operation: the operation that failed.
        redact: takes the credentials out of what the server said, should it quote them.
        certified: whether a certificate was shown to the server.
    """
    context: dict[str, Any] = {"ce": limits.endpoint, "operation": operation}
    if certified and (refusal := _refused_certificate(exc)) is not None:
        return Failure(AuthenticationError(refusal, **context), None, again=False)
    if isinstance(exc, httpcore2.LocalProtocolError):
        text = "the request cannot be written as HTTP: it has an illegal character or length"
        return Failure(ConfigurationError(text, **context), None, again=False)
    if isinstance(exc, httpcore2.ProtocolError) and not _cut_short(exc):
        text = f"this is not HTTP ({_quote(redact(str(exc)))}): is it really a CE's REST interface?"
        return Failure(ProtocolError(text, **context), None, again=False)
    unsent = isinstance(exc, httpcore2.ConnectError | httpcore2.ConnectTimeout)
    text, again = _describe(exc, limits)
    error = TransportError(text, maybe_done=not unsent, **context)
    return Failure(error, without_frames(exc), again)


def _refused_certificate(exc: BaseException) -> str | None:
    """Why the server did not take our certificate, if that is what its TLS alert says."""
    tls = _find(exc, ssl.SSLError)
    said = (tls.reason or "") if tls is not None else ""
    why = next((text for alert, text in _ALERTS.items() if said.endswith(alert)), None)
    return why and f"the CE does not accept the proxy: {why} ({said})"


def without_frames(exc: BaseException) -> BaseException:
    """Drop the tracebacks of an exception and all it came from.

    The frames below this library hold the request as it went on the wire, token included, and
    tools that show local variables would print it.
    """
    for link in _chain(exc):
        link.__traceback__ = None
    return exc


def _describe(exc: BaseException, limits: Limits) -> tuple[str, bool]:
    """Say what failed and what to do next; tell whether trying again can help."""
    for kind, describe in _KINDS:
        if isinstance(exc, kind):
            return describe(exc, limits)
    return f"the connection failed ({_quote(str(exc))}); try again", True


def _connect_error(exc: BaseException, limits: Limits) -> tuple[str, bool]:
    host = urlsplit(limits.endpoint).hostname
    if (cert := _find(exc, ssl.SSLCertVerificationError)) is not None:
        text = (
            f"TLS verification failed: {cert.verify_message or cert}. "
            f"Trusted authorities: {limits.trust}"
        )
        return text, False
    if _find(exc, ssl.SSLEOFError, ssl.SSLSyscallError, ConnectionResetError) is not None:
        return "the connection was closed during the TLS handshake; try again", True
    if (tls := _find(exc, ssl.SSLError)) is not None:
        disturbed = tls.reason in _DISTURBED
        advice = "Try again" if disturbed else "Does this port speak TLS 1.2 or newer?"
        return f"TLS handshake failed: {tls.reason or tls}. {advice}", disturbed
    if (dns := _find(exc, socket.gaierror)) is not None:
        text = f"cannot resolve {host}: {dns.strerror}. Check the endpoint's name and the DNS"
        return text, True
    if _find(exc, ConnectionRefusedError) is not None:
        text = "connection refused: nothing listens there. Check the port, or whether the CE is up"
        return text, True
    reasons = sorted({e.strerror for e in _chain(exc) if isinstance(e, OSError) and e.strerror})
    reason = ", ".join(reasons) or "no reason given"
    return f"cannot connect: {reason}. Check the endpoint and the network", True


def _connect_timeout(_: BaseException, limits: Limits) -> tuple[str, bool]:
    text = (
        f"connect timeout: no connection (name lookup, TCP and TLS) within {limits.connect:g} s. "
        "Check the endpoint and firewalls, or raise the connect timeout"
    )
    return text, True


def _read_timeout(_: BaseException, limits: Limits) -> tuple[str, bool]:
    text = f"read timeout: the CE sent nothing for {limits.read:g} s. Try later, or raise it"
    return text, True


def _write_timeout(_: BaseException, limits: Limits) -> tuple[str, bool]:
    text = f"write timeout: the CE took no data for {limits.write:g} s. Try later, or raise it"
    return text, True


def _too_slow(_: BaseException, limits: Limits) -> tuple[str, bool]:
    text = f"total timeout: no complete answer within {limits.total:g} s. Raise it if that is right"
    return text, False


def _connection_lost(exc: BaseException, _: Limits) -> tuple[str, bool]:
    if _find(exc, ConnectionResetError, BrokenPipeError) is not None:
        return "the connection was reset; try again", True
    return "the connection broke; try again", True


def _cut(exc: BaseException, _: Limits) -> tuple[str, bool]:
    if str(exc).startswith("peer closed connection"):
        return "the connection was closed in the middle of the answer; try again", True
    return "the connection was closed without an answer; try again", True


_KINDS: tuple[
    tuple[type[BaseException], Callable[[BaseException, Limits], tuple[str, bool]]], ...
] = (
    (httpcore2.ConnectTimeout, _connect_timeout),
    (httpcore2.ReadTimeout, _read_timeout),
    (httpcore2.WriteTimeout, _write_timeout),
    (trio.TooSlowError, _too_slow),
    (httpcore2.ConnectError, _connect_error),
    (httpcore2.NetworkError, _connection_lost),
    (httpcore2.RemoteProtocolError, _cut),
)


def _cut_short(exc: BaseException) -> bool:
    """Tell a connection that ended early from bytes that are not HTTP: httpcore2 does not."""
    return str(exc).startswith(("Server disconnected", "peer closed connection"))


def _find(exc: BaseException, *kinds: type[_T]) -> _T | None:
    return next((link for link in _chain(exc) if isinstance(link, kinds)), None)


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """The exception and all it came from; httpcore2 keeps the original in the arguments."""
    pending: list[BaseException | None] = [exc]
    seen: set[int] = set()
    while pending:
        link = pending.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        pending += [link.__cause__, link.__context__]
        pending += [arg for arg in link.args if isinstance(arg, BaseException)]
        if isinstance(link, BaseExceptionGroup):
            pending += link.exceptions


def _quote(text: str) -> str:
    return text if len(text) <= _QUOTED else text[:_QUOTED] + "…"
