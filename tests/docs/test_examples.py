"""The example policies are policies. The example programs run on a CE: tests/integration."""

from __future__ import annotations

from pathlib import Path

import pytest

from arcbackend import Policy

POLICIES = sorted((Path(__file__).parents[2] / "examples" / "policies").glob("*.toml"))


def test_there_are_some() -> None:
    assert POLICIES


@pytest.mark.parametrize("file", POLICIES, ids=lambda file: file.name)
def test_an_example_policy_is_one_for_every_ce_that_it_names(file: Path) -> None:
    policy = Policy.load(file)
    assert policy.name == file.stem
    for endpoint in policy.ce:
        assert policy.for_ce(endpoint) != policy
