"""A simulated ARC 7 CE, to try things on and to test against (extra ``arcbackend[simulator]``).

Not imported by the rest of the package, and worth what its likeness to the real CE is worth:
docs/explanation/simulator.md says how that is tested, and what is known to differ.
"""

from arcbackend.simulator.fault_rules import (
    Cut,
    Fault,
    FewerInstances,
    FixedTime,
    Latency,
    LognormalTime,
    SlowAccept,
    Stall,
    Status,
    UniformTime,
)
from arcbackend.simulator.jobs import Plan
from arcbackend.simulator.settings import Pace, SimulatorSettings
from arcbackend.simulator.simulator import Simulator
from arcbackend.simulator.traps import TRAPS, Trap

__all__ = [
    "TRAPS",
    "Cut",
    "Fault",
    "FewerInstances",
    "FixedTime",
    "Latency",
    "LognormalTime",
    "Pace",
    "Plan",
    "Simulator",
    "SimulatorSettings",
    "SlowAccept",
    "Stall",
    "Status",
    "Trap",
    "UniformTime",
]
