"""A CE on the wire with session directories, which lies where it is told to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias, Union
from urllib.parse import unquote_to_bytes

import trio

from tests.wire.http import Seen, answer
from tests.wire.server import Peer

Tree: TypeAlias = dict[bytes, Union[bytes, "Tree"]]
Lie: TypeAlias = Callable[[Peer, Seen], Awaitable[bool]]
"""Answers a request instead of the CE; False: it did not, and the CE does."""

JOBS = "/arex/rest/1.1/jobs"
LOG = b"the CE's log\n"


@dataclass
class FakeCE:
    """Jobs, their states and what they left; ``script`` serves them.

    Attributes:
        jobs: local id → its session directory.
        states: local id → state in the live listing; FINISHED where it is missing.
        lies: end of a target → what answers it.
        sizes: whether listings with sizes are to be had (XML).
        information: the CE's information document.
    """

    jobs: dict[str, Tree] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    lies: dict[str, Lie] = field(default_factory=dict)
    sizes: bool = False
    information: bytes = b""
    asked: Counter[str] = field(default_factory=Counter)
    busy: int = 0
    busiest: int = 0
    order: list[str] = field(default_factory=list)

    async def script(self, peer: Peer) -> None:
        while True:
            seen = await peer.request()
            self.busy += 1
            self.busiest = max(self.busy, self.busiest)
            try:
                await self._answer(peer, seen)
            finally:
                self.busy -= 1

    async def _answer(self, peer: Peer, seen: Seen) -> None:
        self.asked[seen.target] += 1
        self.order.append(seen.target)
        for end, lie in self.lies.items():
            if seen.target.endswith(end) and await lie(peer, seen):
                return
        await peer.send(self._reply(seen))

    def _reply(self, seen: Seen) -> bytes:
        if seen.target == "/arex/rest":
            return _json({"version": ["1.0", "1.1"]})
        if seen.target == "/arex/rest/1.1/info":
            return answer(body=self.information)
        if seen.target.startswith(f"{JOBS}?state="):
            states = dict.fromkeys(self.jobs, "FINISHED") | self.states
            return _json({"job": [{"id": id_, "state": state} for id_, state in states.items()]})
        if seen.target == f"{JOBS}?action=info":
            return _json({"job": [self._info(job["id"]) for job in json.loads(seen.body)["job"]]})
        return self._of_job(seen)

    def _of_job(self, seen: Seen) -> bytes:
        local, what, *rest = seen.target.removeprefix(f"{JOBS}/").split("/")
        if local not in self.jobs:
            return answer(404)
        if what == "diagnose":
            state = self.states.get(local, "FINISHED").encode() + b"\n"
            items = {"errors": LOG, "status": state}
            return answer(body=items[rest[0]]) if rest[0] in items else answer(404, reason="No")
        found: bytes | Tree = self.jobs[local]
        for part in filter(None, rest):
            name = unquote_to_bytes(part)
            if not isinstance(found, dict) or name not in found:
                return answer(404, reason="Not found")
            found = found[name]
        if isinstance(found, dict):
            xml = self.sizes and seen.headers["accept"] == "text/xml"
            return answer(body=_xml(found) if xml else listing(found))
        return file(found, seen)

    def _info(self, local: str) -> dict[str, object]:
        if local not in self.jobs:
            return {"id": local, "status-code": "404", "reason": "Job not found"}
        document = {"ComputingActivity": {"StdOut": "stdout", "StdErr": "stderr"}}
        return {"id": local, "status-code": "200", "reason": "OK", "info_document": document}


def file(content: bytes, seen: Seen) -> bytes:
    """What A-REX says of a file, or of a range of it."""
    if seen.method == "HEAD":
        return answer(body=content).removesuffix(content)
    first, _, last = seen.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")
    start, end = int(first), min(int(last or len(content)) + 1, len(content))
    if start == 0 and end == len(content) and (last or "range" not in seen.headers):
        return answer(body=content)
    if start >= len(content):
        return answer(416, reason="Range not satisfiable", Content_Range="bytes */*")
    span = f"bytes {start}-{end - 1}/{len(content)}"
    return answer(206, content[start:end], "Partial content", Content_Range=span)


def listing(tree: Tree) -> bytes:
    """In JSON, as A-REX writes it."""
    names: dict[str, list[str]] = {"file": [], "dir": []}
    for name, content in tree.items():
        names["dir" if isinstance(content, dict) else "file"].append(name.decode("latin-1"))
    return json.dumps(names).encode()


def _xml(tree: Tree) -> bytes:
    lines = [
        b"  <dir>%b</dir>" % name
        if isinstance(content, dict)
        else b'  <file size="%d">%b</file>' % (len(content), name)
        for name, content in tree.items()
    ]
    return b"\n".join([b"<list>", *lines, b"</list>"])


def _json(document: object) -> bytes:
    return answer(body=json.dumps(document).encode())


def raw(*pieces: bytes, then: Callable[[Peer], Awaitable[None]] | None = None) -> Lie:
    """Send these bytes, then do something, then close."""

    async def lie(peer: Peer, _seen: Seen) -> bool:
        for piece in pieces:
            await peer.send(piece)
        if then is not None:
            await then(peer)
        raise trio.EndOfChannel

    return lie


def once(lie: Lie) -> Lie:
    """Lie once, then tell the truth."""
    left = 1

    async def guarded(peer: Peer, seen: Seen) -> bool:
        nonlocal left
        left -= 1
        return left >= 0 and await lie(peer, seen)

    return guarded
