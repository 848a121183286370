"""The CE's GLUE2 document, ``/info``: what it is, and how many jobs run and wait.

Made as ``ARC1ClusterInfo.pm`` of A-REX's information providers makes it; recorded ones are in
tests/pure/recorded/info-*.json. Numbers are texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Protocol

from arcbackend.simulator.activities import Site, iso
from arcbackend.simulator.jobs import InnerState
from arcbackend.simulator.traps import ArcVersion, Trap, Traps

__all__ = ["QueueLoad", "ShareCounts", "document", "share_counts"]

_VALIDITY = "10800"
_FOR_EVER = "2147483647"
_MOST_JOBS = "50000"
_SCHEMA = "https://raw.github.com/OGF-GLUE/XSD/master/schema/GLUE2.xsd"
_REST_CAPABILITIES: Final = (
    "executionmanagement.jobcreation",
    "executionmanagement.jobdescription",
    "executionmanagement.jobmanagement",
    "information.discovery.resource",
    "information.discovery.job",
    "information.lookup.job",
    "security.delegation",
)
_TRANSFERS: Final = tuple(
    f"data.transfer.ce{way}.{protocol}"
    for way in ("pull", "push")
    for protocol in ("ftp", "http", "https", "httpg", "gridftp", "srm")
)
_CAPABILITIES: Final = (
    *_TRANSFERS,
    "data.access.sessiondir.file",
    "data.access.stageindir.file",
    "data.access.stageoutdir.file",
    "executionmanagement.jobexecution",
    *_REST_CAPABILITIES,
)
# Of A-REX's states, those of jobs that are prepared (with SUBMIT), and that are finishing.
_PREPARING = (InnerState.PREPARING, InnerState.SUBMIT)
_FINISHING = (InnerState.FINISHING, InnerState.CANCELING)
_OVER = (InnerState.FINISHED, InnerState.DELETED)
# What 7.0.0 has where there is nothing: the blanks of its XML.
_BLANK = "\n            "
_AUTHORITY = "/CN=arcbackend.simulator"


class QueueLoad(Protocol):
    """What a queue of the batch system has (`batch.Load`)."""

    @property
    def running(self) -> int:
        """Jobs that have slots."""

    @property
    def running_cpus(self) -> int:
        """The slots of those."""

    @property
    def waiting(self) -> int:
        """Jobs that have none."""

    @property
    def foreign_running(self) -> int:
        """Of those that run, the ones that did not come through the CE."""

    @property
    def foreign_cpus(self) -> int:
        """The slots of those."""

    @property
    def foreign_waiting(self) -> int:
        """Of those that wait, the ones that did not."""


@dataclass(frozen=True, slots=True)
class ShareCounts:
    """What one ComputingShare counts: a queue's jobs, or those of one VO in it.

    Attributes:
        queue: its queue.
        vo: whose jobs it counts; None: everybody's.
        states: the CE's jobs in each of A-REX's states.
        running: the CE's jobs that run, by the batch system.
        waiting: the CE's jobs that wait in it.
        local_running: what else runs; A-REX counts CPUs with HTCondor, see `share_counts`.
        local_waiting: what else waits.
        used_slots: of the CE's jobs that run.
        requested_slots: of the CE's jobs that do not, yet.
        free_slots: of the queue.
        cores: slots of the CE's jobs, by A-REX's state and, in the batch system, its own.
    """

    queue: str
    vo: str | None = None
    states: Mapping[InnerState, int] = field(default_factory=lambda: MappingProxyType({}))
    running: int = 0
    waiting: int = 0
    local_running: int = 0
    local_waiting: int = 0
    used_slots: int = 0
    requested_slots: int = 0
    free_slots: int = 0
    cores: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def name(self) -> str:
        """Of the share."""
        return self.queue if self.vo is None else f"{self.queue}_{self.vo}"

    def among(self, *states: InnerState) -> int:
        """How many of the CE's jobs are in these states."""
        return sum(self.states.get(state, 0) for state in states)

    @property
    def not_over(self) -> int:
        """How many of the CE's jobs are not over."""
        return sum(self.states.values()) - self.among(*_OVER)


def share_counts(
    queue: str,
    states: Mapping[InnerState, int],
    load: QueueLoad,
    traps: Traps,
    *,
    free_slots: int,
    requested_slots: int | None = None,
) -> ShareCounts:
    """What the share of a queue counts.

    Args:
        queue: the queue.
        states: how many of the CE's jobs in it are in each of A-REX's states.
        load: what it has in the batch system.
        traps: of the CE.
        free_slots: of the batch system.
        requested_slots: of the CE's jobs that do not run yet; None: one each.
    """
    ours = load.running - load.foreign_running
    # Behind HTCondor, A-REX takes CPUs for jobs, and what is not its own for somebody else's.
    counts_cpus = Trap.CONDOR_COUNTS_CPUS in traps
    others = max(load.running_cpus - ours, 0) if counts_cpus else load.foreign_running
    waiting = load.waiting - load.foreign_waiting
    counted = ShareCounts(queue, states=states)
    not_yet = counted.among(InnerState.ACCEPTED, *_PREPARING)
    used = load.running_cpus - load.foreign_cpus
    cores = {
        "ACCEPTED": counted.among(InnerState.ACCEPTED),
        "PREPARING": counted.among(InnerState.PREPARING),
        "INLRMS:Q": waiting,
        "INLRMS:R": used,
        "FINISHING": counted.among(InnerState.FINISHING),
    }
    return ShareCounts(
        queue,
        states=states,
        running=ours,
        waiting=waiting,
        local_running=others,
        local_waiting=load.foreign_waiting,
        used_slots=used,
        requested_slots=waiting + not_yet if requested_slots is None else requested_slots,
        free_slots=free_slots,
        cores=MappingProxyType({state: count for state, count in cores.items() if count}),
    )


def document(
    site: Site,
    shares: Sequence[ShareCounts],
    traps: Traps,
    *,
    version: ArcVersion,
    slots: int,
    as_of: float,
) -> dict[str, Any]:
    """The document, as REST renders it in JSON.

    Args:
        site: the CE.
        shares: of each queue, and of each VO in it that the CE advertises.
        traps: of the CE.
        version: of ARC.
        slots: that the batch system has.
        as_of: when it was made.
    """
    maker = _Maker(site, shares, version, slots, iso(as_of))
    domain = {
        "ID": f"urn:ad:{site.host}",
        "Name": site.host,
        "Distributed": "false",
        "Services": {"ComputingService": [maker.service()]},
        **maker.attributes("Domain"),
    }
    found: dict[str, Any] = {
        "Domains": {"AdminDomain": [domain], "_attributes": {"schemaLocation": _SCHEMA}}
    }
    return _bared(found) if Trap.SINGLES_ARE_BARE in traps else found


def _bared(value: Any) -> Any:
    """The same with lists of one element made that element, as the XML behind it has no lists."""
    if isinstance(value, dict):
        return {name: _bared(inside) or _BLANK for name, inside in value.items()}
    if isinstance(value, list):
        return _bared(value[0]) if len(value) == 1 else [_bared(inside) for inside in value]
    return value


class _Maker:
    def __init__(
        self,
        site: Site,
        shares: Sequence[ShareCounts],
        version: ArcVersion,
        slots: int,
        moment: str,
    ) -> None:
        self._site = site
        self._host = site.host
        self._shares = shares
        self._whole = [share for share in shares if share.vo is None]
        self._version = version
        self._slots = slots
        self._moment = moment
        self._slurm = site.lrms == "slurm"
        self._endpoint = f"urn:ogf:ComputingEndpoint:{site.host}:rest:{site.endpoint}/arex"

    def attributes(self, kind: str) -> dict[str, Any]:
        return {
            "_attributes": {
                "BaseType": kind,
                "CreationTime": self._moment,
                "Validity": _VALIDITY,
            }
        }

    def _urn(self, kind: str, name: str) -> str:
        return f"urn:ogf:{kind}:{self._host}:{name}"

    def service(self) -> dict[str, Any]:
        shares, resources = len(self._shares), len(self._whole)
        id_ = self._urn("ComputingService", "arex")
        return {
            "ID": id_,
            "Name": self._host,
            "Capability": list(_CAPABILITIES),
            "Type": "org.nordugrid.arex",
            "QualityLevel": "production",
            "Complexity": f"endpoint=1,share={shares},resource={resources}",
            **self._totals(),
            "ComputingEndpoint": [self._rest()],
            "ComputingShare": [self._share(share) for share in self._shares],
            "ComputingManager": [self._manager()],
            "Associations": {"ServiceID": [id_]},
            **self.attributes("Service"),
        }

    def _totals(self) -> dict[str, str]:
        """Of the CE's jobs; here, PreLRMSWaitingJobs are those that A-REX has not looked at yet."""
        whole = self._whole
        counts = {
            "TotalJobs": sum(share.not_over for share in whole),
            "RunningJobs": sum(share.running for share in whole),
            "WaitingJobs": sum(share.waiting for share in whole),
            "StagingJobs": sum(share.among(*_PREPARING, *_FINISHING) for share in whole),
            "SuspendedJobs": 0,
            "PreLRMSWaitingJobs": sum(share.among(InnerState.ACCEPTED) for share in whole),
        }
        return {name: str(count) for name, count in counts.items()}

    def _rest(self) -> dict[str, Any]:
        vos = list(dict.fromkeys(share.vo for share in self._shares if share.vo is not None))
        policy = {
            "ID": self._urn("AccessPolicy", "basic"),
            "Scheme": "basic",
            "Rule": [f"vo:{vo}" for vo in vos],
            **self.attributes("Policy"),
        }
        # 7.0.0 does not tell its version.
        told = {} if self._version == "7.0.0" else {"ImplementationVersion": self._version}
        return {
            "ID": self._endpoint,
            "Name": "ARC REST",
            "URL": f"{self._site.endpoint}/arex",
            "Capability": list(_REST_CAPABILITIES),
            "Technology": "rest",
            "InterfaceName": "org.nordugrid.arcrest",
            "InterfaceVersion": ["1.1"],
            "Semantics": ["https://www.nordugrid.org/arc/arc7/tech/rest/rest.html"],
            "Implementor": "NorduGrid",
            "ImplementationName": "nordugrid-arc",
            **told,
            "QualityLevel": "production",
            "HealthState": "ok",
            "ServingState": "production",
            "IssuerCA": _AUTHORITY,
            "TrustedCA": [_AUTHORITY],
            **({"AccessPolicy": [policy]} if vos else {}),
            "Staging": "staginginout",
            "JobDescription": ["nordugrid:xrsl", "emies:adl"],
            **self._totals(),
            "Associations": {"ComputingShareID": self._share_ids(self._shares)},
            **self.attributes("Endpoint"),
        }

    def _share_ids(self, shares: Sequence[ShareCounts]) -> list[str]:
        return [self._urn("ComputingShare", share.name) for share in shares]

    def _environment_id(self, queue: str) -> str:
        names = [share.queue for share in self._whole]
        return self._urn("ExecutionEnvironment", f"execenv{names.index(queue)}")

    def _share(self, share: ShareCounts) -> dict[str, Any]:
        vo = share.vo
        policy = {
            "ID": self._urn("MappingPolicy", f"basic:{vo}"),
            "Scheme": "basic",
            "Rule": [f"vo:{vo}"],
            **self.attributes("Policy"),
        }
        cores = [f"CoreCount={state}={count}" for state, count in share.cores.items()]
        return {
            "ID": self._urn("ComputingShare", share.name),
            "Name": share.name,
            **({"OtherInfo": cores} if cores else {}),
            **({"MappingPolicy": [policy]} if vo is not None else {}),
            "MappingQueue": share.queue,
            **self._limits(),
            "ServingState": "production",
            **self._counts(share),
            "Associations": {
                "ComputingEndpointID": [self._endpoint],
                "ExecutionEnvironmentID": [self._environment_id(share.queue)],
            },
            **self.attributes("Share"),
        }

    def _limits(self) -> dict[str, str]:
        slots = str(self._slots)
        if not self._slurm:
            return {
                "MaxRunningJobs": slots,
                "MaxWaitingJobs": str(2 * self._slots),
                "MaxUserRunningJobs": slots,
                "MaxSlotsPerJob": slots,
            }
        times = {
            f"{word}{what}Time": _FOR_EVER if word == "Max" else "0"
            for what in ("Wall", "CPU")
            for word in ("Max", "Min", "Default")
        }
        jobs = ("MaxRunningJobs", "MaxWaitingJobs", "MaxUserRunningJobs")
        return {**times, **dict.fromkeys(jobs, _MOST_JOBS)}

    def _counts(self, share: ShareCounts) -> dict[str, str]:
        preparing = share.among(*_PREPARING)
        counts = {
            "TotalJobs": share.not_over + share.local_running + share.local_waiting,
            "RunningJobs": share.running + share.local_running,
            "LocalRunningJobs": share.local_running,
            "WaitingJobs": share.waiting + share.local_waiting,
            "LocalWaitingJobs": share.local_waiting,
            "SuspendedJobs": 0,
            "LocalSuspendedJobs": 0,
            "StagingJobs": preparing + share.among(*_FINISHING),
            "PreLRMSWaitingJobs": preparing + share.among(InnerState.ACCEPTED),
            "FreeSlots": share.free_slots,
            "FreeSlotsWithDuration": share.free_slots,
            # Not told while nothing of the CE's is in the batch system.
            "UsedSlots": share.used_slots if share.among(InnerState.INLRMS) else None,
            "RequestedSlots": share.requested_slots,
        }
        return {name: str(count) for name, count in counts.items() if count is not None}

    def _manager(self) -> dict[str, Any]:
        """What Slurm has is counted once for each queue that a node is in."""
        queues = len(self._whole)
        grid = sum(share.used_slots for share in self._whole)
        free = min((share.free_slots for share in self._whole), default=0)
        product = self._site.lrms
        environments = [self._environment(share) for share in self._whole]
        return {
            "ID": self._urn("ComputingManager", product),
            "ProductName": product,
            "ProductVersion": "24.11.5" if self._slurm else "23.9.6",
            "BulkSubmission": "false",
            "TotalLogicalCPUs": str(self._slots * (queues if self._slurm else 1)),
            "TotalSlots": str(self._slots),
            "SlotsUsedByLocalJobs": str(max(self._slots - free - grid, 0)),
            "SlotsUsedByGridJobs": str(grid),
            "Homogeneous": "true" if queues == 1 else "false",
            "LogicalCPUDistribution": f"{self._slots}{'' if self._slurm else '.0'}:1",
            "WorkingAreaShared": "true",
            "WorkingAreaGuaranteed": "false",
            "WorkingAreaTotal": "252",
            "WorkingAreaFree": "74",
            "WorkingAreaLifeTime": str(int(self._site.keep_finished)),
            "ExecutionEnvironments": {"ExecutionEnvironment": environments},
            "ApplicationEnvironments": {},
            **self.attributes("Manager"),
        }

    def _environment(self, whole: ShareCounts) -> dict[str, Any]:
        id_ = self._environment_id(whole.queue)
        name = id_.rpartition(":")[2]
        slots = str(self._slots)
        nodes = {
            "TotalInstances": "1",
            "UsedInstances": "1" if whole.free_slots < self._slots else "0",
            "UnavailableInstances": "0",
            "PhysicalCPUs": slots,
            "LogicalCPUs": slots,
            "CPUMultiplicity": "multicpu-singlecore",
        }
        benchmark = {"ID": self._urn("Benchmark", f"{name}:HEPSPEC")}
        benchmark |= {"Type": "HEPSPEC", "Value": "1.0"}
        return {
            "ID": id_,
            "Name": name,
            "Platform": "amd64",
            **(nodes if self._slurm else {}),
            "CPUVendor": "none",
            "CPUModel": "simulated",
            "CPUClockSpeed": "2596",
            "MainMemorySize": "16000" if self._slurm else "999999999",
            "OSFamily": "linux",
            "OSName": "debian",
            **({"OSVersion": "13"} if self._version == "7.0.0" else {}),
            "ConnectivityIn": "undefined",
            "ConnectivityOut": "undefined",
            "Benchmark": [benchmark],
            "Associations": {
                "ComputingShareID": self._share_ids(
                    [share for share in self._shares if share.queue == whole.queue]
                )
            },
            **self.attributes("Resource"),
        }
