"""The forms of job ids and endpoints that are accepted, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from arcbackend import ARCBackend, ARCConfig, BearerToken, JobHandle, JobID, StaticCredentials
from arcbackend.errors import ConfigurationError, InterCEdeError
from arcbackend.jobids import canonical_endpoint, job_id, resolve
from tests.pure.replies import CE

CANONICAL = f"{CE}/arex/rest/1.0/jobs/abc123"


def _handle(id_: str) -> JobHandle:
    return JobHandle(id=JobID(id_), copy_index=0, name="x")


# endpoints


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://ce.example.org:443", "https://ce.example.org:443"),
        ("https://ce.example.org", "https://ce.example.org:443"),
        ("https://ce.example.org/", "https://ce.example.org:443"),
        ("https://ce.example.org:8443/", "https://ce.example.org:8443"),
        ("HTTPS://CE.Example.ORG:8443", "https://ce.example.org:8443"),
        ("https://192.0.2.1:2443", "https://192.0.2.1:2443"),
        ("https://[2001:db8::1]:2443", "https://[2001:db8::1]:2443"),
        ("https://[2001:DB8::1]", "https://[2001:db8::1]:443"),
    ],
)
def test_endpoints_are_made_canonical(url: str, expected: str) -> None:
    assert canonical_endpoint(url) == expected
    assert canonical_endpoint(expected) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ce.example.org",
        "ce.example.org:443",
        "http://ce.example.org",
        "https://",
        "https://:443",
        "https:///arex",
        "https://ce.example.org/arex",
        "https://ce.example.org?x=1",
        "https://ce.example.org#x",
        "https://ce.example.org:99999",
        "https://ce.example.org:0",
        "https://ce.example.org:-1",
        "https://ce.example.org:port",
        "https://[::1",
        "https://[nonsense]:443",
        "https://ce example.org",
        "https://ce.exa\nmple.org",
        "https://ce.example.org\\@evil.example.org",
        "https://ce.example.org:443, https://other",
    ],
)
def test_what_is_no_endpoint(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        canonical_endpoint(url)


WITH_PASSWORD = [
    "https://alice:hunter2@ce.example.org:443",
    "https://alice:hunter2@ce.example.org:99999",
    "https://alice:hunter2@[::1",
    "http://alice:hunter2@ce.example.org",
    "alice:hunter2@ce.example.org:443",
    "https:alice:hunter2@ce.example.org",
    "https:/alice:hunter2@ce.example.org",
    "https://ce.example.org:443/alice:hunter2@",
]


@pytest.mark.parametrize("url", WITH_PASSWORD)
def test_a_password_in_an_endpoint_is_not_quoted(url: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        canonical_endpoint(url)
    assert "hunter2" not in str(caught.value)


@given(st.text(max_size=30).map(lambda rest: f"https://{rest}") | st.text(max_size=30))
@example("https://cé.example.org")
@example("https://ce.example.org%0a")
@example("https://a b")
def test_any_text_is_an_endpoint_or_refused(url: str) -> None:
    try:
        endpoint = canonical_endpoint(url)
    except ValueError:
        return
    assert canonical_endpoint(endpoint) == endpoint
    provider = StaticCredentials(BearerToken(value="t"))
    try:
        ARCBackend(ARCConfig(endpoint=endpoint), provider)
    except InterCEdeError:
        pytest.fail(f"{endpoint!r} was taken for an endpoint, and then refused")


# job ids


@pytest.mark.parametrize(
    "id_",
    [
        CANONICAL,
        f"{CE}/arex/rest/1.1/jobs/abc123",
        f"{CE}/arex/abc123",
        f"{CE}/arex/rest/1.0/jobs/abc123/",
        "https://ce.example.org/arex/rest/1.0/jobs/abc123",
        "https://CE.Example.org/arex/abc123",
        "abc123",
    ],
)
def test_accepted_forms_are_made_canonical(id_: str) -> None:
    assert [ref.id for ref in resolve(CE, [id_])] == [CANONICAL]
    assert [ref.local for ref in resolve(CE, [_handle(id_)])] == ["abc123"]


def test_the_canonical_form_is_what_the_ces_own_client_prints() -> None:
    assert job_id(CE, "abc123") == CANONICAL


def test_ids_on_an_ipv6_ce() -> None:
    endpoint = "https://[2001:db8::1]:2443"
    refs = resolve(endpoint, [f"{endpoint}/arex/rest/1.1/jobs/a", "a", "b"])
    assert [ref.id for ref in refs] == [
        f"{endpoint}/arex/rest/1.0/jobs/a",
        f"{endpoint}/arex/rest/1.0/jobs/b",
    ]


def test_each_distinct_job_once_in_the_order_asked() -> None:
    asked: list[str | JobHandle] = [
        "c",
        "a",
        _handle(f"{CE}/arex/c"),
        f"{CE}/arex/rest/1.1/jobs/a",
        "b",
        "c",
    ]
    assert [ref.local for ref in resolve(CE, asked)] == ["c", "a", "b"]


def test_case_tells_ids_apart() -> None:
    assert [ref.local for ref in resolve(CE, ["aB", "Ab"])] == ["aB", "Ab"]


def test_no_ids() -> None:
    assert resolve(CE, []) == []


@pytest.mark.parametrize(
    "id_",
    [
        "https://other.example.org:443/arex/rest/1.0/jobs/abc",
        "https://other.example.org/arex/abc",
        "https://ce.example.org:8443/arex/abc",
    ],
)
def test_a_job_of_another_ce_is_refused_naming_it(id_: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve(CE, ["fine", id_])
    assert canonical_endpoint(id_.partition("/arex")[0]) in str(caught.value)
    assert caught.value.ce == CE


@pytest.mark.parametrize("ids", ["abc", _handle("abc")])
def test_a_single_id_is_no_sequence(ids: str | JobHandle) -> None:
    with pytest.raises(ConfigurationError, match="sequence"):
        resolve(CE, ids)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "id_",
    [
        "",
        " ",
        ".",
        "..",
        "../x",
        "a/b",
        "/abc",
        "abc\n",
        "a b",
        "a?b",
        "é",
        "\0",
        "\ud800",
        "%2e%2e",
        f"{CE}/arex/rest/1.0/jobs/",
        f"{CE}/arex/rest/1.0/jobs/..",
        f"{CE}/arex/rest/1.0/jobs/../x",
        f"{CE}/arex/rest/1.0/jobs/a/session/x",
        f"{CE}/arex/rest/1.0/jobs/a?action=kill",
        f"{CE}/arex/rest/1.0/jobs/a#b",
        f"{CE}/arex/rest/1.0/jobs/ab\ncd",
        f"{CE}/arex/rest/1.0/jobs/ab\tcd",
        f"{CE}/arex/rest/x.y/jobs/a",
        f"{CE}/other/abc",
        f"{CE}",
        "http://ce.example.org:443/arex/abc",
        "gsiftp://ce.example.org:2811/jobs/abc",
        "//ce.example.org:443/arex/abc",
        "https:///arex/abc",
        "https://ce.example.org:port/arex/abc",
        "https://[::1/arex/abc",
        "https://[bad]/arex/abc",
    ],
)
def test_hostile_ids_are_refused(id_: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve(CE, ["fine", id_])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("id_", ["x" * 10_000, f"{CE}/arex/rest/1.0/jobs/{'x' * 10_000}"])
def test_an_endless_id_is_refused_in_few_words(id_: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve(CE, [id_])
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    "id_",
    [
        "https://alice:hunter2@ce.example.org:443/arex/rest/1.0/jobs/abc",
        "https://alice:hunter2@other.example.org/arex/abc",
        "https://alice:hunter2@ce.example.org/nothing",
        "http://alice:hunter2@ce.example.org/arex/abc",
        "https://alice:hunter2@ce.example.org:99999/arex/abc",
        "alice:hunter2@ce.example.org/arex/abc",
    ],
)
def test_a_password_in_an_id_is_not_quoted(id_: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve(CE, [id_])
    assert "hunter2" not in str(caught.value)


@given(st.text(max_size=40) | st.text(max_size=20).map(lambda tail: f"{CE}/arex/{tail}"))
@example("https://[")
def test_any_text_is_an_id_or_refused(id_: str) -> None:
    try:
        (ref,) = resolve(CE, [id_])
    except ConfigurationError:
        return
    assert id_.rstrip("/").endswith(ref.local)
    assert resolve(CE, [ref.id]) == [ref]
