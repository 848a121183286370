"""The delegations that a simulated CE keeps, with real keys and certificate requests.

As ``DelegationStore`` in A-REX's delegation/DelegationStore.cpp.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from arcbackend.simulator.certificates import certificates_pem, key_pem, request_for
from arcbackend.simulator.traps import Trap, Traps

__all__ = ["Delegation", "Delegations", "Kind"]

Kind: TypeAlias = Literal["x509", "jwt"]

_BITS = 2048
_CERTIFICATES = re.compile(
    rb"-----BEGIN CERTIFICATE-----[^-]{1,100000}-----END CERTIFICATE-----", re.ASCII
)
_MOST_CERTIFICATES = 100


@dataclass(repr=False)
class Delegation:
    """One delegation.

    Attributes:
        kind: what its list entry says; a token's stays ``jwt`` when a key replaces it.
        key: that its request is for; None: it is a token, and has none.
        content: what was stored: the chain's certificates in PEM, or the token; None: nothing yet.
        until: when the first of its certificates ends, in seconds since 1970; None: none is there.
    """

    kind: Kind
    key: rsa.RSAPrivateKey | None
    content: bytes | None = None
    until: float | None = None

    def proxy(self) -> bytes | None:
        """What a job gets: the first certificate, the key, and the chain, in PEM; None: it is no
        proxy, or no chain has been stored.
        """
        if self.key is None or self.content is None:
            return None
        first, *others = _CERTIFICATES.findall(self.content)
        key = key_pem(self.key, "TraditionalOpenSSL").strip()
        return b"".join(block + b"\n" for block in (first, key, *others))


class Delegations:
    """All delegations of a CE, by owner.

    Args:
        traps: what the CE does that nobody expects.
        seed: what makes the ids.
    """

    def __init__(self, traps: Traps, seed: int) -> None:
        self._traps = traps
        self._random = random.Random(f"delegations {seed}")  # noqa: S311 - no secrets
        self._stored: dict[str, dict[str, Delegation]] = {}

    def of(self, owner: str) -> dict[str, Delegation]:
        """An owner's delegations by their ids, the oldest first. Not to be changed."""
        return self._stored.get(owner, {})

    def new(self, owner: str) -> tuple[str, bytes]:
        """Make one; returns its id, and the certificate request."""
        id_ = self._new_id()
        return id_, self._keyed(owner, id_, "x509")

    def new_token(self, owner: str, token: bytes) -> str:
        """Store a token; returns its id."""
        id_ = self._new_id()
        self._stored.setdefault(owner, {})[id_] = Delegation("jwt", None, token)
        return id_

    def renew(self, owner: str, id_: str) -> bytes:
        """The certificate request for a new chain, which replaces the old one when it comes.

        An unknown id is made, and a token replaced by a key: whether that is to be so is asked
        before.
        """
        found = self.of(owner).get(id_)
        if found is None:
            return self._keyed(owner, id_, "x509")
        if found.key is None:
            return self._keyed(owner, id_, found.kind)
        return request_for(found.key)

    def put(self, owner: str, id_: str, chain: bytes) -> bool:
        """Store a chain; tells whether it is taken."""
        found = self.of(owner).get(id_)
        if found is None:
            return False
        blocks = _CERTIFICATES.findall(chain)[:_MOST_CERTIFICATES]
        try:
            certificates = [x509.load_pem_x509_certificate(block) for block in blocks]
        except ValueError:
            return False
        if not certificates:
            return False
        own = None if found.key is None else found.key.public_key()
        if Trap.CHAIN_NOT_LOOKED_AT not in self._traps and certificates[0].public_key() != own:
            return False
        first, *others = certificates_pem(certificates)
        # The key is kept between them; of it, the line's end is shown (``GetDeleg``).
        found.content = b"".join((first, b"\n", *others))
        ends = [certificate.not_valid_after_utc.timestamp() for certificate in certificates]
        found.until = min(ends)
        return True

    def delete(self, owner: str, id_: str) -> None:
        """Remove one; `KeyError` if it is not there."""
        del self._stored[owner][id_]

    def clear(self) -> None:
        """Forget them all."""
        self._stored.clear()

    def _keyed(self, owner: str, id_: str, kind: Kind) -> bytes:
        key = rsa.generate_private_key(65537, _BITS)
        self._stored.setdefault(owner, {})[id_] = Delegation(kind, key)
        return request_for(key)

    def _new_id(self) -> str:
        return f"{self._random.getrandbits(48):012x}"
