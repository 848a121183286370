"""DIRAC's map of ARC states, next to ours.

A fact about another code base: src/DIRAC/Resources/Computing/AREXComputingElement.py of the
version named, STATES_MAP from line 68, read on 2026-11-25.
"""

from __future__ import annotations

from typing import Final

from arcbackend.lifecycle.definition import JOB
from generator.markdown import table

VERSION: Final = "9.1.22"
STATES_MAP: Final = {
    "Accepting": "Waiting",
    "Accepted": "Waiting",
    "Preparing": "Waiting",
    "Prepared": "Waiting",
    "Submitting": "Waiting",
    "Queuing": "Waiting",
    "Running": "Running",
    "Held": "Running",
    "Exitinglrms": "Running",
    "Other": "Running",
    "Executed": "Running",
    "Finishing": "Running",
    "Finished": "Done",
    "Failed": "Failed",
    "Killing": "Aborted",
    "Killed": "Aborted",
    "Wiped": "Aborted",
    "None": "Aborted",
}
_SAME: Final = {
    "waiting": "Waiting",
    "running": "Running",
    "done": "Done",
    "failed": "Failed",
    "aborted": "Aborted",
    "unknown": "Unknown",
}


def comparison() -> str:
    """Every state of either map."""
    ours = {arc.capitalize(): (arc, state) for arc, state in JOB.by_arc_state.items()}
    rows = []
    for theirs in dict.fromkeys([*ours, *STATES_MAP]):
        arc, state = ours.get(theirs, ("", None))
        status = state.status if state else ""
        mapped = STATES_MAP.get(theirs, "(no entry)")
        differs = "" if _SAME.get(status) == mapped else "yes"
        rows.append((arc, status, f"`{theirs}` → {mapped}", differs))
    return table(["ARC state", "JobStatus", f"DIRAC {VERSION}", "differs"], rows)
