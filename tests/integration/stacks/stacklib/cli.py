"""The command line of `stack`."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from . import namespace
from .errors import StackError
from .instance import Instance, states_folder

# `exec` has to be quick: what the other commands need is imported when they run (PLC0415).


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    options = _parser().parse_args(arguments)
    os.umask(0o022)
    try:
        code: int = options.run(options)
    except StackError as error:
        print(f"stack {options.command}: {error}", file=sys.stderr)
        return error.exit_code
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stack", description="Real CEs for integration tests.")
    commands = parser.add_subparsers(dest="command", required=True)

    build = commands.add_parser("build", help="make the cached root file system")
    build.add_argument("stack")
    build.add_argument("--version", required=True)
    build.set_defaults(run=_build)

    start = _instance_command(commands, "start", "start and wait until jobs run; print JSON")
    start.add_argument("--port", type=int, help="of the REST interface (default: a free one)")
    start.add_argument("--timeout", type=float, default=60, metavar="SECONDS")
    start.set_defaults(run=_start)

    stop = _instance_command(commands, "stop", "end what start started; again is no error")
    stop.set_defaults(run=_stop)

    status = commands.add_parser("status", help="print as JSON which instances run")
    status.set_defaults(run=_status)

    logs = _instance_command(commands, "logs", "print the end of every log")
    logs.add_argument("--lines", type=int, default=50)
    logs.set_defaults(run=_logs)

    execute = _instance_command(commands, "exec", "run a command inside: ... -- COMMAND")
    execute.add_argument("argv", nargs="+", metavar="COMMAND")
    execute.set_defaults(run=_exec)

    token = _instance_command(commands, "token", "write a fresh token to a file")
    token.add_argument("--out", type=Path, required=True, help="only its owner can read it")
    token.add_argument("--subject", default="test-user")
    token.add_argument("--scope", action="append", help="may be repeated (default: all)")
    token.add_argument("--lifetime", type=float, default=3600, metavar="SECONDS")
    token.add_argument("--audience", default="arc")
    token.set_defaults(run=_token)

    proxy = _instance_command(commands, "proxy", "write a fresh X.509 proxy to a file")
    proxy.add_argument("--out", type=Path, required=True, help="only its owner can read it")
    proxy.add_argument("--user", default="test-user", help="the end of the subject")
    proxy.add_argument("--lifetime", type=float, default=3600, metavar="SECONDS")
    proxy.add_argument("--limited", action="store_true", help="as Globus' limited proxies")
    proxy.add_argument("--key", choices=["rsa", "ec"], default="rsa")
    proxy.add_argument("--bits", type=int, help="size of the key (default: 2048; ec: 256)")
    proxy.add_argument("--depth", type=int, default=1, help="proxies of proxies (default: 1)")
    proxy.add_argument("--path-length", type=int, help="how many more may follow (default: any)")
    proxy.add_argument("--unlisted", action="store_true", help="of a subject the CE lets not in")
    proxy.add_argument("--foreign-ca", action="store_true", help="of a CA the CE does not know")
    proxy.set_defaults(run=_proxy)

    kill = _instance_command(commands, "kill-daemon", "send a signal to one daemon")
    kill.add_argument("daemon")
    kill.add_argument("--signal", default="KILL")
    kill.set_defaults(run=_kill_daemon)

    restart = _instance_command(commands, "restart-daemon", "start one daemon again")
    restart.add_argument("daemon")
    restart.set_defaults(run=_restart_daemon)
    return parser


def _instance_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, summary: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary)
    parser.add_argument("stack")
    parser.add_argument("--version", required=True)
    parser.add_argument("--config", default="token")
    return parser


def _instance(options: argparse.Namespace) -> Instance:
    return Instance(options.stack, options.version, options.config)


def _build(options: argparse.Namespace) -> int:
    from .definition import Definition  # noqa: PLC0415
    from .rootfs import RootFS  # noqa: PLC0415

    rootfs = RootFS(Definition.load(options.stack), options.version)
    rootfs.ensure()
    print(rootfs.path)
    return 0


def _start(options: argparse.Namespace) -> int:
    from .lifecycle import start  # noqa: PLC0415

    # A start that is ended in the middle tidies up like one that fails.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    print(json.dumps(start(_instance(options), options.port, options.timeout), indent=2))
    return 0


def _stop(options: argparse.Namespace) -> int:
    from .lifecycle import stop  # noqa: PLC0415

    stop(_instance(options))
    return 0


def _status(options: argparse.Namespace) -> int:
    found = []
    for document in sorted(states_folder().glob("*/stack.json")):
        description = json.loads(document.read_text())
        instance = Instance(*(description[name] for name in ("stack", "version", "config")))
        alive = namespace.running(instance) is not None
        found.append({"running": alive, "document": str(document), **description})
    print(json.dumps(found, indent=2))
    return 0


def _logs(options: argparse.Namespace) -> int:
    from .lifecycle import logs  # noqa: PLC0415

    print(logs(_instance(options), options.lines))
    return 0


def _exec(options: argparse.Namespace) -> int:
    command = namespace.enter_command(_instance(options), options.argv)
    os.execvpe(command[0], command, namespace.ENVIRONMENT)


def _token(options: argparse.Namespace) -> int:
    from . import private, tokens  # noqa: PLC0415

    scopes = tokens.ALL_SCOPES if options.scope is None else options.scope
    token = tokens.mint(
        _instance(options), options.subject, scopes, options.lifetime, options.audience
    )
    private.write(token, options.out)
    return 0


def _proxy(options: argparse.Namespace) -> int:
    from . import private, proxies  # noqa: PLC0415

    request = proxies.ProxyRequest(
        user=options.user,
        lifetime=options.lifetime,
        limited=options.limited,
        key=options.key,
        bits=options.bits,
        depth=options.depth,
        path_length=options.path_length,
        listed=not options.unlisted,
        foreign_ca=options.foreign_ca,
    )
    private.write(proxies.make(_instance(options), request), options.out)
    return 0


def _kill_daemon(options: argparse.Namespace) -> int:
    from .daemons import kill_daemon  # noqa: PLC0415

    kill_daemon(_instance(options), options.daemon, options.signal)
    return 0


def _restart_daemon(options: argparse.Namespace) -> int:
    from .daemons import restart_daemon  # noqa: PLC0415

    restart_daemon(_instance(options), options.daemon)
    return 0
