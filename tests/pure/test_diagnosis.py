"""Reasons made of records: of real ones, of what CEs' scripts can write, and of hostile ones."""

from __future__ import annotations

import re
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcbackend.protocol.diagnosis import (
    KILL_MARKS,
    Finding,
    distil,
    live_state,
    readable,
    was_killed,
    without_secrets,
)
from arcbackend.protocol.records import Facts, facts_of_diag, facts_of_document
from tests.pure.recorded_jobs import EVERY, JOBS, Recorded

MOST = 400
BY_REQUEST = "killed by request (ARC client)"
CANCELLED = r"killed in the batch system \(Slurm: CANCELLED AT 2026-\S+?(?: DUE to SIGNAL \w+)?\)"
REMOVED = r"killed in the batch system \(HTCondor: via condor_rm \(by user condor\)\)"
# Case of a recorded job → the reason on Slurm, and on HTCondor if it is another.
REASONS: dict[str, tuple[str, ...]] = {
    "exit 3": ("exit code 3",),
    "SIGKILL": (r"exit code 137 \(128 \+ SIGKILL\)",),
    "no executable": (
        "ARC's job script ended with exit code 1, before the payload had one; the job's stderr may "
        "tell why",
        "exit code 1",
    ),
    "not executable": ("exit code 126",),
    "no output": (
        "output result could not be stored: No such file or directory: Failed to stat file "
        r"/var/spool/arc/sessiondir/\w+/result",
    ),
    "no input": (
        r"input http://127\.0\.0\.1:\d+/no/such/file\?… could not be fetched: No such file or "
        "directory: Not Found",
    ),
    "killed at once": (re.escape(BY_REQUEST),),
    "killed waiting": (re.escape(BY_REQUEST),),
    "killed running": (re.escape(BY_REQUEST),),
    "cancelled running": (CANCELLED, REMOVED),
    "cancelled waiting": (r"killed in the batch system \(Slurm: Job was cancelled\)", REMOVED),
    "over time": (
        r"over its wall-time limit \(Slurm: TIMEOUT after \d+ s, 20 s asked for\)",
        r"over its wall-time limit, as ARC infers \(job killed: wall\)",
    ),
    "over memory": (
        r"out of memory \(Slurm: StepId=\d+.batch exceeded memory limit \(\d+ > 52428800\), being "
        r"killed\)",
        r"over its memory limit, as ARC infers \(job killed: vmem\)",
    ),
    "lost node": (r"its node localhost failed \(Slurm: NODE_FAIL\)",),
    "not submitted": (
        r"the batch system did not take it \(sbatch: error: Batch job submission failed: Required "
        r"partition not available \(inactive or drain\)\)",
    ),
}
ENDED_BADLY = [job for job in EVERY if "failed" in job.items]


def named(job: Recorded) -> str:
    return f"{job.stack}: {job.case}"


# --- real records ---------------------------------------------------------------------------


def test_every_recorded_case_has_a_reason() -> None:
    assert {job.case for job in ENDED_BADLY} == REASONS.keys()
    well = {job.case for job in EVERY} - REASONS.keys()
    assert well == {"ok", "running", "waiting"}


@pytest.mark.parametrize("job", ENDED_BADLY, ids=named)
def test_the_reason(job: Recorded) -> None:
    facts = facts_of_document(job.document)
    slurm, condor = (REASONS[job.case] * 2)[:2]
    expected = condor if "condor" in job.stack else slurm
    log = readable(job.item("errors"), 3000)
    whole = distil(job.items["failed"], facts, log)
    assert re.fullmatch(expected, whole.text), whole.text
    assert not whole.more
    # What is published of the record says the same; where the log says more, that is known.
    published = distil("\n".join(facts.errors), facts)
    assert published.text == whole.text or published.more
    # At the moment of its end there is no document yet.
    asked = Facts(wall_limit_s=facts.wall_limit_s)
    fresh = distil(job.items["failed"], asked.updated(facts_of_diag(job.item("diag"))), log)
    assert fresh.text == whole.text
    assert was_killed(job.items["failed"]) == (whole.text == BY_REQUEST)


def test_an_eviction_shows_in_the_log() -> None:
    record, log = (
        "LRMS error: (-1) PeriodicRemove evaluated to TRUE",
        (
            "004 (014.000.000) 2026-11-25 13:00:31 Job was evicted.\n"
            "009 (014.000.000) 2026-11-25 13:00:32 Job was aborted.\n"
        ),
    )
    removed = "removed by HTCondor (PeriodicRemove evaluated to TRUE)"
    assert distil(record, Facts()) == Finding(removed, more=True)
    assert distil(record, Facts(), log).text == (
        f"{removed}, after it had been evicted from its node"
    )


def test_what_slurm_said_of_a_job_that_it_then_forgot() -> None:
    log = "slurmstepd-stack: error: *** JOB 26 ON stack CANCELLED AT 2026-11-25T12:59:04 ***\nx\n"
    record = "LRMS error: (-1) Job missing from SLURM\n"
    lost = "lost by the batch system (Slurm no longer knew the job"
    assert distil(record, Facts()) == Finding(f"{lost})", more=True)
    assert distil(record, Facts(), log).text == (
        f"{lost}; it had said: CANCELLED AT 2026-11-25T12:59:04)"
    )


# --- what the sources can write -------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "facts", "reason"),
    [
        ("", Facts(), "the CE says that it failed, and has no record of why"),
        ("", Facts(exit_code=2), "exit code 2"),
        ("Internal error\n", Facts(), "Internal error"),
        ("Internal error\nand more\n", Facts(), "Internal error; and more"),
        (f"LRMS error: (1) x\n{KILL_MARKS[0]}\n", Facts(), BY_REQUEST),
        (f"{KILL_MARKS[1]}\n", Facts(), BY_REQUEST),
        ("LRMS error: (7) Job failed", Facts(exit_code=7), "exit code 7"),
        (
            "LRMS error: (265) Job failed",
            Facts(),
            "killed by SIGKILL (Slurm: FAILED)",
        ),
        ("LRMS error: (299) Job failed", Facts(), "killed by signal 43 (Slurm: FAILED)"),
        (
            "LRMS error: (1) Job failed",
            Facts(exit_code=0),
            "Slurm: FAILED, code 1, though the payload's exit code is 0",
        ),
        (
            "LRMS error: (271) Job timeout",
            Facts(),
            "over its wall-time limit (Slurm: TIMEOUT)",
        ),
        (
            "LRMS error: (271) Job timeout",
            Facts(wall_time_s=87, wall_limit_s=60),
            "over its wall-time limit (Slurm: TIMEOUT after 87 s, 60 s asked for)",
        ),
        ("LRMS error: (257) Node fail", Facts(), "its node failed (Slurm: NODE_FAIL)"),
        (
            "LRMS error: (15) Job was cancelled by SLURM",
            Facts(),
            "killed in the batch system (Slurm: Job was cancelled)",
        ),
        (
            "LRMS error: (3) Job missing from SLURM, exitcode recovered from session directory",
            Facts(),
            "exit code 3",
        ),
        (
            "LRMS error: (0) Job missing from SLURM, exitcode recovered from session directory",
            Facts(),
            "lost by the batch system (Slurm no longer knew the job)",
        ),
        ("LRMS error: (-1) Job failed with exit code 5.", Facts(), "exit code 5"),
        ("LRMS error: (5) Job finished with wrong exit code - 5 != 0", Facts(), "exit code 5"),
        (
            "LRMS error: (1) Job failed with exit code of some kind",
            Facts(),
            "exit code of some kind",
        ),
        (
            "LRMS error: (-1) ExitReason: died on signal 9",
            Facts(),
            "ended by HTCondor: died on signal 9",
        ),
        ("LRMS error: (271) Job was killed by PBS.", Facts(), "killed in the batch system (PBS)"),
        (
            "LRMS error: (271) job killed: cput",
            Facts(),
            "over its CPU-time limit, as ARC infers (job killed: cput)",
        ),
        ("LRMS error: (9) What is this?", Facts(), "batch system error 9: What is this?"),
        ("LRMS error: (9) ", Facts(), "batch system error 9: no message"),
        (
            "LRMS error: (9) What is this?",
            Facts(exit_code=139),
            "exit code 139 (128 + SIGSEGV) (batch system: What is this?)",
        ),
        (
            "User file: /in put/x - Timeout waiting",
            Facts(),
            "User file: /in put/x - Timeout waiting",
        ),
        ("User file: /x - Timeout waiting", Facts(), "input x was not uploaded: Timeout waiting"),
        ("Job submission to LRMS failed", Facts(), "Job submission to LRMS failed"),
        (
            "Plugin at state ACCEPTED failed: no",
            Facts(),
            "Plugin at state ACCEPTED failed: no",
        ),
        ("Failed in data staging: Some reason", Facts(), "data staging failed: Some reason"),
        (
            "Failed in data staging: Failed writing to destination: http://u:pw@h/up?x=1 : Failed "
            "while writing to destination: Failed to connect to h",
            Facts(),
            "output http://…@h/up?… could not be stored: Failed while writing to destination: "
            "Failed to connect to h",
        ),
        (
            "Failed in data staging: Failed checking source replica https://h/x: Failed to obtain "
            "information about file: Can not load certificate file - /p\nSSL error\n"
            'SSL error, with "unknown" alert (Proxy expired)\n\n',
            Facts(failed_in="PREPARING"),
            "input https://h/x could not be fetched: Can not load certificate file - /p (Proxy "
            "expired)",
        ),
        (
            "Failed in data staging: Failed to read list of output files",
            Facts(failed_in="FINISHING"),
            "data staging failed: Failed to read list of output files",
        ),
    ],
)
def test_records(record: str, facts: Facts, reason: str) -> None:
    assert distil(record, facts).text == reason


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            "slurmstepd: error: Detected 1 oom_kill event in StepId=7.batch. Some of the step "
            "tasks have been OOM Killed.",
            "out of memory (Slurm: Detected 1 oom_kill event in StepId=7.batch. Some of the step "
            "tasks have been OOM Killed.)",
        ),
        (
            "[2026-11-25T13:03:54.007] error: Exceeded job memory limit",
            "out of memory (Slurm: Exceeded job memory limit)",
        ),
        (
            "[2026-11-25T13:03:54.007] error: *** JOB 11 ON n1 CANCELLED AT 2026-11-25T13:03:54 "
            "DUE TO PREEMPTION ***",
            "killed in the batch system (Slurm: CANCELLED AT 2026-11-25T13:03:54 DUE TO "
            "PREEMPTION)",
        ),
        # The script that ARC made of the job is in the log, too.
        (
            "echo slurmstepd: error: memory limit",
            "killed in the batch system (Slurm: Job was cancelled)",
        ),
    ],
)
def test_what_slurm_says_in_the_log(line: str, reason: str) -> None:
    log = f"a line\n{line}\nanother\n"
    assert distil("LRMS error: (271) Job was cancelled", Facts(), log) == Finding(reason)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (b"ACCEPTED", "ACCEPTED"),
        (b"PENDING:PREPARING\n", "PREPARING"),
        (b"SUBMIT", "SUBMITTING"),
        (b"INLRMS", None),
        (b"PENDING:INLRMS", None),
        (b"CANCELING", "KILLING"),
        (b"FINISHED", "FINISHED"),
        (b"DELETED", "WIPED"),
        (b"", None),
        (b"\xff" * 1000, None),
    ],
)
def test_live_states(status: bytes, state: str | None) -> None:
    assert live_state(status) == state


# --- texts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no address", "no address"),
        ("https://h:443/a/b", "https://h:443/a/b"),
        ("https://user:secret@h/a@b", "https://…@h/a@b"),
        ("https://h/a?sig=secret&x=y more", "https://h/a?… more"),
        ("<URI>https://h/a?sig=secret</URI>", "<URI>https://h/a?…</URI>"),
        ('"root://u@h//a" "x?y"', '"root://…@h//a" "x?y"'),
        ("://?", "://?…"),
        ("@://@", "@://@"),
    ],
)
def test_secrets_in_addresses(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


@pytest.mark.parametrize(
    ("text", "most", "shown"),
    [
        (b"", 10, ""),
        (b"\n\na\r\n\tb\n", 10, "a\n\tb"),
        (b"\x1b[31mred\x00 \xff", 99, "\ufffd[31mred\ufffd \ufffd"),
        (b"0123456789", 10, "0123456789"),
        (b"0123456789x", 10, "…23456789x"),
        ("é\u2028é".encode(), 9, "é\ufffdé"),
    ],
)
def test_readable(text: bytes, most: int, shown: str) -> None:
    assert readable(text, most) == shown


# --- hostile --------------------------------------------------------------------------------

WORDS = st.sampled_from(
    [
        "LRMS error: (",
        ") ",
        "-1",
        "Job failed",
        "Job failed with exit code",
        "PeriodicRemove evaluated to TRUE",
        "Failed in data staging: ",
        "source replica file:/",
        "http://a:b@c/d?e",
        "User file: ",
        " - ",
        "slurmstepd: error: ",
        "*** JOB 1 ON a CANCELLED AT ",
        "memory limit",
        *KILL_MARKS,
        "\n",
        "\x1b",
        "é",
    ]
)
FACTS = st.builds(
    Facts,
    exit_code=st.none() | st.integers(-(10**6), 10**6),
    failed_in=st.none() | st.sampled_from(["PREPARING", "FINISHING", "INLRMS", "x"]),
    wall_time_s=st.none() | st.floats(0, 1e12),
)
TEXTS = st.lists(WORDS | st.text(max_size=10), max_size=20).map("".join)


@given(TEXTS, FACTS, st.none() | TEXTS)
def test_anything_has_a_reason_of_one_line(record: str, facts: Facts, log: str | None) -> None:
    finding = distil(record, facts, log)
    assert finding.text.isprintable()
    assert 0 < len(finding.text) <= MOST
    assert "b@c" not in finding.text
    assert log is None or not finding.more


@given(st.binary(max_size=300), st.integers(1, 300))
def test_any_bytes_are_readable(text: bytes, most: int) -> None:
    shown = readable(text, most)
    assert len(shown) <= most
    assert all(line.isprintable() for line in shown.replace("\t", "").split("\n"))


@pytest.mark.parametrize(
    "unit",
    [
        "slurmstepd",
        "slurmstepd:",
        "slurmstepd: error: *** JOB ",
        "[2026-11-25T13:03:54.007] error: *** JOB 1 ON a CANCELLED AT x DUE ",
        "sbatch: ",
        "004 (",
        "/e1239e1239e1",
        "file:/",
        "http://",
        "://@?",
        "User file: a - ",
        "LRMS error: (1",
        "(a",
        "\n",
        "\x00",
    ],
)
def test_hostile_texts_take_no_time(unit: str) -> None:
    text = unit * (400_000 // len(unit))
    began = process_time()
    for head in ("", "LRMS error: (1) Job was cancelled\n", "Failed in data staging: "):
        distil(f"{head}{text}", Facts(failed_in="FINISHING"), f"{text}\n{text}")
    readable(text.encode(), 65536)
    assert process_time() - began < 30


def test_a_log_of_many_lines_is_read_from_its_end() -> None:
    end = JOBS["arc-slurm-7.0.0"]["cancelled running"].items["errors"]
    log = "slurmstepd: error: Exceeded job memory limit\n" + "x\n" * 5000 + end
    assert re.fullmatch(CANCELLED, distil("LRMS error: (271) Job was cancelled", Facts(), log).text)
