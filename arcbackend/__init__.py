"""Submit, watch, kill and purge jobs on NorduGrid ARC 7 Computing Elements over REST."""

from arcbackend.backend import ARCBackend
from arcbackend.config import ARCConfig, Batches, Limits, Retries, Timeouts
from arcbackend.contract import Cancellable, JobBackend, Monitor, Purgeable, Submitter
from arcbackend.credentials import (
    BearerToken,
    CredentialKind,
    CredentialProvider,
    CredentialRequirements,
    CredentialSet,
    StaticCredentials,
    X509Proxy,
)
from arcbackend.errors import (
    AuthenticationError,
    ConfigurationError,
    InterCEdeError,
    ProtocolError,
    SubmissionRefused,
    TransportError,
)
from arcbackend.models import (
    CopyVars,
    FileRef,
    JobHandle,
    JobID,
    JobStatus,
    OpOutcome,
    OutputMember,
    OutputSpec,
    Resources,
    Submission,
    SubmissionSpec,
)

__all__ = [
    "ARCBackend",
    "ARCConfig",
    "AuthenticationError",
    "Batches",
    "BearerToken",
    "Cancellable",
    "ConfigurationError",
    "CopyVars",
    "CredentialKind",
    "CredentialProvider",
    "CredentialRequirements",
    "CredentialSet",
    "FileRef",
    "InterCEdeError",
    "JobBackend",
    "JobHandle",
    "JobID",
    "JobStatus",
    "Limits",
    "Monitor",
    "OpOutcome",
    "OutputMember",
    "OutputSpec",
    "ProtocolError",
    "Purgeable",
    "Resources",
    "Retries",
    "StaticCredentials",
    "Submission",
    "SubmissionRefused",
    "SubmissionSpec",
    "Submitter",
    "Timeouts",
    "TransportError",
    "X509Proxy",
]
