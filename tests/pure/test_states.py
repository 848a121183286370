"""What each ARC state means, and which of two reports holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcbackend import JobStatus
from arcbackend.states import LIVE_LATE_STATES, STATUS, TERMINAL, UNKNOWN_JOB, later

# In the words of the servers, in the order of a job's life (arc-rest.md).
PUBLISHED = [
    "ACCEPTING",
    "ACCEPTED",
    "PREPARING",
    "PREPARED",
    "SUBMITTING",
    "QUEUING",
    "RUNNING",
    "HELD",
    "EXITINGLRMS",
    "OTHER",
    "EXECUTED",
    "FINISHING",
    "KILLING",
    "FINISHED",
    "FAILED",
    "KILLED",
    "WIPED",
]
BATCH = ["QUEUING", "RUNNING", "HELD", "EXITINGLRMS", "OTHER"]
BEFORE_THE_END = PUBLISHED[: PUBLISHED.index("FINISHED")]

documented = st.sampled_from([*PUBLISHED, UNKNOWN_JOB]) | st.text(max_size=20)
live = st.sampled_from([None, *LIVE_LATE_STATES])


def _stage(state: str) -> int:
    """How far a job has come: the batch system's states are one stage, so are the ends."""
    if state in BATCH:
        return PUBLISHED.index("QUEUING")
    if state in TERMINAL:
        return PUBLISHED.index("FINISHED")
    return PUBLISHED.index(state) if state in PUBLISHED else -1


@pytest.mark.parametrize("state", [*PUBLISHED, UNKNOWN_JOB])
def test_every_published_state_has_a_status(state: str) -> None:
    assert isinstance(STATUS[state], JobStatus)


def test_the_table_has_nothing_else() -> None:
    assert set(STATUS) == {*PUBLISHED, UNKNOWN_JOB}


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("ACCEPTING", JobStatus.WAITING),
        ("QUEUING", JobStatus.WAITING),
        ("RUNNING", JobStatus.RUNNING),
        ("HELD", JobStatus.HELD),
        ("FINISHING", JobStatus.RUNNING),
        ("KILLING", JobStatus.RUNNING),
        ("FINISHED", JobStatus.DONE),
        ("FAILED", JobStatus.FAILED),
        ("KILLED", JobStatus.ABORTED),
        ("WIPED", JobStatus.UNKNOWN),
        ("None", JobStatus.UNKNOWN),
    ],
)
def test_what_states_mean(state: str, status: JobStatus) -> None:
    assert STATUS[state] is status


def test_exactly_the_terminal_states_are_final() -> None:
    assert {state for state in STATUS if STATUS[state].is_final} == TERMINAL


def test_every_status_can_occur() -> None:
    assert set(STATUS.values()) == set(JobStatus)


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        STATUS["X"] = JobStatus.DONE  # type: ignore[index]


# later


@given(documented, live)
def test_the_answer_is_one_of_the_two(doc: str, seen: str | None) -> None:
    assert later(doc, seen) in (doc, seen)


@given(documented, live)
def test_it_never_goes_back(doc: str, seen: str | None) -> None:
    answer = later(doc, seen)
    if doc == UNKNOWN_JOB:
        assert answer == UNKNOWN_JOB
    else:
        assert _stage(answer) >= _stage(doc)
        assert seen is None or _stage(answer) >= _stage(seen)


@given(documented)
def test_without_a_live_report_the_document_holds(doc: str) -> None:
    assert later(doc, None) == doc


@given(live)
def test_an_id_unknown_to_the_documents_is_unknown(seen: str | None) -> None:
    assert later(UNKNOWN_JOB, seen) == UNKNOWN_JOB


@given(documented, live)
def test_it_is_settled_at_once(doc: str, seen: str | None) -> None:
    assert later(later(doc, seen), seen) == later(doc, seen)


@pytest.mark.parametrize("end", sorted(TERMINAL))
@pytest.mark.parametrize("doc", BEFORE_THE_END)
def test_a_live_end_beats_every_older_document(doc: str, end: str) -> None:
    assert later(doc, end) == end


@pytest.mark.parametrize("end", sorted(TERMINAL))
@pytest.mark.parametrize("seen", [state for state in LIVE_LATE_STATES if state != "WIPED"])
def test_a_documented_end_stays(end: str, seen: str) -> None:
    assert later(end, seen) == end


def test_killed_is_known_from_the_documents() -> None:
    assert later("KILLED", "FAILED") == "KILLED"


@pytest.mark.parametrize("doc", BATCH)
@pytest.mark.parametrize("seen", LIVE_LATE_STATES)
def test_past_the_batch_system_the_live_report_holds(doc: str, seen: str) -> None:
    assert later(doc, seen) == seen


def test_a_state_unheard_of_gives_way_to_one_that_is_known() -> None:
    assert later("HIBERNATING", "FINISHED") == "FINISHED"
    assert later("HIBERNATING", None) == "HIBERNATING"
