"""The state table: what it promises whoever reads it."""

from __future__ import annotations

from itertools import product

import pytest

from tashi.model.states import ON_A_HOST, TABLE, WITHOUT_A_HOST, Happening, IllegalHappening, InstanceState, is_legal, step

S = InstanceState
H = Happening


def test_numbers_are_the_originals() -> None:
    """The sixteen original states keep their numbers; two are the project's."""
    assert [state.name for state in S] == [
        "Pending", "Activating", "Running", "Pausing", "Paused", "Unpausing", "Suspending", "Resuming", "MigratePrep", "MigrateTrans",
        "ShuttingDown", "Destroying", "Orphaned", "Held", "Exited", "Suspended", "PreparingDisk", "Restarting",
    ]  # fmt: skip
    assert [int(state) for state in S] == list(range(1, 19))


def test_every_pair_is_in_the_table_or_raises() -> None:
    """A step is a state of the table, or an error that names both."""
    for state, happening in product(S, H):
        if is_legal(state, happening):
            assert step(state, happening) is TABLE[state, happening]
        else:
            with pytest.raises(IllegalHappening, match=state.name) as caught:
                step(state, happening)
            assert (caught.value.state, caught.value.happening) == (state, happening)


def test_a_state_is_on_a_host_or_not() -> None:
    """Every state but Exited is in exactly one of the two groups."""
    assert frozenset(S) == ON_A_HOST | WITHOUT_A_HOST | {S.Exited}
    assert not ON_A_HOST & WITHOUT_A_HOST


def test_the_end_is_the_end() -> None:
    """Nothing happens to what is gone."""
    assert not [happening for happening in H if is_legal(S.Exited, happening)]


def test_everything_can_be_got_rid_of() -> None:
    """In every living state there is a way to be rid of the instance, with its host's help or without."""
    for state in ON_A_HOST:
        assert step(state, H.DESTROY_ASKED) is S.Destroying
        assert is_legal(S.Destroying, H.SEEN_GONE)
    for state in WITHOUT_A_HOST:
        assert step(state, H.GIVEN_UP) is S.Exited


def test_silence_is_never_taken_for_an_end() -> None:
    """A lost host leaves every instance that is on one on it."""
    for state in ON_A_HOST:
        assert step(state, H.HOST_LOST) in ON_A_HOST


def test_every_state_can_be_reached() -> None:
    """From Pending, every state is reached by some way."""
    reached = {S.Pending}
    while new := {after for (before, _), after in TABLE.items() if before in reached} - reached:
        reached |= new
    assert reached == set(S)


def test_a_failed_order_never_ends_a_running_instance() -> None:
    """Only a sighting ends what has run."""
    for state in (S.Running, S.Paused, S.Orphaned):
        assert not is_legal(state, H.FAILED)
