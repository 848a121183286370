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

from arcbackend import Policy
from arcbackend.lifecycle.definition import JOB

ROOT = Path(__file__).parents[2]
SOURCES = (
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "arcbackend",
    "machines",
    "tests",
    "examples",
    "docs",
)
PROBE = """
import json, subprocess, sys
from importlib import metadata, resources
(point,) = metadata.entry_points(group="intercede.backends", name="arc")
backend = point.load()
import arcbackend
from arcbackend import Policy
from arcbackend.lifecycle.definition import JOB
distribution = metadata.distribution("arcbackend")
json.dump({
    "value": point.value,
    "class": f"{backend.__module__}.{backend.__qualname__}",
    "same": backend is arcbackend.ARCBackend,
    "file": arcbackend.__file__,
    "missing": [name for name in arcbackend.__all__ if not hasattr(arcbackend, name)],
    "typed": resources.files("arcbackend").joinpath("py.typed").is_file(),
    "machine": resources.files("arcbackend.machines").joinpath("job.toml").read_text(),
    "policies": {name: Policy.load(name).model_dump_json() for name in Policy.shipped()},
    "states": list(JOB.states),
    "name": distribution.metadata["Name"],
    "version": distribution.version,
    "license": distribution.metadata["License-Expression"],
    "license_files": distribution.metadata.get_all("License-File"),
    "requires": distribution.requires,
    "direct_url": distribution.read_text("direct_url.json"),
    "path": sys.path,
    "command": subprocess.run(
        [sys.prefix + "/bin/arcbackend", "policy", "check", "patient-kill"],
        capture_output=True, text=True,
    ).stdout,
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


def copy_of_the_sources(copy: Path) -> Path:
    """Setuptools writes into the folder that it builds."""
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".*")
            )
        elif (ROOT / name).is_file():
            shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    copy, out = (
        copy_of_the_sources(tmp_path_factory.mktemp("source")),
        tmp_path_factory.mktemp("dist"),
    )
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ".", cwd=copy)
    (sdist,) = out.glob("*.tar.gz")
    (wheel,) = out.glob("*.whl")
    return Built(sdist, wheel)


def probed(folder: Path, *what: str | Path) -> Mapping[str, Any]:
    """What an interpreter finds that has ``what`` installed, our dependencies, and nothing else."""
    environment, dependencies = folder / "venv", folder / "dependencies"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    dependencies.mkdir()
    for site in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for path in Path(site).iterdir():
            if not re.match(r"(__editable__.*)?arcbackend|.*\.pth$", path.name):
                (dependencies / path.name).symlink_to(path)
    (site_packages,) = environment.glob("lib/python3*/site-packages")
    (site_packages / "dependencies.pth").write_text(f"{dependencies}\n")
    pip = (sys.executable, "-m", "pip", "--python", python, "--isolated", "--quiet")
    run(*pip, "install", "--no-deps", "--no-index", "--no-build-isolation", *what, cwd=folder)
    found: Mapping[str, Any] = json.loads(run(python, "-I", "-c", PROBE, cwd=folder))
    assert Path(found["file"]).is_relative_to(folder)
    assert str(ROOT) not in found["path"]
    return found


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """From the wheel, which is built from the sdist."""
    return probed(tmp_path_factory.mktemp("installed"), built.wheel)


@pytest.fixture(scope="module")
def editable(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """The sources where they are, as developers have them."""
    folder = tmp_path_factory.mktemp("editable")
    (folder / "source").mkdir()
    return probed(folder, "-e", copy_of_the_sources(folder / "source"))


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


def test_the_command_is_there_and_finds_what_ships(installed: Mapping[str, Any]) -> None:
    assert 'hold.action = "kill"' in installed["command"].splitlines()


def test_type_checkers_find_the_types(installed: Mapping[str, Any]) -> None:
    assert installed["typed"] is True


def test_the_wheel_holds_the_package_and_nothing_else(built: Built) -> None:
    tops = {name.partition("/")[0] for name in built.names}
    assert tops == {"arcbackend", f"{built.wheel.name.removesuffix('-py3-none-any.whl')}.dist-info"}
    folders = {"arcbackend": ROOT / "arcbackend", "arcbackend/machines": ROOT / "machines"}
    source = {
        f"{name}/{path.relative_to(folder).as_posix()}"
        for name, folder in folders.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in built.names if name.startswith("arcbackend/")} == source
    assert not [name for name in built.names if re.search(r"(^|/)(tests?/|test_|conftest)", name)]


def test_the_sdist_can_be_built_and_names_its_licence(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", "arcbackend/py.typed"} <= names


# the machine and the policies, which lie beside the package in the sources


@pytest.mark.parametrize("how", ["installed", "editable"])
def test_machines_and_policies_are_found(how: str, request: pytest.FixtureRequest) -> None:
    found = request.getfixturevalue(how)
    assert found["machine"] == (ROOT / "machines" / "job.toml").read_text()
    assert found["states"] == list(JOB.states)
    assert found["policies"] == {
        name: Policy.load(name).model_dump_json() for name in Policy.shipped()
    }
    assert set(found["policies"]) == {
        path.stem for path in (ROOT / "machines" / "policies").glob("*.toml")
    }


def test_an_editable_install_follows_the_sources(editable: Mapping[str, Any]) -> None:
    assert Path(editable["file"]).parents[1].name == "source"


def test_the_sdist_has_them(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "machines").rglob("*.toml")
    }
