"""Bytes are counted as they come, and given back if they come to nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcbackend.output.budget import Account, Allowance
from arcbackend.output.containment import Refused


def test_the_limits_are_reached_and_not_passed() -> None:
    job, call = Account(100, "the job"), Account(150, "the call")
    first, second = (Allowance((job, call), 80) for _ in range(2))
    first.take(80)
    with pytest.raises(Refused, match=r"more than limits\.max_file_bytes = 80"):
        first.take(1)
    second.take(20)
    with pytest.raises(Refused, match=r"limits\.max_total_bytes = 100 is reached for the job"):
        second.take(1)
    other = Allowance((Account(100, "the job"), call), 80)
    other.take(50)
    with pytest.raises(Refused, match=r"limits\.max_total_bytes = 150 is reached for the call"):
        other.take(1)
    assert (job.left, call.left) == (0, 0)
    other.give_back()
    second.give_back(kept=5)
    assert (job.left, call.left) == (15, 65)


def test_an_announcement_takes_nothing() -> None:
    job = Account(100, "the job")
    allowance = Allowance((job,), 1000)
    allowance.announce(100)
    with pytest.raises(Refused, match="101 bytes: more than what is left"):
        allowance.announce(101)
    with pytest.raises(Refused, match="1001 bytes: more than limits"):
        allowance.announce(1001)
    allowance.take(60)
    allowance.announce(100)  # 60 of them are here
    with pytest.raises(Refused, match="101"):
        allowance.announce(101)
    assert job.left == 40


def test_what_is_reserved_is_nobody_elses() -> None:
    job = Account(100, "the job")
    first, second = (Allowance((job,), 80) for _ in range(2))
    with first.reserved(70) as take:
        assert (job.taken, job.left) == (0, 30)
        with pytest.raises(Refused, match="is reached for the job"):
            second.take(31)
        with pytest.raises(Refused, match="is reached for the job"), second.reserved(31):
            raise AssertionError
        second.take(30)
        take(50)
    assert (first.taken, job.taken, job.left) == (50, 80, 20)
    with pytest.raises(RuntimeError), first.reserved(20):
        raise RuntimeError
    assert (first.taken, job.taken, job.left) == (50, 80, 20)
    with pytest.raises(Refused, match="max_file_bytes"), first.reserved(31):
        raise AssertionError
    first.give_back()
    assert (job.taken, job.left) == (30, 70)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from(["take", "reserve", "back", "keep"]),
            st.integers(0, 99),
        )
    )
)
def test_accounts_balance(steps: list[tuple[int, str, int]]) -> None:
    account = Account(200, "the call")
    members = [Allowance((account,), 90) for _ in range(3)]
    for index, what, amount in steps:
        member = members[index]
        before = account.taken
        if what == "take":
            try:
                member.take(amount)
            except Refused:
                assert account.taken == before
        elif what == "reserve":
            try:
                with member.reserved(amount) as take:
                    assert account.left >= 0
                    take(amount // 2)
            except Refused:
                assert account.taken == before
        else:
            member.give_back(min(amount, member.taken) if what == "keep" else 0)
        assert account.taken == sum(one.taken for one in members) <= 200
        assert account.left == 200 - account.taken
        assert all(one.taken <= 90 for one in members)
