"""The scan for secrets: no test may leave one in a log line, an exception, a description, a report.

A secret is whatever a pydantic secret type holds: tokens, proxies' keys, secret files. Imported by
``tests/conftest.py``, so that it watches every test of the run; ``tests/pure/test_secrecy.py``
watches it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from functools import wraps
from typing import Any

import pytest
from pydantic import SecretBytes, SecretStr
from structlog._base import BoundLoggerBase

from arcbackend.errors import InterCEdeError
from arcbackend.models import Value
from arcbackend.protocol.requests import RequestBuilder

SHORTEST = 12
"""Characters. Anything shorter is a test's stand-in, and may be part of any text."""
KEPT = 200

_secrets: deque[str] = deque(maxlen=KEPT)
_texts: dict[str, str] = {}


def parts(value: str | bytes) -> Iterator[str]:
    """What must not be seen of a secret: of a proxy only its key is one, line by line."""
    text = value if isinstance(value, str) else value.decode("latin-1")
    if "-----BEGIN " in text:
        key = text.partition("PRIVATE KEY-----")[2].partition("-----END")[0]
        lines = key.splitlines()
    else:
        lines = text.split()
    yield from (line for line in lines if len(line) >= SHORTEST)


def seen(text: str, where: str) -> None:
    """Note what somebody could read."""
    _texts.setdefault(text, where)


def leaks() -> list[str]:
    """Where secrets have been seen since the last call; the secrets themselves are not told."""
    secrets = set(_secrets)
    found = {where for text, where in _texts.items() if any(part in text for part in secrets)}
    _texts.clear()
    return sorted(found)


def _watch(owner: type, name: str, look: Callable[..., None]) -> None:
    """Let ``look`` see the result and the arguments of each call of a method."""
    method = getattr(owner, name)

    @wraps(method)
    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = method(self, *args, **kwargs)
        if (
            name != "__init__" or type(self).__init__ is watched
        ):  # not a base's: it is not whole yet
            look(self, result, *args, **kwargs)
        return result

    setattr(owner, name, watched)


def _remember(secret: Any, _result: Any, value: str | bytes) -> None:
    _secrets.extend(part for part in parts(value) if part not in _secrets)


def _look_at_event(_logger: Any, _result: Any, name: str, event: Any, fields: Any) -> None:
    seen(f"{event} {fields!r}", f"log event {event!r}")


def _look_at_error(error: InterCEdeError, _result: Any, *_args: Any, **_kwargs: Any) -> None:
    seen(f"{error} {error!r} {error.__dict__!r}", f"exception {type(error).__name__}")


def _look_at_repr(value: Value, result: str) -> None:
    seen(result, f"representation of {type(value).__name__}")


def _look_at_jobs(_builder: Any, request: Any, *_args: Any, **_kwargs: Any) -> None:
    seen(f"{request.target} {request.body!r} {request!r}", "job description")


_watch(SecretStr, "__init__", _remember)
_watch(SecretBytes, "__init__", _remember)
_watch(BoundLoggerBase, "_process_event", _look_at_event)
_watch(InterCEdeError, "__init__", _look_at_error)
for _subclass in InterCEdeError.__subclasses__():
    _watch(_subclass, "__init__", _look_at_error)
_watch(Value, "__repr__", _look_at_repr)
_watch(Value, "__str__", _look_at_repr)
_watch(RequestBuilder, "new_jobs", _look_at_jobs)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Look at what a test shows, and let it fail if there is a secret in it."""
    report = yield
    seen(report.longreprtext, f"report of {call.when}")
    for title, content in report.sections:
        seen(content, title)
    if call.when == "teardown" and (where := leaks()):
        report.outcome = "failed"
        report.longrepr = f"a secret was seen in: {'; '.join(where)}"
    return report
