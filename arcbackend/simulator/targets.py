"""Request targets as A-REX takes them apart, and what they ask for. Pure.

Sources: ``Plexer.cpp``, ``ARexService::process`` in arex.cpp, ``GetPath`` and ``GetPathToken`` in
rest.cpp.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["Target", "next_token", "operation_of", "read"]

_ROOT: Final = b"/arex"
_HOST = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://[^/]*")
_ESCAPE = re.compile(rb"%(..)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Target:
    """A target that is A-REX's.

    Attributes:
        whole: all of it behind ``/arex``, unescaped.
        path: the same without the query.
        query: the parameters, of which A-REX takes the first of each name.
    """

    whole: str
    path: str
    query: Mapping[str, str]


def read(target: bytes, *, semicolon: bool) -> Target | None:
    """Take a target apart; None if it is not A-REX's.

    Args:
        target: as it was sent.
        semicolon: whether a query begins at the first ``;`` where there is no ``?``.
    """
    host = _HOST.match(target)
    path = target if host is None else target[host.end() :]
    if not path.startswith(_ROOT):
        return None
    path = whole = path[len(_ROOT) :]
    separator = b"?" if b"?" in path or not semicolon else b";"
    path, _, query = path.partition(separator)
    parameters: dict[str, str] = {}
    for item in filter(None, query.split(b"&")):
        name, _, value = item.partition(b"=")
        parameters.setdefault(_unescaped(name), _unescaped(value))
    return Target(_unescaped(whole), _unescaped(path), parameters)


def next_token(path: str) -> tuple[str, str]:
    """The first part of a path, without the slashes round it, and what is behind it."""
    token, _, rest = path.lstrip("/").partition("/")
    return token, rest.lstrip("/")


def operation_of(method: str, target: bytes) -> str:
    """Name what a request is to do, for `Fault.operation`."""
    found = read(target, semicolon=True)
    first, rest = next_token("" if found is None else found.path)
    if found is None or first != "rest":
        return "other"
    version, rest = next_token(rest)
    function, rest = next_token(rest)
    action = found.query.get("action", "")
    if function == "delegations":
        return _of_delegations(method, next_token(rest)[0], action)
    if function == "jobs":
        return _of_jobs(method, rest, action)
    if not version:
        return "versions"
    return "info" if function == "info" else "other"


def _of_delegations(method: str, id_: str, action: str) -> str:
    if not id_:
        named = {"GET": "list", "HEAD": "list", "POST": action if action == "new" else ""}
    else:
        known = ("get", "renew", "delete")
        named = {"PUT": "put", "POST": action if action in known else ""}
    return f"delegations.{named[method]}" if named.get(method) else "other"


_JOB_ACTIONS = frozenset({"new", "status", "info", "kill", "clean", "restart", "delegations"})
_SESSION = {"HEAD": "head", "PUT": "put", "DELETE": "delete", "PROPFIND": "propfind"}


def _of_jobs(method: str, rest: str, action: str) -> str:
    id_, rest = next_token(rest)
    if not id_:
        if method in ("GET", "HEAD"):
            return "jobs.list"
        return f"jobs.{action}" if method == "POST" and action in _JOB_ACTIONS else "other"
    part, rest = next_token(rest)
    if part == "diagnose":
        return "jobs.diagnose"
    if part != "session":
        return "other"
    if method == "GET":
        return "session.list" if not rest or rest.endswith("/") else "session.get"
    return f"session.{_SESSION[method]}" if method in _SESSION else "other"


def _unescaped(text: bytes) -> str:
    """Text as A-REX unescapes it; empty if an escape is not complete (``uri_unencode``)."""
    if b"%" in text:
        if any(found[1] is None for found in _ESCAPE.finditer(text)):
            return ""
        text = _ESCAPE.sub(lambda found: bytes([_byte(found[1])]), text)
    return text.decode("utf-8", "surrogateescape")


def _byte(digits: bytes) -> int:
    try:
        return int(digits, 16) if digits.isalnum() else 255
    except ValueError:
        return 255
