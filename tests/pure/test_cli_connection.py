"""Which CE, which jobs, and as whom: from the command line."""

from __future__ import annotations

import argparse
import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from arcbackend import ARCConfig, ConfigurationError, CredentialKind, JobHandle, JobID
from arcbackend.cli.connection import add_connection, backend_of
from arcbackend.cli.ids import read_ids
from arcbackend.jobids import endpoint_of

URL = JobID("https://ce.example.org:8443/arex/rest/1.0/jobs/abc")
HANDLE = JobHandle(id=URL, copy_index=0, name="n", stdout="out")
TOKEN = "secret-token-of-this-test"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path


def config(token_file: Path, *arguments: str, ids: Any = ()) -> ARCConfig:
    parser = argparse.ArgumentParser()
    add_connection(parser)
    given = parser.parse_args([*arguments, "--token-file", str(token_file)])
    return backend_of(given, ids).config


def test_the_ce_is_named_by_an_option_or_by_the_first_job_that_names_one(
    token_file: Path,
) -> None:
    named = config(token_file, "--endpoint", "https://other.example.org", ids=[URL])
    assert named.endpoint == "https://other.example.org:443"
    ids = [JobID("abc"), JobID("no id!"), URL, JobID("https://late.example.org/arex/x")]
    assert config(token_file, ids=ids).endpoint == "https://ce.example.org:8443"
    assert config(token_file, ids=[HANDLE]).endpoint == "https://ce.example.org:8443"
    with pytest.raises(ConfigurationError, match="--endpoint"):
        config(token_file, ids=[JobID("abc")])


def test_options_are_stronger_than_the_file(token_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "arc.toml"
    file.write_text(
        "endpoint = 'https://file.example.org'\nca_dir = '/ca'\nconcurrency = 3\n[limits]\n"
        "max_files = 7\n"
    )
    found = config(token_file, "--config", str(file), ids=[URL])
    assert found.endpoint == "https://file.example.org:443"
    assert (found.ca_dir, found.concurrency, found.limits.max_files) == (Path("/ca"), 3, 7)
    found = config(
        token_file, "--config", str(file), "--endpoint", "https://x.org", "--ca-file", "/ca.pem"
    )
    assert (found.endpoint, found.concurrency) == ("https://x.org:443", 3)
    assert (found.ca_file, found.ca_dir) == (Path("/ca.pem"), None)


def test_a_file_without_a_ce(token_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "arc.toml"
    file.write_text("concurrency = 3\n")
    assert config(token_file, "--config", str(file), ids=[URL]).endpoint.endswith(":8443")


@pytest.mark.parametrize(
    ("text", "told"), [("concurency = 3", "concurency"), ("endpoint = [", "arc.toml"), (None, "No")]
)
def test_a_wrong_file(token_file: Path, tmp_path: Path, text: str | None, told: str) -> None:
    file = tmp_path / "arc.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigurationError, match=told):
        config(token_file, "--config", str(file), ids=[URL])


def test_two_trust_anchors(token_file: Path) -> None:
    with pytest.raises(ConfigurationError, match="give one of them"):
        config(token_file, "--ca-file", "/a", "--ca-dir", "/b", ids=[URL])


async def test_the_token_is_read_from_its_file(token_file: Path) -> None:
    parser = argparse.ArgumentParser()
    add_connection(parser)
    backend = backend_of(parser.parse_args(["--token-file", str(token_file)]), [URL])
    os.utime(token_file, (0, 0))  # (what is new may still be being written)
    held = await backend._session.wallet.get(frozenset({"compute.read"}))
    token = held.get(CredentialKind.TOKEN)
    assert token is not None
    assert token.value.get_secret_value() == TOKEN


# jobs


def stdin(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text), encoding="ascii"))


def test_jobs_are_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, b"not read")
    assert read_ids(["abc", URL]) == [JobID("abc"), URL]


def test_jobs_on_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"abc\n\n  {URL}  \r\n{HANDLE.model_dump_json()}\n\xe9\n".encode()
    stdin(monkeypatch, text)
    assert read_ids(["x", "-", "y"]) == [
        JobID("x"),
        JobID("abc"),
        URL,
        HANDLE,
        JobID("\xe9"),
        JobID("y"),
    ]
    stdin(monkeypatch, b"\xff\n")
    assert read_ids(["-"]) == [JobID("\\xff")]  # which is no id, as will be told
    stdin(monkeypatch, b"")
    assert read_ids(["-"]) == []


def test_what_is_no_handle_is_told_by_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, b'abc\n{"id": 1}\n')
    with pytest.raises(ConfigurationError, match="line 2"):
        read_ids(["-"])


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        (URL, "https://ce.example.org:8443"),
        ("https://ce.example.org/arex/abc", "https://ce.example.org:443"),
        ("abc", None),
        ("", None),
        ("https://ce.example.org:99999/arex/abc", None),
        ("https://user@ce.example.org/arex/abc", None),
        ("https://ce.example.org/elsewhere/abc", None),
    ],
)
def test_the_ce_that_an_id_names(text: str, endpoint: str | None) -> None:
    assert endpoint_of(JobID(text)) == endpoint
