"""The poller: batched polls of one CE, a machine per job, events for whoever listens."""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import structlog
import trio

from arcbackend.bulk import ask_all
from arcbackend.config import ARCConfig
from arcbackend.delegations import Delegations
from arcbackend.ends import Ends
from arcbackend.errors import ConfigurationError, InterCEdeError
from arcbackend.events import JobEvent, PollerEvent, SeenBy
from arcbackend.jobids import JobRef, resolve
from arcbackend.lifecycle.definition import JOB, Verb
from arcbackend.lifecycle.policy import Policy
from arcbackend.listing import LiveListing
from arcbackend.models import JobHandle, JobID, JobOutput, JobStatus, OpOutcome
from arcbackend.moments import utc_now
from arcbackend.output.progress import FetchProgress
from arcbackend.output.retrieve import Retriever
from arcbackend.polling.alarm import Alarm
from arcbackend.polling.health import Health
from arcbackend.polling.renewal import Renewal
from arcbackend.polling.schedule import Wheel, interval
from arcbackend.polling.snapshot import PollerSnapshot, TrackedState
from arcbackend.polling.subscription import Hub, Subscription
from arcbackend.polling.tracker import Due, TrackedJob, Tracker
from arcbackend.protocol.names import is_local_id
from arcbackend.protocol.requests import id_batches
from arcbackend.removal import Remover
from arcbackend.session import Session
from arcbackend.status import documented_state

__all__ = ["Poller", "merge", "open_poller"]

_T = TypeVar("_T")
_log = structlog.get_logger("arcbackend")

# How many observations are taken in before other tasks have their turn: some milliseconds' worth.
_SLICE = 500
# Failure records are read one by one: what is known of the others is told in between.
_ENDS_AT_ONCE = 100
# An end that the CE does not explain in so many looks is taken for what the CE calls it.
_LOOKS_AT_AN_END = 10
# A job whose time in a state matters to the policy is looked at this often at least, in seconds.
_TIMED_INTERVAL = 60.0
# After a live listing, the CE is left alone for so many times as long as it took.
_LISTING_REST = 5.0
_JITTER = 0.1

_NOT_TRACKED = OpOutcome(ok=False, reason="the poller does not track this job")


class Poller:
    """Follows jobs on one CE. Made by ``ARCBackend.poller``, an async context manager.

    Two tasks poll, one source each (the CE's status documents, up to a minute old; its live
    listing, which tells that jobs are over), a third does what the policy says when time has gone
    by; where a proxy is delegated, a fourth keeps it valid. What they see moves each job's state
    machine, and every move is an event. The verbs here are those of the backend under the policy's
    guards, and leave events, too.

    A CE that does not answer loses no job: `CEUnreachable` tells so, once, polling goes on at
    growing intervals, and `CEBack` tells of its return, also when no job is left to ask about.

    A job that is over stays tracked, without being polled, until it is untracked or purged.
    """

    def __init__(
        self,
        *,
        session: Session,
        config: ARCConfig,
        listing: LiveListing,
        ends: Ends,
        remover: Remover,
        retriever: Retriever,
        delegations: Delegations,
        policy: Policy,
    ) -> None:
        self._session = session
        self._config = config
        self._listing = listing
        self._ends = ends
        self._remover = remover
        self._retriever = retriever
        self._tracker = Tracker(config.endpoint, policy.for_ce(config.endpoint))
        self._policy = policy
        polling = config.polling
        self._hub = Hub(polling.patience)
        self._health = Health(min(polling.listing, polling.documents), polling.backoff_max)
        self._delegations = delegations
        self._renewal = Renewal(delegations, self._tracker, self._tell, self._health.pause_after)
        self._wheel: Wheel[TrackedJob] = Wheel(polling.documents / 3)
        self._undecided: Counter[str] = Counter()
        self._kills: deque[float] = deque()
        self._leftovers: list[str] = []
        # Until when the policy leaves the CE in peace, and after how many failures in a row.
        self._rest_until = -math.inf
        self._policy_failures = 0
        self._ended = False
        self._documents_alarm = Alarm()
        self._listing_alarm = Alarm()
        self._action_alarm = Alarm()
        # When one source is back, so is the other, most likely.
        self._recovery = trio.Event()
        # One poll at a time of each source: what the later one says must not be overtaken.
        self._documents_turn = trio.Lock()
        self._listing_turn = trio.Lock()

    def __repr__(self) -> str:
        """The CE, and how many jobs are tracked."""
        return f"<Poller {self._config.endpoint}: {len(self._tracker.jobs)} jobs>"

    # --- which jobs ---

    def track(self, ids: Iterable[JobHandle | JobID]) -> None:
        """Follow jobs. Handles carry the names of stdout and stderr; ids do.

        Those that are tracked already go on as they are.

        Raises:
            ConfigurationError: an id that is none, or of another CE; the poller's block has ended.
        """
        self._check_open()
        if not isinstance(ids, str | JobHandle):  # (a single one is refused)
            ids = list(ids)
        refs = resolve(self._config.endpoint, ids)
        handles = self._handles(ids)
        now = trio.current_time()
        for ref in refs:
            handle = handles.get(ref.id)
            names = None if handle is None else (handle.stdout, handle.stderr)
            if self._tracker.add(ref.local, now, names):
                self._wheel.add(self._tracker.jobs[ref.local], now)
        self._wake()

    def untrack(self, ids: Iterable[JobHandle | JobID]) -> None:
        """Follow jobs no longer; nothing is done on the CE. Unknown ones are no error.

        Raises:
            ConfigurationError: an id that is none, or of another CE.
        """
        for ref in resolve(self._config.endpoint, ids):
            self._tracker.remove(ref.local)
            self._undecided.pop(ref.local, None)

    def _handles(self, ids: Iterable[JobHandle | JobID]) -> dict[JobID, JobHandle]:
        """The handles among ids, by canonical id."""
        return {
            resolve(self._config.endpoint, [item])[0].id: item
            for item in ids
            if isinstance(item, JobHandle)
        }

    def statuses(self) -> dict[JobID, JobStatus]:
        """What is known of each tracked job now, without asking the CE."""
        tracker = self._tracker
        return {tracker.id_of(job.local): tracker.status(job) for job in tracker.jobs.values()}

    def states(self) -> dict[JobID, str]:
        """The machine's state of each tracked job now, without asking the CE."""
        tracker = self._tracker
        return {tracker.id_of(job.local): job.state for job in tracker.jobs.values()}

    @property
    def sequence(self) -> int:
        """The number of the last event that has happened."""
        return self._tracker.sequence

    @property
    def ignored(self) -> Mapping[str, int]:
        """Observations that moved no job, by why: same, stale, final, unheard of."""
        counts = {verdict.value: number for verdict, number in self._tracker.ignored.items()}
        return MappingProxyType(counts)

    # --- events ---

    def events(self, buffer: int | None = None) -> Subscription:
        """Hear everything from now on: ``async for event in poller.events()``.

        Args:
            buffer: events kept while nobody reads; None: ``polling.buffer`` of the configuration.

        Raises:
            ConfigurationError: a buffer without room for one event.
        """
        subscription = Subscription(self._config.polling.buffer if buffer is None else buffer)
        self._hub.join(subscription)
        return subscription

    def feed(self, subscription: Subscription) -> None:
        """Let a subscription made elsewhere hear this poller, too (see `merge`)."""
        self._hub.join(subscription)

    # --- the policy ---

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self._policy

    def set_policy(self, policy: Policy | Path | str) -> None:
        """Follow another policy from now on; what has happened stays as it is.

        Raises:
            ConfigurationError: there is no such policy, or it is none.
        """
        loaded = Policy.load(policy)
        self._tracker.set_policy(loaded.for_ce(self._config.endpoint), trio.current_time())
        self._policy = loaded
        self._action_alarm.ring()

    # --- over a restart ---

    def snapshot(self) -> PollerSnapshot:
        """Everything that this poller knows, to be restored in another process."""
        now, wall = trio.current_time(), utc_now()
        tracker = self._tracker
        return PollerSnapshot(
            ce=self._config.endpoint,
            taken_at=wall,
            sequence=tracker.sequence,
            jobs=tuple(
                TrackedState(
                    job.local,
                    job.state,
                    job.documented,
                    job.listed,
                    round(wall.timestamp() - (now - job.since), 3),
                    job.names,
                    tracker.to_purge.get(job.local),
                )
                for job in tracker.jobs.values()
            ),
            kills=tuple(round(wall.timestamp() - (now - when), 3) for when in self._kills),
            away_since=self._health.away_since,
        )

    def restore(self, snapshot: PollerSnapshot) -> None:
        """Go on where another poller of this CE left off.

        What changed meanwhile comes as events, once; the time that went by counts for the policy.
        Jobs tracked here already go on as they are.

        Raises:
            ConfigurationError: it is of another CE, or names a state that the machine has not, or
                an id that is none; the poller's block has ended.
        """
        self._check_open()
        if snapshot.ce != self._config.endpoint:
            raise ConfigurationError(
                f"the snapshot is of {snapshot.ce}: restore it in that CE's poller",
                ce=self._config.endpoint,
            )
        unknown = sorted({job.state for job in snapshot.jobs} - set(JOB.states))
        if unknown:
            raise ConfigurationError(
                f"the snapshot has states that this version does not know: {', '.join(unknown)}",
                ce=self._config.endpoint,
            )
        if bad := [row.id for row in snapshot.jobs if not is_local_id(row.id)]:
            raise ConfigurationError(
                f"the snapshot has {len(bad)} ids that are none; the first: {bad[0][:80]!r}",
                ce=self._config.endpoint,
            )
        now, wall = trio.current_time(), utc_now().timestamp()
        tracker = self._tracker
        for row in snapshot.jobs:
            if row.id in tracker.jobs:
                continue
            tracker.restore(row, min(now, now - (wall - row.since)), now)
            job = tracker.jobs[row.id]
            if tracker.is_followed(job):
                self._wheel.add(job, now)
        tracker.sequence = max(tracker.sequence, snapshot.sequence)
        kills = (min(now, now - (wall - when)) for when in snapshot.kills)
        self._kills = deque(sorted([*self._kills, *kills]))
        self._health.away_since = self._health.away_since or snapshot.away_since
        self._wake()

    # --- verbs ---

    async def kill(self, ids: Sequence[JobID | JobHandle]) -> Mapping[JobID, OpOutcome]:
        """Kill jobs, as ``ARCBackend.kill`` does, with an event for each that is tracked.

        A kill that the CE loses is repeated (policy: ``kill``).

        Raises:
            ConfigurationError: an id that is none, or of another CE.
            AuthenticationError, TransportError, ProtocolError: the whole failed.
        """
        return await self._verb("kill", ids)

    async def keep(self, ids: Sequence[JobID | JobHandle]) -> Mapping[JobID, OpOutcome]:
        """Let held jobs be about which the policy asks; their grace begins anew.

        Raises:
            ConfigurationError: an id that is none, or of another CE.
        """
        return await self._verb("keep", ids)

    async def purge(self, ids: Sequence[JobID | JobHandle]) -> Mapping[JobID, OpOutcome]:
        """Remove jobs from the CE, as ``ARCBackend.purge`` does, and track them no longer.

        What is done about jobs that are not over is the policy's (``purge.active``).

        Raises:
            ConfigurationError: an id that is none, or of another CE.
            AuthenticationError, TransportError, ProtocolError: the whole failed.
        """
        return await self._verb("purge", ids)

    async def fetch_output(
        self,
        ids: Sequence[JobID | JobHandle],
        dest: Path | str,
        *,
        progress: Callable[[FetchProgress], None] | None = None,
    ) -> Mapping[JobID, JobOutput]:
        """Fetch outputs, as ``ARCBackend.fetch_output`` does, with an event for each tracked job.

        How far a job must have come is the policy's (``output.needs``); of one that has not,
        nothing is fetched, and ``reason`` tells why. The event's outcome is ok if all that there
        was is fetched. ``progress`` is told of the jobs that are fetched only.

        Raises:
            ConfigurationError: an id that is none, or of another CE; ``dest`` cannot be written to.
            AuthenticationError, TransportError, ProtocolError: the whole failed.
        """
        self._check_open()
        refs = resolve(self._config.endpoint, ids)
        handles = self._handles(ids)
        tracked = {ref.local: self._tracker.jobs.get(ref.local) for ref in refs}
        await self._refresh([job for job in tracked.values() if job is not None], "fetch")
        allowed: list[JobID | JobHandle] = []
        for ref in refs:
            job = tracked[ref.local]
            if job is None:
                allowed.append(handles.get(ref.id, ref.id))
            elif self._tracker.asks("fetch", job) is not None:
                allowed.append(handles.get(ref.id) or self._tracker.handle(job))
        fetched = await self._retriever.fetch(allowed, Path(dest), progress)
        outputs: dict[JobID, JobOutput] = {}
        events = []
        now, at = trio.current_time(), utc_now()
        for ref in refs:
            output = fetched.get(ref.id)
            job = self._tracker.jobs.get(ref.local) if tracked[ref.local] else None
            if job is not None:
                answer = None if output is None else _fetched(output)
                event = self._tracker.answer("fetch", job, answer, now, at)
                events.append(event)
                if output is None and event.outcome is not None:
                    output = JobOutput(reason=event.outcome.reason)
            # (the retriever tells of all: that one was not allowed, and is tracked no longer)
            outputs[ref.id] = output or JobOutput(reason=_NOT_TRACKED.reason)
        await self._tell(events)
        return outputs

    async def _verb(self, verb: Verb, ids: Sequence[JobID | JobHandle]) -> dict[JobID, OpOutcome]:
        self._check_open()
        refs = resolve(self._config.endpoint, ids)
        jobs = self._tracker.jobs
        others = {ref.local for ref in refs if ref.local not in jobs}

        def standing(ref: JobRef) -> tuple[TrackedJob | None, str | None]:
            """The job, if it is tracked (all along), and what the CE is to be asked of it now."""
            job = None if ref.local in others else jobs.get(ref.local)
            if job is None:
                return None, None if verb == "keep" else verb
            rule = self._tracker.asks(verb, job)
            return job, rule.effect[0] if rule else None

        if verb != "keep":
            await self._refresh([jobs[ref.local] for ref in refs if ref.local in jobs], verb)
        answers: dict[str, dict[JobID, OpOutcome]] = {"kill": {}, "purge": {}}
        # Once more for jobs that ended meanwhile, so that by now it is something else to ask.
        while True:
            todo: dict[str, list[JobRef]] = {"kill": [], "purge": []}
            for ref in refs:
                _, effect = standing(ref)
                if effect is not None and ref.id not in answers[effect]:
                    todo[effect].append(ref)
            if not any(todo.values()):
                break
            answers["kill"] |= await self._remover.kill(todo["kill"])
            answers["purge"] |= await self._remover.purge(todo["purge"])
        outcomes: dict[JobID, OpOutcome] = {}
        events = []
        now, at = trio.current_time(), utc_now()
        for ref in refs:
            job, effect = standing(ref)
            answer = None if effect is None else answers[effect][ref.id]
            if job is None:
                outcomes[ref.id] = answer or _NOT_TRACKED
                continue
            event = self._tracker.answer(verb, job, answer, now, at)
            assert event.outcome is not None  # (the machine is checked when it is loaded)
            outcomes[ref.id] = event.outcome
            events.append(event)
        await self._tell(events)
        return outcomes

    async def _refresh(self, jobs: Sequence[TrackedJob], verb: Verb) -> None:
        """Look at jobs first, where what is known of them may be too old for the verb.

        A kill looks by itself (`Remover`), so only of a job never seen nothing is known.
        """
        stale = {
            job.local: job
            for job in jobs
            if self._tracker.is_followed(job) and (verb != "kill" or job.arc_state is None)
        }
        if stale:
            await self._poll_documents(stale)
            if self._lists:
                await self._poll_listing()

    # --- polling ---

    @property
    def _lists(self) -> bool:
        return self._config.live_listing != "never"

    def run(self, nursery: trio.Nursery) -> None:
        """Start the tasks."""
        nursery.start_soon(self._follow_documents)
        if self._lists:
            nursery.start_soon(self._follow_listing)
        nursery.start_soon(self._follow_policy)
        if self._delegations.renewable:
            nursery.start_soon(self._renewal.run)

    def close(self) -> None:
        """Tell subscribers that nothing more will come."""
        self._ended = True
        self._hub.close()

    def _check_open(self) -> None:
        if self._ended:
            raise ConfigurationError(
                "the poller's block has ended: ask the backend, or open another poller",
                ce=self._config.endpoint,
            )

    def _wake(self) -> None:
        self._documents_alarm.ring()
        self._listing_alarm.ring()
        self._action_alarm.ring()
        self._renewal.wake()

    async def _follow_documents(self) -> None:
        while True:
            await self._documents_alarm.sleep_until(self._wheel.next())
            if not await self._poll_due():
                await self._leave_in_peace(SeenBy.DOCUMENTS)

    async def _poll_due(self) -> bool:
        """Poll the documents of the jobs whose time has come; False if the CE did not answer."""
        polling = self._config.polling
        due = self._wheel.pop(trio.current_time())
        left = {job.local: job for job in due if self._tracker.is_followed(job)}
        if due and not left and self._health.must_ask(SeenBy.DOCUMENTS):
            left = {due[0].local: due[0]}  # (any id will do to hear whether the CE is back)
        jobs = dict(left)
        answered = True
        try:
            await self._poll_documents(left, trio.current_time() + polling.documents)
        except InterCEdeError as error:
            answered = False
            await self._failed(SeenBy.DOCUMENTS, error)
        # The batch that failed comes last next time: the others must not always wait for it.
        again = trio.current_time() + (polling.documents if answered else 0.0)
        for job in reversed(left.values()):
            self._wheel.add(job, again)
        self._plan(job for local, job in jobs.items() if local not in left)
        return answered

    def _plan(self, jobs: Iterable[TrackedJob]) -> None:
        """When to look at jobs next: the longer they have been in their state, the later."""
        now = trio.current_time()
        polling = self._config.polling
        for job in jobs:
            if not self._tracker.is_followed(job):
                continue
            longest = polling.documents_max
            if self._tracker.is_doubtful(job) or job.local in self._undecided:
                longest = polling.documents
            elif self._tracker.lifecycle.timers(job.state):
                longest = min(longest, max(_TIMED_INTERVAL, polling.documents))
            wait = interval(now - job.since, polling.documents, longest)
            self._wheel.add(job, now + _jittered(wait))

    async def _follow_listing(self) -> None:
        while True:
            if not self._tracker.active and not self._health.must_ask(SeenBy.LISTING):
                await self._listing_alarm.sleep_until(None)
                continue
            try:
                took = await self._poll_listing()
            except InterCEdeError as error:
                await self._failed(SeenBy.LISTING, error)
                await self._leave_in_peace(SeenBy.LISTING)
                continue
            wait = max(self._config.polling.listing, _LISTING_REST * took)
            await trio.sleep(_jittered(wait))

    async def _poll_documents(self, left: dict[str, TrackedJob], until: float = math.inf) -> None:
        """Ask the documents of jobs, and take in what they say; what is done with leaves ``left``.

        Args:
            left: the jobs, by local id.
            until: when to stop looking into failed jobs.
        """
        if not left:
            return
        async with self._documents_turn:
            builder = await self._session.builder()
            bad: list[str] = []
            for batch in id_batches(list(left), self._config.batches.ids):
                answers = await ask_all(self._session, builder.status, batch, batch=len(batch))
                await self._answered(SeenBy.DOCUMENTS)
                states = (
                    (local, documented_state(answer, local, self._config.endpoint))
                    for local, answer in answers.items()
                )
                pairs = {local: state for local, state in states if state is not None}
                failed = await self._take_in(pairs, SeenBy.DOCUMENTS)
                for local in set(batch).difference(failed):
                    del left[local]
                bad += failed
            for part in _parts(bad, _ENDS_AT_ONCE):
                ends = await self._ends.find(documented=part)
                await self._observe(self._decided(ends), SeenBy.DOCUMENTS)
                for local in part:
                    del left[local]
                if trio.current_time() >= until:
                    break

    async def _poll_listing(self) -> float:
        """Ask the live listing, and take in what it says; how many seconds the CE took for it."""
        async with self._listing_turn:
            began = trio.current_time()
            listed = await self._listing.late_states()
            took = trio.current_time() - began
            await self._answered(SeenBy.LISTING)
            bad = await self._take_in(listed, SeenBy.LISTING)
            # Of thousands that fail at once some are left to the documents, which are read in bulk,
            # and to the next listing: the news of the others must not wait for them.
            until = trio.current_time() + self._config.polling.listing
            for part in _parts(bad, _ENDS_AT_ONCE):
                ends = await self._ends.find(listed=part)
                await self._observe(self._decided(ends), SeenBy.LISTING)
                if trio.current_time() >= until:
                    break
            return took

    async def _take_in(self, states: Mapping[str, str], source: SeenBy) -> list[str]:
        """Move the machines by what a source says; returns the FAILED, to be looked into first."""
        bad = self._tracker.ended_badly(states.items())
        doubtful = set(bad)
        await self._observe(
            (pair for pair in states.items() if pair[0] not in doubtful),
            source,
        )
        return bad

    def _decided(self, ends: Mapping[str, str | None]) -> list[tuple[str, str]]:
        decided = []
        for local, end in ends.items():
            job = self._tracker.jobs.get(local)
            if job is None or self._tracker.is_final(job):
                continue  # (untracked, or told by the other source meanwhile)
            if end is None:
                self._undecided[local] += 1
                if self._undecided[local] < _LOOKS_AT_AN_END:
                    continue
            decided.append((local, end or "FAILED"))
        return decided

    async def _observe(self, pairs: Iterable[tuple[str, str]], source: SeenBy) -> None:
        for part in _parts(pairs, _SLICE):
            now, at = trio.current_time(), utc_now()
            await self._tell(self._tracker.observe(part, source, now, at))

    async def _tell(self, events: Sequence[PollerEvent]) -> None:
        if events:
            for event in events:
                if not isinstance(event, JobEvent):
                    continue
                if event.dest == "purged":
                    self.untrack([event.id])
                elif self._undecided and event.dest in self._tracker.lifecycle.final:
                    self._undecided.pop(event.id.rpartition("/")[2], None)
            self._hub.say(events)
            self._action_alarm.ring()
        await self._hub.flush()

    async def _failed(self, source: SeenBy, error: InterCEdeError) -> None:
        """Tell that the CE does not answer, if that is news."""
        at = utc_now()
        if self._health.failed(source, at):
            reason = f"{type(error).__name__}: {error.message}"
            _log.warning("ce.unreachable", ce=self._config.endpoint, why=reason)
            await self._tell([self._tracker.unreachable(source, reason, at)])

    async def _leave_in_peace(self, source: SeenBy) -> None:
        """After a failure: ever longer, but no longer than until the other source is back."""
        with trio.move_on_after(self._health.pause(source)):
            await self._recovery.wait()

    async def _answered(self, source: SeenBy) -> None:
        recovered = self._health.is_failing(source)
        since = self._health.answered(source)
        if recovered:
            self._recovery.set()
            self._recovery = trio.Event()
        if since is not None:
            at = utc_now()
            _log.info("ce.back", ce=self._config.endpoint, away_since=since.isoformat())
            await self._tell([self._tracker.back(since, at)])

    # --- what the policy does ---

    async def _follow_policy(self) -> None:
        while True:
            wake = self._tracker.next_timer()
            if self._leftovers:
                wake = self._rest_until if wake is None else min(wake, self._rest_until)
            await self._action_alarm.sleep_until(wake)
            await self._act()

    async def _act(self) -> None:
        now = trio.current_time()
        kills: list[Due] = []
        repeats: list[Due] = []
        events: list[PollerEvent] = []
        for due in self._tracker.due(now):
            if "kill" not in due.rule.effect:
                event = self._tracker.fire(due, None, now, utc_now())
                events += [event] if event is not None else []
            elif due.job.state == "killing":
                repeats.append(due)
            else:
                kills.append(due)
        kills = self._affordable(kills)
        await self._tell(events)
        if not await self._attempt(self._kill_held, kills):
            self._postpone(kills)
        if not await self._attempt(self._kill_by_policy, repeats):
            self._postpone(repeats)
        over = [*self._leftovers, *self._tracker.take_purgeable()]
        self._leftovers = [local for local in over if local in self._tracker.to_purge]
        await self._attempt(self._purge_leftovers, self._leftovers)

    async def _attempt(self, do: Callable[[list[_T]], Awaitable[None]], what: list[_T]) -> bool:
        """Do what the policy wants of the CE; False if that must wait, for the CE is away.

        The polls tell that it is; here it is only left in peace, ever longer.
        """
        if not what:
            return True
        if trio.current_time() < self._rest_until:
            return False
        try:
            await do(what)
        except InterCEdeError as error:
            self._policy_failures += 1
            pause = self._health.pause_after(self._policy_failures)
            self._rest_until = trio.current_time() + pause
            _log.warning("policy.delayed", ce=self._config.endpoint, why=error.message)
            return False
        self._policy_failures = 0
        return True

    def _affordable(self, kills: list[Due]) -> list[Due]:
        """So many of the kills as this cycle has room for; the others are put off to the next."""
        hold = self._tracker.lifecycle.policy.hold
        now = trio.current_time()
        # (the same sum as below: what is put off until then must find room then)
        while self._kills and self._kills[0] + hold.cycle <= now:
            self._kills.popleft()
        room = max(0, hold.max_kills - len(self._kills))
        if len(kills) > room:
            until = (self._kills[0] if self._kills else now) + hold.cycle
            _log.warning(
                "policy.kills_postponed", ce=self._config.endpoint, count=len(kills) - room
            )
            for due in kills[room:]:
                self._tracker.postpone(due, until)
        return kills[:room]

    async def _kill_held(self, kills: list[Due]) -> None:
        """Kill what has been held for too long, looked at once more."""
        await self._poll_documents({due.job.local: due.job for due in kills})
        kills = [due for due in kills if self._stands(due)]
        # (counted before it is known what comes of them: a lost answer may be that of a kill)
        self._kills.extend([trio.current_time()] * len(kills))
        await self._kill_by_policy(kills)

    async def _kill_by_policy(self, kills: list[Due]) -> None:
        kills = [due for due in kills if self._stands(due)]
        refs = resolve(self._config.endpoint, [due.job.local for due in kills])
        answers = await self._remover.kill(refs)
        now, at = trio.current_time(), utc_now()
        events = (
            self._tracker.fire(due, answers[ref.id], now, at)
            for due, ref in zip(kills, refs, strict=True)
        )
        await self._tell([event for event in events if event is not None])

    def _stands(self, due: Due) -> bool:
        """Whether the job is still in that state, and the policy in force still wants it."""
        timers = self._tracker.lifecycle.timers(due.job.state)
        return self._tracker.still(due) and any(due.rule == rule for rule, _ in timers)

    def _postpone(self, kills: Iterable[Due]) -> None:
        for due in kills:
            if self._stands(due):
                self._tracker.postpone(due, self._rest_until)

    async def _purge_leftovers(self, leftovers: list[str]) -> None:
        """Remove jobs that are over by now and were to be removed then."""
        refs = resolve(self._config.endpoint, leftovers)
        answers = await self._remover.purge(refs)
        self._leftovers = []
        now, at = trio.current_time(), utc_now()
        found = ((ref, self._tracker.jobs.get(ref.local)) for ref in refs)
        await self._tell(
            [
                self._tracker.answer("purge", job, answers[ref.id], now, at)
                for ref, job in found
                if job is not None and self._tracker.is_final(job)
            ]
        )


@asynccontextmanager
async def open_poller(make: Callable[[], Poller]) -> AsyncIterator[Poller]:
    """A poller with its tasks, which end with the block.

    What the block raises comes out as it is, not in a group.
    """
    poller = make()
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            poller.run(nursery)
            try:
                yield poller
            except (Exception, KeyboardInterrupt, SystemExit) as error:
                failure = error
            finally:
                poller.close()
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
    finally:
        poller.close()
        del failure  # (it refers to this frame)


def merge(pollers: Iterable[Poller], buffer: int = 10_000) -> Subscription:
    """The events of several pollers, usually of several CEs, in one stream.

    It ends when every poller is closed. Events of one CE keep their order.

    Args:
        pollers: whose events.
        buffer: events kept while nobody reads.
    """
    subscription = Subscription(buffer)
    for poller in pollers:
        poller.feed(subscription)
    return subscription


def _fetched(output: JobOutput) -> OpOutcome:
    whole = output.directory is not None and not output.refused
    return OpOutcome(ok=whole, reason=output.reason)


def _parts(things: Iterable[_T], size: int) -> Iterator[list[_T]]:
    iterator = iter(things)
    while part := list(islice(iterator, size)):
        yield part


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311  (no secret)
