"""Watches jobs from their submission to their end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import trio

from tests.simulator.likeness.asking import Asker
from tests.simulator.likeness.endpoint import Endpoint
from tests.simulator.likeness.sequences import COURSES, GONE, Course, Source, When
from tests.simulator.likeness.steps import ids

Tellings: TypeAlias = dict[Source, list[str]]
"""Source → what it said, without repetitions."""

_EVERY = 0.1
_LOOKS = 4
_LOST = 10.0
_WAITS = 100.0


class Watcher:
    """The jobs of some courses."""

    def __init__(self, endpoint: Endpoint, asker: Asker) -> None:
        self._endpoint = endpoint
        self._asker = asker
        self._jobs: dict[str, str] = {}
        self._told: dict[str, Tellings] = {}
        self._news = trio.Event()

    async def follow(self, courses: Iterable[Course]) -> dict[str, Tellings]:
        """Submit a job for each and see to what becomes of it."""
        async with trio.open_nursery() as watching:
            for watch in (self._live, self._diagnosed, self._publishing):
                watching.start_soon(watch)
            with trio.move_on_after(_WAITS):  # what is not over then shows in its tellings
                async with trio.open_nursery() as nursery:
                    for course in courses:
                        nursery.start_soon(self._follow, course)
            watching.cancel_scope.cancel()
        return self._by_name()

    def _by_name(self) -> dict[str, Tellings]:
        return {name: self._told[job] for name, job in self._jobs.items()}

    async def _follow(self, course: Course) -> None:
        queued = course.description.replace("@queue@", self._endpoint.queue)
        answer = await self._asker.ask("jobs?action=new", queued.encode())
        listed = json.loads(answer.body)["job"]
        job = (listed if isinstance(listed, dict) else listed[0])["id"]
        self._told[job] = {"live": [], "status": [], "diagnose": []}
        self._jobs[course.name] = job
        for each in course.then:
            await self._until(job, each.source, each.states)
            await self._do(job, each)
        last = course.then[-1] if course.then else None
        while not self._is(job, "live", (course.ends,)):
            with trio.move_on_after(_LOST):
                await self._until(job, "live", (course.ends,))
                break
            if last is not None:  # A-REX can lose a kill (docs/explanation/arc-rest.md)
                await self._do(job, last)
        over = course.ends == GONE
        await self._until(job, "status", ("None",) if over else ("FINISHED", "FAILED", "KILLED"))
        await self._until(job, "diagnose", (GONE,) if over else ("FINISHED",))

    async def _do(self, job: str, what: When) -> None:
        action, _, name = what.action.partition(" ")
        if action == "put":
            await self._asker.ask(f"jobs/{job}/session/{name}", b"x", method="PUT")
        else:
            await self._asker.ask(f"jobs?action={action}", ids(job))

    async def _until(self, job: str, source: Source, states: tuple[str, ...]) -> None:
        while not self._is(job, source, states):
            await self._new()

    def _is(self, job: str, source: Source, states: tuple[str, ...]) -> bool:
        return bool(self._told[job][source]) and self._told[job][source][-1] in states

    async def _new(self) -> None:
        await self._news.wait()

    def _tell(self, source: Source, states: Mapping[str, str]) -> None:
        for job, state in states.items():
            telling = self._told[job][source]
            if telling[-1:] != [state]:
                telling.append(state)
        news, self._news = self._news, trio.Event()
        news.set()

    async def _live(self) -> None:
        missing: Counter[str] = Counter()
        while True:
            known = list(self._told)
            found = await self._asker.live()
            missing.update(job for job in known if job not in found)
            for job in found:
                del missing[job]
            # A job that is just being accepted is not listed for a moment.
            gone = {job: GONE for job, looks in missing.items() if looks > _LOOKS}
            self._tell("live", {job: found[job] for job in known if job in found} | gone)
            await trio.sleep(_EVERY)

    async def _diagnosed(self) -> None:
        missing: Counter[str] = Counter()
        while True:
            for job in list(self._told):
                answer = await self._asker.ask(f"jobs/{job}/diagnose/status")
                if answer.status == 200:
                    del missing[job]
                    self._tell("diagnose", {job: answer.body.decode().strip()})
                else:
                    missing[job] += 1
                    self._tell("diagnose", {job: GONE} if missing[job] > _LOOKS else {})
            await trio.sleep(_EVERY)

    async def _publishing(self) -> None:
        while True:
            await self._endpoint.publish()
            if known := list(self._told):
                self._tell("status", await self._asker.published(*known))
            await trio.sleep(_EVERY)


async def watch(
    endpoint: Endpoint, asker: Asker, courses: Iterable[Course] = COURSES
) -> dict[str, Tellings]:
    """What is told of the jobs of all courses; the name of each → its tellings."""
    parts = [[course for course in courses if course.closed is closed] for closed in (True, False)]
    told: dict[str, Tellings] = {}
    if parts[0]:
        async with endpoint.closed():
            told |= await Watcher(endpoint, asker).follow(parts[0])
    return told | await Watcher(endpoint, asker).follow(parts[1])
