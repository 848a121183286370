"""Markdown, and what Python keeps of docstrings."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum

from pydantic import BaseModel


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(map(one_line, row)) + " |" for row in rows]
    return "\n".join(lines)


def one_line(text: str | None) -> str:
    """A docstring's text as a cell of a table."""
    return " ".join((text or "").split()).replace("``", "`").replace("|", "\\|")


def fields(model: type[BaseModel]) -> str:
    """Every field of a model and of its sections: default, meaning."""
    return "\n\n".join(_section("", model))


def _section(prefix: str, model: type[BaseModel]) -> Iterator[str]:
    rows: list[tuple[str, str, str]] = []
    sections: list[tuple[str, type[BaseModel]]] = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            sections.append((name, field.annotation))
            continue
        default = (
            "required"
            if field.is_required()
            else f"`{_value(field.get_default(call_default_factory=True))}`"
        )
        rows.append((f"`{name}`", default, one_line(field.description)))
    title = f"`[{prefix}]`" if prefix else "Top level"
    doc = one_line(inspect.getdoc(model))
    yield f"## {title}\n\n{doc}\n\n{table(('field', 'default', 'meaning'), rows)}"
    for name, section in sections:
        yield from _section(name, section)


def _value(value: object) -> str:
    return repr(value.value if isinstance(value, Enum) else value)


def enum_docstrings(enum: type[Enum]) -> dict[str, str]:
    """The string below each member, which Python itself throws away."""
    (tree,) = ast.parse(inspect.getsource(enum)).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for statement, following in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(statement, ast.Assign) and isinstance(following, ast.Expr):
            assert isinstance(statement.targets[0], ast.Name)
            assert isinstance(following.value, ast.Constant)
            found[statement.targets[0].id] = one_line(str(following.value.value))
    return found
