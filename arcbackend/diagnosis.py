"""The verb diagnostics: what the CE's records say of jobs, and a reason made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from arcbackend.bulk import read_documents, refusal
from arcbackend.errors import ProtocolError, TransportError
from arcbackend.items import FEW, ItemReader
from arcbackend.jobids import JobRef
from arcbackend.listing import LiveListing
from arcbackend.models import Diagnostics, JobID, JobStatus
from arcbackend.protocol.diagnosis import distil, live_state, readable, was_killed
from arcbackend.protocol.records import Facts, facts_of_diag, facts_of_document
from arcbackend.protocol.responses import JobAnswer
from arcbackend.session import Session
from arcbackend.states import STATUS, TERMINAL, later
from arcbackend.tasks import run_all

__all__ = ["Diagnoser"]

_KiB = 1024
_STATUS, _RECORD, _DIAG, _DESCRIPTION = 100, 64 * _KiB, 16 * _KiB, 16 * _KiB
_RECORD_SHOWN = 4 * _KiB
_LOG_OF_FEW, _LOG_OF_MANY = 64 * _KiB, 8 * _KiB
# A-REX publishes the first KiB of a record (GMJobsInfo.pm).
_PUBLISHED = 900
# States in which there can be a record, of a failure or a kill, before the job is over.
_LATE = frozenset({"EXECUTED", "FINISHING", "KILLING"})
_ENDED_BADLY = frozenset({"FAILED", "KILLED"})
# So many jobs in a row that could not be asked about mean that the CE is gone.
_LOST = 4


@dataclass(slots=True)
class _Case:
    """One job, as far as it is known."""

    local: str
    facts: Facts
    state: str | None
    reason: str | None
    record: str = ""
    finding: str | None = None
    killed: bool | None = None
    log: str | None = None
    log_size: int | None = None
    description: str | None = None

    @property
    def settled(self) -> bool:
        """Whether the document was made after the job's end: then it has all of it."""
        return self.facts.state in TERMINAL

    def value(self) -> Diagnostics:
        return Diagnostics(
            status=STATUS.get(self.state or "", JobStatus.UNKNOWN),
            arc_state=self.state,
            failure_reason=self.finding,
            exit_code=self.facts.exit_code,
            killed_by_request=self.killed,
            record=readable(self.record.encode(), _RECORD_SHOWN) or None,
            log=self.log,
            log_size=self.log_size,
            description=self.description,
            reason=self.reason,
        )


class Diagnoser:
    """Finds out what is wrong with jobs.

    Args:
        session: the CE.
        listing: tells the state of many jobs, as of now.
        items: reads the control data of single jobs.
        workers: jobs to ask about at one time.
    """

    def __init__(
        self, session: Session, listing: LiveListing, items: ItemReader, workers: int
    ) -> None:
        self._session = session
        self._listing = listing
        self._items = items
        self._workers = workers

    async def diagnose(self, refs: Sequence[JobRef]) -> dict[JobID, Diagnostics]:
        """What is known of each job, in the order asked; see `ARCBackend.diagnostics`."""
        cases: dict[str, _Case] = {}

        def read(local: str, answer: JobAnswer) -> None:
            facts, refused = facts_of_document(answer.document), refusal(answer)
            cases[local] = _Case(local, facts, None if refused else facts.state, refused)

        await read_documents(self._session, [ref.local for ref in refs], read)
        call = _Diagnosis(self._items, few=len(refs) <= FEW, workers=self._workers)
        known = [case for case in cases.values() if case.reason is None]
        listed: Mapping[str, str] = {}
        if not call.few and not all(case.settled for case in known):
            listed = await self._listing.late_states_if_affordable()
        await call.run(known, listed)
        if call.failed is not None and call.lost == len(cases):
            raise call.failed
        return {ref.id: cases[ref.local].value() for ref in refs}


@dataclass(slots=True)
class _Diagnosis:
    """One call under way.

    Attributes:
        few: whether each job may be asked about by itself, with all that there is.
        lost: jobs that could not be asked about.
        failed: the first failure of these.
    """

    items: ItemReader
    few: bool
    workers: int
    lost: int = 0
    failed: TransportError | None = None
    _lost_in_a_row: int = field(default=0, init=False)

    async def run(self, cases: Sequence[_Case], listed: Mapping[str, str]) -> None:
        async def look(case: _Case) -> None:
            if self.failed is not None and self._lost_in_a_row >= max(_LOST, self.workers):
                case.reason = f"the CE is gone: {self.failed.message}"
                self.lost += 1
                return
            try:
                await self._look_into(case, listed.get(case.local))
            except TransportError as error:
                case.reason = error.message
                self.failed = self.failed or error
                self.lost += 1
                self._lost_in_a_row += 1
            except ProtocolError as error:  # of this job only
                case.reason = error.message
            else:
                self._lost_in_a_row = 0

        await run_all(look, cases, workers=self.workers)

    async def _look_into(self, case: _Case, listed: str | None) -> None:
        await self._find_state(case, listed)
        await self._read_record(case)
        over = case.state in TERMINAL
        if over and not case.settled:
            diag = await self.items.beginning(case.local, "diag", _DIAG)
            case.facts = case.facts.updated(facts_of_diag(diag or b""))
        log_wanted = self.few
        if over and case.state in _ENDED_BADLY:
            finding = distil(case.record, case.facts)
            case.finding = finding.text
            log_wanted = log_wanted or finding.more
        if log_wanted:
            await self._read_log(case)
            if case.finding is not None and case.log is not None:
                case.finding = distil(case.record, case.facts, case.log).text
        if self.few:
            described = await self.items.beginning(case.local, "description", _DESCRIPTION)
            case.description = readable(described or b"", _DESCRIPTION) or None

    async def _find_state(self, case: _Case, listed: str | None) -> None:
        if case.settled:
            return
        live = listed
        if self.few:
            status = await self.items.beginning(case.local, "status", _STATUS)
            live = live_state(status or b"")
        case.state = later(case.state or "", live)

    async def _read_record(self, case: _Case) -> None:
        """Read the failure record, as far as it can matter, and set what it decides."""
        case.record = "\n".join(case.facts.errors)
        if case.state in _ENDED_BADLY:
            if not case.record or len(case.record) >= _PUBLISHED:
                case.record = await self.items.record(case.local) or case.record
        elif self.few and not case.settled and (case.state in _LATE or case.state == "FINISHED"):
            # The job manager says FINISHED however a job ended; and a kill is on record at once.
            failed = await self.items.beginning(case.local, "failed", _RECORD)
            case.record = (failed or b"").decode("utf-8", "replace")
            if case.state == "FINISHED" and failed is not None:
                case.state = "FAILED"
        if was_killed(case.record):
            case.killed = True
            if case.state == "FAILED":
                case.state = "KILLED"
        elif case.state in TERMINAL:
            case.killed = case.state == "KILLED"

    async def _read_log(self, case: _Case) -> None:
        most = _LOG_OF_FEW if self.few else _LOG_OF_MANY
        end = await self.items.ending(case.local, "errors", most)
        if end is None:
            return
        data = end.data
        if end.size > len(data):  # from the beginning of a line on
            data = data[data.find(b"\n") + 1 :]
        case.log, case.log_size = readable(data, most), end.size
