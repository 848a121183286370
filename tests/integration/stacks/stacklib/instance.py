"""One instance (stack, version, configuration) and where its state is kept."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import StackError


def cache_folder() -> Path:
    """Return the folder, outside the repository, that root file systems and states go to."""
    if chosen := os.environ.get("ARCBACKEND_STACKS"):
        return Path(chosen).resolve()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).resolve() / "arcbackend" / "stacks"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with this process, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class Instance:
    """One stack in one version and one configuration; at most one of each runs at a time."""

    stack: str
    version: str
    config: str

    @property
    def name(self) -> str:
        """Return the name in paths and messages."""
        return f"{self.stack}-{self.version}-{self.config}"

    @property
    def state(self) -> Path:
        """Return the folder of everything that this instance has of its own."""
        return states_folder() / self.name

    @property
    def document(self) -> Path:
        """Return the file that describes the running instance."""
        return self.state / "stack.json"

    @property
    def log(self) -> Path:
        """Return the folder of the daemons' logs, which outlives the instance."""
        return self.state / "log"

    @property
    def credentials(self) -> Path:
        """Return the folder of tokens, certificates and keys."""
        return self.state / "credentials"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every other start and stop of this instance waiting."""
        with locked(states_folder() / f"{self.name}.lock"):
            yield

    def describe(self) -> dict[str, Any]:
        """Return the description that `start` left."""
        try:
            description: dict[str, Any] = json.loads(self.document.read_text())
        except FileNotFoundError:
            raise StackError(
                f"{self.name} is not running: start it with 'stack start {self.stack}"
                f" --version {self.version} --config {self.config}'"
            ) from None
        return description


def states_folder() -> Path:
    """Return the folder that holds one state folder for each instance."""
    return cache_folder() / "run"
