"""What a simulated job does: what a script says, its environment, or its command."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcbackend.simulator.jobs import VARIABLES, InnerState, Plan, default_plan
from tests.simulator.laboratory import described


@pytest.mark.parametrize(
    ("command", "plan"),
    [
        (("/bin/sleep", "20"), Plan(run_seconds=20)),
        (("/usr/bin/sleep", "0.5", "1"), Plan(run_seconds=1.5)),
        (("/bin/sleep", "long"), Plan(exit_code=1)),
        (("/bin/sleep", "-1"), Plan(exit_code=1)),
        (("/bin/sleep", "nan"), Plan(exit_code=1)),
        (("/bin/true",), Plan()),
        (("/bin/false",), Plan(exit_code=1)),
        (("/bin/sh", "-c", "sleep 600"), Plan()),
    ],
)
def test_well_known_commands(command: tuple[str, ...], plan: Plan) -> None:
    asked = described(executable=command[0], arguments=command[1:])
    assert default_plan(asked) == plan


def test_variables() -> None:
    environment = {
        "OTHER": "x",
        "SIMULATOR_RUN_SECONDS": "12.5",
        "SIMULATOR_EXIT_CODE": "3",
        "SIMULATOR_HOLD_AFTER": "1",
        "SIMULATOR_HOLD_SECONDS": "2",
        "SIMULATOR_CPU_SECONDS": "7",
        "SIMULATOR_MEMORY_BYTES": "1000",
        "SIMULATOR_STDOUT": "é",
        "SIMULATOR_STDERR": "err",
        "SIMULATOR_FILES": '{"result": "42", "d/e": ""}',
        "SIMULATOR_FAIL_IN": "SUBMIT",
        "SIMULATOR_FAILURE": "because",
    }
    assert environment.keys() - {"OTHER"} == VARIABLES.keys()
    assert default_plan(described(environment=environment)) == Plan(
        run_seconds=12.5,
        exit_code=3,
        hold_after=1,
        hold_seconds=2,
        cpu_seconds=7,
        memory=1000,
        stdout="é".encode(),
        stderr=b"err",
        files={"result": b"42", "d/e": b""},
        fail_in=InnerState.SUBMIT,
        failure="because",
    )


def test_a_variable_is_stronger_than_the_command() -> None:
    asked = described(
        executable="/bin/sleep", arguments=("5",), environment={"SIMULATOR_EXIT_CODE": "1"}
    )
    assert default_plan(asked) == Plan(run_seconds=5, exit_code=1)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SIMULATOR_RUN_SECONDS", "soon"),
        ("SIMULATOR_RUN_SECONDS", "-1"),
        ("SIMULATOR_RUN_SECONDS", "inf"),
        ("SIMULATOR_EXIT_CODE", "256"),
        ("SIMULATOR_EXIT_CODE", "1.5"),
        ("SIMULATOR_FAIL_IN", "RUNNING"),
        ("SIMULATOR_FAIL_IN", "ACCEPTED"),
        ("SIMULATOR_FILES", "[]"),
        ("SIMULATOR_FILES", '{"a": 1}'),
        ("SIMULATOR_FILES", "{"),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"{name} cannot be"):
        default_plan(described(environment={name: text}))


def test_a_misspelt_variable_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no SIMULATOR_RUNSECONDS"):
        default_plan(described(environment={"SIMULATOR_RUNSECONDS": "1"}))


@given(st.sampled_from(sorted(VARIABLES)), st.text(max_size=20))
def test_any_value_makes_a_plan_or_is_refused(name: str, text: str) -> None:
    with suppress(ValueError):
        assert isinstance(default_plan(described(environment={name: text})), Plan)
