"""Write the generated parts of the docs; with --check, only tell whether they are stale.

python docs/generate.py [--check]
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from generator import commands, dirac, drawings, machine, policies, simulator
from generator.markdown import fields

from arcbackend import ARCConfig, InterCEdeError, Policy

DOCS = Path(__file__).parent

# Page → what stands between <!-- name:begin --> and <!-- name:end -->.
PAGES: Mapping[str, Mapping[str, Callable[[], str]]] = {
    "reference/cli.md": {"cli": commands.usage},
    "reference/configuration.md": {"configuration": partial(fields, ARCConfig)},
    "reference/machine.md": {
        "plain": partial(machine.diagram, None),
        "patient-kill": partial(machine.diagram, "patient-kill"),
    },
    "reference/outcomes.md": {
        "kill": partial(machine.outcomes, "kill"),
        "keep": partial(machine.outcomes, "keep"),
        "purge": partial(machine.outcomes, "purge"),
        "fetch": partial(machine.outcomes, "fetch"),
    },
    "reference/policies.md": {
        "fields": partial(fields, Policy),
        "shipped": policies.shipped,
    },
    "reference/simulator.md": {
        "settings": simulator.settings,
        "faults": simulator.faults,
        "traps": simulator.traps,
    },
    "reference/states.md": {
        "arc-states": machine.arc_states,
        "statuses": machine.statuses,
        "states": machine.states,
        "observed": machine.observed,
        "timed": machine.timed,
    },
    "explanation/hold-policies.md": {"dirac": dirac.comparison},
}


def rendered(page: str) -> str:
    """The page with its generated parts as they should be."""
    text = (DOCS / page).read_text(encoding="utf-8")
    for name, make in PAGES[page].items():
        begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
        before, rest = text.split(begin)
        _, after = rest.split(end)
        text = f"{before}{begin}{make()}\n{end}{after}"
    return text


def stale() -> Iterator[tuple[Path, Callable[[], object]]]:
    """What is not as it should be, and how to mend it."""
    for page in PAGES:
        path, text = DOCS / page, rendered(page)
        if path.read_text(encoding="utf-8") != text:
            yield path, partial(path.write_text, text, encoding="utf-8")
    wanted = drawings.drawings()
    for name, source in wanted.items():
        path = DOCS / "reference" / name
        if not drawings.is_fresh(path, source):
            yield path, partial(drawings.draw, path, source)
    for path in (DOCS / "reference").glob("*.svg"):
        if path.name not in wanted:
            yield path, path.unlink


def main() -> int:
    """Write, or check."""
    check = "--check" in sys.argv[1:]
    found = list(stale())
    for path, mend in found:
        if check:
            print(f"{path.relative_to(DOCS.parent)} is stale: run python docs/generate.py")
            continue
        try:
            mend()
        except InterCEdeError as error:
            print(f"{path}: {error}", file=sys.stderr)
            return 1
    return 1 if check and found else 0


if __name__ == "__main__":
    sys.exit(main())
