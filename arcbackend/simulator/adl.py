"""ADL, the job description language of EMI, as A-REX's ``ADLParser.cpp`` reads it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from xml.etree import ElementTree as ET

from arcbackend.simulator import safe_xml
from arcbackend.simulator.requested import (
    NOT_SAID,
    Input,
    Output,
    Refused,
    Request,
    integer,
    is_url,
    remote,
)

__all__ = ["request_of"]

_ADL = "http://www.eu-emi.eu/es/2010/12/adl"
_NORDUGRID_ADL = "http://www.nordugrid.org/es/2011/12/nordugrid-adl"
_MIB = 2**20
_FLAGS = {"true": True, "1": True, "false": False, "0": False}
_CREATION_MODES = {"overwrite", "append", "dontOverwrite"}
_NOTIFIED_STATES = {"ACCEPTED", "PREPROCESSING", "PROCESSING", "POSTPROCESSING", "TERMINAL"}
_NODE_ACCESS = {"inbound", "outbound", "inoutbound"}
_NOT_ADL = "emies:adl parsing error"


class _Element:
    """An element of a description; any other language's elements are not seen."""

    def __init__(self, element: ET.Element) -> None:
        self._element = element

    def all(self, name: str, namespace: str = _ADL) -> Iterator[_Element]:
        return map(_Element, self._element.findall(f"{{{namespace}}}{name}"))

    def first(self, name: str, namespace: str = _ADL) -> _Element | None:
        return next(self.all(name, namespace), None)

    def text(self, name: str, namespace: str = _ADL) -> str:
        """The text of the first element of this name; nothing if there is none."""
        found = self.first(name, namespace)
        return "" if found is None else found.own()

    def own(self) -> str:
        return safe_xml.texts(self._element)

    def integer(self, name: str, bits: int = 31, *, default: int = NOT_SAID) -> int:
        """A number; the default if there is no such element."""
        found = self.first(name)
        if found is None:
            return default
        number = integer(found.own(), bits)
        if number is None:
            raise Refused(_NOT_ADL)
        return number

    def flag(self, name: str, namespace: str = _ADL) -> bool:
        found = self.first(name, namespace)
        if found is None:
            return False
        _refuse_unless(found.own() in _FLAGS)
        return _FLAGS[found.own()]

    def uses_number(self) -> bool:
        """The attribute ``useNumberOfSlots``."""
        return self._element.get("useNumberOfSlots") in ("true", "1")

    def optional(self) -> bool:
        """The attribute ``optional``."""
        found = self._element.get("optional")
        _refuse_unless(found is None or found in _FLAGS)
        return found is not None and _FLAGS[found]


def _refuse_unless(good: bool) -> None:
    if not good:
        raise Refused(_NOT_ADL)


def request_of(element: ET.Element) -> Request:
    """What a description asks for.

    Raises:
        Refused: it is none, or A-REX cannot read it.
    """
    _refuse_unless(element.tag == f"{{{_ADL}}}ActivityDescription")
    activity, request = _Element(element), Request("adl")
    identification = activity.first("ActivityIdentification")
    if identification is not None:
        request.name = identification.text("Name")
    for name, read in (
        ("Application", _read_application),
        ("Resources", _read_resources),
        ("DataStaging", _read_staging),
    ):
        if (part := activity.first(name)) is not None:
            read(part, request)
    return request


def _read_application(application: _Element, request: Request) -> None:
    if (executable := application.first("Executable")) is not None:
        executable.integer("FailIfExitCodeNotEqualTo")
        request.executable = executable.text("Path")
        request.arguments = [argument.own() for argument in executable.all("Argument")]
    request.reruns = integer(application.text("Rerun", _NORDUGRID_ADL)) or 0
    request.priority = min(integer(application.text("Priority", _NORDUGRID_ADL)) or 0, 100)
    request.stdin = application.text("Input")
    request.stdout = application.text("Output")
    request.stderr = application.text("Error")
    for variable in application.all("Environment"):
        request.environment[variable.text("Name")] = variable.text("Value")
    for kind in ("Pre", "Post"):
        for executable in application.all(f"{kind}Executable"):
            executable.integer("FailIfExitCodeNotEqualTo")
            request.unsupported.append(f"{kind}-executables are not supported by this service")
    request.log_directory = application.text("LoggingDirectory") or application.text(
        "LoggingDirectory", _NORDUGRID_ADL
    )
    for logging in application.all("RemoteLogging"):
        _refuse_unless(is_url(logging.text("URL")))
        logging.optional()
    for time in ("ExpirationTime", "WipeTime"):
        for stated in application.all(time):
            stated.optional()
    application.flag("DryRun", _NORDUGRID_ADL)
    for service in application.all("CredentialService", _NORDUGRID_ADL):
        _refuse_unless(is_url(service.own()))
    for notification in application.all("Notification"):
        wanted = notification.optional()
        states = {state.own() for state in notification.all("OnState")}
        by_mail = notification.text("Protocol") == "email"
        _refuse_unless(wanted or (by_mail and states <= _NOTIFIED_STATES))


def _read_resources(resources: _Element, request: Request) -> None:
    for environment in resources.all("RuntimeEnvironment"):
        environment.optional()
        words = (environment.text("Name"), environment.text("Version"))
        request.runtime_environments.append("-".join(word for word in words if word))
    if (parallel := resources.first("ParallelEnvironment")) is not None:
        parallel.integer("ProcessesPerSlot")
        parallel.integer("ThreadsPerProcess")
        for option in parallel.all("Option"):
            _refuse_unless(bool(option.text("Name")))
    for coprocessor in resources.all("Coprocessor"):
        coprocessor.optional()
        if coprocessor.own():
            request.unsupported.append("Coprocessor is not supported yet.")
    _refuse_unless(resources.first("NetworkInfo") is None)
    _refuse_unless(resources.first("Benchmark") is None)
    access = resources.first("NodeAccess")
    _refuse_unless(access is None or access.own() in _NODE_ACCESS)
    if (slots := resources.first("SlotRequirement")) is not None:
        _refuse_unless(slots.first("NumberOfSlots") is not None)
        request.slots = slots.integer("NumberOfSlots")
        request.slots_per_host = _slots_per_host(slots, request.slots)
    request.queue = resources.text("QueueName")
    memory = resources.integer("IndividualPhysicalMemory", 64)
    request.memory = -(-memory // _MIB) if memory >= 0 else NOT_SAID
    resources.integer("IndividualVirtualMemory", 64)
    _refuse_unless(resources.integer("DiskSpaceRequirement", 64) != 0)
    resources.flag("RemoteSessionAccess")
    resources.integer("IndividualCPUTime")
    request.cpu_time = resources.integer("TotalCPUTime")
    request.wall_time = resources.integer("WallTime")


def _slots_per_host(slots: _Element, number: int) -> int:
    per_host = slots.first("SlotsPerHost")
    if per_host is not None and per_host.uses_number():
        return number
    return slots.integer("SlotsPerHost")


def _read_staging(staging: _Element, request: Request) -> None:
    staging.flag("ClientDataPush")
    for file in staging.all("InputFile"):
        name = file.text("Name")
        _refuse_unless(bool(name))
        sources = [source.text("URI") for source in file.all("Source")]
        _refuse_unless(all(map(is_url, sources)))
        request.delegations += _delegations(file.all("Source"))
        request.inputs.append(
            Input(
                name=name,
                source=remote(sources[0]) if sources else None,  # A-REX takes the first only
                executable=file.text("IsExecutable") not in ("", "false", "0"),
            )
        )
    for file in staging.all("OutputFile"):
        name = file.text("Name")
        _refuse_unless(bool(name))
        targets: list[str | None] = [_read_target(t, request) for t in file.all("Target")]
        request.delegations += _delegations(file.all("Target"))
        request.outputs += [Output(name, target) for target in targets or [None]]
    request.delegation = staging.text("DelegationID", _NORDUGRID_ADL)


def _read_target(target: _Element, request: Request) -> str:
    url = target.text("URI")
    _refuse_unless(is_url(url))
    for name in ("Mandatory", "UseIfFailure", "UseIfCancel", "UseIfSuccess"):
        target.flag(name)
    mode = target.first("CreationFlag")
    if mode is not None:
        _refuse_unless(mode.own() in _CREATION_MODES)
        if mode.own() == "append":
            request.unsupported.append("Unsupported creation mode for Target")
    return url


def _delegations(transfers: Iterable[_Element]) -> list[str]:
    named = (transfer.text("DelegationID") for transfer in transfers)
    return [delegation for delegation in named if delegation]
