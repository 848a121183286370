"""HTTP to one CE: connections, TLS, timeouts, retries, errors. The only module with httpx in it.

Nothing here knows ARC: a `Request` goes out, a `Response` comes back, whatever its status. What it
promises (docs/explanation/transport.md):

- A connection belongs to one identity, never to two: A-REX gives all requests on a connection to
  whom its first one belonged.
- At most ``connections`` are open at one time, over all identities, idle ones included.
- Cancelled anywhere, it leaves no connection in use, no slot taken and no file open.
- Credentials reach no log, no representation and no exception.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import random
import re
from collections import OrderedDict
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar
from urllib.parse import urlsplit

import httpcore2
import httpx
import structlog
import trio

from arcbackend._body import Body
from arcbackend._failures import FOREIGN, Limits, explain
from arcbackend._network import Network, Pool
from arcbackend._tls import client_context
from arcbackend.errors import (
    AuthenticationError,
    ConfigurationError,
    InterCEdeError,
    ProtocolError,
    TransportError,
)
from arcbackend.protocol.messages import Request, Response

if TYPE_CHECKING:
    import ssl

__all__ = ["StreamedResponse", "Transport", "TransportSettings", "in_this_process"]

_log = structlog.get_logger("arcbackend")

# A-REX closes a connection after 60 s without a request; one that it closes as we send on it leaves
# us not knowing what became of the request.
_KEEPALIVE = 45.0
_IDENTITIES = 4
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_TRY_LATER = frozenset({429, 502, 503, 504})
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE = re.compile(r"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")
_CREDENTIALS = re.compile(rb"[!-~](?:[ -~]*[!-~])?")
_METHOD = re.compile(r"[A-Z]+")
_TARGET = re.compile(r"/[!-~]*")
_R = TypeVar("_R")
# Endpoint → what connects to it, of the CEs that are simulated in this process.
_in_process: dict[str, Callable[[bytes | None], httpx.AsyncBaseTransport]] = {}


@contextmanager
def in_this_process(
    endpoint: str, connect: Callable[[bytes | None], httpx.AsyncBaseTransport]
) -> Iterator[None]:
    """Reach a CE without the network for the duration, whichever transport asks for it.

    Args:
        endpoint: its name, ``https://host``, as configurations have it.
        connect: makes the connections of one identity, from the certificate that it shows. They
            raise httpcore2's exceptions, and know the request extension ``target``.

    Raises:
        ConfigurationError: there is one of that name already.
    """
    if endpoint in _in_process:
        raise ConfigurationError(f"endpoint: there is a {endpoint} in this process already")
    _in_process[endpoint] = connect
    try:
        yield
    finally:
        del _in_process[endpoint]


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """How to reach one CE.

    Attributes:
        endpoint: the CE, ``https://host:port``.
        ca_file: PEM file of the certification authorities to trust.
        ca_dir: directory of hashed CA certificates. With neither, the system's store.
        connections: connections open at one time, at most, idle ones included.
        connect_timeout: seconds for the name lookup, TCP and TLS together.
        read_timeout: seconds between two pieces of an answer.
        write_timeout: seconds between two pieces of a request.
        pool_timeout: seconds to wait for one of the connections to be free.
        total_timeout: seconds for one attempt from its free connection to the last byte of its
            answer (`Transport.stream`: to the end of the answer's head).
        attempts: tries in all, for requests that may be repeated.
        backoff: seconds before the second try; doubled each time, jittered.
        backoff_max: the longest wait between two tries in seconds, ``Retry-After`` included.
        max_body: bytes of the longest answer that `Transport.send` takes.
    """

    endpoint: str
    ca_file: Path | None = None
    ca_dir: Path | None = None
    connections: int = 8
    connect_timeout: float = 10.0
    read_timeout: float = 120.0
    write_timeout: float = 60.0
    pool_timeout: float = 600.0
    total_timeout: float = 3600.0
    attempts: int = 3
    backoff: float = 0.5
    backoff_max: float = 30.0
    max_body: int = 256 * 2**20


class StreamedResponse:
    """A response whose body is still on its way: iterate over it once, inside `Transport.stream`.

    Attributes:
        status: HTTP status code.
        reason: HTTP reason phrase.
        headers: header fields, names in lower case.
    """

    __slots__ = ("_chunks", "headers", "reason", "status")

    def __init__(
        self, status: int, reason: str, headers: Mapping[str, str], chunks: _Chunks
    ) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        self._chunks = chunks

    def __repr__(self) -> str:
        return f"<StreamedResponse {self.status}>"

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The body, piece by piece, as the connection delivers it.

        Raises:
            TransportError: the connection broke, or was silent for too long.
            ProtocolError: what arrives is not HTTP.
        """
        return self._chunks

    @property
    def pours(self) -> bool:
        """Whether there is more, and `pour` can take it: a long body, after its first piece."""
        return self._chunks.pours

    async def pour(
        self, into: Callable[[memoryview], object], most: int, threads: trio.CapacityLimiter
    ) -> int:
        """Let a thread receive and decrypt what there is of the body, and pass it on.

        The event loop is free meanwhile, and no byte goes from one thread to another.

        Args:
            into: called in the thread, maybe many times, with bytes that are valid for the call.
                What it raises, which is not to be an OSError, is raised.
            most: bytes, at most.
            threads: how many are taken at one time.

        Returns:
            How many bytes that were.

        Raises:
            TransportError: as in iteration; what came before was passed on.
        """
        return await self._chunks.pour(into, most, threads)


class Transport:
    """HTTP to one CE, for any number of identities. Construction does no I/O.

    An async context manager; `aclose` may be called at any time, and again.

    Raises:
        ConfigurationError: the endpoint is not an https address.
    """

    def __init__(self, settings: TransportSettings) -> None:
        origin = urlsplit(settings.endpoint)
        if origin.scheme != "https" or not origin.hostname:
            raise ConfigurationError(f"endpoint: {settings.endpoint!r} is not https://host:port")
        self._settings = settings
        self._url = httpx.URL(settings.endpoint)
        self._host = origin.netloc.encode("ascii")
        self._limits = Limits(
            endpoint=settings.endpoint,
            ca_file=settings.ca_file,
            ca_dir=settings.ca_dir,
            connect=settings.connect_timeout,
            read=settings.read_timeout,
            write=settings.write_timeout,
            total=settings.total_timeout,
        )
        self._timeouts = {
            "connect": settings.connect_timeout,
            "read": settings.read_timeout,
            "write": settings.write_timeout,
            "pool": settings.pool_timeout,
        }
        self._slots = trio.Semaphore(settings.connections, max_value=settings.connections)
        self._network = Network(settings.connections, self._spare)
        # By `_Secret.key`; last used, last.
        self._leases: OrderedDict[tuple[bytes | None, ...], _Lease] = OrderedDict()
        self._tls: ssl.SSLContext | None = None
        self._tls_lock = trio.Lock()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def send(
        self,
        request: Request,
        *,
        authorization: str | None = None,
        certificate: bytes | None = None,
        content: Callable[[], AsyncIterable[bytes]] | None = None,
        content_length: int | None = None,
    ) -> Response:
        """Send a request and read its whole answer, whatever its status.

        Tries again, up to ``attempts`` times, what failed on the way or was answered 429, 502, 503
        or 504, if the request is idempotent; any request, if it certainly was not sent.

        Args:
            request: what to send.
            authorization: the value of the Authorization header, or None.
            certificate: PEM: what to show in the TLS handshake, with its key and chain, or None.
                The two together are one identity; neither: no identity.
            content: starts the body, instead of ``request.body``; called once per attempt. What it
                raises is raised here as it is.
            content_length: bytes that ``content`` yields; None: unknown, sent in chunks.

        Raises:
            TransportError: the CE could not be reached, or the answer did not arrive.
            ProtocolError: the answer is not HTTP, or longer than ``max_body``.
            ConfigurationError: the trust anchors cannot be read; the request or the authorization
                cannot be written as HTTP; ``content`` yields another length than announced.
            AuthenticationError: the certificate cannot be used.
        """
        call = _Call(request, _Secret(authorization, certificate), content, content_length)
        # A traceback that shows local variables must not show these.
        del request, authorization, certificate
        return await self._repeat(call, self._receive)

    def stream(
        self,
        request: Request,
        *,
        authorization: str | None = None,
        certificate: bytes | None = None,
        read_timeout: float | None = None,
    ) -> AbstractAsyncContextManager[StreamedResponse]:
        """Send a request and stream its answer; tried again as `send` does until its head is here.

        Leaving the context before the end of the body closes the connection. The body's time is
        bounded between two pieces only (``read_timeout``): bound the whole in the caller.

        Args:
            request: what to send.
            authorization: the value of the Authorization header, or None.
            certificate: as in `send`.
            read_timeout: seconds between two pieces of the answer, instead of the settings'.

        Raises:
            TransportError, ProtocolError, ConfigurationError, AuthenticationError: as `send`, also
                while iterating.
        """
        secret = _Secret(authorization, certificate)
        return self._stream(_Call(request, secret, read_timeout=read_timeout))

    async def discard(self, authorization: str | None, certificate: bytes | None = None) -> None:
        """Close every connection of an identity: at once if idle, else after its request.

        The next request of that identity goes out on a new connection.
        """
        key = _Secret(authorization, certificate).key
        del authorization, certificate
        if (lease := self._leases.pop(key, None)) is not None:
            await self._retire(lease)

    async def aclose(self) -> None:
        """Close every connection, also those in use: what waits on them fails."""
        self._closed = True
        self._leases.clear()
        with trio.CancelScope(shield=True):  # closing waits for nothing
            await self._network.aclose()

    # One request, in attempts

    async def _receive(self, exchange: _Exchange) -> Response:
        try:
            answer = await exchange.open()
            body = await exchange.guard(self._collect(exchange, answer))
        finally:
            await exchange.aclose()
        elapsed = trio.current_time() - exchange.leased_at
        return Response(answer.status, answer.reason, answer.headers, body, elapsed)

    async def _collect(self, exchange: _Exchange, answer: StreamedResponse) -> bytes:
        limit = self._settings.max_body
        announced = answer.headers.get("content-length", "")
        chunks: list[bytes] = []
        if not (announced.isdigit() and int(announced[:20]) > limit):
            async for chunk in answer:
                chunks.append(chunk)
                if exchange.received > limit:
                    break
            else:
                return b"".join(chunks)
        raise exchange.refuse(
            f"the answer is longer than {limit} bytes: ask for less at a time, or raise the limit",
            b"".join(chunks[:1]),
        )

    @asynccontextmanager
    async def _stream(self, call: _Call) -> AsyncGenerator[StreamedResponse]:
        async def once(exchange: _Exchange) -> tuple[_Exchange, StreamedResponse]:
            return exchange, await exchange.open()

        exchange, answer = await self._repeat(call, once)
        try:
            yield answer
        finally:
            await exchange.aclose()

    async def _repeat(self, call: _Call, once: Callable[[_Exchange], Awaitable[_R]]) -> _R:
        maybe_done = False
        for number in itertools.count(1):
            exchange = _Exchange(self, call, number)
            last = number >= self._settings.attempts
            try:
                result = await once(exchange)
            except TransportError as error:
                maybe_done = error.maybe_done = error.maybe_done or maybe_done
                harmless = call.request.idempotent or not error.maybe_done
                if last or self._closed or not (exchange.again and harmless):
                    if number > 1:
                        error.add_note(f"tried {number} times")
                    raise
            else:
                if last or exchange.status not in _TRY_LATER or not call.request.idempotent:
                    return result
                exchange.complete = True
                await exchange.aclose()
            await trio.sleep(self._pause(exchange))
        raise AssertionError  # count() does not end

    def _pause(self, exchange: _Exchange) -> float:
        settings = self._settings
        longest = min(settings.backoff * 2.0 ** min(exchange.number - 1, 30), settings.backoff_max)
        jittered = longest * random.uniform(0.5, 1)  # noqa: S311 - no secret
        return min(max(jittered, _retry_after(exchange.headers)), settings.backoff_max)

    def _render(self, call: _Call, body: httpx.AsyncByteStream) -> httpx.Request:
        request = call.request
        fields = [(b"host", self._host), (b"user-agent", b"arcbackend"), *call.secret.fields()]
        for name, value in request.headers.items():
            fields.append((name.encode("ascii"), value.encode("latin-1")))
        if call.content is None:
            length = len(request.body or b"")
            if length or request.method in _WITH_BODY:
                fields.append((b"content-length", b"%d" % length))
        elif call.content_length is None:
            fields.append((b"transfer-encoding", b"chunked"))
        else:
            fields.append((b"content-length", b"%d" % call.content_length))
        # The target goes out as it stands: httpx would normalise its percent escapes.
        timeouts = self._timeouts
        if call.read_timeout is not None:
            timeouts = {**timeouts, "read": call.read_timeout}
        extensions = {"timeout": timeouts, "target": request.target.encode("ascii")}
        return httpx.Request(
            request.method, self._url, headers=fields, stream=body, extensions=extensions
        )

    # Connections

    async def _lease(self, secret: _Secret) -> _Lease:
        """The connections of an identity, in use until `_leave`."""
        while (
            lease := self._leases.get(secret.key)
        ) is None:  # (it may have been pushed out again)
            await self._admit(secret)
        lease.in_use += 1
        self._leases.move_to_end(secret.key)
        if len(self._leases) > _IDENTITIES:
            _, oldest = self._leases.popitem(last=False)
            await self._retire(oldest)
        return lease

    async def _admit(self, secret: _Secret) -> None:
        """Make the pool of an identity that has none."""
        async with self._tls_lock:
            if secret.key not in self._leases:
                if (connect := _in_process.get(self._settings.endpoint)) is not None:
                    self._leases[secret.key] = _Lease(connect(secret.certificate))
                    return
                pool = Pool(await self._context(secret), self._network, _KEEPALIVE)
                self._leases[secret.key] = _Lease(_PoolTransport(pool), pool)

    async def _leave(self, lease: _Lease) -> None:
        lease.in_use -= 1
        if lease.retired:
            await lease.close_idle()

    async def _retire(self, lease: _Lease) -> None:
        lease.retired = True
        with trio.CancelScope(shield=True):  # closing waits for nothing
            await lease.close_idle()

    def _spare(self) -> httpcore2.AsyncConnectionInterface | None:
        """An idle connection, of the identity that was used least recently."""
        pools = (lease.pool for lease in self._leases.values() if lease.pool is not None)
        connections = (connection for pool in pools for connection in pool.connections)
        return next((c for c in connections if c.is_idle()), None)

    async def _context(self, secret: _Secret) -> ssl.SSLContext:
        """The TLS context of an identity: building one reads files and takes tens of milliseconds.

        All identities without a certificate share one.
        """
        if secret.certificate is None and self._tls is not None:
            return self._tls
        context = await trio.to_thread.run_sync(
            client_context,
            self._settings.ca_file,
            self._settings.ca_dir,
            secret.certificate,
            abandon_on_cancel=True,
        )
        if secret.certificate is None:
            self._tls = context
        return context


class _Secret:
    """An identity: an Authorization header, a certificate. No representation of it shows either."""

    __slots__ = ("_value", "certificate", "key", "legal")

    def __init__(self, value: str | None, certificate: bytes | None = None) -> None:
        encoded = None if value is None else value.encode("utf-8", "surrogatepass")
        self._value = encoded
        self.certificate = certificate
        self.key = tuple(
            None if part is None else hashlib.sha256(part).digest()
            for part in (encoded, certificate)
        )
        self.legal = encoded is None or _CREDENTIALS.fullmatch(encoded) is not None

    def __repr__(self) -> str:
        return "<secret>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("credentials are not pickled")

    def fields(self) -> list[tuple[bytes, bytes]]:
        """The header fields that tell who we are."""
        return [] if self._value is None else [(b"authorization", self._value)]

    def redact(self, text: str) -> str:
        """Take the value, and the token in it, out of a text."""
        if self._value is not None:
            value = self._value.decode("utf-8", "replace")
            for part in (value, value.rpartition(" ")[2]):
                text = text.replace(part, "…")
        return text


@dataclass(frozen=True, slots=True, repr=False)
class _Call:
    """One call of `send` or `stream`: what every attempt at it has in common."""

    request: Request
    secret: _Secret
    content: Callable[[], AsyncIterable[bytes]] | None = None
    content_length: int | None = None
    read_timeout: float | None = None

    def fault(self) -> str | None:
        """What cannot be written as HTTP, without quoting it: it may be a secret."""
        request = self.request
        if not self.secret.legal:
            return "the credentials hold characters that no header may hold: is the token intact?"
        if not _METHOD.fullmatch(request.method) or not _TARGET.fullmatch(request.target):
            return "the method or the target holds characters that no request line may hold"
        for name, value in request.headers.items():
            if not _FIELD_NAME.fullmatch(name) or not _FIELD_VALUE.fullmatch(value):
                return "a header field holds characters that no header may hold"
        return None

    def redact(self, text: str) -> str:
        """Take every secret that is sent out of a text."""
        return self.request.redact(self.secret.redact(text))


@dataclass(slots=True)
class _Lease:
    """One identity's connections.

    Attributes:
        transport: what sends requests on them.
        pool: where they are; None: in this process, without a network.
        in_use: exchanges that have the lease.
        retired: whether it is to end as soon as none has it.
    """

    transport: httpx.AsyncBaseTransport
    pool: Pool | None = None
    in_use: int = 0
    retired: bool = False

    async def close_idle(self) -> None:
        """Close the connections that carry no request now."""
        await (self.transport.aclose() if self.pool is None else self.pool.close_idle())


class _PoolTransport(httpx.AsyncBaseTransport):
    """httpx's transport interface over httpcore2's pool, without httpx's client above it.

    A CE needs none of the client's redirects, cookies, authentication flows and proxies from the
    environment, and none of its log lines with whole URLs; and a tenth of the CPU is saved.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        response = await self._pool.handle_async_request(
            httpcore2.Request(
                request.method,
                httpcore2.URL(
                    scheme=url.raw_scheme,
                    host=url.raw_host,
                    port=url.port,
                    target=request.extensions["target"],
                ),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_Incoming(response, request.extensions["timeout"]["read"]),
            extensions=response.extensions,
        )


class _Incoming(Body, httpx.AsyncByteStream):
    """The body of an answer, as httpx has it."""


class _Outgoing(httpx.AsyncByteStream):
    """The body of a request, counted."""

    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        exchange, call = self._exchange, self._exchange.call
        if call.content is None:
            if call.request.body:
                exchange.sent = len(call.request.body)
                yield call.request.body
            return
        source = call.content().__aiter__()
        try:
            async for chunk in source:
                exchange.sent += len(chunk)
                self._check(exchange.sent, short=False)
                yield chunk
            self._check(exchange.sent, short=True)
        except GeneratorExit:
            raise
        except BaseException as exc:
            exchange.content_error = exc
            raise
        finally:
            if (aclose := getattr(source, "aclose", None)) is not None:
                await aclose()

    def _check(self, sent: int, *, short: bool) -> None:
        length = self._exchange.call.content_length
        if length is not None and (sent > length or (short and sent < length)):
            raise ConfigurationError(
                f"the body is not of the {length} bytes announced: did a file change meanwhile?",
                **self._exchange.context,
            )


class _Exchange:
    """One attempt: a slot, a connection, a request and its answer, until `aclose`."""

    def __init__(self, transport: Transport, call: _Call, number: int) -> None:
        self.call = call
        self.number = number
        self.again = True  # whether another attempt can help
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}
        self.sent = 0
        self.received = 0
        self.complete = False  # whether all of the answer that is wanted has arrived
        self.leased_at = math.inf
        self.deadline = math.inf
        self.content_error: BaseException | None = None
        self._transport = transport
        self._started = trio.current_time()
        self._failure: str | None = None
        self._response: httpx.AsyncByteStream | None = None
        self._lease: _Lease | None = None
        self._has_slot = False
        self._closed = False

    @property
    def context(self) -> dict[str, Any]:
        """Where it happened, for exceptions."""
        return {
            "ce": self._transport._settings.endpoint,
            "operation": str(self.call.request.operation),
        }

    async def open(self) -> StreamedResponse:
        """Send the request and wait for the head of its answer; if that fails, close."""
        try:
            if (fault := self.call.fault()) is not None:
                raise ConfigurationError(fault, **self.context)
            transport = (await self._acquire()).transport
            self.leased_at = trio.current_time()
            self.deadline = self.leased_at + self._transport._settings.total_timeout
            request = self._transport._render(self.call, _Outgoing(self))
            response = await self.guard(transport.handle_async_request(request))
            return self._begin(response)
        except BaseException as exc:
            self._failure = exc.message if isinstance(exc, InterCEdeError) else None
            await self.aclose()
            raise

    async def guard(self, step: Awaitable[_R]) -> _R:
        """Take a step within the deadline, and translate what the network raises."""
        try:
            with trio.fail_at(self.deadline):
                return await step
        except FOREIGN as exc:
            if exc is self.content_error:
                raise
            error, cause = self.translate(exc)
        raise error from cause  # out of the handler: nothing is chained that `translate` left out

    def translate(self, exc: BaseException) -> tuple[InterCEdeError, BaseException | None]:
        """What to raise for an exception of the network's, and what to chain to it."""
        operation = str(self.call.request.operation)
        limits = self._transport._limits
        if self.call.read_timeout is not None:
            limits = replace(limits, read=self.call.read_timeout)
        certified = self.call.secret.certificate is not None
        failure = explain(exc, limits, operation, self.call.redact, certified=certified)
        self.again = failure.again
        self._failure = failure.error.message
        return failure.error, failure.cause

    async def aclose(self) -> None:
        """Give the connection and the slot back; close the connection if an answer is unread."""
        if self._closed:
            return
        self._closed = True
        with trio.CancelScope(shield=True):  # closing waits for nothing
            if self._response is not None:
                await self._response.aclose()
            if self._lease is not None:
                await self._transport._leave(self._lease)
        if self._has_slot:
            self._transport._slots.release()
        self._log()

    async def _acquire(self) -> _Lease:
        transport, settings = self._transport, self._transport._settings
        try:
            transport._slots.acquire_nowait()  # only if nobody waits: first come, first served
            self._has_slot = True
        except trio.WouldBlock:
            with trio.move_on_after(settings.pool_timeout):
                await transport._slots.acquire()
                self._has_slot = True
        if not self._has_slot:
            raise self._unsent(
                f"pool timeout: none of the {settings.connections} connections became free within "
                f"{settings.pool_timeout:g} s. Raise it, or the number of connections"
            )
        if transport._closed:
            raise self._unsent("this backend is closed")
        if self.call.secret.key not in transport._leases:
            await self._admit()
        self._lease = await transport._lease(self.call.secret)
        return self._lease

    async def _admit(self) -> None:
        transport, settings = self._transport, self._transport._settings
        with trio.move_on_after(settings.connect_timeout) as scope:
            try:
                await transport._admit(self.call.secret)
            except (AuthenticationError, ConfigurationError) as error:
                error.ce = settings.endpoint
                raise
        if scope.cancelled_caught:
            raise self._unsent(
                "connect timeout: the certification authorities were not read within "
                f"{settings.connect_timeout:g} s ({transport._limits.trust})"
            )

    def refuse(self, message: str, excerpt: bytes) -> ProtocolError:
        """An answer that is HTTP, but not to be taken."""
        self._failure = message
        return ProtocolError(message, excerpt=excerpt, **self.context)

    def _unsent(self, message: str) -> TransportError:
        self.again = False
        return TransportError(message, maybe_done=False, **self.context)

    def _begin(self, response: httpx.Response) -> StreamedResponse:
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self._response = response.stream
        self.status = response.status_code
        self.headers = _joined(response.headers.raw)
        reason = response.extensions["reason_phrase"].decode("latin-1")
        return StreamedResponse(self.status, reason, self.headers, _Chunks(self, response.stream))

    def _log(self) -> None:
        request = self.call.request
        failure = self._failure or (None if self.complete else "interrupted")
        (_log.debug if failure is None else _log.warning)(
            "arc.request",
            operation=str(request.operation),
            ce=self._transport._settings.endpoint,
            method=request.method,
            ids=request.ids,
            attempt=self.number,
            status=self.status,
            bytes_sent=self.sent,
            bytes_received=self.received,
            duration=round(trio.current_time() - self._started, 6),
            error=failure,
        )


class _Chunks(AsyncIterator[bytes]):
    """The pieces of an answer's body: counted, with the network's exceptions translated."""

    def __init__(self, exchange: _Exchange, incoming: httpx.AsyncByteStream) -> None:
        self._exchange = exchange
        self._next = incoming.__aiter__().__anext__
        self._body = incoming if isinstance(incoming, Body) else None

    async def __anext__(self) -> bytes:
        try:
            chunk = await self._next()
        except StopAsyncIteration:
            self._exchange.complete = True
            raise
        except FOREIGN as exc:
            error, cause = self._exchange.translate(exc)
        else:
            self._exchange.received += len(chunk)
            return chunk
        raise error from cause

    @property
    def pours(self) -> bool:
        return self._body is not None and self._body.pours

    async def pour(
        self, into: Callable[[memoryview], object], most: int, threads: trio.CapacityLimiter
    ) -> int:
        def counted(data: memoryview) -> None:
            self._exchange.received += len(data)
            into(data)

        assert self._body is not None
        try:
            count = await self._body.pour(counted, most, threads)
        except FOREIGN as exc:
            error, cause = self._exchange.translate(exc)
        else:
            self._exchange.complete = not self._body.pours
            return count
        raise error from cause


def _joined(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in raw:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the answer asks us to wait; 0 without a legible ``Retry-After``."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:10])
    until, now = _http_date(value), _http_date(headers.get("date", "")) or datetime.now(UTC)
    return 0.0 if until is None else (until - now).total_seconds()


def _http_date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
