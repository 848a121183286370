"""One run of the suite on every instance of stacks.yml, each started when its first test comes.

With xdist (``-n 3``) the tests of an instance all go to one worker: it starts the instance, has it
for itself, and stops it, while other workers do so with others.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from tests.integration.ce import CE, CannotRunHere, Instance, RealCE, manifest
from tests.integration.simulated import SimulatedCE

INSTANCES = manifest()
RAN, NOT_RUN = "ran on", "NOT RUN"

# Of the instances that were to be started here: what is to be said of them at the end.
_outcomes: dict[Instance, tuple[str, str]] = {}
# The same of all, where the reports of all tests come together.
_told: dict[tuple[str, str], None] = {}


def _in_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def _instance(item: pytest.Item) -> Instance | None:
    """What a test runs on."""
    callspec = getattr(item, "callspec", None)
    instance = callspec.params.get("ce") if callspec is not None else None
    return instance if isinstance(instance, Instance) else None


def _position(item: pytest.Item) -> int:
    """The place in the manifest of the instance that a test runs on; before it, all the others."""
    instance = _instance(item)
    return -1 if instance is None else INSTANCES.index(instance)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on each instance that has all the stack markers which the test has.

    There it gets the instance's markers.
    """
    if "ce" in metafunc.fixturenames:
        known = {marker for instance in INSTANCES for marker in instance.markers}
        asked = known & {marker.name for marker in metafunc.definition.iter_markers()}
        chosen = [_param(each) for each in INSTANCES if asked <= each.markers]
        metafunc.parametrize("ce", chosen, indirect=True, scope="session")


def _param(instance: Instance) -> pytest.ParameterSet:
    marks = [getattr(pytest.mark, name) for name in ("stack", *sorted(instance.markers))]
    return pytest.param(instance, id=instance.id, marks=marks)


@pytest.fixture(scope="session")
def ce(request: pytest.FixtureRequest) -> Iterator[CE]:
    """A CE. ``ARCBACKEND_KEEP_STACKS=1`` takes a real one that runs, and leaves it running."""
    instance: Instance = request.param
    keep = not instance.simulates and os.environ.get("ARCBACKEND_KEEP_STACKS") == "1"
    try:
        found = (RealCE.running(instance) if keep else None) or _start(instance)
    except CannotRunHere as reason:
        _outcomes[instance] = (NOT_RUN, f"{instance.id}: {reason}")
        if _in_ci():
            pytest.fail(f"in CI every stack must run; {instance.id}: {reason}")
        pytest.skip(f"CANNOT RUN {instance.id}: {reason}")
    _outcomes[instance] = (RAN, f"{instance.id}: ARC {found.arc_version}")
    _say(request.config, f"{instance.id}: ARC {found.arc_version} at {found.endpoint}")
    yield found
    if not keep:
        found.stop()


def _start(instance: Instance) -> CE:
    return SimulatedCE(instance) if instance.simulates else RealCE.start(instance)


def _say(config: pytest.Config, line: str) -> None:
    """Tell it at once: on the terminal, also from a worker."""
    with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n{line}", file=sys.stderr)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give a worker an instance at a time, those with the most tests first.

    (``--dist loadgroup`` does nothing with pytest 9.2 and xdist 3.8: pytest-xdist issue 1386.)
    """
    # (xdist has no types, and it may not be there)
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped] # noqa: PLC0415

    class ByInstance(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            """The instance that is named in a test's id; the longest, for one begins another."""
            named = [instance.id for instance in INSTANCES if instance.id in nodeid]
            return max(named, key=len, default=nodeid)

    return ByInstance(config, log)


@pytest.hookimpl(trylast=True)  # pytest's own order knows only how many instances a test has
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start each stack only once."""
    items.sort(key=_position)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a report say how its instance fared: reports come from every worker.

    What a test that failed left in the batch system is removed: it would be in the way of the next.
    """
    report = yield
    found = getattr(item, "funcargs", {}).get("ce")
    if call.when == "call" and report.failed and isinstance(found, CE):
        try:
            found.batch.clear()
        except Exception as error:  # the CE may be what failed
            report.sections.append(("batch system", f"not cleared after the failure: {error!r}"))
    if (instance := _instance(item)) in _outcomes:
        report.user_properties.append(_outcomes[instance])
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect what the reports say of the instances."""
    for what, line in report.user_properties:
        if what in (RAN, NOT_RUN):
            _told[what, str(line)] = None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what could not be run, and on which versions the rest ran."""
    for what, line in sorted(_told, key=lambda told: (told[0] == NOT_RUN, told[1])):
        if what == RAN:
            terminalreporter.write_line(f"ran on {line}")
        else:
            terminalreporter.write_sep("!", f"NOT RUN: {line}", red=True, bold=True)
