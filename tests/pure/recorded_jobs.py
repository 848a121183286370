"""What real CEs said of jobs that ended in every way (tests/integration/record_jobs.py)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STACKS = ("arc-slurm-7.0.0", "arc-slurm-7.2.0", "arc-condor-7.0.0")


@dataclass(frozen=True)
class Recorded:
    """One job.

    Attributes:
        stack: batch system and version of the CE.
        case: how it ended.
        document: its GLUE2 document.
        items: item → its text, of those that there were.
    """

    stack: str
    case: str
    document: dict[str, Any]
    items: dict[str, str]

    def item(self, name: str) -> bytes:
        return self.items.get(name, "").encode()


def _read(stack: str) -> dict[str, Recorded]:
    path = Path(__file__).parent / "recorded" / f"jobs-{stack}.json"
    jobs = {}
    for case, record in json.loads(path.read_text()).items():
        document = record.pop("document")
        items = {name: text for name, text in record.items() if text is not None}
        jobs[case] = Recorded(stack, case, document, items)
    return jobs


JOBS: dict[str, dict[str, Recorded]] = {stack: _read(stack) for stack in STACKS}
EVERY = [job for jobs in JOBS.values() for job in jobs.values()]
