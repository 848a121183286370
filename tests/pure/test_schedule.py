"""When to look at which job."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcbackend.polling.schedule import Wheel, interval

moments = st.floats(0, 1e7)
ticks = st.sampled_from([0.1, 1 / 3, 1.0, 5.0, 60.0])
# Floats being what they are: a slot's time may be off in its last digit.
ROUNDING = 1e-6


@given(ticks, st.lists(moments), st.lists(moments))
def test_everything_comes_out_once_not_early_and_at_most_a_tick_late(
    tick: float, whens: list[float], looks: list[float]
) -> None:
    wheel = Wheel[int](tick)
    for thing, when in enumerate(whens):
        wheel.add(thing, when)
    came: dict[int, float] = {}
    for now in [*sorted(looks), max([*whens, *looks], default=0.0) + tick + ROUNDING]:
        for thing in wheel.pop(now):
            assert thing not in came
            assert whens[thing] <= now + ROUNDING
            came[thing] = now
        late = [thing for thing in range(len(whens)) if thing not in came]
        assert all(whens[thing] > now - tick - ROUNDING for thing in late)
    assert len(came) == len(whens)
    assert wheel.next() is None


@given(ticks, st.lists(moments, min_size=1))
def test_the_next_one_is_when_something_comes_out(tick: float, whens: list[float]) -> None:
    wheel = Wheel[float](tick)
    for when in whens:
        wheel.add(when, when)
    came: list[float] = []
    while (then := wheel.next()) is not None:
        assert wheel.pop(then - ROUNDING - tick / 1e3) == []
        found = wheel.pop(then)
        assert found
        came += found
    assert Counter(came) == Counter(whens)
    # in the order of the ticks
    assert all(one <= two + tick + ROUNDING for one, two in pairwise(came))


@given(ticks, st.lists(st.tuples(moments, st.booleans())))
def test_adding_and_taking_out_can_alternate(tick: float, steps: list[tuple[float, bool]]) -> None:
    wheel = Wheel[int](tick)
    waiting: Counter[int] = Counter()
    now = 0.0
    for thing, (moment, add) in enumerate(steps):
        if add:
            wheel.add(thing, now + moment)
            waiting[thing] += 1
        else:
            now += moment
            waiting.subtract(wheel.pop(now))
    waiting.subtract(wheel.pop(float(2**53)))
    assert not +waiting
    assert not -waiting


def test_what_is_due_already_comes_out_at_once() -> None:
    wheel = Wheel[str](5.0)
    wheel.add("late", 3.0)
    wheel.pop(100.0)
    wheel.add("a", 50.0)
    wheel.add("b", 100.0)
    assert wheel.pop(100.0) == ["a", "b"]


def test_an_empty_wheel() -> None:
    assert Wheel[int]().pop(1e9) == []
    assert Wheel[int]().next() is None


def test_to_the_tick() -> None:
    wheel = Wheel[str](10.0)
    wheel.add("a", 11.0)
    wheel.add("b", 19.0)
    assert wheel.next() == 20.0
    assert wheel.pop(19.9) == []
    assert wheel.pop(20.0) == ["a", "b"]


# how often


@pytest.mark.parametrize(
    ("age", "seconds"), [(0, 15), (100, 15), (150, 15), (600, 60), (6000, 600), (10**6, 600)]
)
def test_the_longer_in_its_state_the_later(age: float, seconds: float) -> None:
    assert interval(age, 15, 600) == seconds


@given(st.floats(0, 1e9), st.floats(0, 1e9))
def test_an_older_job_is_not_looked_at_more_often(one: float, two: float) -> None:
    young, old = sorted((one, two))
    assert 15 <= interval(young, 15, 600) <= interval(old, 15, 600) <= 600


def test_the_longest_holds_even_if_it_is_below_the_shortest() -> None:
    assert interval(1000, 60, 15) == 15
