"""Which CE, and as whom: the options of every command that talks to one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arcbackend.backend import ARCBackend
from arcbackend.cli.arguments import Arguments, endpoint
from arcbackend.config import ARCConfig
from arcbackend.credential_files import FileCredentials
from arcbackend.errors import ConfigurationError
from arcbackend.jobids import endpoint_of
from arcbackend.models import JobHandle, JobID
from arcbackend.validation import read_toml

__all__ = ["add_connection", "backend_of"]


def add_connection(command: argparse.ArgumentParser) -> None:
    """Add the options that `backend_of` reads."""
    group = command.add_argument_group("connection")
    group.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="TOML file of settings (docs/reference/configuration.md); the options below are "
        "stronger",
    )
    group.add_argument(
        "--endpoint",
        metavar="URL",
        type=endpoint,
        help="the CE, https://host:port; not needed where a job's whole URL is given",
    )
    group.add_argument(
        "--ca-file",
        metavar="FILE",
        type=Path,
        help="PEM file of the certification authorities to trust",
    )
    group.add_argument(
        "--ca-dir",
        metavar="DIR",
        type=Path,
        help="directory of hashed CA certificates; with neither, the system's store",
    )
    group.add_argument(
        "--token-file",
        metavar="FILE",
        type=Path,
        help="holds the bearer token; by default, found as by WLCG's tools: BEARER_TOKEN, "
        "BEARER_TOKEN_FILE, $XDG_RUNTIME_DIR/bt_u<uid>, /tmp/bt_u<uid>",
    )
    group.add_argument(
        "--proxy-file",
        metavar="FILE",
        type=Path,
        help="holds the X.509 proxy, for a configuration whose auth needs one; by default, "
        "X509_USER_PROXY, /tmp/x509up_u<uid>",
    )


def backend_of(arguments: Arguments, ids: Sequence[JobID | JobHandle] = ()) -> ARCBackend:
    """The backend that the options describe; nothing is sent yet.

    Args:
        arguments: of a command with these options.
        ids: jobs; the first that names a CE tells which one, where no option does.

    Raises:
        ConfigurationError: the configuration cannot be read, or cannot work.
    """
    credentials = FileCredentials(arguments.token_file, arguments.proxy_file)
    return ARCBackend(_configuration(arguments, ids), credentials)


def _configuration(arguments: Arguments, ids: Sequence[JobID | JobHandle]) -> ARCConfig:
    trust = {name: getattr(arguments, name) for name in ("ca_file", "ca_dir")}

    def make(data: dict[str, Any]) -> ARCConfig:
        if any(trust.values()):
            data = {**data, **trust}
        if arguments.endpoint is not None:
            data = {**data, "endpoint": arguments.endpoint}
        if "endpoint" not in data:
            named = next(filter(None, map(endpoint_of, ids)), None)
            if named is None:
                raise ConfigurationError(
                    "which CE? Give --endpoint, or a job by its whole URL (https://…)"
                )
            data = {**data, "endpoint": named}
        return ARCConfig.from_dict(data)

    if arguments.config is None:
        return make({})
    return read_toml(arguments.config, "configuration", make)
