"""Whose a request is: what of it the connection decides, and what the request itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from arcbackend.simulator.authority import Authority
from arcbackend.simulator.connection import Connection
from arcbackend.simulator.identities import Caller, Identities, Permission
from arcbackend.simulator.settings import SimulatorSettings
from arcbackend.simulator.traps import Trap, Traps
from arcbackend.x509 import Proxy

MISMATCH = "Token scopes do not match requires scopes"


class Line(Connection):
    """A connection that nobody cuts."""

    async def cut(self) -> None:
        raise AssertionError


@dataclass
class Desk:
    """Where requests are judged."""

    settings: SimulatorSettings = field(default_factory=SimulatorSettings)
    without: frozenset[Trap] = frozenset()

    def __post_init__(self) -> None:
        version = self.settings.arc_version
        self.authority = Authority("test", version, lambda: 1e9)
        traps = Traps(version, "slurm", self.without)
        self.identities = Identities(self.settings, traps, self.authority, lambda: "https://ce")

    def line(self, **proxy: Any) -> Line:
        """A connection, with a proxy's certificate if that is described."""
        chain = Proxy.from_pem(self.authority.proxy(**proxy)) if proxy else None
        return Line("client:1", chain)

    def ask(self, line: Line, user: str | None = "Ann", **token: Any) -> Caller | None:
        """Ask on a connection, with a token."""
        bearer = None if user is None else f"Bearer {self.authority.token(user, **token)}"
        return self.identities.caller(line, bearer)

    def owner(self, user: str) -> str:
        return f"{self.authority.issuer}/{user}"


def desk(*without: Trap, **settings: Any) -> Desk:
    return Desk(SimulatorSettings(**settings), frozenset(without))


def test_a_token_owns_as_issuer_and_subject() -> None:
    here = desk()
    caller = here.ask(here.line())
    assert caller is not None
    assert caller.owner == here.owner("Ann")
    assert not caller.certified


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_may_be_written_as_one_likes(scheme: str) -> None:
    here = desk()
    assert here.identities.caller(here.line(), f"{scheme} {here.authority.token()}")


@pytest.mark.parametrize("value", [None, "", "Bearer", "Bearer ", "Basic dXNlcg==", "garbage"])
def test_what_is_no_token_lets_nobody_in(value: str | None) -> None:
    here = desk()
    assert here.identities.caller(here.line(), value) is None
    assert here.identities.caller(here.line(), here.authority.token()) is None, "no scheme"


def test_the_first_request_fixes_whose_the_connection_is() -> None:
    here = desk()
    line = here.line()
    assert here.ask(line, "Ann")
    later = here.ask(line, "Bob")
    assert later is not None
    assert later.owner == here.owner("Ann")
    anew = desk(Trap.STICKY_IDENTITY)
    line = anew.line()
    assert anew.ask(line, "Ann")
    bob = anew.ask(line, "Bob")
    assert bob is not None
    assert bob.owner == anew.owner("Bob")


def test_a_refused_first_request_spoils_the_connection() -> None:
    here = desk()
    line = here.line()
    assert here.ask(line, None) is None
    assert here.ask(line, "Ann") is None
    mild = desk(Trap.SPOILT_CONNECTION)
    line = mild.line()
    assert mild.ask(line, None) is None
    ann = mild.ask(line, "Ann")
    assert ann is not None
    bob = mild.ask(line, "Bob")
    assert bob is not None
    assert bob.owner == ann.owner, "from the first that is let in on, it sticks"


def test_without_stickiness_a_refused_request_spoils_only_as_the_first() -> None:
    here = desk(Trap.STICKY_IDENTITY)
    line = here.line()
    assert here.ask(line, "Ann")
    assert here.ask(line, None) is None
    assert here.ask(line, "Ann")
    line = here.line()
    assert here.ask(line, None) is None
    assert here.ask(line, "Ann") is None


def test_a_later_request_without_a_token_may_nothing() -> None:
    here = desk()
    line = here.line()
    here.ask(line)
    for bad in (here.ask(line, None), here.ask(line, lifetime=-1), here.ask(line, forged=True)):
        assert bad is not None
        assert bad.refusal(Permission.INFO) == "No supported identity found"


def test_the_audience_counts_for_the_first_request_only() -> None:
    here = desk(audiences=("ce", "{endpoint}"))
    for audience in ("arc", None, "https://ce/"):
        assert here.ask(here.line(), audience=audience) is None
    line = here.line()
    assert here.ask(line, audience="ce")
    later = here.ask(line, audience="elsewhere")
    assert later is not None
    assert later.refusal(Permission.INFO) is None


@pytest.mark.parametrize(
    ("scope", "permissions"),
    [
        ("compute.read", {Permission.INFO, Permission.DATA_INFO, Permission.DATA_READ}),
        ("compute.create", {Permission.CREATE}),
        ("compute.modify", {Permission.DATA_WRITE}),
        ("compute.cancel", {Permission.CANCEL, Permission.DELETE}),
        ("storage.read:/", set()),
    ],
)
def test_scopes(scope: str, permissions: set[Permission]) -> None:
    here = desk(token_scopes="wlcg")
    caller = here.ask(here.line(), scopes=[scope])
    assert caller is not None
    assert {each for each in Permission if caller.refusal(each) is None} == permissions
    assert {caller.refusal(each) for each in set(Permission) - permissions} == {MISMATCH}


def test_scopes_are_looked_at_only_where_the_site_says_so() -> None:
    here = desk()
    caller = here.ask(here.line(), scopes=[])
    assert caller is not None
    assert all(caller.refusal(each) is None for each in Permission)


def test_scopes_of_each_request_count() -> None:
    here = desk(token_scopes="wlcg")
    line = here.line()
    first = here.ask(line, scopes=["compute.read"])
    second = here.ask(line, scopes=["compute.create"])
    assert first is not None
    assert second is not None
    assert first.refusal(Permission.CREATE) == second.refusal(Permission.INFO) == MISMATCH


def test_a_string_of_scopes_is_one_in_7_0_0() -> None:
    def may(here: Desk, scope: object) -> bool:
        here.authority._scopes_as_list = isinstance(scope, list)
        scopes = scope if isinstance(scope, list) else str(scope).split()
        caller = here.ask(here.line(), scopes=scopes)
        assert caller is not None
        return caller.refusal(Permission.CREATE) is None

    both = "compute.read compute.create"
    old = desk(arc_version="7.0.0", token_scopes="wlcg")
    assert not may(old, both)
    assert may(old, both.split())
    mended = desk(Trap.SCOPE_STRING_IS_ONE, arc_version="7.0.0", token_scopes="wlcg")
    assert may(mended, both)
    assert may(desk(token_scopes="wlcg"), both)


def test_a_certificate_owns_as_its_user() -> None:
    here = desk()
    caller = here.ask(here.line(user="Ann", depth=2), None)
    assert caller is not None
    assert caller.owner == here.authority.subject("Ann")
    assert caller.refusal(Permission.CREATE) is None


def test_a_certificate_outranks_a_token_and_the_scopes_hold() -> None:
    here = desk(token_scopes="wlcg")
    caller = here.ask(here.line(user="Ann"), "Bob", scopes=["compute.read"])
    assert caller is not None
    assert caller.owner == here.authority.subject("Ann")
    assert caller.refusal(Permission.CREATE) == MISMATCH
    other = desk(Trap.CERTIFICATE_OUTRANKS_TOKEN)
    caller = other.ask(other.line(user="Ann"), "Bob")
    assert caller is not None
    assert caller.owner == other.owner("Bob")
    caller = other.ask(other.line(user="Ann"), None)
    assert caller is not None
    assert caller.owner == other.authority.subject("Ann")


def test_a_bad_token_beside_a_good_certificate_is_ignored() -> None:
    here = desk()
    caller = here.ask(here.line(user="Ann"), lifetime=-1)
    assert caller is not None
    assert caller.refusal(Permission.CREATE) is None


def test_either_credential_is_enough_to_be_let_in() -> None:
    here = desk()
    stranger = here.ask(here.line(user="Eve", listed=False), "Bob")
    assert stranger is not None
    assert stranger.owner == here.authority.subject("Eve", listed=False)
    assert here.ask(here.line(user="Eve", listed=False), None) is None


@pytest.mark.parametrize("kind", ["token", "proxy"])
def test_a_ce_lets_in_what_it_is_told_to(kind: str) -> None:
    here = desk(auth=(kind,))
    assert (here.ask(here.line()) is None) is (kind == "proxy")
    assert (here.ask(here.line(user="Ann"), None) is None) is (kind == "token")
