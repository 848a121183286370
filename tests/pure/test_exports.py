"""What arcbackend exports: exactly what it says, and what the contract says."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

import pytest
from pydantic import BaseModel

import arcbackend
from arcbackend import (
    ARCBackend,
    ARCConfig,
    BearerToken,
    Cancellable,
    CredentialKind,
    InterCEdeError,
    JobBackend,
    LoadReporter,
    Monitor,
    OutputRetriever,
    Purgeable,
    StaticCredentials,
    Submitter,
    SupportsLiveDiagnostics,
)

# contract.md, as far as submit, status, kill and purge go, and the poller.
CONTRACT = {
    "ARCBackend",
    "ARCConfig",
    "Limits",
    "Submitter",
    "Monitor",
    "JobBackend",
    "Cancellable",
    "Purgeable",
    "OutputRetriever",
    "LoadReporter",
    "JobOutput",
    "JobCounts",
    "Diagnostics",
    "SupportsLiveDiagnostics",
    "SubmissionSpec",
    "FileRef",
    "OutputSpec",
    "OutputMember",
    "Resources",
    "CopyVars",
    "JobID",
    "JobHandle",
    "JobStatus",
    "Submission",
    "OpOutcome",
    "BearerToken",
    "X509Proxy",
    "CredentialSet",
    "CredentialRequirements",
    "CredentialProvider",
    "StaticCredentials",
    "FileCredentials",
    "InterCEdeError",
    "TransportError",
    "AuthenticationError",
    "ProtocolError",
    "SubmissionRefused",
    "ConfigurationError",
    "Poller",
    "Policy",
    "JobEvent",
}
PROTOCOLS = [
    Submitter,
    Monitor,
    JobBackend,
    Cancellable,
    Purgeable,
    SupportsLiveDiagnostics,
    OutputRetriever,
    LoadReporter,
]
PUBLIC = {name: getattr(arcbackend, name) for name in arcbackend.__all__}


def _backend() -> ARCBackend:
    token = BearerToken(value="t")
    return ARCBackend(ARCConfig(endpoint="https://ce.example.org"), StaticCredentials(token))


def test_all_is_what_can_be_imported() -> None:
    importable = {
        name
        for name, value in vars(arcbackend).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert importable == set(arcbackend.__all__)
    assert len(set(arcbackend.__all__)) == len(arcbackend.__all__)


def test_everything_the_contract_names_is_exported() -> None:
    assert set(arcbackend.__all__) >= CONTRACT


@pytest.mark.parametrize("name", PUBLIC)
def test_everything_exported_is_documented(name: str) -> None:
    thing = PUBLIC[name]
    if name == "JobID":
        return  # a NewType takes no docstring of its own
    assert inspect.getdoc(thing)
    if isinstance(thing, type):
        assert thing.__doc__
        for member, value in vars(thing).items():
            if not member.startswith("_") and inspect.isfunction(value):
                assert value.__doc__ or typing.get_overloads(value), f"{name}.{member}"


# the protocols


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_backend_satisfies(protocol: type) -> None:
    assert isinstance(_backend(), protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_protocols_tell_backends_from_other_things(protocol: type) -> None:
    assert not isinstance(object(), protocol)


@pytest.mark.parametrize("verb", ["submit", "status", "kill", "purge", "fetch_output", "counts"])
def test_the_verbs_are_as_the_protocols_write_them(verb: str) -> None:
    (owner,) = (p for p in PROTOCOLS if verb in vars(p))
    asked = inspect.signature(getattr(owner, verb), eval_str=True)
    ours = inspect.signature(getattr(ARCBackend, verb), eval_str=True)
    more = [ours.parameters[name] for name in ours.parameters if name not in asked.parameters]
    for parameter in more:  # what only callers who know us give
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default is None
    least = [parameter for parameter in ours.parameters.values() if parameter not in more]
    assert ours.replace(parameters=least) == asked
    assert inspect.iscoroutinefunction(getattr(ARCBackend, verb))


def test_submit_is_called_as_the_contract_says() -> None:
    signature = inspect.signature(ARCBackend.submit)
    spec, count, copies = list(signature.parameters.values())[1:]
    assert (spec.name, count.name, count.default) == ("spec", "count", 1)
    assert (copies.name, copies.kind, copies.default) == ("copies", copies.KEYWORD_ONLY, None)


def test_the_entry_point_is_declared() -> None:
    found = entry_points(group="intercede.backends")
    if not found:
        pytest.skip("arcbackend is not installed here")
    assert found["arc"].load() is ARCBackend


async def test_construction_does_no_io_and_close_is_idempotent() -> None:
    token = BearerToken(value="t")
    config = ARCConfig(endpoint="https://ce.invalid", ca_file="/does/not/exist")
    backend = ARCBackend(config, StaticCredentials(token))
    async with backend as entered:
        assert entered is backend
    await backend.aclose()
    await backend.aclose()


def test_what_credentials_the_configuration_needs() -> None:
    needed = _backend().credential_requirements
    assert needed.kinds == {CredentialKind.TOKEN}
    assert needed.resource == "https://ce.example.org:443"


def test_every_exception_has_one_root() -> None:
    raised = [value for value in PUBLIC.values() if inspect.isclass(value)]
    raised = [value for value in raised if issubclass(value, BaseException)]
    assert raised
    assert all(issubclass(value, InterCEdeError) for value in raised)


# implementations stay replaceable: their types are in no public signature


def _mentioned(hint: Any) -> Iterator[str]:
    yield getattr(hint, "__module__", "") or ""
    for argument in typing.get_args(hint):
        yield from _mentioned(argument)


def _hints(thing: Any) -> Iterator[Any]:
    if isinstance(thing, type):
        yield from typing.get_type_hints(thing).values()
        yield from thing.__mro__
        for name, value in vars(thing).items():
            if isinstance(value, property):
                value = value.fget  # noqa: PLW2901
            if inspect.isfunction(value) and (not name.startswith("_") or name == "__init__"):
                yield from typing.get_type_hints(value).values()
        if issubclass(thing, BaseModel):
            yield from (info.annotation for info in thing.model_fields.values())
        if dataclasses.is_dataclass(thing):
            yield from (field.type for field in dataclasses.fields(thing))


@pytest.mark.parametrize("name", PUBLIC)
def test_no_http_library_is_in_a_public_type(name: str) -> None:
    hints = list(_hints(PUBLIC[name]))
    modules = {module.partition(".")[0] for hint in hints for module in _mentioned(hint)}
    assert not modules & {"httpx", "httpcore", "h11"}
