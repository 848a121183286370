"""Write the generated parts of the docs; with --check, only tell whether they are stale.

python docs/generate.py [--check]
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from arcbackend import ARCConfig, JobStatus
from arcbackend.states import LIVE_LATE_STATES, STATUS, TERMINAL

REFERENCE = Path(__file__).parent / "reference"


def states() -> str:
    """ARC state → JobStatus, and where a state is seen."""
    lines = ["| ARC state | JobStatus | over | in the live listing |", "|---|---|---|---|"]
    for state, status in STATUS.items():
        over = "yes" if state in TERMINAL else ""
        live = "yes" if state in LIVE_LATE_STATES else ""
        lines.append(f"| {state} | {status} | {over} | {live} |")
    lines += ["", "| JobStatus | meaning |", "|---|---|"]
    documented = _enum_docstrings()
    lines += [f"| {status} | {documented[status.name]} |" for status in JobStatus]
    return "\n".join(lines)


def configuration() -> str:
    """Every field of ARCConfig and its sections."""
    return "\n\n".join(_section("", ARCConfig))


def _section(prefix: str, model: type[BaseModel]) -> Iterator[str]:
    title = f"`[{prefix}]`" if prefix else "Top level"
    lines = [f"## {title}", "", _one_line(model.__doc__), "", "| field | default | meaning |"]
    lines.append("|---|---|---|")
    sections: list[tuple[str, type[BaseModel]]] = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            sections.append((name, field.annotation))
            continue
        default = "required" if field.is_required() else f"`{field.default!r}`"
        lines.append(f"| `{name}` | {default} | {_one_line(field.description)} |")
    yield "\n".join(lines)
    for name, section in sections:
        yield from _section(name, section)


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split()).replace("``", "`").replace("|", "\\|")


def _enum_docstrings() -> dict[str, str]:
    """The string below each member of JobStatus, which Python itself throws away."""
    (tree,) = ast.parse(inspect.getsource(JobStatus)).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for statement, following in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(statement, ast.Assign) and isinstance(following, ast.Expr):
            assert isinstance(statement.targets[0], ast.Name)
            assert isinstance(following.value, ast.Constant)
            found[statement.targets[0].id] = _one_line(str(following.value.value))
    return found


PARTS = {"states": states, "configuration": configuration}


def rendered(name: str) -> str:
    """The page with its generated part as it should be."""
    page = (REFERENCE / f"{name}.md").read_text()
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    before, rest = page.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}{PARTS[name]()}\n{end}{after}"


def main() -> int:
    """Write, or check."""
    stale = [name for name in PARTS if rendered(name) != (REFERENCE / f"{name}.md").read_text()]
    if "--check" in sys.argv[1:]:
        for name in stale:
            print(f"docs/reference/{name}.md is stale: run python docs/generate.py")
        return 1 if stale else 0
    for name in stale:
        (REFERENCE / f"{name}.md").write_text(rendered(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
