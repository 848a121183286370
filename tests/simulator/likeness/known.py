"""In what the simulator is known to differ from the real CE, and why that may stay."""

from __future__ import annotations

from tests.simulator.likeness.comparing import Known

_STRICT = (
    "hypercorn reads requests with h11, which refuses what RFC 9112 has servers refuse; A-REX "
    "takes it. No client sends it, and an HTTP server of our own would be one more to be wrong."
)
_CLOSED = (
    "As RFC 9112 has it, h11 takes no connection for persistent unless both sides speak HTTP/1.1; "
    "A-REX goes by its own. Clients of HTTP/1.1 see no difference."
)
_ASGI = "ASGI has no place for it: hypercorn has it lost before the simulator sees the request."
_MULTIPART = (
    "A-REX takes a body of a multipart type apart, and waits for its end in vain. Nobody sends one."
)
_LINKS = "The simulator writes nothing out of a session directory, not even through a job's link."
_NO_TIME = (
    "The nodes of the Slurm stacks have no GNU time, by which ARC's script measures; sites have."
)


def _of(
    conversation: str, reason: str, *steps: str, what: str = "*", instances: str = "arc-*-token"
) -> tuple[Known, ...]:
    return tuple(Known(conversation, step, what, reason, instances) for step in steps)


KNOWN_DIFFERENCES: tuple[Known, ...] = (
    *_of(
        "odd http *",
        _STRICT,
        "without host",
        "with two hosts",
        "a blank in the target",
        "empty lines before",
        "a line without colon",
        "length is no number",
        "broken chunks",
    ),
    *_of("session directory *", _STRICT, "non-ascii as it is"),
    *_of("odd http *", _CLOSED, "http 1.0, keep-alive", "http 1.2", "http 2.0"),
    *_of("versions *", _ASGI, "lower-case method", "lower-case method, token"),
    *_of("paths *", _ASGI, "/arex/rest[?], none"),
    *_of(
        "odd http *",
        "A-REX takes the rest of a field that is too long for the next request, and refuses that.",
        "a header of 9000",
        "a token behind it",
        what="then",
    ),
    *_of("odd http *", _MULTIPART, "multipart without a boundary"),
    *_of("upload *", _MULTIPART, "as multipart", "as multipart, read"),
    *_of("upload *", _LINKS, "over a link", "over a link, read"),
    *_of(
        "records *",
        _NO_TIME,
        "diag of one that is done",
        "diag of one that failed",
        what="keys",
        instances="arc-slurm-*-token",
    ),
    *_of(
        "*",
        _NO_TIME,
        "info of all",
        "info of the failed",
        "info of the done",
        what="*.UsedTotalCPUTime",
        instances="arc-slurm-*-token",
    ),
)
