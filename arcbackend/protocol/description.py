"""Job descriptions in ADL, and what ARC cannot be asked.

ADL (EMI Activity Description Language, as A-REX's ``ADLParser.cpp`` reads it) rather than xRSL: the
measurements behind that are in docs/explanation/job-description.md. So are those behind the
*armour*: A-REX writes arguments between double quotes into the shell script that runs on the node,
with ``$`` and backquotes left alive, and passes arguments and environment through ``echo`` and
``cut``. What such a script would change travels in base64 instead.
"""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from arcbackend.errors import SubmissionRefused
from arcbackend.models import FileRef, OutputMember, SubmissionSpec

__all__ = [
    "activities",
    "activity",
    "activity_name",
    "check_environment",
    "check_files",
    "check_name",
    "check_size",
    "check_spec",
]

_ADL = "http://www.eu-emi.eu/es/2010/12/adl"
_NORDUGRID_ADL = "http://www.nordugrid.org/es/2011/12/nordugrid-adl"
_MIB = 2**20

# Shown to arrive unchanged on 7.0.0 and 7.2.0 (tests/integration/test_description.py).
_PLAIN_ARGUMENT = re.compile(r"[A-Za-z0-9_./:=,@%+-]+(?: [A-Za-z0-9_./:=,@%+-]+)*")
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9_./:=,@%+ $;#()*?!&|<>~^{}\[\]\"'-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# File names that a description can carry. What a job writes under other names is retrieved all the
# same (include_unlisted).
_NAME = re.compile(r"[A-Za-z0-9_.,:=+%~@ ()-]+(?:/[A-Za-z0-9_.,:=+%~@ ()-]+)*")

# The names we give hold no character that XML escapes, so no XML parser need meet a CE's bytes.
# Stands unquoted in the scripts that ARC makes of a job (docs/explanation/arc-rest.md).
_STREAM = re.compile(r"[A-Za-z0-9_.,:=+%@/-]+")
_ACTIVITY_NAME = re.compile(
    rb"<(?:\w+:)?ActivityIdentification>\s*<(?:\w+:)?Name>([A-Za-z0-9._-]+)</"
)

_ARMOUR = "ARCBACKEND_SCRIPT_"
# Linux: one string of the environment or the arguments has at most 128 KiB (MAX_ARG_STRLEN,
# execve(2)).
_ARMOUR_PIECE = 96 * 1024
_MAX_STRING = 128 * 1024 - 1
_UNSET_MOST = 16 * 1024
_SHOWN = 120
# All of them together have a quarter of the stack limit, usually 2 MiB (execve(2)), and the node's
# own environment needs room in it too. Each string costs its closing NUL and a pointer.
_MAX_PROCESS_ARGUMENTS = 1024 * 1024
_POINTER = 9
# Variables that the shells between ARC and the payload set or obey, or that ARC's job script uses.
_SHELL_VARIABLES = frozenset(
    """
    _ CDPATH COLUMNS DIRSTACK ENV EUID FUNCNAME GLOBIGNORE GNU_TIME GROUPS HISTCMD HOME HOSTNAME
    HOSTTYPE IFS LINENO LINES LOGNAME MACHTYPE OLDPWD OPTARG OPTERR OPTIND OSTYPE PATH PIPESTATUS
    POSIXLY_CORRECT PPID PS1 PS2 PS4 PWD RANDOM REPLY RESULT SECONDS SHELL SHELLOPTS SHLVL SRANDOM
    TMPDIR UID USER executable interpreter line1 script shebang x
    """.split()  # noqa: SIM905  (a list of a page is no clearer)
)
_SHELL_PREFIXES = (
    "ACCOUNTING_",
    "ARC",
    "BASH",
    "CONFIG_",
    "GRID_",
    "JOB_",
    "LD_",
    "RUNTIME_",
    "SLURM_",
)


def check_spec(spec: SubmissionSpec) -> None:
    """Refuse what ARC cannot honour, naming the field.

    Raises:
        SubmissionRefused: the first fault found.
    """
    _check_executable(spec)
    for index, argument in enumerate(spec.arguments):
        _check_string(argument, f"arguments[{index}]")
    check_environment(spec.environment, "environment")
    check_size(spec, spec.environment, "arguments")
    for index, ref in enumerate(spec.inputs):
        if ref.url is not None:
            _check_url(ref.url, f"inputs[{index}].source")
    check_files(spec, {})
    for index, member in enumerate(spec.outputs.members):
        _check_member(member, f"outputs.members[{index}]")


def check_environment(environment: Mapping[str, str], field: str) -> None:
    """Refuse variables that a shell or the kernel would not take.

    Raises:
        SubmissionRefused: naming the variable.
    """
    for name, value in environment.items():
        where = f"{field}[{name!r}]"
        if _VARIABLE.fullmatch(name) is None:
            raise SubmissionRefused(
                "not a variable name: letters, digits and _, no digit first", field=where
            )
        if name.startswith(_ARMOUR):
            raise SubmissionRefused(f"names beginning with {_ARMOUR} are arcbackend's", field=where)
        _check_string(f"{name}={value}", where)


def check_files(spec: SubmissionSpec, secrets: Mapping[str, str]) -> None:
    """Refuse names of files in the session directory that are bad, or that clash.

    Args:
        spec: the spec.
        secrets: the names of further files → the field that names each.

    Raises:
        SubmissionRefused: naming the field.
    """
    files = [
        *((f"inputs[{index}].name", ref.name) for index, ref in enumerate(spec.inputs)),
        *((field, getattr(spec, field)) for field in ("stdout", "stderr")),
        *((field, name) for name, field in secrets.items()),
    ]
    taken: dict[str, str] = {}
    directories: dict[str, str] = {}
    for field, name in files:
        if name is None:
            continue
        check_name(name, field)
        if name in taken and {field, taken[name]} != {"stdout", "stderr"}:  # those may be one file
            raise SubmissionRefused(f"is the name of {taken[name]} too", field=field)
        parents = _parents(name)
        clash = directories.get(name) or next((taken[p] for p in parents if p in taken), None)
        if clash is not None:
            raise SubmissionRefused(
                f"{_shown(name)} cannot be beside {clash}: one needs a directory where the other "
                "is a file",
                field=field,
            )
        taken[name] = field
        directories |= dict.fromkeys(parents, field)
    made = {parent for ref in spec.inputs for parent in _parents(ref.name)}
    for field in ("stdout", "stderr"):
        name = getattr(spec, field)
        if name is None:
            continue
        if _STREAM.fullmatch(name) is None:
            raise SubmissionRefused(
                f"{_shown(name)} holds a blank, a bracket or a ~: ARC's scripts on the node do not "
                "quote this name",
                field=field,
            )
        if not made.issuperset(_parents(name)):
            raise SubmissionRefused(
                f"{_shown(name)} lies in a directory that ARC does not make: put an input into it, "
                "or let the job move the file",
                field=field,
            )


def _parents(name: str) -> list[str]:
    """The directories that a file lies in."""
    parts = name.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def check_size(spec: SubmissionSpec, environment: Mapping[str, str], field: str) -> None:
    """Refuse arguments and environment that together are more than a process can be given.

    Raises:
        SubmissionRefused: naming the field.
    """
    _, arguments, sent = _command(spec, environment)
    for words, variables in ((arguments, sent), (spec.arguments, environment)):
        strings = [*words, *(f"{name}={value}" for name, value in variables.items())]
        size = sum(len(string.encode()) + _POINTER for string in strings)
        if size > _MAX_PROCESS_ARGUMENTS:
            raise SubmissionRefused(
                f"arguments and environment come to {size} bytes as ARC needs them written; a "
                f"process on the node can be given {_MAX_PROCESS_ARGUMENTS}: use an input file",
                field=field,
            )


def check_name(name: str, field: str) -> None:
    """Refuse a file name that leads out of the session directory or does not survive ARC.

    Raises:
        SubmissionRefused: naming the field.
    """
    parts = name.split("/")
    if name.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise SubmissionRefused(
            f"{_shown(name)} is not a plain relative path: no leading /, no empty, . or .. "
            "component",
            field=field,
        )
    if _NAME.fullmatch(name) is None:
        raise SubmissionRefused(
            f"{_shown(name)} holds a character that ARC's scripts do not carry: letters, digits, "
            "blanks and _.,:=+%~@()- are safe",
            field=field,
        )
    if name != name.strip() or name.startswith("@"):
        raise SubmissionRefused(
            f"{_shown(name)} begins or ends with a blank, which ARC trims, or begins with @, which "
            "ARC takes for a list of files",
            field=field,
        )


def activity(
    spec: SubmissionSpec,
    *,
    name: str,
    queue: str | None,
    environment: Mapping[str, str],
    secrets: Sequence[str] = (),
    delegation: str | None = None,
) -> bytes:
    """One ADL ``ActivityDescription``.

    Args:
        spec: a spec that `check_spec` let pass.
        name: the job's name.
        queue: queue for the job, or None.
        environment: the job's whole environment.
        secrets: names of further files that will be uploaded.
        delegation: id of the delegation that the job uses (ARC REST 1.0; 1.1 has a parameter).
    """
    root = ET.Element(f"{{{_ADL}}}ActivityDescription")
    identification = _add(root, "ActivityIdentification")
    _add(identification, "Name", name)
    _add_application(root, spec, environment)
    _add_resources(root, spec, queue)
    staging = _add_staging(root, spec, secrets)
    if delegation is not None:
        ET.SubElement(staging, f"{{{_NORDUGRID_ADL}}}DelegationID").text = delegation
    return bytes(ET.tostring(root, encoding="utf-8", default_namespace=_ADL))


def activities(descriptions: Sequence[bytes]) -> bytes:
    """Several descriptions in one body."""
    return b"".join(
        (
            f'<ActivityDescriptions xmlns="{_ADL}">'.encode(),
            *descriptions,
            b"</ActivityDescriptions>",
        )
    )


def activity_name(description: bytes) -> str | None:
    """The job's name in a description that `activity` made; None in any other."""
    found = _ACTIVITY_NAME.search(description)
    return found[1].decode() if found else None


def _shown(text: str) -> str:
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}…"


def _check_executable(spec: SubmissionSpec) -> None:
    if "=" in spec.executable:
        raise SubmissionRefused(
            "holds a =, which env takes for a variable's: rename the file", field="executable"
        )
    if spec.executable.startswith("/"):
        _check_string(spec.executable, "executable")
    elif spec.executable not in {ref.name for ref in spec.inputs}:
        raise SubmissionRefused(
            f"{_shown(spec.executable)} is neither an absolute path on the CE's nodes nor the "
            "name of an input",
            field="executable",
        )


def _check_string(text: str, field: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise SubmissionRefused("holds a lone surrogate, which is no text", field=field) from None
    if size > _MAX_STRING:
        raise SubmissionRefused(
            f"has {size} bytes; a process takes {_MAX_STRING} in one string: use an input file",
            field=field,
        )


def _check_url(url: str, field: str) -> None:
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = None
    if parts is None or not parts.scheme or not (parts.netloc or parts.path):
        raise SubmissionRefused("is not a URL", field=field)
    if not url.isascii() or not url.isprintable() or " " in url:
        raise SubmissionRefused(
            "is a URL with unescaped characters: percent-encode them", field=field
        )


def _check_member(member: OutputMember, field: str) -> None:
    where = f"{field}.pattern"
    if any(c in member.pattern for c in "*?["):
        raise SubmissionRefused(
            f"{member.pattern!r}: ARC knows no wildcards; name files, or directories with a "
            "closing /, or set include_unlisted",
            field=where,
        )
    check_name(member.pattern.removesuffix("/"), where)
    if member.destination is not None:
        _check_url(member.destination, f"{field}.destination")
        if member.pattern.endswith("/"):
            raise SubmissionRefused(
                "a directory cannot be uploaded by the CE: name its files", field=where
            )


def _add(parent: ET.Element, tag: str, text: str | None = None) -> ET.Element:
    child = ET.SubElement(parent, f"{{{_ADL}}}{tag}")
    child.text = text
    return child


def _add_application(
    root: ET.Element, spec: SubmissionSpec, environment: Mapping[str, str]
) -> None:
    application = _add(root, "Application")
    executable = _add(application, "Executable")
    path, arguments, environment = _command(spec, environment)
    _add(executable, "Path", path)
    for argument in arguments:
        _add(executable, "Argument", argument)
    if spec.stdout is not None:
        _add(application, "Output", spec.stdout)
    if spec.stderr is not None:
        _add(application, "Error", spec.stderr)
    for variable, value in environment.items():
        pair = _add(application, "Environment")
        _add(pair, "Name", variable)
        _add(pair, "Value", value)


def _command(
    spec: SubmissionSpec, environment: Mapping[str, str]
) -> tuple[str, Sequence[str], Mapping[str, str]]:
    """Executable, arguments and environment such that the payload receives exactly the spec's."""
    hostile = {
        name: value
        for name, value in environment.items()
        if _PLAIN_VALUE.fullmatch(value) is None
        or name in _SHELL_VARIABLES
        or name.startswith(_SHELL_PREFIXES)
    }
    if not hostile and all(
        _PLAIN_ARGUMENT.fullmatch(word) for word in (spec.executable, *spec.arguments)
    ):
        return spec.executable, spec.arguments, environment
    plain = {name: value for name, value in environment.items() if name not in hostile}
    pieces = dict(_armour(spec, hostile))
    # No character here means anything to a shell between double quotes, however ARC quotes. The
    # last sh reads the script from its standard input, and the script's own exec replaces it.
    decode = f"printenv {' '.join(pieces)}|base64 -d|sh"
    return "/bin/sh", ("-c", decode), {**plain, **pieces}


def _armour(spec: SubmissionSpec, hostile: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The command as a shell script in base64, cut into environment variables."""
    own = spec.executable
    words = [own if own.startswith("/") else f"./{own}", *spec.arguments]
    if hostile:  # set by env, since a shell does not let go of some of its own variables
        words = ["env", *(f"{name}={value}" for name, value in hostile.items()), *words]
    command = f"exec {' '.join(shlex.quote(word) for word in words)} </dev/null\n"
    # The script begins by unsetting its own variables, whose number depends on its length.
    count = 1 + (4 * (len(command.encode()) + _UNSET_MOST) // 3) // _ARMOUR_PIECE
    names = [f"{_ARMOUR}{index}" for index in range(count)]
    encoded = base64.b64encode(f"unset {' '.join(names)}\n{command}".encode()).decode()
    for index, name in enumerate(names):
        yield name, encoded[index * _ARMOUR_PIECE : (index + 1) * _ARMOUR_PIECE]


def _add_resources(root: ET.Element, spec: SubmissionSpec, queue: str | None) -> None:
    asked = spec.resources
    resources = _add(root, "Resources")
    if asked.memory_mb is not None:
        per_core = -(-asked.memory_mb // asked.cpus)
        _add(resources, "IndividualPhysicalMemory", str(per_core * _MIB))
    slots = _add(resources, "SlotRequirement")
    _add(slots, "NumberOfSlots", str(asked.cpus))
    _add(slots, "SlotsPerHost", str(asked.cpus))
    if queue is not None:
        _add(resources, "QueueName", queue)
    if asked.wall_time_s is not None:
        _add(resources, "WallTime", str(asked.wall_time_s))


def _add_staging(root: ET.Element, spec: SubmissionSpec, secrets: Sequence[str]) -> ET.Element:
    staging = _add(root, "DataStaging")
    for ref in spec.inputs:
        _add_input(staging, ref, executable=ref.name == spec.executable)
    for name in secrets:
        _add(_add(staging, "InputFile"), "Name", name)
    kept = {name for name in (spec.stdout, spec.stderr) if name is not None}
    kept |= {member.pattern for member in spec.outputs.members if member.destination is None}
    for name in ["/"] if spec.outputs.include_unlisted else sorted(kept):
        _add(_add(staging, "OutputFile"), "Name", name)
    for member in spec.outputs.members:
        if member.destination is not None:
            file = _add(staging, "OutputFile")
            _add(file, "Name", member.pattern)
            _add(_add(file, "Target"), "URI", member.destination)
    return staging


def _add_input(staging: ET.Element, ref: FileRef, *, executable: bool) -> None:
    file = _add(staging, "InputFile")
    _add(file, "Name", ref.name)
    if executable:
        _add(file, "IsExecutable", "true")
    if ref.url is not None:
        _add(_add(file, "Source"), "URI", ref.url)
