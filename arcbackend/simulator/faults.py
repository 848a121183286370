"""Faults on request: an ASGI application around another one, which goes wrong by rules.

What goes wrong depends on the rules, the seed and the order of the requests alone.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import trio

from arcbackend.simulator.connection import App, Connection, Message, Receive, Send, of
from arcbackend.simulator.fault_rules import (
    Cut,
    Effect,
    Fault,
    FewerInstances,
    FixedTime,
    Latency,
    SlowAccept,
    Stall,
    Status,
    Time,
    UniformTime,
)
from arcbackend.simulator.replies import Reply

__all__ = ["INSTANCES", "Faults", "FaultyApp"]

INSTANCES = "instances"
"""In a scope's ``state``: how many instances are made at most, if a fault says so."""


@dataclass(slots=True)
class _Rule:
    """A rule, and what has come of it.

    Attributes:
        number: its name.
        fault: the rule.
        matched: requests that it was about.
        done: requests that it had its effect on.
    """

    number: int
    fault: Fault
    matched: int = 0
    done: int = 0


class Faults:
    """The rules that hold.

    Args:
        rules: those from the start.
        seed: what makes the chance.
        clock: seconds, from wherever: trio's.
    """

    def __init__(self, rules: Iterable[Fault], seed: int, clock: Callable[[], float]) -> None:
        self._random = random.Random(f"faults {seed}")  # noqa: S311 - to be foreseen
        self._clock = clock
        self._started = clock()
        self._rules: dict[int, _Rule] = {}
        self._numbers = 0
        for rule in rules:
            self.add(rule)

    def add(self, fault: Fault) -> int:
        """Add a rule; returns the number that it can be removed by."""
        self._numbers += 1
        self._rules[self._numbers] = _Rule(self._numbers, fault)
        return self._numbers

    def remove(self, number: int) -> None:
        """Remove a rule; `KeyError` if there is none of that number."""
        del self._rules[number]

    def clear(self) -> None:
        """Remove all rules."""
        self._rules.clear()

    def told(self) -> list[dict[str, Any]]:
        """The rules, with how many requests each was about, and how many it had its effect on."""
        return [
            {
                "number": rule.number,
                "matched": rule.matched,
                "done": rule.done,
                "fault": rule.fault.model_dump(mode="json"),
            }
            for rule in self._rules.values()
        ]

    def hit(self, operation: str, method: str = "", target: str = "") -> list[Fault]:
        """The faults of a request, in their order. To be asked once for each."""
        if not self._rules:
            return []
        time = self._clock() - self._started
        return [
            rule.fault
            for rule in list(self._rules.values())
            if self._matches(rule.fault, operation, method, target, time) and self._chosen(rule)
        ]

    def delay(self) -> float:
        """For how many seconds a new connection waits."""
        effects = [fault.effect for fault in self.hit("connect")]
        return sum(self.draw(each.time) for each in effects if isinstance(each, SlowAccept))

    def draw(self, time: Time) -> float:
        """How long it takes this time, in seconds."""
        if isinstance(time, FixedTime):
            return time.seconds
        if isinstance(time, UniformTime):
            return self._random.uniform(time.shortest, time.longest)
        drawn = self._random.lognormvariate(math.log(time.median), time.sigma)
        return min(drawn, time.longest)

    @staticmethod
    def _matches(fault: Fault, operation: str, method: str, target: str, time: float) -> bool:
        connecting = isinstance(fault.effect, SlowAccept)
        if connecting is not (operation == "connect"):
            return False
        if time < fault.since or (fault.until is not None and time >= fault.until):
            return False
        if connecting:
            return True
        return (
            fnmatchcase(operation, fault.operation)
            and fnmatchcase(method, fault.method)
            and fnmatchcase(target, fault.target)
        )

    def _chosen(self, rule: _Rule) -> bool:
        fault = rule.fault
        rule.matched += 1
        if rule.matched <= fault.skip or (fault.count is not None and rule.done >= fault.count):
            return False
        if fault.probability < 1 and self._random.random() >= fault.probability:
            return False
        rule.done += 1
        return True


class FaultyApp:
    """An application that goes wrong by rules.

    Args:
        app: the application.
        faults: the rules.
        operation: names what a request is to do, from its method and its target.
    """

    def __init__(self, app: App, faults: Faults, operation: Callable[[str, bytes], str]) -> None:
        self._app = app
        self._faults = faults
        self._operation = operation

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        target = scope["raw_path"]
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        method = scope["method"]
        operation = self._operation(method, target)
        faults = self._faults.hit(operation, method, target.decode("latin-1"))
        if not faults:
            await self._app(scope, receive, send)
            return
        effects = [fault.effect for fault in faults]
        for effect in effects:
            if isinstance(effect, Latency):
                await trio.sleep(self._faults.draw(effect.time))
            elif isinstance(effect, FewerInstances):
                scope["state"][INSTANCES] = effect.at_most
            elif isinstance(effect, Cut) and effect.when == "before":
                await of(scope).cut()
                return
            elif isinstance(effect, Status) and not effect.done:
                await _reply(effect)(scope, receive, send)
                return
        instead = next((each for each in effects if isinstance(each, Status)), None)
        answer = _Answer(of(scope), receive, send, effects)
        if instead is None:
            await self._app(scope, answer.receive, answer.send)
        else:
            await self._app(scope, receive, _nobody)
            await _reply(instead)(scope, receive, answer.send)


class _Answer:
    """An answer that may be cut, or stall."""

    def __init__(
        self, connection: Connection, receive: Receive, send: Send, effects: Sequence[Effect]
    ) -> None:
        self._connection = connection
        self._receive = receive
        self._send = send
        self._stalls = [each for each in effects if isinstance(each, Stall)]
        self._cut = next((each for each in effects if isinstance(each, Cut)), None)
        self._sent = 0
        self._is_cut = False
        self._kept: deque[Message] = deque()

    async def receive(self) -> Message:
        """The next piece of the request, which may have come while the answer stalled."""
        if not self._kept:
            return await self._receive()
        last = len(self._kept) == 1 and self._kept[0]["type"] == "http.disconnect"
        return self._kept[0] if last else self._kept.popleft()  # gone is gone

    async def send(self, message: Message) -> None:
        """Send a piece, as far as it goes."""
        if self._is_cut:
            return
        if message["type"] == "http.response.start":
            if self._cut is not None and self._cut.when == "done":
                await self._close()
                return
            await self._stall(None)
            await self._send(message)
            return
        body, more = bytes(message.get("body", b"")), bool(message.get("more_body"))
        while (stop := self._stop()) is not None and self._sent + len(body) >= stop:
            first, body = body[: stop - self._sent], body[stop - self._sent :]
            await self._pass(first, more=True)
            await self._stall(stop)
            if self._cut is not None and self._cut.after_bytes == stop:
                await self._close()
                return
        await self._pass(body, more=more)

    def _stop(self) -> int | None:
        """After how many bytes of the body something happens next."""
        stops = [each.after_bytes for each in self._stalls if each.after_bytes is not None]
        if self._cut is not None:
            stops.append(self._cut.after_bytes)
        return min(stops, default=None)

    async def _pass(self, body: bytes, *, more: bool) -> None:
        if body or not more:
            self._sent += len(body)
            await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def _stall(self, after_bytes: int | None) -> None:
        """Wait for as long as the stalls last that are due here; no longer than the client does."""
        for stall in [each for each in self._stalls if each.after_bytes == after_bytes]:
            self._stalls.remove(stall)
            with trio.move_on_after(math.inf if stall.seconds is None else stall.seconds):
                while not self._kept or self._kept[-1]["type"] != "http.disconnect":
                    self._kept.append(await self._receive())

    async def _close(self) -> None:
        self._is_cut = True
        await self._connection.cut()


def _reply(effect: Status) -> Reply:
    fields = [] if effect.retry_after is None else [(b"retry-after", b"%d" % effect.retry_after)]
    if effect.body:
        fields.append((b"content-type", b"text/plain"))
    return Reply(effect.status, effect.reason, effect.body.encode(), fields)


async def _nobody(_message: Message) -> None:
    """Where an answer goes that another one is given for."""
