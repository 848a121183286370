"""The payload receives exactly the spec's arguments and environment, whatever ARC's shell does.

Each job runs through A-REX's own shell code (`tests.pure.arc_shell`), under each shell found here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from arcbackend import FileRef, SubmissionRefused, SubmissionSpec
from arcbackend.protocol.description import activity, check_spec
from tests.pure.arc_shell import PAYLOAD, Application, Received, application, run

SHELLS = [found for name in ("dash", "bash") if (found := shutil.which(name)) is not None]

# What a shell, `echo`, `sed` or `cut` might take for its own.
TRAPS = [
    "",
    " ",
    "  two  blanks  ",
    "-n",
    "-e",
    "--",
    "-c",
    "$HOME",
    "${HOME}",
    "$(echo owned)",
    "`echo owned`",
    "$$",
    "\\",
    "\\\\",
    "\\n",
    "\\c",
    "\\0101",
    "a\\",
    '"',
    "'",
    "'\\''",
    "'\"'\"'",
    "a\nb",
    "trailing\n",
    "trailing\n\n\n",
    "\n",
    "\nleading",
    "\r",
    "\r\n",
    "\t",
    "*",
    "?",
    "~",
    "!!",
    "#",
    ";",
    "&",
    "|",
    "<",
    ">",
    "%s",
    "EOSCR",
    "\nEOSCR\n",
    "<![CDATA[",
    "]]>",
    "&amp;",
    "é",
    "日本語 🜁",
    "\x01\x1b[31m\x7f",
    "\u2028",
    "\ufeff",
    "\ufffe\uffff",
]

hostile = st.sampled_from(TRAPS) | st.text(st.sampled_from("ab \\\"'$`\n(){}*!-"), max_size=12)
texts = hostile | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
names = st.from_regex(r"[a-z][A-Za-z0-9_]{0,10}", fullmatch=True)


class Node:
    """A batch node on which everything is the same shell."""

    def __init__(self, shell: str, directory: Path) -> None:
        self.shell = shell
        self.session = directory / "session"
        self.session.mkdir()
        self.payload = self.session / "payload"
        self.payload.write_text(PAYLOAD)
        self.payload.chmod(0o755)
        tools = directory / "bin"
        tools.mkdir()
        (tools / "sh").symlink_to(shell)
        self.path = f"{tools}{os.pathsep}{os.defpath}"

    def run(self, job: Application) -> Received | None:
        return run(job, self.session, self.shell, self.path)

    def submit(self, spec: SubmissionSpec) -> Received:
        check_spec(spec)
        description = activity(spec, name="n", queue=None, environment=spec.environment)
        received = self.run(application(description))
        assert received is not None, "the payload was not started"
        return received


@pytest.fixture(scope="module")
def any_node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    return Node(SHELLS[0], tmp_path_factory.mktemp("node"))


@pytest.fixture(scope="module", params=SHELLS, ids=os.path.basename)
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Node:
    return Node(request.param, tmp_path_factory.mktemp("node"))


def _spec(
    *arguments: str, environment: Mapping[str, str] | None = None, executable: str = "payload"
) -> SubmissionSpec:
    return SubmissionSpec(
        executable=executable,
        arguments=arguments,
        environment=environment or {},
        inputs=(FileRef(name=executable, source="/dev/null"),)
        if not executable.startswith("/")
        else (),
    )


def _assert_exact(received: Received, spec: SubmissionSpec) -> None:
    # The kernel puts the interpreter and the script's path before the arguments.
    assert received.argv[2:] == list(spec.arguments)
    got = received.environment
    assert {name: got.get(name) for name in spec.environment} == dict(spec.environment)
    assert not [name for name in got if name.startswith("ARCBACKEND")]
    assert received.stdin == b""


def _refusal(spec: SubmissionSpec) -> SubmissionRefused | None:
    try:
        check_spec(spec)
    except SubmissionRefused as error:
        return error
    return None


def test_there_is_a_shell() -> None:
    assert SHELLS


@pytest.mark.parametrize(
    ("argument", "received"),
    [("$HOME", None), ("$(echo owned)", "owned"), ("`echo owned`", "owned"), ("a\nb", "a\nb")],
)
def test_without_the_armour_the_shell_expands(
    node: Node, argument: str, received: str | None
) -> None:
    """The simulation is honest: it does to bare arguments what ARC does."""
    found = node.run(Application("payload", [argument], {}))
    assert found is not None
    assert found.argv[2] == (str(node.session) if received is None else received)


def test_without_the_armour_dash_mangles_the_environment(node: Node) -> None:
    found = node.run(Application("payload", [], {"A": "trailing\n"}))
    assert found is not None
    assert found.environment["A"] == "trailing"


@pytest.mark.parametrize("executable", ["payload", "absolute"])
def test_every_trap_as_argument_and_as_value(node: Node, executable: str) -> None:
    environment = {f"V{number}": trap for number, trap in enumerate(TRAPS)}
    own = str(node.payload) if executable == "absolute" else "payload"
    spec = _spec(*TRAPS, environment=environment, executable=own)
    received = node.submit(spec)
    _assert_exact(received, spec)


@pytest.mark.parametrize("trap", TRAPS)
def test_each_trap_alone(node: Node, trap: str) -> None:
    for spec in (_spec(trap, f"x{trap}x"), _spec(environment={"V": trap})):
        _assert_exact(node.submit(spec), spec)


@settings(max_examples=25)
@given(arguments=st.lists(texts, max_size=4), environment=st.dictionaries(names, texts, max_size=3))
@example([], {})
@example(["plain", "--opt=1", "a b"], {"A": "plain"})
def test_any_text_arrives(node: Node, arguments: list[str], environment: dict[str, str]) -> None:
    spec = _spec(*arguments, environment=environment)
    _assert_exact(node.submit(spec), spec)


@settings(max_examples=25)
@given(
    plain=st.lists(st.text(st.sampled_from("ab01_./:=,@%+- "), max_size=8), max_size=4),
    value=st.text(st.sampled_from("ab01 $;#()*?!&|<>~^{}[]\"'-"), max_size=12),
)
def test_text_near_the_border_of_the_armour_arrives(
    node: Node, plain: list[str], value: str
) -> None:
    spec = _spec(*plain, environment={"V": value})
    _assert_exact(node.submit(spec), spec)


def test_plain_commands_stay_legible() -> None:
    spec = _spec("run", "--events=10", "in/a.dat", environment={"MODE": "fast"})
    found = application(activity(spec, name="n", queue=None, environment=spec.environment))
    assert found == Application("payload", ["run", "--events=10", "in/a.dat"], {"MODE": "fast"})


@pytest.mark.parametrize("character", ["x\n", "$", "é"])
def test_long_strings(node: Node, character: str) -> None:
    long = character * (100_000 // len(character.encode()))
    spec = _spec(long, environment={"V": long})
    _assert_exact(node.submit(spec), spec)


def test_the_longest_argument(node: Node) -> None:
    spec = _spec("$" * (128 * 1024 - 1))
    _assert_exact(node.submit(spec), spec)


def test_many_arguments(node: Node) -> None:
    spec = _spec(*(f"${number}" for number in range(20_000)))
    _assert_exact(node.submit(spec), spec)


def test_an_executable_with_a_hostile_path(node: Node, tmp_path: Path) -> None:
    program = tmp_path / "a $(b) 'c'"
    shutil.copy(node.payload, program)
    spec = _spec("x", executable=str(program))
    received = node.submit(spec)
    assert received.argv[1] == str(program)
    _assert_exact(received, spec)


def test_an_input_with_blanks_as_executable(node: Node) -> None:
    shutil.copy(node.payload, node.session / "my (own) payload")
    spec = _spec("x", executable="my (own) payload")
    _assert_exact(node.submit(spec), spec)


@pytest.mark.parametrize("name", ["a b", "$(touch owned)", "a'b", "a\nb", "1a", "a-b", ""])
def test_a_variable_that_no_shell_takes_is_refused(name: str) -> None:
    with pytest.raises(SubmissionRefused) as caught:
        check_spec(_spec(environment={name: "x"}))
    assert (caught.value.field or "").startswith("environment")


# Variables that ARC's scripts or the shells set themselves, or choke on: either the job gets what
# was asked, or the spec is refused. Both with a plain command and with an armoured one.
SPECIAL = {
    "HOME": "/elsewhere",
    "PATH": "/opt/experiment/bin",
    "IFS": "x",
    "OPTIND": "7",
    "UID": "12",
    "PPID": "12",
    "SHELLOPTS": "xtrace",
    "RUNTIME_JOB_DIR": "/elsewhere",
    "RESULT": "1",
    "executable": "/elsewhere",
    "_": "x",
    "PWD": "/elsewhere",
}


@pytest.mark.parametrize("argument", ["plain", "$hostile"])
@pytest.mark.parametrize("name", SPECIAL)
def test_special_variables_arrive_or_are_refused(node: Node, name: str, argument: str) -> None:
    spec = _spec(argument, environment={name: SPECIAL[name]})
    refusal = _refusal(spec)
    if refusal is None:
        _assert_exact(node.submit(spec), spec)
    else:
        assert name in (refusal.field or "")


@pytest.mark.parametrize(
    "spec",
    [
        _spec(*["'" * 120_000] * 8),
        _spec(environment={f"V{number}": "$\n" * 60_000 for number in range(16)}),
        _spec(environment={f"V{number}": "x" * 120_000 for number in range(20)}),
        _spec(*[""] * 400_000),
    ],
    ids=["quotes", "hostile values", "plain values", "empty arguments"],
)
def test_what_no_process_can_be_given_is_refused(any_node: Node, spec: SubmissionSpec) -> None:
    if _refusal(spec) is None:
        _assert_exact(any_node.submit(spec), spec)
