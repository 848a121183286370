"""The likeness test itself: that it sees differences, and only those."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcbackend.simulator import Cut, Fault, Simulator, Stall
from tests.simulator.likeness import recording
from tests.simulator.likeness.comparing import Difference, Known, differences, unknown
from tests.simulator.likeness.conversations import CONVERSATIONS, chosen
from tests.simulator.likeness.driver import Answer, Connection
from tests.simulator.likeness.observing import Names, observed, shape
from tests.simulator.likeness.recording import COURSES_ARE_IN, FOLDER
from tests.simulator.likeness.sequences import COURSES, GONE, Course, When, disagreement, disorder
from tests.simulator.likeness.steps import Step

RECORDED = ["arc-slurm-7.2.0-token", "arc-slurm-7.0.0-token", "arc-condor-7.0.0-token"]
WITH_PROXIES = ["arc-slurm-7.2.0-token+proxy", "arc-slurm-7.0.0-token+proxy"]
COURSE = Course("any", "", "d")
STATES = "abcd"


# Sequences of states


def _sample(data: st.DataObject, course: list[str]) -> list[str]:
    seen = [state for state in course if data.draw(st.booleans())] + ["d"]
    return [state for number, state in enumerate(seen) if seen[number - 1 : number] != [state]]


@given(st.permutations("abc"), st.data())
def test_samples_of_one_course_agree(course: list[str], data: st.DataObject) -> None:
    one, other = (_sample(data, course) for _ in range(2))
    assert disagreement(COURSE, "live", one, other) is None


@given(st.permutations("abc"), st.data())
def test_two_states_in_exchanged_order_never_agree(course: list[str], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, 1))
    exchanged = [*course[:at], course[at + 1], course[at], *course[at + 2 :]]
    assert disagreement(COURSE, "live", [*course, "d"], [*exchanged, "d"]) is not None


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        ("abad", "abd", True),
        ("abad", "bad", True),
        ("abad", "babd", False),
        ("abad", "d", True),
        ("abd", "abc", False),
        ("", "", True),
        ("d", "", False),
    ],
)
def test_what_agrees(one: str, other: str, agree: bool) -> None:
    assert (disagreement(COURSE, "live", one, other) is None) is agree
    assert (disagreement(COURSE, "live", other, one) is None) is agree


def test_what_was_waited_for_is_in_both() -> None:
    course = Course("any", "", "d", (When("live", ("b",), "kill"),))
    assert disagreement(course, "live", "abd", "bd") is None
    assert disagreement(course, "live", "abd", "ad") == "b lasted, or nothing"
    assert disagreement(course, "status", "abd", "ad") is None


@pytest.mark.parametrize(
    ("telling", "wrong"),
    [
        (["ACCEPTING", "PREPARING", "SUBMITTING", "RUNNING", "FINISHING", "FINISHED", GONE], None),
        (["QUEUING", "RUNNING", "OTHER", "EXITINGLRMS"], None),
        (["RUNNING", "QUEUING"], None),
        (["INLRMS", "CANCELING", "FINISHED"], None),
        (["WIPED", "ACCEPTING", "", "PREPARING"], None),
        (["RUNNING", "PREPARING"], "PREPARING after RUNNING"),
        (["FINISHED", "FINISHING"], "FINISHING after FINISHED"),
        (["ACCEPTED", "DREAMING"], "what is DREAMING?"),
    ],
)
def test_the_order_of_states(telling: list[str], wrong: str | None) -> None:
    assert disorder(telling) == wrong


# Comparison


def test_differences_are_told_by_their_smallest_parts() -> None:
    one = {"c": {"s": {"answer": "200 OK", "json": {"job": [{"id": "a", "state": "x"}]}}}}
    other = {"c": {"s": {"answer": "200 OK", "json": {"job": [{"id": "a", "state": "y"}]}}}}
    assert differences(one, one) == []
    assert differences(one, other) == [Difference("c", "s", "json.job.0.state", "x", "y")]
    assert differences(one, {}) == [
        Difference("c", "s", "answer", "200 OK", None),
        Difference("c", "s", "json", {"job": [{"id": "a", "state": "x"}]}, None),
    ]


def test_a_course_that_differs() -> None:
    course = COURSES[0]
    telling = {"live": ["PREPARING", "FINISHED"], "status": ["FINISHED"], "diagnose": ["FINISHED"]}
    late = telling | {"status": ["PREPARING", "FINISHED"]}
    failed = telling | {"live": ["PREPARING", "FAILED"]}

    def told(found: dict[str, Any]) -> list[str]:
        of = {COURSES_ARE_IN: {course.name: telling}}
        return [each.what for each in differences(of, {COURSES_ARE_IN: {course.name: found}})]

    assert told(telling) == told(late) == []
    assert told(failed) == ["live: ends as FINISHED, or FAILED"]


def test_a_known_difference_must_be_there() -> None:
    there = Difference("c 1.1", "s", "headers.allow", None, "GET")
    known = Known("c *", "s", "headers.*", "because")
    assert unknown([there], [known]) == ()
    assert unknown([there], []) == (str(there),)
    assert unknown([], [known]) == ("no difference any more: c * | s | headers.*",)
    assert known.holds_for("arc-slurm-7.2.0-token")
    assert not Known("*", "*", "*", "because", "arc-condor-*").holds_for("arc-slurm-7.2.0-token")


def test_shapes() -> None:
    assert shape({"b": [{"x": 1}, {"y": "z"}], "a": None}) == {
        "a": "NoneType",
        "b": [{"x": "int", "y": "str"}],
    }
    assert shape([]) == []
    assert shape([1, "x"]) == ["int or str"]
    assert shape({"a": 1, "b": 2}, frozenset({"a"})) == {"b": "int"}


def test_what_is_a_run_s_own_is_named() -> None:
    names = Names({"https://localhost:1": "endpoint"})
    names.learn("0123456789ab", "job")
    pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    token = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodHRwczovL2xvY2Fsa.c2lnbmF0dXJl"
    text = (
        f"https://localhost:1/0123456789ab 012/345/678/9ab fedcba987654 {token} "
        f"2026-11-25T17:00:00Z\n{pem}"
    )
    assert names(text) == ("<endpoint>/<job> <job> <id> <token> <time>\n<certificate>\n")


def test_a_usual_answer_is_short() -> None:
    usual = [
        ("content-length", "2"),
        ("connection", "keep-alive"),
        ("strict-transport-security", "max-age=31536000; includeSubDomains"),
    ]
    answer = Answer("answered", 200, "OK", "1.1", [*usual, ("content-type", "text/plain")], b"ok")
    step = Step("any", "GET", "/")
    assert observed(step, answer, Names({})) == {
        "answer": "200 OK",
        "headers": {"content-type": "text/plain"},
        "text": "ok",
    }
    answer.headers = usual[1:]
    assert observed(step, answer, Names({}))["headers"] == {"content-length": None}
    assert observed(step, Answer("silent"), Names({})) == {"answer": "silent"}


# Recordings


@pytest.mark.parametrize("instance", RECORDED + WITH_PROXIES)
def test_recordings_hold_each_step_and_no_secret(instance: str) -> None:
    kinds = {"token", "proxy"} if instance in WITH_PROXIES else {"token"}
    steps = {each.id: {step.name for step in each.steps} for each in chosen(kinds)}
    if instance in RECORDED:
        steps[COURSES_ARE_IN] = {course.name for course in COURSES}
    recorded = recording.read(instance)
    assert {name: set(said) for name, said in recorded.items()} == steps
    text = recording.path_of(instance).read_text()
    for secret in ("eyJ", "-----BEGIN", "Bearer "):
        assert secret not in text


def test_there_are_hundreds_of_requests_with_names_of_their_own() -> None:
    assert len({each.id for each in CONVERSATIONS}) == len(CONVERSATIONS)
    for each in CONVERSATIONS:
        assert len({step.name for step in each.steps}) == len(each.steps)
    assert sum(len(each.steps) for each in CONVERSATIONS) > 1000


def test_a_recording_is_read_as_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "FOLDER", tmp_path)
    base, other = "arc-slurm-7.2.0-token", "arc-slurm-7.0.0-token"
    said = {"answer": "200 OK"}
    first = {"c 1.1": {"s": said, "t": said}, "c 1.0": {"s": said, "t": {"answer": "closed"}}}
    changed = first | {"c 1.1": {"s": {"answer": "silent"}, "t": said}}
    recording.write(base, first)
    recording.write(other, changed)
    assert (recording.read(base), recording.read(other)) == (first, changed)
    assert '"t"' not in (tmp_path / f"{other}.json").read_text()
    anew = {"c 1.1": {"s": said, "t": {"answer": "silent"}}, "c 1.0": {"s": said, "t": said}}
    recording.write(base, anew)  # the other one stays what it was
    assert (recording.read(base), recording.read(other)) == (anew, changed)
    assert tmp_path != FOLDER


# The driver


@pytest.mark.parametrize(
    ("effect", "outcome"),
    [
        (None, "answered"),
        (Cut(when="before"), "closed"),
        (Cut(when="answer", after_bytes=5), "cut"),
        (Stall(), "silent"),
    ],
    ids=["answered", "closed", "cut", "silent"],
)
async def test_how_a_request_can_end(effect: Cut | Stall | None, outcome: str) -> None:
    async with Simulator.serving() as ce:
        if effect is not None:
            ce.faults.add(Fault(operation="versions", effect=effect))
        context = ssl.create_default_context(cafile=ce.ca_file)
        connection = await Connection.open(ce.endpoint, context)
        try:
            request = [b"GET /arex/rest HTTP/1.1\r\nHost: x\r\n\r\n"]
            answer = await connection.ask(request, "GET", 0.5)
            assert answer.outcome == outcome
            if outcome == "answered":
                again = await connection.ask(request, "GET", 5)
                assert (again.status, again.body) == (answer.status, answer.body)
        finally:
            await connection.close()
