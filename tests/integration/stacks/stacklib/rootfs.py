"""The cached root file systems: made once with mmdebstrap, then only read."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .definition import Definition
from .errors import StackError
from .host import mounts_below, require_programs
from .instance import cache_folder, locked

COMPLETE = "arc-stack.json"
"""The file, at the root of a tree, without which the tree is not complete."""

# What runs between the unpacking and the configuration of the packages: the post-install script of
# nordugrid-arc-arex makes a certificate for a host name that must resolve.
_ESSENTIAL_HOOK = r"""printf '127.0.0.1 localhost %s\n' "$(hostname)" > "$1/etc/hosts" """
# The user of the jobs, and the parameters that the CE would else make on every first start, with
# many minutes of one core: a standard group of the same size is as good.
_CUSTOMIZE_HOOK = (
    'chroot "$1" useradd --create-home griduser'
    ' && mkdir "$1/var/lib/arc-stack"'
    ' && chroot "$1" openssl genpkey -quiet -genparam -algorithm DH -pkeyopt group:ffdhe4096'
    " -out /var/lib/arc-stack/dhparam.pem"
    ' && chroot "$1" openssl dhparam -in /var/lib/arc-stack/dhparam.pem -noout'
)


@dataclass(frozen=True)
class RootFS:
    """The root file system of one version of one stack."""

    definition: Definition
    version: str

    @property
    def recipe(self) -> list[str]:
        """Return everything that decides what the tree holds; the mirror does not."""
        return [
            "--variant=minbase",
            f"--include={','.join(self.definition.packages)}",
            # A mirror may be a snapshot, and sid's Release file is valid for a week only.
            '--aptopt=Acquire::Check-Valid-Until "false"',
            f"--essential-hook={_ESSENTIAL_HOOK}",
            f"--customize-hook={_CUSTOMIZE_HOOK}",
            self.definition.suite(self.version),
        ]

    @property
    def path(self) -> Path:
        """Return where the tree is or will be."""
        key = hashlib.sha256("\0".join(self.recipe).encode()).hexdigest()[:12]
        suite = self.definition.suite(self.version)
        return cache_folder() / "rootfs" / f"{self.definition.id}-{self.version}-{suite}-{key}"

    @property
    def is_complete(self) -> bool:
        """Tell whether the tree can be used."""
        return (self.path / COMPLETE).is_file()

    def arc_version(self) -> str:
        """Return the full version of the CE's package."""
        return str(json.loads((self.path / COMPLETE).read_text())["arc_version"])

    def ensure(self) -> None:
        """Build the tree unless it is there; another build of it at the same time is awaited."""
        with locked(self.path.with_name(f"{self.path.name}.lock")):
            if not self.is_complete:
                self._build()

    def _build(self) -> None:
        require_programs(for_building=True)
        partial = self.path.with_name(f"{self.path.name}.partial")
        for leftover in (partial, self.path):
            remove_tree(leftover)
        _mmdebstrap(self.recipe, partial)
        arc_version = _installed_version(partial, self.definition.arc_package)
        if not re.match(rf"{re.escape(self.version)}\b", arc_version):
            raise StackError(
                f"suite {self.definition.suite(self.version)} now holds ARC {arc_version},"
                f" not {self.version}: correct its [suites]"
            )
        (partial / COMPLETE).write_text(json.dumps({"arc_version": arc_version}))
        partial.rename(self.path)


def remove_tree(path: Path) -> None:
    """Remove a tree of ours, which must not have anything mounted in it."""
    if mounted := mounts_below(path):
        raise StackError(f"cannot remove {path}: unmount {mounted[0]} first")
    if path.exists():
        shutil.rmtree(path)


def _mmdebstrap(recipe: list[str], target: Path) -> None:
    *options, suite = recipe
    command = [
        "mmdebstrap",
        "--mode=root",
        *options,
        *_host_apt_options(),
        suite,
        str(target),
        debian_mirror(),
    ]
    print(f"building {target.name} (about a minute)", file=sys.stderr, flush=True)
    log = target.with_name(f"{target.name}.log")
    with log.open("w") as output:
        result = subprocess.run(command, stdout=output, stderr=output, check=False, cwd="/")
    if result.returncode:
        tail = "\n".join(log.read_text().splitlines()[-25:])
        raise StackError(f"mmdebstrap failed ({result.returncode}); the end of {log}:\n{tail}")


def _host_apt_options() -> Iterator[str]:
    """Yield what the host's apt needs to reach its mirror."""
    names = ("Acquire::http::Proxy", "Acquire::https::Proxy", "Acquire::https::CAInfo")
    for name in names:
        dump = subprocess.run(
            ["apt-config", "dump", name], capture_output=True, text=True, check=False
        )
        if match := re.match(rf'{name} "(.+)";', dump.stdout):
            yield f'--aptopt={name} "{match[1]}"'


def _installed_version(tree: Path, package: str) -> str:
    status = (tree / "var/lib/dpkg/status").read_text()
    match = re.search(rf"^Package: {package}\n(?:.+\n)*?Version: (.+)$", status, re.MULTILINE)
    if match is None:
        raise StackError(f"{tree} was built without the package {package}")
    return match[1]


def debian_mirror(apt: Path = Path("/etc/apt")) -> str:
    """Return the mirror that the host's own apt gets Debian from."""
    for types, uris, suites, components in _sources(apt):
        if "deb" in types and "main" in components and _DEBIAN_SUITES & set(suites):
            return uris[0]
    raise StackError(f"no Debian mirror in {apt}/sources.list or sources.list.d: name one there")


# Only a mirror of Debian itself has suites of these very names (`bookworm-security` is elsewhere).
_DEBIAN_SUITES = {"bookworm", "trixie", "forky", "sid", "stable", "testing", "unstable"}

_Source = tuple[list[str], list[str], list[str], list[str]]


def _sources(apt: Path) -> Iterator[_Source]:
    """Yield (types, URIs, suites, components) of each source, in either format."""
    for path in sorted(apt.glob("sources.list.d/*.sources")):
        for paragraph in re.split(r"\n\s*\n", path.read_text()):
            fields = _fields(paragraph)
            if fields.get("enabled") != ["no"]:
                yield tuple(fields.get(k, []) for k in ("types", "uris", "suites", "components"))  # type: ignore[misc]
    for path in (apt / "sources.list", *sorted(apt.glob("sources.list.d/*.list"))):
        for line in path.read_text().splitlines() if path.is_file() else ():
            words = re.sub(r"\[[^]]*\]", "", line.split("#")[0]).split()
            if len(words) > 2:
                yield words[:1], words[1:2], words[2:3], words[3:]


def _fields(paragraph: str) -> Mapping[str, list[str]]:
    """Return the fields of one paragraph of a deb822 file, each split into words."""
    lines = [line for line in paragraph.splitlines() if not line.startswith("#")]
    unfolded = re.sub(r"\n[ \t]+", " ", "\n".join(lines))
    pairs = (line.split(":", 1) for line in unfolded.splitlines() if ":" in line)
    return {name.strip().lower(): value.split() for name, value in pairs}
