"""Conversations about a job's session directory and its records."""

from __future__ import annotations

from tests.simulator.likeness.about_jobs import STANDS, new
from tests.simulator.likeness.descriptions import (
    KEEP_ALL,
    TRUE,
    WAITING,
    adl,
    awaited,
    fetched,
    script,
    several,
)
from tests.simulator.likeness.steps import (
    Conversation,
    Plant,
    Publish,
    Step,
    Until,
    get,
    on_ids,
    other,
    post,
    put,
)

_XML = (("Accept", "text/xml"),)
_HTML = (("Accept", "text/html"),)
_S = "@rest@/jobs/@job@/session"

_PLANTED = r"""
mkdir -p sub/deep empty locked
printf abcdef >six; printf x >sub/one; printf yy >sub/deep/two; : >nothing
printf 1 >"with blank"; printf 2 >'quo"te'; printf 3 >'back\slash'; printf 4 >'a?b'
printf 5 >'a;b'; printf 6 >'a#b'; printf 7 >'<xml>&amp;'; printf 8 >..foo; printf 9 >-dash
printf a >'%2e%2e%2f'; printf b >"$(printf '\303\251')"; printf d >'plus+'; printf e >a=b
printf f >"a'b"; printf secret >unreadable; chmod 000 unreadable locked
mkdir odd; printf 1 >"odd/$(printf '\001\002\033[31m')"; printf 2 >"odd/$(printf 'a\nb')"
printf 3 >"odd/$(printf '\377\376')"; printf 4 >"odd/$(printf 'tab\there')"
ln -s six link; ln -s /etc linkdir; ln -s nowhere dangling; mkfifo fifo
""".strip()


def _range(name: str, value: str, target: str = f"{_S}/six", **settings: object) -> Step:
    return get(f"range, {name}", target, headers=(("Range", value),), **settings)


_RANGES = (
    ("first", "bytes=0-0"),
    ("begin", "bytes=0-2"),
    ("middle", "bytes=2-3"),
    ("to the end", "bytes=2-"),
    ("last", "bytes=5-5"),
    ("whole", "bytes=0-5"),
    ("whole, open", "bytes=0-"),
    ("beyond", "bytes=2-100"),
    ("whole and beyond", "bytes=0-100"),
    ("at the end", "bytes=6-"),
    ("behind the end", "bytes=7-9"),
    ("suffix", "bytes=-2"),
    ("long suffix", "bytes=-100"),
    ("backwards", "bytes=3-2"),
    ("several", "bytes=0-1,3-4"),
    ("a blank", "bytes= 2-3"),
    ("capitals", "Bytes=2-3"),
    ("another unit", "items=2-3"),
    ("no unit", "2-3"),
    ("no number", "bytes=x-y"),
    ("half a number", "bytes=2x-3"),
    ("only a dash", "bytes=-"),
    ("no dash", "bytes=2"),
    ("nothing", "bytes="),
    ("huge", "bytes=99999999999999999999-"),
    ("huge end", "bytes=2-99999999999999999999"),
)

_DIRECTORY = [
    new("make", WAITING, capture=("job",)),
    get("as it begins", _S, before=(Until("job", STANDS),)),
    get("slash, as it begins", f"{_S}/"),
    get("list", _S, before=(Plant("job", _PLANTED),)),
    get("list, slash", f"{_S}/"),
    get("list, slashes", f"{_S}//"),
    get("list, query", f"{_S}?x=1"),
    get("list, xml", _S, headers=_XML),
    get("list, html", _S, headers=_HTML),
    other("HEAD", "list, head", _S),
    get("sub-directory", f"{_S}/sub"),
    get("sub-directory, slash", f"{_S}/sub/"),
    get("sub-directory, xml", f"{_S}/sub", headers=_XML),
    get("odd names", f"{_S}/odd"),
    get("odd names, xml", f"{_S}/odd", headers=_XML),
    get("odd names, html", f"{_S}/odd", headers=_HTML),
    get("control characters", f"{_S}/odd/%01%02%1b%5b31m"),
    get("newline", f"{_S}/odd/a%0ab"),
    get("no utf-8", f"{_S}/odd/%ff%fe"),
    get("tab", f"{_S}/odd/tab%09here"),
    get("empty directory", f"{_S}/empty"),
    get("empty directory, xml", f"{_S}/empty", headers=_XML),
    get("locked directory", f"{_S}/locked"),
    get("linked directory", f"{_S}/linkdir", view="there"),
    get("file", f"{_S}/six"),
    get("file, slash", f"{_S}/six/"),
    get("file, slashes", f"{_S}//six"),
    get("file, dot", f"{_S}/./six"),
    get("file, query", f"{_S}/six?x=1"),
    get("file, semicolon", f"{_S}/six;x=1"),
    get("file, fragment", f"{_S}/six#x"),
    get("file, escaped", f"{_S}/%73ix"),
    get("file, escaped slash", f"{_S}/sub%2fone"),
    get("file, accept", f"{_S}/six", headers=(("Accept", "text/xml"),)),
    other("HEAD", "file, head", f"{_S}/six"),
    other("HEAD", "file, head with a range", f"{_S}/six", headers=(("Range", "bytes=2-3"),)),
    get("file below", f"{_S}/sub/deep/two"),
    get("below a file", f"{_S}/six/below"),
    get("empty file", f"{_S}/nothing"),
    other("HEAD", "empty file, head", f"{_S}/nothing"),
    _range("of an empty file", "bytes=0-", f"{_S}/nothing"),
    _range("of a byte of an empty file", "bytes=0-0", f"{_S}/nothing"),
    _range("behind an empty file", "bytes=1-", f"{_S}/nothing"),
    get("nosuch", f"{_S}/nosuch"),
    other("HEAD", "nosuch, head", f"{_S}/nosuch"),
    get("up", f"{_S}/.."),
    get("up and down", f"{_S}/sub/../six"),
    get("up, escaped", f"{_S}/%2e%2e/six"),
    get("up, half escaped", f"{_S}/sub/.%2e/six"),
    get("far up", f"{_S}/../../../../../../etc/passwd"),
    get("far up, escaped", f"{_S}/..%2f..%2f..%2fetc%2fpasswd"),
    get("up, escaped twice", f"{_S}/%252e%252e%252f"),
    get("nul", f"{_S}/six%00.txt"),
    get("blank", f"{_S}/with%20blank"),
    get("plus for a blank", f"{_S}/with+blank"),
    get("plus", f"{_S}/plus+"),
    get("quote", f"{_S}/quo%22te"),
    get("backslash", f"{_S}/back%5Cslash"),
    get("question mark, escaped", f"{_S}/a%3fb"),
    get("question mark", f"{_S}/a?b"),
    get("semicolon, escaped", f"{_S}/a%3bb"),
    get("semicolon", f"{_S}/a;b"),
    get("hash, escaped", f"{_S}/a%23b"),
    get("hash", f"{_S}/a#b"),
    get("markup", f"{_S}/%3cxml%3e%26amp%3b"),
    get("two dots and more", f"{_S}/..foo"),
    get("dash", f"{_S}/-dash"),
    get("non-ascii", f"{_S}/%c3%a9"),
    get("non-ascii as it is", f"{_S}/\xc3\xa9"),
    get("unreadable", f"{_S}/unreadable"),
    other("HEAD", "unreadable, head", f"{_S}/unreadable"),
    get("link", f"{_S}/link"),
    other("HEAD", "link, head", f"{_S}/link"),
    _range("of a link out", "bytes=0-3", f"{_S}/linkdir/passwd", view="there"),
    get("dangling", f"{_S}/dangling"),
    get("fifo", f"{_S}/fifo", fresh=True, patience=1.5),
    other("HEAD", "fifo, head", f"{_S}/fifo", fresh=True, patience=1.5),
    get("after the fifo", f"{_S}/six", fresh=True),
    *(_range(name, value) for name, value in _RANGES),
    get("two ranges", f"{_S}/six", headers=(("Range", "bytes=0-0"), ("Range", "bytes=2-3"))),
    get("if-range", f"{_S}/six", headers=(("Range", "bytes=2-3"), ("If-Range", '"x"'))),
    get(
        "if-modified-since",
        f"{_S}/six",
        headers=(("If-Modified-Since", "Tue, 01 Jan 2030 00:00:00 GMT"),),
    ),
    get("list with a range", f"{_S}/sub", headers=(("Range", "bytes=1-3"),)),
    *(
        other("PROPFIND", f"propfind{name}", target, headers=headers)
        for name, target, headers in (
            (" of a file", f"{_S}/six", (("Depth", "0"),)),
            (" of a file, infinite", f"{_S}/six", (("Depth", "infinity"),)),
            (" of a directory, itself", f"{_S}/sub", (("Depth", "0"),)),
            (" of a directory", f"{_S}/sub", (("Depth", "1"),)),
            (" of a directory, all", f"{_S}/sub", (("Depth", "infinity"),)),
            (" without a depth", f"{_S}/sub", ()),
            (" of nothing", f"{_S}/nosuch", (("Depth", "0"),)),
            (" of a link", f"{_S}/link", (("Depth", "0"),)),
            (" of a fifo", f"{_S}/fifo", (("Depth", "0"),)),
            (" of an unreadable file", f"{_S}/unreadable", (("Depth", "0"),)),
            (" of an odd name", f"{_S}/with%20blank", (("Depth", "0"),)),
            (" upwards", f"{_S}/..", (("Depth", "0"),)),
        )
    ),
    other("PROPFIND", "propfind of the session", _S, headers=(("Depth", "0"),)),
    *(
        other(method, f"{method.lower()} a file", f"{_S}/six", body=b"x", fresh=True)
        for method in ("POST", "PATCH", "OPTIONS", "MKCOL", "COPY", "MOVE", "LOCK")
    ),
    get("by a reader", f"{_S}/six", who="read", fresh=True),
    put("put by a reader", f"{_S}/forbidden", "x", who="read"),
    other("DELETE", "delete by a reader", f"{_S}/six", who="read"),
    get("by a canceller", f"{_S}/six", who="cancel", fresh=True),
    get("by a modifier", f"{_S}/six", who="modify", fresh=True),
    put("put by a modifier", f"{_S}/modified", "x", who="modify"),
    other("DELETE", "delete by a modifier", f"{_S}/modified", who="modify"),
    get("a long line", f"{_S}/{'%25' * 600}/{'%25' * 600}", fresh=True),
    get("a longer line", f"{_S}/{'%25' * 1500}", fresh=True, probe=True),
    get("a name too long", f"{_S}/{'x' * 300}", fresh=True),
    get("a path too long", f"{_S}/{'x/' * 1200}", fresh=True),
]

_UPLOAD = [
    new("make", adl(staging=awaited("first", "second", "sub/third") + KEEP_ALL), capture=("job",)),
    put("a file nobody asked for", f"{_S}/extra", "abcdef", before=(Until("job", STANDS),)),
    get("it is there", f"{_S}/extra"),
    put("shorter", f"{_S}/extra", "xyz"),
    get("the old tail", f"{_S}/extra"),
    put("empty", f"{_S}/extra", ""),
    get("after empty", f"{_S}/extra"),
    put("new and empty", f"{_S}/void", ""),
    get("new and empty, read", f"{_S}/void"),
    put("chunked", f"{_S}/chunked", "0123456789", chunked=4),
    get("chunked, read", f"{_S}/chunked"),
    put("with a type", f"{_S}/typed", "x", headers=(("Content-Type", "text/plain"),)),
    put(
        "as multipart",
        f"{_S}/parts",
        "--b\r\nA: b\r\n\r\nxyz\r\n--b--\r\n",
        headers=(("Content-Type", 'multipart/form-data; boundary="b"'),),
        fresh=True,
        patience=1.5,
    ),
    get("as multipart, read", f"{_S}/parts", fresh=True),
    put("range in the middle", f"{_S}/extra", "**", headers=(("Content-Range", "bytes 1-2/6"),)),
    get("range in the middle, read", f"{_S}/extra"),
    put("range behind the end", f"{_S}/gap", "zz", headers=(("Content-Range", "bytes 4-5/6"),)),
    get("range behind the end, read", f"{_S}/gap"),
    put("range without a size", f"{_S}/gap", "yy", headers=(("Content-Range", "bytes 0-1/*"),)),
    get("range without a size, read", f"{_S}/gap"),
    put("range of another length", f"{_S}/gap", "abc", headers=(("Content-Range", "bytes 0-0/6"),)),
    get("range of another length, read", f"{_S}/gap"),
    put("range backwards", f"{_S}/gap", "q", headers=(("Content-Range", "bytes 3-1/6"),)),
    put("range of nonsense", f"{_S}/gap", "q", headers=(("Content-Range", "nonsense"),)),
    get("range of nonsense, read", f"{_S}/gap"),
    put("expecting 100-continue", f"{_S}/expected", "abc", headers=(("Expect", "100-continue"),)),
    put("into a sub-directory", f"{_S}/new/deep/file", "x"),
    get("into a sub-directory, read", f"{_S}/new/deep/file"),
    put("over a directory", f"{_S}/new", "x"),
    put("over a directory, slash", f"{_S}/new/", "x"),
    put("below a file", f"{_S}/extra/below", "x"),
    put("the session", _S, "x"),
    put("upwards", f"{_S}/../up", "x"),
    put("upwards, escaped", f"{_S}/%2e%2e/up", "x"),
    put("absolute", f"{_S}//etc/absolute", "x"),
    put("odd name", f"{_S}/%3cx%3e%20%22%25", "x"),
    put("newline", f"{_S}/a%0ab", "x"),
    put("a name too long", f"{_S}/{'x' * 300}", "x"),
    put("over a link", f"{_S}/link", "over", before=(Plant("job", "ln -s extra link; mkfifo p"),)),
    get("over a link, read", f"{_S}/extra"),
    put("unknown job", "@rest@/jobs/nosuchjob/session/x", "x"),
    put(
        "without a length",
        f"{_S}/lengthless",
        "x",
        headers=(("Content-Length", ""),),
        fresh=True,
        patience=1.5,
        probe=True,
    ),
    get("list", _S, fresh=True),
    other("DELETE", "delete", f"{_S}/extra"),
    get("deleted", f"{_S}/extra"),
    other("DELETE", "delete again", f"{_S}/extra"),
    other("DELETE", "delete a directory", f"{_S}/new"),
    get("deleted directory", f"{_S}/new"),
    other("DELETE", "delete a link", f"{_S}/link"),
    other("DELETE", "delete a fifo", f"{_S}/p"),
    other("DELETE", "delete upwards", f"{_S}/../nosuch"),
    other("DELETE", "delete in an unknown job", "@rest@/jobs/nosuchjob/session/x"),
    other("DELETE", "delete with a body", f"{_S}/void", body=b"x"),
    put("an input", f"{_S}/first", "x", fresh=True),
    put("an input in a sub-directory", f"{_S}/sub/third", "x"),
    get("list in the end", _S),
    other("DELETE", "delete an input", f"{_S}/first"),
    get("list after that", _S),
    post("post", f"{_S}/first", "x"),
]

_ITEMS = (
    "failed",
    "local",
    "errors",
    "description",
    "diag",
    "comment",
    "status",
    "acl",
    "xml",
    "input",
    "output",
    "input_status",
    "output_status",
    "statistics",
)
# What differs from run to run, of which less is compared.
_PARTS = {
    "errors": "there",
    "diag": "keys",
    "local": "keys",
    "xml": "there",
    "statistics": "there",
    "failed": "whole",
}


def _records(job: str, what: str) -> list[Step]:
    at = f"@rest@/jobs/@{job}@/diagnose"
    return [
        get(f"{item} of {what}", f"{at}/{item}", view=_PARTS.get(item, "whole")) for item in _ITEMS
    ]


_D = "@rest@/jobs/@waiting@/diagnose"
_OF_ODD = {f"{item} of one of an odd source" for item in ("failed", "status", "input", "diag")}
_DIAGNOSE = [
    new(
        "make",
        several(
            adl(staging=awaited("never", "b c") + KEEP_ALL),
            TRUE,
            script("echo out; echo err 1&gt;&amp;2; exit 3", staging=KEEP_ALL),
            adl(staging=fetched("x", "nosuch://host/x")),
            adl(staging=awaited("never")),
        ),
        capture=("waiting", "done", "failed", "odd", "killed"),
    ),
    on_ids("kill", "kill", "@killed@", before=(Until("killed", STANDS),)),
    *([*_records("waiting", "one that waits")]),
    get("unknown item", f"{_D}/nosuch"),
    get("no item", f"{_D}"),
    get("no item, slash", f"{_D}/"),
    get("item with a slash", f"{_D}/status/"),
    get("item with slashes", f"{_D}//status"),
    get("below an item", f"{_D}/status/x"),
    get("item in capitals", f"{_D}/STATUS"),
    get("item, escaped", f"{_D}/%73tatus"),
    get("item, query", f"{_D}/status?x=1"),
    get("item up", f"{_D}/../status"),
    get("proxy", f"{_D}/proxy"),
    get("grami", f"{_D}/grami"),
    get("unknown job", "@rest@/jobs/nosuchjob/diagnose/status"),
    get("unknown job and item", "@rest@/jobs/nosuchjob/diagnose/nosuch"),
    other("HEAD", "head", f"{_D}/status"),
    other("HEAD", "head of an unknown item", f"{_D}/nosuch"),
    other("HEAD", "head of what is not there", f"{_D}/failed"),
    get("range", f"{_D}/status", headers=(("Range", "bytes=1-3"),)),
    get("whole range", f"{_D}/status", headers=(("Range", "bytes=0-65535"),)),
    get("open range", f"{_D}/status", headers=(("Range", "bytes=2-"),)),
    get("range behind the end", f"{_D}/status", headers=(("Range", "bytes=1000-"),)),
    get("suffix", f"{_D}/status", headers=(("Range", "bytes=-3"),)),
    get("xml", f"{_D}/status", headers=_XML),
    *(
        other(method, method.lower(), f"{_D}/status", body=b"x", fresh=True)
        for method in ("POST", "PUT", "DELETE", "PATCH", "PROPFIND", "OPTIONS")
    ),
    get("by a creator", f"{_D}/status", who="create", fresh=True),
    get("by a reader", f"{_D}/status", who="read", fresh=True),
    get(
        "settled",
        "@rest@/jobs?state=NOSUCH",
        fresh=True,
        before=(
            Until("done", ("FINISHED",)),
            Until("failed", ("FAILED",)),
            Until("killed", ("FAILED", "KILLED")),
            Until("odd", ("FAILED",)),
            Publish(),
        ),
    ),
    *_records("done", "one that is done"),
    *_records("failed", "one that failed"),
    *_records("killed", "one that was killed"),
    *(each for each in _records("odd", "one of an odd source") if each.name in _OF_ODD),
    get("session of the done", "@rest@/jobs/@done@/session"),
    get("session of the failed", "@rest@/jobs/@failed@/session"),
    get("stdout of the failed", "@rest@/jobs/@failed@/session/out"),
    get("stderr of the failed", "@rest@/jobs/@failed@/session/err"),
    get("stdout of the done", "@rest@/jobs/@done@/session/out"),
    get("session of the killed", "@rest@/jobs/@killed@/session"),
    on_ids("info", "info of all", "@done@", view="shape"),
    on_ids("info", "info of the failed", "@failed@", view="shape"),
    on_ids("info", "info of the killed", "@killed@", view="shape"),
    on_ids("info", "info of what waits", "@waiting@", view="shape"),
    on_ids("status", "status of all", "@waiting@", "@done@", "@failed@", "@killed@"),
]

CONVERSATIONS = (
    Conversation("session directory", tuple(_DIRECTORY)),
    Conversation("upload", tuple(_UPLOAD)),
    Conversation("records", tuple(_DIAGNOSE)),
)
