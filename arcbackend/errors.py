"""The exceptions of arcbackend, rooted at `InterCEdeError`.

::

    InterCEdeError
     ├── ConfigurationError     ours to mend before anything is sent: configuration, arguments
     ├── SubmissionRefused      a spec that this CE cannot honour, or that it refused as a whole
     ├── AuthenticationError    the CE does not know us, or the token lacks a scope
     ├── TransportError         the CE could not be reached, or stopped answering
     └── ProtocolError          the CE answered something that is not ARC REST

An exception means that a whole operation failed. What can succeed for one job and fail for
another is never raised: it is reported per id in the verb's result.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "AuthenticationError",
    "ConfigurationError",
    "InterCEdeError",
    "ProtocolError",
    "SubmissionRefused",
    "TransportError",
]

_EXCERPT_BYTES = 200


def _rebuild(
    cls: type[InterCEdeError], message: str, context: dict[str, Any], notes: list[str]
) -> InterCEdeError:
    error = cls(message, **context)
    for note in notes:
        error.add_note(note)
    return error


class InterCEdeError(Exception):
    """A whole operation failed.

    Attributes:
        message: what failed and what to do next, without the context below.
        ce: the CE's endpoint, ``https://host:port``; None where no CE was involved.
        operation: the operation in the words of the ARC REST specification, e.g. ``jobs.status``.
        jobs: the jobs concerned. After a submission that failed midway these are the jobs that were
            created on the CE and could not be killed and cleaned: they need the caller's attention.
        submission: the name of a submission of which it is not known whether jobs exist on the CE:
            `ARCBackend.find` tells when the CE is back.
    """

    def __init__(
        self,
        message: str,
        *,
        ce: str | None = None,
        operation: str | None = None,
        jobs: tuple[str, ...] = (),
        submission: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.ce = ce
        self.operation = operation
        self.jobs = jobs
        self.submission = submission

    def _context(self) -> dict[str, Any]:
        """Everything but the message: what the constructor takes as keywords."""
        return {key: value for key, value in self.__dict__.items() if key in self._fields()}

    @classmethod
    def _fields(cls) -> tuple[str, ...]:
        return ("ce", "operation", "jobs", "submission")

    def __reduce__(self) -> tuple[Any, ...]:
        return (
            _rebuild,
            (type(self), self.message, self._context(), getattr(self, "__notes__", [])),
        )

    def __str__(self) -> str:
        where = " ".join(part for part in (self.operation, self.ce and f"on {self.ce}") if part)
        text = f"{where}: {self.message}" if where else self.message
        if self.jobs:
            shown = ", ".join(self.jobs[:5]) + (", …" if len(self.jobs) > 5 else "")  # noqa: PLR2004
            text += f" [{len(self.jobs)} job(s) left on the CE: {shown}]"
        if self.submission:
            text += f" [possibly jobs named {self.submission}]"
        return text


class ConfigurationError(InterCEdeError):
    """The configuration or the arguments cannot work; nothing was sent."""


class SubmissionRefused(InterCEdeError):  # noqa: N818  (the contract's name)
    """A job description was refused as a whole: by us before any job existed, or by the CE.

    Attributes:
        field: the field of `SubmissionSpec` at fault, e.g. ``inputs[2].source``; None if the CE
            refused without naming one.
    """

    def __init__(self, message: str, *, field: str | None = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.field = field

    @classmethod
    def _fields(cls) -> tuple[str, ...]:
        return (*super()._fields(), "field")

    def __str__(self) -> str:
        return f"{self.field}: {super().__str__()}" if self.field else super().__str__()


class AuthenticationError(InterCEdeError):
    """The CE does not accept the credentials, or they do not allow this operation.

    Attributes:
        scope: the token scope that the operation needs (WLCG profile: compute.read, …).
        missing_scope: True when the CE knew us and said that the token lacks the scope: the same
            credentials will be refused again. False when the identity itself was not accepted.
    """

    def __init__(
        self, message: str, *, scope: str | None = None, missing_scope: bool = False, **context: Any
    ) -> None:
        super().__init__(message, **context)
        self.scope = scope
        self.missing_scope = missing_scope

    @classmethod
    def _fields(cls) -> tuple[str, ...]:
        return (*super()._fields(), "scope", "missing_scope")


class TransportError(InterCEdeError):
    """The CE could not be reached, did not answer in time, or is refusing work for now.

    Attributes:
        maybe_done: True if the request may have reached the CE, so that its effect is unknown;
            False if it certainly did not.
    """

    def __init__(self, message: str, *, maybe_done: bool = True, **context: Any) -> None:
        super().__init__(message, **context)
        self.maybe_done = maybe_done

    @classmethod
    def _fields(cls) -> tuple[str, ...]:
        return (*super()._fields(), "maybe_done")


class ProtocolError(InterCEdeError):
    """The CE's answer is not what ARC REST promises.

    Attributes:
        excerpt: the first bytes of the answer's body.
    """

    def __init__(self, message: str, *, excerpt: bytes = b"", **context: Any) -> None:
        super().__init__(message, **context)
        self.excerpt = bytes(excerpt[:_EXCERPT_BYTES])

    @classmethod
    def _fields(cls) -> tuple[str, ...]:
        return (*super()._fields(), "excerpt")

    def __str__(self) -> str:
        begins = f"; the answer begins {self.excerpt!r}" if self.excerpt else ""
        return f"{super().__str__()}{begins}"
