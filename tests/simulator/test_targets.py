"""Targets are taken apart as A-REX does it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcbackend.simulator.targets import next_token, operation_of, read

REST = b"/arex/rest/1.1"


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/arex/rest", "/rest", {}),
        (b"/arex/rest?x=1", "/rest", {"x": "1"}),
        (b"/arex/a%2fb%20c", "/a/b c", {}),
        (b"/arex/a?x=%26&y=a%3db&z", "/a", {"x": "&", "y": "a=b", "z": ""}),
        (b"/arex/a?x=1&x=2", "/a", {"x": "1"}),
        (b"/arex/a;x=1", "/a", {"x": "1"}),
        (b"/arex/a;b?x=1", "/a;b", {"x": "1"}),
        (b"/arex/a%3fb", "/a?b", {}),
        (b"/arex/a?&&x", "/a", {"x": ""}),
        (b"/arex/a%", "", {}),
        (b"/arex/a%z", "", {}),
        (b"/arex/a%zzb", "/a\udcffb", {}),
        (b"/arex/%c3%a9", "/é", {}),
        (b"/arex/\xff", "/\udcff", {}),
        (b"https://h:1/arex/rest", "/rest", {}),
        (b"/arexrest", "rest", {}),
    ],
)
def test_targets(target: bytes, path: str, query: dict[str, str]) -> None:
    found = read(target, semicolon=True)
    assert found is not None
    assert (found.path, dict(found.query)) == (path, query)


def test_a_semicolon_is_an_ordinary_character_elsewhere() -> None:
    found = read(b"/arex/a;b", semicolon=False)
    assert found is not None
    assert found.path == "/a;b"


@pytest.mark.parametrize("target", [b"/", b"/AREX/rest", b"//arex", b"*", b"arex", b"/%61rex"])
def test_what_is_not_a_rexs(target: bytes) -> None:
    assert read(target, semicolon=True) is None


@pytest.mark.parametrize(
    ("path", "token", "rest"),
    [("/a/b/c", "a", "b/c"), ("//a//b", "a", "b"), ("a", "a", ""), ("", "", ""), ("/", "", "")],
)
def test_tokens(path: str, token: str, rest: str) -> None:
    assert next_token(path) == (token, rest)


@pytest.mark.parametrize(
    ("method", "target", "operation"),
    [
        ("GET", b"/arex/rest", "versions"),
        ("GET", b"/arex/rest/", "versions"),
        ("GET", REST + b"/info?x", "info"),
        ("GET", REST + b"/jobs", "jobs.list"),
        ("HEAD", REST + b"/jobs/", "jobs.list"),
        ("POST", REST + b"/jobs?action=new&instances=2", "jobs.new"),
        ("POST", REST + b"/jobs?action=status", "jobs.status"),
        ("POST", REST + b"/jobs?action=nosuch", "other"),
        ("PUT", REST + b"/jobs", "other"),
        ("GET", REST + b"/jobs/x", "other"),
        ("GET", REST + b"/jobs/x/diagnose/errors", "jobs.diagnose"),
        ("GET", REST + b"/jobs/x/session", "session.list"),
        ("GET", REST + b"/jobs/x/session/a/", "session.list"),
        ("GET", REST + b"/jobs/x/session/a", "session.get"),
        ("HEAD", REST + b"/jobs/x/session/a", "session.head"),
        ("PUT", REST + b"/jobs/x/session/a", "session.put"),
        ("DELETE", REST + b"/jobs/x/session/a", "session.delete"),
        ("PROPFIND", REST + b"/jobs/x/session/a", "session.propfind"),
        ("POST", REST + b"/jobs/x/session/a", "other"),
        ("GET", REST + b"/delegations", "delegations.list"),
        ("POST", REST + b"/delegations?action=new&type=jwt", "delegations.new"),
        ("PUT", REST + b"/delegations/x", "delegations.put"),
        ("POST", REST + b"/delegations/x?action=renew", "delegations.renew"),
        ("POST", REST + b"/delegations/x?action=new", "other"),
        ("GET", REST, "other"),
        ("GET", b"/elsewhere", "other"),
    ],
)
def test_operations(method: str, target: bytes, operation: str) -> None:
    assert operation_of(method, target) == operation


@given(st.sampled_from(["GET", "POST", "PUT"]), st.binary(max_size=40))
def test_any_target_has_an_operation(method: str, target: bytes) -> None:
    assert operation_of(method, b"/arex/rest/1.1/" + target)
    assert operation_of(method, target)
