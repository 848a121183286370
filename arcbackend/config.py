"""Configuration of one backend: one CE, one queue, one way of authenticating."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from arcbackend.jobids import canonical_endpoint
from arcbackend.models import QueueName, Value
from arcbackend.validation import read_toml, validated

__all__ = ["ARCConfig", "Batches", "Delegation", "Limits", "Polling", "Retries", "Timeouts"]

_KiB, _MiB, _GiB = 2**10, 2**20, 2**30
_Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
# Any JSON string can be an audience; A-REX's own configuration ends it at the first blank.
_Audience = Annotated[str, Field(pattern=r"^[!-~]+$", max_length=1000)]


class Timeouts(Value):
    """How long each step of a request may take, in seconds."""

    connect: _Seconds = 10.0
    """TCP connection and TLS handshake."""
    read: _Seconds = 120.0
    """Between two pieces of an answer. The CE answers a submission of 1,000 copies after seconds,
    a status list of 10,000 within one."""
    write: _Seconds = 60.0
    """Between two pieces of a request."""
    pool: _Seconds = 600.0
    """Waiting for one of the backend's connections to be free."""
    total: _Seconds = 3600.0
    """One try of a request, from its free connection to the last byte of its answer."""
    cleanup: _Seconds = 60.0
    """Putting right what a failed or cancelled submission left on the CE, as a whole: waiting for a
    reply under way, finding out which jobs exist, killing and cleaning them."""


class Limits(Value):
    """What is refused."""

    max_total_bytes: int = Field(default=10 * _GiB, gt=0)
    """Outputs of one job, and of one call, in bytes."""
    max_files: int = Field(default=100_000, gt=0)
    """Output files of one job, its directories included."""
    max_depth: int = Field(default=32, ge=0)
    """Directories below one another, of one job's output."""
    max_file_bytes: int = Field(default=5 * _GiB, gt=0)
    """One output file, and one staged input file, in bytes."""
    transfer_timeout: _Seconds = 3600.0
    """One file's transfer, retries included, in seconds."""
    stall_timeout: _Seconds = 60.0
    """Silence in the download of one file, in seconds; then it is tried again (`Retries`)."""
    keep_free_bytes: int = Field(default=256 * _MiB, ge=0)
    """Free space that downloads leave on the file system they go to, in bytes."""
    max_answer_bytes: int = Field(default=256 * _MiB, gt=0)
    """One answer of the CE other than a file, in bytes."""


class Retries(Value):
    """Repeating requests that do no harm when repeated. Submissions never are."""

    attempts: int = Field(default=3, ge=1, le=20)
    """Tries in all."""
    backoff: _Seconds = 0.5
    """Wait before the second try, in seconds; doubled each time, jittered."""
    backoff_max: _Seconds = 30.0
    """Longest wait, in seconds; a longer ``Retry-After`` of the CE is cut to it."""


class Batches(Value):
    """How much goes into one request."""

    ids: int = Field(default=10_000, ge=1, le=40_000)
    """Job ids in one list. The CE drops what lies beyond 1 MiB of list and its time grows with the
    square of the length: 10,000 take 0.4 s, 45,000 take 15 s (docs/explanation/arc-rest.md)."""
    descriptions: int = Field(default=200, ge=1, le=10_000)
    """Job descriptions in one request."""
    description_bytes: int = Field(default=4 * _MiB, ge=16 * _KiB)
    """Job descriptions in one request, in bytes."""
    instances: int = Field(default=1000, ge=1, le=100_000)
    """Copies asked with one ``instances=`` request (ARC REST 1.1)."""


class Polling(Value):
    """How often a poller looks, in seconds, and how much it keeps for slow readers."""

    listing: _Seconds = 10.0
    """Between two live listings, which tell that jobs are over; longer where the CE is slow."""
    documents: _Seconds = 15.0
    """Between two looks at the documents of a job whose state is new."""
    documents_max: _Seconds = 600.0
    """What that grows to while a job stays in its state."""
    backoff_max: _Seconds = 300.0
    """Between two tries to ask a CE that does not answer, at most."""
    buffer: int = Field(default=10_000, ge=1)
    """Events that are kept for one subscriber who is not reading."""
    patience: _Seconds = 1.0
    """How long polling waits for a subscriber whose buffer is full, before it misses events."""


class Delegation(Value):
    """What jobs work with on the CE: a delegated proxy (``auth`` with ``proxy``), or a token."""

    renew_before: _Seconds = 21_600.0
    """A delegation that ends within so many seconds is renewed, as soon as the credential provider
    has a proxy that lasts longer: before a submission, and by a poller while it follows jobs."""
    check: _Seconds = 300.0
    """Between two looks of a poller at the delegations, in seconds, at most."""
    token: bool = False
    """With ``auth = "token"``: leave the token with the CE (ARC REST 1.1, ``type=jwt``), which it
    fetches and stores files with."""
    token_scopes: tuple[str, ...] = ()
    """Scopes of the token that is left with the CE, e.g. ``storage.read:/``: the credential
    provider is asked for it."""


class ARCConfig(Value):
    """Configuration of an `ARCBackend`."""

    endpoint: Annotated[str, AfterValidator(canonical_endpoint)]
    """The CE, ``https://host:port``."""
    queue: QueueName | None = None
    """Queue for jobs that name none; None: the CE chooses."""
    auth: Literal["token", "proxy", "token+proxy"] = "token"
    """``token``: bearer token; ``proxy``: X.509 proxy; ``token+proxy``: token on the channel and a
    delegated proxy in the job (DIRAC: ``AlwaysIncludeProxy``)."""
    audience: _Audience = "endpoint"
    """The audience that tokens are asked for, which the credential provider is told as the
    requirements' ``resource``. A CE accepts what its administrator wrote down, letter by letter:
    ``endpoint``: ``https://host:port``; ``host``: ``https://host``, without the port; anything else
    is the audience itself, e.g. ``https://wlcg.cern.ch/jwt/v1/any``
    (docs/explanation/credentials.md)."""
    ca_file: Path | None = None
    """PEM file of the certification authorities to trust."""
    ca_dir: Path | None = None
    """Directory of hashed CA certificates, e.g. ``/etc/grid-security/certificates``. With neither,
    the system's store is used."""
    rest_version: Literal["1.0", "1.1"] | None = None
    """ARC REST version; None: the newest that both sides know, asked once."""
    concurrency: int = Field(default=8, ge=1, le=256)
    """Connections to the CE at one time, at most. Each is a thread of the CE's."""
    live_listing: Literal["auto", "always", "never"] = "auto"
    """Whether `status` corrects the CE's status documents, up to a minute old, by a live listing
    of the identity's jobs. ``auto``: unless the listing has been slow on this CE (see
    ``live_listing_budget``)."""
    live_listing_budget: _Seconds = 5.0
    """With ``auto``: a listing that took longer than this many seconds is used sparingly: not again
    until ten times the time it took has gone by."""
    freshness_margin: float = Field(default=60.0, ge=0, le=86_400, allow_inf_nan=False)
    """Credentials are asked anew this many seconds before they expire."""
    timeouts: Timeouts = Timeouts()
    """Timeouts."""
    limits: Limits = Limits()
    """Limits."""
    retries: Retries = Retries()
    """Retries."""
    batches: Batches = Batches()
    """Batch sizes."""
    polling: Polling = Polling()
    """The poller."""
    delegation: Delegation = Delegation()
    """Delegations."""

    @property
    def resource(self) -> str:
        """The audience of tokens for this CE: what ``audience`` comes to."""
        forms = {"endpoint": self.endpoint, "host": self.endpoint.rpartition(":")[0]}
        return forms.get(self.audience, self.audience)

    @model_validator(mode="after")
    def _one_trust_anchor(self) -> Self:
        if self.ca_file and self.ca_dir:
            raise ValueError("ca_file and ca_dir: give one of them")
        return self

    @model_validator(mode="after")
    def _one_delegation(self) -> Self:
        if self.delegation.token and self.auth != "token":
            raise ValueError('delegation.token goes with auth = "token": else a proxy is delegated')
        return self

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Validate a configuration read elsewhere.

        Raises:
            ConfigurationError: naming each field at fault.
        """
        return validated(cls, data, "configuration")

    @classmethod
    def from_toml(cls, path: Path | str) -> Self:
        """Read a TOML file whose top level is an `ARCConfig`.

        Raises:
            ConfigurationError: the file cannot be read, is not TOML, or names each field at fault.
        """
        return read_toml(Path(path), "configuration", cls.from_dict)
