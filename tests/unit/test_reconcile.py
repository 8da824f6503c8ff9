"""What a sighting means, and what is still to be done."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from hypothesis import given, settings

from tashi.manager.reconcile import Step, ends_task, errands_of, missing_in, order_for, step_for
from tashi.model.instance import Instance, Migration, Residue, Resources, Task, domain_uuid
from tashi.model.orders import (
    Adapt,
    Depart,
    Destroy,
    Look,
    Migrate,
    Observation,
    Pause,
    Receive,
    Reset,
    Seen,
    Shutdown,
    Start,
    Suspend,
    Unpause,
)
from tashi.model.states import Happening, InstanceState, is_legal, step
from tests.builders import an_instance, seen
from tests.strategies import instances, observations

CELL = UUID(int=1)
S = InstanceState


def test_activating_calls_for_a_start() -> None:
    """The order to start names all that a host needs, and the instance's generation."""
    instance = an_instance(7, "web", state=S.Activating, host_id=2, generation=3, cores=2, memory=512)
    order = order_for(instance, CELL)
    assert isinstance(order, Start)
    assert (order.instance_id, order.generation, order.name, order.cores, order.memory) == (7, 3, "web", 2, 512)
    assert order.uuid == str(domain_uuid(CELL, 7))
    assert order.disks == instance.disks


def test_destroying_calls_for_a_destroy() -> None:
    """The order to destroy names the same domain as the order to start."""
    order = order_for(an_instance(7, state=S.Destroying, host_id=2, generation=4), CELL)
    assert order == Destroy(instance_id=7, generation=4, uuid=str(domain_uuid(CELL, 7)))


def test_the_rest_calls_for_nothing() -> None:
    """In every other state the host has nothing to do."""
    starting = {S.PreparingDisk, S.Activating, S.Resuming}
    under_way = {S.Destroying, S.Pausing, S.Unpausing, S.ShuttingDown, S.Suspending, S.MigratePrep, S.MigrateTrans, S.Restarting}
    for state in set(S) - starting - under_way:
        assert order_for(an_instance(state=state, host_id=1), CELL) is None


def test_a_wish_calls_for_its_deed() -> None:
    """What is asked of an instance on a host is an order about the same domain; a running one's first task is one, too."""
    for state, deed in ((S.Pausing, Pause), (S.Unpausing, Unpause), (S.ShuttingDown, Shutdown), (S.Running, Reset)):
        instance = an_instance(7, state=state, host_id=2, generation=4, tasks=(Task(),))
        assert order_for(instance, CELL) == deed(instance_id=7, generation=4, uuid=str(domain_uuid(CELL, 7)))


def test_an_adaptation_is_a_task() -> None:
    """The first task that wishes for resources is the order to give them."""
    wished = Resources(cpu_share=512)
    instance = an_instance(7, host_id=2, generation=4, tasks=(Task(adapt=wished), Task()))
    assert order_for(instance, CELL) == Adapt(instance_id=7, generation=4, uuid=str(domain_uuid(CELL, 7)), wished=wished)


def _moving(state: InstanceState = S.MigratePrep, *, generation: int = 5, residue: tuple[Residue, ...] = (), **move: Any) -> Instance:
    """Instance 7, on its way from host 2 to host 3."""
    migration = Migration(**{"target": 3, "begun": True, **move})
    return an_instance(7, "web", state=state, host_id=2, generation=generation, started=1, migration=migration, residue=residue)


_ABOUT: Any = {"instance_id": 7, "generation": 5, "uuid": str(domain_uuid(CELL, 7))}


def test_the_errands_of_a_move() -> None:
    """Each step of a move is one order to one host: nothing before its turn, the source first, the target, the source again."""
    disks = an_instance(7).disks
    ways = {"landing": "it will be", "address": "there", "shared": True}
    assert errands_of(_moving(begun=False), CELL) == ()
    assert errands_of(_moving(), CELL) == ((2, Depart(**_ABOUT)),)
    receive = Receive(**_ABOUT, name="web", user_id=1000, described="it is", cores=1, memory=128, disks=disks)
    assert errands_of(_moving(described="it is", received=5), CELL) == ((3, receive),)
    moving = _moving(S.MigrateTrans, described="it is", received=4, **ways)
    assert errands_of(moving, CELL) == ((2, Migrate(**_ABOUT, **ways)),)


def test_who_is_asked_for_one_that_may_have_moved() -> None:
    """When its host is silent or has it no longer, the other one is asked; where nothing was sent to it, nobody is."""
    assert errands_of(_moving(S.Orphaned, received=4), CELL) == ((3, Look(**_ABOUT)),)
    assert errands_of(_moving(S.MigrateTrans, received=4, doubt="it stands still"), CELL) == ((3, Look(**_ABOUT)),)
    assert errands_of(_moving(S.Orphaned), CELL) == ()
    assert errands_of(an_instance(7, state=S.Orphaned, host_id=2), CELL) == ()
    left = an_instance(7, state=S.MigrateTrans, host_id=3, generation=5, started=4)
    assert errands_of(left, CELL) == ((3, Look(**_ABOUT, yours=True)),)


def test_what_is_left_is_cleared_away() -> None:
    """Every host that may have something left is told to clear it away, whatever else the instance calls for; not before it arrived."""
    residue = (Residue(host_id=2, generation=6), Residue(host_id=4, generation=3))
    clear = tuple((one.host_id, Destroy(instance_id=7, generation=one.generation, uuid=_ABOUT["uuid"])) for one in residue)
    arrived = an_instance(7, state=S.Running, host_id=3, generation=6, started=4, residue=residue)
    assert errands_of(arrived, CELL) == clear
    assert errands_of(msgspec.structs.replace(arrived, state=S.Suspended, host_id=None), CELL) == clear
    pausing = msgspec.structs.replace(arrived, state=S.Pausing)
    assert errands_of(pausing, CELL) == ((3, Pause(instance_id=7, generation=6, uuid=_ABOUT["uuid"])), *clear)
    looked_for = msgspec.structs.replace(arrived, state=S.MigrateTrans)
    assert [host_id for host_id, _ in errands_of(looked_for, CELL)] == [3]


def test_suspend_and_resume() -> None:
    """An instance that is suspended or resumed names where its memory is kept."""
    suspending = an_instance(7, state=S.Suspending, host_id=2, generation=5, saved="suspend/7_web")
    assert errands_of(suspending, CELL) == ((2, Suspend(**_ABOUT, saved="suspend/7_web")),)
    order = order_for(msgspec.structs.replace(suspending, state=S.Resuming), CELL)
    assert isinstance(order, Start) and (order.saved, order.generation) == ("suspend/7_web", 5)
    assert errands_of(msgspec.structs.replace(suspending, state=S.Suspended, host_id=None), CELL) == ()


def test_only_the_outcome_tells_of_a_suspension() -> None:
    """It is saved, or gone, when the host that was told to save it says so; until then it is still at it."""
    instance = an_instance(7, state=S.Suspending, host_id=2, generation=5, started=2, saved="suspend/7_web")
    for what, happening in ((Seen.SAVED, Happening.SEEN_SAVED), (Seen.GONE, Happening.SEEN_GONE)):
        assert step_for(instance, 2, seen(instance, what, done=True)) == Step(instance_id=7, happening=happening)
        assert step_for(instance, 2, seen(instance, what, done=True, generation=4)) is None
        assert step_for(instance, 2, seen(instance, what)) is None
    refused = seen(instance, done=True, refused="no room")
    assert step_for(instance, 2, refused) == Step(instance_id=7, happening=Happening.FAILED, reason="no room")


def test_a_list_says_nothing_of_one_that_is_looked_for() -> None:
    """A target's list may be older than the arrival; a source's list means that it has left, or has ended."""
    looked_for = an_instance(7, state=S.MigrateTrans, host_id=3, generation=5, started=4)
    assert missing_in([looked_for], frozenset()) == []
    assert [one.id for one in missing_in([_moving(S.MigrateTrans, received=4)], frozenset())] == [7]


def test_a_refused_deed_fails_the_wish() -> None:
    """An instance that its host could not pause runs on, and the words of the host say why; one that has ended has ended."""
    instance = an_instance(7, state=S.Pausing, host_id=2, generation=4)
    refused = seen(instance, done=True, refused="no")
    assert step_for(instance, 2, refused) == Step(instance_id=7, happening=Happening.FAILED, reason="no")
    assert step_for(instance, 2, msgspec.structs.replace(refused, generation=3)) == Step(instance_id=7, happening=Happening.SEEN_RUNNING)
    assert step_for(instance, 2, msgspec.structs.replace(refused, seen=Seen.GONE)) == Step(instance_id=7, happening=Happening.SEEN_GONE)


def test_what_ends_a_task() -> None:
    """Only the outcome of the deed of this generation, from the instance's own host, while it runs."""
    instance = an_instance(7, state=S.Running, host_id=2, generation=4, tasks=(Task(),))
    outcome = seen(instance, done=True)
    assert ends_task(instance, 2, outcome)
    assert not ends_task(instance, 3, outcome)
    for fields in ({"done": False}, {"generation": 3}, {"seen": Seen.GONE}):
        assert not ends_task(instance, 2, msgspec.structs.replace(outcome, **fields))
    for fields in ({"tasks": ()}, {"state": S.Pausing}):
        assert not ends_task(msgspec.structs.replace(instance, **fields), 2, outcome)


def test_a_sighting_from_the_instances_host_counts() -> None:
    """The host that the record names may say that the instance runs."""
    instance = an_instance(7, state=S.Activating, host_id=2, generation=3)
    assert step_for(instance, 2, seen(instance)) == Step(instance_id=7, happening=Happening.SEEN_RUNNING)


def test_a_sighting_from_another_host_is_void() -> None:
    """No other host may say anything about it."""
    instance = an_instance(7, state=S.Running, host_id=2, generation=3)
    for what in Seen:
        assert step_for(instance, 3, seen(instance, what)) is None


def test_a_sighting_of_another_generation_is_void() -> None:
    """What answers an older start, or an order never given, says nothing of now; the order before the last was about the same domain."""
    instance = an_instance(7, state=S.Running, host_id=2, generation=4, started=3)
    for generation in (2, 5):
        assert step_for(instance, 2, seen(instance, Seen.GONE, generation=generation)) is None
    assert step_for(instance, 2, seen(instance, Seen.GONE, generation=3)) == Step(instance_id=7, happening=Happening.SEEN_GONE)


def test_a_sighting_of_nothing_known_is_void() -> None:
    """An instance that the records do not hold is not made up."""
    assert step_for(None, 2, seen(an_instance())) is None


def test_what_a_full_report_does_not_list_is_gone() -> None:
    """A running or orphaned instance that its host lists no more is gone."""
    missing = [an_instance(1, state=S.Running, host_id=1), an_instance(2, state=S.Orphaned, host_id=1)]
    assert [one.id for one in missing_in(missing, frozenset())] == [1, 2]
    assert [one.id for one in missing_in(missing, frozenset({1}))] == [2]


def test_an_order_under_way_is_not_concluded_from_a_list() -> None:
    """What is being started or destroyed is answered by the host, not by its absence from a list."""
    for state in (S.Activating, S.Destroying, S.Resuming, S.PreparingDisk):
        assert missing_in([an_instance(state=state, host_id=1)], frozenset()) == []


@settings(max_examples=25)
@given(instances(), observations())
def test_a_step_is_always_legal(instance: Instance, observation: Observation) -> None:
    """Whatever a host says, what follows from it is in the state table."""
    observation = msgspec.structs.replace(observation, generation=instance.generation)
    found = step_for(instance, instance.host_id or 1, observation)
    if found is not None:
        assert instance.host_id is not None
        assert is_legal(instance.state, found.happening)


@settings(max_examples=25)
@given(instances(), observations())
def test_the_same_sighting_twice_says_nothing_new(instance: Instance, observation: Observation) -> None:
    """Carried out once, a sighting leads no further: the state it led to is where it leads again, or it is not legal there."""
    observation = msgspec.structs.replace(observation, generation=instance.generation)
    first = step_for(instance, instance.host_id or 1, observation)
    if first is None:
        return
    state = step(instance.state, first.happening)
    again = step_for(msgspec.structs.replace(instance, state=state), instance.host_id or 1, observation)
    assert again is None or step(state, again.happening) is state
