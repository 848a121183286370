"""Jobs that work with a delegated proxy on a real CE: as long as they need it, and renewed."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
import trio

from arcbackend import (
    ARCBackend,
    AuthenticationError,
    ConfigurationError,
    CredentialRequirements,
    CredentialSet,
    DelegationFailing,
    DelegationRenewed,
    InterCEdeError,
    JobHandle,
    JobStatus,
    OutputSpec,
    PollerEvent,
    StaticCredentials,
    SubmissionSpec,
    TransportError,
    X509Proxy,
)
from arcbackend.protocol.delegation import parse_deleted
from arcbackend.protocol.messages import Scope
from arcbackend.protocol.requests import RequestBuilder
from arcbackend.x509 import CertificateChain, read_chain
from tests.integration.ce import CE
from tests.integration.jobs import SLEEP, TRUE, over
from tests.integration.polled import polled
from tests.integration.proxied import behind_proxy

pytestmark = pytest.mark.slurm

# What it has of its proxy, and what OpenSSL says to that.
LOOK = """
openssl verify -allow_proxy_certs -CApath "$X509_CERT_DIR" -untrusted "$X509_USER_PROXY" \
    "$X509_USER_PROXY"
cat "$X509_USER_PROXY"
"""
LOOKING = SubmissionSpec(
    executable="/bin/sh",
    arguments=("-c", LOOK),
    outputs=OutputSpec(include_unlisted=True),
)


class Renewing:
    """A provider whose proxies last some seconds only, each made when it is asked.

    Attributes:
        failing: how many questions for what is delegated to fail.
    """

    def __init__(self, ce: CE, user: str, lifetime: float) -> None:
        self.failing = 0
        self._ce = ce
        self._user = user
        self._lifetime = lifetime

    async def get(self, requirements: CredentialRequirements) -> CredentialSet:
        if self.failing and requirements.scopes == {Scope.CREATE.value}:
            self.failing -= 1
            raise OSError("the renewal daemon is away")
        make = partial(self._ce.proxy, self._user, self._lifetime)
        proxy = await trio.to_thread.run_sync(make)
        held = self._ce.credentials(self._user)
        return CredentialSet(token=held.token, proxy=X509Proxy(pem=proxy))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


@pytest.fixture
def user() -> str:
    """One who has no delegations yet."""
    return f"user-{uuid.uuid4().hex}"


async def _delegations(backend: ARCBackend) -> list[str]:
    """The identity's delegations on the CE."""
    response = await backend._session.call(RequestBuilder("1.1").list_delegations())
    return [each["id"] for each in json.loads(response.body)["delegation"]]


async def _chain(backend: ARCBackend, delegation: str) -> CertificateChain:
    """What the CE has stored."""
    request = RequestBuilder("1.1").get_delegation(delegation)
    chain = read_chain((await backend._session.call(request)).body)
    assert chain is not None
    return chain


async def _of_job(backend: ARCBackend, job: JobHandle) -> list[str]:
    """The delegations that the CE keeps for a job."""
    local = job.id.rsplit("/", 1)[1]
    request = RequestBuilder("1.1")._on_jobs(
        "jobs.delegations",  # type: ignore[arg-type]
        "delegations",
        RequestBuilder("1.1").status([local]).scope,  # type: ignore[arg-type]
        [local],
    )
    (answer,) = json.loads((await backend._session.call(request)).body)["job"]
    found = answer.get("delegation_id", [])
    return found if isinstance(found, list) else [found]


@pytest.mark.proxy
@pytest.mark.parametrize("rest", ["1.0", "1.1"])
async def test_a_job_reads_its_proxy_on_the_node(
    ce: CE, user: str, tmp_path: Path, rest: str
) -> None:
    async with ce.backend(ce.credentials(user), rest_version=rest) as backend:
        submission = await backend.submit(LOOKING)
        assert set((await over(backend, submission.handles)).values()) == {JobStatus.DONE}
        (output,) = (await backend.fetch_output(submission.handles, tmp_path)).values()
        assert output.stdout is not None
        said, _, pem = output.stdout.read_text().partition("\n")
        assert said.endswith("OK")
        chain = read_chain(pem.encode())
        assert chain is not None
        assert chain.identity.endswith(f"/CN={user}")
        # Its key is in the session directory, too, and stays on the CE.
        assert [path.name for path in output.files] == []
        assert output.complete
        delegations = await _delegations(backend)
        assert await _of_job(backend, submission.handles[0]) == delegations
        await backend.purge(submission.handles)
    # Another process finds it again, and so does one with another REST version.
    async with ce.backend(ce.credentials(user)) as backend:
        submission = await backend.submit(TRUE, count=3)
        assert await _delegations(backend) == delegations
        await over(backend, submission.handles)
        await backend.purge(submission.handles)


@pytest.mark.proxy
async def test_a_short_lived_proxy_is_renewed_while_its_job_runs(ce: CE, user: str) -> None:
    """The provider fails twice meanwhile, and nothing is submitted any more."""
    provider = Renewing(ce, user, 100)
    config = ce.config(freshness_margin=5, polling={"listing": 2, "documents": 5})
    ends = []
    async with ARCBackend(config, provider) as backend:
        submission = await backend.submit(SLEEP)
        (delegation,) = await _delegations(backend)
        async with polled(backend) as (poller, heard):
            poller.track(submission.handles)

            def told(kind: type[PollerEvent]) -> list[PollerEvent]:
                return [event for event in heard.events if isinstance(event, kind)]

            await heard.until(lambda: told(DelegationRenewed))
            provider.failing = 2
            with trio.fail_after(200):
                while not told(DelegationFailing) or heard.events[-1].kind != "delegation-renewed":
                    ends.append((await _chain(backend, delegation)).expiry)
                    assert ends[-1] > datetime.now(UTC)
                    await trio.sleep(2)
            ends.append((await _chain(backend, delegation)).expiry)
            failures, renewals = told(DelegationFailing), told(DelegationRenewed)
        assert await _delegations(backend) == [delegation]
        await backend.kill(submission.handles)
    assert [event.tries for event in failures] == [1, 2]  # type: ignore[union-attr]
    assert {event.delegation for event in renewals} == {delegation}  # type: ignore[union-attr]
    assert ends == sorted(ends)
    assert ends[0] < ends[-1] == renewals[-1].expires_at  # type: ignore[union-attr]


@pytest.mark.proxy
async def test_dead_and_revoked_delegations_block_nothing(
    ce: CE, user: str, tmp_path: Path
) -> None:
    builder = RequestBuilder("1.1")
    async with ce.backend(ce.credentials(user)) as backend:
        call = backend._session.call
        await call(builder.new_delegation())  # a key pair that nobody signs
        (dead,) = await _delegations(backend)
        delegation = await backend._delegations.for_jobs()
        assert delegation is not None
        assert set(await _delegations(backend)) == {delegation, dead}
        assert parse_deleted(await call(builder.delete_delegation(delegation)))
        await trio.sleep(10)  # it is trusted to be there for so long
        submission = await backend.submit(LOOKING)
        await over(backend, submission.handles)
        (output,) = (await backend.fetch_output(submission.handles, tmp_path)).values()
        assert output.stdout is not None
        assert output.stdout.read_text().partition("\n")[0].endswith("OK")
        assert await _of_job(backend, submission.handles[0]) == [delegation]
        await backend.purge(submission.handles)


@pytest.mark.proxy
async def test_proxies_that_are_of_no_use(ce: CE, user: str) -> None:
    """Each is a typed error before any job exists, and says what is wrong with it."""
    good = ce.credentials(user)
    bad: dict[str, tuple[bytes, tuple[type[InterCEdeError], ...]]] = {
        "expired": (ce.proxy(user, lifetime=-60), (AuthenticationError,)),
        "without a key": (
            _without_key(ce.proxy(user)),
            (AuthenticationError, ConfigurationError),
        ),
        "garbage": (b"garbage", (AuthenticationError, ConfigurationError)),
        "may not be delegated": (ce.proxy(user, path_length=0), (ConfigurationError,)),
    }
    if ce.auth == "proxy":
        bad["of a foreign CA"] = (ce.proxy(user, foreign_ca=True), (AuthenticationError,))
        bad["of nobody"] = (ce.proxy("nobody", listed=False), (AuthenticationError,))
    for pem, error in bad.values():
        credentials = CredentialSet(token=good.token, proxy=X509Proxy(pem=pem))
        async with ARCBackend(ce.config(), StaticCredentials(credentials)) as backend:
            with pytest.raises(error) as caught:
                await backend.submit(TRUE)
            assert caught.value.ce == ce.endpoint
            assert "PRIVATE" not in str(caught.value)
    async with ce.backend(ce.credentials(user)) as backend:
        assert await _delegations(backend) == []


def _without_key(pem: bytes) -> bytes:
    head, _, rest = pem.partition(b"-----BEGIN RSA PRIVATE KEY-----")
    return head + rest.partition(b"-----END RSA PRIVATE KEY-----")[2]


@pytest.mark.token
async def test_a_token_is_left_with_the_ce(ce: CE, user: str) -> None:
    """For its data staging: one delegation for each token, which the jobs have."""
    settings = {"auth": "token", "delegation": {"token": True}}
    async with ce.backend(ce.credentials(user), **settings) as backend:
        submissions = [await backend.submit(TRUE), await backend.submit(TRUE, count=2)]
        (delegation,) = await _delegations(backend)
        handles = [handle for each in submissions for handle in each.handles]
        assert [await _of_job(backend, handle) for handle in handles] == [[delegation]] * 3
        assert set((await over(backend, handles)).values()) == {JobStatus.DONE}
        await backend.purge(handles)
    async with ce.backend(ce.credentials(user), **settings) as backend:
        handles = list((await backend.submit(TRUE)).handles)
        assert len(await _delegations(backend)) == 2  # another token is another delegation
        await over(backend, handles)
        await backend.purge(handles)


@pytest.mark.proxy
async def test_a_ce_that_fails_for_a_while_collects_no_delegations(
    ce: CE, user: str, tmp_path: Path
) -> None:
    """Neither when its reply to a new one is lost, nor when it does not get the chain."""
    settings = {"timeouts": {"read": 3}, "retries": {"attempts": 1}}
    async with behind_proxy(ce, ce.credentials(user), tmp_path, **settings) as (backend, proxy):
        proxy.lose_answer("POST /arex/rest/1.1/delegations?action=new")
        with pytest.raises(TransportError):
            await backend.submit(TRUE)
        proxy.lose_request("PUT /arex/rest/1.1/delegations/", times=2)
        for _ in range(2):
            with pytest.raises(TransportError):
                await backend.submit(TRUE)
        submission = await backend.submit(TRUE)
        assert len(submission.handles) == 1
        assert sum("delegations?action=new" in line for line in proxy.requests) == 1
        (delegation,) = await _delegations(backend)
        assert await _of_job(backend, submission.handles[0]) == [delegation]
        await over(backend, submission.handles)
        await backend.purge(submission.handles)
