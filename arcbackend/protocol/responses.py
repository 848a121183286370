"""ARC REST responses, parsed without I/O.

Every function takes a `Response` and returns values, or raises an `InterCEdeError`: whatever bytes
the CE sends, nothing else is raised. The traps that these functions know are told, each with its
command, in docs/explanation/arc-rest.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, TypeAlias

from arcbackend.errors import (
    AuthenticationError,
    InterCEdeError,
    ProtocolError,
    SubmissionRefused,
    TransportError,
)
from arcbackend.protocol.messages import TOKEN_DELEGATION, Operation, Request, Response
from arcbackend.protocol.names import is_local_id
from arcbackend.protocol.rendering import as_list

__all__ = [
    "Answers",
    "JobAnswer",
    "NewJob",
    "NewJobs",
    "Reading",
    "clean_text",
    "failure",
    "parse_answers",
    "parse_listing",
    "parse_new_jobs",
    "parse_versions",
]

_NOT_AUTHENTICATED = "User can't be assigned configuration"
_NO_IDENTITY = "No supported identity found"
_MISSING_SCOPE = "Token scopes do not match"
_CE_FULL = "No more jobs allowed"
_DELEGATION_NEEDED = "Failed deleting delegation"
_MAX_TEXT = 500
_BUSY = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)

_ABOUT_ONE = frozenset(
    {
        Operation.SESSION_PUT,
        Operation.SESSION_LIST,
        Operation.SESSION_GET,
        Operation.SESSION_HEAD,
        Operation.DIAGNOSE,
        Operation.DELEGATIONS_GET,
        Operation.DELEGATIONS_DELETE,
    }
)

_Json: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class JobAnswer:
    """What the CE says of one job in an id-list operation.

    Attributes:
        code: status code of this job, in HTTP's terms (200, 202, 404, 505 …).
        reason: the CE's text, on one line.
        state: ARC state; None where the operation reports none.
        document: the job's GLUE2 document (``jobs.info`` only).
    """

    code: int
    reason: str
    state: str | None = None
    document: Any = None


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers to an id list.

    Attributes:
        found: id → answer, for ids that were asked.
        missing: ids asked that the CE said nothing of.
        unexpected: ids answered that nobody asked.
    """

    found: dict[str, JobAnswer]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NewJob:
    """One job created, or why it was not: exactly one of ``local`` and ``failure`` is set."""

    local: str | None
    failure: str | None


@dataclass(frozen=True, slots=True)
class NewJobs:
    """The outcome of a request for new jobs.

    Attributes:
        jobs: in the order of the descriptions; of several instances, as many as the CE made.
        full: the CE takes no more jobs for now.
    """

    jobs: tuple[NewJob, ...]
    full: bool = False


def clean_text(text: str, most: int = _MAX_TEXT) -> str:
    """A CE's text on one line, printable, and not longer than ``most`` characters."""
    start = text[: 4 * most]  # a hostile CE may send megabytes
    line = " ".join("".join(c if c.isprintable() else " " for c in start).split())
    whole = len(line) <= most and len(start) == len(text)
    return line if whole else line[: most - 1] + "…"


def failure(request: Request, response: Response, ce: str) -> InterCEdeError | None:
    """The exception that the response means for the whole operation; None if there is none.

    A 404 to a request about one job or delegation is None: it speaks of that, not of the operation.
    So are a 416 to one for a part of a file, and a delegation not deleted since a job needs it.
    """
    if response.status < HTTPStatus.MULTIPLE_CHOICES:
        return None
    if TOKEN_DELEGATION in request.headers:
        response = _without_token(request, response)
    body = response.body[:2000].decode("utf-8", "replace")
    said = clean_text(f"{response.reason}: {body}" if body.strip() else response.reason)
    context: dict[str, Any] = {"ce": ce, "operation": request.operation.value}
    if error := _authentication_failure(request, response, body, context):
        return error
    if response.status in _BUSY:
        return TransportError(
            "the CE, or a proxy before it, is not serving requests now: "
            f"HTTP {response.status} {said}",
            **context,
        )
    if request.operation is Operation.JOBS_NEW:
        full = _CE_FULL in response.reason
        refused = SubmissionRefused(f"the CE refused the request: {said}", **context)
        return None if full else refused
    missing = response.status == HTTPStatus.NOT_FOUND and request.operation in _ABOUT_ONE
    beyond = response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
    deleting = request.operation is Operation.DELEGATIONS_DELETE
    needed = deleting and response.reason.startswith(_DELEGATION_NEEDED)
    if missing or needed or (beyond and "Range" in request.headers):
        return None
    return ProtocolError(f"HTTP {response.status} {said}", excerpt=response.body, **context)


def _without_token(request: Request, response: Response) -> Response:
    """The response without a token that was sent to be delegated, should the CE quote it."""
    body = request.redact(response.body.decode("utf-8", "surrogateescape"))
    return replace(
        response,
        reason=request.redact(response.reason),
        body=body.encode("utf-8", "surrogateescape"),
    )


def _authentication_failure(
    request: Request, response: Response, body: str, context: dict[str, Any]
) -> AuthenticationError | None:
    scope = request.scope.value if request.scope else None
    # A-REX answers 500, not 401, to missing, wrong and expired credentials.
    unknown = response.status == HTTPStatus.UNAUTHORIZED or _NOT_AUTHENTICATED in response.reason
    forbidden = response.status == HTTPStatus.FORBIDDEN
    if unknown or (forbidden and _NO_IDENTITY in body):
        return AuthenticationError(
            "the CE does not accept the credentials (missing, expired, of an issuer or audience it "
            "does not know, or a user it does not map)",
            scope=scope,
            **context,
        )
    if forbidden and _MISSING_SCOPE in body:
        return AuthenticationError(
            f"the token lacks the scope {scope}", scope=scope, missing_scope=True, **context
        )
    # A submission can be forbidden for what it asks, too.
    if forbidden and request.operation is not Operation.JOBS_NEW:
        return AuthenticationError(
            f"the CE forbids this: {clean_text(body) or response.reason}", scope=scope, **context
        )
    return None


def parse_versions(response: Response, ce: str) -> tuple[str, ...]:
    """The REST versions that the CE speaks."""
    reading = Reading(Operation.VERSIONS, response, ce)
    found = reading.items("version")
    if not found or not all(isinstance(version, str) for version in found):
        raise reading.broken("the list of REST versions is empty or holds no strings")
    return tuple(found)


def parse_listing(response: Response, ce: str) -> dict[str, str | None]:
    """The identity's jobs: id → state; None where the listing was not asked by state."""
    reading = Reading(Operation.JOBS_LIST, response, ce)
    return {reading.job_id(item): reading.state(item) for item in reading.jobs()}


def parse_answers(request: Request, response: Response, asked: Sequence[str], ce: str) -> Answers:
    """The answers to an operation on an id list.

    Raises:
        ProtocolError: malformed, or no answer at all to a list of ids: A-REX does that, with
            HTTP 201, when it could not read the list.
    """
    reading = Reading(request.operation, response, ce)
    wanted = dict.fromkeys(asked)
    found: dict[str, JobAnswer] = {}
    unexpected = []
    for item in reading.jobs():
        local = reading.job_id(item)
        if local not in wanted:
            unexpected.append(local)
        elif local in found:
            raise reading.broken(f"two answers for job {local}")
        else:
            found[local] = JobAnswer(
                reading.code(item),
                reading.reason(item),
                reading.state(item),
                item.get("info_document"),
            )
    if wanted and not found:
        raise reading.broken(f"the CE answered for none of the {len(wanted)} jobs asked")
    missing = tuple(local for local in wanted if local not in found)
    return Answers(found, missing, tuple(unexpected))


def parse_new_jobs(response: Response, asked: int, ce: str) -> NewJobs:
    """The jobs created by one request for ``asked`` jobs.

    Raises:
        ProtocolError: malformed, or more jobs than asked.
    """
    if response.status >= HTTPStatus.MULTIPLE_CHOICES:  # failure() lets only this one pass
        return NewJobs((), full=True)
    reading = Reading(Operation.JOBS_NEW, response, ce)
    jobs: list[NewJob] = []
    full = False
    for item in reading.jobs():
        if reading.code(item) == HTTPStatus.CREATED:
            jobs.append(NewJob(reading.job_id(item), None))
        else:
            reason = reading.reason(item) or f"the CE answered {reading.code(item)}"
            full = full or _CE_FULL in reason
            jobs.append(NewJob(None, reason))
    ids = [job.local for job in jobs if job.local]
    if len(jobs) > asked or len(set(ids)) < len(ids):
        raise reading.broken(
            f"{len(jobs)} jobs ({len(set(ids))} distinct ids) where {asked} were asked"
        )
    return NewJobs(tuple(jobs), full)


class Reading:
    """One response being read: every complaint names the CE, the operation and the first bytes."""

    def __init__(self, operation: Operation, response: Response, ce: str) -> None:
        self._operation = operation
        self._response = response
        self._ce = ce

    def broken(self, what: str) -> ProtocolError:
        """The complaint about this response."""
        return ProtocolError(
            what, ce=self._ce, operation=self._operation.value, excerpt=self._response.body
        )

    def items(self, key: str) -> list[Any]:
        """The list under ``key``: REST 1.0 renders one element bare, and no element as no body."""
        if not self._response.body.strip():
            return []
        try:
            document = json.loads(self._response.body.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            raise self.broken("the answer is not JSON") from None
        # An empty XML element, which A-REX renders from, becomes "" or null.
        if document in ("", None):
            return []
        if not isinstance(document, dict):
            raise self.broken("the answer is not a JSON object")
        return as_list(document.get(key))

    def jobs(self) -> list[_Json]:
        """The elements of a list of jobs."""
        found = self.items("job")
        if not all(isinstance(item, dict) for item in found):
            raise self.broken("the list of jobs holds something that is no object")
        return found

    def job_id(self, item: _Json) -> str:
        """The id in an element, if it can be a CE's."""
        local = item.get("id")
        if not isinstance(local, str) or not is_local_id(local):
            raise self.broken("a job without a usable id")
        return local

    def state(self, item: _Json) -> str | None:
        """The ARC state in an element, on one line; None if there is none."""
        state = item.get("state")
        if state is None or isinstance(state, str):
            return None if state is None else clean_text(state, 40)
        raise self.broken("a job's state is not a string")

    def code(self, item: _Json) -> int:
        """The status code in an element: a number, or three digits."""
        code = item.get("status-code")
        if isinstance(code, int) and not isinstance(code, bool):
            return code
        if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) == 3:  # noqa: PLR2004
            return int(code)
        raise self.broken("a job without a numeric status-code")

    def reason(self, item: _Json) -> str:
        """The reason in an element, on one line."""
        reason = item.get("reason")
        return clean_text(reason) if isinstance(reason, str) else ""
