"""Records are such as real CEs write: what arcbackend makes of both is the same."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from arcbackend.protocol.diagnosis import distil, live_state
from arcbackend.protocol.outputs import streams_of_document
from arcbackend.protocol.records import (
    Facts,
    facts_of_diag,
    facts_of_document,
    facts_of_local,
    pairs,
)
from arcbackend.simulator.activities import FIRST, ON_NODE, Site
from arcbackend.simulator.descriptions import Description, Input, Output
from arcbackend.simulator.jobs import BatchState, InnerState, Job, Plan, Submission, Usage
from arcbackend.simulator.records import ITEMS, Records
from arcbackend.simulator.traps import ArcVersion, Lrms
from tests.pure.recorded_jobs import EVERY, Recorded

KILLED = "Job is canceled by external request"
WEEK = 604_800.0
STATES = """
    ACCEPTING PREPARING PREPARED SUBMITTING QUEUING RUNNING HELD OTHER EXITINGLRMS EXECUTED
    FINISHING KILLING FINISHED FAILED KILLED WIPED
""".split()  # noqa: SIM905 - a list of a page is no clearer
SITE = Site("https://localhost:1", "localhost", "slurm", WEEK)


def named(job: Recorded) -> str:
    return f"{job.stack}: {job.case}"


def seconds(time: str | None) -> float | None:
    """Since 1970, of a time in either form that a CE has."""
    if time is None:
        return None
    form = "%Y%m%d%H%M%SZ" if "-" not in time else "%Y-%m-%dT%H:%M:%SZ"
    return datetime.strptime(time, form).replace(tzinfo=UTC).timestamp()


class Replayed:
    """A simulated job that has gone through what a real one has."""

    def __init__(self, real: Recorded) -> None:
        lrms: Lrms = "condor" if "condor" in real.stack else "slurm"
        version: ArcVersion = "7.2.0" if real.stack.endswith("7.2.0") else "7.0.0"
        fields = real.document["ComputingActivity"]
        facts = facts_of_document(real.document)
        diag, local = facts_of_diag(real.item("diag")), facts_of_local(real.item("local"))
        told = {key: values[0] for key, values in pairs(real.item("local")).items()}
        site = Site(told["headnode"].removesuffix("/arex"), "localhost", lrms, WEEK)
        self.records = Records(site, version)
        self.as_of = seconds(facts.as_of) or 0.0
        self.job = self._job(real, facts, told, version)
        job = self.job
        if local.batch_id is not None:
            job.number = int(local.batch_id.split(".")[0])
            job.batch = BatchState.ENDED if diag.ended else BatchState.RUNNING
            job.submitted = job.created
            # Slurm's words of a job that never started.
            job.started = seconds(diag.started) if diag.nodes else None
        if facts.state == "RUNNING":
            job.started = self.as_of - (facts.wall_time_s or 0.0)
        job.ended = seconds(diag.ended)
        job.exit_code = diag.exit_code
        job.failure = real.items.get("failed", "")
        job.cancelled = KILLED in job.failure
        job.failed_in = None if facts.failed_in is None else InnerState(facts.failed_in)
        job.state = InnerState(real.items["status"].strip())
        # Before the provider gave a time for it, it can be read of the files' time of removal.
        erased = seconds(facts.expires)
        job.finished = None if erased is None else erased - WEEK
        memory = re.search(r"AverageTotalMemory=(\d+)kB", real.items.get("diag", ""))
        if memory is not None:
            used = int(memory[1]) * 1024
            job.usage = Usage(facts.cpu_time_s or 0.0, used)
        elif facts.state == "RUNNING" and lrms == "condor":
            job.usage = Usage(0.0, int(fields["UsedMainMemory"]) * 2**20)
        self.document = self.records.activity(
            job, live="FAILED", published=facts.state, as_of=self.as_of
        )

    def _job(self, real: Recorded, facts: Facts, told: dict[str, str], version: ArcVersion) -> Job:
        fields = real.document["ComputingActivity"]
        claims = pairs(real.item("local"))
        name = re.search(r"jobname=(.*)", real.items["local"])
        slots = int(fields["RequestedSlots"])
        no_input = "no input" in real.case
        description = Description(
            text=b"",
            language="adl",
            name=name[1] if name else "",
            executable=told["args"].split()[0],
            arguments=tuple(
                word.replace("\\ ", " ") for word in re.split(r"(?<!\\) ", told["args"])[1:-1]
            ),
            inputs=(Input("data", "http://127.0.0.1:1/data"),) if no_input else (),
            outputs=(Output("result", "http://127.0.0.1:1/up"),)
            if "no output" in real.case
            else (),
            stdout=fields["StdOut"],
            stderr=fields["StdErr"],
            cpus=slots,
            wall_time_s=None if facts.wall_limit_s is None else int(facts.wall_limit_s),
            memory_mb=50,
        )
        submission = Submission(
            owner=fields["Owner"],
            description=description,
            queue=fields["Queue"],
            created=seconds(facts.submitted) or 0.0,
            client=told["clientname"],
            claims={
                key.removeprefix("tokenclaim."): " ".join(values)
                for key, values in claims.items()
                if key.startswith("tokenclaim.")
            },
        )
        local = real.document["ComputingActivity"]["IDFromEndpoint"].split(":")[-1]
        return Job(local, submission, Plan())

    def item(self, name: str) -> bytes:
        return self.records.item(self.job, name) or b""


@pytest.fixture(params=EVERY, ids=named)
def real(request: pytest.FixtureRequest) -> Recorded:
    found: Recorded = request.param
    return found


def placed(fields: dict[str, Any]) -> dict[str, Any]:
    """Without what differs from run to run: the node that it was on."""
    return {**fields, **{key: "a node" for key in ("ExecutionNode",) if key in fields}}


def test_documents_are_the_same(real: Recorded) -> None:
    ours = Replayed(real).document["ComputingActivity"]
    theirs = real.document["ComputingActivity"]
    assert list(ours) == list(theirs)
    assert placed(ours) == {**placed(theirs), **_unequal(real, ours)}


def _unequal(real: Recorded, ours: dict[str, Any]) -> dict[str, Any]:
    """What is not told by records that were made at one time: when the provider looked."""
    keys = ["EndTime"] if real.case == "ok" else []
    if real.case == "running":
        keys += ["UsedTotalWallTime", "UsedTotalCPUTime"]
    return {key: ours[key] for key in keys if key in ours}


def test_what_documents_come_to_is_the_same(real: Recorded) -> None:
    ours, theirs = facts_of_document(Replayed(real).document), facts_of_document(real.document)
    nodes = theirs.nodes if ours.nodes else ()
    completed = None if ours.completed is None else theirs.completed
    assert replace(ours, nodes=nodes, completed=completed) == theirs
    assert streams_of_document(Replayed(real).document) == streams_of_document(real.document)


def test_what_items_come_to_is_the_same(real: Recorded) -> None:
    replayed = Replayed(real)
    ours, theirs = facts_of_diag(replayed.item("diag")), facts_of_diag(real.item("diag"))
    assert replace(ours, nodes=theirs.nodes if ours.nodes else ()) == theirs
    assert facts_of_local(replayed.item("local")) == facts_of_local(real.item("local"))
    assert live_state(replayed.item("status")) == live_state(real.item("status"))
    assert replayed.item("status") == real.item("status")
    assert replayed.item("failed") == real.item("failed")


def test_items_have_the_same_keys_in_the_same_order(real: Recorded) -> None:
    replayed = Replayed(real)
    theirs = list(pairs(real.item("local")))
    assert list(pairs(replayed.item("local"))) == theirs
    ours = pairs(replayed.item("local"))
    differ = {"args", "transfershare"}
    assert {k: v for k, v in ours.items() if k not in differ} == {
        k: v for k, v in pairs(real.item("local")).items() if k not in differ
    }
    diag = pairs(replayed.item("diag"))
    if named(real) == "arc-condor-7.0.0: no executable":  # HTCondor tells an exit code of it
        diag = {key: told for key, told in diag.items() if key not in ("usedscratch", "walltime")}
    assert list(diag) == list(pairs(real.item("diag")))


def test_an_item_is_there_if_the_real_one_is(real: Recorded) -> None:
    replayed = Replayed(real)
    for name in ("failed", "local", "errors", "diag", "status"):
        assert (replayed.records.item(replayed.job, name) is None) is (name not in real.items)


def reason(record: str, facts: Facts, log: str) -> str:
    text = distil(record, facts, log).text
    return re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", "TIME", re.sub(r"\(\d+ > ", "(MUCH > ", text))


def test_the_reason_is_the_same(real: Recorded) -> None:
    replayed = Replayed(real)
    ours = facts_of_document(replayed.document).updated(facts_of_diag(replayed.item("diag")))
    theirs = facts_of_document(real.document).updated(facts_of_diag(real.item("diag")))
    if "failed" in real.items:
        record = real.items["failed"]
        told = reason(record, ours, replayed.item("errors").decode())
        expected = reason(record, theirs, real.items["errors"])
        # Slurm of another version says this of it.
        assert told == expected.replace(" DUE to SIGNAL Killed", "")


CHANGE = re.compile(r"^\S+ (Job state change .*)$", re.MULTILINE)


def test_the_log_tells_the_same_changes(real: Recorded) -> None:
    ours = CHANGE.findall(Replayed(real).item("errors").decode())
    theirs = CHANGE.findall(real.items["errors"])
    # The recording has the end of it only.
    assert ours[len(ours) - len(theirs) :] == theirs


def test_the_log_is_in_the_order_of_time(real: Recorded) -> None:
    log = Replayed(real).item("errors").decode()
    moments = re.findall(r"^(\S+Z) Job state change", log, re.MULTILINE)
    assert moments == sorted(moments)


# --- what is not recorded -------------------------------------------------------------------


def made(**description: Any) -> Job:
    submission = Submission(
        owner="/CN=user",
        description=Description(text=b"text", language="xrsl", **description),
        queue="main",
        created=1_000_000_000.0,
    )
    return Job("0123456789ab", submission, Plan())


@pytest.fixture
def records() -> Records:
    return Records(SITE, "7.2.0")


def test_every_item_is_there_in_every_state(records: Records) -> None:
    for state in InnerState:
        job = made(inputs=(Input("a"), Input("b", "http://h/b")), outputs=(Output("/"),))
        job.state = state
        for item in ITEMS - {"xml"}:
            records.item(job, item)
    with pytest.raises(KeyError):
        records.item(made(), "nosuch")
    assert records.item(made(), "description") == b"text"
    assert records.item(made(), "comment") is records.item(made(), "acl") is None


def test_inputs_and_outputs(records: Records) -> None:
    """As on 7.2.0."""
    job = made(
        inputs=(Input("in1"), Input("in2")), outputs=(Output("out"), Output("res", "http://h/x"))
    )
    job.state = InnerState.PREPARING
    job.awaited = frozenset({"in1", "in2"})
    assert records.item(job, "input") == b"/in1\n/in2\n"
    assert records.item(job, "input_status") == b"\n"
    proxy = b"/var/spool/arc/jobstatus/jobs/012/345/678/9ab/proxy"
    assert records.item(job, "output") == b"/out\n/res http://h/x " + proxy + b" id\n"
    job.awaited = frozenset({"in2"})
    assert records.item(job, "input") == b"/in2\n"
    assert records.item(job, "input_status") == b"\n/in1\n"
    job.awaited = None
    job.state = InnerState.INLRMS
    assert records.item(job, "input") == b""
    assert records.item(job, "input_status") == b"\n/in1\n/in2\n"
    assert records.item(job, "statistics") == b""


def test_blanks_in_names_are_escaped(records: Records) -> None:
    """As on 7.2.0."""
    job = made(inputs=(Input("b c"),), executable="a b", arguments=("c\\d",))
    job.awaited = frozenset({"b c"})
    assert records.item(job, "input") == b"/b\\ c\n"
    assert b"args=a\\ b c\\\\d \n" in (records.item(job, "local") or b"")


def test_the_first_document_is_the_job_managers(records: Records) -> None:
    """As recorded in tests/pure/recorded/7.2.0.json."""
    found = records.activity(
        made(name="recorded"), live="PREPARING", published=FIRST, as_of=1_000_000_100.0
    )
    assert json.dumps(found) == json.dumps(
        {
            "ComputingActivity": {
                "ID": "urn:caid::org.nordugrid.arcrest:0123456789ab",
                "Name": "recorded",
                "OtherInfo": "SubmittedVia=org.nordugrid.arcrest",
                "Type": "single",
                "IDFromEndpoint": "urn:idfe:0123456789ab",
                "State": [
                    "nordugrid:ACCEPTED",
                    "emies:accepted",
                    "arcrest:ACCEPTED",
                    "emiesattr:client-stagein-possible",
                ],
                "Owner": "/CN=user",
                "_attributes": {
                    "BaseType": "Activity",
                    "CreationTime": "2001-09-09T01:46:40+00:00",
                    "Validity": "60",
                },
            }
        }
    )


def test_without_any_document_rest_makes_one_up(records: Records) -> None:
    found = records.activity(made(), live="FAILED", published=None, as_of=0.0)
    facts = facts_of_document(found)
    assert facts.state == "FAILED"
    assert facts.errors == ()


@pytest.mark.parametrize("state", STATES)
def test_every_state_has_a_document(records: Records, state: str) -> None:
    found = records.activity(made(), live=state, published=state, as_of=1_000_000_100.0)
    assert facts_of_document(found).state == state


def test_a_document_knows_nothing_of_what_came_later(records: Records) -> None:
    job = made()
    job.number, job.submitted, job.started = 7, 1_000_000_001.0, 1_000_000_002.0
    job.ended, job.finished, job.exit_code = 1_000_000_032.0, 1_000_000_040.0, 3
    job.state = InnerState.FINISHED
    found = records.activity(job, live="FINISHED", published="RUNNING", as_of=1_000_000_012.0)
    facts = facts_of_document(found)
    assert (facts.exit_code, facts.started, facts.ended, facts.expires) == (None,) * 4
    assert facts.wall_time_s == 10
    assert facts.batch_id == "7"
    assert facts.nodes == (ON_NODE["slurm"],)


def test_the_document_is_a_file_too(records: Records) -> None:
    """As on 7.2.0."""
    job = made(name="a <b> & \N{LATIN SMALL LETTER E WITH ACUTE}")
    job.failure, job.failed_in = "one\ntwo\n", InnerState.SUBMIT
    found = records.activity(job, live="FAILED", published="FAILED", as_of=1_000_000_100.0)
    lines = records.xml(found).decode().split("\n")
    assert lines[:3] == [
        '<ComputingActivity xmlns="http://schemas.ogf.org/glue/2009/03/spec_2.0_r1" '
        'BaseType="Activity" CreationTime="2001-09-09T01:48:20Z" Validity="10800">',
        "  <ID>urn:caid:localhost:org.nordugrid.arcrest:0123456789ab</ID>",
        "  <Name>a &lt;b&gt; &amp; \N{LATIN SMALL LETTER E WITH ACUTE}</Name>",
    ]
    assert "  <Error>one</Error>" in lines
    assert lines[-5:] == [
        "  <Associations>",
        "    <ComputingShareID>urn:ogf:ComputingShare:localhost:main</ComputingShareID>",
        "  </Associations>",
        "</ComputingActivity>",
        "",
    ]


def test_a_long_failure_is_published_cut(records: Records) -> None:
    job = made()
    job.failure, job.failed_in = "x" * 2000 + "\n", InnerState.PREPARING
    found = records.activity(job, live="FAILED", published="FAILED", as_of=1_000_000_100.0)
    assert found["ComputingActivity"]["Error"] == "x" * 1024
    assert records.item(job, "failed") == b"x" * 2000 + b"\n"


def test_what_was_measured_is_in_diag(records: Records) -> None:
    job = made()
    job.number, job.started, job.ended = 1, 1_000_000_000.0, 1_000_000_010.0
    job.state, job.exit_code = InnerState.FINISHED, 0
    job.usage = Usage(cpu_seconds=2.5, memory=10 * 2**20)
    facts = facts_of_diag(records.item(job, "diag") or b"")
    assert (facts.cpu_time_s, facts.peak_memory_mb, facts.wall_time_s) == (2.5, 10, 10)
