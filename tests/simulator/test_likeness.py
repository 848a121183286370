"""The simulator answers as the real CEs do whose answers were recorded."""

from __future__ import annotations

import pytest

from tests.integration.ce import Instance, manifest
from tests.integration.simulated import SimulatedCE
from tests.simulator.likeness.comparing import differences, unknown
from tests.simulator.likeness.endpoint import Endpoint
from tests.simulator.likeness.known import KNOWN_DIFFERENCES
from tests.simulator.likeness.recording import observe, path_of, read, recorded_of

SIMULATORS = [
    Instance(f"simulator-{real.lrms}", real.version, real.config, simulates=real.lrms)
    for real in manifest()
    if not real.simulates and path_of(recorded_of(real)).exists()
]


@pytest.mark.parametrize("simulator", SIMULATORS, ids=[each.id for each in SIMULATORS])
async def test_the_simulator_answers_as_the_real_ce(simulator: Instance) -> None:
    real = recorded_of(simulator)
    ce = SimulatedCE(simulator)
    try:
        found = await observe(Endpoint(ce))
    finally:
        ce.stop()
    known = [each for each in KNOWN_DIFFERENCES if each.holds_for(real)]
    wrong = unknown(differences(read(real), found), known)
    assert not wrong, f"{len(wrong)} differences\n" + "\n".join(wrong)
