"""How a submission is cut into requests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import SecretBytes

from arcbackend import (
    Batches,
    ConfigurationError,
    CopyVars,
    FileRef,
    Resources,
    SubmissionRefused,
    SubmissionSpec,
)
from arcbackend.plan import Chunk, Plan, copy_index
from arcbackend.protocol.requests import RequestBuilder, RestVersion

ADL = "{http://www.eu-emi.eu/es/2010/12/adl}"
NORDUGRID_ADL = "{http://www.nordugrid.org/es/2011/12/nordugrid-adl}"
SPEC = SubmissionSpec(executable="/bin/true", environment={"A": "spec", "B": "spec"})
TOKEN = "0123456789abcdef"
SECRET = b"hunter2-hunter2"


def _plan(
    count: int = 1,
    copies: Sequence[CopyVars] | None = None,
    *,
    spec: SubmissionSpec = SPEC,
    queue: str | None = None,
) -> Plan:
    return Plan.check(spec, count, copies, token=TOKEN, queue=queue)


def _chunks(plan: Plan, version: RestVersion = "1.1", **batches: int) -> list[Chunk]:
    return list(plan.chunks(RequestBuilder(version), Batches(**batches)))


def _described(chunk: Chunk) -> list[ET.Element]:
    assert chunk.request.body is not None
    root = ET.fromstring(chunk.request.body)
    return [root] if root.tag == f"{ADL}ActivityDescription" else list(root)


def _names(chunk: Chunk) -> list[str | None]:
    return [one.findtext(f"{ADL}ActivityIdentification/{ADL}Name") for one in _described(chunk)]


def _environment(description: ET.Element) -> dict[str | None, str | None]:
    return {
        pair.findtext(f"{ADL}Name"): pair.findtext(f"{ADL}Value")
        for pair in description.findall(f"{ADL}Application/{ADL}Environment")
    }


def _instances(chunk: Chunk) -> int:
    found = re.search(r"[?&]instances=(\d+)", chunk.request.target)
    return int(found[1]) if found else 1


# chunks


@settings(max_examples=40)
@given(
    count=st.integers(1, 150),
    distinct=st.booleans(),
    version=st.sampled_from(["1.0", "1.1"]),
    descriptions=st.integers(1, 50),
    instances=st.integers(1, 200),
    size=st.integers(16 * 1024, 64 * 1024),
)
@example(count=1, distinct=False, version="1.1", descriptions=1, instances=1, size=16 * 1024)
@example(count=201, distinct=True, version="1.1", descriptions=200, instances=1000, size=16 * 1024)
def test_chunks_cover_every_copy_once_in_order_within_the_limits(
    *,
    count: int,
    distinct: bool,
    version: RestVersion,
    descriptions: int,
    instances: int,
    size: int,
) -> None:
    copies = [CopyVars(environment={"COPY": str(n)}) for n in range(count)] if distinct else None
    plan = _plan(1 if distinct else count, copies)
    chunks = _chunks(
        plan, version, descriptions=descriptions, instances=instances, description_bytes=size
    )
    assert [copy for chunk in chunks for copy in chunk.copies] == list(range(count))
    for chunk in chunks:
        assert chunk.copies
        assert chunk.request.ids == len(chunk.copies)
        assert not chunk.request.idempotent
        found = _described(chunk)
        assert len(found) * _instances(chunk) == len(chunk.copies)
        assert len(found) == 1 or "instances" not in chunk.request.target
        assert len(found) <= descriptions
        assert _instances(chunk) <= instances
        # What wraps several descriptions comes on top.
        assert len(found) == 1 or len(chunk.request.body or b"") <= size + 200
        if distinct:
            assert [_environment(one)["COPY"] for one in found] == list(map(str, chunk.copies))
            assert _names(chunk) == [f"{plan.name}.{copy}" for copy in chunk.copies]
        else:
            assert set(_names(chunk)) == {plan.name}


@pytest.mark.parametrize("distinct", [False, True])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_every_job_gets_the_delegation(version: RestVersion, distinct: bool) -> None:
    copies = [CopyVars(environment={"COPY": str(n)}) for n in range(5)] if distinct else None
    plan = _plan(1 if distinct else 5, copies)
    builder = RequestBuilder(version)
    chunks = list(plan.chunks(builder, Batches(descriptions=2, instances=2), "d1"))
    assert len(chunks) == 3
    place = f"{ADL}DataStaging/{NORDUGRID_ADL}DelegationID"
    for chunk in chunks:
        written = [one.findtext(place) for one in _described(chunk)]
        assert set(written) == ({"d1"} if version == "1.0" else {None})
        assert ("delegation_id=d1" in chunk.request.target.split("&")) == (version == "1.1")


def test_one_large_description_is_still_sent() -> None:
    spec = SubmissionSpec(executable="/bin/true", arguments=["x" * 30_000])
    chunks = _chunks(_plan(3, spec=spec), "1.0", description_bytes=16 * 1024)
    assert [list(chunk.copies) for chunk in chunks] == [[0], [1], [2]]


def test_like_copies_by_instances_where_the_ce_can() -> None:
    plan = _plan(2500)
    (first, *_, last) = chunks = _chunks(plan, "1.1", instances=1000)
    assert [len(chunk.copies) for chunk in chunks] == [1000, 1000, 500]
    assert "instances=1000" in first.request.target
    assert "instances=500" in last.request.target
    # Some are better than none.
    assert "instances_min=1" in first.request.target


def test_a_single_copy_asks_for_no_instances() -> None:
    (chunk,) = _chunks(_plan(1))
    assert chunk.request.target.endswith("?action=new")


def test_rest_1_0_knows_no_instances() -> None:
    chunks = _chunks(_plan(5), "1.0")
    assert all("instances" not in chunk.request.target for chunk in chunks)
    assert all(chunk.request.target.startswith("/arex/rest/1.0/") for chunk in chunks)
    assert sum(len(_described(chunk)) for chunk in chunks) == 5


def test_chunks_are_made_when_wanted() -> None:
    chunks = _plan(10**6).chunks(RequestBuilder("1.0"), Batches())
    assert next(iter(next(iter(chunks)).copies)) == 0


# what each copy is given


def test_a_copys_environment_is_stronger() -> None:
    copies = [CopyVars(environment={"B": "copy", "C": "copy"}), CopyVars()]
    (chunk,) = _chunks(_plan(copies=copies))
    first, second = _described(chunk)
    assert _environment(first) == {"A": "spec", "B": "copy", "C": "copy"}
    assert _environment(second) == {"A": "spec", "B": "spec"}


def test_secrets_are_declared_by_name_only() -> None:
    copies = [CopyVars(secrets={"token": SecretBytes(SECRET)}), CopyVars()]
    plan = _plan(copies=copies)
    (chunk,) = _chunks(plan)
    names = [
        [file.findtext(f"{ADL}Name") for file in one.findall(f"{ADL}DataStaging/{ADL}InputFile")]
        for one in _described(chunk)
    ]
    assert names == [["token"], []]
    assert SECRET not in (chunk.request.body or b"")
    for thing in (plan, chunk, chunk.request, copies):
        assert "hunter2" not in repr(thing)
        assert "hunter2" not in str(thing)


@pytest.mark.parametrize(
    ("own", "default", "expected"),
    [(None, None, None), (None, "d", "d"), ("o", None, "o"), ("o", "d", "o")],
)
def test_the_queue(own: str | None, default: str | None, expected: str | None) -> None:
    spec = SubmissionSpec(executable="/bin/true", resources=Resources(queue=own))
    (chunk,) = _chunks(_plan(spec=spec, queue=default))
    assert _described(chunk)[0].findtext(f"{ADL}Resources/{ADL}QueueName") == expected


def test_the_name_begins_with_the_tag() -> None:
    assert _plan().name == f"arcbackend-{TOKEN}"
    tagged = SubmissionSpec(executable="/bin/true", tag="pilot")
    assert _plan(spec=tagged).name == f"pilot-{TOKEN}"


# what is refused


@pytest.mark.parametrize(
    ("count", "copies"),
    [
        (0, None),
        (-1, None),
        (2, [CopyVars()]),
        (3, [CopyVars(), CopyVars()]),
        (0, [CopyVars()]),
        (1, []),
        (0, []),
    ],
)
def test_counts_that_do_not_fit(count: int, copies: list[CopyVars] | None) -> None:
    with pytest.raises(ConfigurationError, match="cop"):
        _plan(count, copies)


@pytest.mark.parametrize("count", [1, 2])
def test_counts_that_fit(count: int) -> None:
    assert _plan(count, [CopyVars(), CopyVars()]).count == 2


RUN = SubmissionSpec(
    executable="run",
    inputs=(FileRef(name="run", source="/bin/true"), FileRef(name="d/x", source="/bin/true")),
    stdout="out",
)


@pytest.mark.parametrize(
    ("copy", "field"),
    [
        ({"environment": {"1A": "x"}}, "copies[1].environment['1A']"),
        ({"environment": {"A": "x" * 200_000}}, "copies[1].environment['A']"),
        ({"secrets": {"../x": b"s"}}, "copies[1].secrets['../x']"),
        ({"secrets": {"a b\n": b"s"}}, "copies[1].secrets['a b\\n']"),
        ({"secrets": {"d/x": b"s"}}, "copies[1].secrets['d/x']"),
        ({"secrets": {"run": b"s"}}, "copies[1].secrets['run']"),
        ({"secrets": {"big": b"hunter2" * 200_000}}, "copies[1].secrets['big']"),
        ({"secrets": {"out": b"s"}}, "copies[1].secrets['out']"),
        ({"secrets": {"d": b"s"}}, "copies[1].secrets['d']"),
    ],
)
def test_a_fault_of_a_copy_names_it(copy: dict[str, Any], field: str) -> None:
    with pytest.raises(SubmissionRefused) as caught:
        _plan(copies=[CopyVars(), CopyVars(**copy)], spec=RUN)
    assert caught.value.field == field
    assert "hunter2" not in str(caught.value)


def test_a_fault_of_the_spec_names_its_field() -> None:
    with pytest.raises(SubmissionRefused) as caught:
        _plan(5, spec=SubmissionSpec(executable="missing"))
    assert caught.value.field == "executable"


def test_an_environment_too_large_with_a_copys_is_refused() -> None:
    """Either half would fit, but no process can be given both: execve(2), E2BIG."""
    half = {f"V{number}": "x" * 100_000 for number in range(15)}
    other = {f"W{number}": "x" * 100_000 for number in range(15)}
    spec = SubmissionSpec(executable="/bin/true", environment=half)
    with pytest.raises(SubmissionRefused):
        _plan(copies=[CopyVars(environment=other)], spec=spec)


# the copy index in a name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("s.0", 0),
        ("s.17", 17),
        ("s", None),
        ("s.", None),
        ("s.x", None),
        ("s.-1", None),
        ("s.1.2", None),
        ("other.1", None),
        ("s.٣", None),
        ("s.²", None),
        ("ss.1", None),
    ],
)
def test_copy_index(name: str, expected: int | None) -> None:
    assert copy_index("s", name) == expected


@given(st.text(max_size=20).map(lambda tail: f"s.{tail}"))
@example("s." + "9" * 10_000)
def test_copy_index_of_any_name_a_ce_reports(name: str) -> None:
    index = copy_index("s", name)
    assert index is None or index >= 0
