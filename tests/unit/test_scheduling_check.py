"""The check finds what is wrong with a plan, whoever made it, and has nothing to say against a good one."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tashi.model.host import Host
from tashi.model.instance import Disk, Instance, Migration, Nic, Residue, Task
from tashi.model.sla import SlaClass
from tashi.model.states import HostState, InstanceState
from tashi.scheduling.check import check
from tashi.scheduling.moving.ordering import in_order
from tashi.scheduling.plan import Action, Grow, Migrate, Place, Plan, Postpone, PowerOff, PowerOn, Shrink
from tashi.scheduling.policies import POLICIES
from tashi.scheduling.snapshot import Snapshot
from tashi.scheduling.terms import is_ready
from tests.builders import a_snapshot
from tests.strategies import snapshots

MINE = (Disk(uri="disk-1-a-0.img", persistent=True),)


def problems(snapshot: Snapshot, *actions: Action) -> tuple[str, ...]:
    """What the check says of these steps."""
    return check(Plan(actions=actions), snapshot)


def change(snapshot: Snapshot, **changes: dict[str, Any]) -> Snapshot:
    """The snapshot with hosts and instances changed, by name: h1={"state": ...}."""

    def changed(one: Any) -> Any:
        return msgspec.structs.replace(one, **changes.get(one.name, {}))

    hosts: dict[int, Host] = {number: changed(host) for number, host in snapshot.hosts.items()}
    placed: dict[int, tuple[Instance, ...]] = {number: tuple(map(changed, group)) for number, group in snapshot.placed.items()}
    return msgspec.structs.replace(snapshot, hosts=hosts, placed=placed, pending=tuple(map(changed, snapshot.pending)))


def to(host_id: int, instance_id: int = 1, **fields: Any) -> Migrate:
    """A move."""
    return Migrate(instance_id=instance_id, host_id=host_id, **fields)


@pytest.mark.parametrize(
    ("instance", "host", "problem"),
    [
        ({}, {}, None),
        ({}, {"up": False}, "is down"),
        ({}, {"decayed": True}, "does not answer just now"),
        ({}, {"state": HostState.Drained, "draining": True}, "is drained"),
        ({}, {"state": HostState.PoweredOff}, "is powered off"),
        ({}, {"state": HostState.PoweringOff}, "is being powered off"),
        ({}, {"reserved": (7,)}, "is reserved for other users"),
        ({"nics": (Nic(network=5),)}, {}, "has no network 5"),
        ({"hints": {"location": "ie"}}, {"config": {"location": "de"}}, "is in location de, not ie"),
        ({"hints": {"auditability": "True"}}, {}, "is not auditable"),
        ({"hints": {"isolation": "True"}}, {}, "holds instances of other users, and isolation is asked"),
        ({"memory": 4096}, {}, "1024 MB short of memory"),
        ({"cores": 8}, {}, "1 cores short"),
        ({"cores": 9}, {}, "has 8 cores, and the instance asks for 9"),
        ({"cpu_speed": 3000}, {}, "its cores have 2000 MHz, and the instance reserves 3000 MHz a core"),
    ],
)
def test_every_filter_holds_for_places_and_moves(instance: dict[str, Any], host: dict[str, Any], problem: str | None) -> None:
    """An instance is sent nowhere that a filter objects to, whether it starts there or moves there."""
    there = {"vm2": {"user_id": 1001}, "h2": host}
    moved = change(a_snapshot("h1 16c 16G | vm1", "h2 8c 4G | vm2 1c 1G"), vm1=instance, **there)
    placed = change(a_snapshot("h1 16c 16G | vm0", "h2 8c 4G | vm2 1c 1G", waiting="vm1"), vm1=instance, **there)
    assert problems(moved, to(2)) == ((f"instance 1 is moved to h2, which {problem}",) if problem else ())
    assert problems(placed, Place(instance_id=3, host_id=2)) == ((f"instance 3 is sent to h2, which {problem}",) if problem else ())


def test_isolation_binds_the_other_way_round() -> None:
    """Nothing of another user comes to one that is alone, by no kind of step, not even one that came in this plan."""
    snapshot = change(
        a_snapshot("h1 8c 16G | vm1", "h2 8c 16G", waiting="vm2"), vm1={"hints": {"isolation": "True"}}, vm2={"user_id": 1001}
    )
    words = "instance 2 is sent to h2, which holds an instance that asked for isolation"
    assert problems(snapshot, to(2), Place(instance_id=2, host_id=2)) == (words,)
    assert problems(snapshot, to(2), Place(instance_id=2, host_id=1)) == ()


def test_steps_are_tried_in_their_order() -> None:
    """Room is there when somebody has left, and not before."""
    snapshot = a_snapshot("h1 2c 4G | vm1 2c", "h2 2c 4G | vm2 2c", "h3 2c 4G", waiting="vm3 2c")
    steps = (to(3, 2), to(2, 1), Place(instance_id=3, host_id=1))
    assert problems(snapshot, *steps) == ()
    assert problems(snapshot, *steps[1:], steps[0]) == (
        "instance 1 is moved to h2, which 2 cores short",
        "instance 3 is sent to h1, which 2 cores short",
    )


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"state": InstanceState.Paused}, "and has something else to do"),
        ({"tasks": (Task(),)}, "and has something else to do"),
        ({"migration": Migration(target=2), "state": InstanceState.MigratePrep}, "and has something else to do"),
        ({"residue": (Residue(host_id=3, generation=1),)}, "and has something else to do"),
        ({"moved_at": 990.0}, "and has moved lately"),
        ({"hints": {"targetHost": "h1"}}, "and has asked for h1 by name"),
        ({"hints": {"targetHost": "h1", "allowElsewhere": "True"}}, None),
    ],
)
def test_what_may_not_be_moved(fields: dict[str, Any], problem: str | None) -> None:
    """One that is busy, has moved lately, or has asked to be where it is, is left there."""
    snapshot = change(a_snapshot("h1 8c 16G | vm1", "h2 8c 16G", "h3 8c 16G", cooldown=60.0), vm1=fields)
    snapshot = msgspec.structs.replace(snapshot, time=1000.0)
    assert problems(snapshot, to(2)) == ((f"instance 1 is moved to h2, {problem}",) if problem else ())


def test_emptying_a_host() -> None:
    """To empty a host is a reason only while that host is to be emptied; then neither cooldown nor a wish for this host counts."""
    snapshot = change(a_snapshot("h1 8c 16G | vm1", "h2 8c 16G"), vm1={"moved_at": 1.0, "hints": {"targetHost": "h1"}})
    assert problems(snapshot, to(2, evacuates=True)) == ("instance 1 is moved to h2 to empty h1, which nobody asked for",)
    draining = change(snapshot, h1={"state": HostState.Drained, "draining": True})
    assert problems(draining, to(2, evacuates=True)) == ()
    assert problems(draining, to(2)) == ("instance 1 is moved to h2, and has moved lately",)


def test_moves_that_are_none() -> None:
    """A move leads from a host to another one that there is, with the same hypervisor."""
    snapshot = a_snapshot("h1 8c 16G | vm1", "h2 8c 16G", waiting="vm2")
    facts = msgspec.structs.replace(snapshot.hosts[2].facts, hypervisor="xen")  # type: ignore[type-var]
    assert problems(snapshot, to(1)) == ("instance 1 is moved to h1, where it is",)
    assert problems(snapshot, to(9)) == ("instance 1 is moved to 9, which there is not",)
    assert problems(snapshot, to(2, 7)) == ("instance 7 is on no host, or is named twice",)
    assert problems(snapshot, to(1, 2)) == ("instance 2 is on no host, or is named twice",)
    assert problems(change(snapshot, h2={"facts": facts}), to(2)) == ("instance 1 is moved to h2, which runs another hypervisor",)


def test_a_stop_over() -> None:
    """An instance is moved twice only when its target does not take it at first, once over, and onwards."""
    full = a_snapshot("h1 4c 4G | vm1 4c", "h2 4c 4G | vm2 4c", "h3 4c 4G", "h4 4c 4G")
    round_trip = (to(3, 1), to(1, 2), to(2, 1))
    assert problems(full, *round_trip) == ()
    assert problems(full, to(3, 1), to(1, 2)) == ()
    assert problems(full, to(3, 1), to(2, 1)) == ("instance 1 is moved on to h2, which 4 cores short",)
    assert problems(full, to(3, 1), to(1, 1)) == (
        "instance 1 is moved to h3, and back",
        "instance 1 is on no host, or is named twice",
    )
    assert problems(full, *round_trip, to(4, 1)) == ("instance 1 is on no host, or is named twice",)
    assert problems(full, to(3, 1), to(4, 1))[0] == "instance 1 is moved to h3, though h4 takes it at once"
    assert problems(full, to(3, 1), to(3, 1))[0] == "instance 1 is moved to h3, though h3 takes it at once"
    assert problems(full, to(3, 1), Shrink(instance_id=1, memory=64)) == ("instance 1 is on no host, or is named twice",)
    assert problems(full, to(3, 1), to(1, 2), to(2, 1, evacuates=True)) == ("instance 1 is moved on to h2 for another reason than before",)


def test_nobody_is_named_twice() -> None:
    """Each instance and each host has one step at most."""
    snapshot = a_snapshot("h1 8c 16G | vm1", "h2 8c 16G", "h3 8c 16G", waiting="vm2", guaranteed_servers=0)
    snapshot = msgspec.structs.replace(snapshot, empty_since={3: -1000.0})
    place = Place(instance_id=2, host_id=1)
    twice = "instance 2 does not wait for a place, or is named twice"
    assert problems(snapshot, place, place) == (twice,)
    assert problems(snapshot, Postpone(instance_id=2), place) == (twice,)
    off = PowerOff(host_id=3)
    assert problems(snapshot, off, off) == ("host 3 is switched, and there is none, or it is named twice",)


@pytest.mark.parametrize("owner", ["placed", "pending", "kept"])
def test_persistent_disks(owner: str) -> None:
    """Nobody gets a persistent disk that another has, on whatever host, nor one that was given away a step before, also when it moves."""
    snapshot = a_snapshot("h1 8c 16G | vm1", "h2 8c 16G", waiting="vm2, vm3")
    snapshot = change(snapshot, vm3={"disks": MINE}, **({"vm1": {"disks": MINE}} if owner == "placed" else {}))
    if owner == "pending":
        snapshot = change(snapshot, vm2={"disks": MINE})
    if owner == "kept":
        snapshot = msgspec.structs.replace(snapshot, kept_disks={"disk-1-a-0.img": 8})
    steps = (to(2), Place(instance_id=2, host_id=1), Place(instance_id=3, host_id=1))
    assert problems(snapshot, *steps) == ("instance 3 would share the persistent disk disk-1-a-0.img with another",)
    own = msgspec.structs.replace(snapshot, kept_disks={"disk-1-a-0.img": 3})
    assert (problems(own, steps[2]) == ()) is (owner != "placed")


def test_shrinking_stops_at_the_floor() -> None:
    """Nobody is shrunk below minimalVmMemory or what the SLA class guarantees, and nobody is shrunk to be no smaller."""
    snapshot = a_snapshot("h1 8c 1G | vm1 1c 512M, vm2 1c 512M", waiting="vm3 1c 1G", minimal_vm_memory=100)
    snapshot = change(snapshot, vm2={"sla": "gold"}, vm3={"user_id": 1})
    snapshot = msgspec.structs.replace(snapshot, priorities={1: 5}, sla_classes={"gold": SlaClass(name="gold", memory=400)})
    assert problems(snapshot, Shrink(instance_id=1, memory=100), Shrink(instance_id=2, memory=400)) == ()
    assert problems(snapshot, Shrink(instance_id=1, memory=99)) == (
        "the memory of instance 1 becomes 99 MB of 512 MB, and 100 MB are guaranteed",
    )
    assert len(problems(snapshot, Shrink(instance_id=2, memory=399))) == 1
    assert len(problems(snapshot, Shrink(instance_id=1, memory=512))) == 1
    assert len(problems(change(snapshot, vm1={"state": InstanceState.Paused}), Shrink(instance_id=1, memory=256))) == 1


def test_room_that_is_shrunk_free_is_not_there_yet() -> None:
    """Nobody is placed on memory that a guest is only asked to give back."""
    snapshot = a_snapshot("h1 8c 1G | vm1 1c 1G", waiting="vm2 1c 256M, vm3 1c 2G")
    snapshot = msgspec.structs.replace(change(snapshot, vm2={"user_id": 1}, vm3={"user_id": 1}), priorities={1: 5})
    assert problems(snapshot, Shrink(instance_id=1, memory=512), Place(instance_id=2, host_id=1)) == (
        "instance 2 is sent to h1, which 256 MB short of memory",
    )


def test_the_more_important_keep_their_memory() -> None:
    """Only for one of higher priority that still waits is anything shrunk."""
    snapshot = a_snapshot("h1 8c 1G | vm1 1c 512M", waiting="vm2 1c 1G, vm3 1c 128M")
    shrink = Shrink(instance_id=1, memory=256)
    words = "the memory of instance 1 becomes 256 MB of 512 MB, and nothing waits that is more important"
    assert problems(snapshot, shrink) == (words,)
    better = msgspec.structs.replace(change(snapshot, vm3={"user_id": 1}), priorities={1: 5})
    assert problems(better, shrink) == ()
    assert problems(better, shrink, Place(instance_id=3, host_id=1)) == (words,)


def test_growing() -> None:
    """One that was shrunk is given back what it had at most, as far as its host has room, also for two together."""
    snapshot = a_snapshot("h1 8c 1G | vm1 1c 640M, vm2 1c 640M")
    shrunk = {"memory_limit": 384, "shrunk_from": 640}
    snapshot = change(snapshot, vm1=shrunk, vm2=shrunk)
    assert problems(snapshot, Grow(instance_id=1, memory=640)) == ()
    assert problems(snapshot, Grow(instance_id=1, memory=500), Grow(instance_id=2, memory=500)) == ()
    assert problems(snapshot, Grow(instance_id=1, memory=640), Grow(instance_id=2, memory=640)) == (
        "the memory of instance 2 becomes 640 MB, and h1 is 256 MB short of memory",
    )
    for memory in (384, 100, 641):
        assert problems(snapshot, Grow(instance_id=1, memory=memory)) == (
            f"the memory of instance 1 becomes {memory} MB, which is not what it had before it was shrunk",
        )
    assert len(problems(change(snapshot, vm1={"shrunk_from": None}), Grow(instance_id=1, memory=640))) == 1
    refused = change(snapshot, vm1={"memory_limit": 640})
    assert problems(refused, Grow(instance_id=1, memory=640)) == ()


def test_switching_off() -> None:
    """A host is switched off when it has been empty for long and enough others serve."""
    snapshot = a_snapshot("h1 8c 16G | vm1", "h2 8c 16G", "h3 8c 16G", waiting="vm2", guaranteed_servers=1, power_off_delay=100.0)
    snapshot = msgspec.structs.replace(snapshot, time=1000.0, empty_since={2: 900.0, 3: 950.0})
    off = PowerOff(host_id=2)
    assert problems(snapshot, off) == ()
    assert problems(snapshot, PowerOff(host_id=1)) == ("h1 is switched off, and is in use",)
    assert problems(snapshot, to(3), PowerOff(host_id=1)) == ("h1 is switched off, and is in use",)
    assert problems(snapshot, to(2), off) == ("h2 is switched off, and is in use",)
    assert problems(snapshot, Place(instance_id=2, host_id=2), off) == ("h2 is switched off, and is in use",)
    assert problems(snapshot, off, to(2)) == ("instance 1 is moved to h2, which is switched",)
    assert problems(snapshot, off, Place(instance_id=2, host_id=2)) == ("instance 2 is sent to h2, which is switched",)
    assert problems(snapshot, PowerOff(host_id=3)) == ("h3 is switched off, and has not been empty for 100 s",)
    full = a_snapshot("h1 8c 4G | vm1 4c 4G", "h2 8c 4G | vm2 4c 4G", "h3 8c 4G", guaranteed_servers=1, power_off_delay=100.0)
    full = msgspec.structs.replace(full, time=1000.0, empty_since={3: 0.0})
    assert problems(full, to(3), to(1, 2), to(2)) == ()
    assert problems(full, to(3), to(1, 2), to(2), PowerOff(host_id=3)) == ("h3 is switched off, and is in use",)
    more = msgspec.structs.replace(snapshot, settings=msgspec.structs.replace(snapshot.settings, guaranteed_servers=3))
    assert problems(more, off) == ("h2 is switched off, and 3 hosts are to stay on",)
    down = change(snapshot, h2={"up": False})
    assert problems(down, off) == ("h2 is switched off, and is not up and in service",)
    coming = change(snapshot, vm1={"migration": Migration(target=2), "state": InstanceState.MigratePrep})
    assert problems(coming, off) == ("h2 is switched off, and is in use",)
    left = change(snapshot, vm1={"residue": (Residue(host_id=2, generation=1),)})
    assert problems(left, off) == ("h2 is switched off, and is in use",)


def test_switching_on() -> None:
    """Only what is off is switched on, and it takes nothing in the same plan."""
    snapshot = a_snapshot("h1 8c 16G", "h2 8c 16G", waiting="vm1")
    snapshot = change(snapshot, h2={"state": HostState.PoweredOff, "up": False})
    assert problems(snapshot, PowerOn(host_id=2)) == ()
    assert problems(snapshot, PowerOn(host_id=1)) == ("h1 is switched on, and is not off",)
    assert problems(snapshot, PowerOn(host_id=2), Place(instance_id=1, host_id=2))[0].startswith("instance 1 is sent to h2, which is")
    assert problems(snapshot, PowerOn(host_id=9)) == ("host 9 is switched, and there is none, or it is named twice",)


def test_a_bad_step_is_not_taken() -> None:
    """What is wrong with a later step is told as if the bad ones were not there."""
    snapshot = a_snapshot("h1 4c 4G | vm1 4c", "h2 2c 4G", waiting="vm2 4c")
    assert problems(snapshot, to(2), Place(instance_id=2, host_id=1)) == (
        "instance 1 is moved to h2, which has 2 cores, and the instance asks for 4",
        "instance 2 is sent to h1, which 4 cores short",
    )


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(2, 6))
def test_a_plan_that_was_spoiled_is_found_out(seed: int, count: int) -> None:
    """Of a plan in which every step needs the one before it, none can be left out, repeated, put first, or sent to a full host."""
    chance = Random(seed)
    snapshot = a_snapshot(*["h 4c 4G | a 4c"] * count, "h 4c 4G", "h 4c 4G | a 4c")
    order = chance.sample(range(1, count + 1), count)
    wanted = dict(zip(order, (*order[1:], count + 1), strict=True))
    steps = [to(host, number) for number, host in in_order(snapshot, wanted).moves]
    assert len(steps) == count
    assert problems(snapshot, *steps) == ()
    place = chance.randrange(count)
    if place < count - 1:
        assert problems(snapshot, *steps[:place], *steps[place + 1 :])
    assert problems(snapshot, *steps, steps[place])
    assert problems(snapshot, *steps[:place], steps[place], *steps[place:])
    if place:
        assert problems(snapshot, steps[place], *steps[:place], *steps[place + 1 :])
    full = msgspec.structs.replace(steps[place], host_id=count + 2)
    assert problems(snapshot, *steps[:place], full, *steps[place + 1 :])
    other = (place + chance.randrange(1, count)) % count
    swapped = list(steps)
    swapped[place], swapped[other] = (
        msgspec.structs.replace(steps[place], host_id=steps[other].host_id),
        msgspec.structs.replace(steps[other], host_id=steps[place].host_id),
    )
    assert problems(snapshot, *swapped)


def test_contradictions_elsewhere_are_no_matter() -> None:
    """What is wrong on a host that the plan does not name is not the plan's fault."""
    snapshot = a_snapshot("h1 1c 1G | vm1 4c 4G", "h2 8c 16G", waiting="vm2")
    assert problems(snapshot, Place(instance_id=2, host_id=2)) == ()
    assert problems(snapshot, to(2)) == ()
    assert len(problems(snapshot, Place(instance_id=2, host_id=1))) == 1


def test_an_instance_takes_room_where_it_goes_to() -> None:
    """Those on their way to a host, or not cleared from it yet, take room on it."""
    snapshot = a_snapshot("h1 8c 16G | vm1 4c", "h2 4c 4G", waiting="vm2 2c")
    moving = change(snapshot, vm1={"migration": Migration(target=2), "state": InstanceState.MigratePrep})
    left = change(snapshot, vm1={"residue": (Residue(host_id=2, generation=1),)})
    assert problems(snapshot, Place(instance_id=2, host_id=2)) == ()
    for taken in (moving, left):
        assert problems(taken, Place(instance_id=2, host_id=2)) == ("instance 2 is sent to h2, which 2 cores short",)


def test_a_plan_for_another_moment() -> None:
    """A plan for another moment names instances that are gone, and says so one by one."""
    assert problems(a_snapshot("h1 8c 16G"), to(1, 5), Shrink(instance_id=6, memory=64), Place(instance_id=7, host_id=1)) == (
        "instance 5 is on no host, or is named twice",
        "instance 6 is on no host, or is named twice",
        "instance 7 does not wait for a place, or is named twice",
    )


@settings(max_examples=60)
@given(snapshots(), st.integers(0, 2**32))
def test_any_plan_that_was_spoiled_is_found_out(snapshot: Snapshot, seed: int) -> None:
    """Of whatever plan of whatever policy: no step may be repeated, nor lead to a host that there is not, is down, or takes nothing."""
    chance = Random(seed)
    emptied = {number: {"state": HostState.Drained, "draining": True} for number in snapshot.hosts if chance.random() < 0.3}
    snapshot = change(snapshot, **{host.name: emptied.get(number, {}) for number, host in snapshot.hosts.items()})
    for policy in POLICIES.values():
        plan = policy(snapshot)
        assert check(plan, snapshot) == ()
        for place, action in enumerate(plan.actions):
            later = chance.randint(place + 1, len(plan.actions))
            repeated = (*plan.actions[:later], action, *plan.actions[later:])
            assert problems(snapshot, *repeated)
            if isinstance(action, Place | Migrate):
                for wrong in (99, *(number for number, host in snapshot.hosts.items() if not is_ready(host))):
                    elsewhere = msgspec.structs.replace(action, host_id=wrong)
                    assert problems(snapshot, *plan.actions[:place], elsewhere, *plan.actions[place + 1 :])
