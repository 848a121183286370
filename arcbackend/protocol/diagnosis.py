"""Why a job failed, in one line, from what the CE's records say of it; nothing is made up.

The *failure record* (``diagnose/failed``) is the job manager's: a line for each thing that went
wrong (``AddFailure`` in A-REX's grid-manager). What it says of the batch system are the words of
that system's scan script (``scan-SLURM-job``, ``scan-condor-job``, … in A-REX's lrms). The *log*
(``diagnose/errors``) ends with what the batch system itself had to say. Parts of both can be
written by the job: they are bounded, cleaned, and read in time proportional to their length. The
records that this is made from, and what becomes of each: docs/explanation/diagnostics.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from arcbackend.protocol.records import Facts
from arcbackend.protocol.responses import clean_text

__all__ = [
    "KILL_MARKS",
    "Finding",
    "distil",
    "live_state",
    "readable",
    "was_killed",
    "without_secrets",
]

KILL_MARKS: Final = (
    "Job is canceled by external request",
    "Job was canceled while waiting in DTR queue",
)
"""A-REX's words in a job's failure record after a kill (JobsList.cpp and DTRGenerator.cpp in
src/services/a-rex/grid-manager/jobs)."""

_MOST_REASON = 400
_MOST_LINES, _LINE = 50, 2000
# What the batch system said is at the end of the log, before a few lines of the job manager's.
# HTCondor's history of the job, which is in between, has some 150 lines.
_LAST_LINES = 400

# The job manager's states (GMJob.cpp) that say more than "not over", in REST's words
# (convertActivityStatusREST in rest.cpp). Of a job in the batch system it does not know more.
_LIVE: Final = {
    "ACCEPTED": "ACCEPTED",
    "PREPARING": "PREPARING",
    "SUBMIT": "SUBMITTING",
    "FINISHING": "FINISHING",
    "CANCELING": "KILLING",
    "FINISHED": "FINISHED",
    "DELETED": "WIPED",
}

# By Linux: nodes of a CE run nothing else.
_SIGNALS: Final = {
    1: "SIGHUP",
    2: "SIGINT",
    3: "SIGQUIT",
    4: "SIGILL",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    9: "SIGKILL",
    10: "SIGUSR1",
    11: "SIGSEGV",
    12: "SIGUSR2",
    13: "SIGPIPE",
    14: "SIGALRM",
    15: "SIGTERM",
    24: "SIGXCPU",
    25: "SIGXFSZ",
}
_SHELL_SIGNAL = 128  # bash(1): "128+n as the exit status" of what died of signal n
_SLURM_SIGNAL = 256  # handle_exitcode in scan-SLURM-job
_OF_THE_SYSTEM = frozenset({137})  # SIGKILL: who sent it may be in the log

_LRMS = re.compile(r"LRMS error: \((-?[0-9]{1,9})\) ?(.*)")
_STAGING = "Failed in data staging: "
_STAGED: Final = {
    "PREPARING": ("input", "could not be fetched"),
    "FINISHING": ("output", "could not be stored"),
}
_UPLOAD = re.compile(r"User file: (\S+) - (.*)")
_SUBMISSION = ("Job submission to LRMS failed", "Failed initiating job submission to LRMS")
_URL = re.compile(r"://([^\s<>\"']*)")
_REPLICA = re.compile(r"(?:file:/|[a-z][a-z0-9+.-]{1,20}://)\S*")
_OF_SESSION = re.compile(r"/(?:[0-9a-f]{12}|[0-9A-Za-z]{40,})/")  # the CE's id of the job
_LAST_REMARK = re.compile(r"\([A-Za-z ]{1,60}\)$")
_STATING = "Failed to obtain information about file: "

# In the log. Slurm's format depends on its version: "slurmstepd-node: error: " or "[time] error: ".
_SLURM_END = re.compile(
    r"(?:slurmstepd\S*:|\[\S{10,40}\]) error: \*\*\* (?:JOB|STEP) \S{1,60} ON \S{1,255} "
    r"(CANCELLED AT \S{1,40}(?: DUE [A-Za-z ,]{1,100})?) \*\*\*"
)
_SLURM_MEMORY = re.compile(
    r"(?:slurmstepd\S*:|\[\S{10,40}\]) error: "
    r"((?=.{0,300}(?:memory limit|oom[_-]kill|out of memory)).{1,300})",
    re.IGNORECASE,
)
_EVICTED = re.compile(r"004 \(\S{1,40}\) .{1,60} Job was evicted\.")
_NOT_SUBMITTED = re.compile(
    r"((?:sbatch|qsub|bsub|condor_submit): ?(?:error|fatal|warning)?:? ?.{1,300}|ERROR: .{1,300})"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What the records come to.

    Attributes:
        text: the reason, on one line.
        more: whether the log, if it has not been read, may say more.
    """

    text: str
    more: bool = False


def live_state(status: bytes) -> str | None:
    """The ARC state that ``diagnose/status`` means; None where a job's document tells more.

    FINISHED means over, however it ended.
    """
    text = status[:100].decode("utf-8", "replace").strip()
    return _LIVE.get(text.removeprefix("PENDING:"))


def was_killed(record: str) -> bool:
    """Tell whether a failure record speaks of a kill that a client of ARC asked for."""
    return any(mark in record for mark in KILL_MARKS)


def readable(text: bytes, most: int) -> str:
    """A text of the CE with its lines, printable, and without secrets: its last characters."""
    lines = text.decode("utf-8", "replace").replace("\r\n", "\n").split("\n")
    clean = without_secrets("\n".join(_printable(line) for line in lines)).strip("\n")
    return clean if len(clean) <= most else f"…{clean[len(clean) - most + 1 :]}"


def without_secrets(text: str) -> str:
    """The text with what may be a password or a signature taken out of URLs."""
    return _URL.sub(_without_secrets, text)


def distil(record: str, facts: Facts, log: str | None = None) -> Finding:
    """Say in one line why a job failed that is over.

    Args:
        record: the failure record.
        facts: what else is known.
        log: the end of the log; None: not read.
    """
    finding = _distil(record, facts, (log or "").split("\n")[-_LAST_LINES:])
    text = clean_text(without_secrets(finding.text), _MOST_REASON)
    return Finding(text, finding.more and log is None)


def _distil(record: str, facts: Facts, log: Sequence[str]) -> Finding:
    each = (clean_text(line, _LINE) for line in record.split("\n", _MOST_LINES)[:_MOST_LINES])
    lines = [line for line in each if line]
    if was_killed(record):
        return Finding("killed by request (ARC client)")
    for index, line in enumerate(lines):
        for read in (_staging, _batch, _not_submitted):
            if (finding := read(lines[index:], facts, log)) is not None:
                return finding
        if match := _UPLOAD.fullmatch(line):
            return Finding(f"input {match[1].lstrip('/')} was not uploaded: {match[2]}")
    if lines:
        return Finding("; ".join(lines), more=True)
    if facts.exit_code:
        return Finding(_exit(facts.exit_code))
    return Finding("the CE says that it failed, and has no record of why", more=True)


# --- staging ---------------------------------------------------------------------------------


def _staging(lines: Sequence[str], facts: Facts, _log: Sequence[str]) -> Finding | None:
    """What A-REX's data staging says: a chain of messages, with the URL inside."""
    if not lines[0].startswith(_STAGING):
        return None
    text = lines[0].removeprefix(_STAGING)
    remark = _LAST_REMARK.search(lines[-1])
    if remark and not text.endswith(remark[0]):
        text = f"{text} {remark[0]}"
    replica = _REPLICA.search(text)
    if replica is None:
        return Finding(f"data staging failed: {text}")
    file, failed = _STAGED[facts.failed_in if facts.failed_in in _STAGED else _stage(replica)]
    said = text[replica.end() :].lstrip(" :").removeprefix(_STATING)
    return Finding(f"{file} {_replica(replica[0].rstrip(':'))} {failed}: {said or text}")


def _stage(replica: re.Match[str]) -> str:
    """Which stage a message is from: on the CE's side, a replica is a file."""
    before = replica.string[: replica.start()]
    here = replica[0].startswith("file:/")
    return "PREPARING" if here is ("destination" in before) else "FINISHING"


def _replica(url: str) -> str:
    """A URL; of a file in the session directory, its name there."""
    inside = _OF_SESSION.search(url) if url.startswith("file:/") else None
    return url[inside.end() :] if inside else url


# --- the batch system ------------------------------------------------------------------------


def _batch(lines: Sequence[str], facts: Facts, log: Sequence[str]) -> Finding | None:
    match = _LRMS.fullmatch(lines[0])
    if match is None:
        return None
    code, said = int(match[1]), match[2].strip()
    if (memory := _first(_SLURM_MEMORY, log)) is not None:
        return Finding(f"out of memory (Slurm: {memory})")
    if (explain := _WORDS.get(said)) is not None:
        return explain(code, facts, log)
    for words, explain_words in _BEGINNINGS.items():
        if said.startswith(words):
            return explain_words(said.removeprefix(words).strip(), facts)
    if facts.exit_code:
        return Finding(f"{_exit(facts.exit_code)} (batch system: {said or code})")
    return Finding(f"batch system error {code}: {said or 'no message'}", more=True)


def _failed(code: int, facts: Facts, _log: Sequence[str]) -> Finding:
    """Slurm's FAILED. Its code is that of ARC's script, which is the payload's if it got so far."""
    if facts.exit_code:
        return Finding(_exit(facts.exit_code), more=facts.exit_code in _OF_THE_SYSTEM)
    if code > _SLURM_SIGNAL:
        return Finding(f"killed by {_signal(code - _SLURM_SIGNAL)} (Slurm: FAILED)", more=True)
    if facts.exit_code == 0:
        return Finding(
            f"Slurm: FAILED, code {code}, though the payload's exit code is 0", more=True
        )
    return Finding(
        f"ARC's job script ended with exit code {code}, before the payload had one; the job's "
        "stderr may tell why",
        more=True,
    )


def _cancelled(_code: int, _facts: Facts, log: Sequence[str]) -> Finding:
    end = _last(_SLURM_END, log) or "Job was cancelled"
    return Finding(f"killed in the batch system (Slurm: {end})", more=True)


def _timeout(_code: int, facts: Facts, _log: Sequence[str]) -> Finding:
    after = "" if facts.wall_time_s is None else f" after {facts.wall_time_s:g} s"
    asked = "" if facts.wall_limit_s is None else f", {facts.wall_limit_s:g} s asked for"
    return Finding(f"over its wall-time limit (Slurm: TIMEOUT{after}{asked})")


def _node_fail(_code: int, facts: Facts, _log: Sequence[str]) -> Finding:
    node = f" {', '.join(facts.nodes[:3])}" if facts.nodes else ""
    return Finding(f"its node{node} failed (Slurm: NODE_FAIL)")


def _missing(_code: int, _facts: Facts, log: Sequence[str]) -> Finding:
    end = _last(_SLURM_END, log)
    said = f"; it had said: {end}" if end else ""
    return Finding(f"lost by the batch system (Slurm no longer knew the job{said})", more=True)


def _missing_with_code(code: int, facts: Facts, log: Sequence[str]) -> Finding:
    found = facts.exit_code or code
    return Finding(_exit(found)) if found > 0 else _missing(code, facts, log)


def _overlimit(what: str) -> Callable[[int, Facts, Sequence[str]], Finding]:
    """A guess of ARC's, from what the job used (autodetect_overlimit in scan-condor-job)."""
    limit = {"vmem": "memory", "cput": "CPU-time", "wall": "wall-time"}[what]
    finding = Finding(f"over its {limit} limit, as ARC infers (job killed: {what})")
    return lambda _code, _facts, _log: finding


def _periodic(_code: int, _facts: Facts, log: Sequence[str]) -> Finding:
    evicted = any(_EVICTED.search(line) for line in log)
    after = ", after it had been evicted from its node" if evicted else ""
    return Finding(f"removed by HTCondor (PeriodicRemove evaluated to TRUE){after}", more=True)


_WORDS: Final = {
    "Job failed": _failed,
    "Job was cancelled": _cancelled,
    "Job was cancelled by SLURM": _cancelled,
    "Job timeout": _timeout,
    "Node fail": _node_fail,
    "Job missing from SLURM": _missing,
    "Job missing from SLURM, exitcode recovered from session directory": _missing_with_code,
    "PeriodicRemove evaluated to TRUE": _periodic,
    **{f"job killed: {what}": _overlimit(what) for what in ("vmem", "cput", "wall")},
}
"""What the scan scripts say → what it means."""


def _exited(code: str, facts: Facts) -> Finding:
    digits = code.split(" ", 1)[0].rstrip(".")
    known = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 7 else None  # noqa: PLR2004
    found = facts.exit_code or known
    return Finding(_exit(found) if found else f"exit code {code}")


def _removed(reason: str, _facts: Facts) -> Finding:
    return Finding(f"killed in the batch system (HTCondor: {reason})")


def _condor(reason: str, _facts: Facts) -> Finding:
    return Finding(f"ended by HTCondor: {reason}")


def _killed_by(system: str, _facts: Facts) -> Finding:
    return Finding(f"killed in the batch system ({system.rstrip('.')})", more=True)


_BEGINNINGS: Final = {
    "Job failed with exit code": _exited,
    "Job finished with wrong exit code -": _exited,
    "RemoveReason:": _removed,
    "ExitReason:": _condor,
    "Job was killed by": _killed_by,
}


def _not_submitted(lines: Sequence[str], _facts: Facts, log: Sequence[str]) -> Finding | None:
    if not lines[0].startswith(_SUBMISSION):
        return None
    said = _last(_NOT_SUBMITTED, log)
    if said is None:
        return Finding("; ".join(lines), more=True)
    return Finding(f"the batch system did not take it ({said})")


def _exit(code: int) -> str:
    name = _SIGNALS.get(code - _SHELL_SIGNAL)
    return f"exit code {code}" + (f" ({_SHELL_SIGNAL} + {name})" if name else "")


def _signal(number: int) -> str:
    return _SIGNALS.get(number, f"signal {number}")


def _first(pattern: re.Pattern[str], log: Iterable[str]) -> str | None:
    """What the first line that fits says."""
    return next((match[1] for line in log if (match := pattern.match(line))), None)


def _last(pattern: re.Pattern[str], log: Sequence[str]) -> str | None:
    """What the last line that fits says."""
    return _first(pattern, reversed(log))


def _without_secrets(match: re.Match[str]) -> str:
    address, question, _ = match[1].partition("?")
    authority, slash, path = address.partition("/")
    user, at, host = authority.rpartition("@")
    shown = f"…@{host}" if at and user else authority
    return f"://{shown}{slash}{path}{'?…' if question else ''}"


def _printable(line: str) -> str:
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in line)
