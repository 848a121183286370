"""The simulated CE as tests see it: jobs really run, on this machine."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, ParamSpec, TypeVar, Unpack

from arcbackend.simulator.settings import Pace
from arcbackend.simulator.threaded import ThreadedSimulator, simulator_in_thread
from tests.integration.batch import Batch
from tests.integration.ce import CE, Instance, ProxyTraits

_P = ParamSpec("_P")
_R = TypeVar("_R")

# Where a real CE looks only every now and then, this one looks sooner. What a state must last for
# clients to see it is as it is there: the documents are as old.
PACE = Pace(fetch=0.2, submit=0.1, notice=0.3, upload=0.2, kill=0.7, schedule=0.1)


class SimulatedCE(CE):
    """A simulator in a thread of its own, with the settings that an instance's name tells."""

    def __init__(self, instance: Instance) -> None:
        super().__init__()
        self._stack = ExitStack()
        self.instance = instance
        self.auth = instance.config
        # As the stacks have them.
        queues = ("main", "other") if instance.simulates == "slurm" else ("condor",)
        self.queue = queues[0]
        self.simulator: ThreadedSimulator = self._stack.enter_context(
            simulator_in_thread(
                arc_version=instance.version,
                lrms=instance.simulates,
                auth=tuple(instance.config.split("+")),
                token_scopes="wlcg",
                audiences=("arc", "{endpoint}"),
                execution="local",
                queues=queues,
                pace=PACE,
            )
        )
        self.endpoint = self.simulator.endpoint
        self.arc_version = f"{instance.version} (simulated)"
        self.ca_file = self.simulator.ca_file
        self.session_directory = str(self.call(lambda: self.world.sessions))
        self.batch = SimulatedBatch(self)

    @property
    def world(self) -> Any:
        """What is behind the simulator's interface; to be used through `call`."""
        return self.simulator.simulator.world

    def call(self, do: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """In the simulator's thread."""
        return self.simulator.call(do, *args, **kwargs)

    def stop(self) -> None:
        self._stack.close()

    def run(self, *command: str) -> str:
        return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.decode()

    def publish(self) -> None:
        self.simulator.publish()

    def finished_at(self, local: str) -> float:
        finished: float = self.call(lambda: self.world.job(local).finished)
        return finished

    def records(self, local: str) -> str:
        def read() -> str:
            job = self.world.job(local)
            told = {name: getattr(job, name) for name in job.__slots__}
            return repr({**told, "published": None, "published_at": None})

        return self.call(read)

    @contextmanager
    def limited_to(self, *, jobs: int) -> Iterator[None]:
        self.call(self.world.limit, jobs)
        try:
            yield
        finally:
            self.call(self.world.limit, None)

    def token(
        self,
        subject: str = "test-user",
        scopes: Sequence[str] | None = None,
        lifetime: float = 36_000,
        audience: str | None = None,
    ) -> str:
        return self.simulator.token(subject, scopes=scopes, lifetime=lifetime, audience=audience)

    def proxy(
        self,
        user: str = "test-user",
        lifetime: float = 36_000,
        **traits: Unpack[ProxyTraits],
    ) -> bytes:
        traits.setdefault("key", "rsa")  # as the stacks' are
        return self.simulator.proxy(user, lifetime=lifetime, **traits)

    def subject(self, user: str) -> str:
        return self.call(self.simulator.simulator.subject, user)


class SimulatedBatch(Batch):
    """The simulator's batch system, each verb called where it belongs."""

    def __init__(self, ce: SimulatedCE) -> None:
        self._ce = ce

    def _do(self, verb: str, *args: Any) -> Any:
        return self._ce.call(lambda: getattr(self._ce.world.batch, verb)(*args))

    @contextmanager
    def _meanwhile(self, verb: str, *args: Any) -> Iterator[None]:
        state = self._do(verb, *args)
        self._ce.call(state.__enter__)
        try:
            yield
        finally:
            self._ce.call(state.__exit__, None, None, None)

    def jobs(self) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = self._do("jobs")
        return found

    def closed(self) -> AbstractContextManager[None]:
        return self._meanwhile("closed")

    def foreign(self, cpus: int) -> AbstractContextManager[None]:
        return self._meanwhile("foreign", cpus)

    def inactive(self, queue: str) -> AbstractContextManager[None]:
        return self._meanwhile("inactive", queue)

    def cancel(self, id_: str) -> None:
        self._do("cancel", id_)

    def clear(self) -> None:
        self._do("clear")

    def end_time(self, id_: str) -> None:
        self._do("end_time", id_)

    def fail_node(self) -> None:
        self._do("fail_node")

    def suspend(self, id_: str) -> None:
        self._do("suspend", id_)

    def resume(self, id_: str) -> None:
        self._do("resume", id_)

    def hold(self, id_: str) -> None:
        self._do("hold", id_)

    def release(self, id_: str) -> None:
        self._do("release", id_)
