"""Conversations about HTTP itself, the versions of the interface and what needs no credentials."""

from __future__ import annotations

from tests.simulator.likeness.steps import (
    JSON_BODY,
    Conversation,
    Step,
    both,
    get,
    on_ids,
    other,
    post,
)


def _raw(
    name: str, *lines: str, body: bytes = b"", method: str = "GET", **settings: object
) -> Step:
    """A request that is sent as it stands here."""
    head = "\r\n".join((*lines, "", "")).encode("latin-1")
    return Step(name, method, "", raw=head + body, fresh=True, **settings)  # type: ignore[arg-type]


_HOST = "Host: @host@"
_JSON = "Accept: application/json"
_TOKEN = "Authorization: @user@"
_LIST = "GET @rest@/jobs HTTP/1.1"

VERSIONS = Conversation(
    "versions",
    (
        get("json", "/arex/rest", who="none"),
        get("slash", "/arex/rest/", who="none"),
        get("slashes", "//arex//rest//", who="none"),
        get("html", "/arex/rest", who="none", headers=(("Accept", "text/html"),)),
        get("xml", "/arex/rest", who="none", headers=(("Accept", "text/xml"),)),
        get("application/xml", "/arex/rest", who="none", headers=(("Accept", "application/xml"),)),
        get("anything", "/arex/rest", who="none", headers=(("Accept", "*/*"),)),
        get("unheard of", "/arex/rest", who="none", headers=(("Accept", "image/png"),)),
        get("no accept", "/arex/rest", who="none", headers=(("Accept", ""),)),
        get(
            "first of accepted",
            "/arex/rest",
            who="none",
            headers=(("Accept", "image/png, text/xml;q=0.1, application/json"),),
        ),
        get(
            "quality",
            "/arex/rest",
            who="none",
            headers=(("Accept", "application/json;q=0.1,text/xml"),),
        ),
        get("capitals", "/arex/rest", who="none", headers=(("Accept", "Application/JSON"),)),
        get("query", "/arex/rest?x=1", who="none"),
        get("garbage token", "/arex/rest", who="garbage"),
        get("good token", "/arex/rest", who="user", fresh=True),
        other("HEAD", "head", "/arex/rest", who="none", fresh=True),
        *(
            other(method, method.lower(), "/arex/rest", who="none", fresh=True, body=body)
            for method, body in (
                ("POST", b""),
                ("PUT", b"x"),
                ("DELETE", None),
                ("OPTIONS", None),
                ("PATCH", b"x"),
                ("PROPFIND", None),
                ("TRACE", None),
                ("BREW", None),
            )
        ),
        *(
            other(method, f"{method.lower()} with a token", "/arex/rest", fresh=True)
            for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND")
        ),
        _raw("lower-case method", "get /arex/rest HTTP/1.1", _HOST, _JSON),
        _raw("lower-case method, token", "get /arex/rest HTTP/1.1", _HOST, _JSON, _TOKEN),
    ),
)

PATHS = Conversation(
    "paths",
    tuple(
        get(f"{path}, {who}", path, who=who, fresh=True, probe=True)
        for who, path in (
            ("none", "/"),
            ("none", "/nosuch"),
            ("none", "/arex"),
            ("none", "/arex/"),
            ("none", "/arex/nosuch"),
            ("none", "/arexx"),
            ("none", "/AREX/rest"),
            ("none", "/arex/restful"),
            ("none", "/arex/rest?"),
            ("none", "/arex/rest;x"),
            ("none", "/arex%2Frest"),
            ("none", "/%61rex/rest"),
            ("none", "/arex/%72est"),
            ("none", "/arex/./rest"),
            ("none", "/arex/../arex/rest"),
            ("none", "/arex/rest/0.9"),
            ("none", "/arex/rest/1.0"),
            ("none", "/arex/rest/1.1"),
            ("none", "/arex/rest/1.1/"),
            ("none", "/arex/rest/1.2"),
            ("none", "/arex/rest/1"),
            ("none", "/arex/rest/v1.1"),
            ("none", "/arex/rest/1.1/nosuch"),
            ("none", "/arex/rest/1.1/Jobs"),
            ("none", "/arex/rest/1.1/info/more"),
            ("none", "/arex/rest/2.0/jobs"),
            ("user", "/"),
            ("user", "/arex"),
            ("user", "/arex/"),
            ("user", "/arex/rest/1.1"),
            ("user", "/arex/rest/1.1/nosuch"),
            ("user", "/arex/rest/2.0/jobs"),
            ("user", "/arex/rest/1.1//jobs/"),
            ("user", "/arex/rest/1.1/jobs//"),
            ("user", "/arex/rest/1.1/%6aobs"),
            ("user", "/arex/rest/1.1/jobs/nosuchjob"),
            ("user", "/arex/rest/1.1/jobs/nosuchjob/"),
            ("user", "/arex/rest/1.1/jobs/nosuchjob/nosuch"),
            ("user", "/arex/rest/1.1/jobs/nosuchjob/session"),
            ("user", "/arex/rest/1.1/jobs/nosuchjob/diagnose"),
            ("user", "/arex/rest/1.1/jobs/nosuchjob/diagnose/errors"),
            ("user", "/arex/rest/1.1/jobs/../jobs"),
            ("user", "/arex/rest/1.1/jobs/%2e%2e/session"),
            ("user", "/arex/rest/1.1/jobs/..%2f..%2fetc/session"),
            ("user", "/arex/rest/1.1/jobs/%00/session"),
            ("user", "/arex/rest/1.1/jobs/a%2fb/session"),
            ("user", "/arex/rest/1.1/jobs%3fstate=FAILED"),
            ("user", "/arex/rest/1.1/jobs;state=FAILED"),
            ("user", "/arex/rest/1.1/jobs#fragment"),
            ("user", "/arex/rest/1.1/jobs%"),
            ("user", "/arex/rest/1.1/jobs%zz"),
            ("user", "/arex/nosuch"),
        )
    ),
    alone=True,
)

ODD = Conversation(
    "odd http",
    (
        _raw("without host", _LIST, _JSON, _TOKEN, probe=True),
        _raw("with a wrong host", _LIST, "Host: nosuch.invalid", _JSON, _TOKEN),
        _raw("with two hosts", _LIST, _HOST, "Host: other", _JSON, _TOKEN),
        _raw("http 1.0", "GET @rest@/jobs HTTP/1.0", _HOST, _JSON, _TOKEN, probe=True),
        _raw(
            "http 1.0, keep-alive",
            "GET @rest@/jobs HTTP/1.0",
            _HOST,
            _JSON,
            _TOKEN,
            "Connection: keep-alive",
            probe=True,
        ),
        _raw("close", _LIST, _HOST, _JSON, _TOKEN, "Connection: close", probe=True),
        _raw("capital close", _LIST, _HOST, _JSON, _TOKEN, "Connection: Close", probe=True),
        _raw("keep-alive", _LIST, _HOST, _JSON, _TOKEN, "Connection: Keep-Alive", probe=True),
        _raw("unknown connection", _LIST, _HOST, _JSON, _TOKEN, "Connection: TE", probe=True),
        _raw("http 1.2", "GET @rest@/jobs HTTP/1.2", _HOST, _JSON, _TOKEN, probe=True),
        _raw("http 2.0", "GET @rest@/jobs HTTP/2.0", _HOST, _JSON, _TOKEN, probe=True),
        _raw("no version", "GET @rest@/jobs", _HOST, _JSON, _TOKEN, probe=True),
        _raw("not http", "GET @rest@/jobs FTP/1.1", _HOST, _JSON, _TOKEN, probe=True),
        _raw("one word", "GET", _HOST, _JSON, _TOKEN, probe=True),
        _raw("a blank in the target", "GET @rest@/jobs/a b HTTP/1.1", _HOST, _JSON, _TOKEN),
        _raw("absolute target", "GET https://@host@@rest@/jobs HTTP/1.1", _HOST, _JSON, _TOKEN),
        _raw("another's target", "GET http://other@rest@/jobs HTTP/1.1", _HOST, _JSON, _TOKEN),
        _raw("asterisk", "OPTIONS * HTTP/1.1", _HOST, _JSON, _TOKEN, method="OPTIONS"),
        _raw("target without slash", "GET jobs HTTP/1.1", _HOST, _JSON, _TOKEN),
        _raw("empty lines before", "", "", _LIST, _HOST, _JSON, _TOKEN),
        _raw("a line without colon", _LIST, _HOST, "nonsense", _JSON, _TOKEN),
        _raw("a header of 3000", _LIST, _HOST, "X-Long: " + "x" * 3000, _JSON, _TOKEN),
        _raw("a header of 9000", _LIST, _HOST, "X-Long: " + "x" * 9000, _JSON, _TOKEN, probe=True),
        _raw("a token behind it", _LIST, _HOST, _JSON, _TOKEN, "X-Long: " + "x" * 9000, probe=True),
        _raw("300 headers", _LIST, _HOST, *(f"X-{n}: y" for n in range(300)), _JSON, _TOKEN),
        _raw("header names in capitals", _LIST, _HOST.upper(), _JSON.upper(), _TOKEN),
        _raw("blanks round values", _LIST, _HOST, "Accept:   application/json  ", _TOKEN),
        _raw("no blank before values", _LIST, _HOST, "Accept:application/json", _TOKEN),
        _raw("a target of 4000", f"GET @rest@/jobs?x={'y' * 3960} HTTP/1.1", _HOST, _JSON, _TOKEN),
        _raw("a target of 9000", f"GET @rest@/jobs?x={'y' * 8960} HTTP/1.1", _HOST, _JSON, _TOKEN),
        _raw("garbage", "\x16\x03\x01 garbage", probe=True),
        _raw("get with a body", _LIST, _HOST, _JSON, _TOKEN, "Content-Length: 3", body=b"abc"),
        _raw(
            "short body",
            "POST @rest@/jobs?action=status HTTP/1.1",
            _HOST,
            _JSON,
            _TOKEN,
            "Content-Type: application/json",
            "Content-Length: 100",
            body=b'{"job":[]}',
            method="POST",
            patience=1.5,
        ),
        _raw(
            "post without length",
            "POST @rest@/jobs?action=status HTTP/1.1",
            _HOST,
            _JSON,
            _TOKEN,
            "Content-Type: application/json",
            method="POST",
            probe=True,
        ),
        _raw(
            "length is no number",
            "POST @rest@/jobs?action=status HTTP/1.1",
            _HOST,
            _JSON,
            _TOKEN,
            "Content-Type: application/json",
            "Content-Length: many",
            method="POST",
        ),
        _raw(
            "unknown encoding",
            "POST @rest@/jobs?action=status HTTP/1.1",
            _HOST,
            _JSON,
            _TOKEN,
            "Content-Type: application/json",
            "Transfer-Encoding: gzip, chunked",
            method="POST",
            probe=True,
        ),
        _raw(
            "broken chunks",
            "POST @rest@/jobs?action=status HTTP/1.1",
            _HOST,
            _JSON,
            _TOKEN,
            "Content-Type: application/json",
            "Transfer-Encoding: chunked",
            body=b"zz\r\nabc\r\n0\r\n\r\n",
            method="POST",
            probe=True,
        ),
        _raw(
            "multipart without a boundary",
            "POST @rest@/jobs?action=status HTTP/1.1",
            _HOST,
            _JSON,
            _TOKEN,
            "Content-Type: multipart/form-data",
            "Content-Length: 0",
            method="POST",
            probe=True,
        ),
        on_ids("status", "chunked", "nosuchjob", chunked=5, fresh=True),
        on_ids("status", "after chunks", "nosuchjob"),
        on_ids(
            "status",
            "expecting 100-continue",
            "nosuchjob",
            headers=(JSON_BODY, ("Expect", "100-continue")),
        ),
        on_ids("status", "after 100-continue", "nosuchjob"),
        on_ids(
            "status",
            "expecting something else",
            "nosuchjob",
            headers=(JSON_BODY, ("Expect", "200-ok")),
        ),
        post(
            "expecting 100-continue, empty",
            "@rest@/jobs?action=status",
            b"",
            headers=(JSON_BODY, ("Expect", "100-continue")),
        ),
        get("conditional", "@rest@/jobs", headers=(("If-None-Match", '"x"'),)),
        get("compressed", "@rest@/jobs", headers=(("Accept-Encoding", "gzip"),)),
        get("range of a list", "@rest@/jobs", headers=(("Range", "bytes=2-4"),)),
        other("HEAD", "head keeps the connection", "@rest@/jobs"),
        get("after head", "@rest@/jobs"),
        get("an error keeps the connection", "@rest@/nosuch"),
        get("after an error", "@rest@/jobs"),
        post("an unread body", "@rest@/nosuch", b"x" * 3000),
        get("after an unread body", "@rest@/jobs"),
    ),
    alone=True,
)

# What a share has only while, or once, it has had jobs.
_PASSING = frozenset({"UsedSlots", "OtherInfo"})

INFO = tuple(
    both(
        "info",
        [
            get("json", "@rest@/info", who="none", view="shape", loose=_PASSING),
            get("slash", "@rest@/info/", who="none", view="there"),
            get("xml", "@rest@/info", who="none", view="there", headers=(("Accept", "text/xml"),)),
            get("html", "@rest@/info", who="none", view="there", headers=(("Accept", "*/*"),)),
            get("with a token", "@rest@/info", view="there"),
            get("with garbage", "@rest@/info", who="garbage", view="there", fresh=True),
            get("glue2", "@rest@/info?schema=glue2", who="none", view="there", fresh=True),
            get("glue3", "@rest@/info?schema=glue3", who="none"),
            get("glue3, again with a token", "@rest@/info?schema=glue3"),
            get("no schema", "@rest@/info?schema=", who="none", view="there", fresh=True),
            get("below", "@rest@/info/queues", who="none"),
            other("HEAD", "head", "@rest@/info", who="none", view="there"),
            *(
                other(
                    method,
                    f"{method.lower()}, {who}",
                    "@rest@/info",
                    who=who,
                    body=body,
                    fresh=True,
                )
                for who in ("none", "user")
                for method, body in (
                    ("POST", b"x"),
                    ("PUT", b"x"),
                    ("DELETE", None),
                    ("OPTIONS", None),
                )
            ),
            get("still", "@rest@/info", who="none", view="there", fresh=True),
        ],
    )
)

CONVERSATIONS = (VERSIONS, PATHS, ODD, *INFO)
