"""Requests as they go on the wire."""

from __future__ import annotations

import json
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from arcbackend.protocol.messages import Request, Scope
from arcbackend.protocol.requests import RequestBuilder, id_batches, versions
from tests.pure.replies import BUILDER, REQUESTS

MIB = 2**20
ON_IDS = [BUILDER.status, BUILDER.info, BUILDER.kill, BUILDER.clean]
VERSIONS = [RequestBuilder("1.0"), RequestBuilder("1.1")]


def _asked(request: Request) -> list[str]:
    assert request.body is not None
    document = json.loads(request.body)
    assert list(document) == ["job"]
    return [item["id"] for item in document["job"]]


@pytest.mark.parametrize("build", ON_IDS)
def test_an_id_list_is_of_exactly_this_type(build: object) -> None:
    assert callable(build)
    request = build(["a"])
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Accept"] == "application/json"


@pytest.mark.parametrize(
    ("request_", "method", "target", "scope", "idempotent"),
    [
        (versions(), "GET", "/arex/rest", None, True),
        (BUILDER.list_jobs(), "GET", "/arex/rest/1.1/jobs", Scope.READ, True),
        (
            BUILDER.list_jobs(["FINISHED", "FAILED"]),
            "GET",
            "/arex/rest/1.1/jobs?state=FINISHED,FAILED",
            Scope.READ,
            True,
        ),
        (BUILDER.status(["a"]), "POST", "/arex/rest/1.1/jobs?action=status", Scope.READ, True),
        (BUILDER.info(["a"]), "POST", "/arex/rest/1.1/jobs?action=info", Scope.READ, True),
        (BUILDER.kill(["a"]), "POST", "/arex/rest/1.1/jobs?action=kill", Scope.CANCEL, True),
        (BUILDER.clean(["a"]), "POST", "/arex/rest/1.1/jobs?action=clean", Scope.CANCEL, True),
        (
            BUILDER.put_file("a", "d/f"),
            "PUT",
            "/arex/rest/1.1/jobs/a/session/d/f",
            Scope.MODIFY,
            True,
        ),
        (
            BUILDER.diagnose("a", "failed"),
            "GET",
            "/arex/rest/1.1/jobs/a/diagnose/failed",
            Scope.READ,
            True,
        ),
        (
            BUILDER.new_jobs(b"<x/>", language="adl", copies=1),
            "POST",
            "/arex/rest/1.1/jobs?action=new",
            Scope.CREATE,
            False,
        ),
        (
            BUILDER.new_jobs(b"<x/>", language="adl", copies=9, instances=9, instances_min=1),
            "POST",
            "/arex/rest/1.1/jobs?action=new&instances=9&instances_min=1",
            Scope.CREATE,
            False,
        ),
    ],
)
def test_request_lines(
    request_: Request, method: str, target: str, scope: Scope | None, idempotent: bool
) -> None:
    assert (request_.method, request_.target) == (method, target)
    assert (request_.scope, request_.idempotent) == (scope, idempotent)


def test_descriptions_are_typed_by_their_language() -> None:
    for language, kind in (("adl", "application/xml"), ("xrsl", "application/rsl")):
        request = BUILDER.new_jobs(b"x", language=language, copies=1)  # type: ignore[arg-type]
        assert request.headers["Content-Type"] == kind
        assert request.body == b"x"


def test_instances_need_rest_1_1() -> None:
    with pytest.raises(ValueError, match=r"1\.1"):
        RequestBuilder("1.0").new_jobs(b"x", language="adl", copies=2, instances=2)


@pytest.mark.parametrize("builder", VERSIONS)
def test_every_target_speaks_the_builders_version(builder: RequestBuilder) -> None:
    for request in (
        builder.list_jobs(),
        builder.new_jobs(b"x", language="adl", copies=1),
        builder.status(["a"]),
        builder.put_file("a", "b"),
        builder.diagnose("a", "failed"),
    ):
        assert request.target.startswith(f"/arex/rest/{builder.version}/jobs")
    assert builder.new_delegation().target.startswith(f"/arex/rest/{builder.version}/delegations")


def test_bodies_are_in_no_repr() -> None:
    assert all("secret-text" not in repr(request) for request in REQUESTS.values())
    assert "secret-text" not in repr(BUILDER.new_jobs(b"secret-text", language="adl", copies=1))


# id_batches

ids = st.builds(
    lambda count, widths: [f"{number:0{widths[number % len(widths)]}d}" for number in range(count)],
    st.integers(0, 30_000),
    st.lists(st.integers(6, 200), min_size=1, max_size=5),
)


@settings(max_examples=30)
@given(ids=ids, most=st.integers(1, 40_000))
@example([f"{number:0200d}" for number in range(10_000)], 40_000)
@example([f"{number:054d}" for number in range(40_000)], 40_000)
@example(["a"], 1)
@example([], 5)
def test_batches_cover_all_ids_in_order_within_the_limits(ids: list[str], most: int) -> None:
    batches = list(id_batches(ids, most))
    requests = [BUILDER.status(batch) for batch in batches]
    assert [local for request in requests for local in _asked(request)] == ids
    for batch, request in zip(batches, requests, strict=True):
        assert 1 <= len(batch) <= most
        assert request.ids == len(batch)
        assert request.body is not None
        assert len(request.body) < MIB


def test_batches_are_evenly_long_and_few() -> None:
    lengths = [
        len(batch) for batch in id_batches([str(number) for number in range(10_001)], 10_000)
    ]
    assert len(lengths) == 2
    assert max(lengths) - min(lengths) <= 1


def test_a_list_that_the_ce_would_cut_is_not_built() -> None:
    with pytest.raises(ValueError, match="id list"):
        BUILDER.status(["x" * 200] * 6000)


# put_file

HOSTILE_NAMES = [
    "a?b",
    "a;b",
    "a#b",
    "a%2e%2e%2fb",
    "../../etc/passwd",
    "a\nb",
    "a\r\nX-Evil: 1",
    "a b",
    "é/ü",
    "日本",
    "a\\b",
    "\"<>&'",
    "-dash",
    "..foo",
    "a//b",
    "\x01\x7f",
    "?",
]


def _put(name: str) -> None:
    request = BUILDER.put_file("job1", name)
    target = request.target
    assert target.isascii()
    assert target.isprintable()
    assert not set(" ?;#") & set(target)
    head = "/arex/rest/1.1/jobs/job1/session/"
    assert target.startswith(head)
    assert unquote_to_bytes(target.removeprefix(head)) == name.encode()


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names_are_escaped(name: str) -> None:
    _put(name)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_name_is_escaped(name: str) -> None:
    _put(name)
