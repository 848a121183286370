"""Jobs in A-REX's REST interface: lists, new ones, and what is done to many (``processJobs``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from arcbackend.simulator import id_lists
from arcbackend.simulator.asked import Answered, Asked, ClientGone, not_implemented
from arcbackend.simulator.authority import Claims
from arcbackend.simulator.delegations import Delegations
from arcbackend.simulator.descriptions import BodyRefused, Description, Refusal, parse
from arcbackend.simulator.faults import INSTANCES
from arcbackend.simulator.identities import Caller, Permission
from arcbackend.simulator.jobs import Job
from arcbackend.simulator.replies import Document, Reply, accepted, escaped
from arcbackend.simulator.traps import Trap, Traps
from arcbackend.simulator.world import JobRefused, World

__all__ = ["JobsApi"]

_ID_LIST_BYTES = 2**20
_BODY_BYTES = 100 * 2**20
_JSON = "application/json"
_NO_ROOM = "No more jobs allowed"
_INTEGER = re.compile(r"[ \t\n\v\f\r]*([+-]?\d+)")
_LARGEST = 2**31 - 1
_SEVERAL = re.compile(
    rb"\s*(?:<\?.*?\?>\s*|<!--.*?-->\s*)*<(?:[\w.-]+:)?ActivityDescriptions[\s/>]", re.DOTALL
)

_Item = dict[str, "str | Mapping[str, Any]"]
_Known = '{{"status-code":"200","reason":"OK","id":"{}","state":"{}"}}'


class JobsApi:
    """Answers requests for ``jobs``.

    Args:
        world: the CE.
        delegations: of the CE's users.
    """

    def __init__(self, world: World, delegations: Delegations) -> None:
        self._world = world
        self._traps: Traps = world.traps
        self._delegations = delegations
        self._actions: Final[Mapping[str, tuple[Permission, Callable[..., _Item]]]] = {
            "info": (Permission.INFO, self._info),
            "kill": (Permission.CANCEL, self._kill),
            "clean": (Permission.DELETE, self._clean),
            "restart": (Permission.CREATE, self._restart),
            "delegations": (Permission.INFO, self._locked),
        }

    async def answer(self, asked: Asked) -> Reply:
        """Answer a request."""
        asked.known()
        if asked.method in ("GET", "HEAD"):
            return self._list(asked)
        if asked.method != "POST":
            return not_implemented()
        action = asked.query.get("action", "")
        if action == "new":
            return await self._new(asked)
        if action == "status":
            return await self._status(asked)
        if (found := self._actions.get(action)) is None:
            return not_implemented("Action not implemented")
        permission, act = found
        owner = asked.permitted(permission).owner
        items = [
            _missing(id_) | ({"info_document": ""} if action == "info" else {})
            if (job := self._world.find(owner, id_)) is None
            else act(job, asked)
            for id_ in await self._ids(asked)
        ]
        return asked.document("jobs", {"job": items}, 201, "Created")

    # Lists

    def _list(self, asked: Asked) -> Reply:
        owner = asked.permitted(Permission.INFO).owner
        wanted = frozenset(filter(None, asked.query.get("state", "").split(",")))
        jobs = self._world.jobs_of(owner)
        listed: Sequence[Document]
        if wanted:
            live = self._world.live_state
            found = [(job.local, live(job)) for job in jobs]
            listed = [{"id": id_, "state": state} for id_, state in found if state in wanted]
        else:
            listed = [{"id": job.local} for job in jobs]
        return asked.document("jobs", {"job": listed})

    async def _status(self, asked: Asked) -> Reply:
        owner = asked.permitted(Permission.INFO).owner
        ids = await self._ids(asked)
        find, state = self._world.find, self._world.published_state
        how, fields = accepted(asked.headers(b"accept"))
        if how == "json":
            # What is asked most: written at once.
            told = [
                f'{{"status-code":"200","reason":"OK","id":"{job.local}","state":"{state(job)}"}}'
                if (job := find(owner, id_)) is not None
                else '{"status-code":"404","reason":"Job not found","id":"'
                f'{escaped(id_)}","state":"None"}}'
                for id_ in ids
            ]
            body = f'{{"job":[{",".join(told)}]}}'.encode()
            return Reply(201, "Created", body, fields)
        items = [
            _missing(id_) | {"state": "None"}
            if (job := find(owner, id_)) is None
            else _item(job, "200", "OK") | {"state": state(job)}
            for id_ in ids
        ]
        return asked.document("jobs", {"job": items}, 201, "Created")

    async def _ids(self, asked: Asked) -> Sequence[str]:
        """The ids in the body (``ParseJobIds``)."""
        content = await asked.body(_ID_LIST_BYTES if Trap.IDS_CUT_AT_1_MIB in self._traps else None)
        kind = asked.header(b"content-type") or ""
        if Trap.IDS_NEED_EXACT_TYPE not in self._traps:
            kind = kind.partition(";")[0].strip().lower()
            if kind not in ("", _JSON, "application/xml"):
                raise Answered(415, "Unsupported Media Type")
        if kind == _JSON:
            if Trap.GARBAGE_IDS_ARE_201 not in self._traps and not id_lists.is_json(content):
                raise Answered(400, "Bad Request")
            return id_lists.in_json(content)
        return id_lists.in_xml(content) if kind in ("", "application/xml") else []

    # What is done to one job

    def _info(self, job: Job, _asked: Asked) -> _Item:
        return _item(job, "200", "OK") | {"info_document": self._world.activity(job)}

    def _kill(self, job: Job, _asked: Asked) -> _Item:
        if job.over and Trap.KILL_OF_FINISHED_IS_202 not in self._traps:
            return _item(job, "505", "Job could not be canceled")
        self._world.kill(job)
        return _item(job, "202", "Queued for killing")

    def _clean(self, job: Job, _asked: Asked) -> _Item:
        if not job.over and Trap.CLEAN_OF_ACTIVE_IS_202 not in self._traps:
            return _item(job, "505", "Job could not be cleaned")
        self._world.clean(job)
        return _item(job, "202", "Queued for cleaning")

    def _restart(self, job: Job, _asked: Asked) -> _Item:
        refused = self._world.restart(job)
        return _item(
            job, *(("202", "Queued for restarting") if refused is None else ("505", refused))
        )

    def _locked(self, job: Job, _asked: Asked) -> _Item:
        theirs = self._delegations.of(job.owner)
        locked = [id_ for id_ in self._world.locked_delegations(job) if id_ in theirs]
        told: dict[str, Any] = (
            {} if not locked else {"delegation_id": locked[0] if len(locked) == 1 else list(locked)}
        )
        return _item(job, "200", "OK") | told

    # New jobs

    async def _new(self, asked: Asked) -> Reply:
        caller = asked.permitted(Permission.CREATE)
        if self._world.room() == 0:
            raise Answered(500, _NO_ROOM)
        body = await asked.body(_BODY_BYTES)
        if not body:
            raise Answered(500, "Missing payload")
        least, most = self._instances(asked) if body.strip(b" \t\r\n") else (1, 1)
        if most >= _LARGEST:
            await asked.connection.cut()  # A-REX does not get over so many
            raise ClientGone
        several = body.lstrip(b" \t\r\n")[:1] == b"+" or _SEVERAL.match(body) is not None
        if several and most > 1:
            raise Answered(403, "No multiple descriptions and multiple instances simultaneously")
        try:
            found = parse(body, limit=self._world.settings.limits.description_bytes)
        except BodyRefused as refused:
            raise Answered(refused.status, refused.reason) from None
        if several or most <= 1:
            items = [self._made(asked, caller, each) for each in found]
        else:
            items = self._copies(asked, caller, found[0], least, most)
        return asked.document("jobs", {"job": items}, 201, "Created")

    def _instances(self, asked: Asked) -> tuple[int, int]:
        """At least and at most how many jobs are to be made of one description."""
        most = _number(asked.parameter("instances"), 1)
        least = _number(asked.parameter("instances_min"), 1)
        if most < 1 or least > most:
            raise Answered(500, "Wrong number of instances specified")
        if (room := self._world.room()) is not None and room < least:
            raise Answered(403, "Number of requested instances exceeds allowed limit")
        return least, most

    def _made(self, asked: Asked, caller: Caller, found: Description | Refusal) -> _Item:
        if isinstance(found, Refusal):
            return _refused(found.reason)
        if self._world.room() == 0:
            return _refused(_NO_ROOM)
        try:
            how = self._submission(asked, caller, found)
            return _created(self._world.create(caller.owner, found, **how))
        except JobRefused as refused:
            return _refused(refused.reason)

    def _copies(
        self, asked: Asked, caller: Caller, found: Description | Refusal, least: int, most: int
    ) -> list[_Item]:
        if least < 1:
            raise Answered(403, "Can't create requested number of job instances")
        if isinstance(found, Refusal):
            return [_refused(found.reason)]
        made = min(most, asked.scope["state"].get(INSTANCES, most))
        try:
            how = self._submission(asked, caller, found)
            jobs = self._world.create_copies(made, caller.owner, found, **how)
        except JobRefused as refused:
            return [_refused(refused.reason)]
        items = [_created(job) for job in jobs]
        if Trap.FEWER_INSTANCES_SILENTLY not in self._traps:
            items += [_refused(_NO_ROOM)] * (most - len(items))
        return items

    def _submission(self, asked: Asked, caller: Caller, found: Description) -> dict[str, Any]:
        """What is said of new jobs besides their description."""
        asked_for = asked.parameter("delegation_id")
        named = [found.delegation] if found.delegation else [asked_for] if asked_for else []
        named += found.delegations
        theirs = self._delegations.of(caller.owner)
        if Trap.UNKNOWN_DELEGATION_ACCEPTED not in self._traps:
            for id_ in named:
                if id_ not in theirs:
                    raise JobRefused(f"Failed to find delegation {id_}")
        used = [theirs[id_] for id_ in named if id_ in theirs and theirs[id_].until is not None]
        claims = caller.claims
        return {
            "queue": asked.parameter("queue") or None,
            "delegations": [asked_for] if asked_for and not found.delegation else [],
            "client": asked.connection.client,
            "claims": None if claims is None else dict(_texts(claims)),
            "proxy_until": used[0].until if used else None,
            "proxy": used[0].proxy() if used else None,
        }


def _texts(claims: Claims) -> Iterator[tuple[str, str]]:
    """The claims that A-REX keeps: texts, and lists of them (``OTokensSH.cpp``)."""
    for name, claim in claims.items():
        if isinstance(claim, str):
            yield name, claim
        elif isinstance(claim, list):
            yield name, " ".join(each for each in claim if isinstance(each, str))


def _item(job: Job, code: str, reason: str) -> _Item:
    return {"status-code": code, "reason": reason, "id": job.local}


def _missing(id_: str) -> _Item:
    return {"status-code": "404", "reason": "Job not found", "id": id_}


def _created(job: Job) -> _Item:
    return {**_item(job, "201", "Created"), "state": "ACCEPTING"}


def _refused(reason: str) -> _Item:
    return {"status-code": "500", "reason": reason}


def _number(text: str, otherwise: int) -> int:
    """A number as C++ reads it: what begins as one is one; what does not is 0 (``stringto``)."""
    if not text:
        return otherwise
    found = _INTEGER.match(text)
    return 0 if found is None else max(-_LARGEST - 1, min(int(found[1][:20]), _LARGEST))
