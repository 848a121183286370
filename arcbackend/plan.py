"""What a submission will ask of the CE: checked and cut into requests, without I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from arcbackend.config import Batches
from arcbackend.errors import ConfigurationError, SubmissionRefused
from arcbackend.models import CopyVars, SubmissionSpec
from arcbackend.protocol.description import (
    activities,
    activity,
    check_environment,
    check_files,
    check_size,
    check_spec,
)
from arcbackend.protocol.messages import Request
from arcbackend.protocol.requests import RequestBuilder

__all__ = ["Chunk", "Plan", "copy_index"]

_NO_VARS = CopyVars()
_MAX_SECRET_BYTES = 2**20
_INDEX = re.compile(r"[0-9]{1,9}")


def copy_index(submission: str, job_name: str) -> int | None:
    """The copy index that a job's name tells; None if the submission's copies share one name."""
    tail = job_name.removeprefix(f"{submission}.")
    return int(tail) if tail != job_name and _INDEX.fullmatch(tail) else None


@dataclass(frozen=True, slots=True)
class Chunk:
    """One request for new jobs.

    Attributes:
        request: the request.
        copies: the copy indexes that it asks for, in the order of the answer.
        alike: whether it is one description, so that it does not matter which copy is which.
    """

    request: Request
    copies: Sequence[int]
    alike: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked submission.

    Attributes:
        spec: what to submit.
        name: the job name that nothing else bears; where copies differ, copy ``i`` is
            ``<name>.<i>``.
        queue: queue for jobs whose spec names none.
        copies: what is particular to each copy; None: ``count`` like ones.
        count: how many copies.
    """

    spec: SubmissionSpec
    name: str
    queue: str | None
    count: int
    copies: Sequence[CopyVars] | None

    @classmethod
    def check(
        cls,
        spec: SubmissionSpec,
        count: int,
        copies: Sequence[CopyVars] | None,
        *,
        token: str,
        queue: str | None,
    ) -> Plan:
        """Check spec and copies.

        Args:
            spec: what to submit.
            count: how many like copies.
            copies: one job per element, instead of ``count``.
            token: makes the job name unique.
            queue: queue for jobs whose spec names none.

        Raises:
            ConfigurationError: count and copies do not go together.
            SubmissionRefused: ARC cannot honour the spec; names the field.
        """
        if copies is not None:
            if count not in (1, len(copies)):
                raise ConfigurationError("give either count or copies")
            count = len(copies)
        if count < 1:
            raise ConfigurationError("a submission has at least one copy")
        check_spec(spec)
        for index, particular in enumerate(copies or ()):
            _check_copy(spec, particular, f"copies[{index}]")
        return cls(spec, f"{spec.tag or 'arcbackend'}-{token}", queue, count, copies)

    def vars_of(self, copy: int) -> CopyVars:
        """What is particular to a copy."""
        return self.copies[copy] if self.copies is not None else _NO_VARS

    def name_of(self, copy: int) -> str:
        """The name of a copy's job if copies differ, else the name that all share."""
        return self.name if self.copies is None else f"{self.name}.{copy}"

    def chunks(
        self, builder: RequestBuilder, batches: Batches, delegation: str | None = None
    ) -> Iterator[Chunk]:
        """The requests, in order, made when they are wanted.

        Args:
            builder: makes them.
            batches: how much goes into one.
            delegation: id of the delegation that the jobs use.
        """
        if self.copies is None and builder.version != "1.0":
            return self._by_instances(builder, batches, delegation)
        return self._by_descriptions(builder, batches, delegation)

    def _by_instances(
        self, builder: RequestBuilder, batches: Batches, delegation: str | None
    ) -> Iterator[Chunk]:
        body = self._describe(None)
        for start in range(0, self.count, batches.instances):
            copies = range(start, min(start + batches.instances, self.count))
            request = builder.new_jobs(
                body,
                language="adl",
                copies=len(copies),
                instances=len(copies) if len(copies) > 1 else None,
                # Some are better than none: those that are missing become failures.
                instances_min=1 if len(copies) > 1 else None,
                delegation=delegation,
            )
            yield Chunk(request, copies, alike=True)

    def _by_descriptions(
        self, builder: RequestBuilder, batches: Batches, delegation: str | None
    ) -> Iterator[Chunk]:
        # REST 1.0 has no parameter for it.
        within, beside = (delegation, None) if builder.version == "1.0" else (None, delegation)
        bodies: list[bytes] = []
        start = size = 0
        for copy in range(self.count):
            body = self._describe(copy, within)
            full = (
                size + len(body) > batches.description_bytes or len(bodies) == batches.descriptions
            )
            if bodies and full:
                yield self._chunk(builder, bodies, start, beside)
                bodies, start, size = [], copy, 0
            bodies.append(body)
            size += len(body)
        yield self._chunk(builder, bodies, start, beside)

    def _chunk(
        self, builder: RequestBuilder, bodies: Sequence[bytes], start: int, delegation: str | None
    ) -> Chunk:
        request = builder.new_jobs(
            activities(bodies), language="adl", copies=len(bodies), delegation=delegation
        )
        return Chunk(request, range(start, start + len(bodies)), alike=False)

    def _describe(self, copy: int | None, delegation: str | None = None) -> bytes:
        particular = _NO_VARS if copy is None else self.vars_of(copy)
        return activity(
            self.spec,
            name=self.name if copy is None else self.name_of(copy),
            queue=self.spec.resources.queue or self.queue,
            environment={**self.spec.environment, **particular.environment},
            secrets=tuple(particular.secrets),
            delegation=delegation,
        )


def _check_copy(spec: SubmissionSpec, particular: CopyVars, field: str) -> None:
    if particular.environment:
        where = f"{field}.environment"
        check_environment(particular.environment, where)
        check_size(spec, {**spec.environment, **particular.environment}, where)
    if particular.secrets:
        check_files(spec, {name: f"{field}.secrets[{name!r}]" for name in particular.secrets})
    for name, secret in particular.secrets.items():
        where = f"{field}.secrets[{name!r}]"
        if len(secret) > _MAX_SECRET_BYTES:
            raise SubmissionRefused(
                f"has {len(secret)} bytes; a secret has at most {_MAX_SECRET_BYTES}", field=where
            )
