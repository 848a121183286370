"""For every test: the scan for secrets, and what tests it; signals as at a terminal."""

import signal

from tests.secrecy import pytest_runtest_makereport

__all__ = ["pytest_plugins", "pytest_runtest_makereport"]

pytest_plugins = ["pytester", "arcbackend.simulator.plugin"]

# A shell's background job ignores Ctrl-C, and so would every command that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
