"""Tokens of the stack's own issuer, signed here: no process is needed to make one."""

import base64
import hashlib
import json
import time
import uuid
from collections.abc import Iterable
from typing import Any

from .definition import Definition
from .errors import StackError
from .instance import Instance

ALL_SCOPES = ("compute.read", "compute.create", "compute.modify", "compute.cancel")
AUDIENCE = "arc"

# RFC 8017, 9.2, note 1: what precedes the digest says that it is SHA-256.
_SHA256_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")


def mint(
    instance: Instance,
    subject: str,
    scopes: Iterable[str],
    lifetime: float,
    audience: str = AUDIENCE,
) -> str:
    """Return a signed token; a negative lifetime gives one that has expired."""
    now = time.time()
    claims = {
        "iss": issuer(instance),
        "sub": subject,
        "aud": audience,
        "scope": _scope(instance, list(scopes)),
        "jti": str(uuid.uuid4()),
        "iat": int(min(now, now + lifetime)),
        "nbf": int(min(now, now + lifetime) - 300),
        "exp": int(now + lifetime),
    }
    return _sign(claims, _read(instance, "issuer-key.json"))


def issuer(instance: Instance) -> str:
    """Return the issuer that the CE trusts."""
    return str(_read(instance, "issuer.json")["issuer"])


def _scope(instance: Instance, scopes: list[str]) -> str | list[str]:
    as_list = Definition.load(instance.stack).scopes_as_list
    if instance.version in as_list and len(scopes) > 1:
        return scopes
    return " ".join(scopes)  # RFC 8693, 4.2


def _read(instance: Instance, name: str) -> dict[str, Any]:
    path = instance.credentials / name
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise StackError(f"{instance.name} has no {path}: start it first") from None
    return content


def _sign(claims: dict[str, Any], key: dict[str, Any]) -> str:
    header = {"alg": "RS256", "kid": key["kid"]}
    message = b".".join(_encode(json.dumps(part).encode()) for part in (header, claims))
    modulus, exponent = _integer(key["n"]), _integer(key["d"])
    size = (modulus.bit_length() + 7) // 8
    digest = _SHA256_PREFIX + hashlib.sha256(message).digest()
    padded = b"\x00\x01" + b"\xff" * (size - len(digest) - 3) + b"\x00" + digest
    signature = pow(int.from_bytes(padded), exponent, modulus).to_bytes(size)
    return (message + b"." + _encode(signature)).decode()


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _integer(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
