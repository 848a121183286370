"""Free ports, which no instance that starts at the same time gets too."""

import errno
import json
import random
import socket
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from .errors import StackError
from .instance import Instance, locked, states_folder

# Below what the kernel gives to outgoing connections (32768 and up): none of them is in the way.
RANGE = range(20_000, 30_000)


def reserve(instance: Instance, names: Iterable[str], wanted: Mapping[str, int]) -> dict[str, int]:
    """Choose a port for each name and write them down, so that no other instance takes them."""
    with locked(states_folder() / "ports.lock"):
        taken = _reserved(apart_from=instance)
        chosen = {}
        for name in names:
            chosen[name] = _check(wanted[name]) if name in wanted else next(_free(taken))
            taken.add(chosen[name])
        _file(instance).write_text(json.dumps(chosen))
    return chosen


def release(instance: Instance) -> None:
    """Let others have the ports of an instance that is gone."""
    _file(instance).unlink(missing_ok=True)


def _file(instance: Instance) -> Path:
    return instance.state / "ports.json"


def _reserved(apart_from: Instance) -> set[int]:
    files = set(states_folder().glob("*/ports.json")) - {_file(apart_from)}
    return {port for file in files for port in json.loads(file.read_text() or "{}").values()}


def _free(taken: set[int]) -> Iterator[int]:
    for port in random.sample(RANGE, len(RANGE)):
        if port not in taken and _can_listen(port):
            yield port
    raise StackError(f"no free port between {RANGE.start} and {RANGE.stop}")


def _check(port: int) -> int:
    if not _can_listen(port):
        raise StackError(f"port {port} is in use: give another one, or none to have one chosen")
    return port


def _can_listen(port: int) -> bool:
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        try:
            with socket.socket(family) as probe:
                # As the daemons do: a connection that is only fading away is not in the way.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind((address, port))
                probe.listen()
        except OSError as error:
            if error.errno in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
                continue
            return False
    return True
