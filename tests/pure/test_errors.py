"""The exceptions travel between processes and say what they know."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest

import arcbackend
from arcbackend import errors
from arcbackend.errors import (
    AuthenticationError,
    ConfigurationError,
    InterCEdeError,
    ProtocolError,
    SubmissionRefused,
    TransportError,
)

CONTEXT: dict[str, Any] = {
    "ce": "https://ce.example.org:443",
    "operation": "jobs.new",
    "jobs": ("https://ce.example.org:443/arex/rest/1.0/jobs/a",),
    "submission": "arcbackend-123",
}
FULL: list[InterCEdeError] = [
    InterCEdeError("what", **CONTEXT),
    ConfigurationError("what", **CONTEXT),
    SubmissionRefused("what", field="inputs[0].source", **CONTEXT),
    AuthenticationError("what", scope="compute.read", missing_scope=True, **CONTEXT),
    TransportError("what", maybe_done=False, **CONTEXT),
    ProtocolError("what", excerpt=b"\x00<html>\xff", **CONTEXT),
]
BARE: list[InterCEdeError] = [type(error)("what") for error in FULL]
NAMED = pytest.mark.parametrize("error", [*FULL, *BARE], ids=lambda error: type(error).__name__)


def test_every_exception_is_tried() -> None:
    tree = {
        value
        for _, value in inspect.getmembers(errors, inspect.isclass)
        if issubclass(value, BaseException)
    }
    assert tree == {type(error) for error in FULL}
    assert all(issubclass(kind, InterCEdeError) for kind in tree)
    assert {kind.__name__ for kind in tree} <= set(arcbackend.__all__)


def _state(error: InterCEdeError) -> dict[str, Any]:
    return {**vars(error), "str": str(error), "args": error.args, "type": type(error)}


@NAMED
@pytest.mark.parametrize(
    "through",
    [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy],
    ids=["pickle", "copy", "deepcopy"],
)
def test_exceptions_travel_whole(error: InterCEdeError, through: Any) -> None:
    again = through(error)
    assert again is not error
    assert _state(again) == _state(error)


@NAMED
def test_notes_travel(error: InterCEdeError) -> None:
    original = copy.copy(error)
    original.add_note("tried 3 times")
    original.add_note("and no more")
    again = pickle.loads(pickle.dumps(original))
    assert again.__notes__ == ["tried 3 times", "and no more"]
    again.add_note("mine")
    assert original.__notes__ == ["tried 3 times", "and no more"]


def test_what_was_added_later_travels() -> None:
    error = TransportError("what")
    error.jobs = ("a", "b")
    error.submission = "s"
    error.maybe_done = False
    again = pickle.loads(pickle.dumps(error))
    assert (again.jobs, again.submission, again.maybe_done) == (("a", "b"), "s", False)


def test_exceptions_travel_in_a_group() -> None:
    group = ExceptionGroup("g", FULL)
    again = pickle.loads(pickle.dumps(group))
    assert [_state(error) for error in again.exceptions] == [_state(error) for error in FULL]


@NAMED
def test_the_text_begins_with_where_and_says_what(error: InterCEdeError) -> None:
    text = str(error)
    assert "what" in text
    if error.ce:
        assert text.index("jobs.new") < text.index(error.ce) < text.index("what")
    assert "None" not in text


def test_texts() -> None:
    ce, operation = CONTEXT["ce"], CONTEXT["operation"]
    assert str(InterCEdeError("what")) == "what"
    assert str(InterCEdeError("what", ce=ce)) == f"on {ce}: what"
    assert str(InterCEdeError("what", ce=ce, operation=operation)) == f"{operation} on {ce}: what"
    assert str(SubmissionRefused("is bad", field="stdout")) == "stdout: is bad"
    assert str(SubmissionRefused("is bad")) == "is bad"


def test_the_text_names_what_is_left_and_stays_short() -> None:
    few = InterCEdeError("what", jobs=("job-a", "job-b"))
    assert "job-a" in str(few)
    assert "job-b" in str(few)
    many = InterCEdeError("what", jobs=tuple(f"job-{number}" for number in range(10_000)))
    assert "10000" in str(many)
    assert len(str(many)) < 500
    assert len(many.jobs) == 10_000


def test_the_text_names_the_submission_to_look_for() -> None:
    assert "arcbackend-123" in str(TransportError("what", submission="arcbackend-123"))


def test_an_excerpt_is_short() -> None:
    error = ProtocolError("what", excerpt=b"x" * 10**7)
    assert len(error.excerpt) == 200
    assert len(str(error)) < 500
    assert len(pickle.dumps(error)) < 2000


def test_an_excerpt_is_bytes_whatever_it_was() -> None:
    assert ProtocolError("what", excerpt=memoryview(b"abc")).excerpt == b"abc"  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["field", "scope", "missing_scope", "maybe_done", "excerpt"])
def test_particulars_are_documented(name: str) -> None:
    owners = [error for error in FULL if name in vars(error)]
    assert len(owners) == 1
    assert f"{name}:" in (type(owners[0]).__doc__ or "")


def test_the_tree_is_drawn() -> None:
    assert all(type(error).__name__ in (errors.__doc__ or "") for error in FULL)
