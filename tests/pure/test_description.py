"""Job descriptions: what is refused, by which field, and what the CE is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from arcbackend import (
    FileRef,
    OutputMember,
    OutputSpec,
    Resources,
    SubmissionRefused,
    SubmissionSpec,
)
from arcbackend.protocol.description import (
    activities,
    activity,
    activity_name,
    check_name,
    check_spec,
)

ADL = "{http://www.eu-emi.eu/es/2010/12/adl}"
NORDUGRID = "{http://www.nordugrid.org/es/2011/12/nordugrid-adl}"

PLAIN: dict[str, Any] = {"executable": "/bin/true"}


def _spec(**fields: Any) -> SubmissionSpec:
    return SubmissionSpec(**{**PLAIN, **fields})


def _describe(
    spec: SubmissionSpec, *, queue: str | None = None, secrets: Sequence[str] = ()
) -> ET.Element:
    return ET.fromstring(
        activity(spec, name="the-name", queue=queue, environment=spec.environment, secrets=secrets)
    )


def _texts(root: ET.Element, path: str) -> list[str]:
    steps = "/".join(f"{ADL}{step}" for step in path.split("/"))
    return [element.text or "" for element in root.findall(steps)]


def _outputs(root: ET.Element) -> dict[str, str | None]:
    return {
        file.findtext(f"{ADL}Name") or "": file.findtext(f"{ADL}Target/{ADL}URI")
        for file in root.findall(f"{ADL}DataStaging/{ADL}OutputFile")
    }


# check_spec names the field

BAD_NAMES = [
    "",
    "/absolute",
    "..",
    "../up",
    "a/../b",
    "./a",
    "a//b",
    "a/",
    ".",
    "a\nb",
    "a'b",
    'a"b',
    "a$b",
    "a`b",
    "a\\b",
    "a*b",
    "a;b",
    "a?b",
    "é",
    "\ud800",
    " a",
    "a ",
    "@a",
]
GOOD_NAMES = [
    "a",
    "a/b",
    "a b",
    "a.b-c_d",
    ".hidden",
    "..foo",
    "a@b",
    "-dash",
    "(1)",
    "arc-log.txt",
]


def _refused(spec: SubmissionSpec) -> str:
    with pytest.raises(SubmissionRefused) as caught:
        check_spec(spec)
    assert caught.value.field is not None
    assert caught.value.field in str(caught.value)
    return caught.value.field


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_file_names(name: str) -> None:
    try:
        ref = FileRef(name=name, source="/dev/null")
    except ValueError:
        return  # refused even earlier
    good = FileRef(name="good", source="/dev/null")
    assert _refused(_spec(inputs=[good, ref])) == "inputs[1].name"
    assert _refused(_spec(stdout=name)) == "stdout"
    assert _refused(_spec(stderr=name)) == "stderr"


@pytest.mark.parametrize("name", [name for name in BAD_NAMES if name != "a/"])  # a directory
def test_bad_output_names(name: str) -> None:
    try:
        members = [OutputMember(pattern="good"), OutputMember(pattern=name)]
    except ValueError:
        return
    assert _refused(_spec(outputs=OutputSpec(members=members))) == "outputs.members[1].pattern"


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_good_file_names(name: str) -> None:
    check_name(name, "x")
    check_spec(
        _spec(
            inputs=[FileRef(name=name, source="/dev/null")],
            outputs=OutputSpec(members=[OutputMember(pattern=f"{name}.out")]),
        )
    )


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"executable": "missing"}, "executable"),
        ({"executable": "./missing"}, "executable"),
        ({"executable": "/" + "x" * 200_000}, "executable"),
        ({"arguments": ["ok", "x" * 200_000]}, "arguments[1]"),
        ({"arguments": ["é" * 70_000]}, "arguments[0]"),
        ({"arguments": ["x" * 100_000] * 11}, "arguments"),
        ({"environment": {"OK": "1", "1A": "x"}}, "environment['1A']"),
        ({"environment": {"": "x"}}, "environment['']"),
        ({"environment": {"A=B": "x"}}, "environment['A=B']"),
        ({"environment": {"A\n": "x"}}, "environment['A\\n']"),
        ({"environment": {"ARCBACKEND_SCRIPT_0": "x"}}, "environment['ARCBACKEND_SCRIPT_0']"),
        ({"environment": {"A": "x" * 131_072}}, "environment['A']"),
        (
            {"inputs": [{"name": "a", "source": "/x"}, {"name": "a", "source": "/y"}]},
            "inputs[1].name",
        ),
        ({"inputs": [{"name": "a", "source": "https://h/a b"}]}, "inputs[0].source"),
        ({"inputs": [{"name": "a", "source": "https://h/é"}]}, "inputs[0].source"),
        ({"inputs": [{"name": "a", "source": "https://h/a\n"}]}, "inputs[0].source"),
        ({"inputs": [{"name": "a", "source": "https://[::1/a"}]}, "inputs[0].source"),
        ({"inputs": [{"name": "a", "source": "://x"}]}, "inputs[0].source"),
        ({"outputs": {"members": [{"pattern": "*.root"}]}}, "outputs.members[0].pattern"),
        ({"outputs": {"members": [{"pattern": "a[1]"}]}}, "outputs.members[0].pattern"),
        ({"outputs": {"members": [{"pattern": "/"}]}}, "outputs.members[0].pattern"),
        (
            {"outputs": {"members": [{"pattern": "d/", "destination": "https://h/d"}]}},
            "outputs.members[0].pattern",
        ),
        (
            {"outputs": {"members": [{"pattern": "a", "destination": "not a url"}]}},
            "outputs.members[0].destination",
        ),
        # A file cannot be a directory too, nor two files one.
        (
            {"inputs": [{"name": "a", "source": "/x"}, {"name": "a/b", "source": "/y"}]},
            "inputs[1].name",
        ),
        ({"inputs": [{"name": "log", "source": "/x"}], "stdout": "log"}, "stdout"),
        ({"stdout": "my out"}, "stdout"),
        ({"stderr": "(err)"}, "stderr"),
        ({"stderr": "~"}, "stderr"),
        ({"stdout": "logs/out"}, "stdout"),
        ({"inputs": [{"name": "logs/a", "source": "/x"}], "stdout": "logs/b/out"}, "stdout"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_fault_names_its_field(fields: dict[str, Any], field: str) -> None:
    assert _refused(_spec(**fields)) == field


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"executable": "/bin/echo", "arguments": ["", "$HOME", "x" * 131_071]},
        {"executable": "run", "inputs": [{"name": "run", "source": "/dev/null"}]},
        {"stdout": None, "stderr": None},
        {"stdout": "all", "stderr": "all"},
        {
            "stdout": "logs/out",
            "stderr": "logs/err",
            "inputs": [{"name": "logs/a", "source": "/dev/null"}],
        },
        {"environment": {"_A1": "", "b": "x" * 131_000}},
        {"inputs": [{"name": "a", "source": "https://h/a%20b?c=d"}]},
        {"inputs": [{"name": "a", "source": "root://h//a"}]},
        {"outputs": {"members": [{"pattern": "d/"}, {"pattern": "d/e"}]}},
        {"resources": {"queue": "short", "cpus": 8, "memory_mb": 1, "wall_time_s": 1}},
    ],
)
def test_what_arc_can_honour_passes(fields: dict[str, Any]) -> None:
    check_spec(_spec(**fields))


def test_a_refusal_does_not_repeat_a_long_value() -> None:
    with pytest.raises(SubmissionRefused) as caught:
        check_spec(_spec(stdout="x" * 1000 + "\n" + "y" * 100_000))
    assert len(str(caught.value)) < 5000


# what the CE is asked


def test_the_least_description() -> None:
    root = _describe(_spec())
    assert root.tag == f"{ADL}ActivityDescription"
    assert _texts(root, "ActivityIdentification/Name") == ["the-name"]
    assert _texts(root, "Application/Executable/Path") == ["/bin/true"]
    assert _texts(root, "Application/Executable/Argument") == []
    assert _texts(root, "Application/Output") == ["stdout"]
    assert _texts(root, "Application/Error") == ["stderr"]
    assert _texts(root, "Resources/QueueName") == []
    assert _texts(root, "Resources/WallTime") == []
    assert _texts(root, "Resources/IndividualPhysicalMemory") == []
    assert _texts(root, "Resources/SlotRequirement/NumberOfSlots") == ["1"]
    assert root.findall(f"{ADL}DataStaging/{ADL}InputFile") == []
    assert _outputs(root) == {"stdout": None, "stderr": None}


def test_a_full_description() -> None:
    spec = _spec(
        executable="run",
        arguments=["--n=3", "a b"],
        inputs=[
            FileRef(name="run", source="/home/me/run"),
            FileRef(name="d/data", source="https://h/data?x=1&y=2"),
        ],
        outputs=OutputSpec(
            members=(
                OutputMember(pattern="result"),
                OutputMember(pattern="plots/"),
                OutputMember(pattern="big", destination="https://h/big?x=1&y=2"),
            )
        ),
        resources=Resources(cpus=4, memory_mb=4001, wall_time_s=3600),
        environment={"A": "1", "B": "<&>"},
        stdout="out",
        stderr=None,
    )
    root = _describe(spec, queue="short", secrets=["token"])
    assert _texts(root, "Application/Executable/Path") == ["run"]
    assert _texts(root, "Application/Executable/Argument") == ["--n=3", "a b"]
    assert _texts(root, "Application/Environment/Name") == ["A", "B"]
    assert _texts(root, "Application/Environment/Value") == ["1", "<&>"]
    assert _texts(root, "Application/Output") == ["out"]
    assert _texts(root, "Application/Error") == []
    assert _texts(root, "Resources/QueueName") == ["short"]
    assert _texts(root, "Resources/WallTime") == ["3600"]
    assert _texts(root, "Resources/SlotRequirement/NumberOfSlots") == ["4"]
    assert _texts(root, "Resources/SlotRequirement/SlotsPerHost") == ["4"]
    # MiB of the job → bytes per core, rounded up.
    assert _texts(root, "Resources/IndividualPhysicalMemory") == [str(1001 * 2**20)]
    assert _texts(root, "DataStaging/InputFile/Name") == ["run", "d/data", "token"]
    assert _texts(root, "DataStaging/InputFile/Source/URI") == ["https://h/data?x=1&y=2"]
    executable = root.find(f"{ADL}DataStaging/{ADL}InputFile")
    assert executable is not None
    assert executable.findtext(f"{ADL}IsExecutable") == "true"
    outputs = _outputs(root)
    assert {name: outputs.get(name, "absent") for name in ("out", "result", "plots/", "big")} == {
        "out": None,
        "result": None,
        "plots/": None,
        "big": "https://h/big?x=1&y=2",
    }
    assert "run" not in outputs


def test_only_the_executable_is_executable() -> None:
    spec = _spec(
        executable="run",
        inputs=[FileRef(name="data", source="/x"), FileRef(name="run", source="/y")],
    )
    staged = _describe(spec).findall(f"{ADL}DataStaging/{ADL}InputFile")
    marked = {file.findtext(f"{ADL}Name"): file.findtext(f"{ADL}IsExecutable") for file in staged}
    assert marked == {"data": None, "run": "true"}


def test_everything_is_kept_if_asked() -> None:
    outputs = OutputSpec(
        members=(OutputMember(pattern="a"), OutputMember(pattern="b", destination="https://h/b")),
        include_unlisted=True,
    )
    assert _outputs(_describe(_spec(outputs=outputs))) == {"/": None, "b": "https://h/b"}


def test_a_member_to_keep_and_to_upload() -> None:
    outputs = OutputSpec(members=(OutputMember(pattern="stdout", destination="https://h/stdout"),))
    found = _describe(_spec(outputs=outputs)).findall(f"{ADL}DataStaging/{ADL}OutputFile")
    names = [file.findtext(f"{ADL}Name") for file in found]
    assert names.count("stdout") >= 1
    assert "https://h/stdout" in [file.findtext(f"{ADL}Target/{ADL}URI") for file in found]


def test_one_file_for_both_streams_is_kept_once() -> None:
    found = _describe(_spec(stdout="all", stderr="all"))
    assert _texts(found, "DataStaging/OutputFile/Name").count("all") == 1


@given(
    arguments=st.lists(st.text(st.sampled_from("ab0._/:=,@%+-"), min_size=1), max_size=5),
    value=st.text(st.sampled_from("ab &<>\"'$;#()")),
)
def test_plain_text_is_parsed_back(arguments: list[str], value: str) -> None:
    root = _describe(_spec(arguments=arguments, environment={"V": value}))
    assert _texts(root, "Application/Executable/Argument") == arguments
    assert _texts(root, "Application/Environment/Value") == [value]


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
@example(["\x01\x0b\ufffe"])
@example(["]]><x/>"])
def test_any_argument_makes_well_formed_ascii_or_utf8(arguments: list[str]) -> None:
    spec = _spec(arguments=arguments, environment={"V": "".join(arguments)})
    body = activity(spec, name="n", queue=None, environment=spec.environment)
    ET.fromstring(body)
    body.decode("utf-8")


def test_several_descriptions_in_one_body() -> None:
    bodies = [
        activity(_spec(), name=f"n.{number}", queue=None, environment={}) for number in range(3)
    ]
    root = ET.fromstring(activities(bodies))
    assert root.tag == f"{ADL}ActivityDescriptions"
    assert [child.tag for child in root] == [f"{ADL}ActivityDescription"] * 3
    assert _texts(root, "ActivityDescription/ActivityIdentification/Name") == ["n.0", "n.1", "n.2"]


# the name in a description


@given(st.from_regex(r"[A-Za-z0-9._-]{1,64}-[0-9a-f]{32}(\.[0-9]{1,6})?", fullmatch=True))
def test_the_name_is_read_back(name: str) -> None:
    spec = _spec(arguments=["<Name>other</Name>"])
    body = activity(spec, name=name, queue="q", environment={"A": "<Name>x</Name>"})
    assert activity_name(body) == name


@given(st.binary())
@example(b"&(executable=/bin/true)(jobname=x)")
@example(b"<ActivityIdentification><Name>" + b"x" * 10**6)
@example(b"<ActivityIdentification>" * 10_000)
def test_a_foreign_description_has_no_name_of_ours(description: bytes) -> None:
    assert activity_name(description) is None
