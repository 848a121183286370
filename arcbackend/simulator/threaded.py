"""A simulated CE that runs in a thread of its own, for programs that are not written for trio."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import trio

from arcbackend.backend import ARCBackend
from arcbackend.config import ARCConfig
from arcbackend.credentials import CredentialSet
from arcbackend.simulator.settings import SimulatorSettings
from arcbackend.simulator.simulator import Simulator

__all__ = ["ThreadedSimulator", "simulator_in_thread"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


class ThreadedSimulator:
    """A `Simulator` on a loopback port that may be used from any thread, and any event loop.

    Attributes:
        endpoint: ``https://localhost:port``.
        ca_file: PEM file of the authority that its certificate is of.
        settings: what it was started with.
    """

    def __init__(
        self, simulator: Simulator, token: trio.lowlevel.TrioToken, timeout: float
    ) -> None:
        self._simulator = simulator
        self._timeout = timeout
        self._trio_token = token
        self.endpoint: str = simulator.endpoint
        self.ca_file: Path = simulator.ca_file
        self.settings: SimulatorSettings = simulator.settings

    def __repr__(self) -> str:
        """Its endpoint."""
        return f"<ThreadedSimulator {self.endpoint}>"

    def call(self, do: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Call something in the simulator's thread, between two of its answers.

        That is the way to whatever belongs to it: ``ce.call(ce.simulator.batch.hold, local)``.
        """
        answer: Future[_R] = Future()

        def here() -> None:
            try:
                answer.set_result(do(*args, **kwargs))
            except BaseException as error:
                answer.set_exception(error)

        # Not `trio.from_thread`, which refuses a caller that runs under trio itself.
        self._trio_token.run_sync_soon(here)
        return answer.result(self._timeout)

    @property
    def simulator(self) -> Simulator:
        """The simulator itself: to be used through `call` only."""
        return self._simulator

    def token(self, subject: str = "user", **what: Any) -> str:
        """A fresh bearer token; arguments as of `Simulator.token`."""
        return self.call(self._simulator.token, subject, **what)

    def proxy(self, subject: str = "user", **what: Any) -> bytes:
        """A fresh proxy (PEM, with its key and chain); arguments as of `Simulator.proxy`."""
        return self.call(self._simulator.proxy, subject, **what)

    def credentials(self, subject: str = "user", **what: Any) -> CredentialSet:
        """What this CE lets in; arguments as of `Simulator.credentials`."""
        return self.call(self._simulator.credentials, subject, **what)

    def config(self, **settings: Any) -> ARCConfig:
        """A configuration that reaches it, with further settings of `ARCConfig`."""
        return self._simulator.config(**settings)

    def backend(self, credentials: CredentialSet | None = None, **settings: Any) -> ARCBackend:
        """A backend for it, to be used under trio as any other."""
        return self._simulator.backend(credentials or self.credentials(), **settings)

    def publish(self) -> None:
        """Run the information provider, which the CE does by itself every now and then."""
        self.call(self._simulator.publish)


@contextmanager
def simulator_in_thread(
    port: int = 0, *, timeout: float = 60.0, **settings: Any
) -> Iterator[ThreadedSimulator]:
    """Start a simulated CE on a loopback port, and stop it at the end.

    Args:
        port: 0: a free one.
        timeout: seconds for its start, and for each call.
        settings: as of `SimulatorSettings`.

    Raises:
        ConfigurationError: a setting is wrong.
        OSError: the port is taken.
    """
    started: queue.SimpleQueue[ThreadedSimulator | BaseException] = queue.SimpleQueue()
    scope = trio.CancelScope()

    async def serve() -> None:
        with scope:
            async with Simulator.serving(port=port, **settings) as simulator:
                started.put(
                    ThreadedSimulator(simulator, trio.lowlevel.current_trio_token(), timeout)
                )
                await trio.sleep_forever()

    def run() -> None:
        try:
            trio.run(serve)
        except BaseException as error:
            started.put(error)

    thread = threading.Thread(target=run, name="arcbackend-simulator", daemon=True)
    thread.start()
    first = started.get(timeout=timeout)
    if isinstance(first, BaseException):
        raise first
    try:
        yield first
    finally:
        with suppress(trio.RunFinishedError):
            first.call(scope.cancel)
        thread.join()
        if not started.empty():
            late = started.get()
            assert isinstance(late, BaseException)
            raise late
