"""What the CE's records tell of one job, typed: its GLUE2 document, ``diag`` and ``local``.

``diag`` is what the job's script on the node and the batch system's scan script wrote of its run,
``local`` is the job manager's own (``submit_common.sh``, ``scan_common.sh`` and
``ControlFileContent.cpp`` in A-REX). What of it the job can write itself is hostile: everything is
bounded and cleaned, what makes no sense is absent, and time is in proportion to the text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from arcbackend.protocol.activity import activity_of
from arcbackend.protocol.responses import clean_text

__all__ = ["BATCH_STATES", "Facts", "facts_of_diag", "facts_of_document", "facts_of_local", "pairs"]

BATCH_STATES = frozenset({"QUEUING", "RUNNING", "HELD", "OTHER", "EXITINGLRMS"})
"""ARC states of a job that the batch system has."""

_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")
_EXIT_CODE = re.compile(r"-?[0-9]{1,6}")
# ISO 8601, or as A-REX's records have it (scan_common.sh: "MDS": YYYYMMDDHHMMSSZ), in UTC.
_TIME = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)?|\d{14}Z", re.ASCII
)
_KIB_PER_MIB = 1024
_MOST_NODES = 1000
_MOST_LINES = 20
_NAME, _LINE = 200, 1024


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one job; None, or nothing, where the records do not tell.

    Times are the CE's words, in one of two forms that are known to be well-formed, not more.

    Attributes:
        state: ARC state.
        name: the job's name.
        exit_code: of the payload.
        batch_system: name of the batch system's plug-in.
        batch_id: the batch system's id of the job.
        errors: lines of the failure record; A-REX publishes its first KiB.
        failed_in: the job manager's state in which it failed or was killed.
        messages: what the batch system's plug-in says of the job.
        nodes: names of nodes, each once.
        queue: the queue.
        slots: slots asked for.
        submitted: when the CE got it.
        started: when it started in the batch system.
        ended: when the batch system was done with it.
        completed: when the CE was done with it.
        expires: when the CE removes its files.
        wall_time_s: time that it ran.
        cpu_time_s: processor time, of all slots.
        wall_limit_s: wall time asked for.
        memory_mb: memory used, MiB.
        peak_memory_mb: the most resident memory at one time, MiB.
        as_of: when the document was made.
    """

    state: str | None = None
    name: str | None = None
    exit_code: int | None = None
    batch_system: str | None = None
    batch_id: str | None = None
    errors: tuple[str, ...] = ()
    failed_in: str | None = None
    messages: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    queue: str | None = None
    slots: int | None = None
    submitted: str | None = None
    started: str | None = None
    ended: str | None = None
    completed: str | None = None
    expires: str | None = None
    wall_time_s: float | None = None
    cpu_time_s: float | None = None
    wall_limit_s: float | None = None
    memory_mb: int | None = None
    peak_memory_mb: int | None = None
    as_of: str | None = None

    def updated(self, newer: Facts) -> Facts:
        """The same with everything that ``newer`` tells."""
        told = {field.name: getattr(newer, field.name) for field in fields(newer)}
        return replace(self, **{k: v for k, v in told.items() if v is not None and v != ()})


def facts_of_document(document: Any) -> Facts:
    """What a job's GLUE2 document tells.

    Two things that A-REX publishes are left out, or mended. Times and memory of a job in the batch
    system are its plug-in's: Slurm's gives the memory of the node, in the wrong unit
    (``SLURMmod.pm``). And a wall time is published multiplied by the slots asked for.
    """
    activity = activity_of(document)
    slots = _integer(activity.text("RequestedSlots"))
    state = _line(activity.state, _NAME)
    return Facts(
        state=state,
        name=_line(activity.text("Name"), _NAME),
        exit_code=_exit_code(activity.text("ExitCode")),
        batch_id=_line(activity.text("LocalIDFromManager"), _NAME),
        errors=_lines(activity.texts("Error")),
        failed_in=_line(activity.failed_in, _NAME),
        messages=_lines(activity.texts("OtherMessages")),
        nodes=_nodes(activity.texts("ExecutionNode")),
        queue=_line(activity.text("Queue"), _NAME),
        slots=slots,
        submitted=_time(activity.text("SubmissionTime")),
        started=_time(activity.text("StartTime")),
        ended=_time(activity.text("ComputingManagerEndTime")),
        completed=_time(activity.text("EndTime")),
        expires=_time(activity.text("WorkingAreaEraseTime")),
        wall_time_s=_per_slot(activity.text("UsedTotalWallTime"), slots),
        cpu_time_s=_number(activity.text("UsedTotalCPUTime")),
        wall_limit_s=_per_slot(activity.text("RequestedTotalWallTime"), slots),
        memory_mb=None if state in BATCH_STATES else _memory(activity.text("UsedMainMemory")),
        as_of=_time(activity.created),
    )


def facts_of_diag(diag: bytes) -> Facts:
    """What ``diag`` tells; it is empty until the job has left the batch system.

    The memory that GLUE2 publishes is the average total, which GNU time leaves 0; its peak is in
    ``diag`` only.
    """
    told = pairs(diag)
    last = {key: values[-1] for key, values in told.items()}
    cpu = [_number(_stripped(last.get(key), "s")) for key in ("UserTime", "KernelTime")]
    return Facts(
        exit_code=_exit_code(last.get("exitcode")),
        nodes=_nodes(told.get("nodename", ())),
        started=_time(last.get("LRMSStartTime")),
        ended=_time(last.get("LRMSEndTime")),
        wall_time_s=_number(_stripped(last.get("WallTime"), "s")),
        cpu_time_s=None if None in cpu else sum(seconds or 0 for seconds in cpu),
        memory_mb=_from_kib(last.get("AverageTotalMemory")),
        peak_memory_mb=_from_kib(last.get("MaxResidentMemory") or last.get("maxresidentmemory")),
    )


def facts_of_local(local: bytes) -> Facts:
    """What ``local`` tells beyond the document, which has the batch system's id only as long as the
    job is there."""
    told = {key: values[0] for key, values in pairs(local).items()}
    return Facts(
        batch_system=_line(told.get("lrms"), _NAME),
        batch_id=_line(told.get("localid"), _NAME),
        failed_in=_line(told.get("failedstate"), _NAME),
        queue=_line(told.get("queue"), _NAME),
        submitted=_time(told.get("starttime")),
        expires=_time(told.get("cleanuptime")),
    )


def pairs(text: bytes) -> Mapping[str, list[str]]:
    """The ``key=value`` lines of a control file: every value of each key, in order."""
    found: dict[str, list[str]] = {}
    for line in text.decode("utf-8", "replace").split("\n"):
        key, equals, value = line.partition("=")
        if equals:
            found.setdefault(key, []).append(value.strip())
    return found


def _line(text: str | None, most: int) -> str | None:
    return clean_text(text, most) or None if text is not None else None


def _lines(texts: Iterable[str]) -> tuple[str, ...]:
    lines = (line for text in texts for line in text[: _LINE * _MOST_LINES].split("\n"))
    cleaned = [clean for line in lines if (clean := _line(line, _LINE)) is not None]
    return tuple(cleaned[:_MOST_LINES])


def _nodes(texts: Iterable[str]) -> tuple[str, ...]:
    named = dict.fromkeys(_line(text, _NAME) for text in texts)
    return tuple(name for name in named if name is not None)[:_MOST_NODES]


def _time(text: str | None) -> str | None:
    return text if text is not None and _TIME.fullmatch(text) else None


def _exit_code(text: str | None) -> int | None:
    return int(text) if text is not None and _EXIT_CODE.fullmatch(text) else None


def _number(text: str | None) -> float | None:
    return float(text) if text is not None and _NUMBER.fullmatch(text) else None


def _integer(text: str | None) -> int | None:
    number = _number(text)
    return None if number is None else int(number)


def _stripped(text: str | None, unit: str) -> str | None:
    return None if text is None else text.removesuffix(unit)


def _per_slot(text: str | None, slots: int | None) -> float | None:
    total = _number(text)
    return None if total is None or not slots else total / slots


def _memory(text: str | None) -> int | None:
    """No job uses none: 0 means that nobody measured."""
    return _integer(text) or None


def _from_kib(text: str | None) -> int | None:
    kib = _number(_stripped(text, "kB"))
    return math.ceil(kib / _KIB_PER_MIB) or None if kib is not None else None
