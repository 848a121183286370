"""The public values: frozen, strict about fields, silent about secrets."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretBytes, ValidationError

import arcbackend
from arcbackend import (
    BearerToken,
    CopyVars,
    CredentialSet,
    FileRef,
    FileTail,
    JobHandle,
    JobID,
    JobStatus,
    OpOutcome,
    OutputMember,
    OutputSpec,
    Resources,
    Submission,
    SubmissionSpec,
    X509Proxy,
)

ID = JobID("https://ce.example.org:443/arex/rest/1.0/jobs/abc")
HANDLE = JobHandle(id=ID, copy_index=3, name="n.3", stdout="out")
SECRET = "hunter2-hunter2"
EVENT: dict[str, Any] = {
    "ce": "https://ce",
    "sequence": 1,
    "seen_at": datetime(2026, 1, 1, tzinfo=UTC),
}

# One of every public model, made from the least it needs.
LEAST: dict[str, dict[str, Any]] = {
    "ARCConfig": {"endpoint": "https://ce.example.org"},
    "Batches": {},
    "BearerToken": {"value": "t"},
    "CEBack": {**EVENT, "away_since": EVENT["seen_at"]},
    "CEUnreachable": {**EVENT, "seen_by": "listing", "reason": "why"},
    "CopyVars": {},
    "CredentialRequirements": {"resource": "https://ce.example.org:443", "kinds": ["token"]},
    "CredentialSet": {},
    "Delegation": {},
    "DelegationFailing": {**EVENT, "reason": "why", "tries": 1},
    "DelegationRenewed": {**EVENT, "delegation": "abc", "expires_at": EVENT["seen_at"]},
    "EventsMissed": {**EVENT, "count": 1},
    "FileRef": {"name": "a", "source": "/a"},
    "Diagnostics": {},
    "FileTail": {},
    "HoldPolicy": {},
    "JobEvent": {
        **EVENT,
        "id": ID,
        "source": "tracked",
        "dest": "running",
        "status_before": "unknown",
        "status_after": "running",
        "arc_state": "RUNNING",
        "seen_by": "documents",
    },
    "JobCounts": {},
    "JobDetails": {},
    "JobHandle": {"id": ID, "copy_index": 0, "name": "n"},
    "JobOutput": {},
    "KillPolicy": {},
    "Limits": {},
    "LostPolicy": {},
    "OpOutcome": {"ok": True},
    "OutputMember": {"pattern": "a"},
    "OutputPolicy": {},
    "OutputSpec": {},
    "Policy": {},
    "RefusedMember": {"name": "a", "reason": "why"},
    "PollerSnapshot": {"ce": "https://ce", "taken_at": EVENT["seen_at"], "sequence": 0, "jobs": ()},
    "Polling": {},
    "PurgePolicy": {},
    "Resources": {},
    "Retries": {},
    "ShareCounts": {"name": "a", "queue": "a"},
    "Submission": {},
    "SubmissionSpec": {"executable": "/bin/true"},
    "Timeouts": {},
    "X509Proxy": {"pem": "p"},
}
MODELS: dict[str, type[BaseModel]] = {
    name: value
    for name in arcbackend.__all__
    if inspect.isclass(value := getattr(arcbackend, name)) and issubclass(value, BaseModel)
}
EVERY = pytest.mark.parametrize("name", MODELS)


def test_every_public_model_is_tried() -> None:
    assert set(MODELS) == set(LEAST)


@EVERY
def test_frozen(name: str) -> None:
    model = MODELS[name](**LEAST[name])
    for field in MODELS[name].model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(model, field, getattr(model, field))


@EVERY
def test_unknown_fields_are_refused_by_name(name: str) -> None:
    with pytest.raises(ValidationError, match="surprise"):
        MODELS[name](**LEAST[name], surprise=1)


@EVERY
def test_every_field_is_documented(name: str) -> None:
    undocumented = [
        field for field, info in MODELS[name].model_fields.items() if not info.description
    ]
    assert undocumented == []


@EVERY
def test_the_input_is_not_quoted_in_a_validation_error(name: str) -> None:
    for field in MODELS[name].model_fields:
        with pytest.raises(ValidationError) as caught:
            MODELS[name](**{**LEAST[name], field: {"key": [SECRET]}, "surprise": SECRET})
        assert SECRET not in str(caught.value)


@EVERY
def test_models_pickle(name: str) -> None:
    model = MODELS[name](**LEAST[name])
    assert pickle.loads(pickle.dumps(model)) == model


def test_the_callers_collections_are_not_ours() -> None:
    environment = {"A": "1"}
    arguments = ["x"]
    spec = SubmissionSpec(executable="/x", arguments=arguments, environment=environment)
    environment["A"] = "2"
    arguments.append("y")
    assert spec.environment == {"A": "1"}
    assert spec.arguments == ("x",)


@given(st.builds(FileTail, name=st.none() | st.text(), data=st.binary(), size=st.integers(0)))
def test_a_tail_survives_json(tail: FileTail) -> None:
    """Whatever bytes a payload writes."""
    assert FileTail.model_validate_json(tail.model_dump_json()) == tail
    tail.text.encode()


# job handles


@given(
    st.builds(
        JobHandle,
        id=st.text(min_size=1).map(JobID),
        copy_index=st.integers(0, 10**9),
        name=st.text(),
        stdout=st.none() | st.text(),
        stderr=st.none() | st.text(),
    )
)
def test_a_handle_survives_json(handle: JobHandle) -> None:
    assert JobHandle.model_validate_json(handle.model_dump_json()) == handle


def test_a_handle_is_a_key() -> None:
    same = JobHandle.model_validate_json(HANDLE.model_dump_json())
    assert {HANDLE: 1}[same] == 1


@pytest.mark.parametrize("index", [-1, 1.5, None])
def test_a_copy_index_is_a_natural_number(index: Any) -> None:
    with pytest.raises(ValidationError):
        JobHandle(id=ID, copy_index=index, name="n")


def test_a_submission_survives_json() -> None:
    submission = Submission(handles=(HANDLE,), failures={1: "why", 7: "not"})
    assert Submission.model_validate_json(submission.model_dump_json()) == submission


# specs


def test_a_spec_survives_json() -> None:
    spec = SubmissionSpec(
        executable="run",
        arguments=("a", "", "é\n"),
        inputs=(FileRef(name="run", source=Path("/run")),),
        outputs=OutputSpec(members=(OutputMember(pattern="d/"),), include_unlisted=True),
        resources=Resources(cpus=2, memory_mb=3, wall_time_s=4, queue="q"),
        environment={"A": ""},
        stdout=None,
        tag="t",
    )
    assert SubmissionSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize("source", ["https://h//a%20b?c=d", "root://h//a", "/a/b", "a", Path("/a")])
@pytest.mark.parametrize("through", ["json", "python", "json text"])
def test_a_source_means_the_same_after_a_round_trip(source: str | Path, through: str) -> None:
    ref = FileRef(name="a", source=source)
    if through == "json text":
        again = FileRef.model_validate_json(ref.model_dump_json())
    else:
        again = FileRef.model_validate(ref.model_dump(mode=through))
    assert (again.url, again.path) == (ref.url, ref.path)


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (SubmissionSpec, {"executable": ""}),
        (SubmissionSpec, {"executable": "/a\0b"}),
        (SubmissionSpec, {"executable": "/a", "arguments": ["\0"]}),
        (SubmissionSpec, {"executable": "/a", "environment": {"A": "\0"}}),
        (SubmissionSpec, {"executable": "/a", "stdout": "\0"}),
        (SubmissionSpec, {"executable": "/a", "stderr": "\0"}),
        (SubmissionSpec, {"executable": "/a", "tag": ""}),
        (SubmissionSpec, {"executable": "/a", "tag": "a b"}),
        (SubmissionSpec, {"executable": "/a", "tag": "x" * 65}),
        (SubmissionSpec, {"executable": "/a", "tag": "x\n"}),
        (SubmissionSpec, {"executable": "/a", "arguments": "one string"}),
        (SubmissionSpec, {"executable": "/a", "arguments": [1]}),
        (FileRef, {"name": "\0", "source": "/a"}),
        (OutputMember, {"pattern": "\0"}),
        (CopyVars, {"environment": {"A": "\0"}}),
        (CopyVars, {"secrets": {"\0": b""}}),
        (Resources, {"cpus": 0}),
        (Resources, {"memory_mb": 0}),
        (Resources, {"wall_time_s": 0}),
    ],
)
def test_values_out_of_bounds(model: type[BaseModel], fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        model(**fields)


@pytest.mark.parametrize(
    ("source", "is_url"),
    [
        ("/a/b", False),
        ("a", False),
        ("https://h/a", True),
        ("root://h//a", True),
        ("file:///a", True),
        ("a:b", False),
    ],
)
def test_a_source_is_a_path_or_a_url(source: str, is_url: bool) -> None:
    ref = FileRef(name="a", source=source)
    assert (ref.url == source) is is_url
    assert (ref.path is None) is is_url
    assert is_url or str(ref.path) == source


# statuses


@pytest.mark.parametrize("status", JobStatus)
def test_final_statuses(status: JobStatus) -> None:
    assert status.is_final == (status.name in {"DONE", "FAILED", "ABORTED"})


def test_the_contracts_statuses() -> None:
    assert {status.name for status in JobStatus} >= {
        "WAITING",
        "RUNNING",
        "HELD",
        "DONE",
        "FAILED",
        "ABORTED",
        "UNKNOWN",
    }


# secrets

SECRETIVE: Mapping[str, BaseModel] = {
    "CopyVars": CopyVars(secrets={"token": SecretBytes(SECRET.encode())}),
    "BearerToken": BearerToken(value=SECRET),
    "X509Proxy": X509Proxy(pem=SECRET.encode()),
    "CredentialSet": CredentialSet(
        token=BearerToken(value=SECRET),
        proxy=X509Proxy(pem=SECRET.encode()),
    ),
}


@pytest.mark.parametrize("name", SECRETIVE)
def test_secrets_are_printed_nowhere(name: str) -> None:
    model = SECRETIVE[name]
    shown = [
        repr(model),
        str(model),
        f"{model}",
        repr([model]),
        model.model_dump_json(),
        repr(model.model_dump()),
        repr(model.model_dump(mode="json")),
    ]
    assert not [text for text in shown if SECRET in text]
    assert pickle.loads(pickle.dumps(model)) == model


def test_a_secret_that_is_no_text_can_be_dumped() -> None:
    copy = CopyVars(secrets={"key": SecretBytes(b"\xff\x00\xfe")})
    assert "key" in copy.model_dump_json()


def test_secrets_are_had_on_request() -> None:
    copy = CopyVars(secrets={"token": SECRET.encode()})
    assert copy.secrets["token"].get_secret_value() == SECRET.encode()


def test_an_outcome_needs_no_reason() -> None:
    assert OpOutcome(ok=False).reason is None


@pytest.mark.parametrize("queue", ["", "q\x00", "q\x01", "\ud800", "a b", "é"])
def test_a_queue_that_no_description_can_carry(queue: str) -> None:
    with pytest.raises(ValidationError):
        Resources(queue=queue)
