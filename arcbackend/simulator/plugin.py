"""The pytest plug-in: a fixture ``arc_ce``, a simulated CE for each test that asks for it.

In ``conftest.py``: ``pytest_plugins = ["arcbackend.simulator.plugin"]``. It is not loaded alone:
that would cost every test run on a machine where arcbackend is installed.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from arcbackend.simulator.threaded import ThreadedSimulator, simulator_in_thread

__all__ = ["arc_ce"]


def pytest_configure(config: pytest.Config) -> None:
    """Tell pytest the marker."""
    config.addinivalue_line(
        "markers", "arc_ce(**settings): what the simulated CE of this test is like"
    )


@pytest.fixture
def arc_ce(request: pytest.FixtureRequest) -> Iterator[ThreadedSimulator]:
    """A simulated ARC CE on a loopback port, fresh for this test.

    Settings come from the nearest marker: ``@pytest.mark.arc_ce(lrms="condor", publish_every=1)``.
    It runs in a thread of its own, so it serves tests under trio, asyncio, or neither, and
    programs that the test starts.
    """
    marker = request.node.get_closest_marker("arc_ce")
    with simulator_in_thread(**(marker.kwargs if marker else {})) as ce:
        yield ce
