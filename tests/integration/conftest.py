"""One run of the suite on every instance of stacks.yml, each started when its first test comes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from tests.integration.ce import CannotRunHere, Instance, RealCE, manifest

_not_run: list[str] = []
_versions: dict[str, str] = {}


def _in_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


@pytest.fixture(scope="session", params=manifest(), ids=lambda instance: instance.id)
def ce(request: pytest.FixtureRequest) -> Iterator[RealCE]:
    """A real CE. ``ARCBACKEND_KEEP_STACKS=1`` takes one that runs, and leaves it running."""
    instance: Instance = request.param
    keep = os.environ.get("ARCBACKEND_KEEP_STACKS") == "1"
    try:
        found = (RealCE.running(instance) if keep else None) or RealCE.start(instance)
    except CannotRunHere as reason:
        _not_run.append(f"{instance.id}: {reason}")
        if _in_ci():
            pytest.fail(f"in CI every stack must run; {instance.id}: {reason}")
        pytest.skip(f"CANNOT RUN {instance.id}: {reason}")
    _versions[instance.id] = found.arc_version
    print(f"\n{instance.id}: ARC {found.arc_version} at {found.endpoint}", file=sys.__stderr__)
    yield found
    if not keep:
        found.stop()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test the markers of the stack that it runs on."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        instance = callspec.params.get("ce") if callspec is not None else None
        if isinstance(instance, Instance):
            item.add_marker("stack")
            for marker in instance.markers:
                item.add_marker(marker)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what could not be run, and on which versions the rest ran."""
    for instance, version in _versions.items():
        terminalreporter.write_line(f"ran on {instance}: ARC {version}")
    for line in dict.fromkeys(_not_run):
        terminalreporter.write_sep("!", f"NOT RUN: {line}", red=True, bold=True)
