"""RSL, the syntax of xRSL, as A-REX's ``RSLParser.cpp`` reads it, with its words where it does not.

A text is a *combination* (``+``, ``&`` or ``|``) of parts in brackets, down to *relations*
(``attribute=value value``). Values are texts and sequences ``(value value)``. Places are told as
A-REX does: line and column, the latter from 0, and none where it does not know.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

__all__ = [
    "Combination",
    "Node",
    "Place",
    "Relation",
    "Row",
    "RslError",
    "Text",
    "Value",
    "parse",
    "printed",
]

Place: TypeAlias = tuple[int, int] | None

_BLANKS = " \t\n\v\f\r"
_SPECIAL = "+&|()=<>!\"'^#$"
_WORD = re.compile(r"[^+&|()=<>!\"'^#$ \t\n\v\f\r]+")
_RELATIONS: Final = ("!=", "<=", ">=", "=", "<", ">")
# Deeper than anybody writes by hand; a body of brackets only must not end the interpreter.
_DEEPEST = 50


@dataclass(frozen=True, slots=True)
class Text:
    """A value that is a text, variables put in."""

    text: str
    place: Place = None


@dataclass(frozen=True, slots=True)
class Row:
    """A value that is a sequence."""

    values: tuple[Value, ...]
    place: Place = None


Value: TypeAlias = Text | Row


@dataclass(frozen=True, slots=True)
class Relation:
    """``attribute=values``.

    Attributes:
        attribute: in lower case, without underscores.
        operator: ``=``, ``!=``, ``<``, …
        values: what it is related to.
    """

    attribute: str
    operator: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Combination:
    """Parts: all of them hold (``&``), one does (``|``), or each is a request (``+``)."""

    operator: Literal["+", "&", "|"]
    parts: tuple[Node, ...]


Node: TypeAlias = Relation | Combination


class RslError(Exception):
    """A text is no RSL.

    Attributes:
        message: A-REX's words, with the place before them.
        recognised: whether A-REX has seen RSL in it before it stumbled: else it says that no parser
            understands it.
    """

    def __init__(self, message: str, place: Place, *, recognised: bool = True) -> None:
        self.message = located(message, place)
        self.recognised = recognised
        super().__init__(self.message)


def located(message: str, place: Place) -> str:
    """A message with its place before it, as A-REX prints it: not in a line's first column."""
    return f"{place[0]}:{place[1]}: {message}" if place and place[1] > 0 else message


def parse(text: str) -> Node:
    """The RSL that a text is, with its variables put in (``rsl_substitution``).

    Raises:
        RslError: it is none.
    """
    reader = _Reader(text)
    node = reader.whole()
    if isinstance(node, _RawCombination) and node.operator == "+":
        return Combination("+", tuple(_evaluated(part, {}) for part in node.parts))
    return _evaluated(node, {})


def printed(node: Node | Sequence[Value]) -> str:
    """RSL as A-REX prints it."""
    if isinstance(node, Combination):
        return node.operator + "".join(f"( {printed(part)} )" for part in node.parts)
    if isinstance(node, Relation):
        return f"{node.attribute} {node.operator} {printed(node.values)}"
    return " ".join(map(_printed_value, node))


def quoted(text: str) -> str:
    """A text as A-REX prints it in RSL."""
    return '"' + text.replace('"', '""') + '"'


def _printed_value(value: Value) -> str:
    return quoted(value.text) if isinstance(value, Text) else f"( {printed(value.values)} )"


# --- reading ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Variable:
    name: str
    place: Place


@dataclass(frozen=True, slots=True)
class _Joined:
    left: _Raw
    right: _Raw
    place: Place


@dataclass(frozen=True, slots=True)
class _RawRow:
    values: tuple[_Raw, ...]
    place: Place


_Raw: TypeAlias = Text | _Variable | _Joined | _RawRow


@dataclass(frozen=True, slots=True)
class _RawRelation:
    attribute: str
    operator: str
    values: tuple[_Raw, ...]


@dataclass(frozen=True, slots=True)
class _RawCombination:
    operator: Literal["+", "&", "|"]
    parts: tuple[_RawNode, ...]
    place: Place


_RawNode: TypeAlias = _RawRelation | _RawCombination


class _Reader:
    """Reads from the beginning to the end; where it is after the end, it is at no place."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._recognised = False
        self._depth = 0
        self._comments: dict[int, int] = {}
        self._lines = [match.end() for match in re.finditer("\n", text)]
        self._find_comments()

    def whole(self) -> _RawNode:
        node = self._node()
        self._skip()
        if self._at < len(self._text):
            raise self._error("Junk at end of RSL")
        return node

    def _find_comments(self) -> None:
        begin = self._text.find("(*")
        while begin >= 0:
            end = self._text.find("*)", begin)
            if end < 0:
                raise RslError("End of comment not found", self._place(begin + 2), recognised=False)
            self._comments[begin] = end + 2
            begin = self._text.find("(*", end + 2)

    def _place(self, at: int) -> Place:
        if at >= len(self._text):
            return None
        line = bisect_right(self._lines, at)
        return (line + 1, at - self._lines[line - 1] if line else at)

    def _error(self, message: str, at: int | None = None) -> RslError:
        where = self._place(self._at if at is None else at)
        return RslError(message, where, recognised=self._recognised)

    def _next(self) -> str:
        return self._text[self._at] if self._at < len(self._text) else "\0"

    def _skip(self) -> bool:
        """Pass blanks and comments; tells whether there were any."""
        begin = self._at
        while True:
            while self._at < len(self._text) and self._text[self._at] in _BLANKS:
                self._at += 1
            if (end := self._comments.get(self._at)) is None:
                return self._at != begin
            self._at = end

    def _expect(self, character: str) -> None:
        if self._next() != character:
            raise self._error(f"'{character}' expected")
        self._at += 1

    def _node(self) -> _RawNode:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._error("Too many brackets")
        self._skip()
        operator = self._next()
        node = (
            self._combination(operator)  # type: ignore[arg-type]  # one of the three
            if operator in ("+", "&", "|")
            else self._relation()
        )
        self._depth -= 1
        return node

    def _combination(self, operator: Literal["+", "&", "|"]) -> _RawCombination:
        place = self._place(self._at)
        self._at += 1
        self._skip()
        parts: list[_RawNode] = []
        while not parts or self._next() == "(":
            self._expect("(")
            self._skip()
            parts.append(self._node())
            self._recognised = True
            self._skip()
            self._expect(")")
            self._skip()
        return _RawCombination(operator, tuple(parts), place)

    def _relation(self) -> _RawRelation:
        attribute = self._string()
        if attribute is None:
            raise self._error("Attribute name expected")
        if any(character in _SPECIAL for character in attribute.text):
            raise self._error(
                f"Attribute name ({attribute.text}) contains invalid character ({_SPECIAL})"
            )
        self._skip()
        operator = next((o for o in _RELATIONS if self._text.startswith(o, self._at)), None)
        if operator is None:
            raise self._error("Relation operator expected")
        self._at += len(operator)
        self._skip()
        name = attribute.text.lower().replace("_", "")
        return _RawRelation(name, operator, self._values())

    def _values(self) -> tuple[_Raw, ...]:
        """Values up to what is none. Those that touch each other, or have a # between, are one."""
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._error("Too many brackets")
        values: list[_Raw] = []
        touching = False
        while True:
            touching = not self._skip() and touching
            place = self._place(self._at)
            if operator := self._next() == "#":
                self._at += 1
                self._skip()
            value, can_touch = self._value()
            if operator:
                if not values:
                    raise self._error("No left operand for concatenation operator")
                if value is None:
                    raise self._error("No right operand for concatenation operator")
            if value is None:
                self._depth -= 1
                return tuple(values)
            if operator or (touching and values):
                values[-1] = _Joined(values[-1], value, place)
            else:
                values.append(value)
            touching = can_touch

    def _value(self) -> tuple[_Raw | None, bool]:
        """One value, and whether what follows at once is joined to it."""
        place = self._place(self._at)
        if self._next() == "(":
            self._at += 1
            values = self._values()
            self._skip()
            self._expect(")")
            return _RawRow(values, place), False
        if self._next() == "$":
            return self._variable(), True
        try:
            text = self._string()
        except RslError as error:
            error.message += f"\n{located('Broken string', place)}"
            raise
        return text, text is not None

    def _variable(self) -> _Variable:
        self._at += 1
        self._skip()
        self._expect("(")
        self._skip()
        name = self._string()
        if name is None:
            raise self._error("Variable name expected")
        if any(character in _SPECIAL for character in name.text):
            raise self._error(
                f"Variable name ({name.text}) contains invalid character ({_SPECIAL})"
            )
        self._skip()
        self._expect(")")
        return _Variable(name.text, name.place)

    def _string(self) -> Text | None:
        """A word, or what is between quotes; None if there is neither."""
        place = self._place(self._at)
        first = self._next()
        if first == "'":
            return Text(self._between("'", "single quoted"), place)
        if first == '"':
            return Text(self._between('"', "double quoted"), place)
        if first == "^":
            self._at += 1
            delimiter = self._next()
            return Text(self._between(delimiter, f"user delimiter ({delimiter}) quoted"), place)
        match = _WORD.match(self._text, self._at)
        if match is None:
            return None
        self._at = match.end()
        return Text(match[0], place)

    def _between(self, delimiter: str, kind: str) -> str:
        """A quoted string; the delimiter twice stands for itself."""
        pieces: list[str] = []
        while True:
            end = self._text.find(delimiter, self._at + 1)
            if end < 0:
                raise self._error(f"End of {kind} string not found")
            pieces.append(self._text[self._at + 1 : end])
            self._at = end + 1
            if self._next() != delimiter:
                return delimiter.join(pieces)


# --- variables -------------------------------------------------------------------------------


def _evaluated(node: _RawNode, variables: dict[str, str]) -> Node:
    if isinstance(node, _RawRelation):
        values = tuple(_value_of(value, variables) for value in node.values)
        if node.attribute == "rslsubstitution":
            for value in values:
                _substitute(value, variables)
        return Relation(node.attribute, node.operator, values)
    if node.operator == "+":
        raise RslError("Multi-request operator only allowed at top level", node.place)
    inside = dict(variables)
    return Combination(node.operator, tuple(_evaluated(part, inside) for part in node.parts))


def _substitute(value: Value, variables: dict[str, str]) -> None:
    if not isinstance(value, Row):
        raise RslError("RSL substitution is not a sequence", value.place)
    if len(value.values) != 2:  # noqa: PLR2004 - name and value
        raise RslError("RSL substitution sequence is not of length 2", value.place)
    name, text = value.values
    if not isinstance(name, Text):
        what = "RSL substitution variable name does not evaluate to a literal"
        raise RslError(what, name.place)
    if not isinstance(text, Text):
        what = "RSL substitution variable value does not evaluate to a literal"
        raise RslError(what, text.place)
    variables[name.text] = text.text


def _value_of(raw: _Raw, variables: dict[str, str]) -> Value:
    if isinstance(raw, Text):
        return raw
    if isinstance(raw, _Variable):
        return Text(variables.get(raw.name, ""), raw.place)
    if isinstance(raw, _RawRow):
        return Row(tuple(_value_of(value, variables) for value in raw.values), raw.place)
    pieces: list[Text] = []
    left: _Raw = raw
    while isinstance(left, _Joined):
        pieces.append(_operand(left.right, "Right", left.place, variables))
        place, left = left.place, left.left
    pieces.append(_operand(left, "Left", place, variables))
    return Text("".join(piece.text for piece in reversed(pieces)), pieces[-1].place)


def _operand(raw: _Raw, side: str, place: Place, variables: dict[str, str]) -> Text:
    value = _value_of(raw, variables)
    if not isinstance(value, Text):
        raise RslError(
            f"{side} operand for RSL concatenation does not evaluate to a literal", place
        )
    return value
