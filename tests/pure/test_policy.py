"""Policies: defaults, files, what is particular to one CE, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from arcbackend import ConfigurationError, HoldPolicy, JobStatus, KillPolicy, LostPolicy, Policy

CE = "https://ce.example.org:443"
OTHER_CE = "https://other.example.org:443"


def _refused(data: dict[str, Any]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Policy.from_dict(data)
    assert "\n" not in caught.value.message
    return caught.value.message


def test_the_default_reports_and_kills_nothing() -> None:
    policy = Policy()
    assert policy.hold.action == "report"
    assert policy.hold.report_as is JobStatus.HELD
    assert policy.hold.other_after is None
    assert policy.purge.active == "refuse"
    assert policy.output.needs == "over"
    assert policy == Policy.from_dict({})


# the shipped ones


def test_what_ships() -> None:
    assert Policy.shipped() == ("dirac", "patient-kill", "report")


@pytest.mark.parametrize("name", Policy.shipped())
def test_the_shipped_ones_load_under_their_names(name: str) -> None:
    assert Policy.load(name).name == name


def test_report_is_the_default() -> None:
    assert Policy.load("report").model_copy(update={"name": "default"}) == Policy()


def test_patient_kill() -> None:
    assert Policy.load("patient-kill").hold == HoldPolicy(
        action="kill", other_after=1800, grace=3600, max_kills=10, cycle=600
    )


def test_dirac_kills_at_once_and_reports_running() -> None:
    hold = Policy.load("dirac").hold
    assert (hold.action, hold.grace, hold.report_as) == ("kill", 0, JobStatus.RUNNING)
    assert hold.other_after is None


# files


def test_a_full_file(tmp_path: Path) -> None:
    file = tmp_path / "ours.toml"
    file.write_text(
        f"""
        name = "ours"
        [hold]
        action = "kill-and-purge"
        grace = 60
        other_after = 30
        report_as = "waiting"
        max_kills = 1
        cycle = 1
        [kill]
        repeat_after = 10.5
        attempts = 2
        [purge]
        active = "kill"
        [output]
        needs = "nothing"
        [lost]
        looks = 1
        after = 0
        [ce."{CE}".hold]
        action = "report"
        """
    )
    policy = Policy.load(file)
    assert policy == Policy.load(str(file))
    assert policy.hold.report_as is JobStatus.WAITING
    assert policy.kill == KillPolicy(repeat_after=10.5, attempts=2)
    assert policy.lost == LostPolicy(looks=1, after=0)
    assert (policy.purge.active, policy.output.needs) == ("kill", "nothing")
    assert policy.for_ce(CE).hold.action == "report"


def test_a_policy_is_taken_as_it_is() -> None:
    policy = Policy(name="mine")
    assert Policy.load(policy) is policy


def test_a_file_is_found_by_its_path_even_if_a_shipped_one_has_its_name(tmp_path: Path) -> None:
    file = tmp_path / "report"
    file.write_text('name = "mine"')
    assert Policy.load(file).name == "mine"


@pytest.mark.parametrize("kind", [str, Path])
def test_a_name_that_is_neither_a_file_nor_shipped(kind: type) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Policy.load(kind("patient-kil"))
    message = caught.value.message
    assert "no policy patient-kil:" in message
    assert all(name in message for name in Policy.shipped())


def test_a_path_that_leads_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(str(tmp_path / "no.toml"))):
        Policy.load(tmp_path / "no.toml")


def test_a_folder_is_no_policy(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"cannot read the policy {re.escape(str(tmp_path))}"
    ):
        Policy.load(tmp_path)


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (b"name", "cannot read the policy"),
        (b"\xff", "cannot read the policy"),
        (b"a = " + b"[" * 100_000, "cannot read the policy"),
        (b"[hold]\nmood = 1", "hold.mood: Extra inputs"),
        (b"[[hold]]", "hold: "),
    ],
)
def test_faults_in_a_file_name_the_file(tmp_path: Path, contents: bytes, words: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_bytes(contents)
    with pytest.raises(ConfigurationError) as caught:
        Policy.load(file)
    assert str(file) in caught.value.message
    assert words in caught.value.message


# what is refused, by its field


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"holds": {}}, "holds"),
        ({"hold": {"actions": "kill"}}, "hold.actions"),
        ({"kill": {"repeat": 1}}, "kill.repeat"),
        ({"purge": {"live": "kill"}}, "purge.live"),
        ({"output": {"need": "over"}}, "output.need"),
        ({"lost": {"look": 1}}, "lost.look"),
        ({"hold": {"action": "slay"}}, "hold.action"),
        ({"hold": {"grace": -1}}, "hold.grace"),
        ({"hold": {"grace": float("inf")}}, "hold.grace"),
        ({"hold": {"grace": float("nan")}}, "hold.grace"),
        ({"hold": {"grace": None}}, "hold.grace"),
        ({"hold": {"other_after": -1}}, "hold.other_after"),
        ({"hold": {"report_as": "done"}}, "hold.report_as"),
        ({"hold": {"max_kills": 0}}, "hold.max_kills"),
        ({"kill": {"attempts": 0}}, "kill.attempts"),
        ({"lost": {"looks": 0}}, "lost.looks"),
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"ce": {"http://ce.example.org": {}}}, "ce.http://ce.example.org"),
        ({"ce": {CE: 1}}, f"ce.{CE}"),
    ],
)
def test_refused_by_field(data: dict[str, Any], field: str) -> None:
    assert re.search(rf"(^|; ){re.escape(field)}\b[^;]*: ", _refused(data))


def test_every_fault_is_named_at_once() -> None:
    text = _refused({"hold": {"grace": -1, "x": 1}, "lost": {"looks": 0}, "y": 1})
    assert all(field in text for field in ("hold.grace", "hold.x", "lost.looks", "y: "))


@pytest.mark.parametrize("value", ["ab c.d-e_1", "x" * 64, "é"])
def test_names(value: str) -> None:
    assert Policy.from_dict({"name": value}).name == value


# per CE


def test_a_ce_of_which_nothing_is_said_has_the_whole_policy() -> None:
    policy = Policy.from_dict({"ce": {OTHER_CE: {"hold": {"action": "kill"}}}})
    assert policy.for_ce(CE) is policy


def test_a_ces_section_changes_only_what_it_names() -> None:
    policy = Policy.from_dict(
        {
            "name": "ours",
            "hold": {"action": "ask", "grace": 5},
            "lost": {"looks": 7},
            "ce": {CE: {"hold": {"grace": 9, "other_after": 1}, "purge": {"active": "kill"}}},
        }
    )
    here = policy.for_ce(CE)
    assert here == Policy.from_dict(
        {
            "name": "ours",
            "hold": {"action": "ask", "grace": 9, "other_after": 1},
            "lost": {"looks": 7},
            "purge": {"active": "kill"},
        }
    )
    assert policy.for_ce(OTHER_CE).hold.grace == 5


def test_a_ce_may_have_a_name_of_its_own() -> None:
    assert Policy.from_dict({"ce": {CE: {"name": "here"}}}).for_ce(CE).name == "here"


def test_a_ces_address_is_made_canonical() -> None:
    policy = Policy.from_dict({"ce": {"https://CE.example.org/": {"hold": {"grace": 1}}}})
    assert policy.for_ce(CE).hold.grace == 1


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"hold": {"action": "slay"}}, "hold.action"),
        ({"hold": {"mood": 1}}, "hold.mood"),
        ({"hold": 3}, "hold"),
        ({"holds": {}}, "holds"),
        ({"ce": {}}, "ce: not within a CE's own section"),
    ],
)
def test_a_bad_section_is_found_when_the_policy_is_read(
    section: dict[str, Any], words: str
) -> None:
    text = _refused({"ce": {OTHER_CE: {}, CE: section}})
    assert text.startswith(f"ce.{CE}: ")
    assert words in text


def test_the_value_of_a_field_by_its_path() -> None:
    policy = Policy.from_dict({"hold": {"grace": 5}})
    assert policy.value("hold.grace") == 5
    assert policy.value("hold.other_after") is None
