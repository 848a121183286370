"""Job ids: the forms that people paste, made canonical.

The canonical id is the job URL that ARC's own client prints,
``https://host:port/arex/rest/1.0/jobs/<id>``. A `JobRef` pairs it with the CE's own short id, which
is what the REST API wants.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from arcbackend.errors import ConfigurationError
from arcbackend.models import JobHandle, JobID
from arcbackend.protocol.names import is_local_id

__all__ = ["JobRef", "canonical_endpoint", "endpoint_of", "job_id", "resolve"]

_JOB_URL = re.compile(
    r"(?P<endpoint>https://[^/\s@?#]+)/arex(?:/rest/\d+\.\d+/jobs)?/(?P<local>[^/\s?#]+)/?"
)
# A host name, an address, and what follows: no blank, no control character, no user, no query.
_ADDRESS = re.compile(r"(?i:https)://[A-Za-z0-9.:\[\]_-]+(?:/[!-~]*)?")
_SHOWN = 120
_DEFAULT_PORT = 443


@dataclass(frozen=True, slots=True)
class JobRef:
    """One job asked for: its canonical id and the CE's own."""

    id: JobID
    local: str


def canonical_endpoint(url: str) -> str:
    """Return ``https://host:port`` for a CE's address, with the port always named.

    Raises:
        ValueError: it is not an https address of a host without path, query or user.
    """
    # Not quoted: a misplaced value may be a secret.
    form = "not of the form https://host:port"
    if _ADDRESS.fullmatch(url) is None:
        raise ValueError(form)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        if ":" in host:
            host = f"[{ipaddress.IPv6Address(host)}]"
    except ValueError:
        raise ValueError(form) from None
    if parts.scheme != "https" or not host or port == 0:
        raise ValueError(form)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("has more than https://host:port; leave the rest out")
    return f"https://{host}:{_DEFAULT_PORT if port is None else port}"


def job_id(endpoint: str, local: str) -> JobID:
    """The canonical id of the job that the CE at ``endpoint`` calls ``local``."""
    return JobID(f"{endpoint}/arex/rest/1.0/jobs/{local}")


def endpoint_of(item: JobID | JobHandle) -> str | None:
    """The CE that an id names; None if it names none, or is no id."""
    url = _parsed(item.id if isinstance(item, JobHandle) else item)
    return url and url[0]


def resolve(endpoint: str, ids: Iterable[JobID | JobHandle | str]) -> list[JobRef]:
    """Make ids canonical, in the order asked, each distinct one once.

    Raises:
        ConfigurationError: an id that is none, or that belongs to another CE than ``endpoint``.
    """
    if isinstance(ids, str | JobHandle):
        raise ConfigurationError("ids is a sequence of job ids, not a single one", ce=endpoint)
    found: dict[str, JobRef] = {}
    for item in ids:
        local = _local_id(endpoint, item.id if isinstance(item, JobHandle) else item)
        if local not in found:
            found[local] = JobRef(job_id(endpoint, local), local)
    return list(found.values())


def _local_id(endpoint: str, text: str) -> str:
    local = text
    if "/" in text:
        url = _parsed(text)
        if url is None:
            raise ConfigurationError(f"{_shown(text)} is not an ARC job id", ce=endpoint)
        owner, local = url
        if owner != endpoint:
            raise ConfigurationError(
                f"job {_shown(text)} belongs to another CE, {owner}: ask a backend with that "
                "endpoint",
                ce=endpoint,
            )
    if not is_local_id(local):
        raise ConfigurationError(f"{_shown(text)} is not an ARC job id", ce=endpoint)
    return local


def _parsed(text: str) -> tuple[str, str] | None:
    """The CE and its own id of a job, of the job's URL; None if it is none."""
    match = _JOB_URL.fullmatch(text)
    if match is None:
        return None
    try:
        return canonical_endpoint(match["endpoint"]), match["local"]
    except ValueError:
        return None


def _shown(text: str) -> str:
    """The text in an error, unless it may hold a password or a token."""
    if any(mark in text for mark in "@?#"):
        return "an address with a user name, password or query"
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}…"
