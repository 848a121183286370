"""A-REX's own files about one job: what ``jobs/<id>/diagnose/<item>`` gives.

They are made of what is known of the job now. What A-REX and the batch systems' scripts write is
told after recordings (tests/pure/recorded/jobs-*.json); of what does not matter to anybody, such as
the whole of the script that ARC makes of a job, there is less of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from math import ceil
from types import MappingProxyType
from typing import Any, Final

from arcbackend.simulator.activities import (
    ON_NODE,
    Site,
    batch_id,
    cpu_seconds,
    document,
    in_xml,
    iso,
    made_up,
    mds,
    memory_kib,
    wall_seconds,
)
from arcbackend.simulator.descriptions import Input
from arcbackend.simulator.jobs import InnerState, Job
from arcbackend.simulator.traps import ArcVersion
from arcbackend.simulator.views import manager_state

__all__ = ["ITEMS", "Records"]

_CONTROL = "/var/spool/arc/jobstatus"
_SESSIONS = "/var/spool/arc/sessiondir"
_LRMS = MappingProxyType({"slurm": "SLURM", "condor": "condor"})
_BREAKS = re.compile(r"[ \\\r\n]")
_RULE = "-" * 67
_BEFORE_BATCH = (InnerState.ACCEPTED, InnerState.PREPARING, InnerState.SUBMIT)
# What Slurm writes of the end of a job, by what ARC's script makes of it.
_SLURM_ENDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Job timeout": " DUE TO TIME LIMIT",
        "Node fail": " DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS",
        "Job was cancelled": "",
    }
)
_OUT_OF_MEMORY = "LRMS error: (265) Job failed"
_REMOVED_BY_US = "RemoveReason: via condor_rm (by user griduser)"
_PERIODIC = "PeriodicRemove evaluated to TRUE"


class Records:
    """The files about the jobs of one CE.

    Args:
        site: the CE.
        version: of ARC.
    """

    def __init__(self, site: Site, version: ArcVersion) -> None:
        self._site = site
        self._slurm = site.lrms == "slurm"
        self._version = version

    def activity(
        self, job: Job, *, live: str, published: str | None, as_of: float
    ) -> dict[str, Any]:
        """A job's document.

        Args:
            job: the job.
            live: its state now, in REST's words.
            published: its state in the document; None: nobody has written one.
            as_of: when it was written.
        """
        if published is None:
            return made_up(job, self._site, state=live)
        return document(job, self._site, state=published, as_of=as_of)

    def item(self, job: Job, name: str) -> bytes | None:
        """One file, other than the document; None: there is none of this job.

        Raises:
            KeyError: there is no such item.
        """
        text = _ITEMS[name](self, job)
        return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text

    def xml(self, activity: Mapping[str, Any]) -> bytes:
        """The document as a file (``diagnose/xml``)."""
        return in_xml(activity)

    # The files, by name.

    def _status(self, job: Job) -> str:
        return manager_state(job)

    def _failed(self, job: Job) -> str | None:
        return job.failure or None

    def _description(self, job: Job) -> bytes:
        return job.description.text

    def _nothing(self, _job: Job) -> None:
        return None

    def _local(self, job: Job) -> str:
        asked, submission, endpoint = job.description, job.submission, self._site.endpoint
        fetched = [one for one in asked.inputs if one.source is not None]
        stored = [one for one in asked.outputs if one.target is not None]
        fetching = job.state is InnerState.PREPARING and bool(fetched)
        untouched = job.state is InnerState.ACCEPTED or _never_prepared(job)
        command = (asked.executable, *asked.arguments)
        pairs: list[tuple[str, str | None]] = [
            ("globalid", job.local),
            ("headnode", f"{endpoint}/arex"),
            ("headhost", self._site.host),
            ("globalurl", f"{endpoint}/arex/{job.local}"),
            ("interface", "org.nordugrid.arcrest"),
            ("lrms", _LRMS[self._site.lrms]),
            ("queue", job.queue),
            ("localid", batch_id(job, self._site) if job.number else None),
            ("args", "".join(f"{_escaped(word) or chr(92)} " for word in command)),
            ("argscode", "0"),
            ("subject", job.owner),
            ("starttime", mds(job.created)),
            ("lifetime", None if untouched else str(int(self._site.keep_finished))),
            ("rerun", str(asked.reruns)),
            ("downloads", str(len(fetched))),
            ("uploads", "0" if job.over else str(len(stored))),
            ("jobname", asked.name),
            ("gmlog", asked.log_directory),
            ("cleanuptime", self._cleanup_time(job)),
            ("delegexpiretime", mds(submission.proxy_until or job.created)),
            ("clientname", submission.client),
            ("delegationid", next(iter(submission.delegations), None)),
            ("sessiondir", f"{_SESSIONS}/{job.local}"),
            ("diskspace", "0"),
            ("failedstate", job.failed_in),
            ("failedcause", self._failed_cause(job)),
            ("freestagein", "no"),
            ("auth", "x509" if submission.claims is None else "tokens"),
            *self._claims(job),
            ("transfershare", f"_default{'-download' if fetching else ''}"),
            ("priority", str(asked.priority)),
            ("dryrun", "no"),
        ]
        return "".join(f"{key}={value}\n" for key, value in pairs if value)

    def _cleanup_time(self, job: Job) -> str | None:
        return None if job.finished is None else mds(job.finished + self._site.keep_finished)

    def _failed_cause(self, job: Job) -> str | None:
        if job.cancelled:
            return "client"
        return None if job.failed_in is None else "internal"

    def _claims(self, job: Job) -> Iterator[tuple[str, str]]:
        for name, claim in sorted((job.submission.claims or {}).items()):
            split = name == "scope" and self._version == "7.0.0"
            for value in claim.split() if split else [claim]:
                yield f"tokenclaim.{name}", value

    def _input(self, job: Job) -> str:
        """The inputs that are not there yet."""
        waited = job.state in (InnerState.ACCEPTED, InnerState.PREPARING)
        if not waited and job.failed_in is not InnerState.PREPARING:
            return ""
        missing = (
            one
            for one in job.description.inputs
            if one.source is not None or one.name.removeprefix("/") in (job.awaited or ())
        )
        return "".join(f"{self._file(job, one)}\n" for one in missing)

    def _file(self, job: Job, one: Input) -> str:
        if one.source is None:
            return _absolute(one.name)
        return f"{_absolute(one.name)} {_escaped(one.source)} {_CONTROL}/{_parts(job)}/proxy"

    def _output(self, job: Job) -> str:
        lines = (
            _absolute(one.name)
            if one.target is None
            else f"{_absolute(one.name)} {_escaped(one.target)} {_CONTROL}/{_parts(job)}/proxy id"
            for one in job.description.outputs
        )
        return "".join(f"{line}\n" for line in lines)

    def _input_status(self, job: Job) -> str:
        """The inputs that a client has uploaded."""
        asked = [one.name for one in job.description.inputs if one.source is None]
        awaited = job.awaited or frozenset()
        there = [name for name in asked if name.removeprefix("/") not in awaited]
        return "\n" + "".join(f"{_absolute(name)}\n" for name in there)

    def _statistics(self, job: Job) -> str:
        if job.state in (InnerState.ACCEPTED, InnerState.PREPARING) or _never_prepared(job):
            return ""
        fetched = [one.source for one in job.description.inputs if one.source is not None]
        moment = iso(job.created)
        lines = [
            f"inputfile:url={url},size=0,starttime={moment},endtime={moment},fromcache=no"
            for url in fetched
        ]
        if job.over and not job.failure:
            moment = iso(job.finished or job.created)
            lines += [
                f"outputfile:url={one.target},size=0,starttime={moment},endtime={moment}"
                for one in job.description.outputs
                if one.target is not None
            ]
        return "".join(f"{line}\n" for line in lines)

    # What the scripts write of a job's run.

    def _diag(self, job: Job) -> str | None:
        if job.state is InnerState.ACCEPTED or _never_prepared(job):
            return None
        if not job.number:
            return "Benchmark=HEPSPEC:1.0\n" if job.failed_in is InnerState.SUBMIT else ""
        if job.ended is None or job.state is InnerState.INLRMS:
            return "Benchmark=HEPSPEC:1.0\n"
        return "".join(f"{line}\n" for line in self._run(job))

    def _run(self, job: Job) -> Iterator[str]:
        cpus, told = job.description.cpus, job.exit_code is not None
        if job.started is not None:
            yield "runtimeenvironments=" + ";".join(job.description.runtime_environments)
            yield "systemsoftware=Debian GNU/Linux"
            yield f"Processors={cpus}"
            if cpus > 1 and told:
                yield "Nodecount=1"
            yield "Benchmark=HEPSPEC:1.0"
            if told:
                yield "usedscratch=0"
                yield f"walltime={wall_seconds(job, job.ended or job.started)}"
                if self._slurm:
                    yield from self._measured(job)
            yield ""
            yield f"nodename={ON_NODE[self._site.lrms]}"
        else:
            yield ""
            yield ""
        yield from self._scanned(job)

    def _measured(self, job: Job) -> Iterator[str]:
        """What GNU time has to say, where it is installed."""
        cpu, memory = cpu_seconds(job), None if job.usage is None else memory_kib(job)
        if cpu is not None:
            yield "KernelTime=0.00s"
            yield f"UserTime={cpu:.2f}s"
        if memory is not None:
            yield f"MaxResidentMemory={memory}kB"
            yield "AverageTotalMemory=0kB"

    def _scanned(self, job: Job) -> Iterator[str]:
        """What the batch system tells of it, by the scan script."""
        assert job.ended is not None
        yield f"WallTime={wall_seconds(job, job.ended)}s"
        if self._slurm:
            yield f"Processors={job.description.cpus}"
            yield f"LRMSStartTime={mds(job.ended if job.started is None else job.started)}"
            yield f"LRMSEndTime={mds(job.ended)}"
        else:
            yield f"UserTime={ceil(cpu_seconds(job) or 0)}s"
            yield "KernelTime=0s"
            yield f"AverageTotalMemory={memory_kib(job) or 0}kB"
            if job.started is not None:
                yield f"LRMSStartTime={mds(job.started)}"
            yield f"LRMSEndTime={mds(job.ended)}"
            if (message := self._condor_message(job)) is not None:
                yield f"LRMSMessage={message}"
            if job.exit_code is not None:
                yield f"LRMSExitcode={job.exit_code}"
        if job.exit_code is not None:
            yield f"exitcode={job.exit_code}"

    def _condor_message(self, job: Job) -> str | None:
        """Why HTCondor has removed a job."""
        if job.exit_code is not None or not job.failure:
            return None
        if job.cancelled:
            return _REMOVED_BY_US
        said = _lrms_error(job)[1]
        return said if said.startswith("RemoveReason:") else _PERIODIC

    # The log.

    def _errors(self, job: Job) -> str:
        return "".join(f"{line}\n" for line in self._log(job))

    def _log(self, job: Job) -> Iterator[str]:
        never = _never_prepared(job)
        if not never:
            yield _change(job.created, "UNDEFINED", "ACCEPTED", "(Re)Accepting new job")
        if job.state is InnerState.ACCEPTED:
            return
        state = "UNDEFINED"
        if not never:
            state = "PREPARING"
            yield _change(job.created, "ACCEPTED", state, "Starting job processing")
        tried = job.number or job.state is InnerState.SUBMIT or job.failed_in is InnerState.SUBMIT
        if tried:
            state = "SUBMIT"
            moment = job.changed if job.submitted is None else job.submitted
            why = "Pre-staging finished, passing job to LRMS"
            yield _change(moment, "PREPARING", state, why)
            if job.state is not InnerState.SUBMIT:
                yield from self._submission(job)
        if job.submitted is not None:
            state = "INLRMS"
            yield _change(job.submitted, "SUBMIT", state, "Job is passed to LRMS")
        yield from self._leaving(job, state)

    def _leaving(self, job: Job, state: str) -> Iterator[str]:
        """From where it was to the end."""
        if job.state in (*_BEFORE_BATCH, InnerState.INLRMS):
            return
        end = job.changed if job.finished is None else job.finished
        canceled = job.number and job.failed_in is InnerState.INLRMS
        if canceled:
            if not job.cancelled:
                yield from self._output_stream(job)
            why = "Request to cancel job" if job.cancelled else "Job failure detected"
            yield _change(job.ended or end, state, "CANCELING", why)
            state = "CANCELING"
            if job.state is InnerState.CANCELING:
                return
            if job.cancelled:
                yield from self._cancelling(job)
                yield from self._output_stream(job)
        elif job.number:
            yield from self._output_stream(job)
        yield _change(end, state, "FINISHING", self._why_finishing(job, canceled=bool(canceled)))
        if job.over:
            why = "Job failure detected" if job.failure else "Stage-out finished."
            yield _change(end, "FINISHING", "FINISHED", why)

    def _why_finishing(self, job: Job, *, canceled: bool) -> str:
        if canceled:
            return "Job cancellation succeeded"
        if job.failed_in is InnerState.FINISHING or not job.failure:
            if not job.number:
                return "Job does NOT define executable. Going directly to post-staging."
            return "Job finished executing in LRMS"
        return "Request to cancel job" if job.cancelled else "Job failure detected"

    def _submission(self, job: Job) -> Iterator[str]:
        """What the script says that passes the job on."""
        asked, name = job.description, "slurm" if self._slurm else "condor"
        yield f"----- starting submit_{name}_job -----"
        yield f"{name.upper()} jobname: {asked.name or 'gridjob'}"
        yield f"{name.upper()} job script built"
        yield f"{name.upper()} script follows:"
        yield _RULE
        yield "#!/bin/bash -l"
        yield f"#SBATCH -p {job.queue}" if self._slurm else f"# queue {job.queue}"
        for variable, value in asked.environment.items():
            yield f"export {variable}='{value}'"
        yield " ".join(f'"{word}"' for word in (asked.executable, *asked.arguments))
        yield _RULE
        yield ""
        if job.number:
            yield "job submitted successfully!"
            yield f"local job id: {job.number}"
        else:
            yield "job *NOT* submitted successfully!"
            yield from self._not_taken()
        yield f"----- exiting submit_{name}_job -----"
        yield ""

    def _not_taken(self) -> Iterator[str]:
        if self._slurm:
            yield "got error code from sbatch: 1 !"
            yield "Output is:"
            yield (
                "sbatch: error: Batch job submission failed: Required partition not available "
                "(inactive or drain)"
            )
        else:
            yield "ERROR: Failed to connect to local queue manager"

    def _cancelling(self, job: Job) -> Iterator[str]:
        if self._slurm:
            yield "----- starting cancel_slurm_job -----"
            yield f"executing scancel with job id {job.number}"
            yield "----- exiting cancel_slurm_job -----"

    def _output_stream(self, job: Job) -> Iterator[str]:
        """What the job's script and the batch system said."""
        if not self._slurm:
            yield from self._scan(job)
            return
        yield "------- Contents of output stream forwarded by the LRMS ---------"
        if job.started is not None:
            yield "Detecting resource accounting method available for the job."
            yield from self._slurm_end(job)
        yield "------------------------- End of output -------------------------"

    def _slurm_end(self, job: Job) -> Iterator[str]:
        assert job.ended is not None
        moment = iso(job.ended).removesuffix("Z")
        # Slurm's own format depends on its version, which came with that of ARC.
        old = self._version == "7.0.0"
        before = "slurmstepd-node: error:" if old else f"[{moment}.000] error:"
        after = None if job.exit_code is not None else _SLURM_ENDS.get(_lrms_error(job)[1])
        if job.failure.startswith(_OUT_OF_MEMORY) and job.exit_code is None:
            limit = (job.description.memory_mb or 0) * job.description.cpus * 2**20
            used = max((memory_kib(job) or 0) * 2**10, limit + 1)
            yield f"{before} StepId={job.number}.batch exceeded memory limit " + (
                f"({used} > {limit}), being killed"
            )
            after = ""
        elif job.cancelled and job.exit_code is None:
            after = ""
        if after is None:
            return
        if not after and not old:
            after = " DUE to SIGNAL Terminated"
        yield f"{before} *** JOB {job.number} ON node CANCELLED AT {moment}{after} ***"

    def _scan(self, job: Job) -> Iterator[str]:
        """What ``scan-condor-job`` found out."""
        assert job.ended is not None
        lines = ["----- Information extracted from condor_history -----"]
        if job.started is not None:
            lines.append(f"LastRemoteHost={ON_NODE['condor']}")
        lines.append(f"RemoteWallClockTime={wall_seconds(job, job.ended)}")
        if job.exit_code is not None:
            lines.append(f"ExitCode={job.exit_code}")
        message = self._condor_message(job)
        if message is not None:
            lines.append(f"RemoveReason={message.removeprefix('RemoveReason: ')}")
        lines.append("-" * 53)
        if job.started is not None:
            lines.append(f"LRMSStartTime={mds(job.started)}")
        lines.append(f"LRMSEndTime={mds(job.ended)}")
        if message is not None:
            lines.append("ExitCode not found in condor log and condor_history")
        said = _lrms_error(job)[1]
        lines.append(said or message or f"Condor job {job.number} finished normally")
        for line in lines:
            yield f"scan-condor-job: {line}"


def _change(moment: float, before: str, after: str, reason: str) -> str:
    return f"{iso(moment)} Job state change {before} -> {after}   Reason: {reason}"


def _lrms_error(job: Job) -> tuple[str, str]:
    """The code and the words of the batch system's failure; none: nothing."""
    for line in job.failure.split("\n"):
        if line.startswith("LRMS error: ("):
            code, _, said = line.removeprefix("LRMS error: (").partition(")")
            return code, said.strip()
    return "", ""


def _never_prepared(job: Job) -> bool:
    """Whether it was killed before A-REX had taken it in."""
    return job.cancelled and job.failed_in is None and not job.number


def _absolute(name: str) -> str:
    return _escaped(name if name.startswith("/") else f"/{name}")


def _escaped(word: str) -> str:
    """A word in a line of words."""
    return _BREAKS.sub(r"\\\g<0>", word)


def _parts(job: Job) -> str:
    """Where A-REX keeps a job's files, below its control directory (``job_control_path``)."""
    local = job.local
    return f"jobs/{local[:3]}/{local[3:6]}/{local[6:9]}/{local[9:]}"


_ITEMS: Final[Mapping[str, Callable[[Records, Job], str | bytes | None]]] = MappingProxyType(
    {
        "failed": Records._failed,
        "local": Records._local,
        "errors": Records._errors,
        "description": Records._description,
        "diag": Records._diag,
        "comment": Records._nothing,
        "status": Records._status,
        "acl": Records._nothing,
        "input": Records._input,
        "output": Records._output,
        "input_status": Records._input_status,
        "output_status": Records._nothing,
        "statistics": Records._statistics,
    }
)
ITEMS: Final = frozenset(_ITEMS) | {"xml"}
"""The names of all items."""
