"""What the simulator is compared with is still what real CEs answer.

Each simulator is compared with the same recordings (tests/simulator/test_likeness.py): so what is
shown of a real CE here is shown of the two against each other.
"""

from __future__ import annotations

import pytest

from tests.integration.ce import CE
from tests.simulator.likeness.comparing import differences
from tests.simulator.likeness.endpoint import Endpoint
from tests.simulator.likeness.recording import observe, read, recorded_of

pytestmark = [pytest.mark.real, pytest.mark.token]


async def test_a_real_ce_answers_as_recorded(ce: CE) -> None:
    """If it does not: `python -m tests.simulator.likeness.record`, and look at what is new."""
    found = await observe(Endpoint(ce))
    wrong = [str(each) for each in differences(read(recorded_of(ce.instance)), found)]
    assert not wrong, f"{len(wrong)} differences\n" + "\n".join(wrong)
