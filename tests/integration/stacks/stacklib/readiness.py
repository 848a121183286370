"""Waiting for a started instance by asking it."""

import http.client
import json
import ssl
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

from . import namespace, proxies, tokens
from .definition import Definition
from .errors import StackError
from .instance import Instance

# A user of its own: no test sees the trial job in a listing.
_SUBJECT = "stack-trial"
_JOB = '&(executable="/bin/true")(jobname="stack-trial")'
_LIFETIME = 600
_PAUSE = 0.1

_T = TypeVar("_T")


class NotYetError(Exception):
    """The instance cannot do this yet; the message says what it answered."""


@dataclass(frozen=True)
class _Credential:
    """What a request is sent with."""

    token: str | None = field(default=None, repr=False)
    proxy: str | None = field(default=None, repr=False)


_NONE = _Credential()


@dataclass(frozen=True)
class Readiness:
    """The questions to one instance, and how long they may take altogether."""

    instance: Instance
    endpoint: str
    kinds: Sequence[str]
    """Which credentials its configuration lets in: each is tried."""
    deadline: float
    """On the monotonic clock."""

    def wait(self) -> None:
        """Return when the instance can run a job, or say which step it did not reach."""
        # The last credentials to be made inside.
        token = self._wait("making credentials", self._token)
        self._wait("the batch system", self._batch_system)
        self._wait("the REST interface", lambda: self._ask("GET", ""))
        credential = _NONE
        if "token" in self.kinds:
            credential = token
            self._wait("accepting a token", lambda: self._ask("GET", "/1.0/jobs", token))
        if "proxy" in self.kinds:
            credential = proxy = self._wait("making a proxy", self._proxy)
            self._wait("accepting a proxy", lambda: self._ask("GET", "/1.0/jobs", proxy))
        job = self._wait("accepting a trial job", lambda: self._submit(credential))
        self._wait("running a trial job", lambda: self._finished(credential, job))
        self._wait("removing the trial job", lambda: self._clean(credential, job))

    def _wait(self, what: str, question: Callable[[], _T]) -> _T:
        while True:
            try:
                return question()
            except (NotYetError, StackError) as error:
                answer = error
            if namespace.running(self.instance) is None:
                raise StackError(f"{self.instance.name} ended while waiting for {what}: {answer}")
            if time.monotonic() > self.deadline:
                raise StackError(f"{self.instance.name}: no success with {what}: {answer}")
            time.sleep(_PAUSE)

    def _token(self) -> _Credential:
        try:
            token = tokens.mint(self.instance, _SUBJECT, tokens.ALL_SCOPES, _LIFETIME)
        except ValueError as error:  # half written
            raise NotYetError(str(error)) from None
        return _Credential(token=token)

    def _proxy(self) -> _Credential:
        request = proxies.ProxyRequest(_SUBJECT, _LIFETIME)
        return _Credential(proxy=proxies.make(self.instance, request))

    def _batch_system(self) -> None:
        definition = Definition.load(self.instance.stack)
        done = namespace.run_inside(self.instance, list(definition.ready_command))
        if set(done.stdout.split()) != {definition.ready_answer}:
            raise NotYetError(done.stdout.strip() or done.stderr.strip())

    def _submit(self, credential: _Credential) -> str:
        content_type = {"Content-Type": "application/rsl"}
        path = "/1.0/jobs?action=new"
        answer = self._ask("POST", path, credential, _JOB.encode(), content_type)
        job = _only(json.loads(answer)["job"])
        if job["status-code"] != "201":
            raise NotYetError(str(job))
        return str(job["id"])

    def _finished(self, credential: _Credential, job: str) -> None:
        # The live list, not `action=status`, which lags by a minute.
        answer = self._ask("GET", "/1.1/jobs?state=FINISHED,FAILED,KILLED", credential)
        states = {each["id"]: each["state"] for each in json.loads(answer or b'{"job":[]}')["job"]}
        if states.get(job) != "FINISHED":
            raise NotYetError(f"its state is {states.get(job, 'not final yet')}")

    def _clean(self, credential: _Credential, job: str) -> None:
        body = json.dumps({"job": [{"id": job}]}).encode()
        content_type = {"Content-Type": "application/json"}
        self._ask("POST", "/1.0/jobs?action=clean", credential, body, content_type)

    def _ask(
        self,
        method: str,
        path: str,
        credential: _Credential = _NONE,
        body: bytes | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> bytes:
        request = urllib.request.Request(
            f"{self.endpoint}/arex/rest{path}", body, dict(headers), method=method
        )
        request.add_header("Accept", "application/json")
        if credential.token:
            request.add_header("Authorization", f"Bearer {credential.token}")
        context = ssl.create_default_context(cafile=self.instance.credentials / "ca.pem")
        if credential.proxy:
            with tempfile.NamedTemporaryFile("w", dir=self.instance.credentials) as file:
                file.write(credential.proxy)
                file.flush()
                context.load_cert_chain(file.name)
        # Whatever proxy the host is set to use, this goes to the same machine.
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        try:
            with opener.open(request, timeout=10) as response:
                return bytes(response.read())
        except (OSError, http.client.HTTPException) as error:
            raise NotYetError(f"{method} {request.full_url}: {error}") from None


def _only(value: Any) -> Any:
    """Return the only element of a list, which version 1.0 of the interface does not wrap."""
    return value[0] if isinstance(value, list) else value
