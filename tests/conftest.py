"""For every test: the scan for secrets, and what tests it."""

from tests.secrecy import pytest_runtest_makereport

__all__ = ["pytest_plugins", "pytest_runtest_makereport"]

pytest_plugins = ["pytester"]
