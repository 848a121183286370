"""Starting and stopping an instance."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import namespace, ports, private, proxies, tokens
from .definition import Definition, render
from .errors import StackError
from .host import require_programs, unmount_below
from .instance import Instance
from .readiness import Readiness
from .rootfs import RootFS, remove_tree

SUBJECT, OTHER_SUBJECT = "test-user", "other-user"
_DAY = 24 * 3600.0


def start(instance: Instance, port: int | None, timeout: float) -> dict[str, Any]:
    """Start an instance, wait until it can run jobs, and return its description."""
    definition = Definition.load(instance.stack)
    configuration = definition.configuration(instance.config)
    rootfs = RootFS(definition, instance.version)
    require_programs(for_building=False)
    rootfs.ensure()
    with instance.lock():
        if process := namespace.running(instance):
            raise StackError(f"{instance.name} already runs (process {process.pid}): stop it first")
        _remove(instance)
        _make_folders(instance)
        with _removed_on_failure(instance):
            return _Start(instance, definition, configuration, rootfs, port).run(timeout)


def stop(instance: Instance) -> None:
    """End what `start` started, if anything of it is left; its logs stay."""
    with instance.lock():
        _remove(instance)


@contextmanager
def _removed_on_failure(instance: Instance) -> Iterator[None]:
    try:
        yield
    except BaseException:
        print(logs(instance, lines=30), file=sys.stderr)
        _remove(instance)
        raise


def _remove(instance: Instance) -> None:
    namespace.kill(instance)
    unmount_below(instance.state)
    if not instance.state.exists():
        return
    ports.release(instance)
    for path in instance.state.iterdir():
        if path == instance.log:
            continue
        if path.is_dir():
            remove_tree(path)
        else:
            path.unlink()


def _make_folders(instance: Instance) -> None:
    remove_tree(instance.log)
    # Other users of this machine have no business here; users inside do not come this way.
    instance.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    instance.credentials.mkdir(mode=0o700)
    for name in ("root", "layer/upper", "layer/work", "spool", "log", "files"):
        (instance.state / name).mkdir(mode=0o755, parents=True)


@dataclass(frozen=True)
class _Start:
    """One start, from empty folders to the description."""

    instance: Instance
    definition: Definition
    configuration: tuple[Path, ...]
    """Its folders; what is in a later one holds."""
    rootfs: RootFS
    port: int | None

    def run(self, timeout: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        wanted = {} if self.port is None else {"rest": self.port}
        chosen = ports.reserve(self.instance, ["rest", *self.definition.ports], wanted)
        endpoint = f"https://localhost:{chosen['rest']}"
        self._write_files(chosen)
        process = namespace.launch(self.instance, self.rootfs.path)
        Readiness(self.instance, endpoint, self.kinds, deadline).wait()
        description = self._describe(endpoint, process.pid, chosen, self._write_credentials())
        self._write_client(description)
        partial = self.instance.document.with_suffix(".partial")
        partial.write_text(json.dumps(description, indent=2) + "\n")
        partial.replace(self.instance.document)
        return description

    def _write_files(self, chosen: dict[str, int]) -> None:
        values = {f"port_{name}": str(port) for name, port in chosen.items()}
        values["daemons"] = "\n".join(" ".join(pair) for pair in self.definition.daemons.items())
        lrms, queues = self.definition.lrms, self.definition.queues
        values["lrms"] = "\n".join(f"{name} = {value}" for name, value in lrms.items())
        values["queues"] = "\n\n".join(f"[queue:{name}]" for name in queues)
        files = self.instance.state / "files"
        sources = [folder / "files" for folder in self.definition.folders]
        for source in (*sources, *(folder / "ce" for folder in self.configuration)):
            render(source, files, values)

    @property
    def kinds(self) -> list[str]:
        """Return which credentials the configuration lets in."""
        return self.definition.auth(self.instance.config).split("+")

    def _write_credentials(self) -> dict[str, str]:
        """Write credentials of two users for each kind that is let in, and say where they are."""
        files = {}
        for suffix, user in (("", SUBJECT), ("-other", OTHER_SUBJECT)):
            contents = {}
            if "token" in self.kinds:
                contents["token"] = tokens.mint(self.instance, user, tokens.ALL_SCOPES, _DAY)
            if "proxy" in self.kinds:
                request = proxies.ProxyRequest(user, _DAY)
                contents["proxy"] = proxies.make(self.instance, request)
            for kind, content in contents.items():
                path = self.instance.credentials / f"{kind}{suffix}"
                private.write(content, path)
                files[f"{kind}{suffix.replace('-', '_')}_file"] = str(path)
        return files

    def _describe(
        self, endpoint: str, pid: int, chosen: dict[str, int], credential_files: dict[str, str]
    ) -> dict[str, Any]:
        instance, spool = self.instance, self.instance.state / "spool"
        return {
            "stack": instance.stack,
            "version": instance.version,
            "config": instance.config,
            "auth": self.definition.auth(instance.config),
            "arc_version": self.rootfs.arc_version(),
            "suite": self.definition.suite(instance.version),
            "endpoint": endpoint,
            "ports": chosen,
            "queue": self.definition.queues[0],
            "queues": self.definition.queues,
            "credentials": str(instance.credentials),
            "ca_file": str(instance.credentials / "ca.pem"),
            "ca_dir": str(instance.credentials / "certificates"),
            **credential_files,
            "subject": SUBJECT,
            "other_subject": OTHER_SUBJECT,
            "issuer": tokens.issuer(instance),
            "audience": tokens.AUDIENCE,
            "client": str(instance.state / "client.toml"),
            "controldir": str(spool / "jobstatus"),
            "sessiondir": str(spool / "sessiondir"),
            "pid": pid,
            "enter": namespace.enter_command(instance, namespace.CLEAN_ENVIRONMENT),
            "logs": [str(path) for path in log_files(instance)],
        }

    def _write_client(self, description: dict[str, Any]) -> None:
        values = {name: str(value) for name, value in description.items()}
        for folder in self.configuration:
            if (template := folder / "client.toml").is_file():
                render(template, self.instance.state / "client.toml", values)


def log_files(instance: Instance) -> list[Path]:
    """Return the logs of the daemons, and of the process that starts them."""
    return sorted(path for path in instance.log.rglob("*") if path.is_file())


def logs(instance: Instance, lines: int) -> str:
    """Return the end of each log, under its name."""
    parts = []
    for path in log_files(instance):
        content = path.read_text(errors="replace").splitlines()
        if content:
            parts.append("\n".join([f"==> {path} <==", *content[-lines:]]))
    return "\n\n".join(parts)
