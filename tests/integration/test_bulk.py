"""Many jobs at once."""

from __future__ import annotations

import uuid
from collections import Counter
from pathlib import Path

import pytest

from arcbackend import CopyVars, FileRef, JobID, JobStatus, OutputSpec, SubmissionSpec
from arcbackend.models import Submission
from tests.integration.ce import CE, RealCE
from tests.integration.jobs import SLEEP, counted_requests, killed, local, over

pytestmark = [pytest.mark.slurm, pytest.mark.once]

DUMP = """\
#!/bin/sh
{ echo "$COMMON/$MINE"; cat secret.txt; stat -c %a secret.txt; } > seen.txt
"""


async def test_thousands_of_like_copies(ce: CE) -> None:
    """Few requests, distinct ids, none missing from an answer; then none left on the CE."""
    async with ce.backend() as backend:
        ids: list[JobID] = []
        try:
            with ce.partition_down():
                with counted_requests() as requests:
                    submission = await backend.submit(SLEEP, count=1000)
                assert requests == Counter({"versions": 1, "jobs.new": 1})
                assert submission.failures == {}
                assert [handle.copy_index for handle in submission.handles] == list(range(1000))
                with counted_requests() as requests:
                    more = await backend.submit(SLEEP, count=2000)
                assert requests == Counter({"jobs.new": 2})
                ids = [handle.id for handle in (*submission.handles, *more.handles)]
                assert len(set(ids)) == 3000

                unknown = [JobID(ids[0].rsplit("/", 1)[0] + f"/no{n:06}such") for n in range(50)]
                asked = [*ids[:1500], *unknown, *ids[1500:]]
                with counted_requests() as requests:
                    states = await backend.status(asked)
                _one_look_or_two(requests)
                assert list(states) == asked
                assert [id_ for id_ in asked if states[id_] is JobStatus.UNKNOWN] == unknown

                filler = [JobID(f"{ids[0]}no{n}") for n in range(7000)]
                with counted_requests() as requests:
                    states = await backend.status([*ids, *filler])
                _one_look_or_two(requests)
                assert len(states) == 10_000

                outcomes = await backend.kill(ids)
                assert list(outcomes) == ids
                assert {outcome.ok for outcome in outcomes.values()} == {True}
        finally:  # thousands of jobs dying would slow down the tests that come after
            states = await killed(backend, ids, within=900)
        assert set(states.values()) == {JobStatus.ABORTED}
        outcomes = await backend.purge(ids)
        assert {outcome.ok for outcome in outcomes.values()} == {True}


async def test_copies_see_their_own_environment_and_secret_and_no_other(
    ce: CE, tmp_path: Path
) -> None:
    (tmp_path / "dump.sh").write_text(DUMP)
    spec = SubmissionSpec(
        executable="dump.sh",
        inputs=(FileRef(name="dump.sh", source=tmp_path / "dump.sh"),),
        outputs=OutputSpec(include_unlisted=True),
        environment={"COMMON": "all", "MINE": "overridden"},
    )
    secrets = [uuid.uuid4().hex for _ in range(200)]
    copies = [
        CopyVars(environment={"MINE": f"copy {n}"}, secrets={"secret.txt": secret.encode()})
        for n, secret in enumerate(secrets)
    ]
    async with ce.backend() as backend:
        submission = await backend.submit(spec, copies=copies)
        assert submission.failures == {}
        assert [handle.copy_index for handle in submission.handles] == list(range(200))
        states = await over(backend, submission.handles, within=900)
        assert set(states.values()) == {JobStatus.DONE}
        seen = _files(ce, submission, "seen.txt")
        assert seen == [f"all/copy {n}\n{secrets[n]}600\n" for n in range(200)]
        # In the control directory (descriptions, batch scripts): not one of them.
        pattern = "|".join(secrets)
        if isinstance(ce, RealCE):
            found = ce.run("sh", "-c", f"grep -rlE '{pattern}' {ce.control_directory} || true")
            assert found == ""
        outcomes = await backend.purge(submission.handles)
        assert {outcome.ok for outcome in outcomes.values()} == {True}


def _one_look_or_two(requests: Counter[str]) -> None:
    """A job whose files the CE is just moving is looked at twice: docs/explanation/arc-rest.md."""
    assert set(requests) == {"jobs.status", "jobs.list"}
    assert max(requests.values()) <= 2


def _files(ce: CE, submission: Submission, name: str) -> list[str]:
    """The file of each job, read on the CE."""
    paths = [f"{ce.session_directory}/{local(handle)}/{name}" for handle in submission.handles]
    end = uuid.uuid4().hex
    text = ce.run("sh", "-c", f'for f; do cat "$f"; printf {end}; done', "sh", *paths)
    return text.split(end)[:-1]
