"""A job's GLUE2 document, the ``ComputingActivity`` of ``jobs?action=info``, as it is published.

There are three makers: the information provider (``ARC1ClusterInfo.pm``), before it A-REX's job
manager, which writes a small one when it takes a job in (``ActJobUndefined`` in JobsList.cpp), and
before that REST itself, which makes one up (``processJobInfo`` in rest.cpp). In both versions of
REST they are the same; recorded ones are in tests/pure/recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil
from types import MappingProxyType
from typing import Any, Final
from xml.etree import ElementTree as ET

from arcbackend.simulator.jobs import InnerState, Job
from arcbackend.simulator.traps import Lrms

__all__ = ["FIRST", "ON_NODE", "Site", "cpu_seconds", "document", "in_xml", "iso", "made_up", "mds"]

FIRST: Final = "ACCEPTED"
"""The state in the document that the job manager writes; the provider says ACCEPTING."""

_GLUE2 = "http://schemas.ogf.org/glue/2009/03/spec_2.0_r1"
_INTERFACE = "org.nordugrid.arcrest"
_MADE_UP = "org.ogf.glue.emies.activitycreation"
_LANGUAGES = MappingProxyType({"adl": "emies:adl", "xrsl": "nordugrid:xrsl"})
_LOCAL_OWNER = "griduser"
_NOTHING = "/dev/null"
_PUBLISHED_RECORD = 1024  # bytes of the failure record: GMJobsInfo.pm
_SLURM_NAME = 15
_KIB, _MIB = 2**10, 2**20

ON_NODE: Final[Mapping[Lrms, str]] = MappingProxyType(
    {"slurm": "localhost", "condor": "slot1_1@localhost"}
)
"""The node that each job runs on, as it is told."""

# The REST state → the job manager's, and what the batch system says: rest_state backwards.
_STATES: Final[Mapping[str, tuple[str, str | None]]] = MappingProxyType(
    {
        "ACCEPTING": ("ACCEPTED", None),
        "ACCEPTED": ("PENDING:ACCEPTED", None),
        "PREPARING": ("PREPARING", None),
        "PREPARED": ("PENDING:PREPARING", None),
        "SUBMITTING": ("SUBMIT", None),
        "QUEUING": ("INLRMS", "Q"),
        "RUNNING": ("INLRMS", "R"),
        "HELD": ("INLRMS", "S"),
        "OTHER": ("INLRMS", "O"),
        "EXITINGLRMS": ("INLRMS", "EXECUTED"),
        "EXECUTED": ("PENDING:INLRMS", None),
        "FINISHING": ("FINISHING", None),
        "KILLING": ("CANCELING", None),
        "FINISHED": ("FINISHED", None),
        "FAILED": ("FAILED", None),
        "KILLED": ("KILLED", None),
        "WIPED": ("DELETED", None),
    }
)
_RESTART: Final[Mapping[InnerState, str]] = MappingProxyType(
    {
        InnerState.ACCEPTED: "ACCEPTING",
        InnerState.PREPARING: "PREPARING",
        InnerState.SUBMIT: "SUBMITTING",
        InnerState.INLRMS: "OTHER",  # there is no word of the batch system's with it
        InnerState.FINISHING: "FINISHING",
    }
)
_OVER = ("FINISHED", "FAILED", "KILLED", "WIPED")
_IN_BATCH = ("QUEUING", "RUNNING", "HELD", "OTHER", "EXITINGLRMS")


@dataclass(frozen=True, slots=True)
class Site:
    """What the documents of all jobs of a CE have in common.

    Attributes:
        endpoint: ``https://host:port``.
        host: its host.
        lrms: the batch system behind it.
        keep_finished: seconds that the files of a job are kept that is over.
    """

    endpoint: str
    host: str
    lrms: Lrms
    keep_finished: float


def document(job: Job, site: Site, *, state: str, as_of: float) -> dict[str, Any]:
    """A job's document as it was published.

    Args:
        job: the job.
        site: the CE.
        state: the job's state then, in REST's words.
        as_of: when it was written.
    """
    if state == FIRST:
        return _first(job)
    asked, submission = job.description, job.submission
    over = state in _OVER
    left = state not in _IN_BATCH and job.ended is not None and job.ended <= as_of
    fields: dict[str, Any] = {
        "ID": f"urn:caid:{site.host}:{_INTERFACE}:{job.local}",
        "Name": asked.name,
        "OtherInfo": f"SubmittedVia={_INTERFACE}",
        "Type": "single",
        "IDFromEndpoint": f"urn:idfe:{job.local}",
        "LocalIDFromManager": batch_id(job, site) if state in _IN_BATCH else None,
        "JobDescription": _LANGUAGES[asked.language],
        "State": _states(job, state),
        "RestartState": _restart(job, state),
        "ExitCode": _number(job.exit_code) if left else None,
        "Error": _errors(job),
        "WaitingPosition": "0" if site.lrms == "slurm" and state in _IN_BATCH else None,
        "Owner": job.owner,
        "LocalOwner": _LOCAL_OWNER,
        "RequestedTotalWallTime": _number(asked.wall_time_s, asked.cpus),
        "RequestedTotalCPUTime": _number(asked.cpu_time_s),
        "RequestedSlots": str(asked.cpus),
        "RequestedApplicationEnvironment": list(asked.runtime_environments),
        "StdIn": asked.stdin or _NOTHING,
        "StdOut": asked.stdout or _NOTHING,
        "StdErr": asked.stderr or _NOTHING,
        "LogDir": asked.log_directory,
        "ExecutionNode": _node(job, site, state, as_of),
        "Queue": job.queue,
        **(_used(job, site) if left else _using(job, site, state, as_of)),
        "SubmissionTime": iso(job.created),
        **(_times(job, site) if left else {}),
        "EndTime": iso(job.finished) if state == "FINISHED" and job.finished is not None else None,
        "WorkingAreaEraseTime": _erased(job, site) if over else None,
        "ProxyExpirationTime": iso(submission.proxy_until or job.created),
        "SubmissionHost": submission.client.rpartition(":")[0],
        "OtherMessages": slurm_name(job)
        if site.lrms == "slurm" and state in _IN_BATCH and asked.name
        else None,
        "Associations": {"ComputingShareID": f"urn:ogf:ComputingShare:{site.host}:{job.queue}"},
    }
    return _activity(fields, CreationTime=iso(as_of), Validity="10800")


def made_up(job: Job, site: Site, *, state: str) -> dict[str, Any]:
    """What REST makes up of a job that nobody has written a document of.

    Args:
        job: the job.
        site: the CE.
        state: its state now, in REST's words.
    """
    fields = {
        "ID": f"urn:caid:{site.host}:{_MADE_UP}:{job.local}",
        "OtherInfo": f"SubmittedVia={_MADE_UP}",
        "Type": "single",
        "IDFromEndpoint": f"urn:idfe:{job.local}",
        "JobDescription": "emies:adl",
        "State": [f"arcrest:{state}"],
        "Owner": job.owner,
        "Associations": {"ComputingShareID": ""},
    }
    return _activity(fields, CreationTime=iso(job.created), Validity="60")


def in_xml(activity: Mapping[str, Any]) -> bytes:
    """A document as it is on disk (``diagnose/xml``)."""
    (fields,) = activity.values()
    root = ET.Element("ComputingActivity", {"xmlns": _GLUE2, **fields["_attributes"]})
    for name, value in fields.items():
        if name != "_attributes":
            _append(root, name, value)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode").encode("utf-8", "surrogateescape") + b"\n"


def _append(parent: ET.Element, name: str, value: Any) -> None:
    for each in value if isinstance(value, list) else [value]:
        child = ET.SubElement(parent, name)
        if isinstance(each, dict):
            for key, inside in each.items():
                _append(child, key, inside)
        else:
            child.text = each


def iso(moment: float) -> str:
    """A time as the information provider writes it."""
    return _told(moment, "%Y-%m-%dT%H:%M:%SZ")


def mds(moment: float) -> str:
    """A time as A-REX's records have it."""
    return _told(moment, "%Y%m%d%H%M%SZ")


def _told(moment: float, form: str) -> str:
    return datetime.fromtimestamp(int(moment), UTC).strftime(form)


def batch_id(job: Job, site: Site) -> str:
    """The job's id in the batch system."""
    return str(job.number) if site.lrms == "slurm" else f"{job.number}.{site.host}"


def slurm_name(job: Job) -> str:
    """The job's name in Slurm."""
    return (job.description.name or "gridjob")[:_SLURM_NAME].replace("-", "_")


def wall_seconds(job: Job, until: float) -> int:
    """How long it has run."""
    return 0 if job.started is None else max(int(until) - int(job.started), 0)


def cpu_seconds(job: Job) -> float | None:
    """The processor time that it has used, as far as that was measured or is known."""
    if job.usage is not None:
        return job.usage.cpu_seconds
    return job.plan.cpu_seconds


def memory_kib(job: Job) -> int | None:
    """The most memory that it has used, likewise."""
    used = job.plan.memory if job.usage is None else job.usage.memory
    return None if used is None else ceil(used / _KIB)


def _activity(fields: dict[str, Any], **attributes: str) -> dict[str, Any]:
    """The element as REST renders it: a list of one is that one, and what is not there is not."""
    rendered: dict[str, Any] = {}
    for name, value in fields.items():
        if value in (None, [], "") and name != "ComputingShareID":
            continue
        rendered[name] = value[0] if isinstance(value, list) and len(value) == 1 else value
    rendered["_attributes"] = {"BaseType": "Activity", **attributes}
    return {"ComputingActivity": rendered}


def _first(job: Job) -> dict[str, Any]:
    fields = {
        "ID": f"urn:caid::{_INTERFACE}:{job.local}",
        "Name": job.description.name,
        "OtherInfo": f"SubmittedVia={_INTERFACE}",
        "Type": "single",
        "IDFromEndpoint": f"urn:idfe:{job.local}",
        "State": [
            "nordugrid:ACCEPTED",
            "emies:accepted",
            f"arcrest:{FIRST}",
            "emiesattr:client-stagein-possible",
        ],
        "Owner": job.owner,
    }
    created = _told(job.created, "%Y-%m-%dT%H:%M:%S+00:00")
    return _activity(fields, CreationTime=created, Validity="60")


def _states(job: Job, state: str) -> list[str]:
    """``glueState``: the job manager's word, with what failed; the same in small; and REST's."""
    inner, batch = _STATES[state]
    failed = None if job.failed_in is None else job.failed_in.value
    words = [inner]
    if batch is not None or failed is not None:
        words.append(batch or "")
    if failed is not None:
        words.append(failed)
    return [f"nordugrid:{':'.join(words)}", f"file:{_file_state(inner, batch, failed)}",
            f"arcrest:{state}"]  # fmt: skip


def _file_state(inner: str, batch: str | None, failed: str | None) -> str:
    """The first word of ``local_state``."""
    if inner.startswith("PENDING:"):
        return "hold"
    if inner == "INLRMS" and batch == "O":
        return "running"
    if inner == "FAILED" and failed is not None:
        return failed.lower()
    return inner.lower()


def _restart(job: Job, state: str) -> list[str] | None:
    failed = job.failed_in
    if failed is None or state not in _OVER or failed not in _RESTART:
        return None
    return [f"nordugrid:{failed}", f"file:{failed.lower()}", f"arcrest:{_RESTART[failed]}"]


def _errors(job: Job) -> list[str]:
    record = job.failure.encode("utf-8", "surrogateescape")[:_PUBLISHED_RECORD].rstrip(b"\n")
    return record.decode("utf-8", "replace").split("\n") if record else []


def _node(job: Job, site: Site, state: str, as_of: float) -> str | None:
    ran = job.started is not None and job.started <= as_of and state != "QUEUING"
    return ON_NODE[site.lrms] if ran else None


def _number(value: int | None, times: int = 1) -> str | None:
    return None if value is None else str(value * times)


def _using(job: Job, site: Site, state: str, as_of: float) -> dict[str, str | None]:
    """What the batch system's plug-in says of a job that it has; little of it makes sense."""
    if state not in _IN_BATCH or (site.lrms == "condor" and state == "QUEUING"):
        return {}
    wall = wall_seconds(job, as_of if job.ended is None else min(as_of, job.ended))
    cpus = job.description.cpus
    if site.lrms == "condor":
        memory = memory_kib(job)
        return {
            "UsedTotalWallTime": str(wall * cpus),
            "UsedTotalCPUTime": str(ceil(cpu_seconds(job) or 0)),
            "UsedMainMemory": None if memory is None else str(ceil(memory / _KIB)),
        }
    return {
        "UsedTotalWallTime": str(wall * cpus),
        "UsedTotalCPUTime": str(wall * cpus),
        # The node's memory, in the wrong unit.
        "UsedMainMemory": None if state == "QUEUING" else "16",
    }


def _used(job: Job, site: Site) -> dict[str, str | None]:
    """What ``diag`` says of a job that the batch system has let go of."""
    assert job.ended is not None
    cpu = cpu_seconds(job) if site.lrms == "slurm" else cpu_seconds(job) or 0.0
    memory = memory_kib(job) or 0 if site.lrms == "condor" else None
    return {
        "UsedTotalWallTime": str(wall_seconds(job, job.ended) * job.description.cpus),
        "UsedTotalCPUTime": None if cpu is None else str(ceil(cpu)),
        "UsedMainMemory": None if memory is None else str(ceil(memory / _KIB)),
    }


def _times(job: Job, site: Site) -> dict[str, str | None]:
    """Of a job that never started, Slurm says that it started when it ended."""
    assert job.ended is not None
    started = job.started
    if started is None and site.lrms == "slurm":
        started = job.ended
    return {
        "StartTime": None if started is None else iso(started),
        "ComputingManagerEndTime": iso(job.ended),
    }


def _erased(job: Job, site: Site) -> str | None:
    return None if job.finished is None else iso(job.finished + site.keep_finished)
