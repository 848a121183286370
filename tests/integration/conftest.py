"""One run of the suite on every instance of stacks.yml, each started when its first test comes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from tests.integration.ce import CannotRunHere, Instance, RealCE, manifest

INSTANCES = manifest()

_not_run: list[str] = []
_versions: dict[str, str] = {}


def _in_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def _position(item: pytest.Item) -> int:
    """The place in the manifest of the instance that a test runs on; before it, all the others."""
    callspec = getattr(item, "callspec", None)
    instance = callspec.params.get("ce") if callspec is not None else None
    return INSTANCES.index(instance) if isinstance(instance, Instance) else -1


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on each instance that has all the stack markers which the test has.

    There it gets the instance's markers.
    """
    if "ce" in metafunc.fixturenames:
        known = {marker for instance in INSTANCES for marker in instance.markers}
        asked = known & {marker.name for marker in metafunc.definition.iter_markers()}
        chosen = [_param(each) for each in INSTANCES if asked <= set(each.markers)]
        metafunc.parametrize("ce", chosen, indirect=True, scope="session")


def _param(instance: Instance) -> pytest.ParameterSet:
    marks = [getattr(pytest.mark, name) for name in ("stack", *instance.markers)]
    return pytest.param(instance, id=instance.id, marks=marks)


@pytest.fixture(scope="session")
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


@pytest.hookimpl(trylast=True)  # pytest's own order knows only how many instances a test has
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start each stack only once."""
    items.sort(key=_position)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what could not be run, and on which versions the rest ran."""
    for instance, version in _versions.items():
        terminalreporter.write_line(f"ran on {instance}: ARC {version}")
    for line in dict.fromkeys(_not_run):
        terminalreporter.write_sep("!", f"NOT RUN: {line}", red=True, bold=True)
