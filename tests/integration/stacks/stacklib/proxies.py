"""Proxies of the stack's own users, made inside: there are the CA's key and what can sign."""

import json
import re
from dataclasses import asdict, dataclass

from . import namespace
from .errors import StackError
from .instance import Instance

_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,59}")


@dataclass(frozen=True)
class ProxyRequest:
    """What to make: a fresh user certificate, and a proxy of it (RFC 3820)."""

    user: str
    """The last part of the subject; the same name is the same identity."""
    lifetime: float
    """Of the proxy, in seconds; negative: one that has expired."""
    limited: bool = False
    """The limited policy of Globus, instead of inherit-all."""
    key: str = "rsa"
    """The proxy's key: `rsa` or `ec`."""
    bits: int | None = None
    """Size of that key; None: 2048, or the curve P-256."""
    depth: int = 1
    """How many proxies there are, one of the other; 0: the certificate alone."""
    path_length: int | None = None
    """How many more may follow the last, as it says itself; None: it does not say."""
    listed: bool = True
    """Whether the CE is told to let the subject in."""
    foreign_ca: bool = False
    """Whether the certificate is of an authority that the CE does not know."""


def make(instance: Instance, request: ProxyRequest) -> str:
    """Return a proxy in PEM: its certificate, its key, and the chain behind it."""
    if not _USER.fullmatch(request.user):
        raise StackError(f"no user can be called {request.user!r}: letters, digits, ' ', . _ -")
    asked = json.dumps(asdict(request))
    done = namespace.run_inside(instance, ["/stack/make_proxy.py"], input_=asked)
    if done.returncode:
        complaint = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise StackError(f"{instance.name}: cannot make a proxy: {complaint}")
    return done.stdout
