"""xRSL, NorduGrid's job description language, as A-REX's ``XRSLParser.cpp`` reads it.

It is the job manager's dialect of it (``GRIDMANAGER``): times are in seconds, and what is the
client's, ``join``, is not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from arcbackend.simulator import rsl
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

__all__ = ["node_of", "parts_of", "requests_of", "rewritten"]

_NOT_XRSL = "nordugrid:xrsl parsing error"
_NOT_UNDERSTOOD = "No job description parser was able to interpret job description"


def node_of(body: bytes) -> rsl.Node:
    """The RSL in a body.

    Raises:
        Refused: it is none.
    """
    try:
        return rsl.parse(body.decode("utf-8", "surrogateescape"))
    except rsl.RslError as error:
        message = f"{_NOT_XRSL}:\n{error.message}" if error.recognised else _NOT_UNDERSTOOD
        raise Refused(message) from None


def parts_of(node: rsl.Node) -> Sequence[rsl.Node]:
    """The requests in one for several (``+``)."""
    return node.parts if isinstance(node, rsl.Combination) else (node,)


def rewritten(part: rsl.Node) -> bytes:
    """One part of several as A-REX writes it, with what it was beside it (``clientxrsl``)."""
    text = rsl.printed(part)
    own = text if text.startswith("&") else f"&( {text} )"
    return f"{own}( clientxrsl = {rsl.quoted(text)} )".encode("utf-8", "surrogateescape")


def requests_of(nodes: Sequence[rsl.Node]) -> Sequence[Request]:
    """What descriptions ask for.

    Raises:
        Refused: A-REX cannot read one of them, for the faults of all.
    """
    readers = [_Xrsl() for _ in nodes]
    for reader, node in zip(readers, nodes, strict=True):
        reader.read(node)
        reader.finish()
    errors = [error for reader in readers for error in reader.errors]
    if errors:
        raise Refused("\n".join([f"{_NOT_XRSL}:", *errors]))
    return [reader.request for reader in readers]


class _Xrsl:
    """Reads the relations of one description, in the job manager's dialect (``GRIDMANAGER``)."""

    def __init__(self) -> None:
        self.request = Request("xrsl")
        self.errors: list[str] = []
        self._executables: list[str] = []
        self._per_node: str | None = None
        self._action = "request"
        self._resolved = True

    def read(self, node: rsl.Node) -> None:
        if isinstance(node, rsl.Combination):
            # Of alternatives, A-REX takes the first.
            for part in node.parts[:1] if node.operator == "|" else node.parts:
                self.read(part)
            return
        if (name := _TEXTS.get(node.attribute)) is not None:
            setattr(self.request, name, self._single(node, getattr(self.request, name)))
        elif (read := _READ.get(node.attribute)) is not None:
            read(self, node)

    def finish(self) -> None:
        """Look at what depends on more than one relation."""
        request = self.request
        known = {file.name for file in request.inputs}
        for name in self._executables:
            if name not in known:
                self.errors.append(
                    f"File '{name}' in the 'executables' attribute is not present in the "
                    "'inputfiles' attribute"
                )
        request.inputs = [
            Input(file.name, file.source, executable=file.name in self._executables)
            for file in request.inputs
        ]
        self._finish_slots()
        if not self._resolved:
            request.unsupported.append("Runtime environments have not been resolved.")
        if self._action != "request":
            request.unsupported.append(f"Wrong action in job request: {self._action}")

    def _finish_slots(self) -> None:
        if self._per_node is None:
            return
        if self.request.slots == NOT_SAID:
            self.errors.append(
                "When specifying 'countpernode' attribute, 'count' attribute must also be specified"
            )
        elif (number := integer(self._per_node)) is None:
            self.errors.append("Value of 'countpernode' attribute must be an integer")
        else:
            self.request.slots_per_host = number

    # Words.

    def _read_action(self, relation: rsl.Relation) -> None:
        self._action = self._single(relation)

    def _read_delegationid(self, relation: rsl.Relation) -> None:
        text = self._single(relation)
        if relation.operator == "=":
            self.request.delegation = text
        else:
            self.errors.append(
                f"Invalid comparison operator '{relation.operator}' used at 'delegationid' "
                'attribute, only "=" is allowed.'
            )

    def _read_queue(self, relation: rsl.Relation) -> None:
        text = self._single(relation)
        if relation.operator == "=":
            self.request.queue = text
        else:
            self.errors.append(
                f"Invalid comparison operator '{relation.operator}' used at 'queue' attribute in "
                "'GRIDMANAGER' dialect, only \"=\" is allowed"
            )

    # Numbers.

    def _read_count(self, relation: rsl.Relation) -> None:
        number = integer(self._single(relation))
        if number is None:
            self.errors.append("Value of 'count' attribute must be an integer")
        else:
            self.request.slots = number

    def _read_countpernode(self, relation: rsl.Relation) -> None:
        self._per_node = self._single(relation)

    def _read_rerun(self, relation: rsl.Relation) -> None:
        self.request.reruns = integer(self._single(relation)) or 0

    def _read_priority(self, relation: rsl.Relation) -> None:
        self.request.priority = min(integer(self._single(relation)) or 0, 100)

    def _read_memory(self, relation: rsl.Relation) -> None:
        self.request.memory = integer(self._single(relation)) or 0

    def _read_walltime(self, relation: rsl.Relation) -> None:
        self.request.wall_time = _seconds(self._single(relation))

    def _read_cputime(self, relation: rsl.Relation) -> None:
        self.request.cpu_time = _seconds(self._single(relation))

    def _read_exclusiveexecution(self, relation: rsl.Relation) -> None:
        if self._single(relation).lower() not in ("yes", "true", "no", "false"):
            self.errors.append(
                "Value of 'exclusiveexecution' attribute must either be 'yes' or 'no'"
            )

    # Lists.

    def _read_arguments(self, relation: rsl.Relation) -> None:
        self.request.arguments = self._list(relation, self.request.arguments)

    def _read_executables(self, relation: rsl.Relation) -> None:
        self._executables = self._list(relation, [])

    def _read_environment(self, relation: rsl.Relation) -> None:
        for name, value in self._rows(relation, 2):
            self.request.environment[name] = value

    def _read_runtimeenvironment(self, relation: rsl.Relation) -> None:
        words = self._list(relation, [])
        if not words:
            self.errors.append("Value of attribute 'runtimeenvironment' expected not to be empty")
            return
        self.request.runtime_environments.append(words[0])
        self._resolved = self._resolved and relation.operator == "="

    def _read_notify(self, relation: rsl.Relation) -> None:
        for text in self._list(relation, []):
            states, *addresses = text.split() or [""]
            if "@" in states:
                states, addresses = "be", [states, *addresses]
            wrong = f"Syntax error in 'notify' attribute value ('{text}'), it "
            if not addresses:
                self.errors.append(f"{wrong}must contain an email address")
            elif any("@" not in address for address in addresses):
                self.errors.append(f"{wrong}must only contain email addresses after state flag(s)")
            elif set(states) - set("bqfedc"):
                self.errors.append(f"{wrong}contains unknown state flags")

    def _read_inputfiles(self, relation: rsl.Relation) -> None:
        for name, place, options in self._files(relation, "inputfiles"):
            sized = integer(place.partition(".")[0], 63) is not None  # what the client uploads
            if place and not sized:
                if not is_url(place):
                    self.errors.append(f"Invalid URL '{place}' for input file '{name}'")
                    continue
                self._read_options(options, "input", name)
            self.request.inputs.append(Input(name, None if sized else remote(place)))

    def _read_outputfiles(self, relation: rsl.Relation) -> None:
        for name, place, options in self._files(relation, "outputfiles"):
            target = remote(place)
            if target is not None:
                if not is_url(target):
                    self.errors.append(f"Invalid URL '{place}' for output file '{name}'")
                    continue
                self._read_options(options, "output", name)
            self.request.outputs.append(Output(name, target))

    def _files(
        self, relation: rsl.Relation, attribute: str
    ) -> Iterator[tuple[str, str, list[str]]]:
        for row in self._rows(relation):
            if len(row) < 2:  # noqa: PLR2004 - name and place
                self.errors.append(
                    f"At least two values are needed for the '{attribute}' attribute"
                )
            elif not row[0]:
                self.errors.append(
                    f"First value of '{attribute}' attribute (filename) cannot be empty"
                )
            else:
                yield row[0], row[1], row[2:]

    def _read_options(self, options: Sequence[str], kind: str, name: str) -> None:
        for option in options:
            key, separator, value = option.partition("=")
            if not separator:
                self.errors.append(
                    f"Invalid URL option syntax in option '{option}' for {kind} file '{name}'"
                )
            elif key == "delegationid":
                self.request.delegations.append(value)

    # Values.

    def _single(self, relation: rsl.Relation, before: str = "") -> str:
        """The one text of a relation, if it is one; what it was before, else."""
        attribute = relation.attribute
        if before:
            self.errors.append(f"Attribute '{attribute}' multiply defined")
        elif len(relation.values) != 1:
            self.errors.append(f"Value of attribute '{attribute}' expected to be single value")
        elif not isinstance(value := relation.values[0], rsl.Text):
            self.errors.append(f"Value of attribute '{attribute}' expected to be a string")
        else:
            return value.text
        return before

    def _list(self, relation: rsl.Relation, before: list[str]) -> list[str]:
        if before:
            self.errors.append(f"Attribute '{relation.attribute}' multiply defined")
            return before
        return self._texts(relation, relation.values)

    def _rows(self, relation: rsl.Relation, length: int | None = None) -> Iterator[list[str]]:
        attribute = relation.attribute
        for value in relation.values:
            if not isinstance(value, rsl.Row):
                what = f"Value of attribute '{attribute}' is not sequence"
                self.errors.append(rsl.located(what, value.place))
            elif length is not None and len(value.values) != length:
                what = f"Value of attribute '{attribute}' has wrong sequence length: Expected "
                what += f"{length}, found {len(value.values)}"
                self.errors.append(rsl.located(what, value.place))
            else:
                row = self._texts(relation, value.values)
                if length is None or len(row) == length:
                    yield row

    def _texts(self, relation: rsl.Relation, values: Iterable[rsl.Value]) -> list[str]:
        texts = []
        for value in values:
            if isinstance(value, rsl.Text):
                texts.append(value.text)
            else:
                what = f"Value of attribute '{relation.attribute}' is not a string"
                self.errors.append(rsl.located(what, value.place))
        return texts


_TEXTS: Final = {
    "executable": "executable",
    "gmlog": "log_directory",
    "jobname": "name",
    "stderr": "stderr",
    "stdin": "stdin",
    "stdout": "stdout",
}
"""Attribute → the field that has its one text."""

_READ: Final[Mapping[str, Callable[[_Xrsl, rsl.Relation], None]]] = {
    "action": _Xrsl._read_action,
    "arguments": _Xrsl._read_arguments,
    "count": _Xrsl._read_count,
    "countpernode": _Xrsl._read_countpernode,
    "cputime": _Xrsl._read_cputime,
    "delegationid": _Xrsl._read_delegationid,
    "environment": _Xrsl._read_environment,
    "exclusiveexecution": _Xrsl._read_exclusiveexecution,
    "executables": _Xrsl._read_executables,
    "inputfiles": _Xrsl._read_inputfiles,
    "memory": _Xrsl._read_memory,
    "notify": _Xrsl._read_notify,
    "outputfiles": _Xrsl._read_outputfiles,
    "priority": _Xrsl._read_priority,
    "queue": _Xrsl._read_queue,
    "rerun": _Xrsl._read_rerun,
    "runtimeenvironment": _Xrsl._read_runtimeenvironment,
    "walltime": _Xrsl._read_walltime,
}
"""Attribute → what reads it. Any other is not looked at."""

_WEEK, _DAY, _HOUR, _MINUTE = 604_800, 86_400, 3_600, 60
_ISO_PERIOD = re.compile(r"P(?:[0-9]{1,9}[YWDHMST]|T)*", re.ASCII)
_PERIOD_UNITS = {"w": (_WEEK, _DAY), "d": (_DAY, _HOUR), "h": (_HOUR, _MINUTE), "m": (_MINUTE, 1)}


def _seconds(text: str) -> int:
    """A time as ARC reads it: seconds, ``5 minutes``, ``1h 30``, ``PT1H`` (``DateTime.cpp``).

    What is none is 0.
    """
    if text.startswith("P"):
        return _iso_seconds(text)
    total, unit, number = 0, 1, ""
    for character in text:
        if character.isascii() and character.isdigit():
            number = (number + character)[:18]
        elif number and character.lower() in _PERIOD_UNITS:
            size, unit = _PERIOD_UNITS[character.lower()]
            total, number = total + int(number) * size, ""
        elif number and character.lower() == "s":
            total, number, unit = total + int(number), "", 0
        elif number and character != " ":
            return 0
    return total + int(number or 0) * unit


def _iso_seconds(text: str) -> int:
    if _ISO_PERIOD.fullmatch(text) is None:
        return 0
    sizes = {"Y": 365 * _DAY, "W": _WEEK, "D": _DAY, "H": _HOUR, "S": 1}
    total, in_time = 0, False
    for number, unit in re.findall(r"([0-9]*)([A-Z])", text[1:]):
        if unit == "T":
            in_time = True
        elif unit == "M":
            total += int(number) * (_MINUTE if in_time else 30 * _DAY)
            in_time = True
        else:
            total += int(number) * sizes[unit]
            in_time = in_time or unit in "WDH"
    return total
