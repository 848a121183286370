"""Which exception each unsuccessful reply is."""

from __future__ import annotations

import pytest

from arcbackend.errors import (
    AuthenticationError,
    InterCEdeError,
    ProtocolError,
    SubmissionRefused,
    TransportError,
)
from arcbackend.protocol.messages import Operation, Request, Response
from arcbackend.protocol.requests import from_byte
from arcbackend.protocol.responses import failure, parse_new_jobs
from tests.pure.replies import CE, FULL, NEW, NO_IDENTITY, NO_SCOPE, REQUESTS, STATUS, UNKNOWN_USER

EVERY = pytest.mark.parametrize("request_", REQUESTS.values(), ids=map(str, REQUESTS))


def _failure(request: Request, response: Response) -> InterCEdeError:
    error = failure(request, response, CE)
    assert error is not None
    assert error.ce == CE
    assert error.operation == request.operation.value
    assert "\n" not in str(error)
    return error


def test_there_is_a_request_for_every_operation() -> None:
    assert set(REQUESTS) == set(Operation)


@EVERY
@pytest.mark.parametrize("status", [200, 201, 202])
def test_success_is_none(request_: Request, status: int) -> None:
    assert failure(request_, Response(status, "OK"), CE) is None


@EVERY
@pytest.mark.parametrize(
    "response", [UNKNOWN_USER, NO_IDENTITY, Response(401, "Unauthorized")], ids=repr
)
def test_an_identity_not_accepted(request_: Request, response: Response) -> None:
    error = _failure(request_, response)
    assert isinstance(error, AuthenticationError)
    assert not error.missing_scope
    assert error.scope == (request_.scope.value if request_.scope else None)


@EVERY
def test_a_missing_scope(request_: Request) -> None:
    error = _failure(request_, NO_SCOPE)
    assert isinstance(error, AuthenticationError)
    assert error.missing_scope
    if request_.scope is not None:
        assert request_.scope.value in str(error)


def test_another_403_is_authentication_but_for_a_submission() -> None:
    other = Response(403, "Forbidden", body=b"No\n  way")
    error = _failure(STATUS, other)
    assert isinstance(error, AuthenticationError)
    assert "No way" in str(error)
    refused = _failure(NEW, other)
    assert isinstance(refused, SubmissionRefused)
    assert "No way" in str(refused)


@EVERY
@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_ce_is_the_transports(request_: Request, status: int) -> None:
    error = _failure(request_, Response(status, "Busy", body=b"<html>\nlater\n</html>"))
    assert isinstance(error, TransportError)
    assert error.maybe_done
    assert str(status) in str(error)


def test_a_full_ce_is_no_failure_of_a_submission() -> None:
    assert failure(NEW, FULL, CE) is None


@pytest.mark.parametrize("status", [400, 403, 500])
def test_what_passes_as_full_is_read_as_full(status: int) -> None:
    full = Response(status, "No more jobs allowed")
    error = failure(NEW, full, CE)
    assert isinstance(error, SubmissionRefused) or parse_new_jobs(full, 2, CE).full


def test_a_full_ce_is_nothing_to_other_operations() -> None:
    assert isinstance(_failure(STATUS, FULL), ProtocolError)


@pytest.mark.parametrize("status", [301, 400, 403, 404, 405, 413, 500])
def test_a_submission_refused(status: int) -> None:
    error = _failure(NEW, Response(status, "Payload is\nnot recognised"))
    assert isinstance(error, SubmissionRefused)
    assert "Payload is not recognised" in str(error)
    assert error.field is None


@EVERY
def test_a_404_speaks_of_one_job_or_delegation(request_: Request) -> None:
    error = failure(request_, Response(404, "Not Found"), CE)
    if request_.operation in (
        Operation.SESSION_PUT,
        Operation.SESSION_LIST,
        Operation.SESSION_GET,
        Operation.SESSION_HEAD,
        Operation.DIAGNOSE,
        Operation.DELEGATIONS_GET,
        Operation.DELEGATIONS_DELETE,
    ):
        assert error is None
    elif request_.operation is Operation.JOBS_NEW:
        assert isinstance(error, SubmissionRefused)
    else:  # of no operation on lists: an empty 404 is not an empty list
        assert isinstance(error, ProtocolError)


def test_a_416_speaks_of_a_part_of_a_file() -> None:
    whole = REQUESTS[Operation.SESSION_GET]
    response = Response(416, "Range not satisfiable")
    assert failure(from_byte(whole, 9), response, CE) is None
    assert isinstance(failure(whole, response, CE), ProtocolError)


@pytest.mark.parametrize("status", [301, 400, 405, 500, 501])
def test_anything_else_is_not_arc(status: int) -> None:
    error = _failure(STATUS, Response(status, "What", body=b"\xff<html>" + b"y" * 10_000))
    assert isinstance(error, ProtocolError)
    assert str(status) in str(error)
    assert "<html>" in str(error)
    assert len(str(error)) < 2000


def test_a_reason_of_ten_megabytes_is_cut() -> None:
    error = _failure(STATUS, Response(500, "x" * 10**7))
    assert len(str(error)) < 2000
