"""The public values: what goes into a verb and what comes out.

All are frozen pydantic models; unknown fields are refused. Durations are seconds, sizes bytes
(memory: MiB, as the field's name says), times timezone-aware UTC.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NewType

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretBytes,
    field_serializer,
)

__all__ = [
    "CopyVars",
    "Diagnostics",
    "FileRef",
    "FileTail",
    "JobHandle",
    "JobID",
    "JobOutput",
    "JobStatus",
    "OpOutcome",
    "OutputMember",
    "OutputSpec",
    "RefusedMember",
    "Resources",
    "Submission",
    "SubmissionSpec",
]

JobID = NewType("JobID", str)
"""The canonical string form of a job's identity: ``https://host:port/arex/rest/1.0/jobs/<id>``."""


class Value(BaseModel):
    """Base of the public values."""

    # Inputs are hidden in validation errors: they may be secrets.
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True
    )


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character, which no process argument or file name can")
    return text


_Text = Annotated[str, AfterValidator(_no_nul)]

QueueName = Annotated[str, Field(pattern=r"^[!-~]{1,128}$")]
"""Name of a queue on a CE."""


class JobStatus(StrEnum):
    """A job's status as a WMS sees it. What ARC state means which: docs/reference/states.md."""

    WAITING = "waiting"
    """Known to the CE, not started: being accepted, staged in, submitted or queued."""
    RUNNING = "running"
    """Started, and not yet over: also while the CE stages out or is killing it."""
    HELD = "held"
    """Held or suspended by the batch system."""
    DONE = "done"
    """Over, and the CE knows of no error. The payload's exit code may still be non-zero."""
    FAILED = "failed"
    """Over, with an error of the payload, the batch system or the CE."""
    ABORTED = "aborted"
    """Over because it was killed by request."""
    UNKNOWN = "unknown"
    """The CE knows no such job (never did, or no longer), or reports a state unheard of."""

    @property
    def is_final(self) -> bool:
        """True if the job is over, with its outputs as they will ever be."""
        return self in (JobStatus.DONE, JobStatus.FAILED, JobStatus.ABORTED)


class FileRef(Value):
    """One input file of a job."""

    name: _Text
    """Path relative to the job's session directory, which is its working directory."""
    source: Annotated[str | Path, Field(union_mode="left_to_right"), AfterValidator(os.fspath)]
    """A path on this machine, staged by us during submit; or a URL (``scheme://…``) that the CE
    fetches itself."""

    @property
    def url(self) -> str | None:
        """The URL if the CE is to fetch the file itself, else None."""
        source = os.fspath(self.source)
        return source if "://" in source else None

    @property
    def path(self) -> Path | None:
        """The path on this machine if we stage the file, else None."""
        return None if self.url else Path(self.source)


class OutputMember(Value):
    """One output to keep or to upload."""

    pattern: _Text
    """Path relative to the session directory; a name ending in ``/`` is a directory."""
    destination: str | None = None
    """A URL to which the CE uploads it after the job; None: kept on the CE for retrieval."""


class OutputSpec(Value):
    """What is kept of a job's session directory besides stdout, stderr and the CE's log."""

    members: tuple[OutputMember, ...] = ()
    """The files and directories to keep or upload."""
    include_unlisted: bool = False
    """Keep everything that the job leaves in its session directory."""


class Resources(Value):
    """What a job asks of the batch system."""

    cpus: int = Field(default=1, ge=1)
    """CPU cores, all on one node."""
    memory_mb: int | None = Field(default=None, ge=1)
    """Memory of the whole job in MiB; None: the CE's default. ARC asks batch systems for memory
    per core: the amount is divided by ``cpus`` and rounded up."""
    wall_time_s: int | None = Field(default=None, ge=1)
    """Wall-clock limit in seconds; None: the CE's default. Batch systems round to whole minutes."""
    queue: QueueName | None = None
    """Queue; None: the backend's configured queue."""


class SubmissionSpec(Value):
    """One job description, for one job or many copies of it."""

    executable: _Text = Field(min_length=1)
    """An absolute path on the CE's nodes, or the name of one of ``inputs``."""
    arguments: tuple[_Text, ...] = ()
    """Arguments, passed on byte for byte (UTF-8)."""
    inputs: tuple[FileRef, ...] = ()
    """Input files."""
    outputs: OutputSpec = OutputSpec()
    """What to keep of the job's session directory."""
    resources: Resources = Resources()
    """What to ask of the batch system."""
    environment: Mapping[str, _Text] = Field(default_factory=dict)
    """Environment of the job. The site can read it: no place for secrets."""
    stdout: _Text | None = "stdout"
    """File in the session directory that takes standard output; None: discarded."""
    stderr: _Text | None = "stderr"
    """File in the session directory that takes standard error; None: discarded."""
    tag: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]{1,64}$")
    """Begins the job's name in the batch system; None: ``arcbackend``."""


class CopyVars(Value):
    """What is particular to one copy of a spec."""

    environment: Mapping[str, _Text] = Field(default_factory=dict)
    """Added to the spec's environment, and stronger. The site can read it."""
    secrets: Mapping[_Text, SecretBytes] = Field(default_factory=dict)
    """File name → contents, staged into the session directory as files of mode 0600."""


class JobHandle(Value):
    """The durable identity of one job: enough, alone, to drive any verb from another process.

    ``model_dump_json()`` and ``model_validate_json()`` carry it over a restart.
    """

    id: JobID
    """The job's canonical id."""
    copy_index: int = Field(ge=0)
    """Which copy of its submission it is, from 0."""
    name: str
    """The job's name on the CE, unique to its submission."""
    stdout: str | None = None
    """Name of the file in the session directory with standard output."""
    stderr: str | None = None
    """Name of the file in the session directory with standard error."""


class Submission(Value):
    """What became of each copy: every copy index is in exactly one of the two."""

    handles: tuple[JobHandle, ...] = ()
    """The jobs created, by ascending copy index."""
    failures: Mapping[int, str] = Field(default_factory=dict)
    """Copy index → why there is no such job."""


class RefusedMember(Value):
    """One member of a job's output that was not fetched."""

    name: str
    """Its path in the session directory, printable: bytes that are no text are escaped."""
    reason: str
    """Why."""


class JobOutput(Value):
    """What was fetched of one job: a manifest of paths."""

    directory: Path | None = None
    """``dest/<the CE's id of the job>``; None if nothing was fetched."""
    stdout: Path | None = None
    """Standard output; None if the job discarded it or left none."""
    stderr: Path | None = None
    """Standard error; the same as ``stdout`` if the job joined them."""
    log: Path | None = None
    """The CE's own log of the job (A-REX: ``diagnose/errors``); None if it has none."""
    files: tuple[Path, ...] = ()
    """What the payload left and the job kept, sorted; never one of the three above. Names on disk
    are byte for byte the payload's: where one is not UTF-8, ``os.fsencode`` gives it back."""
    refused: tuple[RefusedMember, ...] = ()
    """What was not fetched, and why, sorted by name."""
    size: int = 0
    """Bytes fetched, of all files together."""
    complete: bool = False
    """True if the job is over and all that it kept is here."""
    reason: str | None = None
    """Why it is not complete."""

    @field_serializer(
        "directory", "stdout", "stderr", "log", "files", when_used="json", return_type=Any
    )
    def _as_text(self, value: Path | tuple[Path, ...] | None) -> Any:
        # JSON is text, and a hostile name may be none: that must not make the manifest unprintable.
        if isinstance(value, tuple):
            return [self._as_text(path) for path in value]
        return None if value is None else os.fsencode(value).decode("utf-8", "backslashreplace")


class FileTail(Value):
    """The end of one file of a job, as it was at that moment."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    name: str | None = None
    """The file's path in the session directory, printable: bytes that are no text are escaped.
    None if the job has no standard output, or the CE does not tell its name."""
    data: bytes = b""
    """Its last bytes; in JSON as base64."""
    offset: int = 0
    """Position in the file of the first of them, from 0."""
    size: int | None = None
    """Bytes of the file when they were read: they are its end. None if there is no such file."""
    reason: str | None = None
    """Why there is nothing; None if there is, be it an empty file."""

    @property
    def text(self) -> str:
        """``data`` as text: bytes that are no UTF-8 are escaped (``\\xff``), and so is what is left
        of a character whose beginning is not here. Control characters are the payload's."""
        return self.data.decode("utf-8", "backslashreplace")


class Diagnostics(Value):
    """Why a job is as it is, as far as the CE's records tell; they are read as they are now.

    Texts are the CE's and, in part, the job's own: printable, bounded, and without what may be a
    password or a signature in a URL.
    """

    status: JobStatus = JobStatus.UNKNOWN
    """The status at that moment."""
    arc_state: str | None = None
    """The ARC state that it is from; None if the CE knows no such job."""
    failure_reason: str | None = None
    """Why it failed or was aborted, in one line; None if it did not, or is not over."""
    exit_code: int | None = None
    """The payload's exit code; None if it has none (yet), or the CE does not tell it."""
    killed_by_request: bool | None = None
    """Whether a client asked the CE to kill it, and the CE has acted on it; None: not known yet."""
    record: str | None = None
    """The CE's failure record (A-REX: ``diagnose/failed``), line by line; None if there is none."""
    log: str | None = None
    """The end of the CE's log of the job (A-REX: ``diagnose/errors``): up to 64 KiB. If more than
    eight jobs are asked about at a time, 8 KiB, and only of jobs whose record leaves something
    open. None: there is none, or it was not read."""
    log_size: int | None = None
    """Bytes of the whole log; None if it was not read."""
    description: str | None = None
    """The job's description as the CE has it (A-REX: ``diagnose/description``), its first 16 KiB;
    None if more than eight jobs are asked about at a time."""
    reason: str | None = None
    """Why there is nothing, or less than there could be; None if nothing is amiss."""


class OpOutcome(Value):
    """What became of one job in a kill or a purge."""

    ok: bool
    """True if what was asked is done, or certain to be done by the CE."""
    reason: str | None = None
    """Why not; or a remark, e.g. that a kill had been asked before."""
