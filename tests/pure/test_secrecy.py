"""The scan for secrets finds them: each test here runs another pytest that leaks one, or none."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFTEST = "from tests.secrecy import pytest_runtest_makereport"
HEAD = """
import secrets, structlog
from pydantic import SecretBytes, SecretStr
from arcbackend import BearerToken, ProtocolError, FileRef, SubmissionSpec
from arcbackend.protocol.requests import RequestBuilder

def test_it():
    value = secrets.token_hex(16)
    token = BearerToken(value=value)
    log = structlog.get_logger()
"""
KEY = """
    lines = [secrets.token_hex(32) for _ in range(5)]
    head, tail = f"-----BEGIN {'PRIVATE'} KEY-----", f"-----END {'PRIVATE'} KEY-----"
    pem = SecretBytes("\\n".join(["cert", head, *lines, tail, "chain" * 5]).encode())
"""


def outcome(pytester: pytest.Pytester, body: str) -> pytest.RunResult:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(HEAD + "".join(f"    {line}\n" for line in body.splitlines()))
    return pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}")


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ("log.info('sent', header=f'Bearer {value}')", "log event 'sent'"),
        ("log.info(f'sent {value}')", "log event"),
        ("ProtocolError('no', excerpt=value.encode())", "exception ProtocolError"),
        ("print(value)", "Captured stdout call"),
        ("RequestBuilder('1.1').new_jobs(value.encode(), language='adl', copies=1)", "description"),
        ("repr(FileRef(name=value, source='x'))", "representation of FileRef"),
        (f"{KEY.strip()}\nprint(lines[3])".replace("\n    ", "\n"), "Captured stdout call"),
    ],
)
def test_a_leak_fails_the_test(pytester: pytest.Pytester, body: str, where: str) -> None:
    result = outcome(pytester, body)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([f"*a secret was seen in:*{where}*"])


@pytest.mark.parametrize(
    "body",
    [
        "log.info('sent', token=token)",
        "print(token, repr(token))",
        "ProtocolError('no', excerpt=b'x')",
        f"{KEY.strip()}\nprint('chain' * 5)".replace("\n    ", "\n"),
    ],
)
def test_what_is_no_leak_passes(pytester: pytest.Pytester, body: str) -> None:
    result = outcome(pytester, body)
    assert result.ret == pytest.ExitCode.OK, result.stdout.str()
