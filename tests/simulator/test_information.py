"""The CE's document is such as real CEs publish: arcbackend reads the same from both."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from arcbackend.protocol.load import Share, parse_shares
from arcbackend.protocol.messages import Response
from arcbackend.simulator.activities import Site
from arcbackend.simulator.information import QueueLoad, ShareCounts, document, share_counts
from arcbackend.simulator.jobs import InnerState
from arcbackend.simulator.traps import ArcVersion, Lrms, Trap, Traps

FOLDER = Path(__file__).parents[1] / "pure" / "recorded"
CES: Mapping[str, tuple[ArcVersion, Lrms]] = {
    "arc-slurm-7.0.0": ("7.0.0", "slurm"),
    "arc-slurm-7.2.0": ("7.2.0", "slurm"),
    "arc-condor-7.0.0": ("7.0.0", "condor"),
}
SITE = Site("https://localhost:1", "localhost", "slurm", 604_800.0)
MOMENT = 1_000_000_000.0


@dataclass(frozen=True)
class Load:
    """What tests/integration/record_load.py made: eight CPUs, of which others have two."""

    running: int = 3
    running_cpus: int = 8
    waiting: int = 2
    foreign_running: int = 1
    foreign_cpus: int = 2
    foreign_waiting: int = 0


# One that waits for its input, two that run on three CPUs each, two that wait.
STATES = {InnerState.PREPARING: 1, InnerState.INLRMS: 4}
NOTHING = Load(0, 0, 0, 0, 0, 0)


def counted(queue: str, load: QueueLoad, states: Mapping[InnerState, int], t: Traps) -> ShareCounts:
    made = share_counts(queue, states, load, t, free_slots=0, requested_slots=7)
    cores = {state: 3 * n if state == "INLRMS:Q" else n for state, n in made.cores.items()}
    return replace(made, cores=cores)


def made(ce: str) -> dict[str, Any]:
    version, lrms = CES[ce]
    traps = Traps(version, lrms)
    if lrms == "condor":
        shares = [counted("condor", Load(), STATES, traps)]
    else:
        main = counted("main", Load(), STATES, traps)
        nothing = replace(counted("other", NOTHING, {}, traps), requested_slots=0)
        # All of the CE's jobs are of one VO; what is not the CE's is nobody's.
        shares = [
            main,
            replace(main, vo="atlas", local_running=0),
            nothing,
            replace(nothing, queue="main", vo="cms"),
        ]
    site = replace(SITE, lrms=lrms)
    return document(site, shares, traps, version=version, slots=8, as_of=MOMENT)


def recorded(ce: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"info-{ce}.json").read_text())
    return found


def read(document: dict[str, Any]) -> tuple[Share, ...]:
    body = json.dumps(document).encode()
    shares = parse_shares(Response(200, "OK", {}, body), "https://localhost:1")
    return tuple(replace(share, created="then") for share in shares)


@pytest.mark.parametrize("ce", CES)
def test_arcbackend_reads_the_same(ce: str) -> None:
    assert read(made(ce)) == read(recorded(ce))
    assert len(read(made(ce))) == (1 if "condor" in ce else 4)


def paths(value: Any, path: str = "") -> Iterator[str]:
    """Where what is in a document, and what kind of thing it is; without the numbers of lists."""
    if isinstance(value, dict):
        yield f"{path} {{}}"
        for name, inside in value.items():
            yield from paths(inside, f"{path}/{name}")
    elif isinstance(value, list):
        yield f"{path} []"
        for inside in value:
            yield from paths(inside, f"{path}/*")
    else:
        yield path


@pytest.mark.parametrize("ce", CES)
def test_the_documents_have_the_same_keys(ce: str) -> None:
    assert set(paths(made(ce))) == set(paths(recorded(ce)))


def keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: keys(inside) for name, inside in value.items()}
    return None


@pytest.mark.parametrize("ce", CES)
def test_the_keys_are_in_the_same_order(ce: str) -> None:
    assert json.dumps(keys(made(ce))) == json.dumps(keys(recorded(ce)))


def services(document: dict[str, Any]) -> dict[str, Any]:
    domain = document["Domains"]["AdminDomain"]
    service = (domain[0] if isinstance(domain, list) else domain)["Services"]["ComputingService"]
    found: dict[str, Any] = service[0] if isinstance(service, list) else service
    return found


@pytest.mark.parametrize("ce", CES)
def test_the_numbers_are_the_same(ce: str) -> None:
    ours, theirs = services(made(ce)), services(recorded(ce))
    assert {k: v for k, v in ours.items() if isinstance(v, str)} == {
        k: v for k, v in theirs.items() if isinstance(v, str)
    }
    assert sorted(ours["Capability"]) == sorted(theirs["Capability"])
    assert shares_of(ours) == shares_of(theirs)
    manager, real = (
        each[0] if isinstance(each, list) else each
        for each in (ours["ComputingManager"], theirs["ComputingManager"])
    )
    differ = {"ProductVersion"}
    assert {k: v for k, v in manager.items() if isinstance(v, str) and k not in differ} == {
        k: v for k, v in real.items() if isinstance(v, str) and k not in differ
    }


def shares_of(service: dict[str, Any]) -> dict[str, Any]:
    found = service["ComputingShare"]
    shares = found if isinstance(found, list) else [found]
    return {
        share["Name"]: {
            **{name: told for name, told in share.items() if isinstance(told, str)},
            "OtherInfo": sorted(share.get("OtherInfo", [])),
        }
        for share in shares
    }


def test_lists_are_lists_where_the_trap_is_off() -> None:
    traps = Traps("7.0.0", "slurm", [Trap.SINGLES_ARE_BARE])
    found = document(SITE, [ShareCounts("main")], traps, version="7.0.0", slots=8, as_of=MOMENT)
    assert isinstance(found["Domains"]["AdminDomain"], list)
    bare = document(
        SITE, [ShareCounts("main")], Traps("7.0.0", "slurm"), version="7.0.0", slots=8, as_of=MOMENT
    )
    assert isinstance(bare["Domains"]["AdminDomain"], dict)
    assert read(found) == read(bare)


def test_jobs_are_counted_as_jobs_where_the_trap_is_off() -> None:
    honest = Traps("7.0.0", "condor", [Trap.CONDOR_COUNTS_CPUS])
    counts = share_counts("condor", STATES, Load(), honest, free_slots=0)
    assert (counts.running, counts.local_running) == (2, 1)
    trapped = share_counts("condor", STATES, Load(), Traps("7.0.0", "condor"), free_slots=0)
    assert (trapped.running, trapped.local_running) == (2, 6)


def test_what_is_over_is_not_counted() -> None:
    states = {InnerState.FINISHED: 7, InnerState.ACCEPTED: 1, InnerState.FINISHING: 1}
    traps = Traps("7.2.0", "slurm")
    counts = share_counts("main", states, NOTHING, traps, free_slots=8)
    (share,) = shares_of(
        services(document(SITE, [counts], traps, version="7.2.0", slots=8, as_of=MOMENT))
    ).values()
    numbers = ("TotalJobs", "StagingJobs", "PreLRMSWaitingJobs", "FreeSlots", "RequestedSlots")
    assert [share[name] for name in numbers] == ["2", "1", "1", "8", "1"]
