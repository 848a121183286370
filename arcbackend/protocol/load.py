"""How many jobs run and wait, as the CE's GLUE2 document tells it.

A-REX publishes one ComputingShare for each queue, and one more for each queue and VO that its
administrator advertises (``ARC1ClusterInfo.pm`` in A-REX's infoproviders). What the numbers mean:
docs/explanation/load.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from arcbackend.errors import ProtocolError
from arcbackend.protocol.messages import Operation, Response
from arcbackend.protocol.rendering import as_list
from arcbackend.protocol.responses import clean_text

__all__ = ["Share", "parse_shares"]

_NUMBER = re.compile(r"[0-9]{1,18}")
_LONGEST = 128
_VO_RULE = "vo:"


@dataclass(frozen=True, slots=True)
class Share:
    """One ComputingShare. A number is None where the CE does not publish it.

    Attributes:
        name: its name, unique on the CE.
        queue: the queue of the batch system that it submits to.
        vo: the VO whose jobs it counts; None: it counts all jobs of the queue.
        running: jobs that run, by the batch system.
        local_running: those among them that did not come through the CE.
        waiting: jobs that wait in the batch system.
        local_waiting: those among them that did not come through the CE.
        preparing: jobs that the CE has, and the batch system does not have yet.
        created: when the document was made, in the CE's words; None if it does not tell.
    """

    name: str
    queue: str
    vo: str | None = None
    running: int | None = None
    local_running: int | None = None
    waiting: int | None = None
    local_waiting: int | None = None
    preparing: int | None = None
    created: str | None = None


def parse_shares(response: Response, ce: str) -> tuple[Share, ...]:
    """Every share of the CE, by queue and name; none from a CE that has not published any yet.

    Raises:
        ProtocolError: it is no GLUE2 document, or it counts a queue twice.
    """
    body = response.body

    def broken(what: str) -> ProtocolError:
        return ProtocolError(what, ce=ce, operation=Operation.INFO.value, excerpt=body)

    # What A-REX answers before its information provider has run, or of a document it cannot read.
    if not body.strip():
        return ()
    try:
        document: Any = json.loads(body.decode("utf-8", "replace"))
        shares = [_share(node) for node in _nodes(document)]
    except RecursionError:
        raise broken("the information document is not JSON") from None
    except ValueError as error:
        what = "not JSON" if isinstance(error, json.JSONDecodeError) else f"no GLUE2: {error}"
        raise broken(f"the information document is {what}") from None
    found: dict[tuple[str, str], Share] = {}
    for share in shares:
        if found.setdefault((share.queue, share.vo or ""), share) is not share:
            raise broken(f"two shares count the jobs of queue {share.queue}")
    return tuple(sorted(found.values(), key=lambda share: (share.queue, share.vo or "")))


def _nodes(document: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(document, dict):
        raise ValueError("it is no object")
    for domain in _children(_child(document, "Domains"), "AdminDomain"):
        for service in _children(_child(domain, "Services"), "ComputingService"):
            yield from _children(service, "ComputingShare")


def _child(node: dict[str, Any], key: str) -> dict[str, Any]:
    """An element that is there once, or not at all: then it has nothing in it."""
    found = _children(node, key)
    if len(found) > 1:
        raise ValueError(f"there is more than one {key}")
    return found[0] if found else {}


def _children(node: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = as_list(node.get(key))
    if not all(isinstance(child, dict) for child in found):
        raise ValueError(f"{key} is no object")
    return found


def _share(node: dict[str, Any]) -> Share:
    name = _text(node, "Name")
    queue = _text(node, "MappingQueue") or name
    if not queue:
        raise ValueError("a share has neither a name nor a queue")
    return Share(
        name=name or queue,
        queue=queue,
        vo=_vo(node),
        running=_number(node, "RunningJobs"),
        local_running=_number(node, "LocalRunningJobs"),
        waiting=_number(node, "WaitingJobs"),
        local_waiting=_number(node, "LocalWaitingJobs"),
        preparing=_number(node, "PreLRMSWaitingJobs"),
        created=_text(_child(node, "_attributes"), "CreationTime"),
    )


def _vo(node: dict[str, Any]) -> str | None:
    """Whose jobs a share counts, by its mapping policy: A-REX's has one rule, ``vo:<name>``."""
    rules = [
        clean_text(rule.removeprefix(_VO_RULE), _LONGEST)
        for policy in _children(node, "MappingPolicy")
        for rule in as_list(policy.get("Rule"))
        if isinstance(rule, str)
    ]
    return ", ".join(rules[:10]) or None


def _text(node: dict[str, Any], key: str) -> str | None:
    found = node.get(key)
    if found is None or isinstance(found, str):
        return clean_text(found or "", _LONGEST) or None
    raise ValueError(f"{key} is no text")


def _number(node: dict[str, Any], key: str) -> int | None:
    """A number: A-REX writes it as text."""
    found = node.get(key)
    if found in (None, ""):
        return None
    if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 10**18:
        return found
    if isinstance(found, str) and _NUMBER.fullmatch(found):
        return int(found)
    raise ValueError(f"{key} is no number of jobs")
