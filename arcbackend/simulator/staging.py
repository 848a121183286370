"""Inputs that a simulated CE really fetches, and outputs that it really stores, by HTTP.

Only where jobs are really executed. It is done as A-REX does it (data staging, DTR): what a server
denies fails at once, and one that is away is tried ten times.
"""

from __future__ import annotations

import errno
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from typing import Final
from urllib.parse import urlsplit

import trio

from arcbackend.simulator.jobs import Job
from arcbackend.simulator.session_directory import (
    NotDone,
    NotFound,
    SessionDirectory,
    Slice,
    WrongPath,
)

__all__ = ["HttpStager"]

_TRIES: Final = 10  # maxtransfertries of [arex/data-staging]
_FIRST_PAUSE: Final = 10.0  # s; then four times, nine times … that
_TIMEOUT: Final = 30.0  # s, of one read or write
_AT_A_TIME: Final = 10
_DENIED: Final = {
    HTTPStatus.NOT_FOUND: errno.ENOENT,
    HTTPStatus.GONE: errno.ENOENT,
    HTTPStatus.UNAUTHORIZED: errno.EACCES,
    HTTPStatus.FORBIDDEN: errno.EACCES,
}
_FETCHING = "Failed in data staging: Failed checking source replica {}: Failed to obtain "
_FETCHING += "information about file: {}\n"
_STORING = "Failed in data staging: Failed to prepare destination {}: {}\n"


class _Denied(Exception):  # noqa: N818 - it is an answer
    """There is no sense in trying again."""


class HttpStager:
    """Moves files between session directories and web servers.

    Args:
        start_soon: starts a task in the simulator's nursery.
        session: a job's session directory.
    """

    def __init__(
        self, start_soon: Callable[..., None], session: Callable[[Job], SessionDirectory]
    ) -> None:
        self._start_soon = start_soon
        self._session = session
        self._threads = trio.CapacityLimiter(_AT_A_TIME)

    def fetch(self, job: Job, done: Callable[[str | None], None]) -> None:
        """Fetch a job's inputs, and then tell what it failed of; None: it did not."""
        moves = [
            (_FETCHING, one.source, partial(self._get, job, one.name, one.source))
            for one in job.description.inputs
            if one.source is not None
        ]
        self._start_soon(self._move, job, moves, done)

    def store(self, job: Job, done: Callable[[str | None], None]) -> None:
        """Store a job's outputs that have a destination; otherwise as `fetch`."""
        moves = [
            (_STORING, one.target, partial(self._put, job, one.name, one.target))
            for one in job.description.outputs
            if one.target is not None and not one.name.endswith("/")
        ]
        self._start_soon(self._move, job, moves, done)

    async def _move(
        self,
        job: Job,
        moves: Sequence[tuple[str, str, Callable[[], None]]],
        done: Callable[[str | None], None],
    ) -> None:
        turn = job.turn
        for words, url, move in moves:
            failure = await self._one(job, turn, move)
            if job.turn != turn:  # it was killed meanwhile
                return
            if failure is not None:
                done(words.format(url, failure))
                return
        done(None)

    async def _one(self, job: Job, turn: int, move: Callable[[], None]) -> str | None:
        """Move one file; tells what it failed of."""
        failure = ""
        for attempt in range(1, _TRIES + 1):
            try:
                await trio.to_thread.run_sync(move, abandon_on_cancel=True, limiter=self._threads)
            except _Denied as denied:
                return str(denied)
            except OSError as error:
                failure = os.strerror(error.errno or errno.EIO)
            except (NotDone, NotFound, WrongPath):
                return os.strerror(errno.EIO)
            else:
                return None
            await trio.sleep(_FIRST_PAUSE * attempt**2)
            if job.turn != turn:
                return None
        return failure

    def _get(self, job: Job, name: str, url: str) -> None:
        asked = urllib.request.Request(_checked(url))  # noqa: S310 - it is checked
        with _opened(asked) as answer:
            self._session(job).copy_in(name, answer.read)

    def _put(self, job: Job, name: str, url: str) -> None:
        found = self._session(job).get(os.fsencode(name))
        if not isinstance(found, Slice):
            raise NotFound
        headers = {"Content-Length": str(found.part.length)}
        asked = urllib.request.Request(  # noqa: S310 - it is checked
            _checked(url), found.chunks(), headers, method="PUT"
        )
        with _opened(asked):
            pass


def _checked(url: str) -> str:
    """Refuse what is no web address, which `urllib` may open as well."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise _Denied("Could not handle endpoint")
    return url


def _opened(asked: urllib.request.Request) -> HTTPResponse:
    """Ask a web server, through no proxy, which a CE does not have either."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        answer: HTTPResponse = opener.open(asked, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise OSError(errno.EIO, "") from None
        why = os.strerror(_DENIED.get(HTTPStatus(error.code), errno.EIO))
        raise _Denied(f"{why}: {error.reason}") from None
    except urllib.error.URLError as error:
        number = error.reason.errno if isinstance(error.reason, OSError) else None
        raise OSError(number if number and number > 0 else errno.EIO, "") from None
    except HTTPException:
        raise OSError(errno.EIO, "") from None
    return answer
