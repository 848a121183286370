"""What a real CE does that nobody expects, as one table: what it is, where, and in which versions.

The simulator does each of these unless it is told not to. A trap that is switched off leaves what
the REST specification, or common sense, would have the CE do instead; that is told with it. Each
row is shown in tests/simulator/test_traps.py, and stands in docs/reference/simulator.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias

__all__ = ["TRAPS", "ArcVersion", "Lrms", "Trap", "TrapRow", "Traps"]

ArcVersion: TypeAlias = Literal["7.0.0", "7.2.0"]
Lrms: TypeAlias = Literal["slurm", "condor"]


class Trap(StrEnum):
    """The traps, by name."""

    UNAUTHENTICATED_IS_500 = "unauthenticated-is-500"
    STICKY_IDENTITY = "sticky-identity"
    SPOILT_CONNECTION = "spoilt-connection"
    SCOPE_STRING_IS_ONE = "scope-string-is-one"
    CERTIFICATE_OUTRANKS_TOKEN = "certificate-outranks-token"  # noqa: S105 - a name
    TLS_1_2_ONLY = "tls-1.2-only"
    ONE_CURVE_ONLY = "one-curve-only"
    STALE_STATUS = "stale-status"
    KILLED_IS_FAILED_LIVE = "killed-is-failed-live"
    KILLED_IS_FAILED_UNPUBLISHED = "killed-is-failed-unpublished"
    LATE_FAILURE_RECORD = "late-failure-record"
    WIPED_WHILE_ACCEPTED = "wiped-while-accepted"
    LISTED_LATE = "listed-late"
    SUSPENDED_IS_OTHER = "suspended-is-other"
    HELD_IS_OTHER = "held-is-other"
    HELD_ONCE_STARTED_IS_REMOVED = "held-once-started-is-removed"
    ENDED_IS_OTHER = "ended-is-other"
    IDS_NEED_EXACT_TYPE = "ids-need-exact-type"
    IDS_CUT_AT_1_MIB = "ids-cut-at-1-mib"
    GARBAGE_IDS_ARE_201 = "garbage-ids-are-201"
    CLEAN_OF_ACTIVE_IS_202 = "clean-of-active-is-202"
    KILL_OF_FINISHED_IS_202 = "kill-of-finished-is-202"
    FEWER_INSTANCES_SILENTLY = "fewer-instances-silently"
    LOG_NOT_IN_SESSION = "log-not-in-session"
    NO_PROXY_NO_HTTPS = "no-proxy-no-https"
    UNKNOWN_DELEGATION_ACCEPTED = "unknown-delegation-accepted"
    RENEW_MAKES_DELEGATION = "renew-makes-delegation"
    RENEW_DESTROYS_TOKEN = "renew-destroys-token"  # noqa: S105 - a name
    CHAIN_NOT_LOOKED_AT = "chain-not-looked-at"
    USED_DELEGATION_STAYS = "used-delegation-stays"
    NAMES_ARE_BYTES = "names-are-bytes"
    CONTROL_CHARACTERS_LOST = "control-characters-lost"
    XML_NOT_WELL_FORMED = "xml-not-well-formed"
    LINKS_FOLLOWED_UNLISTED = "links-followed-unlisted"
    FIFO_HANGS = "fifo-hangs"
    UNREADABLE_IS_LISTED = "unreadable-is-listed"
    UNKNOWN_JOB_IS_404_OK = "unknown-job-is-404-ok"
    LONG_REQUEST_LINE_CLOSES = "long-request-line-closes"
    LONG_FIELD_ENDS_HEAD = "long-field-ends-head"
    EMPTY_FILE_IS_CHUNKED = "empty-file-is-chunked"
    WHOLE_RANGE_IS_200 = "whole-range-is-200"
    SUFFIX_RANGE_IGNORED = "suffix-range-ignored"
    PUT_DOES_NOT_TRUNCATE = "put-does-not-truncate"
    QUERY_CUT_BEFORE_UNESCAPING = "query-cut-before-unescaping"
    SINGLES_ARE_BARE = "singles-are-bare"
    INFO_NEEDS_NO_CREDENTIALS = "info-needs-no-credentials"
    CONDOR_COUNTS_CPUS = "condor-counts-cpus"


@dataclass(frozen=True, slots=True)
class TrapRow:
    """One trap.

    Attributes:
        trap: its name.
        fact: what the real CE does.
        instead: what the simulator does when the trap is switched off.
        source: where the fact was seen, or is read: a section of docs/explanation/arc-rest.md, or a
            source file of A-REX.
        versions: of ARC, that do it.
        batch_systems: behind which it happens.
    """

    trap: Trap
    fact: str
    instead: str
    source: str
    versions: tuple[ArcVersion, ...] = ("7.0.0", "7.2.0")
    batch_systems: tuple[Lrms, ...] = ("slurm", "condor")


TRAPS: tuple[TrapRow, ...] = (
    TrapRow(
        Trap.UNAUTHENTICATED_IS_500,
        "Credentials that are missing, expired or of an unknown issuer are answered 500 `User "
        "can't be assigned configuration`, without a body.",
        "401.",
        "Authentication",
    ),
    TrapRow(
        Trap.STICKY_IDENTITY,
        "The first request on a connection fixes whose all later ones are, whatever token they "
        "bear.",
        "Each request is its token's.",
        "Authentication",
    ),
    TrapRow(
        Trap.SPOILT_CONNECTION,
        "A connection whose first request was not authenticated refuses good credentials, too.",
        "The next request is judged anew.",
        "Authentication",
    ),
    TrapRow(
        Trap.SCOPE_STRING_IS_ONE,
        "A token's `scope` of several words, as RFC 8693 writes it, is taken for one scope; a JSON "
        "array is understood.",
        "Both are understood.",
        "Authentication; authop.cpp",
        versions=("7.0.0",),
    ),
    TrapRow(
        Trap.CERTIFICATE_OUTRANKS_TOKEN,
        "With a certificate and a token, the job is the certificate's subject's, while the token's "
        "scopes hold.",
        "The token decides.",
        "X.509 proxies",
    ),
    TrapRow(
        Trap.TLS_1_2_ONLY,
        "No TLS 1.3: a client's certificate is judged within the handshake, and a bad one ends it "
        "with an alert.",
        "TLS 1.3 is spoken, too.",
        "X.509 proxies",
    ),
    TrapRow(
        Trap.ONE_CURVE_ONLY,
        "Of elliptic curves, TLS takes P-521 only: a client's certificate with a key on another "
        "one ends the handshake.",
        "Whatever OpenSSL takes.",
        "X.509 proxies",
    ),
    TrapRow(
        Trap.STALE_STATUS,
        "`jobs?action=status` and `action=info` tell what the information provider wrote when it "
        "last ran, up to a minute ago.",
        "They tell the state as of now.",
        "Status",
    ),
    TrapRow(
        Trap.KILLED_IS_FAILED_LIVE,
        "The live list `jobs?state=` says FAILED of a killed job.",
        "It says KILLED.",
        "Status",
    ),
    TrapRow(
        Trap.KILLED_IS_FAILED_UNPUBLISHED,
        "`action=status` says FAILED of a killed job until the information provider has seen it "
        "for the first time.",
        "It says KILLED.",
        "Status",
    ),
    TrapRow(
        Trap.LATE_FAILURE_RECORD,
        "At the moment when a killed job ends its `diagnose/failed` can be empty still.",
        "It is written first.",
        "Status",
    ),
    TrapRow(
        Trap.WIPED_WHILE_ACCEPTED,
        "A job that is just being accepted is WIPED for a moment in the live list.",
        "It is ACCEPTED.",
        "Status",
    ),
    TrapRow(
        Trap.LISTED_LATE,
        "A job that is just being accepted is missing from `GET jobs` for a moment.",
        "It is listed at once.",
        "Status",
    ),
    TrapRow(
        Trap.SUSPENDED_IS_OTHER,
        "A suspended Slurm job is published as OTHER.",
        "As HELD.",
        "HTCondor",
        batch_systems=("slurm",),
    ),
    TrapRow(
        Trap.HELD_IS_OTHER,
        "A held HTCondor job is published as OTHER, whatever it did before.",
        "As HELD.",
        "HTCondor",
        batch_systems=("condor",),
    ),
    TrapRow(
        Trap.HELD_ONCE_STARTED_IS_REMOVED,
        "A held HTCondor job that had started is removed when it is released, and FAILED.",
        "It starts again.",
        "HTCondor",
        batch_systems=("condor",),
    ),
    TrapRow(
        Trap.ENDED_IS_OTHER,
        "A Slurm job that has ended is published as OTHER until A-REX notices.",
        "As EXITINGLRMS.",
        "The batch system behind it",
        batch_systems=("slurm",),
    ),
    TrapRow(
        Trap.IDS_NEED_EXACT_TYPE,
        "An id list whose content type is not exactly `application/json` is taken for an empty "
        "one, with 201.",
        "Parameters of the type are ignored, other types are 415.",
        "Lists",
    ),
    TrapRow(
        Trap.IDS_CUT_AT_1_MIB,
        "Of an id list, 1 MiB is read, and what lies behind is dropped without a word.",
        "All of it is read.",
        "Lists",
    ),
    TrapRow(
        Trap.GARBAGE_IDS_ARE_201,
        "An id list that is no JSON is taken for an empty one, with 201.",
        "400.",
        "Lists",
    ),
    TrapRow(
        Trap.CLEAN_OF_ACTIVE_IS_202,
        "`action=clean` of an active job is answered 202 `Queued for cleaning`; the job runs on, "
        "and is removed when it is over.",
        "505 for that job.",
        "Errors that do not look like errors",
    ),
    TrapRow(
        Trap.KILL_OF_FINISHED_IS_202,
        "`action=kill` of a job that is over is answered 202 `Queued for killing`; nothing "
        "happens.",
        "505 for that job.",
        "Errors that do not look like errors",
    ),
    TrapRow(
        Trap.FEWER_INSTANCES_SILENTLY,
        "A CE at its limit makes fewer instances than asked, and says nothing.",
        "Each missing one is a 500 `No more jobs allowed`.",
        "Submission",
    ),
    TrapRow(
        Trap.LOG_NOT_IN_SESSION,
        "The directory that a description names for the CE's log does not exist.",
        "It is in the session directory.",
        "Submission",
    ),
    TrapRow(
        Trap.NO_PROXY_NO_HTTPS,
        "A job without a delegated proxy fails when the CE is to fetch its input by https.",
        "The CE fetches it without one.",
        "Records of a job",
    ),
    TrapRow(
        Trap.UNKNOWN_DELEGATION_ACCEPTED,
        "A job with a delegation that does not exist is accepted, and runs without a proxy.",
        "500 for that job.",
        "Delegation",
    ),
    TrapRow(
        Trap.RENEW_MAKES_DELEGATION,
        "`action=renew` of an unknown delegation makes one of that id.",
        "404.",
        "Delegation",
    ),
    TrapRow(
        Trap.RENEW_DESTROYS_TOKEN,
        "`action=renew` of a token's delegation replaces the token by a new key.",
        "409.",
        "Delegation",
    ),
    TrapRow(
        Trap.CHAIN_NOT_LOOKED_AT,
        "A delegation takes any certificates, of whatever CA and key.",
        "A chain for another key is 500 `Failed accepting delegation`.",
        "Delegation",
    ),
    TrapRow(
        Trap.USED_DELEGATION_STAYS,
        "A delegation that a job uses is not deleted until the job is removed: 500.",
        "It is deleted.",
        "Delegation",
    ),
    TrapRow(
        Trap.NAMES_ARE_BYTES,
        "In a JSON listing, a name is its bytes, one `\\u00XX` each.",
        "It is text.",
        "Session directory",
    ),
    TrapRow(
        Trap.CONTROL_CHARACTERS_LOST,
        "Control characters in a name are listed as U+FFFD: such a file cannot be asked for.",
        "They are listed as they are.",
        "Session directory",
        versions=("7.2.0",),
    ),
    TrapRow(
        Trap.XML_NOT_WELL_FORMED,
        "An XML listing has the bytes of names as they are.",
        "Names that XML cannot hold are left out of it.",
        "Session directory",
    ),
    TrapRow(
        Trap.LINKS_FOLLOWED_UNLISTED,
        "Links are not listed, but a GET of one is served, out of the session directory, too.",
        "404.",
        "Session directory",
    ),
    TrapRow(
        Trap.FIFO_HANGS,
        "GET and HEAD of a FIFO hang for ever.",
        "404.",
        "Session directory",
    ),
    TrapRow(
        Trap.UNREADABLE_IS_LISTED,
        "A file of mode 000 is listed, and answers 404.",
        "It is not listed.",
        "Session directory",
    ),
    TrapRow(
        Trap.UNKNOWN_JOB_IS_404_OK,
        "The 404 of an unknown job has the reason `OK`.",
        "`Not Found`.",
        "Session directory",
    ),
    TrapRow(
        Trap.LONG_REQUEST_LINE_CLOSES,
        "A request line of more than 4096 bytes (5115, as they are read) closes the connection.",
        "414.",
        "Session directory",
    ),
    TrapRow(
        Trap.LONG_FIELD_ENDS_HEAD,
        "A header field of more bytes than that ends a request's head: it is not seen, nor are "
        "those behind it.",
        "431.",
        "Authentication; PayloadHTTP.cpp",
    ),
    TrapRow(
        Trap.EMPTY_FILE_IS_CHUNKED,
        "An empty file comes in chunks, any other with its length.",
        "With its length, 0.",
        "Session directory",
    ),
    TrapRow(
        Trap.WHOLE_RANGE_IS_200,
        "A range that covers the whole file is answered 200, as if there were none.",
        "206.",
        "Session directory",
    ),
    TrapRow(
        Trap.SUFFIX_RANGE_IGNORED,
        "A range without a beginning is ignored.",
        "206 with the end of the file.",
        "Session directory",
    ),
    TrapRow(
        Trap.PUT_DOES_NOT_TRUNCATE,
        "A shorter second upload keeps the old tail.",
        "It replaces the file.",
        "Submission; rest.cpp",
    ),
    TrapRow(
        Trap.QUERY_CUT_BEFORE_UNESCAPING,
        "A target is cut at its first `?`, or else its first `;`, before it is unescaped.",
        "At its first `?`.",
        "Session directory; rest.cpp",
    ),
    TrapRow(
        Trap.SINGLES_ARE_BARE,
        "In `/info`, a list of one element is that element.",
        "It is a list.",
        "Information",
        versions=("7.0.0",),
    ),
    TrapRow(
        Trap.INFO_NEEDS_NO_CREDENTIALS,
        "`/info` needs no credentials, and does not look at any.",
        "It needs them.",
        "Information",
    ),
    TrapRow(
        Trap.CONDOR_COUNTS_CPUS,
        "The running jobs of an HTCondor queue are counted in CPUs.",
        "In jobs.",
        "Information",
        batch_systems=("condor",),
    ),
)


class Traps:
    """The traps of one CE.

    Args:
        version: of ARC.
        lrms: the batch system behind it.
        without: traps that are switched off.
    """

    __slots__ = ("_on",)

    def __init__(self, version: ArcVersion, lrms: Lrms, without: Iterable[Trap] = ()) -> None:
        has = {row.trap for row in TRAPS if version in row.versions and lrms in row.batch_systems}
        self._on = frozenset(has - set(without))

    def __contains__(self, trap: object) -> bool:
        """Tell whether this CE has a trap."""
        return trap in self._on
