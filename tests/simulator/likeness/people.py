"""Who holds conversations: users, good and bad credentials."""

from __future__ import annotations

import re
import ssl
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.simulator.likeness.asking import Asker
from tests.simulator.likeness.endpoint import Endpoint

_ASKED_FOR: dict[str, dict[str, Any]] = {
    "read": {"scopes": ["compute.read"]},
    "create": {"scopes": ["compute.create"]},
    "modify": {"scopes": ["compute.modify"]},
    "cancel": {"scopes": ["compute.cancel"]},
    "no scopes": {"scopes": [""]},
    "odd scopes": {"scopes": ["storage.read:/", "nosuch"]},
    "expired": {"lifetime": -3600},
    "another audience": {"audience": "nosuch"},
}
"""What is special about somebody's token."""

_FIXED = {
    "none": None,
    "empty": "",
    "garbage": "Bearer garbage",
    "basic": "Basic dXNlcjpwYXNz",
    "only bearer": "Bearer",
}
_FORMS = {
    "lower-case bearer": "bearer {0}",
    "no scheme": "{0}",
    "two tokens": "Bearer {0} {0}",
    "unsigned": "Bearer {0}",
}
"""The header with everybody's token in an odd form."""

_NO_SIGNATURE = "A" * 43
_PEM = re.compile(rb"-----BEGIN [^-]+-----[^-]+-----END [^-]+-----\n")


class People:
    """Credentials, each made when it is first asked for.

    Where a conversation has users of its own, `of` tells them from the others'.
    """

    def __init__(self, endpoint: Endpoint, run: str, folder: Path) -> None:
        self._endpoint = endpoint
        self._run = run
        self._folder = folder
        self._tokens: dict[tuple[str, str], str] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._proxies: dict[str, bytes] = {}
        self._askers: dict[tuple[str, str], Asker] = {}

    @classmethod
    @asynccontextmanager
    async def of_one_run(cls, endpoint: Endpoint) -> AsyncIterator[People]:
        """Users whom the CE has not met; in the end, none of their jobs is left."""
        with tempfile.TemporaryDirectory() as folder:
            people = cls(endpoint, f"likeness-{uuid.uuid4().hex[:8]}", Path(folder))
            try:
                yield people
                await people._leave_nothing()
            finally:
                for asker in people._askers.values():
                    await asker.close()

    def subject(self, who: str, of: str) -> str:
        """Whose a token is."""
        return f"{self._run}{of}{'-other' if who == 'other' else ''}"

    async def token(self, who: str, of: str) -> str:
        """A token, without the scheme."""
        if (who, of) not in self._tokens:
            self._tokens[who, of] = await self._token(who, self.subject(who, of))
        return self._tokens[who, of]

    async def _token(self, who: str, subject: str) -> str:
        if who == "another issuer":
            return _of_another_issuer(subject)
        if who == "endpoint audience":
            return await self._endpoint.token(subject, audience=self._endpoint.url)
        return await self._endpoint.token(subject, **_ASKED_FOR.get(who, {}))

    async def authorization(self, who: str, of: str) -> str | None:
        """The value of the header; None: no header."""
        if who in _FIXED:
            return _FIXED[who]
        token = await self.token("user" if who in _FORMS else who, of)
        if who == "unsigned":
            token = f"{token.rsplit('.', 1)[0]}.{_NO_SIGNATURE}"
        return _FORMS.get(who, "Bearer {0}").format(token)

    async def proxy(self, kind: str) -> bytes:
        """A proxy of a user who is known only by it."""
        if kind not in self._proxies:
            special = kind if kind in ("other proxy", "unlisted proxy") else ""
            user = "-".join([self._run, *special.split()])
            base = "proxy" if kind == "proxy without its chain" else kind
            made = await self._endpoint.proxy(base, user)
            self._proxies[kind] = made if base == kind else b"".join(_PEM.findall(made)[:2])
        return self._proxies[kind]

    async def context(self, certificate: str) -> ssl.SSLContext:
        """What a connection is opened with: a kind of proxy, ``tls 1.3`` or nothing special."""
        if certificate not in self._contexts:
            context = ssl.create_default_context(cafile=self._endpoint.ca_file)
            if certificate == "tls 1.3":
                context.minimum_version = ssl.TLSVersion.TLSv1_3
            elif certificate:
                path = self._folder / certificate.replace(" ", "-")
                path.touch(0o600)
                path.write_bytes(await self.proxy(certificate))
                context.load_cert_chain(path)
            self._contexts[certificate] = context
        return self._contexts[certificate]

    async def asker(self, of: str, certificate: str = "") -> Asker:
        """Somebody who asks beside the conversations of the same user."""
        if (of, certificate) not in self._askers:
            token = "" if certificate else await self.token("user", of)
            context = await self.context(certificate)
            self._askers[of, certificate] = Asker(self._endpoint.url, context, token)
        return self._askers[of, certificate]

    async def _leave_nothing(self) -> None:
        """Have all jobs removed, as soon as they are dead; it is not waited for."""
        for of in {of for _, of in self._tokens}:
            await self.asker(of)
        for asker in self._askers.values():
            await asker.remove_all()


def _of_another_issuer(subject: str) -> str:
    """A token of an issuer that no CE knows."""
    key = rsa.generate_private_key(65537, 2048)
    until = int(time.time()) + 3600
    claims = {"iss": "https://issuer.invalid", "sub": subject, "aud": "arc", "exp": until}
    return jwt.encode(claims | {"scope": "compute.read"}, key, "RS256")
