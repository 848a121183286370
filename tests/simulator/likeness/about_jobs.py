"""Conversations about jobs: lists of them, new ones, and what is done to several at once.

Their jobs wait for an input that never comes, so that their state is the same each time.
"""

from __future__ import annotations

from dataclasses import replace

from tests.simulator.likeness.descriptions import (
    TRUE,
    WAITING,
    XMLNS,
    adl,
    awaited,
    fetched,
    several,
    xrsl,
)
from tests.simulator.likeness.steps import (
    JSON_BODY,
    Conversation,
    Publish,
    Step,
    Until,
    View,
    both,
    get,
    ids,
    on_ids,
    other,
    post,
)

STANDS = ("PREPARING",)
"""The live state of a job that waits for an input."""

_XML = (("Accept", "text/xml"),)
_HTML = (("Accept", "text/html"),)
_XRSL_WAITING = xrsl('inputfiles=("never" "")')


def new(
    name: str,
    body: str | bytes,
    query: str = "",
    *,
    capture: tuple[str, ...] = (),
    **settings: object,
) -> Step:
    """Create jobs; names for the first of them."""
    settings.setdefault("headers", (("Content-Type", "application/xml"),))
    kept = tuple((each, f"job.{number}.id") for number, each in enumerate(capture))
    target = f"@rest@/jobs?action=new{query}"
    return post(name, target, body, capture=kept, **settings)


LISTS = both(
    "lists",
    [
        get("none yet", "@rest@/jobs"),
        get("none yet, xml", "@rest@/jobs", headers=_XML),
        get("none yet, html", "@rest@/jobs", headers=_HTML),
        get("none yet, by state", "@rest@/jobs?state=FINISHED"),
        other("HEAD", "none yet, head", "@rest@/jobs"),
        new("one", WAITING, capture=("one",)),
        get("of one", "@rest@/jobs", before=(Until("one", STANDS),)),
        get("of one, by state", "@rest@/jobs?state=PREPARING"),
        get("of one, by another state", "@rest@/jobs?state=FINISHED"),
        get("of one, xml", "@rest@/jobs", headers=_XML),
        get("of one, html", "@rest@/jobs", headers=_HTML),
        new("two more", several(WAITING, WAITING), capture=("two", "three")),
        get("all", "@rest@/jobs", before=(Until("two", STANDS), Until("three", STANDS))),
        get("slash", "@rest@/jobs/"),
        get("one state", "@rest@/jobs?state=PREPARING"),
        get("several states", "@rest@/jobs?state=FINISHED,PREPARING,FAILED"),
        get("several states, escaped", "@rest@/jobs?state=FINISHED%2CPREPARING"),
        get("states with a blank", "@rest@/jobs?state=FINISHED,%20PREPARING"),
        get("states with a plus", "@rest@/jobs?state=FINISHED,+PREPARING"),
        get("state twice", "@rest@/jobs?state=FINISHED&state=PREPARING"),
        get("state twice, the other way", "@rest@/jobs?state=PREPARING&state=FINISHED"),
        get("no state", "@rest@/jobs?state="),
        get("a comma", "@rest@/jobs?state=,"),
        get("state without a value", "@rest@/jobs?state"),
        get("unknown state", "@rest@/jobs?state=NOSUCH"),
        get("lower-case state", "@rest@/jobs?state=preparing"),
        get("State", "@rest@/jobs?State=FINISHED"),
        get("a job manager's state", "@rest@/jobs?state=INLRMS"),
        get("live states", "@rest@/jobs?state=FINISHED,FAILED,KILLED,WIPED"),
        get("semicolon", "@rest@/jobs;state=FINISHED"),
        get("escaped name", "@rest@/jobs?%73tate=FINISHED"),
        get("escaped ampersand", "@rest@/jobs?state=FINISHED%26state=PREPARING"),
        get("unknown parameter", "@rest@/jobs?nosuch=1"),
        get("limit", "@rest@/jobs?limit=1"),
        get("action in a get", "@rest@/jobs?action=status"),
        get("by state, xml", "@rest@/jobs?state=PREPARING", headers=_XML),
        get("by state, html", "@rest@/jobs?state=PREPARING", headers=_HTML),
        other("HEAD", "head", "@rest@/jobs"),
        other("HEAD", "head by state", "@rest@/jobs?state=PREPARING"),
        get("of another", "@rest@/jobs", who="other", fresh=True),
        on_ids("status", "another's job", "@one@", who="other"),
        on_ids("kill", "kill another's job", "@one@", who="other"),
        get("another's session", "@rest@/jobs/@one@/session", who="other"),
        get("another's record", "@rest@/jobs/@one@/diagnose/status", who="other"),
        *(
            other(method, method.lower(), "@rest@/jobs", body=body, fresh=True)
            for method, body in (
                ("PUT", b"x"),
                ("DELETE", None),
                ("PATCH", b"x"),
                ("OPTIONS", None),
                ("PROPFIND", None),
            )
        ),
        post("post without an action", "@rest@/jobs", b"x", fresh=True),
        post("empty action", "@rest@/jobs?action=", b"x"),
        post("unknown action", "@rest@/jobs?action=nosuch", ids("@one@"), headers=(JSON_BODY,)),
        post("action in capitals", "@rest@/jobs?action=STATUS", ids("@one@"), headers=(JSON_BODY,)),
        post("two actions", "@rest@/jobs?action=nosuch&action=status", ids("nosuchjob")),
        *(
            other(method, f"{method.lower()} of a job", "@rest@/jobs/@one@", body=body, fresh=True)
            for method, body in (("GET", None), ("DELETE", None), ("PUT", b"x"), ("POST", b"x"))
        ),
        get("sub-resource", "@rest@/jobs/@one@/nosuch"),
        get("delegations of a job", "@rest@/jobs/@one@/delegations"),
    ],
    alone=True,
)

_MANY_SLOTS = adl(
    resources="<SlotRequirement><NumberOfSlots>many</NumberOfSlots></SlotRequirement>"
)
_FAULTY: dict[str, str | bytes] = {
    "empty": b"",
    "blank": b"  \r\n\t ",
    "garbage": b"garbage",
    "json": b'{"executable":"/bin/true"}',
    "nul": b"\x00\x01\x02",
    "no xml": b"<",
    "no end": b"<ActivityDescription>",
    "another document": b"<html/>",
    "another namespace": adl(xmlns='xmlns="http://example.invalid"'),
    "no namespace": adl(xmlns=""),
    "no activities": several(),
    "not activities": f"<ActivityDescriptions {XMLNS}><x/><y/></ActivityDescriptions>",
    "no application": f"<ActivityDescription {XMLNS}></ActivityDescription>",
    "no executable": f"<ActivityDescription {XMLNS}><Application/></ActivityDescription>",
    "empty executable": adl(""),
    "slots are no number": _MANY_SLOTS,
    "memory is no number": adl(
        resources="<IndividualPhysicalMemory>much</IndividualPhysicalMemory>"
    ),
    "wall time is no number": adl(resources="<WallTime>long</WallTime>"),
    "unknown queue": adl(queue="nosuchqueue"),
    "unknown runtime environment": adl(
        resources="<RuntimeEnvironment><Name>NO/SUCH</Name></RuntimeEnvironment>"
    ),
    "unknown element": adl(staging="<NoSuch>1</NoSuch>"),
    "an input out of the session": adl(staging=awaited("../../etc/passwd")),
    "an input without a name": adl(staging="<InputFile></InputFile>"),
    "a source that is no url": adl(staging=fetched("x", "no url")),
    "an unknown protocol": adl(staging=fetched("x", "nosuch://host/x")),
    "xrsl, no executable": "&(memory=20)",
    "xrsl, not closed": "&(executable=/bin/true",
    "xrsl, not a number": xrsl("count=many"),
    "xrsl, unknown attribute": xrsl('nosuch="1"'),
    "xrsl, unknown queue": xrsl('queue="nosuchqueue"'),
    "xrsl, one faulty of two": "+(&(executable=/bin/true))(&(memory=20)(count=many))",
    "xrsl, or": '|(executable="/bin/true")',
    "xrsl, no plus": '(executable="/bin/true")',
    "xrsl, only a plus": "+",
    "xrsl, only an ampersand": "&",
}

NEW = [
    *both(
        "new",
        [
            new("adl", WAITING),
            new("adl without a type", WAITING, headers=()),
            new("adl as json", WAITING, headers=(JSON_BODY,)),
            new("adl as text", WAITING, headers=(("Content-Type", "text/plain"),)),
            new("adl, charset", WAITING, headers=(("Content-Type", "text/xml; charset=utf-8"),)),
            new("adl, xml declaration", f'<?xml version="1.0" encoding="UTF-8"?>{WAITING}'),
            new("adl, blank before", f"\n  {WAITING}"),
            new("adl, comment before", f"<!-- x -->{WAITING}"),
            new("adl, xml answer", WAITING, headers=_XML),
            new("adl, html answer", WAITING, headers=_HTML),
            new(
                "adl, prefixed",
                WAITING.replace("<", "<a:").replace("<a:/", "</a:").replace("xmlns=", "xmlns:a="),
            ),
            new("adl, chunked", WAITING, chunked=100),
            new("three", several(WAITING, WAITING, WAITING)),
            new("three, one faulty", several(WAITING, _MANY_SLOTS, WAITING)),
            new("xrsl", _XRSL_WAITING, headers=()),
            new("xrsl as xrsl", _XRSL_WAITING, headers=(("Content-Type", "application/rsl"),)),
            new("xrsl of two", f"+({_XRSL_WAITING})({_XRSL_WAITING})"),
            new("queue in the description", adl(queue="other", staging=awaited("never"))),
            new("no queue", adl(queue="", staging=awaited("never"))),
            *(new(name, body) for name, body in _FAULTY.items()),
            new("by a reader", WAITING, who="read", fresh=True),
            new("by a creator", WAITING, who="create", fresh=True),
        ],
    ),
    *both(
        "new, instances",
        [
            new("one", WAITING, "&instances=1"),
            new("three", WAITING, "&instances=3"),
            new("three of xrsl", _XRSL_WAITING, "&instances=3"),
            new("at least two of three", WAITING, "&instances=3&instances_min=2"),
            new("at least four of three", WAITING, "&instances=3&instances_min=4"),
            new("at least none", WAITING, "&instances=1&instances_min=0"),
            new("only a least", WAITING, "&instances_min=2"),
            new("none", WAITING, "&instances=0"),
            new("minus one", WAITING, "&instances=-1"),
            new("not a number", WAITING, "&instances=many"),
            new("half a number", WAITING, "&instances=2x"),
            new("a fraction", WAITING, "&instances=1.5"),
            new("empty", WAITING, "&instances="),
            new("least is not a number", WAITING, "&instances=2&instances_min=many"),
            new("least is minus one", WAITING, "&instances=2&instances_min=-1"),
            new("too large for a number", WAITING, "&instances=99999999999999999999"),
            new("twice", WAITING, "&instances=1&instances=2"),
            new("of several", several(WAITING, WAITING), "&instances=2"),
            new("one of several", several(WAITING, WAITING), "&instances=1"),
            new("of several of one", several(WAITING), "&instances=2"),
            new(
                "of several xrsl",
                "+(&(executable=/bin/true))(&(executable=/bin/true))",
                "&instances=2",
            ),
            new("of a faulty one", _FAULTY["slots are no number"], "&instances=2"),
            new("of garbage", "garbage", "&instances=2"),
        ],
    ),
    *both(
        "new, queue and delegation",
        [
            new("queue", WAITING, "&queue=@queue@"),
            new("other queue", adl(queue="", staging=awaited("never")), "&queue=other"),
            new("two opinions on the queue", WAITING, "&queue=other", capture=("two",)),
            get(
                "which queue it is",
                "@rest@/jobs/@two@/diagnose/local",
                view="keys",
                before=(Until("two", STANDS),),
            ),
            new("unknown queue", WAITING, "&queue=nosuchqueue"),
            new(
                "unknown queue, none described",
                adl(queue="", staging=awaited("never")),
                "&queue=nosuchqueue",
            ),
            new("empty queue", WAITING, "&queue="),
            new("unknown delegation", WAITING, "&delegation_id=nosuchone", capture=("with",)),
            on_ids("delegations", "delegations of it", "@with@"),
            new("empty delegation", WAITING, "&delegation_id="),
            new(
                "two delegations",
                WAITING,
                "&delegation_id=one&delegation_id=two",
                capture=("both",),
            ),
            on_ids("delegations", "delegations of both", "@both@"),
            new("unknown parameter", WAITING, "&nosuch=1"),
        ],
    ),
]

_ACTIONS = ("status", "info", "kill", "clean", "restart", "delegations")


def _ways(action: str) -> list[Step]:
    """An action on good and bad lists of ids; only on unknown jobs if it changes any."""
    target = f"@rest@/jobs?action={action}"
    view: View = "shape" if action == "info" else "whole"
    harmless = action in ("status", "info", "delegations")
    one = "@one@" if harmless else "nosuchjob"
    steps = [
        post("unknown", target, ids("nosuchjob")),
        post("known", target, ids(one)),
        post("mixed", target, ids(one, "nosuchjob", "@two@" if harmless else "other")),
        post("twice", target, ids(one, one)),
        post("xml answer", target, ids("nosuchjob"), headers=(JSON_BODY, *_XML)),
        post("html answer", target, ids("nosuchjob"), headers=(JSON_BODY, *_HTML)),
        post("empty list", target, b'{"job":[]}'),
        post("no list", target, b"{}"),
        post("empty body", target, b""),
        post("no body", target, b"", headers=(JSON_BODY, ("Content-Length", ""))),
        post("garbage", target, b"garbage"),
        post("cut short", target, b'{"job":[{"id":"nosuchjob"},{"id":"other'),
        post("bare object", target, f'{{"job":{{"id":"{one}"}}}}'.encode()),
        post("bare list", target, f'[{{"id":"{one}"}}]'.encode()),
        post("list of strings", target, f'{{"job":["{one}"]}}'.encode()),
        post("numbers", target, b'{"job":[{"id":17}]}'),
        post("null", target, b'{"job":[{"id":null}]}'),
        post("empty id", target, b'{"job":[{"id":""},{"id":"nosuchjob"}]}'),
        post("more keys", target, b'{"x":1,"job":[{"x":"y","id":"nosuchjob"}]}'),
        post("two lists", target, b'{"job":[{"id":"a"}],"job":[{"id":"b"}]}'),
        post("capitals", target, b'{"Job":[{"Id":"nosuchjob"}]}'),
        post("blanks", target, b' { "job" : [ { "id" : "nosuchjob" } , {"id":"b"} ] } '),
        post("behind the end", target, b'{"job":[{"id":"nosuchjob"}]} x'),
        post("escapes", target, b'{"job":[{"id":"a\\u0062c"}]}'),
        post("a quote in an id", target, b'{"job":[{"id":"a\\"b"}]}'),
        post("a slash in an id", target, ids("../nosuchjob")),
        post("markup in an id", target, ids("<a>&amp;")),
        post("a newline in an id", target, b'{"job":[{"id":"a\\nb"}]}'),
        post("a long id", target, ids("x" * 300)),
        post("no utf-8", target, b'{"job":[{"id":"\xff\xfe"}]}'),
    ]
    wrong = [
        post(
            "charset",
            target,
            ids("nosuchjob"),
            headers=(("Content-Type", "application/json; charset=utf-8"),),
        ),
        post(
            "capital type",
            target,
            ids("nosuchjob"),
            headers=(("Content-Type", "Application/JSON"),),
        ),
        post("text", target, ids("nosuchjob"), headers=(("Content-Type", "text/plain"),)),
        post("no type", target, ids("nosuchjob"), headers=()),
        post(
            "xml",
            target,
            b"<jobs><job><id>nosuchjob</id></job></jobs>",
            headers=(("Content-Type", "application/xml"),),
        ),
        post(
            "xml without a type", target, b"<jobs><job><id>nosuchjob</id></job></jobs>", headers=()
        ),
        post(
            "text/xml",
            target,
            b"<jobs><job><id>nosuchjob</id></job></jobs>",
            headers=(("Content-Type", "text/xml"),),
        ),
        post(
            "form",
            target,
            b"id=nosuchjob",
            headers=(("Content-Type", "application/x-www-form-urlencoded"),),
        ),
        post("ids in the query", f"{target}&id=nosuchjob", b"", headers=(JSON_BODY,)),
        get("get", target),
    ]
    if action != "status":
        kept = {
            "unknown",
            "known",
            "mixed",
            "twice",
            "empty list",
            "garbage",
            "bare object",
            "xml answer",
            "html answer",
            "empty id",
        }
        steps, wrong = [each for each in steps if each.name in kept], wrong[:2]
    typed = [each if each.headers else replace(each, headers=(JSON_BODY,)) for each in steps]
    return [replace(each, name=f"{action}, {each.name}", view=view) for each in (*typed, *wrong)]


def _actions() -> list[Conversation]:
    made = new("make", several(WAITING, WAITING), capture=("one", "two"))
    settle = (Until("one", STANDS), Until("two", STANDS), Publish())
    steps = [step for action in _ACTIONS for step in _ways(action)]
    steps[0] = replace(steps[0], before=settle)
    large = ids(*(f"{number:02000}" for number in range(600)))
    return both(
        "actions",
        [
            made,
            *steps,
            post(
                "more than 1 MiB",
                "@rest@/jobs?action=status",
                large,
                headers=(JSON_BODY,),
                view="count",
            ),
            get("after more than 1 MiB", "@rest@/jobs?state=FAILED"),
        ],
        alone=True,
    )


ENDED = Conversation(
    "what is done to a job",
    (
        new("make", several(WAITING, WAITING, TRUE), capture=("killed", "cleaned", "done")),
        on_ids(
            "restart",
            "restart one that waits",
            "@killed@",
            before=(Until("killed", STANDS), Until("cleaned", STANDS)),
        ),
        on_ids("kill", "kill", "@killed@"),
        # (Sometimes it is refused: 505.)
        on_ids("kill", "kill again", "@killed@", loose=frozenset({"reason", "status-code"})),
        on_ids("clean", "clean one that waits", "@cleaned@"),
        on_ids("clean", "clean again", "@cleaned@"),
        on_ids("kill", "kill what is to be cleaned", "@cleaned@"),
        on_ids(
            "status",
            "status of the killed",
            "@killed@",
            before=(Until("killed", ("FAILED", "KILLED")), Publish()),
        ),
        get("list of the killed", "@rest@/jobs?state=FAILED,KILLED"),
        on_ids("kill", "kill the killed", "@killed@"),
        on_ids(
            "status",
            "status of the cleaned",
            "@cleaned@",
            before=(Until("cleaned", ("WIPED", "gone")),),
        ),
        on_ids(
            "status",
            "status of the done",
            "@done@",
            before=(Until("done", ("FINISHED",)), Publish()),
        ),
        get("list of the done", "@rest@/jobs?state=FINISHED"),
        on_ids("info", "info of the done", "@done@", view="shape"),
        on_ids("info", "info of the killed", "@killed@", view="there"),
        on_ids("kill", "kill the done", "@done@"),
        on_ids("restart", "restart the done", "@done@"),
        on_ids("restart", "restart the killed", "@killed@"),
        on_ids("delegations", "delegations of the done", "@done@"),
        on_ids("status", "status afterwards", "@done@"),
        on_ids("clean", "clean the done", "@done@"),
        on_ids(
            "status",
            "status of what is clean",
            "@done@",
            before=(Until("done", ("WIPED", "gone")),),
        ),
        on_ids("info", "info of what is clean", "@done@", view="shape"),
        get("session of what is clean", "@rest@/jobs/@done@/session"),
        get("record of what is clean", "@rest@/jobs/@done@/diagnose/errors"),
        on_ids("clean", "clean what is clean", "@done@"),
    ),
    alone=True,
)

CONVERSATIONS = (*LISTS, *NEW, *_actions(), ENDED)
