"""What the payload receives is what the spec says, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from arcbackend import FileRef, JobStatus, OutputSpec, SubmissionRefused, SubmissionSpec
from tests.integration.ce import CE
from tests.integration.jobs import local, over

# Dumps arguments and environment NUL-separated.
DUMP = """\
#!/bin/sh
for a; do printf '%s\\0' "$a"; done > arguments.bin
printf '%s\\0' "$#" >> arguments.bin
env -0 > environment.bin
"""
HOSTILE = (
    "",
    " ",
    "  two  blanks  ",
    "plain",
    "'single'",
    '"double"',
    "new\nline\n",
    "\ttab\r",
    "$HOME ${PATH} $(id) `id` $$",
    "%s %n %% 100%",
    "a;b&c|d>e<f",
    "# no comment",
    "back\\slash \\n \\\\ \\c \\0101",
    "*?[a-z]{1,2}~",
    "é ü ß 漢字 🙂",
    "-n",
    "--",
    "!history!",
    "<xml>&amp;]]></xml>",
    "(rsl=x)(y=z)+&|",
    "x" * 100_000,
    "$" * 5000,
)
# Characters that go to ARC as they are, in every position that matters.
PLAIN = ("a", "-x", "a b c", "A_./:=,@%+-z", "--name=va,lue", "100%")
PLAIN_VALUES = {
    "P1": "a $HOME `id` \"q\" 'r' #;()",
    "P2": "*?!&|<>~^{}[]",
    "P3": "",
    "P4": " lead and trail ",
}


@pytest.fixture
def dump(tmp_path: Path) -> FileRef:
    (tmp_path / "dump.sh").write_text(DUMP)
    return FileRef(name="dump.sh", source=tmp_path / "dump.sh")


async def received(ce: CE, spec: SubmissionSpec) -> tuple[list[str], dict[str, str]]:
    async with ce.backend() as backend:
        submission = await backend.submit(spec)
        assert submission.failures == {}
        (handle,) = submission.handles
        assert await over(backend, [handle]) == {handle.id: JobStatus.DONE}
        session = f"{ce.session_directory}/{local(handle)}"
        arguments = ce.run("cat", f"{session}/arguments.bin").split("\0")[:-1]
        environment = ce.run("cat", f"{session}/environment.bin").split("\0")[:-1]
        await backend.purge([handle])
    assert int(arguments.pop()) == len(arguments)
    return arguments, dict(item.split("=", 1) for item in environment)


async def test_plain_arguments_and_values_go_as_they_are(ce: CE, dump: FileRef) -> None:
    spec = SubmissionSpec(
        executable="dump.sh",
        arguments=PLAIN,
        inputs=(dump,),
        environment=PLAIN_VALUES,
        outputs=OutputSpec(include_unlisted=True),
    )
    arguments, environment = await received(ce, spec)
    assert tuple(arguments) == PLAIN
    assert {name: environment.get(name) for name in PLAIN_VALUES} == PLAIN_VALUES
    assert not any(name.startswith("ARCBACKEND") for name in environment)


async def test_hostile_arguments_and_values_arrive_unchanged(ce: CE, dump: FileRef) -> None:
    values = {f"V{n}": text for n, text in enumerate(HOSTILE)}
    spec = SubmissionSpec(
        executable="dump.sh",
        arguments=HOSTILE,
        inputs=(dump,),
        environment=values,
        outputs=OutputSpec(include_unlisted=True),
    )
    arguments, environment = await received(ce, spec)
    assert tuple(arguments) == HOSTILE
    assert {name: environment.get(name) for name in values} == values
    assert not any(name.startswith("ARCBACKEND") for name in environment)


async def test_the_exit_code_of_an_armoured_payload_counts(ce: CE) -> None:
    spec = SubmissionSpec(executable="/bin/sh", arguments=("-c", "exit $((1 + 2))"))
    async with ce.backend() as backend:
        (handle,) = (await backend.submit(spec)).handles
        assert await over(backend, [handle]) == {handle.id: JobStatus.FAILED}
        await backend.purge([handle])


@pytest.mark.slurm
async def test_names_with_odd_characters_are_staged(ce: CE, tmp_path: Path) -> None:
    names = (
        "a b",
        "x,y;z".replace(";", ":"),
        "100%",
        "a+b=c",
        "p(1)",
        "deep/er/é".replace("é", "e"),
        "-dash",
        "~t",
        "at@x",
    )
    (tmp_path / "src").write_text("x")
    spec = SubmissionSpec(
        executable="/bin/sh",
        arguments=("-c", "find . -type f -newer /etc/hostname | sort > list; exit 0"),
        inputs=tuple(FileRef(name=name, source=tmp_path / "src") for name in names),
        outputs=OutputSpec(include_unlisted=True),
    )
    async with ce.backend() as backend:
        submission = await backend.submit(spec)
        (handle,) = submission.handles
        assert await over(backend, [handle]) == {handle.id: JobStatus.DONE}
        listed = ce.run("cat", f"{ce.session_directory}/{local(handle)}/list").splitlines()
        assert {f"./{name}" for name in names} <= set(listed)
        await backend.purge([handle])


async def test_what_arc_cannot_honour_is_refused_before_any_job_exists(ce: CE) -> None:
    spec = SubmissionSpec(
        executable="/bin/true", inputs=(FileRef(name="../up", source="/etc/hosts"),)
    )
    async with ce.backend() as backend:
        with pytest.raises(SubmissionRefused) as caught:
            await backend.submit(spec)
    assert caught.value.field == "inputs[0].name"


async def test_stdout_in_the_directory_of_an_input(ce: CE, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    inputs = (FileRef(name="logs/a", source=tmp_path / "a"),)
    name = "logs/a.,:=+%@-out"
    spec = SubmissionSpec(executable="/bin/echo", arguments=("y",), inputs=inputs, stdout=name)
    async with ce.backend() as backend:
        (handle,) = (await backend.submit(spec)).handles
        assert await over(backend, [handle]) == {handle.id: JobStatus.DONE}
        assert ce.run("cat", f"{ce.session_directory}/{local(handle)}/{name}") == "y\n"
        await backend.purge([handle])
