"""Every transient state ends: whatever outcome its host tells, the instance is then where it stays until somebody wants more (H6)."""

from __future__ import annotations

from itertools import product
from uuid import UUID

import pytest

from tashi.manager.reconcile import order_for, step_for
from tashi.model.causes import OFF, PASSING, Cause
from tashi.model.instance import Disk, Instance
from tashi.model.orders import Deed, Observation, Seen
from tashi.model.states import ON_A_HOST, TABLE, Happening, InstanceState, step

CELL = UUID(int=1)
S = InstanceState
H = Happening

AT_REST = frozenset({S.Pending, S.Running, S.Paused, S.Suspended, S.Held, S.Exited})
"""Where an instance stays until somebody wants something else, or is looked after by the planner."""
TRANSIENT = ON_A_HOST - AT_REST
FROM_HOSTS = frozenset(
    {
        H.SEEN_RUNNING, H.SEEN_PAUSED, H.SEEN_SAVED, H.SEEN_GONE, H.HOST_PAUSED, H.DISK_READY, H.FAILED, H.RETRIED,
        H.MIGRATION_FAILED, H.ARRIVED, H.MOVED_AWAY,
    }
)  # fmt: skip
DEEDS = (S.Pausing, S.Unpausing, S.Suspending)
"""The states whose order has an outcome that is told as such."""


def an_instance(state: InstanceState, **fields: object) -> Instance:
    """An instance in this state on host 1, with order 5."""
    values = {
        "id": 7, "name": "vm7", "user_id": 1000, "disks": (Disk(uri="a.img"),), "host_id": 1, "generation": 5, "started": 2,
        "saved": "suspend/7" if state in (S.Suspending, S.Resuming) else "",
    }  # fmt: skip
    return Instance(**values | fields, state=state)  # type: ignore[arg-type]


def after(instance: Instance, observation: Observation) -> InstanceState:
    """The state after the observation of host 1."""
    taken = step_for(instance, 1, observation)
    return instance.state if taken is None else step(instance.state, taken.happening)


@pytest.mark.parametrize("state", sorted(TRANSIENT))
def test_the_table_has_a_way_out(state: InstanceState) -> None:
    """From each transient state something that a host tells leads to where an instance stays, in a few steps."""
    reached = {state}
    while new := {then for (before, what), then in TABLE.items() if before in reached and what in FROM_HOSTS} - reached:
        reached |= new
    assert reached & AT_REST


@pytest.mark.parametrize("state", DEEDS)
def test_an_outcome_ends_a_deed(state: InstanceState) -> None:
    """Any outcome of the order, done or refused, whatever the domain is then seen as, ends the state."""
    instance = an_instance(state)
    assert isinstance(order_for(instance, CELL), Deed)
    for seen, refused, cause in product(
        (Seen.RUNNING, Seen.PAUSED, Seen.SAVED, Seen.GONE), ("", "no"), (None, *sorted(Cause))
    ):
        if seen is Seen.SAVED and state is not S.Suspending:
            continue  # the outcome of another order
        observation = Observation(instance_id=7, generation=5, seen=seen, done=True, refused=refused, cause=cause)
        assert after(instance, observation) in (*AT_REST, S.Orphaned), observation


@pytest.mark.parametrize("state", DEEDS)
def test_a_deed_that_has_no_effect_fails_in_words(state: InstanceState) -> None:
    """A deed that was done, and whose domain is as before all the same, ends as failed, and says why."""
    before = Seen.PAUSED if state is S.Unpausing else Seen.RUNNING
    taken = step_for(an_instance(state), 1, Observation(instance_id=7, generation=5, seen=before, done=True))
    assert taken is not None and taken.happening is H.FAILED and taken.reason


def test_the_outcome_of_an_older_order_ends_nothing() -> None:
    """Only the outcome of the last order counts: the one before may have paused what is being unpaused."""
    for seen in (Seen.PAUSED, Seen.RUNNING):
        older = Observation(instance_id=7, generation=4, seen=seen, done=True, refused="no")
        assert after(an_instance(S.Suspending), older) is S.Suspending


@pytest.mark.parametrize("state", [S.Activating, S.Resuming])
def test_a_start_ends(state: InstanceState) -> None:
    """A started domain runs, has failed, is gone, or is paused for a cause that lasts; only a pause that passes is waited for."""
    for seen in (Seen.RUNNING, Seen.FAILED, Seen.GONE):
        assert after(an_instance(state), Observation(instance_id=7, generation=5, seen=seen)) in AT_REST
    for cause in Cause:
        observation = Observation(instance_id=7, generation=5, seen=Seen.PAUSED, cause=cause)
        passing = cause in PASSING or cause is Cause.OWNER
        assert after(an_instance(state), observation) is (state if passing else S.Paused)


def test_the_others_end() -> None:
    """Copying ends ready or failed; what is destroyed or restarted ends when it is gone; an Orphaned instance is seen again."""
    ends = {
        S.PreparingDisk: (Seen.READY, Seen.FAILED),
        S.Destroying: (Seen.GONE,),
        S.Restarting: (Seen.GONE,),
        S.Orphaned: (Seen.RUNNING, Seen.PAUSED, Seen.GONE),
        S.ShuttingDown: (Seen.GONE, Seen.PAUSED),  # one that runs on is given up after its grace
    }
    for state, sightings in ends.items():
        for seen in sightings:
            assert after(an_instance(state), Observation(instance_id=7, generation=5, seen=seen)) is not state
    assert step(S.ShuttingDown, H.FAILED) is S.Running
    tested = {*DEEDS, S.Activating, S.Resuming, *ends, S.MigratePrep, S.MigrateTrans}
    assert tested == TRANSIENT  # the two of a migration are in tests/memory/test_manager_migration.py


@pytest.mark.parametrize("cause", sorted(OFF | {Cause.NO_SPACE, Cause.IO_ERROR, Cause.WATCHDOG, Cause.ADMINISTRATOR}))
def test_a_pause_of_its_host_is_kept_with_its_cause(cause: Cause) -> None:
    """H6, H8: what its host has paused or saved is Paused, with the cause and the host's words."""
    for state in (S.Activating, S.Running, S.Resuming, S.ShuttingDown, S.Orphaned):
        seen = Observation(instance_id=7, generation=5, seen=Seen.PAUSED, cause=cause, reason="why")
        taken = step_for(an_instance(state), 1, seen)
        assert taken is not None
        assert (step(state, taken.happening), taken.cause, taken.reason) == (S.Paused, cause, "why")


def test_the_owners_pause_is_the_owners() -> None:
    """A host cannot tell whose command a pause was: it is its owner's where that was asked for, else an administrator's."""
    seen = Observation(instance_id=7, generation=5, seen=Seen.PAUSED, cause=Cause.ADMINISTRATOR, reason="by somebody")
    for instance, cause in (
        (an_instance(S.Pausing), Cause.OWNER),
        (an_instance(S.Paused, cause=Cause.OWNER), Cause.OWNER),
        (an_instance(S.Orphaned, cause=Cause.OWNER), Cause.OWNER),
        (an_instance(S.Running), Cause.ADMINISTRATOR),
        (an_instance(S.Orphaned), Cause.ADMINISTRATOR),
    ):
        taken = step_for(instance, 1, seen)
        assert taken is not None and taken.cause is cause
        assert taken.reason == ("" if cause is Cause.OWNER else "by somebody")


def test_migrated_away_by_somebody_else() -> None:
    """H8: an instance that somebody has moved is in doubt, and stays so whatever its former host finds of it later."""
    gone = Observation(instance_id=7, generation=5, seen=Seen.GONE, cause=Cause.MIGRATED_AWAY, reason="migrated away")
    for state in (S.Running, S.Pausing, S.Paused, S.Unpausing, S.MigratePrep, S.ShuttingDown):
        assert after(an_instance(state), gone) is S.Orphaned
    doubtful = an_instance(S.Orphaned, cause=Cause.MIGRATED_AWAY)
    for cause in (None, Cause.MIGRATED_AWAY, Cause.UNDEFINED, Cause.DESTROYED):
        later = Observation(instance_id=7, generation=5, seen=Seen.GONE, cause=cause)
        assert after(doubtful, later) is S.Orphaned
    assert after(doubtful, Observation(instance_id=7, generation=5, seen=Seen.RUNNING)) is S.Running
    assert after(an_instance(S.Destroying), destroyed(5)) is S.Exited


def destroyed(generation: int) -> Observation:
    """The outcome of a Destroy."""
    return Observation(instance_id=7, generation=generation, seen=Seen.GONE, reason="destroyed")
