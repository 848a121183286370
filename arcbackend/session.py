"""One CE as one identity sees it: requests with credentials, failures as exceptions."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from http import HTTPStatus

import structlog
import trio

from arcbackend.config import ARCConfig
from arcbackend.credentials import (
    B64TOKEN,
    CredentialKind,
    CredentialProvider,
    CredentialSet,
)
from arcbackend.errors import (
    AuthenticationError,
    InterCEdeError,
    ProtocolError,
)
from arcbackend.protocol import requests, responses
from arcbackend.protocol.messages import Operation, Request, Response
from arcbackend.transport import StreamedResponse, Transport, TransportSettings
from arcbackend.wallet import Wallet

__all__ = ["Session"]

_log = structlog.get_logger("arcbackend")

_KINDS = {
    "token": frozenset({CredentialKind.TOKEN}),
    "proxy": frozenset({CredentialKind.PROXY}),
    "token+proxy": frozenset({CredentialKind.TOKEN, CredentialKind.PROXY}),
}
_VERSIONS: tuple[requests.RestVersion, ...] = ("1.1", "1.0")
_ERROR_BODY = 4096


class Session:
    """Sends requests to one CE with fresh credentials; every failure is an `InterCEdeError`."""

    def __init__(self, config: ARCConfig, provider: CredentialProvider) -> None:
        self.endpoint = config.endpoint
        self._fixed_version = config.rest_version
        self._by_certificate = config.auth == "proxy"
        self._wallet = Wallet(
            provider,
            config.endpoint,
            _KINDS[config.auth],
            timedelta(seconds=config.freshness_margin),
            resource=config.resource,
        )
        self._transport = Transport(_settings(config))
        self._builder: requests.RequestBuilder | None = None
        self._negotiating = trio.Lock()

    @property
    def wallet(self) -> Wallet:
        """The credentials in use."""
        return self._wallet

    async def aclose(self) -> None:
        """Close every connection. Idempotent."""
        await self._transport.aclose()

    async def builder(self) -> requests.RequestBuilder:
        """The builder of requests for the REST version agreed with the CE, asked once."""
        if self._builder is None:
            async with self._negotiating:
                if self._builder is None:
                    self._builder = requests.RequestBuilder(await self._version())
        return self._builder

    async def call(
        self,
        request: Request,
        *,
        content: Callable[[], AsyncIterable[bytes]] | None = None,
        content_length: int | None = None,
    ) -> Response:
        """Send a request; if the CE does not know us, once more with other credentials.

        Raises:
            AuthenticationError, TransportError, ProtocolError, SubmissionRefused: the whole
                operation failed.
        """
        refused: CredentialSet | None = None
        while True:
            # The secret itself is in no local variable: tracebacks may show those.
            held = await self._credentials(request, refused)
            error: InterCEdeError | None
            try:
                response = await self._transport.send(
                    request,
                    authorization=self._authorization(held),
                    certificate=self._certificate(held),
                    content=content,
                    content_length=content_length,
                )
            except AuthenticationError as refusal:  # of a certificate, in the TLS handshake
                error = refusal
            else:
                error = responses.failure(request, response, self.endpoint)
                if error is None:
                    return response
            refused = await self._give_up(request, held, refused, error)

    @asynccontextmanager
    async def stream(
        self, request: Request, *, read_timeout: float
    ) -> AsyncGenerator[StreamedResponse]:
        """Send a request and stream its answer, with the same care as `call`.

        Args:
            request: what to send.
            read_timeout: seconds between two pieces of the answer. Its whole time is the caller's
                to bound.

        Raises:
            AuthenticationError, TransportError, ProtocolError: as `call`; the latter two also while
                the answer is read.
        """
        refused: CredentialSet | None = None
        while True:
            held = await self._credentials(request, refused)
            async with AsyncExitStack() as stack:
                error: InterCEdeError | None
                try:
                    answer = await stack.enter_async_context(
                        self._transport.stream(
                            request,
                            authorization=self._authorization(held),
                            certificate=self._certificate(held),
                            read_timeout=read_timeout,
                        )
                    )
                except AuthenticationError as refusal:  # of a certificate, in the TLS handshake
                    error = refusal
                else:
                    error = await self._failure(request, answer)
                    if error is None:
                        yield answer
                        return
            refused = await self._give_up(request, held, refused, error)

    async def _failure(self, request: Request, answer: StreamedResponse) -> InterCEdeError | None:
        """What the answer means for the whole operation, if it is not to be streamed."""
        if answer.status < HTTPStatus.MULTIPLE_CHOICES:
            return None
        body = await _beginning(answer)
        response = Response(answer.status, answer.reason, answer.headers, body)
        return responses.failure(request, response, self.endpoint)

    async def _credentials(
        self, request: Request, refused: CredentialSet | None
    ) -> CredentialSet | None:
        if request.scope is None:
            return None
        return await self._wallet.get(frozenset({request.scope.value}), refused=refused)

    async def _give_up(
        self,
        request: Request,
        held: CredentialSet | None,
        refused: CredentialSet | None,
        error: InterCEdeError,
    ) -> CredentialSet:
        """Return credentials that the CE refused; raise the error if no others would help."""
        if not isinstance(error, AuthenticationError) or error.missing_scope:
            raise error
        # The CE ties an identity, or the lack of one, to the connection: none may be reused.
        await self._transport.discard(self._authorization(held), self._certificate(held))
        if held is None or refused is not None:
            raise error
        if await self._credentials(request, held) is held:
            raise error  # the provider has nothing else to offer
        _log.info("credentials.replaced", ce=self.endpoint, operation=request.operation.value)
        return held

    async def _version(self) -> requests.RestVersion:
        if self._fixed_version is not None:
            return self._fixed_version
        offered = responses.parse_versions(await self.call(requests.versions()), self.endpoint)
        for version in _VERSIONS:
            if version in offered:
                return version
        raise ProtocolError(
            f"the CE speaks ARC REST {responses.clean_text(', '.join(offered))}; known here: "
            f"{', '.join(_VERSIONS)}",
            ce=self.endpoint,
            operation=Operation.VERSIONS.value,
        )

    def _certificate(self, credentials: CredentialSet | None) -> bytes | None:
        """What to show in the TLS handshake.

        Nothing beside a token: a certificate outranks it, so that the jobs of one person's token
        would be hidden from it (docs/explanation/arc-rest.md).
        """
        if credentials is None or not self._by_certificate:
            return None
        proxy = credentials.get(CredentialKind.PROXY)
        assert proxy is not None  # (the wallet has checked the kinds)
        return proxy.pem.get_secret_value()

    def _authorization(self, credentials: CredentialSet | None) -> str | None:
        if credentials is None or self._by_certificate:
            return None
        token = credentials.get(CredentialKind.TOKEN)
        assert token is not None  # (the wallet has checked the kinds)
        if B64TOKEN.fullmatch(token.value.get_secret_value().strip()) is None:
            raise AuthenticationError(
                "the bearer token holds characters that no token has (RFC 6750), or is empty",
                ce=self.endpoint,
            )
        return f"Bearer {token.value.get_secret_value().strip()}"


async def _beginning(answer: StreamedResponse) -> bytes:
    """The first bytes of an error's body, or all if it is short: enough to tell what it means."""
    body = bytearray()
    async for chunk in answer:
        body += chunk
        if len(body) >= _ERROR_BODY:
            break
    return bytes(body)


def _settings(config: ARCConfig) -> TransportSettings:
    return TransportSettings(
        endpoint=config.endpoint,
        ca_file=config.ca_file,
        ca_dir=config.ca_dir,
        connections=config.concurrency,
        connect_timeout=config.timeouts.connect,
        read_timeout=config.timeouts.read,
        write_timeout=config.timeouts.write,
        pool_timeout=config.timeouts.pool,
        attempts=config.retries.attempts,
        backoff=config.retries.backoff,
        backoff_max=config.retries.backoff_max,
        total_timeout=config.timeouts.total,
        max_body=config.limits.max_answer_bytes,
    )
