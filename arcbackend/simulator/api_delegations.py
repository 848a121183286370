"""Delegations in A-REX's REST interface (``processDelegations`` in rest.cpp)."""

from __future__ import annotations

from arcbackend.simulator.asked import Answered, Asked, not_implemented
from arcbackend.simulator.delegations import Delegations
from arcbackend.simulator.identities import Permission
from arcbackend.simulator.replies import Reply
from arcbackend.simulator.targets import next_token
from arcbackend.simulator.traps import Trap, Traps
from arcbackend.simulator.world import World

__all__ = ["DelegationsApi"]

_PEM = (b"content-type", b"application/x-pem-file")
_CHAIN_BYTES = 2**20
_TYPES = ("", "x509", "jwt")


class DelegationsApi:
    """Answers requests for ``delegations``.

    Args:
        world: the CE: it knows which ones its jobs use.
        delegations: the store.
    """

    def __init__(self, world: World, delegations: Delegations) -> None:
        self._world = world
        self._traps: Traps = world.traps
        self._delegations = delegations

    async def answer(self, asked: Asked) -> Reply:
        """Answer a request."""
        id_, rest = next_token(asked.rest)
        if rest:
            raise Answered(404, "Not Found")
        asked.known()
        if not id_:
            return self._of_all(asked)
        action = asked.query.get("action")
        if asked.method == "PUT":
            return await self._put(asked, id_)
        if asked.method != "POST":
            return not_implemented()
        of_one = {"get": self._get, "renew": self._renew, "delete": self._delete}.get(action or "")
        return of_one(asked, id_) if of_one else not_implemented("Action not implemented")

    def _of_all(self, asked: Asked) -> Reply:
        if asked.method in ("GET", "HEAD"):
            return self._listed(asked, asked.permitted(Permission.INFO).owner)
        if asked.method != "POST":
            return not_implemented()
        if asked.query.get("action") != "new":
            return not_implemented("Action not implemented")
        return self._new(asked, asked.permitted(Permission.CREATE).owner)

    def _listed(self, asked: Asked, owner: str) -> Reply:
        wanted = asked.parameter("type")
        listed = [
            {"id": id_, "type": each.kind}
            for id_, each in self._delegations.of(owner).items()
            if wanted in ("", each.kind)
        ]
        return asked.document("delegations", {"delegation": listed})

    def _new(self, asked: Asked, owner: str) -> Reply:
        kind = asked.parameter("type")
        if kind not in _TYPES:
            return not_implemented("Unknown delegation type specified")
        where = asked.target.partition(b"?")[0]
        if kind == "jwt":
            token = asked.header(b"x-token-delegation")
            if token is None:
                return not_implemented("Missing X-Token-Delegation header in delegation request")
            id_ = self._delegations.new_token(owner, token.encode("latin-1"))
            return Reply(201, "Created", b"", [_location(where, id_)])
        id_, request = self._delegations.new(owner)
        return Reply(201, "Created", request, [_PEM, _location(where, id_)])

    async def _put(self, asked: Asked, id_: str) -> Reply:
        owner = asked.permitted(Permission.CREATE).owner
        chain = await asked.body(_CHAIN_BYTES)
        if not chain:
            return Reply(500, "Missing payload")
        if not self._delegations.put(owner, id_, chain):
            return Reply(500, "Failed accepting delegation")
        return Reply(200, "OK")

    def _get(self, asked: Asked, id_: str) -> Reply:
        owner = asked.permitted(Permission.INFO).owner
        found = self._delegations.of(owner).get(id_)
        if found is None:
            return Reply(404, "No delegation found")
        return Reply(200, "OK", b"\n" if found.content is None else found.content, [_PEM])

    def _renew(self, asked: Asked, id_: str) -> Reply:
        owner = asked.permitted(Permission.CREATE).owner
        found = self._delegations.of(owner).get(id_)
        if found is None and Trap.RENEW_MAKES_DELEGATION not in self._traps:
            return Reply(404, "No such delegation")
        is_token = found is not None and found.key is None
        if is_token and Trap.RENEW_DESTROYS_TOKEN not in self._traps:
            return Reply(409, "A token is not renewed")
        return Reply(201, "Created", self._delegations.renew(owner, id_), [_PEM])

    def _delete(self, asked: Asked, id_: str) -> Reply:
        owner = asked.permitted(Permission.DELETE).owner
        if id_ not in self._delegations.of(owner):
            return Reply(404, "No such delegation")
        stays = Trap.USED_DELEGATION_STAYS in self._traps
        if stays and self._world.is_locked(owner, id_):
            return Reply(500, "Failed deleting delegation")
        self._delegations.delete(owner, id_)
        return Reply(202, "Accepted")


def _location(where: bytes, id_: str) -> tuple[bytes, bytes]:
    return b"location", where + b"/" + id_.encode()
