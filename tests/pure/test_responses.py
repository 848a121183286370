"""What the parsers make of each shape of reply that the servers send."""

from __future__ import annotations

from typing import Any

import pytest

from arcbackend.errors import ProtocolError
from arcbackend.protocol.messages import Operation, Response
from arcbackend.protocol.responses import (
    JobAnswer,
    NewJob,
    NewJobs,
    clean_text,
    parse_answers,
    parse_listing,
    parse_new_jobs,
    parse_versions,
)
from tests.pure.replies import BUILDER, CE, FULL, REQUESTS, STATUS, job, reply

ON_IDS = [REQUESTS[operation] for operation in REQUESTS if operation.startswith("jobs.")]
ON_IDS = [request for request in ON_IDS if "action=new" not in request.target and request.body]

# An empty list as 1.1 renders it, and as the XML behind 1.0 comes out.
EMPTY = [b"", b" \r\n", b'""', b"null", b"{}", b'{"job":[]}', b'{"job":""}', b'{"job":null}']


def _created(local: str) -> dict[str, Any]:
    return {"status-code": "201", "reason": "Created", "id": local, "state": "ACCEPTING"}


def test_the_operations_on_id_lists_are_all_tried() -> None:
    assert {request.operation for request in ON_IDS} == {
        Operation.JOBS_STATUS,
        Operation.JOBS_INFO,
        Operation.JOBS_KILL,
        Operation.JOBS_CLEAN,
    }


# versions


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"version": ["1.0", "1.1"]}, ("1.0", "1.1")),
        ({"version": ["1.0"]}, ("1.0",)),
        ({"version": "1.0"}, ("1.0",)),  # one element, bare
    ],
)
def test_versions(document: Any, expected: tuple[str, ...]) -> None:
    assert parse_versions(reply(document, 200), CE) == expected


@pytest.mark.parametrize(
    "document", [{}, {"version": []}, {"version": [1.0]}, {"version": {"a": 1}}, [], "1.0", 7]
)
def test_versions_that_are_none(document: Any) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_versions(reply(document, 200), CE)
    assert (caught.value.ce, caught.value.operation) == (CE, "versions")


def test_versions_of_an_empty_body() -> None:
    with pytest.raises(ProtocolError):
        parse_versions(Response(200, "OK"), CE)


# listing


@pytest.mark.parametrize("body", EMPTY)
def test_listing_of_no_jobs(body: bytes) -> None:
    assert parse_listing(Response(200, "OK", body=body), CE) == {}


def test_listing_of_one_job_in_rest_1_0() -> None:
    assert parse_listing(reply({"job": {"id": "a", "state": "FINISHED"}}, 200), CE) == {
        "a": "FINISHED"
    }


def test_listing_of_many_with_and_without_state() -> None:
    listed = [{"id": "b", "state": "FAILED"}, {"id": "a"}]
    assert parse_listing(reply({"job": listed}, 200), CE) == {"b": "FAILED", "a": None}


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"id": None},
        {"id": 7},
        {"id": ""},
        {"id": "../../etc/passwd"},
        {"id": "a/b"},
        {"id": "a\n"},
        {"id": "é"},
        {"id": "x" * 10_000},
        {"id": "a", "state": 3},
        {"id": "a", "state": ["FINISHED"]},
        "a",
        None,
        ["a"],
    ],
)
def test_listing_with_an_unusable_job(item: Any) -> None:
    with pytest.raises(ProtocolError):
        parse_listing(reply({"job": [item, {"id": "good"}]}, 200), CE)


# operations on id lists


@pytest.mark.parametrize("request_", ON_IDS, ids=lambda request: str(request.operation))
@pytest.mark.parametrize("code", ["200", 200])
def test_answers_in_both_shapes(request_: Any, code: Any) -> None:
    many = parse_answers(request_, reply({"job": [job("a", code), job("b", code)]}), ["b", "a"], CE)
    assert {local: answer.code for local, answer in many.found.items()} == {"a": 200, "b": 200}
    assert (many.missing, many.unexpected) == ((), ())

    bare = parse_answers(request_, reply({"job": job("a", code)}), ["a"], CE)
    assert bare.found == {"a": JobAnswer(200, "OK")}


def test_an_answer_with_everything() -> None:
    document = {"ComputingActivity": {"Name": "x"}}
    item = job("a", "404", state="None", info_document=document) | {"reason": "Job\nnot found"}
    answers = parse_answers(STATUS, reply({"job": [item]}), ["a"], CE)
    assert answers.found["a"] == JobAnswer(404, "Job not found", "None", document)


def test_missing_and_unexpected_ids() -> None:
    answers = parse_answers(STATUS, reply({"job": [job("a"), job("x")]}), ["b", "a", "c"], CE)
    assert set(answers.found) == {"a"}
    assert answers.missing == ("b", "c")
    assert answers.unexpected == ("x",)


def test_an_id_asked_twice_is_missing_once() -> None:
    answers = parse_answers(STATUS, reply({"job": [job("a")]}), ["a", "b", "a", "b"], CE)
    assert answers.missing == ("b",)


def test_two_answers_for_one_id() -> None:
    twice = {"job": [job("a", "200"), job("a", "404")]}
    with pytest.raises(ProtocolError, match="two answers"):
        parse_answers(STATUS, reply(twice), ["a"], CE)


@pytest.mark.parametrize("body", EMPTY)
@pytest.mark.parametrize("request_", ON_IDS, ids=lambda request: str(request.operation))
def test_total_loss_is_no_answer(request_: Any, body: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_answers(request_, Response(201, "Created", body=body), ["a", "b"], CE)
    assert caught.value.operation == request_.operation.value
    assert caught.value.ce == CE
    assert caught.value.excerpt == body


def test_answers_for_others_only_are_a_total_loss() -> None:
    with pytest.raises(ProtocolError):
        parse_answers(STATUS, reply({"job": [job("x")]}), ["a"], CE)


def test_nothing_asked_and_nothing_answered() -> None:
    answers = parse_answers(STATUS, reply({"job": []}), [], CE)
    assert (answers.found, answers.missing) == ({}, ())


@pytest.mark.parametrize(
    "code", [None, True, "", "OK", "20", "2000", "-20", "٢٠٠", 200.0, [200], {"a": 1}]
)
def test_a_status_code_that_is_none(code: Any) -> None:
    with pytest.raises(ProtocolError):
        parse_answers(STATUS, reply({"job": [job("a", code)]}), ["a"], CE)


@pytest.mark.parametrize("reason", [None, 7, [], {}])
def test_a_reason_that_is_no_text_is_none(reason: Any) -> None:
    answers = parse_answers(STATUS, reply({"job": [{**job("a"), "reason": reason}]}), ["a"], CE)
    assert answers.found["a"].reason == ""


# new jobs


def test_new_jobs_in_order() -> None:
    new = parse_new_jobs(reply({"job": [_created("b"), _created("a")]}), 2, CE)
    assert new == NewJobs((NewJob("b", None), NewJob("a", None)))


def test_one_new_job_in_rest_1_0() -> None:
    assert parse_new_jobs(reply({"job": _created("a")}), 1, CE) == NewJobs((NewJob("a", None),))


@pytest.mark.parametrize("code", ["500", 500])
def test_a_new_job_refused_among_others(code: Any) -> None:
    refused = {"status-code": code, "reason": "Failed to parse\n  line 3\r\n\tof the description"}
    new = parse_new_jobs(reply({"job": [_created("a"), refused, _created("b")]}), 3, CE)
    assert [made.local for made in new.jobs] == ["a", None, "b"]
    assert new.jobs[1].failure == "Failed to parse line 3 of the description"
    assert not new.full


def test_a_refusal_without_words_says_its_code() -> None:
    new = parse_new_jobs(reply({"job": [{"status-code": "503"}]}), 1, CE)
    assert "503" in (new.jobs[0].failure or "")


def test_the_ce_full_as_a_whole() -> None:
    new = parse_new_jobs(FULL, 2, CE)
    assert new.full
    assert not any(made.local for made in new.jobs)


def test_the_ce_full_for_some_of_the_jobs() -> None:
    refused = {"status-code": "500", "reason": "Failed: No more jobs allowed"}
    new = parse_new_jobs(reply({"job": [_created("a"), refused]}), 2, CE)
    assert new.full
    assert [made.local for made in new.jobs] == ["a", None]


def test_fewer_instances_than_asked_are_no_error() -> None:
    assert len(parse_new_jobs(reply({"job": [_created("a")]}), 5, CE).jobs) == 1


@pytest.mark.parametrize("body", EMPTY)
def test_no_new_job_at_all(body: bytes) -> None:
    assert parse_new_jobs(Response(201, "Created", body=body), 2, CE) == NewJobs(())


def test_more_new_jobs_than_asked() -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_new_jobs(reply({"job": [_created("a"), _created("b")]}), 1, CE)
    assert caught.value.operation == "jobs.new"


def test_one_new_job_named_twice() -> None:
    with pytest.raises(ProtocolError):
        parse_new_jobs(reply({"job": [_created("a"), _created("a")]}), 2, CE)


@pytest.mark.parametrize("local", [None, "", "a/b", "..", 5])
def test_a_new_job_without_a_usable_id(local: Any) -> None:
    with pytest.raises(ProtocolError):
        parse_new_jobs(reply({"job": [{**_created("a"), "id": local}]}), 1, CE)


# complaints


def test_a_complaint_names_ce_operation_and_first_bytes() -> None:
    page = b"<html>" + b"x" * 10_000
    with pytest.raises(ProtocolError) as caught:
        parse_answers(BUILDER.kill(["a"]), Response(201, "Created", body=page), ["a"], CE)
    text = str(caught.value)
    assert CE in text
    assert "jobs.kill" in text
    assert "<html>" in text
    assert len(text) < 1000


# clean_text


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("a\nb", "a b"),
        ("  a \r\n\t b\x00\x1b[31m ", "a b [31m"),
        ("é ü", "é ü"),
        ("a\u2028b\u200bc", "a b c"),
        ("\ud800x", "x"),
        ("", ""),
    ],
)
def test_clean_text(raw: str, expected: str) -> None:
    assert clean_text(raw) == expected


def test_clean_text_is_bounded() -> None:
    assert len(clean_text("x" * 10**6)) == 500
    assert clean_text("x" * 500) == "x" * 500
    assert len(clean_text("ab" * 50, 40)) == 40
