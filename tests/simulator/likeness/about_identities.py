"""Conversations about who one is, and about delegations."""

from __future__ import annotations

from tests.simulator.likeness.about_jobs import STANDS, new
from tests.simulator.likeness.descriptions import WAITING
from tests.simulator.likeness.steps import (
    Conversation,
    Step,
    Until,
    both,
    get,
    on_ids,
    other,
    post,
    put,
)

_BAD = (
    "none",
    "empty",
    "garbage",
    "basic",
    "only bearer",
    "lower-case bearer",
    "no scheme",
    "expired",
    "unsigned",
    "another issuer",
    "another audience",
    "endpoint audience",
    "no scopes",
    "odd scopes",
    "two tokens",
)

_WHO = (
    *(get(f"first: {who}", "@rest@/jobs", who=who, fresh=True, probe=True) for who in _BAD),
    *(
        step
        for who in _BAD
        for step in (
            get(f"good before {who}", "@rest@/jobs", fresh=True),
            get(f"{who} after good", "@rest@/jobs", who=who),
            get(f"good after good and {who}", "@rest@/jobs"),
        )
    ),
    *(
        step
        for who in ("none", "garbage", "expired", "no scopes")
        for step in (
            get(f"{who}, then good", "@rest@/jobs", who=who, fresh=True),
            get(f"good after {who}", "@rest@/jobs"),
        )
    ),
    get("versions first", "/arex/rest", who="none", fresh=True),
    get("good after versions", "@rest@/jobs"),
    get("versions with a token first", "/arex/rest", who="garbage", fresh=True),
    get("good after versions with garbage", "@rest@/jobs"),
    get("info first", "@rest@/info", who="none", fresh=True, view="there"),
    get("good after info", "@rest@/jobs"),
    get("an unknown path first", "@rest@/nosuch", who="none", fresh=True),
    get("good after an unknown path", "@rest@/jobs"),
    post("an unknown method first", "/arex/rest", b"", who="none", fresh=True),
    get("good after an unknown method", "@rest@/jobs"),
    new("mine", WAITING, capture=("mine",), fresh=True),
    get("my job", "@rest@/jobs", before=(Until("mine", STANDS),)),
    get("another on my connection", "@rest@/jobs", who="other"),
    get("another on its own", "@rest@/jobs", who="other", fresh=True),
    get("me on another's", "@rest@/jobs"),
    get("me again", "@rest@/jobs", fresh=True),
)

_SCOPES = ("read", "create", "modify", "cancel", "no scopes", "odd scopes")


def _asked(who: str) -> list[Step]:
    """Each operation with a token of one scope."""
    asked = [
        get("list", "@rest@/jobs"),
        get("list by state", "@rest@/jobs?state=FINISHED"),
        other("HEAD", "head", "@rest@/jobs"),
        post("new", "@rest@/jobs?action=new", "garbage"),
        *(
            on_ids(action, action, "nosuchjob")
            for action in ("status", "info", "kill", "clean", "restart", "delegations", "nosuch")
        ),
        get("session", "@rest@/jobs/nosuchjob/session"),
        put("put", "@rest@/jobs/nosuchjob/session/x", "x"),
        other("DELETE", "delete", "@rest@/jobs/nosuchjob/session/x"),
        other("PROPFIND", "propfind", "@rest@/jobs/nosuchjob/session/x"),
        get("diagnose", "@rest@/jobs/nosuchjob/diagnose/status"),
        get("list of delegations", "@rest@/delegations"),
        post("delegation, get", "@rest@/delegations/nosuchone?action=get"),
        put("delegation, put", "@rest@/delegations/nosuchone", "x"),
        post("delegation, delete", "@rest@/delegations/nosuchone?action=delete"),
        post("delegation, nosuch", "@rest@/delegations/nosuchone?action=nosuch"),
        other("PATCH", "patch", "@rest@/jobs", body=b"x"),
        get("unknown path", "@rest@/nosuch"),
        get("the CE's info", "@rest@/info", view="there"),
        get("version list", "/arex/rest"),
    ]
    return [
        Step(
            f"{step.name}: {who}",
            step.method,
            step.target,
            headers=step.headers,
            body=step.body,
            who=who,
            fresh=True,
            view=step.view,
        )
        for step in asked
    ]


IDENTITIES = (
    Conversation("identity", _WHO, alone=True),
    *(Conversation(f"scope {who}", tuple(_asked(who)), alone=True) for who in _SCOPES),
)

_D = "@rest@/delegations"
_PEM = (("Content-Type", "application/x-pem-file"),)

_DELEGATIONS = [
    get("none yet", _D),
    get("none yet, xml", _D, headers=(("Accept", "text/xml"),)),
    get("none yet, html", _D, headers=(("Accept", "text/html"),)),
    post("new", f"{_D}?action=new", capture=(("one", "location"), ("csr", "body"))),
    get("one", _D),
    post("get an unfinished one", f"{_D}/@one@?action=get"),
    put("garbage for it", f"{_D}/@one@", "garbage", headers=_PEM),
    put("nothing for it", f"{_D}/@one@", "", headers=_PEM),
    post("still unfinished", f"{_D}/@one@?action=get"),
    post("renew", f"{_D}/@one@?action=renew", capture=(("csr", "body"),)),
    post("renew an unknown one", f"{_D}/nosuch@subject@?action=renew"),
    get("two", _D),
    get("two, xml", _D, headers=(("Accept", "text/xml"),)),
    get("two, html", _D, headers=(("Accept", "text/html"),)),
    other("HEAD", "two, head", _D),
    get("slash", f"{_D}/"),
    get("type x509", f"{_D}?type=x509"),
    get("type jwt", f"{_D}?type=jwt"),
    get("unknown type", f"{_D}?type=nosuch"),
    get("empty type", f"{_D}?type="),
    get("types", f"{_D}?type=x509,jwt"),
    get("capital type", f"{_D}?type=X509"),
    post("new x509", f"{_D}?action=new&type=x509", capture=(("typed", "location"),)),
    post("new of an unknown type", f"{_D}?action=new&type=nosuch"),
    post("new of a type that is empty", f"{_D}?action=new&type="),
    post("new with a body", f"{_D}?action=new", "body"),
    get("new by get", f"{_D}?action=new"),
    post("no action", _D, ""),
    post("unknown action", f"{_D}?action=nosuch"),
    post("action get of none", f"{_D}?action=get"),
    post("new jwt without a token", f"{_D}?action=new&type=jwt"),
    post(
        "new jwt",
        f"{_D}?action=new&type=jwt",
        headers=(("X-Token-Delegation", "@token@"),),
        capture=(("jwt", "location"),),
    ),
    post("get jwt", f"{_D}/@jwt@?action=get"),
    get("list with a jwt", _D),
    get("list of jwt", f"{_D}?type=jwt"),
    get("list of x509", f"{_D}?type=x509"),
    post(
        "new jwt of garbage",
        f"{_D}?action=new&type=jwt",
        headers=(("X-Token-Delegation", "garbage"),),
        capture=(("odd", "location"),),
    ),
    post("get jwt of garbage", f"{_D}/@odd@?action=get"),
    put("a chain for a jwt", f"{_D}/@jwt@", "garbage"),
    post("renew jwt", f"{_D}/@jwt@?action=renew"),
    post("get what was a jwt", f"{_D}/@jwt@?action=get"),
    get("list after that", _D),
    post("get an unknown one", f"{_D}/nosuchone?action=get"),
    post("unknown action of one", f"{_D}/@one@?action=nosuch"),
    post("no action of one", f"{_D}/@one@", ""),
    put("put an unknown one", f"{_D}/nosuchone", "garbage"),
    *(
        other(method, f"{method.lower()} one", f"{_D}/@one@", body=body, fresh=True)
        for method, body in (
            ("GET", None),
            ("HEAD", None),
            ("DELETE", None),
            ("PATCH", b"x"),
            ("OPTIONS", None),
        )
    ),
    *(
        other(method, f"{method.lower()} all", _D, body=body, fresh=True)
        for method, body in (("PUT", b"x"), ("DELETE", None), ("PATCH", b"x"), ("OPTIONS", None))
    ),
    get("below one", f"{_D}/@one@/more"),
    post("below one, get", f"{_D}/@one@/more?action=get"),
    post("get one, slash", f"{_D}/@one@/?action=get"),
    get("another's", _D, who="other", fresh=True),
    post("get another's", f"{_D}/@one@?action=get", who="other"),
    post("delete another's", f"{_D}/@one@?action=delete", who="other"),
    post("delete", f"{_D}/@one@?action=delete", fresh=True),
    post("delete again", f"{_D}/@one@?action=delete"),
    post("get the deleted", f"{_D}/@one@?action=get"),
    post("delete an unknown one", f"{_D}/nosuchone?action=delete"),
    post("delete by a reader", f"{_D}/@typed@?action=delete", who="read", fresh=True),
    post("delete by a creator", f"{_D}/@typed@?action=delete", who="create", fresh=True),
    post("delete by a canceller", f"{_D}/@typed@?action=delete", who="cancel", fresh=True),
    post("new by a reader", f"{_D}?action=new", who="read", fresh=True),
    post("new by a creator", f"{_D}?action=new", who="create", fresh=True),
    post("renew by a reader", f"{_D}/nosuchone?action=renew", who="read", fresh=True),
    get("list in the end", _D, fresh=True),
]

_CHAINS = [
    post("new", f"{_D}?action=new", capture=(("one", "location"), ("csr", "body"))),
    put("chain", f"{_D}/@one@", "@chain@", headers=_PEM),
    post("get", f"{_D}/@one@?action=get"),
    put("chain again", f"{_D}/@one@", "@chain@", headers=()),
    post("renew", f"{_D}/@one@?action=renew", capture=(("csr", "body"),)),
    post("get before it is renewed", f"{_D}/@one@?action=get"),
    put("chain for the new request", f"{_D}/@one@", "@chain@", headers=_PEM),
    post("get after it is renewed", f"{_D}/@one@?action=get"),
    post("another", f"{_D}?action=new", capture=(("two", "location"),)),
    put("chain of another key", f"{_D}/@two@", "@chain@", headers=_PEM),
    put("the user's own chain", f"{_D}/@two@", "@proxy@", headers=_PEM),
    post("get the other", f"{_D}/@two@?action=get"),
    put("chain and garbage", f"{_D}/@two@", "garbage\n@chain@\ngarbage", headers=_PEM),
    put("chain chunked", f"{_D}/@two@", "@chain@", headers=_PEM, chunked=700),
    get("list", _D),
    get("list of x509", f"{_D}?type=x509"),
    new("a job with it", WAITING, "&delegation_id=@one@", capture=("job",)),
    on_ids("delegations", "its delegations", "@job@", before=(Until("job", STANDS),)),
    post("delete a used one", f"{_D}/@one@?action=delete"),
    on_ids("clean", "clean", "@job@"),
    on_ids("kill", "kill", "@job@"),
    post("delete it then", f"{_D}/@one@?action=delete", before=(Until("job", ("WIPED", "gone")),)),
    post("delete the other", f"{_D}/@two@?action=delete"),
    get("none is left", _D),
]

DELEGATIONS = (
    *both("delegations", _DELEGATIONS, alone=True),
    *both("delegations, chains", _CHAINS, alone=True, needs=frozenset({"token", "proxy"})),
)

_PROXY = "proxy"


def _with(certificate: str, who: str = "none", *, name: str = "", **settings: object) -> Step:
    named = name or f"{certificate or 'no certificate'}, {who}"
    return get(named, "@rest@/jobs", who=who, certificate=certificate, fresh=True, **settings)


PROXIES = Conversation(
    "proxies",
    (
        _with("proxy"),
        _with("proxy", "garbage"),
        _with("proxy", "expired"),
        _with("proxy", "user"),
        _with("proxy", "read"),
        _with("proxy", "no scopes"),
        _with("", "user"),
        _with("", "none"),
        _with("limited proxy"),
        _with("proxy of a proxy"),
        _with("user certificate"),
        _with("ec proxy"),
        _with("p-521 proxy"),
        _with("unlisted proxy", probe=True),
        _with("unlisted proxy", "user"),
        _with("expired proxy"),
        _with("expired proxy", "user"),
        _with("foreign proxy"),
        _with("foreign proxy", "user"),
        _with("proxy without its chain"),
        get("tls 1.3", "/arex/rest", who="none", certificate="tls 1.3", fresh=True),
        new(
            "a job of the proxy",
            WAITING,
            who="none",
            certificate="proxy",
            fresh=True,
            capture=("proxied",),
        ),
        get(
            "list by the proxy",
            "@rest@/jobs",
            who="none",
            before=(Until("proxied", STANDS, "proxy"),),
        ),
        get("list by both", "@rest@/jobs"),
        get("list by the token", "@rest@/jobs", fresh=True),
        get(
            "list by the limited proxy",
            "@rest@/jobs",
            who="none",
            certificate="limited proxy",
            fresh=True,
        ),
        get(
            "list by another proxy",
            "@rest@/jobs",
            who="none",
            certificate="other proxy",
            fresh=True,
        ),
        on_ids("status", "another's job", "@proxied@", who="none"),
        new("a job of the token", WAITING, fresh=True, capture=("tokened",)),
        get("list by the token, its own", "@rest@/jobs", before=(Until("tokened", STANDS),)),
        on_ids(
            "status",
            "the token's job by the proxy",
            "@tokened@",
            who="none",
            certificate="proxy",
            fresh=True,
        ),
        new("a job of both", WAITING, certificate="proxy", fresh=True, capture=("both",)),
        get(
            "list by the proxy, then",
            "@rest@/jobs",
            who="none",
            certificate="proxy",
            fresh=True,
            before=(Until("both", STANDS, "proxy"),),
        ),
        new(
            "a job of both without the scope", WAITING, who="read", certificate="proxy", fresh=True
        ),
        get(
            "a spoilt connection with a proxy",
            "@rest@/jobs",
            who="garbage",
            certificate="proxy",
            fresh=True,
        ),
        get("good after garbage with a proxy", "@rest@/jobs"),
        get(
            "delegations by the proxy",
            "@rest@/delegations",
            who="none",
            certificate="proxy",
            fresh=True,
        ),
    ),
    alone=True,
    needs=frozenset({"token", "proxy"}),
)

CONVERSATIONS = (*IDENTITIES, *DELEGATIONS, PROXIES)
