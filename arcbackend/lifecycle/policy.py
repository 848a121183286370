"""Policies: what to do about held, lost and killed jobs, as files.

A policy does not act by itself: it decides which transitions of the machine exist
(``machines/job.toml``: ``when``, ``after``), and with what numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field

from arcbackend.errors import ConfigurationError
from arcbackend.jobids import canonical_endpoint
from arcbackend.models import JobStatus, Value
from arcbackend.validation import read_toml, validated

__all__ = ["HoldPolicy", "KillPolicy", "LostPolicy", "OutputPolicy", "Policy", "PurgePolicy"]

_Seconds = Annotated[float, Field(ge=0, le=31_622_400, allow_inf_nan=False)]
# TOML has no null: in a file it is "never".
_SecondsOrNever = Annotated[
    _Seconds | None, BeforeValidator(lambda value: None if value == "never" else value)
]
_SHIPPED = resources.files("arcbackend.machines") / "policies"


class HoldPolicy(Value):
    """Held jobs."""

    action: Literal["report", "ask", "kill", "kill-and-purge"] = "report"
    """What is done about a job that has been held for ``grace``. ``report``: nothing; ``ask``: the
    event with the state ``awaiting`` asks for the consumer's `Poller.kill` or `Poller.keep`;
    ``kill``; ``kill-and-purge``: killed, and removed when dead (not if it ended by itself)."""
    grace: _Seconds = 3600.0
    """Seconds that a job must have been held. Released in time, it begins anew."""
    other_after: _SecondsOrNever = None
    """A job that is OTHER for so many seconds counts as held: ARC publishes most held jobs so.
    None (in a file: ``"never"``): it never does."""
    report_as: Literal[JobStatus.HELD, JobStatus.RUNNING, JobStatus.WAITING] = JobStatus.HELD
    """`JobStatus` of a held job in events."""
    max_kills: int = Field(default=10, ge=1)
    """Kills of held jobs in one ``cycle``, at most; the others wait for the next. A batch system
    that suspends everything for an hour must not lose every job."""
    cycle: _Seconds = 600.0
    """Seconds of a cycle."""


class KillPolicy(Value):
    """Jobs that are being killed."""

    repeat_after: _SecondsOrNever = 300.0
    """A job that is not over so many seconds after its kill is killed again: A-REX can lose a kill.
    None (in a file: ``"never"``): it is not."""
    attempts: int = Field(default=5, ge=1)
    """How often it is killed again, at most."""


class PurgePolicy(Value):
    """Purge."""

    active: Literal["refuse", "kill"] = "refuse"
    """A job that is not over: ``refuse``; or ``kill`` it first, and remove it when it is over."""


class OutputPolicy(Value):
    """Retrieval of outputs."""

    needs: Literal["over", "batch", "nothing"] = "over"
    """How far a job must have come: ``over``; ``batch``: to the batch system; or ``nothing``."""


class LostPolicy(Value):
    """Jobs that the CE does not know, or calls WIPED; it does, of living ones too, for moments."""

    looks: int = Field(default=3, ge=1)
    """Looks in a row that must agree before a job is declared lost or expired."""
    after: _Seconds = 60.0
    """Seconds that must lie between the first of them and the last."""


class Policy(Value):
    """What to do about held, lost and killed jobs, about outputs and removal.

    The default reports held jobs, and kills nothing.
    """

    name: str = Field(default="default", pattern=r"^[\w .-]{1,64}$")
    """Shown in diagrams and logs."""
    hold: HoldPolicy = HoldPolicy()
    """Held jobs."""
    kill: KillPolicy = KillPolicy()
    """Jobs that are being killed."""
    purge: PurgePolicy = PurgePolicy()
    """Purge."""
    output: OutputPolicy = OutputPolicy()
    """Retrieval of outputs."""
    lost: LostPolicy = LostPolicy()
    """Jobs unknown to the CE."""
    ce: Mapping[Annotated[str, AfterValidator(canonical_endpoint)], Mapping[str, Any]] = Field(
        default_factory=dict
    )
    """CE's address (``https://host:port``) → sections with what differs there."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Validate a policy read elsewhere.

        Raises:
            ConfigurationError: naming each field at fault.
        """
        policy = validated(cls, data, "policy")
        for endpoint in policy.ce:
            try:
                policy.for_ce(endpoint)
            except ConfigurationError as error:
                raise ConfigurationError(f"ce.{endpoint}: {error.message}") from None
        return policy

    @classmethod
    def load(cls, source: Policy | Path | str) -> Policy:
        """The policy in a TOML file, or a shipped one by its name.

        Args:
            source: a policy, which is returned; the path of a file; or one of `shipped()`.

        Raises:
            ConfigurationError: the file cannot be read, is not TOML, or names each field at fault.
        """
        if isinstance(source, Policy):
            return source
        if source in cls.shipped():
            return read_toml(_SHIPPED / f"{source}.toml", "policy", cls.from_dict)
        if not Path(source).exists():
            raise ConfigurationError(
                f"no policy {source}: neither a file nor one of {', '.join(cls.shipped())}"
            )
        return read_toml(Path(source), "policy", cls.from_dict)

    @staticmethod
    def shipped() -> tuple[str, ...]:
        """Names of the policies that ship."""
        return tuple(
            sorted(
                entry.name.removesuffix(".toml")
                for entry in _SHIPPED.iterdir()
                if entry.name.endswith(".toml")
            )
        )

    def for_ce(self, endpoint: str) -> Policy:
        """This policy with what it says of one CE in particular.

        Raises:
            ConfigurationError: what it says of that CE is no policy.
        """
        particular = self.ce.get(endpoint)
        if particular is None:
            return self
        if "ce" in particular:
            raise ConfigurationError("ce: not within a CE's own section")
        merged = self.model_dump(exclude={"ce"})
        for section, fields in particular.items():
            both = isinstance(fields, Mapping) and isinstance(merged.get(section), dict)
            merged[section] = {**merged[section], **fields} if both else fields
        return Policy.from_dict(merged)

    def reported(self, status: JobStatus) -> JobStatus:
        """What a status is called in events."""
        return self.hold.report_as if status is JobStatus.HELD else status

    def settings(self) -> Iterator[tuple[str, Any]]:
        """Every field of every section, named as in ``hold.grace``, and its value."""
        for section, fields in self.model_dump(exclude={"name", "ce"}).items():
            for name, value in fields.items():
                yield f"{section}.{name}", value

    def value(self, path: str) -> Any:
        """The value of a field, named as in ``hold.grace``."""
        section, name = path.split(".")
        return getattr(getattr(self, section), name)
