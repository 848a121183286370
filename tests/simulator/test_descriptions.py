"""Descriptions are read as a real CE reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcbackend import FileRef, OutputMember, OutputSpec, Resources, SubmissionSpec
from arcbackend.protocol.description import activities, activity
from arcbackend.simulator.descriptions import (
    NO_DELEGATION,
    BodyRefused,
    Description,
    Refusal,
    parse,
    queue_refused,
)
from tests.simulator.description_bodies import BODIES, LIMIT

RECORDED = {
    path.stem.removeprefix("descriptions-"): json.loads(path.read_text())
    for path in (Path(__file__).parent / "recorded").glob("descriptions-*.json")
}
QUEUES = {"main", "other"}


def answer(body: bytes) -> dict[str, Any]:
    """What a CE answers that makes jobs of all that `parse` lets pass."""
    try:
        parsed = parse(body, limit=LIMIT)
    except BodyRefused as refused:
        return {"status": refused.status, "reason": refused.reason, "refused": []}
    reasons: list[str | None] = []
    for description in parsed:
        if not isinstance(description, Description):
            reasons.append(description.reason)
        elif description.queue is not None and description.queue not in QUEUES:
            reasons.append(queue_refused(description.queue))
        elif description.needs_delegation:
            reasons.append(NO_DELEGATION)
        else:
            reasons.append(None)
    return {"status": 201, "reason": "Created", "refused": reasons}


@pytest.mark.parametrize("version", sorted(RECORDED))
@pytest.mark.parametrize("name", BODIES)
def test_the_answer_is_that_of_the_real_ce(name: str, version: str) -> None:
    assert answer(BODIES[name]) == RECORDED[version][name]


# --- what arcbackend writes -----------------------------------------------------------------

# What XML can hold: a job's name, arguments and environment can have nothing else.
TEXTS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=20
)
WORDS = st.from_regex(r"[A-Za-z0-9_.]{1,12}", fullmatch=True).filter(lambda word: word.strip("."))
URLS = st.builds(lambda word: f"https://example.org/{word}", WORDS)
MEMBERS = st.lists(st.builds(OutputMember, pattern=WORDS, destination=st.none() | URLS), max_size=3)
SPECS = st.builds(
    SubmissionSpec,
    executable=st.just("/bin/echo"),
    arguments=st.lists(TEXTS, max_size=4).map(tuple),
    inputs=st.lists(
        st.builds(FileRef, name=WORDS.map(lambda word: f"in-{word}"), source=st.just("/f") | URLS),
        max_size=3,
        unique_by=lambda ref: ref.name,
    ).map(tuple),
    outputs=st.builds(OutputSpec, members=MEMBERS.map(tuple), include_unlisted=st.booleans()),
    resources=st.builds(
        Resources,
        cpus=st.integers(1, 64),
        memory_mb=st.none() | st.integers(1, 10**6),
        wall_time_s=st.none() | st.integers(1, 10**7),
    ),
    stdout=st.none() | st.just("stdout"),
    stderr=st.none() | st.just("stderr"),
)
VARIABLES = st.dictionaries(st.from_regex(r"[A-Z_]{1,10}", fullmatch=True), TEXTS, max_size=3)


@given(SPECS, VARIABLES, st.none() | WORDS, st.none() | WORDS, st.lists(WORDS, max_size=2))
def test_what_arcbackend_writes_is_read_as_it_was_meant(
    spec: SubmissionSpec,
    environment: dict[str, str],
    queue: str | None,
    delegation: str | None,
    secrets: list[str],
) -> None:
    body = activity(
        spec,
        name="a-job",
        queue=queue,
        environment=environment,
        secrets=secrets,
        delegation=delegation,
    )
    found = only(body)
    assert found.language == "adl"
    assert found.name == "a-job"
    command = (found.executable, found.arguments, dict(found.environment))
    if found.executable == spec.executable:
        assert command == (spec.executable, tuple(spec.arguments), environment)
    else:  # in armour, which is just another command
        assert found.executable == "/bin/sh"
        assert any(name.startswith("ARCBACKEND_SCRIPT_") for name in found.environment)
    assert (found.stdout, found.stderr) == (spec.stdout or "", spec.stderr or "")
    assert found.cpus == spec.resources.cpus
    asked = spec.resources.memory_mb
    assert found.memory_mb == (None if asked is None else -(-asked // spec.resources.cpus))
    assert found.wall_time_s == spec.resources.wall_time_s
    assert (found.queue, found.delegation) == (queue, delegation)
    assert [(one.name, one.source) for one in found.inputs] == [
        *((ref.name, ref.url) for ref in spec.inputs),
        *((name, None) for name in secrets),
    ]
    assert found.keep_all is spec.outputs.include_unlisted
    stored = {one.name: one.target for one in found.outputs if one.target is not None}
    assert stored.items() >= {
        (member.pattern, member.destination)
        for member in spec.outputs.members
        if member.destination is not None and stored.get(member.pattern) == member.destination
    }
    assert found.text == b'<?xml version="1.0"?>\n' + body + b"\n"


@given(st.lists(st.integers(1, 9), max_size=4))
def test_several_are_read_in_their_order(cpus: list[int]) -> None:
    bodies = [
        activity(
            SubmissionSpec(executable="/bin/true", resources=Resources(cpus=count)),
            name=f"job-{index}",
            queue=None,
            environment={},
        )
        for index, count in enumerate(cpus)
    ]
    found = [one for one in parse(activities(bodies)) if isinstance(one, Description)]
    assert [one.cpus for one in found] == cpus
    assert [one.text for one in found] == [
        b'<?xml version="1.0"?>\n' + body + b"\n" for body in bodies
    ]


def only(body: bytes) -> Description:
    (found,) = parse(body)
    assert isinstance(found, Description), found
    return found


def test_an_executable_input_is_executable() -> None:
    spec = SubmissionSpec(executable="run", inputs=(FileRef(name="run", source="/some/file"),))
    found = only(activity(spec, name="x", queue=None, environment={}))
    assert [one.executable for one in found.inputs] == [True]


# --- what of it is kept ---------------------------------------------------------------------


def test_each_of_several_is_kept_as_a_document_of_its_own() -> None:
    """As on 7.2.0: in UTF-8 here, with character references there, which is the same XML."""
    namespace = "http://www.eu-emi.eu/es/2010/12/adl"
    inside = "<Application><Executable><Path>a</Path></Executable></Application>"
    first, second = parse(
        f'<ActivityDescriptions xmlns="{namespace}"><ActivityDescription>{inside}'
        '</ActivityDescription> <ActivityDescription a="1"/></ActivityDescriptions>'.encode()
    )
    assert isinstance(first, Description)
    assert isinstance(second, Description)
    head = f'<?xml version="1.0"?>\n<ActivityDescription xmlns="{namespace}"'.encode()
    assert first.text == head + f">{inside}</ActivityDescription>\n".encode()
    assert second.text == head + b' a="1"/>\n'


def test_each_of_several_in_xrsl_is_written_anew() -> None:
    """As on 7.2.0."""
    run = '(executable="/bin/true")'
    first, second = parse(f'+(&{run})(&{run}(jobname="b"))'.encode())
    assert isinstance(first, Description)
    assert isinstance(second, Description)
    assert first.text.decode() == (
        '&( executable = "/bin/true" )( clientxrsl = "&( executable = ""/bin/true"" )" )'
    )
    assert second.text.decode() == (
        '&( executable = "/bin/true" )( jobname = "b" )'
        '( clientxrsl = "&( executable = ""/bin/true"" )( jobname = ""b"" )" )'
    )
    assert second.name == "b"


def test_xrsl_that_jobs_use() -> None:
    found = only(
        b"""& (* a comment *)
        (executable = "run.sh") (arguments = "-c" 'it''s' $(X)) (jobname = my_job)
        (inputFiles = ("run.sh" "") ("data" "http://example.org/data" "cache=no")
                      ("size" "3.abc"))
        (executables = "run.sh") (outputFiles = ("/" "") ("out" "https://example.org/out"))
        (stdout = "out") (stderr = "out") (stdin = "in") (join = "yes") (gmlog = "log")
        (environment = ("A" "b c") ("D" ""))
        (cputime = "2 hours") (walltime = "90") (memory = "200") (count = "2") (queue = "main")
        (runtimeenvironment = "ENV/PROXY") (rerun = 9) (priority = 70) (delegationid = "one")
        """
    )
    assert found.language == "xrsl"
    assert (found.executable, found.arguments) == ("run.sh", ("-c", "it's", ""))
    assert found.name == "my_job"
    assert [(one.name, one.source, one.executable) for one in found.inputs] == [
        ("run.sh", None, True),
        ("data", "http://example.org/data", False),
        ("size", None, False),
    ]
    assert [(one.name, one.target) for one in found.outputs] == [
        ("/", None),
        ("out", "https://example.org/out"),
    ]
    assert found.keep_all
    assert (found.stdin, found.stdout, found.stderr) == ("in", "out", "out")
    assert found.log_directory == "log"
    assert dict(found.environment) == {"A": "b c", "D": ""}
    assert (found.cpu_time_s, found.wall_time_s) == (7200, 90)
    assert (found.memory_mb, found.cpus, found.queue) == (200, 2, "main")
    assert found.runtime_environments == ("ENV/PROXY",)
    assert (found.reruns, found.priority, found.delegation) == (5, 70, "one")


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("90", 90),
        ("5 minutes", 300),
        ("1h 30", 5400),
        ("1w2d", 777_600),
        ("10s", 10),
        ("10s500", 10),
        ("PT1H30M", 5400),
        ("P1D", 86_400),
        ("P1M", 2_592_000),
        ("soon", None),
        ("5 x", None),
        ("PX", None),
        ("", None),
    ],
)
def test_times_in_xrsl(time: str, seconds: int | None) -> None:
    found = only(f'&(executable="a")(walltime="{time}")'.encode())
    assert found.wall_time_s == seconds


# --- what is hostile ------------------------------------------------------------------------

TREE = b"""<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;">]>"""
FILE = b"""<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>"""


@pytest.mark.parametrize("prologue", [TREE, FILE, b"<!DOCTYPE a>"])
@pytest.mark.parametrize("declaration", [b"", b'<?xml version="1.0" encoding="iso-8859-1"?>'])
def test_document_types_are_not_read(prologue: bytes, declaration: bytes) -> None:
    (refused,) = parse(declaration + prologue + BODIES["ADL: slots 2"])
    assert isinstance(refused, Refusal)
    assert refused.reason == "Unable to parse job description."


@pytest.mark.parametrize(
    "body",
    [
        b"&" + 10_000 * b"(&" + b"(a=b)",
        b"&(a=" + 10_000 * b"(",
        b"&(a=" + 20_000 * b"b#" + b"b)",
        b"&(a=" + 20_000 * b"$(b)" + b")",
        b"&" + 10_000 * b"(a=b)",
        b"&(a=" + 10_000 * b"\n" + b"!",
        b"<a>" * 10_000 + b"</a>" * 10_000,
        b"<ActivityDescriptions>" + 10_000 * b"<a/>" + b"</ActivityDescriptions>",
        b"<?xml" + b"\xff" * 100,
        b'<?xml version="1.0" encoding="nosuch"?><a/>',
        b'<?xml version="1.0" encoding="utf-16"?><a/>',
        b'<?xml version="1.0" encoding="base64"?><a/>',
    ],
)
def test_what_is_large_or_odd_is_answered_all_the_same(body: bytes) -> None:
    assert len(answer(body)["refused"]) in (0, 1, 10_000)


@given(st.binary(max_size=100), st.sampled_from([b"", b"<", b"&", b"+", b"&(a=", b"+(&(a=b)"]))
def test_anything_is_answered(body: bytes, begin: bytes) -> None:
    answer(begin + body)


@given(st.text("+&|()=<>!\"'^#$ \n_ab*%", max_size=40))
def test_any_rsl_is_answered(text: str) -> None:
    answer(b"&(executable=x)(" + text.encode())
    answer(b"+(&(a=b))(" + text.encode())
