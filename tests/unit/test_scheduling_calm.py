"""Moves wait for what lasts, and a programme keeps its order whatever fails."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tashi.scheduling.moving.calm import Calm
from tashi.scheduling.moving.programme import Programme, Step, programme
from tashi.scheduling.plan import Migrate

INTERVAL = 10.0
MOVES = st.lists(st.tuples(st.integers(1, 8), st.integers(1, 5)), max_size=12)


def rounds(gains: list[bool], times: list[float], hold_rounds: int) -> list[bool]:
    """Whether moves might be made after each round."""
    calm, found = Calm(), []
    for pays, now in zip(gains, times, strict=True):
        calm = calm.after(pays, now, INTERVAL)
        found.append(calm.lasts(hold_rounds))
    return found


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 6))
def test_a_spike_moves_nothing(gains: list[bool], hold_rounds: int) -> None:
    """Moves are made after a round exactly when it and those before it, as many as are held, have all found gains."""
    times = [INTERVAL * number for number in range(len(gains))]
    expected = [all(gains[max(0, end - hold_rounds) : end]) and end >= hold_rounds for end in range(1, len(gains) + 1)]
    assert rounds(gains, times, hold_rounds) == expected


@given(st.lists(st.floats(0.0, 12.0), min_size=1, max_size=40), st.integers(2, 5))
def test_rounds_in_quick_succession_are_no_row(gaps: list[float], hold_rounds: int) -> None:
    """However often is looked, gains must have been found for all the time that the rounds take."""
    times = [sum(gaps[:end]) for end in range(len(gaps))]
    for now, lasts in zip(times, rounds([True] * len(times), times, hold_rounds), strict=True):
        assert not lasts or now >= (hold_rounds - 1) * INTERVAL - 1e-6


@given(MOVES, st.lists(st.booleans(), min_size=12, max_size=12))
def test_a_programme_keeps_its_order(moves: list[tuple[int, int]], fits: list[bool]) -> None:
    """A step is tried only when none before it that waits has a host or the instance in common with it; in the end all are taken."""
    left = programme([Migrate(instance_id=number, host_id=host) for number, host in moves], dict.fromkeys(range(1, 7), 9))
    order = left.waiting
    for turn in range(len(order) + 1):
        tried: list[Step] = []
        while (step := left.next_free(tried)) is not None:
            place = next(place for place, one in enumerate(left.waiting) if one is step)
            for earlier in left.waiting[:place]:
                assert not {earlier.source, earlier.target} & {step.source, step.target}
                assert earlier.instance_id != step.instance_id
            tried.append(step)
            if turn or fits[len(tried) % 12]:
                left = left.begun(step)
        for step in left.under_way:
            left = left.taken(step)
    assert left.is_done


@given(MOVES, st.integers(0, 11))
def test_what_counts_on_a_step_that_fails_is_dropped(moves: list[tuple[int, int]], failing: int) -> None:
    """Of the steps after it those that go where room was to be made, or are of an instance that stays, and what counts on them in turn."""
    whole = programme([Migrate(instance_id=number, host_id=host) for number, host in moves], dict.fromkeys(range(1, 9), 9))
    tried: list[Step] = []
    while len(tried) <= failing and (one := whole.next_free(tried)) is not None:
        tried.append(one)
    if not tried:
        return
    step = tried[-1]
    failing = next(place for place, one in enumerate(whole.waiting) if one is step)
    left = whole.failed(step).waiting
    kept = {id(one) for one in left}
    full, stays = {step.source}, {step.instance_id}
    for one in whole.waiting[failing + 1 :]:
        counts_on_it = one.target in full or one.instance_id in stays
        assert counts_on_it != (id(one) in kept)
        if counts_on_it:
            full.add(one.source)
            stays.add(one.instance_id)
    assert left[:failing] == whole.waiting[:failing]
    assert id(step) not in kept


def test_a_stop_over_goes_on_from_there() -> None:
    """An instance that moves twice leaves first its own host, then the one between; one that is nowhere is left out."""
    moves = [Migrate(instance_id=1, host_id=3), Migrate(instance_id=7, host_id=1), Migrate(instance_id=1, host_id=2, why="better")]
    made = programme(moves, {1: 1})
    assert made == Programme((Step(instance_id=1, source=1, target=3), Step(instance_id=1, source=3, target=2, why="better")))
    assert made.next_free([made.waiting[0]]) is made.begun(made.waiting[0]).next_free() is None
    assert made.gone(made.waiting[0]).is_done
    assert [{one.source, one.target} for pair in pairwise(made.waiting) for one in pair] == [{1, 3}, {2, 3}]
