"""Delegation without a CE: the exchanges, step by step, and what the answers are taken for."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from arcbackend.errors import (
    AuthenticationError,
    ConfigurationError,
    InterCEdeError,
    ProtocolError,
    TransportError,
)
from arcbackend.protocol.delegation import (
    Delegating,
    Listed,
    Steps,
    converse,
    delegate_token,
    parse_deleted,
    parse_list,
    parse_stored,
    stored_chains,
)
from arcbackend.protocol.messages import Operation, Request, Response, Scope
from arcbackend.protocol.names import is_local_id
from arcbackend.protocol.requests import RequestBuilder
from arcbackend.protocol.responses import failure
from tests.pure.replies import BUILDER, CE, reply

BOTH = pytest.mark.parametrize("builder", [RequestBuilder("1.0"), RequestBuilder("1.1")], ids=str)
GONE = Response(404, "No delegation found")
# As A-REX 7.0.0 and 7.2.0 answered.
STORED = Response(201, "Created", {"location": "/arex/rest/1.1/delegations/d93bf9b09869"}, b"CSR")
RENEWED = Response(201, "Created", body=b"CSR 2")
PUT = Response(200, "OK")


def _sign(request: bytes) -> bytes:
    return b"signed " + request


def _lines(*requests: Request) -> list[str]:
    return [f"{request.method} {request.target}" for request in requests]


def _outcome(steps: Steps[Any], response: Response) -> Any:
    with pytest.raises(StopIteration) as end:
        steps.send(response)
    return end.value.value


# Requests


@BOTH
def test_requests_name_their_delegation_operation_and_scope(builder: RequestBuilder) -> None:
    base = f"/arex/rest/{builder.version}/delegations"
    assert [
        (f"{request.method} {request.target}", request.operation, request.scope, request.idempotent)
        for request in (
            builder.list_delegations(),
            builder.new_delegation(),
            builder.put_delegation("a1", b"chain"),
            builder.get_delegation("a1"),
            builder.renew_delegation("a1"),
            builder.delete_delegation("a1"),
        )
    ] == [
        (f"GET {base}", Operation.DELEGATIONS_LIST, Scope.READ, True),
        (f"POST {base}?action=new", Operation.DELEGATIONS_NEW, Scope.CREATE, False),
        (f"PUT {base}/a1", Operation.DELEGATIONS_PUT, Scope.CREATE, True),
        (f"POST {base}/a1?action=get", Operation.DELEGATIONS_GET, Scope.READ, True),
        (f"POST {base}/a1?action=renew", Operation.DELEGATIONS_RENEW, Scope.CREATE, True),
        (f"POST {base}/a1?action=delete", Operation.DELEGATIONS_DELETE, Scope.CANCEL, True),
    ]


def test_a_chain_is_sent_as_pem() -> None:
    request = BUILDER.put_delegation("a1", b"chain")
    assert (request.body, dict(request.headers)) == (
        b"chain",
        {"Content-Type": "application/x-pem-file"},
    )


def test_a_token_is_a_header_that_no_representation_shows() -> None:
    request = BUILDER.new_token_delegation("s3cr3t.s3cr3t.s3cr3t")
    assert _lines(request) == ["POST /arex/rest/1.1/delegations?action=new&type=jwt"]
    assert request.headers["X-Token-Delegation"] == "s3cr3t.s3cr3t.s3cr3t"
    assert (request.scope, request.idempotent) == (Scope.CREATE, False)
    assert "s3cr3t" not in repr(request)


def test_tokens_need_rest_1_1() -> None:
    with pytest.raises(ValueError, match=r"1\.1"):
        RequestBuilder("1.0").new_token_delegation("t")


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_a_token_that_the_ce_quotes_is_in_no_exception(status: int) -> None:
    token = "s3cr3t." * 400
    request = BUILDER.new_token_delegation(token)
    quoted = f"bad token {token}"
    error = failure(request, Response(status, quoted, body=b"\xff" + quoted.encode() * 9), CE)
    assert error is not None
    assert "s3cr3t" not in f"{error} {error!r} {vars(error)!r}"
    assert "bad token …" in str(error)


# Exchanges


def test_a_new_one_step_by_step() -> None:
    exchange = Delegating(BUILDER, _sign, CE)
    steps = exchange.steps()
    assert next(steps) == BUILDER.new_delegation()
    assert exchange.id is None
    assert steps.send(STORED) == BUILDER.put_delegation("d93bf9b09869", b"signed CSR")
    assert exchange.id == "d93bf9b09869"
    assert _outcome(steps, PUT) == "d93bf9b09869"


def test_one_that_exists_is_renewed() -> None:
    exchange = Delegating(BUILDER, _sign, CE, "d93bf9b09869")
    steps = exchange.steps()
    assert next(steps) == BUILDER.renew_delegation("d93bf9b09869")
    assert steps.send(RENEWED) == BUILDER.put_delegation("d93bf9b09869", b"signed CSR 2")
    assert _outcome(steps, PUT) == "d93bf9b09869"


def test_an_exchange_that_failed_goes_on_with_what_the_ce_has_made() -> None:
    """A CE that fails for a while does not collect a delegation for each try."""
    exchange = Delegating(BUILDER, _sign, CE)
    sent: list[Request] = []
    for trouble in (TransportError("reset"), ProtocolError("HTTP 500"), None):
        steps = exchange.steps()
        sent.append(next(steps))
        sent.append(steps.send(RENEWED if len(sent) > 1 else STORED))
        if trouble is None:
            assert _outcome(steps, PUT) == "d93bf9b09869"
        else:
            with pytest.raises(type(trouble)):
                steps.throw(trouble)
    base = "/arex/rest/1.1/delegations"
    put, renew = f"PUT {base}/d93bf9b09869", f"POST {base}/d93bf9b09869?action=renew"
    assert _lines(*sent) == [f"POST {base}?action=new", put, renew, put, renew, put]


def test_what_cannot_be_signed_fails_where_it_was_asked() -> None:
    def refuse(request: bytes) -> bytes:
        raise ProtocolError("is none", excerpt=request)

    for delegation, operation in ((None, "delegations.new"), ("a1", "delegations.renew")):
        exchange = Delegating(BUILDER, refuse, CE, delegation)
        steps = exchange.steps()
        next(steps)
        with pytest.raises(ProtocolError, match="is none") as caught:
            steps.send(STORED)
        assert (caught.value.ce, caught.value.operation) == (CE, operation)
        assert exchange.id is not None


def test_a_signers_own_words_stay() -> None:
    def refuse(request: bytes) -> bytes:
        raise ConfigurationError("x", ce="https://other:1", operation="mine")

    steps = Delegating(BUILDER, refuse, CE).steps()
    next(steps)
    with pytest.raises(ConfigurationError) as caught:
        steps.send(STORED)
    assert (caught.value.ce, caught.value.operation) == ("https://other:1", "mine")


@pytest.mark.parametrize(
    "location",
    [
        None,
        "",
        "/",
        "/arex/rest/1.1/delegations/",
        "/arex/rest/1.1/delegations/a?action=get",
        "/arex/rest/1.1/delegations/..",
        "/arex/rest/1.1/delegations/a%2fb",
        "/arex/rest/1.1/delegations/a b",
        "/arex/rest/1.1/delegations/a\r\nX: y",
        "x" * 300,
    ],
)
def test_an_unusable_location(location: str | None) -> None:
    headers = {} if location is None else {"location": location}
    token = BUILDER.new_token_delegation("s3cr3t.s3cr3t")
    for steps in (Delegating(BUILDER, _sign, CE).steps(), delegate_token(BUILDER, "s3cr3t", CE)):
        next(steps)
        with pytest.raises(ProtocolError, match="usable id") as caught:
            steps.send(Response(201, "Created", headers, b"s3cr3t"))
        assert (caught.value.ce, caught.value.operation) == (CE, token.operation.value)
        assert caught.value.excerpt == b""


@pytest.mark.parametrize(
    "location", ["a1", "/arex/rest/1.1/delegations/a1", "https://ce.example.org:443/x/a1"]
)
def test_locations(location: str) -> None:
    steps = delegate_token(BUILDER, "t.t.t", CE)
    assert next(steps) == BUILDER.new_token_delegation("t.t.t")
    assert _outcome(steps, Response(201, "Created", {"location": location})) == "a1"


class ACe:
    """Answers by request line; counts what it was asked."""

    def __init__(self, answers: dict[str, Response | InterCEdeError]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def __call__(self, request: Request) -> Response:
        (line,) = _lines(request)
        self.asked.append(line.removeprefix("POST /arex/rest/1.1/delegations/"))
        answer = self.answers[self.asked[-1]]
        if isinstance(answer, InterCEdeError):
            raise answer
        return answer


LIST = "GET /arex/rest/1.1/delegations"


async def test_dead_and_unfinished_ones_and_tokens_are_passed_over() -> None:
    listing = [
        {"id": "old", "type": "x509"},
        {"id": "dead", "type": "x509"},
        {"id": "token", "type": "jwt"},
        {"id": "../../jobs", "type": "x509"},
        {"id": "broken", "type": "x509"},
        {"id": "unfinished", "type": "x509"},
        {"id": "new", "type": "x509"},
    ]
    ce = ACe(
        {
            LIST: reply({"delegation": listing}, 200, "OK"),
            "old?action=get": Response(200, "OK", body=b"old chain\n"),
            "dead?action=get": GONE,
            "broken?action=get": ProtocolError("HTTP 500"),
            "unfinished?action=get": Response(200, "OK", body=b"\n"),
            "new?action=get": Response(200, "OK", body=b"new chain\n"),
        }
    )
    chains = await converse(stored_chains(BUILDER, CE), ce)
    assert chains == {"new": b"new chain", "old": b"old chain"}
    assert list(chains) == ["new", "old"]
    assert [line for line in ce.asked if "token" in line or "jobs" in line] == []


async def test_only_the_newest_are_looked_at() -> None:
    listing = [{"id": f"d{number}", "type": "x509"} for number in range(1000)]
    answers: dict[str, Response | InterCEdeError] = {
        f"d{number}?action=get": Response(200, "OK", body=b"chain") for number in range(1000)
    }
    ce = ACe({LIST: reply({"delegation": listing}), **answers})
    chains = await converse(stored_chains(BUILDER, CE, most=3), ce)
    assert list(chains) == ["d999", "d998", "d997"]
    assert len(ce.asked) == 4


@pytest.mark.parametrize("error", [TransportError("x"), AuthenticationError("x")], ids=repr)
async def test_what_fails_as_a_whole_is_not_passed_over(error: InterCEdeError) -> None:
    ce = ACe({LIST: reply({"delegation": [{"id": "a"}]}), "a?action=get": error})
    with pytest.raises(type(error)):
        await converse(stored_chains(BUILDER, CE), ce)


async def test_a_conversation_that_is_left_is_closed() -> None:
    closed = []

    def steps() -> Steps[None]:
        try:
            yield BUILDER.list_delegations()
        finally:
            closed.append(True)

    async def fail(request: Request) -> Response:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await converse(steps(), fail)
    assert closed == [True]


async def test_an_exchange_of_no_steps() -> None:
    def steps() -> Steps[int]:
        yield from ()
        return 7

    assert await converse(steps(), ACe({})) == 7


# Answers


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"", []),
        (b'{"delegation":[]}', []),
        (b'{"delegation":""}', []),
        (b'""', []),
        (b"{}", []),
        (b'{"delegation":[{"id":"a1","type":"x509"}]}', [Listed("a1")]),
        (b'{"delegation":{"id":"a1"}}', [Listed("a1")]),  # one element, bare
        (b'{"delegation":[{"id":"a"},{"id":"a","type":"jwt"}]}', [Listed("a")]),
        (
            b'{"delegation":[{"id":"a","type":"jwt"},{"id":"b","type":"new\\nkind"}]}',
            [Listed("a", "jwt"), Listed("b", "new kind")],
        ),
        (b'{"delegation":["a",null,7,{},{"id":7},{"id":""},{"id":"a/b"},{"id":".."}]}', []),
        (b'{"delegation":[{"id":"a","type":7},{"id":"b","type":""}]}', [Listed("a"), Listed("b")]),
    ],
)
def test_lists(body: bytes, found: list[Listed]) -> None:
    assert list(parse_list(Response(200, "OK", body=body), CE)) == found


@pytest.mark.parametrize("body", [b"<html>", b"[", b"[]", b"7", b'"a"', b"[" * 10_000])
def test_what_is_no_list(body: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_list(Response(200, "OK", body=body), CE)
    assert (caught.value.ce, caught.value.operation) == (CE, "delegations.list")


def test_what_is_stored() -> None:
    for body, stored in ((b"\n", None), (b"", None), (b"\nchain\n\n", b"chain")):
        assert parse_stored(Response(200, "OK", body=body)) == stored
    assert parse_stored(Response(404, "No delegation found", body=b"no")) is None


@pytest.mark.parametrize(
    ("response", "gone"),
    [
        (Response(202, "Accepted"), True),
        (Response(200, "OK"), True),
        (Response(404, "No such delegation"), True),
        (Response(500, "Failed deleting delegation"), False),
    ],
)
def test_deleting(response: Response, gone: bool) -> None:
    request = BUILDER.delete_delegation("a1")
    assert failure(request, response, CE) is None
    assert parse_deleted(response) is gone


def test_other_failures_are_failures() -> None:
    for request, response in (
        (BUILDER.delete_delegation("a1"), Response(500, "What")),
        (BUILDER.put_delegation("a1", b"x"), Response(500, "Failed accepting delegation")),
        (BUILDER.put_delegation("a1", b"x"), Response(500, "Failed deleting delegation")),
        (BUILDER.renew_delegation("a1"), Response(404, "Not Found")),
    ):
        assert isinstance(failure(request, response, CE), ProtocolError)
    assert failure(BUILDER.get_delegation("a1"), GONE, CE) is None


_names = st.sampled_from(["delegation", "id", "type"]) | st.text(max_size=5)
_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.sampled_from(["a1", "x509", "jwt"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_names, inner, max_size=4),
    max_leaves=12,
)
_likely = st.fixed_dictionaries({"delegation": _values})


@given(
    body=(_likely | _values).map(lambda value: json.dumps(value).encode()) | st.binary(),
    status=st.sampled_from([200, 201, 404, 500]),
    headers=st.dictionaries(st.just("location"), st.text()),
)
@example(b'{"delegation":[{"id":"\\ud800"}]}', 200, {})
@example(b"\xff", 200, {"location": "/\x00"})
def test_whatever_the_answer_errors_are_ours(
    body: bytes, status: int, headers: dict[str, str]
) -> None:
    response = Response(status, "OK", headers, body)
    parse_stored(response)
    parse_deleted(response)
    calls: tuple[Callable[[], object], ...] = (
        lambda: _all_usable(parse_list(response, CE)),
        lambda: _first(Delegating(BUILDER, _sign, CE).steps(), response),
        lambda: _first(stored_chains(BUILDER, CE), response),
    )
    for call in calls:
        with suppress(ProtocolError):
            call()


def _all_usable(listing: tuple[Listed, ...]) -> None:
    assert all(is_local_id(listed.id) and listed.type.isprintable() for listed in listing)


def _first(steps: Steps[Any], response: Response) -> object:
    next(steps)
    try:
        return steps.send(response)
    except StopIteration as end:
        return end.value
