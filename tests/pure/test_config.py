"""The configuration: bounds, TOML, and errors that name the field and quote nothing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from arcbackend import (
    ARCBackend,
    ARCConfig,
    Batches,
    BearerToken,
    ConfigurationError,
    Delegation,
    Limits,
    Polling,
    Retries,
    StaticCredentials,
    Timeouts,
)

ENDPOINT = "https://ce.example.org:443"
SECRET = "hunter2-hunter2"


def _refused(data: dict[str, Any]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        ARCConfig.from_dict(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_endpoint_is_enough() -> None:
    config = ARCConfig.from_dict({"endpoint": "https://CE.example.org/"})
    assert config.endpoint == ENDPOINT
    assert config.auth == "token"
    assert config.rest_version is None
    assert config.queue is None
    assert config == ARCConfig.from_dict({"endpoint": ENDPOINT})


def test_the_contracts_fields() -> None:
    assert set(ARCConfig.model_fields) >= {
        "endpoint",
        "queue",
        "ca_file",
        "ca_dir",
        "auth",
        "limits",
        "rest_version",
        "concurrency",
    }
    assert set(Limits.model_fields) >= {
        "max_total_bytes",
        "max_files",
        "max_file_bytes",
        "transfer_timeout",
    }


def test_a_full_file(tmp_path: Path) -> None:
    file = tmp_path / "arc.toml"
    file.write_text(
        f"""
        endpoint = "{ENDPOINT}"
        queue = "short"
        auth = "token"
        ca_file = "/etc/ca.pem"
        rest_version = "1.1"
        concurrency = 4
        live_listing = "always"
        live_listing_budget = 2
        freshness_margin = 0
        [timeouts]
        connect = 1
        read = 2.5
        [limits]
        max_total_bytes = 1
        [retries]
        attempts = 1
        [batches]
        ids = 5
        """
    )
    config = ARCConfig.from_toml(file)
    assert config == ARCConfig.from_toml(str(file))
    assert (config.queue, config.rest_version, config.concurrency) == ("short", "1.1", 4)
    assert config.ca_file == Path("/etc/ca.pem")
    assert (config.timeouts.connect, config.timeouts.read) == (1, 2.5)
    assert (config.limits.max_total_bytes, config.retries.attempts, config.batches.ids) == (1, 1, 5)
    assert config.timeouts.write == Timeouts().write


# what is refused, by its field


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"endpont": 1}, "endpont"),
        ({"timeouts": {"conect": 1}}, "timeouts.conect"),
        ({"limits": {"max": 1}}, "limits.max"),
        ({"retries": {"attempt": 1}}, "retries.attempt"),
        ({"batches": {"id": 1}}, "batches.id"),
        ({"polling": {"often": 1}}, "polling.often"),
        ({"token": "x"}, "token"),
    ],
)
def test_unknown_keys_are_named(data: dict[str, Any], field: str) -> None:
    assert field in _refused({"endpoint": ENDPOINT, **data})


@pytest.mark.parametrize("data", [{}, {"queue": "q"}])
def test_the_endpoint_is_needed(data: dict[str, Any]) -> None:
    assert "endpoint" in _refused(data)


def test_every_fault_is_named_at_once() -> None:
    text = _refused({"endpoint": "x", "auth": "y", "limits": {"max_files": 0}, "more": 1})
    assert all(field in text for field in ("endpoint", "auth", "limits.max_files", "more"))


@pytest.mark.parametrize(
    ("section", "name", "bad", "good"),
    [
        (ARCConfig, "auth", ["", "TOKEN", "none", None], ["token", "proxy", "token+proxy"]),
        (ARCConfig, "rest_version", ["", "1", "2.0", 1.1], [None, "1.0", "1.1"]),
        (ARCConfig, "concurrency", [0, -1, 257, 1.5, "many"], [1, 256]),
        (ARCConfig, "live_listing", ["", "yes", True], ["auto", "always", "never"]),
        (ARCConfig, "live_listing_budget", [0, -1, math.inf, math.nan], [0.1]),
        (ARCConfig, "freshness_margin", [-1, math.inf, math.nan, 90_000], [0, 60]),
        (ARCConfig, "queue", [1, []], [None, "q"]),
        (ARCConfig, "audience", ["", "a b", "a\n", "é", "x" * 1001, None], ["host", "any", "x"]),
        (ARCConfig, "ca_file", [1], ["/x"]),
        *(
            (Timeouts, name, [0, -1, math.inf, math.nan, 90_000, "x", None], [0.001, 86_400])
            for name in Timeouts.model_fields
        ),
        *(
            (Limits, name, [0, -1, 1.5, "x", None], [1, 2**50])
            for name in Limits.model_fields
            if name not in ("transfer_timeout", "stall_timeout", "max_depth", "keep_free_bytes")
        ),
        *(
            (Limits, name, [0, -1, math.inf, math.nan], [0.001])
            for name in ("transfer_timeout", "stall_timeout")
        ),
        *(
            (Limits, name, [-1, 1.5, "x", None], [0, 2**50])
            for name in ("max_depth", "keep_free_bytes")
        ),
        (Retries, "attempts", [0, 21, 1.5], [1, 20]),
        (Retries, "backoff", [0, -1, math.inf, math.nan], [0.001]),
        (Retries, "backoff_max", [0, -1, math.inf, math.nan], [0.001]),
        *(
            (Polling, name, [0, -1, math.inf, math.nan, 90_000, "x", None], [0.001, 86_400])
            for name in Polling.model_fields
            if name != "buffer"
        ),
        (Polling, "buffer", [0, -1, 1.5, None], [1, 10**6]),
        *(
            (Delegation, name, [0, -1, math.inf, math.nan, 90_000, "x", None], [0.001, 86_400])
            for name in ("renew_before", "check")
        ),
        (Batches, "ids", [0, 40_001], [1, 40_000]),
        (Batches, "descriptions", [0, 10_001], [1, 10_000]),
        (Batches, "description_bytes", [0, 1000], [16 * 1024]),
        (Batches, "instances", [0, 100_001], [1, 100_000]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bounds(section: type[BaseModel], name: str, bad: list[Any], good: list[Any]) -> None:
    least = {"endpoint": ENDPOINT} if section is ARCConfig else {}
    for value in bad:
        with pytest.raises(ValidationError, match=name):
            section(**{**least, name: value})
    for value in good:
        section(**{**least, name: value})


@pytest.mark.parametrize(
    ("endpoint", "audience", "resource"),
    [
        ("https://ce.example.org", "endpoint", ENDPOINT),
        ("https://CE.example.org:8443/", "endpoint", "https://ce.example.org:8443"),
        ("https://ce.example.org:8443", "host", "https://ce.example.org"),
        ("https://[::1]:8443", "host", "https://[::1]"),
        ("https://ce.example.org", "https://any", "https://any"),
    ],
)
def test_the_form_of_the_audience(endpoint: str, audience: str, resource: str) -> None:
    config = ARCConfig(endpoint=endpoint, audience=audience)
    assert config.resource == resource
    backend = ARCBackend(config, StaticCredentials(BearerToken(value="t")))
    assert backend.credential_requirements.resource == resource


def test_one_source_of_trust() -> None:
    text = _refused({"endpoint": ENDPOINT, "ca_file": "/a", "ca_dir": "/b"})
    assert "ca_file" in text
    assert "ca_dir" in text


# errors quote no values: one may be a misplaced secret


def _everywhere() -> list[dict[str, Any]]:
    wrong = [SECRET, [SECRET], {SECRET: 1}, {"x": SECRET}]
    free_text = {"queue", "audience", "ca_file", "ca_dir"}  # any text is a value
    return [
        {"endpoint": ENDPOINT, field: value}
        for field in [*ARCConfig.model_fields, "token"]
        for value in wrong
        if not (field in free_text and value is SECRET)
        # The names of unknown keys are told.
        if not (isinstance(value, dict) and SECRET in value)
    ]


@pytest.mark.parametrize("data", _everywhere(), ids=lambda data: f"{[*data][-1]}")
def test_values_are_not_quoted(data: dict[str, Any]) -> None:
    assert SECRET not in _refused(data)


@pytest.mark.parametrize(
    "endpoint",
    [
        f"https://alice:{SECRET}@ce.example.org",
        f"alice:{SECRET}@ce.example.org",
        f"https://ce.example.org/?access_token={SECRET}",
    ],
)
def test_a_secret_in_the_endpoint_is_not_quoted(endpoint: str) -> None:
    assert SECRET not in _refused({"endpoint": endpoint})


# files


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"endpoint = \nqueue = 1\n", "line 1"),
        (b"\xff\xfe", ""),
        (b"endpoint = 'https://ce.example.org'\nqueue = 7\n", "queue"),
        (b"endpoint = 'https://ce.example.org'\n[limits]\nmax_files = -1\n", "limits.max_files"),
        (b"", "endpoint"),
        (b"a = 1\na = 2\n", ""),
        (b"a = " + b"[" * 100_000, ""),
    ],
    ids=["syntax", "encoding", "type", "bound", "empty", "twice", "nesting"],
)
def test_a_fault_in_a_file_names_file_and_field(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    file = tmp_path / "arc.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        ARCConfig.from_toml(file)
    assert str(file) in str(caught.value)
    assert expected in str(caught.value)


@pytest.mark.parametrize("line", [f"token = {SECRET}", f"'{SECRET}", f'a = "{SECRET}\\q"', SECRET])
def test_a_syntax_error_quotes_no_value(tmp_path: Path, line: str) -> None:
    file = tmp_path / "arc.toml"
    file.write_text(line)
    with pytest.raises(ConfigurationError) as caught:
        ARCConfig.from_toml(file)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("name", ["missing.toml", ".", "missing/arc.toml", "a\0b"])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ARCConfig.from_toml(tmp_path / name)
    assert str(tmp_path) in str(caught.value)


# the backend


def test_a_backend_validates_a_mapping() -> None:
    provider = StaticCredentials(BearerToken(value="t"))
    backend = ARCBackend({"endpoint": "https://ce.example.org"}, provider)
    assert backend.config == ARCConfig(endpoint=ENDPOINT)
    with pytest.raises(ConfigurationError, match="endpont"):
        ARCBackend({"endpont": ENDPOINT}, provider)


@pytest.mark.parametrize("auth", ["proxy", "token+proxy"])
def test_a_token_is_delegated_only_where_no_proxy_is(auth: str) -> None:
    wrong = {"endpoint": ENDPOINT, "auth": auth, "delegation": {"token": True}}
    assert "delegation.token goes with auth" in _refused(wrong)
    assert ARCConfig.from_dict({"endpoint": ENDPOINT, "auth": auth}).delegation == Delegation()
    assert ARCConfig.from_dict({**wrong, "auth": "token"}).delegation.token
