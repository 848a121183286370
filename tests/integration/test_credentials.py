"""Where credentials come from: files that are renewed under a backend, and audiences."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from arcbackend import (
    ARCBackend,
    AuthenticationError,
    CredentialRequirements,
    CredentialSet,
    FileCredentials,
    JobID,
    JobStatus,
)
from tests.integration.ce import CE
from tests.integration.jobs import counted_requests
from tests.integration.test_identity import Changing, token

pytestmark = [pytest.mark.slurm, pytest.mark.token]


def _renew(file: Path, token: str) -> None:
    """Put a token into a file as renewal daemons do."""
    fresh = file.with_name("fresh")
    fresh.write_text(f"{token}\n")
    os.utime(fresh, (0, 0))  # long ago: else the provider waits until it is sure that it is whole
    fresh.replace(file)


async def test_a_token_file_that_is_renewed_under_a_backend(ce: CE, tmp_path: Path) -> None:
    file = tmp_path / "token"
    unknown = JobID("nosuchjob")
    credentials = FileCredentials(environ={"BEARER_TOKEN_FILE": str(file)})
    config = ce.config(auth="token", rest_version="1.1", live_listing="never")
    async with ARCBackend(config, credentials) as backend:
        with pytest.raises(AuthenticationError, match="is not there"):
            await backend.status([unknown])

        _renew(file, ce.token(lifetime=-60))
        with counted_requests() as requests, pytest.raises(AuthenticationError):
            await backend.status([unknown])
        assert requests == Counter({"jobs.status": 1})

        # It is seen to have expired, and nothing is sent with it again.
        _renew(file, ce.token().rsplit(".", 1)[0] + ".c2lnbmF0dXJl")
        with counted_requests() as requests, pytest.raises(AuthenticationError):
            await backend.status([unknown])
        assert requests == Counter({"jobs.status": 1})

        # It is not seen to be bad: the CE says so, the file is read anew, and the call goes on.
        _renew(file, ce.token())
        with counted_requests() as requests:
            (status,) = (await backend.status([unknown])).values()
        assert status is JobStatus.UNKNOWN
        assert requests == Counter({"jobs.status": 2})


class Issuer(Changing):
    """Gives a token for the audience that it is asked for."""

    def __init__(self, ce: CE) -> None:
        super().__init__()
        self._ce = ce

    async def get(self, requirements: CredentialRequirements) -> CredentialSet:
        if not self.asked:
            self.held = [token(self._ce.token(audience=requirements.resource))]
        return await super().get(requirements)


async def test_the_audience_is_taken_letter_by_letter(ce: CE) -> None:
    """The CE lets in tokens for https://localhost:<port> and for "arc" (access.conf)."""
    unknown = JobID("nosuchjob")
    for audience, let_in in [
        ("endpoint", True),
        ("arc", True),
        ("host", False),
        ("https://wlcg.cern.ch/jwt/v1/any", False),
    ]:
        config = ce.config(
            auth="token", audience=audience, rest_version="1.1", live_listing="never"
        )
        async with ARCBackend(config, Issuer(ce)) as backend:
            if let_in:
                assert list((await backend.status([unknown])).values()) == [JobStatus.UNKNOWN]
            else:
                with pytest.raises(AuthenticationError, match="audience"):
                    await backend.status([unknown])
