"""A machine as a diagram: text for Graphviz and for Mermaid, from the definition alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from types import MappingProxyType

from arcbackend.lifecycle.definition import Definition
from arcbackend.lifecycle.picture import Arrow, Box, Cause, Node, Picture, picture
from arcbackend.lifecycle.policy import Policy
from arcbackend.models import JobStatus

__all__ = ["dot", "mermaid"]

# Backgrounds on which black is read well.
_COLOURS: Mapping[JobStatus, str] = MappingProxyType(
    {
        JobStatus.WAITING: "#fff3c4",
        JobStatus.RUNNING: "#d3f0d0",
        JobStatus.HELD: "#ffd2a8",
        JobStatus.DONE: "#c9e2ff",
        JobStatus.FAILED: "#ffc9c9",
        JobStatus.ABORTED: "#e6d2f5",
        JobStatus.UNKNOWN: "#e8e8e8",
    }
)
_ARROWS: Mapping[Cause, str] = MappingProxyType(
    {Cause.SEEN: "#666666", Cause.TIME: "#c22e00", Cause.VERB: "#1b4fb5"}
)
_WIDTH = 46  # characters of a line of a label


def dot(definition: Definition, policy: Policy | None = None) -> str:
    """The diagram of a machine, for Graphviz.

    Args:
        definition: the machine.
        policy: draw only what exists under it, with its numbers; None: draw everything, with the
            conditions on the policy.
    """
    return "\n".join(_Dot(picture(definition, policy)).lines()) + "\n"


def mermaid(definition: Definition, policy: Policy | None = None) -> str:
    """The diagram of a machine, for Mermaid (``stateDiagram-v2``, as GitHub renders it).

    Args:
        definition: the machine.
        policy: as for `dot`.
    """
    return "\n".join(_mermaid(picture(definition, policy))) + "\n"


# --- Graphviz ------------------------------------------------------------------------------------


class _Dot:
    def __init__(self, drawn: Picture) -> None:
        self._drawn = drawn
        self._boxes = {box.name: box for box in _boxes(drawn.root)}

    def lines(self) -> Iterator[str]:
        font = "Helvetica,Arial,sans-serif"
        yield f"digraph {_quoted(self._drawn.title)} {{"
        yield "  compound=true; rankdir=TB; nodesep=0.25; ranksep=0.4; bgcolor=white;"
        yield f'  fontname="{font}"; fontsize=12; labeljust=l;'
        yield f'  node [fontname="{font}", fontsize=12, shape=box, style="rounded,filled"];'
        yield f'  edge [fontname="{font}", fontsize=11, arrowsize=0.8];'
        yield f"  label=<<b>{escape(self._drawn.title)}</b>>; labelloc=t;"
        yield '  begin [label="", shape=circle, style=filled, fillcolor=black, width=0.15];'
        yield f"  begin -> {self._drawn.initial};"
        yield from self._parts(self._drawn.root, "  ")
        for arrow in self._drawn.arrows:
            if arrow.source != arrow.dest:
                yield self._arrow(arrow)
        yield from self._key()
        yield "}"

    def _parts(self, box: Box, indent: str) -> Iterator[str]:
        for part in box.parts:
            if isinstance(part, Node):
                yield indent + self._node(part)
                continue
            common = any(isinstance(inner, Box) for inner in part.parts)
            style = 'style="rounded,dashed"' if common else 'style="rounded,filled"'
            lines = [f"<b>{escape(part.title)}</b>"]
            lines += [f"<i>{escape(part.note)}</i>"] if part.note else []
            lines += self._loops(part.name)
            title = "".join(f'{line}<br align="left"/>' for line in lines)
            yield f"{indent}subgraph cluster_{part.name} {{"
            yield f'{indent}  label=<{title}>; {style}; color="#888888"; fillcolor="#f7f7f7";'
            yield from self._parts(part, indent + "  ")
            yield from self._in_order(part, indent + "  ")
            yield f"{indent}}}"

    def _in_order(self, box: Box, indent: str) -> Iterator[str]:
        """Side by side, in the order of a life, what has no arrow from within the box."""
        names = [part.name for part in box.parts if isinstance(part, Node)]
        inner = {arrow.dest for arrow in self._drawn.arrows if arrow.source in names}
        beside = [name for name in names if name not in inner]
        if len(beside) > 1 and len(beside) + len(inner.intersection(names)) == len(box.parts):
            yield f"{indent}{{ rank=same; {' -> '.join(beside)} [style=invis]; }}"

    def _node(self, node: Node) -> str:
        lines = [f"<b>{node.name}</b>"]
        if node.arc:
            lines.append(f'<font point-size="9">{" ".join(node.arc)}</font>')
        lines += self._loops(node.name)
        return (
            f"{node.name} [label=<{'<br/>'.join(lines)}>, tooltip={_quoted(node.meaning)}, "
            f'fillcolor="{_COLOURS[node.status]}"{", peripheries=2" if node.final else ""}];'
        )

    def _loops(self, name: str) -> list[str]:
        return [
            f'<font point-size="10" color="{_ARROWS[arrow.cause]}">{escape(label)}</font>'
            for arrow in _loops(self._drawn, name)
            for label in arrow.labels
        ]

    def _arrow(self, arrow: Arrow) -> str:
        colour = _ARROWS[arrow.cause]
        options = [f'color="{colour}"', f'fontcolor="{colour}"']
        if arrow.cause is not Cause.SEEN:
            options.append("penwidth=1.6")
        ends = []
        for name, clip, end in ((arrow.source, "ltail", -1), (arrow.dest, "lhead", 0)):
            # Graphviz joins nodes, and clips the line where it crosses the box.
            box = self._boxes.get(name)
            nodes = [node.name for node in box.nodes()] if box else [name]
            ends.append(nodes[end])
            if box:
                options.append(f"{clip}=cluster_{name}")
        if arrow.labels:
            lines = [line for label in arrow.labels for line in _wrapped(label)]
            options.append("label=" + _quoted("".join(f" {line}\\l" for line in lines)))
        return f"  {ends[0]} -> {ends[1]} [{', '.join(options)}];"

    def _key(self) -> Iterator[str]:
        """What the colours mean, what the verbs say where nothing moves, what the policy sets."""
        drawn = self._drawn
        statuses = dict.fromkeys(node.status for node in drawn.root.nodes())
        key = [_row(status, colour=_COLOURS[status]) for status in statuses]
        key += [_row(f"→ {cause.value}", ink=_ARROWS[cause]) for cause in Cause]
        tables = [
            _table("JobStatus; arrows", key),
            _table("verbs that move nothing", [_row(r.where, r.says) for r in drawn.remarks]),
        ]
        if drawn.settings:
            tables.insert(1, _table("policy", [_row(*setting) for setting in drawn.settings]))
        cells = "".join(f'<td valign="top">{table}</td>' for table in tables)
        yield (
            '  key [shape=plain, style="", fontsize=10, '
            f'label=<<table border="0" cellspacing="6"><tr>{cells}</tr></table>>];'
        )
        *_, last = drawn.root.nodes()
        yield f"  {last.name} -> key [style=invis];"


def _table(title: str, rows: Sequence[str]) -> str:
    head = f'<tr><td align="left"><b>{escape(title)}</b></td></tr>'
    return f'<table border="0" cellspacing="1">{head}{"".join(rows)}</table>'


def _row(*cells: str, colour: str = "white", ink: str = "black") -> str:
    filled = "".join(
        f'<td align="left" bgcolor="{colour}"><font color="{ink}">{escape(cell)}</font></td>'
        for cell in cells
    )
    return f"<tr>{filled}</tr>"


def _boxes(box: Box) -> Iterator[Box]:
    for part in box.parts:
        if isinstance(part, Box):
            yield part
            yield from _boxes(part)


def _loops(drawn: Picture, name: str) -> Iterator[Arrow]:
    """What leads back to where it came from: written, not drawn."""
    return (arrow for arrow in drawn.arrows if arrow.source == arrow.dest == name)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'


def _wrapped(text: str) -> Iterator[str]:
    line = ""
    for word in text.split():
        if line and len(line) + len(word) >= _WIDTH:
            yield line
            line = "   "
        line += word if not line.strip() else f" {word}"
    yield line


# --- Mermaid -------------------------------------------------------------------------------------


def _mermaid(drawn: Picture) -> Iterator[str]:
    yield "stateDiagram-v2"
    yield f"    %% {drawn.title}"
    statuses: dict[JobStatus, list[str]] = {}
    for node in drawn.root.nodes():
        statuses.setdefault(node.status, []).append(node.name)
    for status in statuses:
        yield f"    classDef {status} fill:{_COLOURS[status]},stroke:#555555,color:#000000"
    yield f"    [*] --> {drawn.initial}"
    yield from _mermaid_parts(drawn, drawn.root, "    ")
    for arrow in drawn.arrows:
        if arrow.source != arrow.dest:
            label = _plain("<br/>".join(arrow.labels))
            yield f"    {arrow.source} --> {arrow.dest}{f' : {label}' if label else ''}"
    for status, names in statuses.items():
        yield f"    class {','.join(names)} {status}"


def _mermaid_parts(drawn: Picture, box: Box, indent: str) -> Iterator[str]:
    # An arrow of a box hangs, for the layout, on the state that was declared first in it. Most
    # arrows of boxes lead out of them, so the last is declared first.
    for part in reversed(box.parts):
        loops = [label for arrow in _loops(drawn, part.name) for label in arrow.labels]
        if isinstance(part, Node):
            lines = [part.name, " ".join(part.arc), *loops]
            text = _plain("<br/>".join(line for line in lines if line))
            yield f'{indent}state "{text}" as {part.name}'
        else:
            text = _plain(", ".join(line for line in (part.title, part.note, *loops) if line))
            yield f'{indent}state "{text}" as {part.name} {{'
            yield from _mermaid_parts(drawn, part, indent + "    ")
            yield f"{indent}}}"


def _plain(text: str) -> str:
    """Without what ends a label in Mermaid."""
    return text.translate(_ENDS_A_LABEL)


_ENDS_A_LABEL = str.maketrans(':;"\n', ",,' ", "#")
