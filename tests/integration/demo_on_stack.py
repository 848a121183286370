"""``make demo-real``: examples/demo.py on a real CE, started for it unless it runs already.

python -m tests.integration.demo_on_stack --version 7.0.0 [--keep]
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from tests.integration.ce import (
    CANNOT_RUN_HERE,
    CannotRunHere,
    Instance,
    RealCE,
    call_stack,
    in_files,
    manifest,
)

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples" / "demo.py"
QUEUE = "main"
GRACE_SECONDS = 15.0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run_demo(ce: RealCE, folder: Path) -> int:
    """Run it as a user would; tells its exit code."""
    options = {
        "--endpoint": ce.endpoint,
        "--ca-file": str(ce.ca_file),
        "--token-file": in_files(ce.credentials(), folder)["token_file"],
        "--queue": QUEUE,
    }
    command = [sys.executable, str(DEMO), *(word for pair in options.items() for word in pair)]
    with subprocess.Popen(command, cwd=ROOT) as demo:
        try:
            return demo.wait()
        except BaseException:
            # Ctrl-C went to it as well: it is given the time to close its connections.
            if not isinstance(sys.exception(), KeyboardInterrupt):
                demo.terminate()
            try:
                demo.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                demo.kill()
            raise


def stop(instance: Instance) -> None:
    """Stop it, whatever else is pressed meanwhile; also what was only half started."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # inherited by the command
    say(f"stopping {instance.id}")
    call_stack("stop", instance.stack, "--version", instance.version, "--config", instance.config)


def demo_on(instance: Instance, *, keep: bool) -> int:
    """Start if need be, run, and stop what was started here."""
    ce = RealCE.running(instance)
    ours = ce is None
    try:
        if ce is None:
            say(f"starting {instance.id}; the first time, its file system is made before")
            began = time.monotonic()
            ce = RealCE.start(instance)
            say(f"started in {time.monotonic() - began:.0f} s")
        say(f"ARC {ce.arc_version} in front of Slurm, at {ce.endpoint}")
        with tempfile.TemporaryDirectory() as folder:
            code = run_demo(ce, Path(folder))
    except CannotRunHere:
        ours = False
        raise
    except BaseException:
        keep = keep and ce is not None
        raise
    finally:
        if ours and not keep:
            stop(instance)
        elif ours:
            say(f"left running; to stop it: make stack-stop VERSION={instance.version}")
    return code


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description="Run examples/demo.py on a real CE.")
    parser.add_argument("--version", default="7.0.0", help="of ARC")
    parser.add_argument("--keep", action="store_true", help="leave the CE running")
    options = parser.parse_args()
    chosen = [
        instance
        for instance in manifest()
        if (instance.stack, instance.config) == ("arc-slurm", "token")
        and instance.version == options.version
    ]
    if not chosen:
        known = ", ".join(dict.fromkeys(instance.version for instance in manifest()))
        parser.error(f"no version {options.version}; there are: {known}")

    def leave(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    try:
        return demo_on(chosen[0], keep=options.keep)
    except CannotRunHere as reason:
        say(f"{reason}. On a CE of yours: make demo CE=https://... TOKEN_FILE=...")
        return CANNOT_RUN_HERE
    except subprocess.CalledProcessError as error:
        say(f"{' '.join(map(str, error.cmd))}: exit code {error.returncode}")
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
