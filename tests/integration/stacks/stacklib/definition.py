"""What a stack is made of: `<stack>/stack.toml`, what it is based on, and the files beside them."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from .errors import StackError

STACKS = Path(__file__).resolve().parents[1]
"""The folder that holds one folder for each stack."""


@dataclass(frozen=True)
class Definition:
    """One stack as its files describe it."""

    id: str
    base: str
    """The folder of what it shares with other stacks."""
    packages: tuple[str, ...]
    arc_package: str
    queues: tuple[str, ...]
    ports: tuple[str, ...]
    lrms: Mapping[str, str]
    """The section of this name in arc.conf."""
    ready_command: tuple[str, ...]
    ready_answer: str
    """What the batch system says to the command when it can run a job."""
    daemons: Mapping[str, str]
    """The name of each daemon and its pid file, in the order in which they start."""
    suites: Mapping[str, str]
    """The Debian suite that holds each version of the CE."""
    scopes_as_list: frozenset[str]
    """The versions whose tokens need their scopes as a list."""

    @classmethod
    def load(cls, stack_id: str) -> Self:
        """Read the stack's files, or say which stacks there are."""
        path = STACKS / stack_id / "stack.toml"
        if not path.is_file():
            known = ", ".join(sorted(p.parent.name for p in STACKS.glob("*/stack.toml")))
            raise StackError(f"no stack {stack_id!r}: {path} is missing. Stacks: {known}")
        own = _read(path)
        data = _merged(_read(STACKS / own["base"] / "base.toml"), own)
        return cls(
            id=stack_id,
            base=data["base"],
            packages=tuple(data["packages"]),
            arc_package=data["arc_package"],
            queues=tuple(data["queues"]),
            ports=tuple(data["ports"]),
            lrms=data["lrms"],
            ready_command=tuple(data["ready"]["command"]),
            ready_answer=data["ready"]["answer"],
            daemons={name: daemon["pidfile"] for name, daemon in data["daemons"].items()},
            suites=data["suites"],
            scopes_as_list=frozenset(data["tokens"]["scopes_as_list"]),
        )

    @property
    def folders(self) -> tuple[Path, Path]:
        """Where the stack's files are: those it shares, then its own, which go before them."""
        return STACKS / self.base, STACKS / self.id

    def suite(self, version: str) -> str:
        """Return the Debian suite that holds this version of the CE."""
        try:
            return self.suites[version]
        except KeyError:
            known = ", ".join(self.suites)
            raise StackError(f"{self.id} has no version {version!r}. Versions: {known}") from None

    def configuration(self, name: str) -> tuple[Path, ...]:
        """Return the folders of one configuration: `ce/` for the server, `client.toml`."""
        folders = [folder / "config" for folder in self.folders]
        found = tuple(folder / name for folder in folders if (folder / name).is_dir())
        if not found:
            known = ", ".join(sorted({path.name for each in folders for path in each.glob("*")}))
            raise StackError(f"{self.id} has no configuration {name!r}. Configurations: {known}")
        return found

    def auth(self, configuration: str) -> str:
        """Return what a configuration lets in: `token`, `proxy`, or `token+proxy`."""
        for folder in reversed(self.configuration(configuration)):
            if (path := folder / "client.toml").is_file():
                return str(_read(path)["auth"])
        raise StackError(f"configuration {configuration!r} has no client.toml")

    def check_daemon(self, name: str) -> None:
        """Raise unless the stack has a daemon of this name."""
        if name not in self.daemons:
            raise StackError(
                f"{self.id} has no daemon {name!r}. Daemons: {', '.join(self.daemons)}"
            )


def _read(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return tomllib.load(file)


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Join lists, the base's first, and tables, the own entries first; what is own holds."""
    merged = {**own, **{name: value for name, value in base.items() if name not in own}}
    for name in base.keys() & own.keys():
        if isinstance(own[name], list):
            merged[name] = [*base[name], *own[name]]
        elif isinstance(own[name], dict):
            merged[name] = _merged(base[name], own[name])
    return merged


def render(source: Path, target: Path, values: Mapping[str, str]) -> None:
    """Copy a tree of templates, or one, filling in ${name} for the names in `values` only."""

    def fill(match: re.Match[str]) -> str:
        return values.get(match[1], match[0])

    templates = (path for path in sorted(source.rglob("*")) if path.is_file())
    for template in (source,) if source.is_file() else templates:
        path = target / template.relative_to(source)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(re.sub(r"\$\{(\w+)\}", fill, template.read_text()))
        path.chmod(0o755 if template.stat().st_mode & 0o100 else 0o644)
