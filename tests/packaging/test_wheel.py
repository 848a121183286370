"""The wheel as users install it, with the sources out of reach."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "arcbackend", "tests", "examples", "docs")
PROBE = """
import json, sys
from importlib import metadata, resources
(point,) = metadata.entry_points(group="intercede.backends", name="arc")
backend = point.load()
import arcbackend
distribution = metadata.distribution("arcbackend")
json.dump({
    "value": point.value,
    "class": f"{backend.__module__}.{backend.__qualname__}",
    "same": backend is arcbackend.ARCBackend,
    "file": arcbackend.__file__,
    "missing": [name for name in arcbackend.__all__ if not hasattr(arcbackend, name)],
    "typed": resources.files("arcbackend").joinpath("py.typed").is_file(),
    "name": distribution.metadata["Name"],
    "version": distribution.version,
    "license": distribution.metadata["License-Expression"],
    "license_files": distribution.metadata.get_all("License-File"),
    "requires": distribution.requires,
    "direct_url": distribution.read_text("direct_url.json"),
    "path": sys.path,
}, sys.stdout)
"""


@dataclass(frozen=True)
class Built:
    """What ``python -m build`` made: the wheel from the sdist."""

    sdist: Path
    wheel: Path

    @property
    def names(self) -> set[str]:
        with zipfile.ZipFile(self.wheel) as archive:
            return set(archive.namelist())

    def read(self, suffix: str) -> str:
        (name,) = [name for name in self.names if name.endswith(f".dist-info/{suffix}")]
        with zipfile.ZipFile(self.wheel) as archive:
            return archive.read(name).decode()


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Built from a copy: setuptools writes into the folder that it builds."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".*")
            )
        elif (ROOT / name).is_file():
            shutil.copy(ROOT / name, copy)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ".", cwd=copy)
    (sdist,) = out.glob("*.tar.gz")
    (wheel,) = out.glob("*.whl")
    return Built(sdist, wheel)


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """What an interpreter finds that has the wheel and its dependencies, and nothing of ours."""
    folder = tmp_path_factory.mktemp("installed")
    environment, dependencies = folder / "venv", folder / "dependencies"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--isolated", "--quiet")
    run(*pip, "install", "--no-deps", "--no-index", built.wheel, cwd=folder)
    dependencies.mkdir()
    for site in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for path in Path(site).iterdir():
            if not re.match(r"(__editable__.*)?arcbackend|.*\.pth$", path.name):
                (dependencies / path.name).symlink_to(path)
    (site_packages,) = environment.glob("lib/python3*/site-packages")
    (site_packages / "dependencies.pth").write_text(f"{dependencies}\n")
    found: Mapping[str, Any] = json.loads(run(python, "-I", "-c", PROBE, cwd=folder))
    assert Path(found["file"]).is_relative_to(environment)
    assert str(ROOT) not in found["path"]
    return found


def test_the_entry_point_is_the_backend(installed: Mapping[str, Any]) -> None:
    assert installed["value"] == "arcbackend:ARCBackend"
    assert installed["class"] == "arcbackend.backend.ARCBackend"
    assert installed["same"] is True


def test_every_public_name_is_there(installed: Mapping[str, Any]) -> None:
    assert installed["missing"] == []


def test_the_metadata_are_those_of_the_project(built: Built, installed: Mapping[str, Any]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (installed["name"], installed["version"]) == (project["name"], project["version"])
    assert installed["license"] == "GPL-3.0-only"
    assert installed["license_files"] == ["LICENSE"]
    assert built.read("licenses/LICENSE") == (ROOT / "LICENSE").read_text()
    runtime = [name for name in installed["requires"] if "extra ==" not in name]
    assert len(runtime) == len(project["dependencies"])
    assert (ROOT / "README.md").read_text().strip() in built.read("METADATA")


def test_type_checkers_find_the_types(installed: Mapping[str, Any]) -> None:
    assert installed["typed"] is True


def test_the_wheel_holds_the_package_and_nothing_else(built: Built) -> None:
    tops = {name.partition("/")[0] for name in built.names}
    assert tops == {"arcbackend", f"{built.wheel.name.removesuffix('-py3-none-any.whl')}.dist-info"}
    source = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "arcbackend").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in built.names if name.startswith("arcbackend/")} == source
    assert not [name for name in built.names if re.search(r"(^|/)(tests?/|test_|conftest)", name)]


def test_the_sdist_can_be_built_and_names_its_licence(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", "arcbackend/py.typed"} <= names
