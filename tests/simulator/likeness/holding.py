"""Holds conversations with a CE."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import trio

from arcbackend.x509 import Proxy, sign_request
from tests.simulator.likeness.driver import Answer, Connection, HandshakeRefused
from tests.simulator.likeness.endpoint import Endpoint
from tests.simulator.likeness.observing import Names, Observation, observed
from tests.simulator.likeness.people import People
from tests.simulator.likeness.steps import (
    JSON,
    Conversation,
    Plant,
    Publish,
    Step,
    Until,
)

_PLACEHOLDER = re.compile(rb"@([a-z_0-9]+)@")
_AT_ONCE = 6
_WAITS = 120.0
_EVERY = 0.3


@dataclass
class Held:
    """One conversation in progress."""

    endpoint: Endpoint
    conversation: Conversation
    people: People
    captured: dict[str, str] = field(default_factory=dict)
    csr: bytes = b""

    @property
    def _of(self) -> str:
        alone = re.sub(r"[^a-z0-9.]+", "-", self.conversation.id)
        return f"-{alone}" if self.conversation.alone else ""

    async def run(self) -> dict[str, Observation]:
        """Take its steps, one after the other."""
        where = urlsplit(self.endpoint.url)
        names = Names(
            {
                self.endpoint.url: "endpoint",
                f"<QueueName>{self.endpoint.queue}</QueueName>": "QueueName",
                where.netloc: "host:port",
                self.people.subject("other", self._of): "other subject",
                self.people.subject("user", self._of): "subject",
            }
        )
        seen: dict[str, Observation] = {}
        connection: Connection | None = None
        try:
            for step in self.conversation.steps:
                assert step.name not in seen, f"{self.conversation.id}: two {step.name}"
                for action in step.before:
                    await self._before(action)
                if connection is not None and step.fresh:
                    await connection.close()
                    connection = None
                try:
                    connection = connection or await self._connected(step)
                except HandshakeRefused as alert:
                    seen[step.name] = {"answer": f"handshake refused: {alert}"}
                    continue
                answer = await self._ask(connection, step)
                self._capture(step, answer, names)
                seen[step.name] = observed(step, answer, names)
                if step.probe and answer.closed is None and answer.status:
                    after = await connection.ask([_probe(where.netloc)], "GET", 10)
                    said = f"{after.status} {after.reason}" if after.status else after.outcome
                    seen[step.name]["then"] = said
                    answer.closed = after.closed
                if answer.closed or answer.outcome != "answered":
                    await connection.close()
                    connection = None
        finally:
            if connection is not None:
                await connection.close()
        return seen

    async def _connected(self, step: Step) -> Connection:
        context = await self.people.context(step.certificate)
        return await Connection.open(self.endpoint.url, context)

    async def _ask(self, connection: Connection, step: Step) -> Answer:
        request = await self._request(step)
        expects = any(value == "100-continue" for _, value in step.headers)
        return await connection.ask(request, step.method, step.patience, expects=expects)

    async def _request(self, step: Step) -> list[bytes]:
        """A request's bytes: the head, and the pieces of its body."""
        if step.raw is not None:
            head, separator, rest = (await self._filled(step.raw)).partition(b"\r\n\r\n")
            return [head + separator, *([rest] if rest else [])]
        target = (await self._filled(step.target.encode("latin-1"))).decode("latin-1")
        headers = {"Host": urlsplit(self.endpoint.url).netloc, JSON[0]: JSON[1]}
        authorization = await self.people.authorization(step.who, self._of)
        if authorization is not None:
            headers["Authorization"] = authorization
        body = None if step.body is None else await self._filled(step.body)
        if step.chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif body is not None:
            headers["Content-Length"] = str(len(body))
        lines = [f"{step.method} {target} HTTP/{step.http}"]
        replaced = {name.lower() for name, _ in step.headers}
        lines += [
            f"{name}: {value}" for name, value in headers.items() if name.lower() not in replaced
        ]
        lines += [
            f"{name}: {(await self._filled(value.encode('latin-1'))).decode('latin-1')}"
            for name, value in step.headers
            if value
        ]
        head = "\r\n".join((*lines, "", "")).encode("latin-1")
        return [head, *_pieces(body or b"", step.chunked)]

    async def _filled(self, template: bytes) -> bytes:
        """Put in what stands between ``@``."""
        values: dict[bytes, bytes] = {}
        for name in set(_PLACEHOLDER.findall(template)):
            values[name] = await self._value(name.decode())
        return _PLACEHOLDER.sub(lambda found: values[found[1]], template)

    async def _value(self, name: str) -> bytes:
        if name in self.captured:
            return self.captured[name].encode()
        fixed = {
            "rest": f"/arex/rest/{self.conversation.rest}",
            "host": urlsplit(self.endpoint.url).netloc,
            "queue": self.endpoint.queue,
            "subject": self.people.subject("user", self._of),
        }
        if name in fixed:
            return fixed[name].encode()
        return await self._credential(name)

    async def _credential(self, name: str) -> bytes:
        match name:
            case "user":
                return (await self.people.authorization("user", self._of) or "").encode()
            case "token":
                return (await self.people.token("user", self._of)).encode()
            case "proxy":
                return await self.people.proxy("proxy")
            case "chain":
                signer = Proxy.from_pem(await self.people.proxy("proxy"))
                now = datetime.now(UTC)
                return sign_request(self.csr, signer, now=now, lifetime=timedelta(hours=1))
        return b"nothing-was-captured"

    def _capture(self, step: Step, answer: Answer, names: Names) -> None:
        for name, where in step.capture:
            value = _found(where, answer)
            if name == "csr":
                self.csr = answer.body
            elif value:
                self.captured[name] = value
                names.learn(value, name)

    async def _before(self, action: Publish | Until | Plant) -> None:
        match action:
            case Publish():
                await self.endpoint.publish()
            case Plant(job, script):
                await self.endpoint.plant(self.captured[job], script)
            case Until(job, states, certificate):
                await self._until(self.captured[job], states, certificate)

    async def _until(self, job: str, states: tuple[str, ...], certificate: str) -> None:
        asker = await self.people.asker(self._of, certificate)
        state = ""
        with trio.move_on_after(_WAITS):
            while state not in states:
                await trio.sleep(_EVERY)
                state = (await asker.live()).get(job, "gone")
        assert state in states, f"{self.conversation.id}: {job} is {state}, never {states}"


def _pieces(body: bytes, size: int) -> list[bytes]:
    if not size:
        return [body] if body else []
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return [b"%x\r\n%b\r\n" % (len(part), part) for part in parts] + [b"0\r\n\r\n"]


def _probe(host: str) -> bytes:
    return f"GET /arex/rest HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


def _found(where: str, answer: Answer) -> str:
    if where == "location":
        return dict(answer.headers).get("location", "").rsplit("/", 1)[-1]
    if where == "body":
        return ""
    try:
        value = json.loads(answer.body)
        for key in where.split("."):
            value = value[int(key)] if isinstance(value, list) else value[key]
    except (ValueError, LookupError, TypeError):
        return ""
    return str(value)


async def hold(
    endpoint: Endpoint, people: People, conversations: Iterable[Conversation]
) -> dict[str, dict[str, Observation]]:
    """Hold conversations, several at a time; what was observed, by conversation and step."""
    seen: dict[str, dict[str, Observation]] = {}
    limit = trio.CapacityLimiter(_AT_ONCE)

    async def one(conversation: Conversation) -> None:
        async with limit:
            seen[conversation.id] = await Held(endpoint, conversation, people).run()

    async with trio.open_nursery() as nursery:
        for conversation in conversations:
            nursery.start_soon(one, conversation)
    return seen
