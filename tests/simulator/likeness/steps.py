"""What a conversation with a CE is made of, as data.

In targets, headers and bodies, ``@name@`` stands for what an earlier reply gave (`Step.capture`),
or for one of

    @rest@      /arex/rest/1.0 or /arex/rest/1.1, as the conversation's version is
    @host@      host and port of the endpoint
    @queue@     its first queue
    @subject@   whom most requests belong to
    @user@      the Authorization header of that user
    @token@     the token in it
    @proxy@     the proxy that conversations have, in PEM
    @chain@     a chain for the certificate request that was captured last, signed by that proxy
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

JSON = ("Accept", "application/json")
JSON_BODY = ("Content-Type", "application/json")
Headers: TypeAlias = tuple[tuple[str, str], ...]
RestVersion: TypeAlias = Literal["1.0", "1.1"]

View: TypeAlias = Literal["whole", "shape", "count", "keys", "there"]
"""What of a body is compared: all of it; a JSON document's keys and types; how many entries its
lists have; the names of lines of ``name=value``; whether there is any."""


@dataclass(frozen=True)
class Publish:
    """Run the information provider."""


@dataclass(frozen=True)
class Until:
    """Wait until the live list says one of these states of a job; ``gone``: it has no such job."""

    job: str
    states: tuple[str, ...]
    certificate: str = ""
    """Whose job it is; empty: the token's."""


@dataclass(frozen=True)
class Plant:
    """Run a shell script in a job's session directory, as the user whom jobs belong to."""

    job: str
    script: str


Before: TypeAlias = Publish | Until | Plant


@dataclass(frozen=True)
class Step:
    """One request.

    Attributes:
        name: what tells it from the others of its conversation.
        method: as it is sent.
        target: as it is sent, but for the names between ``@``.
        headers: beside Host, Accept and Authorization, which they replace; a value that is empty
            leaves one out.
        body: as it is sent, but for the names between ``@``; None: none, and no Content-Length.
        who: whose token, in `Endpoint.authorization`'s words.
        certificate: whose certificate the connection has, in `Endpoint.certificate`'s words; of
            a step that opens one.
        fresh: on a connection of its own, which the following steps go on with.
        chunked: send the body in chunks of so many bytes.
        http: the version in the request line.
        raw: the whole request as it is sent, in place of all of the above.
        capture: name → where its value is: a path of keys and numbers into a JSON body, or
            ``location`` for the last part of that header, or ``body``.
        view: what of the body is compared.
        loose: keys of a JSON body whose values are not; of a shape, those that are not at all.
        patience: for how long an answer is waited for, in seconds.
        probe: whether to find out if the connection can still be used.
        before: what is done first.
    """

    name: str
    method: str
    target: str
    headers: Headers = ()
    body: bytes | None = None
    who: str = "user"
    certificate: str = ""
    fresh: bool = False
    chunked: int = 0
    http: str = "1.1"
    raw: bytes | None = None
    capture: tuple[tuple[str, str], ...] = ()
    view: View = "whole"
    loose: frozenset[str] = frozenset()
    patience: float = 30.0
    probe: bool = False
    before: tuple[Before, ...] = ()


@dataclass(frozen=True)
class Conversation:
    """Requests that belong together, one after the other.

    Attributes:
        name: what tells it from the others.
        steps: in their order.
        rest: what ``@rest@`` has.
        needs: the kinds of credentials that the CE must let in.
        alone: whether its jobs belong to a user of its own, so that it can list them.
    """

    name: str
    steps: tuple[Step, ...]
    rest: RestVersion = "1.1"
    needs: frozenset[str] = frozenset({"token"})
    alone: bool = False
    certificate: str = field(default="")

    @property
    def id(self) -> str:
        return f"{self.name} {self.rest}"


def both(name: str, steps: Iterable[Step], **settings: object) -> list[Conversation]:
    """The same conversation with each version of the interface."""
    made = Conversation(name, tuple(steps), **settings)  # type: ignore[arg-type]
    return [made, replace(made, rest="1.0")]


def get(name: str, target: str, **settings: object) -> Step:
    return Step(name, "GET", target, **settings)  # type: ignore[arg-type]


def post(name: str, target: str, body: bytes | str = b"", **settings: object) -> Step:
    content = body.encode() if isinstance(body, str) else body
    return Step(name, "POST", target, body=content, **settings)  # type: ignore[arg-type]


def put(name: str, target: str, body: bytes | str = b"", **settings: object) -> Step:
    return replace(post(name, target, body, **settings), method="PUT")


def other(method: str, name: str, target: str, **settings: object) -> Step:
    return Step(name, method, target, **settings)  # type: ignore[arg-type]


def ids(*jobs: str) -> bytes:
    """An id list as the documentation has it."""
    listed = ",".join(f'{{"id":"{job}"}}' for job in jobs)
    return f'{{"job":[{listed}]}}'.encode()


def on_ids(action: str, name: str, *jobs: str, **settings: object) -> Step:
    """An action on a list of jobs."""
    settings.setdefault("headers", (JSON_BODY,))
    return post(name, f"@rest@/jobs?action={action}", ids(*jobs), **settings)
