"""Delegations: exchanges of several requests, as generators, and what their responses say.

A generator yields a request and receives its response, or has thrown into it what `Session.call`
raised; its return value is the outcome. `converse` runs one. Signing is a function of the caller's,
so that nothing here knows X.509 (`arcbackend.x509.sign_request`).

What A-REX does beyond its specification: docs/explanation/arc-rest.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeAlias, TypeVar

from arcbackend.errors import InterCEdeError, ProtocolError
from arcbackend.protocol.messages import Operation, Request, Response
from arcbackend.protocol.names import is_local_id
from arcbackend.protocol.requests import RequestBuilder
from arcbackend.protocol.responses import Reading, clean_text

__all__ = [
    "Delegating",
    "Listed",
    "Steps",
    "converse",
    "delegate_token",
    "parse_deleted",
    "parse_list",
    "parse_stored",
    "stored_chains",
]

_T = TypeVar("_T")
Steps: TypeAlias = Generator[Request, Response, _T]


@dataclass(frozen=True, slots=True)
class Listed:
    """One delegation in a list.

    Attributes:
        id: the CE's id of it, fit for URL paths.
        type: ``x509`` or ``jwt``, in the CE's words.
    """

    id: str
    type: str = "x509"


class Delegating:
    """A proxy being delegated: made on the CE once, and renewed whenever `steps` runs again.

    Also after a failure in the middle: what the CE has made is gone on with, so that a CE which
    fails for a while does not collect delegations.

    Args:
        builder: builds requests for the CE's REST version.
        sign: certificate request (PEM) → chain (PEM), new certificate first. What it raises fails
            the exchange.
        ce: the CE's endpoint, for exceptions.
        delegation: id of one that exists, to renew it. It must hold a proxy: A-REX destroys a token
            by this. One that A-REX has lost meanwhile is made anew under this id.
    """

    def __init__(
        self,
        builder: RequestBuilder,
        sign: Callable[[bytes], bytes],
        ce: str,
        delegation: str | None = None,
    ) -> None:
        self._builder = builder
        self._sign = sign
        self._ce = ce
        self._id = delegation

    @property
    def id(self) -> str | None:
        """The CE's id of it; None before the CE has told it. What has one may be unfinished."""
        return self._id

    def steps(self) -> Steps[str]:
        """Take the CE's certificate request, sign it, and store the chain; returns the id.

        Raises:
            ProtocolError: an answer is not what ARC REST promises.
        """
        if self._id is None:
            request = self._builder.new_delegation()
            response = yield request
            self._id = _location(request, response, self._ce)
        else:
            request = self._builder.renew_delegation(self._id)
            response = yield request
        try:
            chain = self._sign(response.body)
        except InterCEdeError as error:
            error.ce = error.ce or self._ce
            error.operation = error.operation or request.operation.value
            raise
        yield self._builder.put_delegation(self._id, chain)
        return self._id


def delegate_token(builder: RequestBuilder, token: str, ce: str) -> Steps[str]:
    """Leave a token with the CE; returns the id. It cannot be renewed: make another (1.1)."""
    request = builder.new_token_delegation(token)
    del token  # a traceback that shows local variables must not show it
    response = yield request
    return _location(request, response, ce)


def stored_chains(builder: RequestBuilder, ce: str, *, most: int = 100) -> Steps[dict[str, bytes]]:
    """Read the chains that the CE holds of this identity: id → PEM, first certificate first.

    Left out are delegations that no chain was stored for, tokens, and any that the CE does not
    show: it lists some that it cannot find.

    Args:
        builder: builds requests for the CE's REST version.
        ce: the CE's endpoint, for exceptions.
        most: so many are looked at, one request each, the newest first: A-REX lists them by age,
            and clients that make one for each submission leave thousands.
    """
    chains: dict[str, bytes] = {}
    listing = parse_list((yield builder.list_delegations()), ce)
    proxies = [listed for listed in listing if listed.type == "x509"]
    for listed in proxies[: -most - 1 : -1]:
        try:
            response = yield builder.get_delegation(listed.id)
        except ProtocolError:
            continue
        if (chain := parse_stored(response)) is not None:
            chains[listed.id] = chain
    return chains


async def converse(steps: Steps[_T], call: Callable[[Request], Awaitable[Response]]) -> _T:
    """Run an exchange to its end, each request by ``call``; returns its outcome."""
    try:
        request = next(steps)
        while True:
            try:
                response = await call(request)
            except InterCEdeError as error:
                request = steps.throw(error)
            else:
                request = steps.send(response)
    except StopIteration as end:
        outcome: _T = end.value
        return outcome
    finally:
        steps.close()


def parse_list(response: Response, ce: str) -> tuple[Listed, ...]:
    """The identity's delegations. Entries that make no sense are left out: they are of no use.

    Raises:
        ProtocolError: it is no list at all.
    """
    found: dict[str, Listed] = {}
    for item in Reading(Operation.DELEGATIONS_LIST, response, ce).items("delegation"):
        delegation = item.get("id") if isinstance(item, dict) else None
        if isinstance(delegation, str) and is_local_id(delegation):
            kind = item.get("type")
            known = clean_text(kind, 20) if isinstance(kind, str) and kind else "x509"
            found.setdefault(delegation, Listed(delegation, known))
    return tuple(found.values())


def parse_stored(response: Response) -> bytes | None:
    """What a delegation holds; None if there is no such one (404), or nothing was stored yet.

    No complaint about it quotes it: of a token it is the token.
    """
    stored = response.body.strip()
    return stored if stored and response.status != HTTPStatus.NOT_FOUND else None


def parse_deleted(response: Response) -> bool:
    """Tell whether there is no such delegation any more; False while a job on the CE needs it."""
    return response.status < HTTPStatus.MULTIPLE_CHOICES or response.status == HTTPStatus.NOT_FOUND


def _location(request: Request, response: Response, ce: str) -> str:
    """The id of a new delegation: the last part of ``Location``, which A-REX gives as a path."""
    delegation = response.headers.get("location", "").rpartition("/")[2]
    if is_local_id(delegation):
        return delegation
    raise ProtocolError(
        "the CE made a delegation without telling a usable id",
        ce=ce,
        operation=request.operation.value,
    )
