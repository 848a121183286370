"""Job descriptions as A-REX reads them: ADL and xRSL, one or several in a body.

The source of what is refused, and in which words: ``processJobs`` in rest.cpp, ``make_new_job`` in
job.cpp, ``ADLParser.cpp``, ``XRSLParser.cpp``. What depends on the CE's configuration, such as its
queues, is not looked at here. Not read: an XML document with a document type.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias
from xml.etree import ElementTree as ET

from arcbackend.simulator import adl, safe_xml, xrsl
from arcbackend.simulator.requested import Input, Language, Output, Refused, Request

__all__ = [
    "NO_DELEGATION",
    "BodyRefused",
    "Description",
    "Input",
    "Language",
    "Output",
    "Refusal",
    "parse",
    "queue_refused",
]


@dataclass(frozen=True, slots=True)
class Description:
    """What a job is to do. All copies of one job share it.

    Attributes:
        text: as A-REX keeps it (``diagnose/description``).
        language: it was written in.
        name: of the job; empty: none.
        executable: its path; relative to the session directory unless it begins with ``/``.
        arguments: its arguments.
        environment: variables set for it.
        inputs: files that it needs.
        outputs: files that it leaves, and the CE keeps or stores.
        stdin: name of the file that is its standard input; empty: none.
        stdout: name of the file for its standard output; empty: none.
        stderr: name of the file for its standard error, which may be the same; empty: none.
        cpus: slots asked for.
        memory_mb: memory asked for, MiB per slot; None: not said.
        wall_time_s: wall time asked for, s; None: not said.
        cpu_time_s: processor time asked for, s; None: not said.
        queue: the queue asked for; None: not said.
        delegation: id of the delegation that it names for all files; None: none.
        delegations: ids of delegations that it names for single files.
        log_directory: name of the directory for the CE's log; None: not said.
        runtime_environments: names of those asked for.
        reruns: how often a client may ask for it to be tried again when it has failed.
        priority: 1 to 100, the highest.
        fault: why A-REX fails a job of it as soon as it has taken it in; None: it does not.
    """

    text: bytes
    language: Language
    name: str = ""
    executable: str = ""
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    inputs: tuple[Input, ...] = ()
    outputs: tuple[Output, ...] = ()
    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    cpus: int = 1
    memory_mb: int | None = None
    wall_time_s: int | None = None
    cpu_time_s: int | None = None
    queue: str | None = None
    delegation: str | None = None
    delegations: tuple[str, ...] = ()
    log_directory: str | None = None
    runtime_environments: tuple[str, ...] = ()
    reruns: int = 0
    priority: int = 50
    fault: str | None = None

    @property
    def needs_delegation(self) -> bool:
        """Whether it is refused without a delegation: it has a list of outputs (``@file``)."""
        named = self.delegation or self.delegations
        return not named and any(output.name.startswith("@") for output in self.outputs)

    @property
    def keep_all(self) -> bool:
        """Whether everything in the session directory is kept."""
        return any(output.name == "/" and output.target is None for output in self.outputs)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why no job is made of one description of a body.

    Attributes:
        reason: A-REX's words; can have several lines.
    """

    reason: str


class BodyRefused(Exception):  # noqa: N818 - it is an answer, no error
    """No job is made of a body.

    Attributes:
        status: of the answer.
        reason: A-REX's words, on one line.
    """

    def __init__(self, reason: str, status: int = 500) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


_MOST_RERUNS = 5  # maxrerun of [arex] in arc.conf
_PRIORITY, _HIGHEST = 50, 100
_NOT_READ = "Unable to parse job description."
NO_DELEGATION = "Dynamic output files and no delegation assigned to job are incompatible."
"""Why a job is refused whose description `needs_delegation <Description.needs_delegation>`, and has
none."""


def queue_refused(queue: str) -> str:
    """Why a job is refused that asks for a queue that the CE does not have."""
    return f"Requested queue {queue} is not allowed for this user"


def parse(body: bytes, *, limit: int | None = None) -> Sequence[Description | Refusal]:
    """The descriptions in a body, in order. What language it is in, its first character tells.

    Args:
        body: of the request.
        limit: bytes that one description may have; None: any number.

    Raises:
        BodyRefused: it is refused as a whole.
    """
    if not body:
        raise BodyRefused("Missing payload")
    text = body.lstrip(b" \t\r\n")
    if not text:
        raise BodyRefused("Payload is empty")
    first = text[:1]
    if first == b"<":
        return [_made(source, read, limit) for source, read in _in_xml(text)]
    if first == b"&":
        return [_made(body, lambda: xrsl.requests_of([xrsl.node_of(body)])[0], limit)]
    if first == b"+":
        return [_made(source, read, limit) for source, read in _in_multi_xrsl(body)]
    raise BodyRefused("Payload is not recognized")


_Reading: TypeAlias = Callable[[], Request]


def _made(source: bytes, read: _Reading, limit: int | None) -> Description | Refusal:
    """A description, checked as A-REX checks it (``make_new_job``)."""
    if limit is not None and len(source) > limit:
        return Refusal("Job description is too big")
    try:
        request = read()
        _check(request)
    except Refused as refused:
        return Refusal(str(refused))
    return Description(
        text=source,
        language=request.language,
        name=request.name,
        executable=request.executable,
        arguments=tuple(request.arguments),
        environment=MappingProxyType(request.environment),
        inputs=tuple(request.inputs),
        outputs=tuple(request.outputs),
        stdin=request.stdin,
        stdout=request.stdout,
        stderr=request.stderr,
        cpus=max(request.slots, 1),
        memory_mb=_said(request.memory),
        wall_time_s=_said(request.wall_time),
        cpu_time_s=_said(request.cpu_time),
        queue=request.queue or None,
        delegation=request.delegation or None,
        delegations=tuple(dict.fromkeys(request.delegations)),
        log_directory=request.log_directory or None,
        runtime_environments=tuple(request.runtime_environments),
        reruns=min(max(request.reruns, 0), _MOST_RERUNS),
        priority=request.priority if 0 < request.priority <= _HIGHEST else _PRIORITY,
        fault=_fault(request),
    )


def _check(request: Request) -> None:
    for reason in request.unsupported:
        raise Refused(reason)
    per_host = request.slots_per_host
    # Of 0, A-REX dies: it divides by it.
    if not per_host or per_host > request.slots or request.slots % per_host:
        raise Refused("SlotsPerHost exceeding NumberOfSlots is not supported")
    streams = [name for name in (request.stdout, request.stderr) if name]
    if not all(map(_stays_inside, [*streams, *request.runtime_environments])):
        raise Refused("Failed to create grami file")


def _fault(request: Request) -> str | None:
    """What data staging stumbles over at once (``DTRGenerator.cpp``)."""
    seen: set[str] = set()
    for file in request.inputs:
        path = "/" + file.name.removeprefix("/")
        if path in seen:
            return f"Duplicate file in list of input files: {path}"
        seen.add(path)
    return None


def _said(number: int) -> int | None:
    return number if number > 0 else None


def _stays_inside(path: str) -> bool:
    """Whether a path does not lead out (``CanonicalDir`` in FileUtils.cpp)."""
    depth = 0
    for part in path.split("/"):
        depth += {"": 0, ".": 0, "..": -1}.get(part, 1)
        if depth < 0:
            return False
    return True


def _in_xml(text: bytes) -> Iterator[tuple[bytes, _Reading]]:
    try:
        document = safe_xml.read(text)
    except safe_xml.XmlError:
        yield b"", _unreadable
        return
    if _local(document.root.tag) != "ActivityDescriptions":
        yield _standing_alone(document.source), _reading(document.root)
        return
    for child, source in zip(document.root, document.sources, strict=True):
        yield _standing_alone(source), _reading(child)


def _reading(element: ET.Element) -> _Reading:
    return lambda: adl.request_of(element)


def _unreadable() -> Request:
    raise Refused(_NOT_READ)


def _standing_alone(source: bytes) -> bytes:
    """A description as A-REX keeps it: a document of its own."""
    return b'<?xml version="1.0"?>\n' + source + b"\n"


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _in_multi_xrsl(body: bytes) -> Iterator[tuple[bytes, _Reading]]:
    """The parts of ``+(&…)(&…)``; A-REX writes each of them anew. One bad spoils all."""
    try:
        parts = xrsl.parts_of(xrsl.node_of(body))
        requests = xrsl.requests_of(parts)
    except Refused as refused:
        raise BodyRefused(re.sub(r"[\r\n]", " ", str(refused))) from None
    for part, request in zip(parts, requests, strict=True):
        yield xrsl.rewritten(part), _answer(request)


def _answer(request: Request) -> _Reading:
    return lambda: request
