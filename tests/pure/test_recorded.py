"""What real CEs answered (tests/integration/record_replies.py), through the parsers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from arcbackend import AuthenticationError, SubmissionRefused
from arcbackend.protocol.messages import Operation, Request, Response
from arcbackend.protocol.responses import (
    failure,
    parse_answers,
    parse_listing,
    parse_new_jobs,
    parse_versions,
)

CE = "https://ce.example.org:443"
VERSIONS = ("7.0.0", "7.2.0")
RECORDED: dict[tuple[str, str, str], dict[str, Any]] = {
    (version, reply["rest"], reply["name"]): reply
    for version in VERSIONS
    for reply in json.loads((Path(__file__).parent / "recorded" / f"{version}.json").read_text())
}
BOTH = pytest.mark.parametrize("rest", ["1.0", "1.1"])
ALL = pytest.mark.parametrize("version", VERSIONS)


def _replay(version: str, rest: str, name: str) -> tuple[Request, Response, list[str]]:
    reply = RECORDED[version, rest, name]
    request = Request(Operation(reply["operation"]), "GET", "/", None, idempotent=True)
    return (
        request,
        Response(reply["status"], reply["reason"], {}, reply["body"].encode()),
        reply["ids"],
    )


@ALL
@BOTH
def test_versions(version: str, rest: str) -> None:
    _, response, _ = _replay(version, rest, "versions")
    assert parse_versions(response, CE) == ("1.0", "1.1")


@ALL
@BOTH
def test_failures_of_the_whole(version: str, rest: str) -> None:
    request, response, _ = _replay(version, rest, "no credentials")
    assert response.status == 500
    error = failure(request, response, CE)
    assert isinstance(error, AuthenticationError)
    assert not error.missing_scope
    request, response, _ = _replay(version, rest, "missing scope")
    error = failure(request, response, CE)
    assert isinstance(error, AuthenticationError)
    assert error.missing_scope
    request, response, _ = _replay(version, rest, "garbage")
    assert isinstance(failure(request, response, CE), SubmissionRefused)


@ALL
@BOTH
def test_new_jobs(version: str, rest: str) -> None:
    _, response, _ = _replay(version, rest, "one job")
    (job,) = parse_new_jobs(response, 1, CE).jobs
    assert job.local
    _, response, _ = _replay(version, rest, "three jobs, one faulty")
    first, faulty, last = parse_new_jobs(response, 3, CE).jobs
    assert first.local
    assert last.local
    assert (faulty.local, bool(faulty.failure)) == (None, True)


@ALL
@BOTH
def test_lists(version: str, rest: str) -> None:
    _, response, _ = _replay(version, rest, "empty list")
    assert parse_listing(response, CE) == {}
    _, response, _ = _replay(version, rest, "list")
    made = [
        job.local
        for name, asked in (("one job", 1), ("three jobs, one faulty", 3))
        for job in parse_new_jobs(_replay(version, rest, name)[1], asked, CE).jobs
    ]
    # 7.2.0 leaves a job out for a moment while it accepts it: recorded so.
    listed = set(parse_listing(response, CE))
    assert listed <= set(made)
    assert len(listed) in (2, 3)


@ALL
@BOTH
@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("status", [200, 404]),
        ("status of one", [200]),
        ("info", [200, 404]),
        ("kill", [202, 404]),
        ("clean", [202, 404]),
    ],
)
def test_answers(version: str, rest: str, name: str, codes: list[int]) -> None:
    request, response, ids = _replay(version, rest, name)
    answers = parse_answers(request, response, ids, CE)
    assert [answers.found[local].code for local in ids] == codes
    assert answers.missing == answers.unexpected == ()
    if name == "status":
        assert answers.found["nosuchjob"].state == "None"
