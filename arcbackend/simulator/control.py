"""The simulator's own interface, under ``/simulator/``: what a real CE's administrator would do.

JSON in, JSON out. Whoever can reach the port may use it, so it is for this machine only.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias, TypeVar

from pydantic import Field
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from arcbackend.errors import ConfigurationError
from arcbackend.models import QueueName, Value
from arcbackend.simulator.authority import Authority
from arcbackend.simulator.batch import BatchError, Foreign
from arcbackend.simulator.descriptions import BodyRefused, Description, parse
from arcbackend.simulator.fault_rules import Fault
from arcbackend.simulator.faults import Faults
from arcbackend.simulator.traps import TRAPS
from arcbackend.simulator.world import JobRefused, World
from arcbackend.validation import validated

__all__ = ["ROOT", "control_app"]

ROOT = "/simulator"

_BODY_BYTES = 2**20
_MOST_AT_ONCE = 10_000_000
_M = TypeVar("_M", bound=Value)
_Answer: TypeAlias = Callable[[Request], Awaitable[Response]]

_TRUE = (
    '<ActivityDescription xmlns="http://www.eu-emi.eu/es/2010/12/adl"><Application><Executable>'
    "<Path>/bin/true</Path></Executable></Application></ActivityDescription>"
)


class _Nothing(Value):
    """No argument."""


class NewJobs(Value):
    """Jobs that are made all at once, without a submission."""

    count: int = Field(default=1, ge=1, le=_MOST_AT_ONCE)
    """How many."""
    subject: str = Field(default="user", min_length=1, max_length=200)
    """Whose: the subject of a token."""
    owner: str | None = Field(default=None, min_length=1, max_length=1000)
    """Whose, in A-REX's words, instead of ``subject``."""
    description: str = _TRUE
    """What they do, in ADL or xRSL."""
    queue: QueueName | None = None
    """For a description that names none."""
    tell: bool = False
    """Whether the answer has their ids."""


class NewToken(Value):
    """A token; see `Authority.token`."""

    subject: str = Field(default="user", min_length=1, max_length=200)
    scopes: tuple[str, ...] | None = None
    lifetime: float = Field(default=36_000, allow_inf_nan=False)
    audience: str | None = "arc"


class NewProxy(Value):
    """A proxy; see `Authority.proxy`."""

    user: str = Field(default="user", pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,59}$")
    lifetime: float = Field(default=36_000, ge=-1e8, le=1e8, allow_inf_nan=False)
    limited: bool = False


class _ForeignJob(Value):
    """A job that does not come through the CE."""

    cpus: int = Field(default=1, ge=1)
    queue: QueueName | None = None


class _Restart(Value):
    """A restart of A-REX."""

    keep: bool = True
    """Whether it still knows its jobs."""


class _Skew(Value):
    """The CE's clock."""

    skew: float = Field(ge=-1e9, le=1e9, allow_inf_nan=False)
    """How far it is ahead, in seconds."""


def control_app(
    world: World,
    faults: Faults,
    authority: Authority,
    *,
    restart: Callable[[bool], None],
    drop: Callable[[], None],
) -> Starlette:
    """The application.

    Args:
        world: the CE.
        faults: what goes wrong with it.
        authority: whom it believes.
        restart: lets A-REX start anew; its argument tells whether it keeps its jobs.
        drop: closes all connections, which belongs to that, but waits for the answer.
    """
    control = _Control(world, faults, authority, restart, drop)
    routes = [
        ("GET", "/", control.told),
        ("GET", "/jobs", control.counts),
        ("POST", "/jobs", control.new_jobs),
        ("POST", "/jobs/{local}/{verb}", control.batch_job),
        ("POST", "/publish", control.publish),
        ("GET", "/faults", control.faults_told),
        ("POST", "/faults", control.new_fault),
        ("DELETE", "/faults", control.no_faults),
        ("DELETE", "/faults/{number:int}", control.no_fault),
        ("POST", "/batch/open", control.batch_open),
        ("POST", "/batch/close", control.batch_close),
        ("POST", "/batch/clear", control.batch_clear),
        ("POST", "/batch/foreign", control.new_foreign),
        ("DELETE", "/batch/foreign", control.no_foreign),
        ("POST", "/restart", control.restart),
        ("GET", "/time", control.time),
        ("POST", "/time", control.skew),
        ("POST", "/token", control.token),
        ("POST", "/proxy", control.proxy),
        ("GET", "/jwks", control.jwks),
        ("GET", "/traps", control.traps),
    ]
    return Starlette(
        routes=[
            Route(f"{ROOT}{path}", answer, methods=[method]) for method, path, answer in routes
        ],
        exception_handlers={HTTPException: _complain},
    )


class _Control:
    """What can be asked."""

    def __init__(
        self,
        world: World,
        faults: Faults,
        authority: Authority,
        restart: Callable[[bool], None],
        drop: Callable[[], None],
    ) -> None:
        self._world = world
        self._faults = faults
        self._authority = authority
        self._restart = restart
        self._drop = drop
        self._foreign: list[Foreign] = []

    async def told(self, _request: Request) -> Response:
        """What the CE is like."""
        return JSONResponse(self._world.settings.model_dump(mode="json"))

    async def counts(self, _request: Request) -> Response:
        """How many jobs there are, by state."""
        return JSONResponse(dict(self._world.counts()))

    async def new_jobs(self, request: Request) -> Response:
        """Make many jobs."""
        asked = await _read(request, NewJobs)
        try:
            (found,) = parse(asked.description.encode())
        except (BodyRefused, ValueError) as error:
            raise HTTPException(400, f"description: {error}") from None
        if not isinstance(found, Description):
            raise HTTPException(400, f"description: {found.reason}")
        owner = asked.owner or f"{self._authority.issuer}/{asked.subject}"
        try:
            jobs = self._world.create_copies(asked.count, owner, found, queue=asked.queue)
        except JobRefused as refused:
            raise HTTPException(409, refused.reason) from None
        ids = {"ids": [job.local for job in jobs]} if asked.tell else {}
        return JSONResponse({"owner": owner, "count": len(jobs), **ids}, 201)

    async def batch_job(self, request: Request) -> Response:
        """Do something to a job in the batch system."""
        batch = self._world.batch
        verbs = {
            "suspend": batch.suspend,
            "resume": batch.resume,
            "hold": batch.hold,
            "release": batch.release,
            "cancel": batch.cancel,
        }
        verb = verbs.get(request.path_params["verb"])
        if verb is None:
            raise HTTPException(404, f"only {', '.join(verbs)}")
        try:
            verb(request.path_params["local"])
        except BatchError as error:
            raise HTTPException(409, str(error)) from None
        return Response(status_code=204)

    async def publish(self, _request: Request) -> Response:
        """Run the information provider."""
        self._world.publish()
        return Response(status_code=204)

    async def faults_told(self, _request: Request) -> Response:
        """The faults, and what has come of them."""
        return JSONResponse(self._faults.told())

    async def new_fault(self, request: Request) -> Response:
        """Add a fault."""
        return JSONResponse({"number": self._faults.add(await _read(request, Fault))}, 201)

    async def no_faults(self, _request: Request) -> Response:
        """Remove all faults."""
        self._faults.clear()
        return Response(status_code=204)

    async def no_fault(self, request: Request) -> Response:
        """Remove a fault."""
        try:
            self._faults.remove(request.path_params["number"])
        except KeyError:
            raise HTTPException(404, "there is no such fault") from None
        return Response(status_code=204)

    async def batch_open(self, _request: Request) -> Response:
        """Let jobs start again."""
        self._world.batch.open()
        return Response(status_code=204)

    async def batch_close(self, _request: Request) -> Response:
        """Start no job from now on."""
        self._world.batch.close()
        return Response(status_code=204)

    async def batch_clear(self, _request: Request) -> Response:
        """Remove every job from the batch system."""
        self._world.batch.clear()
        self._foreign.clear()
        return Response(status_code=204)

    async def new_foreign(self, request: Request) -> Response:
        """Have a job that has not come through the CE."""
        asked = await _read(request, _ForeignJob)
        self._foreign.append(self._world.batch.add_foreign(asked.cpus, asked.queue))
        return Response(status_code=204)

    async def no_foreign(self, _request: Request) -> Response:
        """Remove those that were made so."""
        while self._foreign:
            self._world.batch.remove_foreign(self._foreign.pop())
        return Response(status_code=204)

    async def restart(self, request: Request) -> Response:
        """Let A-REX start anew."""
        self._restart((await _read(request, _Restart)).keep)
        return Response(status_code=204, background=BackgroundTask(self._dropped))

    async def _dropped(self) -> None:
        self._drop()

    async def time(self, _request: Request) -> Response:
        """What the CE's clock shows."""
        return JSONResponse({"now": self._world.now()})

    async def skew(self, request: Request) -> Response:
        """Set how far it is ahead."""
        self._world.skew((await _read(request, _Skew)).skew)
        return JSONResponse({"now": self._world.now()})

    async def token(self, request: Request) -> Response:
        """A fresh token."""
        asked = await _read(request, NewToken)
        return JSONResponse({"token": self._authority.token(**dict(asked))}, 201)

    async def proxy(self, request: Request) -> Response:
        """A fresh proxy."""
        asked = await _read(request, NewProxy)
        return JSONResponse({"proxy": self._authority.proxy(**dict(asked)).decode()}, 201)

    async def jwks(self, _request: Request) -> Response:
        """The keys of the tokens."""
        return JSONResponse(self._authority.jwks)

    async def traps(self, _request: Request) -> Response:
        """What a real CE does that nobody expects, and whether this one does it."""
        return JSONResponse(
            [
                {
                    "trap": row.trap.value,
                    "on": row.trap in self._world.traps,
                    "fact": row.fact,
                    "instead": row.instead,
                    "source": row.source,
                    "versions": row.versions,
                    "batch_systems": row.batch_systems,
                }
                for row in TRAPS
            ]
        )


async def _read(request: Request, model: type[_M]) -> _M:
    """The argument in a body; none is an empty object."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _BODY_BYTES:
            raise HTTPException(413, f"more than {_BODY_BYTES} bytes")
    try:
        data = json.loads(body or b"{}")
    except ValueError:
        raise HTTPException(400, "this is no JSON") from None
    if not isinstance(data, Mapping):
        raise HTTPException(400, "this is no JSON object")
    try:
        return validated(model, data, "body")
    except ConfigurationError as error:
        raise HTTPException(400, error.message) from None


async def _complain(_request: Request, error: Any) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code)
