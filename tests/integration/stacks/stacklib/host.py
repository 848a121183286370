"""The machine that the stacks run on: its user, its programs, its mounts."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from .errors import CannotRunHereError, StackError
from .instance import cache_folder, locked

# program → the Debian package that has it
_TO_RUN = {"unshare": "util-linux", "nsenter": "util-linux", "mount": "mount"}
_TO_BUILD = {"mmdebstrap": "mmdebstrap"}
_DEBIAN_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def require_root() -> None:
    """Raise unless this process may make namespaces and mount."""
    if os.geteuid():
        raise CannotRunHereError(
            "cannot run here as an ordinary user, because the CE and its batch system run jobs as"
            " several users and their file system is mounted: run it as root"
        )


def require_programs(*, for_building: bool) -> None:
    """Install the host packages that are missing, or say which to install."""
    require_root()
    missing = _missing_packages(for_building)
    if missing and shutil.which("apt-get"):
        # One at a time: stacks are started side by side, and apt does not wait for another.
        with locked(cache_folder() / "packages.lock"):
            if missing := _missing_packages(for_building):
                _install(missing)
                missing = _missing_packages(for_building)
    if missing:
        raise CannotRunHereError(
            f"cannot run here: packages are missing; as root: apt-get install {' '.join(missing)}"
        )


def _missing_packages(for_building: bool) -> list[str]:
    needed = _TO_RUN | (_TO_BUILD if for_building else {})
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = {package for name, package in needed.items() if not shutil.which(name, path=path)}
    if for_building and not _DEBIAN_KEYS.is_file():
        missing.add("debian-archive-keyring")
    return sorted(missing)


def _install(packages: list[str]) -> None:
    print(f"installing {' '.join(packages)}", file=sys.stderr, flush=True)
    # An update that fails for one source may still do: the installation tells.
    _run(["apt-get", "update"])
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    _run(["apt-get", "install", "--yes", "--no-install-recommends", *packages])


def _run(command: list[str]) -> int:
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=sys.stderr, check=False
    ).returncode


def mounts_below(folder: Path) -> list[Path]:
    """Return what is mounted at or below a folder, the deepest first."""
    points = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        # The kernel writes a space and its like as \040.
        text = line.split()[4].encode().decode("unicode_escape")
        point = Path(text.encode("latin-1").decode(errors="surrogateescape"))
        if point == folder or folder in point.parents:
            points.append(point)
    # The last mounted goes first: it may lie over another on the same point.
    points.reverse()
    return sorted(points, key=lambda point: len(point.parts), reverse=True)


def unmount_below(folder: Path) -> None:
    """Unmount what a crash left in a folder of ours."""
    for point in mounts_below(folder):
        if _run(["umount", str(point)]) and _run(["umount", "--lazy", str(point)]):
            raise StackError(f"cannot unmount {point}: unmount it as root, then try again")
