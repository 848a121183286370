"""What is compared of an answer: the same for two CEs that are alike, run after run.

Ids, times, names of hosts, certificates and the like are replaced by what they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from tests.simulator.likeness.driver import Answer
from tests.simulator.likeness.steps import Step

Observation: TypeAlias = dict[str, Any]

_HEADERS = frozenset(
    {
        "accept-ranges",
        "allow",
        "cache-control",
        "connection",
        "content-disposition",
        "content-encoding",
        "content-range",
        "content-type",
        "date",
        "etag",
        "last-modified",
        "location",
        "retry-after",
        "server",
        "strict-transport-security",
        "transfer-encoding",
        "vary",
        "www-authenticate",
    }
)
_USUAL = {
    "connection": "keep-alive",
    "content-length": "there",
    "strict-transport-security": "max-age=31536000; includeSubDomains",
}
"""The headers that nearly every answer has."""

_PEM = re.compile(r"-----BEGIN ([A-Z ]+)-----[^-]*-----END \1-----\n?")
_JWT = re.compile(r"\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*")
_TIME = re.compile(r"\b20\d\d-?[01]\d-?[0-3]\d[T ]?[0-2]\d:?[0-5]\d:?[0-5]\d(?:\.\d+)?Z?\b")
_ID = re.compile(r"(?<![\w<])[0-9a-f]{12}(?![\w>])")
_LONGEST = 4000
_ENTRY = re.compile(
    r"<(?:file|dir|job|d:response)\b[^>]*>.*?</(?:file|dir|job|d:response)>"
    r"|<tr><td>(?:file|dir|job)</td>.*?(?=<tr><td>(?:file|dir|job)</td>|</table></BODY>)",
    re.DOTALL,
)


class Names:
    """What the names of things in this run are, in the order in which they come up."""

    def __init__(self, fixed: Mapping[str, str]) -> None:
        self._fixed = sorted(fixed.items(), key=lambda pair: -len(pair[0]))
        self._ids: dict[str, str] = {}

    def learn(self, value: str, name: str) -> None:
        """Call an id by a name, and the path that A-REX makes of it."""
        for form in (value, "/".join(value[at : at + 3] for at in range(0, len(value), 3))):
            if form:
                self._ids.setdefault(form, f"<{name}>")

    def __call__(self, text: str) -> str:
        """A text without what is this run's own."""
        for value, name in self._fixed:
            text = text.replace(value, f"<{name}>")
        for value, name in self._ids.items():
            text = text.replace(value, name)
        text = _PEM.sub(lambda found: f"<{found[1].lower()}>\n", text)
        text = _JWT.sub("<token>", text)
        text = _TIME.sub("<time>", text)
        return _ID.sub("<id>", text)


def observed(step: Step, answer: Answer, names: Names) -> Observation:
    """Tell what is compared of an answer; what is as usual is left out."""
    seen: Observation = {"answer": answer.outcome}
    if answer.status:
        said = f"{answer.status} {names(answer.reason)}"
        seen["answer"] = said if answer.outcome == "answered" else f"{said}, {answer.outcome}"
        seen |= {"headers": _headers(step, answer, names)} | _body(step, answer, names)
        if answer.http != "1.1":
            seen["http"] = answer.http
    if answer.interim:
        seen["interim"] = answer.interim
    if answer.closed is not None and answer.status:
        seen["closed"] = answer.closed
    return {key: value for key, value in seen.items() if value not in ({}, "")}


def _headers(step: Step, answer: Answer, names: Names) -> dict[str, str | None]:
    """The headers that are not as usual; None: one that is missing."""
    told: dict[str, str | None] = {}
    for name, value in answer.headers:
        what = names(value) if name in _HEADERS else "there"
        if name == "content-range" and step.view == "there":
            what = re.sub(r"\d+$", "<size>", what)
        told[name] = f"{told[name]}, {what}" if name in told else what
    usual = {name: None for name in _USUAL if name not in told}
    return usual | {name: value for name, value in told.items() if _USUAL.get(name) != value}


def _body(step: Step, answer: Answer, names: Names) -> Observation:
    """The part of an observation that tells of the body."""
    if step.method == "HEAD":
        lengths = [value for name, value in answer.headers if name == "content-length"]
        return {"length": lengths[0] if lengths and step.view == "whole" else len(lengths)}
    if step.view == "there":
        return {"body": "some" if answer.body else "none"}
    text = answer.body.decode("latin-1")
    if dict(answer.headers).get("content-type", "") == "application/json":
        try:
            document = json.loads(text, strict=False)
        except ValueError:
            pass
        else:
            return _document(step, document, names)
    text = names(text)
    if step.view == "keys":
        return {"keys": sorted({line.split("=", 1)[0] for line in text.splitlines()})}
    if step.method in ("GET", "PROPFIND"):
        text = _ordered(text)
    return {"text": text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… {len(text)}"}


def _document(step: Step, document: Any, names: Names) -> Observation:
    match step.view:
        case "shape":
            return {"shape": shape(document, step.loose)}
        case "count":
            return {"count": {key: len(value) for key, value in document.items()}}
    return {"json": _sorted(_named(document, names, step.loose), step)}


def _ordered(text: str) -> str:
    """A rendered list, its entries in our order: a file system's order says nothing."""
    entries = sorted(_ENTRY.findall(text))
    return _ENTRY.sub(lambda _: entries.pop(0), text)


def _named(value: Any, names: Names, loose: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {
            key: "<loose>" if key in loose else _named(each, names, loose)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [_named(each, names, loose) for each in value]
    return names(value) if isinstance(value, str) else value


def _sorted(document: Any, step: Step) -> Any:
    """Lists whose order says nothing: of jobs, and of the names in a directory."""
    if not isinstance(document, dict) or step.method != "GET":
        return document
    return {
        key: sorted(value, key=repr)
        if key in ("job", "file", "dir") and isinstance(value, list)
        else value
        for key, value in document.items()
    }


def shape(value: Any, without: frozenset[str] = frozenset()) -> Any:
    """The keys and types of a document, but for some keys.

    Of a list, those that all of its entries have together.
    """
    if isinstance(value, dict):
        return {
            key: shape(each, without) for key, each in sorted(value.items()) if key not in without
        }
    if isinstance(value, list):
        merged: Any = None
        for each in value:
            merged = _merged(merged, shape(each, without))
        return [] if merged is None else [merged]
    return type(value).__name__


def _merged(one: Any, other: Any) -> Any:
    if one is None or one == other:
        return other
    if isinstance(one, dict) and isinstance(other, dict):
        return {
            key: _merged(one.get(key), other[key]) if key in other else one[key]
            for key in sorted(one.keys() | other.keys())
        }
    if isinstance(one, list) and isinstance(other, list):
        return [_merged(one[0], other[0])] if one and other else one or other
    return f"{one} or {other}"
