"""Who may import what, read from the sources."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import arcbackend

PACKAGE = Path(arcbackend.__file__).parent
SOURCES = {
    ".".join(("arcbackend", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): ast.parse(path.read_text())
    for path in sorted(PACKAGE.rglob("*.py"))
}
PURE = [name for name in SOURCES if name.startswith("arcbackend.protocol")]
COMMAND = "arcbackend.cli"  # a program: it may configure what is the process's
FRONT_DOORS = {"arcbackend", "arcbackend.simulator"}  # re-exports: above what they import
SIMULATED = "arcbackend.simulator.in_process"  # stands where the network is, and speaks as it does
HTTP = {"httpx", "httpcore", "h11"}
OUTSIDE = {
    *HTTP,
    "asyncio",
    "datetime",
    "io",
    "os",
    "pathlib",
    "random",
    "secrets",
    "select",
    "shutil",
    "socket",
    "ssl",
    "structlog",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "trio",
    "uuid",
}


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _roots(name: str) -> set[str]:
    return {module.partition(".")[0] for module in _imported(SOURCES[name])}


def _own(name: str) -> set[str]:
    return {module for module in _imported(SOURCES[name]) if module in SOURCES} - {name}


def test_the_sources_are_there() -> None:
    assert len(SOURCES) > 10
    assert len(PURE) > 3


def test_httpx_is_in_one_module() -> None:
    users = {name for name in SOURCES if "httpx" in _roots(name)}
    assert users == {"arcbackend.transport", SIMULATED}


def test_other_http_libraries_are_below_the_transport() -> None:
    parts = ("transport", "_body", "_network", "_failures")
    below = {f"arcbackend.{part}" for part in parts}
    assert {name for name in SOURCES if _roots(name) & HTTP} <= {*below, SIMULATED}
    users = {name for name in SOURCES if _own(name) & (below - {"arcbackend.transport"})}
    assert users <= below


@pytest.mark.parametrize("name", PURE)
def test_the_protocol_touches_nothing_outside(name: str) -> None:
    assert not _roots(name) & OUTSIDE


@pytest.mark.parametrize("name", PURE)
def test_the_protocol_uses_no_builtin_that_does(name: str) -> None:
    called = {
        node.func.id
        for node in ast.walk(SOURCES[name])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"open", "print", "input", "exec", "eval", "__import__"}


@pytest.mark.parametrize("name", PURE)
def test_the_protocol_knows_values_and_errors_only(name: str) -> None:
    own = {module for module in _own(name) if not module.startswith("arcbackend.protocol")}
    assert own <= {"arcbackend", "arcbackend.errors", "arcbackend.models"}


def test_imports_go_one_way() -> None:
    graph = {name: _own(name) - FRONT_DOORS for name in SOURCES if name not in FRONT_DOORS}
    tuple(TopologicalSorter(graph).static_order())  # CycleError names the cycle


def test_nobody_imports_the_front_door() -> None:
    guilty = [
        name
        for name, tree in SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "arcbackend"
    ]
    assert guilty == []


def test_the_library_does_not_configure_logging() -> None:
    library = {name: tree for name, tree in SOURCES.items() if not name.startswith(COMMAND)}
    assert len(library) < len(SOURCES)
    for name, tree in library.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                assert node.attr not in {"configure", "basicConfig", "configure_once"}, name


def test_intercede_is_not_imported() -> None:
    assert not [name for name in SOURCES if "intercede" in _roots(name)]
