"""Snapshots that contradict themselves: what is said of them, and that they can be planned on."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.clusters import cluster
from tashi.model.instance import Disk, Instance
from tashi.model.states import InstanceState
from tashi.scheduling.check import check
from tashi.scheduling.load import Load, load_of
from tashi.scheduling.plan import Postpone
from tashi.scheduling.policies import POLICIES
from tashi.scheduling.room import rooms_of
from tashi.scheduling.snapshot import Snapshot
from tashi.scheduling.survey import survey
from tashi.scheduling.terms import can_move
from tests.builders import a_host, a_snapshot, an_instance, some_facts
from tests.strategies import snapshots

DISK = Disk(uri="disk-1-a-0.img", persistent=True)


def _changed(snapshot: Snapshot, *placed: Instance, **fields: Any) -> Snapshot:
    """With these on h1 in place of what was there, if any are named."""
    groups = {**snapshot.placed, 1: placed} if placed else snapshot.placed
    return msgspec.structs.replace(snapshot, **{"placed": groups, **fields})


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(0, 40), st.integers(0, 5))
def test_a_sound_one_is_left_alone(seed: int, hosts: int, instances: int, pending: int) -> None:
    """Of a sound snapshot nothing is said, and it stays the same."""
    snapshot = cluster(seed, hosts, instances, pending=pending, cores=400, memory=700_000)
    assert survey(snapshot) == (snapshot, ())
    assert survey(snapshot)[0] is snapshot


def _two() -> Snapshot:
    return a_snapshot("h1 8c 4G | vm1 1c 1G", "h2 8c 4G | vm2 1c 1G", waiting="vm3 1c 1G")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"hosts": {1: a_host(1), 2: a_host(7, "h2")}}, "h2 stands under the id 2, and says that it is 7; it is taken for 2"),
        ({"hosts": {1: a_host(1), 2: a_host(2, facts=None)}}, "h2 is up, and nobody knows what it offers; it takes nothing"),
        (
            {"hosts": {1: a_host(1), 2: a_host(2, facts=some_facts(memory=-1))}},
            "h2 offers -1 MB and 8 cores of 2000 MHz; it takes nothing; "
            "h2 is over-full by 1024 MB of memory, 1 cores; it takes nothing more",
        ),
        ({"hosts": {2: a_host(2)}}, "instance vm1 (1) is on host 1, which there is not; it is left alone"),
        (
            {"hosts": {1: a_host(1), 2: a_host(2, memory=1000)}},
            "h2 is over-full by 24 MB of memory; it takes nothing more",
        ),
        ({"pending": (an_instance(2),)}, "instance vm2 (2) is on a host and waits for one; it stays where it is"),
        ({"pending": (an_instance(3), an_instance(3))}, "instance vm3 (3) waits twice; it is placed once"),
        ({"pending": (an_instance(3, memory=0),)}, "instance vm3 (3) has 0 MB of memory; it is not placed"),
        (
            {"pending": (an_instance(3, state=InstanceState.Running),)},
            "instance vm3 (3) waits for a host and is Running; it is not placed",
        ),
        (
            {"pending": (an_instance(3, host_id=2, state=InstanceState.Pending),)},
            "instance vm3 (3) waits for a host, and says that its host is 2",
        ),
        (
            {"loads": {2: Load(memory=1024, cores=2, count=1, users={1000: 1})}},
            "h2 is said to have 1024 MB and 2 cores by 1 instances taken, and 1024 MB and 1 cores by 1 instances are; the latter counts",
        ),
    ],
)
def test_what_is_said(fields: dict[str, Any], words: str) -> None:
    """Each contradiction is said in words, and only those."""
    assert "; ".join(survey(_changed(_two(), **fields))[1]) == words


@pytest.mark.parametrize(
    ("instance", "words"),
    [
        (an_instance(2, host_id=1), "instance vm2 (2) is on h1, h2; it takes room on each and is left alone"),
        (an_instance(1, host_id=2), "instance vm1 (1) is on h1, h2; it takes room on each and is left alone"),
        (an_instance(1, host_id=9), "instance vm1 (1) is on h1, and says that its host is 9"),
        (an_instance(1, host_id=1, state=InstanceState.Suspended), "instance vm1 (1) is Suspended and on h1; it is left alone"),
        (an_instance(1, host_id=1, cores=-1), "instance vm1 (1) has -1 cores; it counts as the least that can be"),
        (an_instance(1, host_id=1, memory=-5), "instance vm1 (1) has -5 MB of memory; it counts as the least that can be"),
        (
            an_instance(1, host_id=1, memory_limit=129),
            "instance vm1 (1) has 128 MB of memory and a limit of 129 MB; it counts as the least that can be",
        ),
    ],
)
def test_what_is_said_of_an_instance(instance: Instance, words: str) -> None:
    """An instance on h1 that cannot be as it says is told of, too."""
    assert survey(_changed(_two(), instance))[1] == (words,)


def test_on_two_hosts_at_once() -> None:
    """One that is on two hosts takes room on both, and stays; the same one twice on a host counts once."""
    twice = _changed(_two(), an_instance(2, host_id=2, memory=1024))
    sound, _ = survey(twice)
    assert [(room.load.memory, room.load.count) for room in rooms_of(sound).values()] == [(1024, 1), (1024, 1)]
    assert [can_move(one) for group in sound.placed.values() for one in group] == [False]
    same, words = survey(_changed(_two(), an_instance(1, host_id=1), an_instance(1, host_id=1)))
    assert (len(same.placed[1]), words) == (1, ("instance vm1 (1) is 2 times on h1; it counts once",))


def test_disks() -> None:
    """Two that use the same persistent disk are told of; the disk of one whose host is unknown is still its own."""
    both = _changed(_two(), an_instance(1, host_id=1, disks=(DISK,)), an_instance(4, host_id=1, disks=(DISK,)))
    words = "instance vm1 (1) and instance vm4 (4) use the same persistent disk disk-1-a-0.img; neither is touched"
    assert survey(both)[1] == (words,)
    lost = _changed(_two(), an_instance(1, host_id=1, disks=(DISK,)), hosts={2: a_host(2)}, pending=(an_instance(3, disks=(DISK,)),))
    (action,) = POLICIES["Primitive"](survey(lost)[0]).actions
    assert isinstance(action, Postpone)
    assert action.refusals[0].reason == "the persistent disk disk-1-a-0.img is in use by another instance"


def _mutilate(snapshot: Snapshot, chance: Random) -> Snapshot:
    """The same with something in it that cannot be."""
    hosts, placed, pending, loads = dict(snapshot.hosts), dict(snapshot.placed), list(snapshot.pending), dict(snapshot.loads)
    everybody = [one for group in placed.values() for one in group] + pending
    one = chance.choice(everybody) if everybody else an_instance(1)
    wrong = {name: chance.choice([-(2**40), -1, 0, 1, 300]) for name in chance.sample(["memory", "cores", "cpu_speed", "memory_limit"], 2)}
    host_id = chance.choice([*hosts, 77])
    host = hosts.get(host_id, a_host(77))
    match chance.randrange(9):
        case 0:
            placed[77] = (*placed.get(77, ()), one)
        case 1:
            placed[host_id] = (*placed.get(host_id, ()), one)
        case 2:
            pending.append(one)
        case 3:
            placed[host_id] = (*placed.get(host_id, ()), msgspec.structs.replace(one, **wrong))
        case 4:
            pending.append(msgspec.structs.replace(one, id=500 + chance.randrange(3), **wrong))
        case 5:
            hosts[host_id] = msgspec.structs.replace(host, facts=some_facts(cores=chance.randint(-1, 2), memory=chance.randint(-9, 9)))
        case 6:
            hosts[host_id] = msgspec.structs.replace(host, id=78)
        case 7:
            loads[host_id] = load_of(chance.sample(everybody, min(2, len(everybody))))
        case _:
            hosts.pop(host_id, None)
    return msgspec.structs.replace(snapshot, hosts=hosts, placed=placed, pending=tuple(pending), loads=loads)


@settings(max_examples=200, deadline=None)
@given(snapshots(), st.integers(0, 2**32), st.integers(1, 4), st.booleans())
def test_anything_can_be_planned_on(snapshot: Snapshot, seed: int, times: int, powering: bool) -> None:
    """Whatever is wrong with a snapshot, what the survey makes of it can be planned on; surveyed again it is the same."""
    chance = Random(seed)
    for _ in range(times):
        snapshot = _mutilate(snapshot, chance)
    options = msgspec.structs.replace(snapshot.settings, auto_powering=powering, guaranteed_servers=1)
    snapshot = msgspec.structs.replace(snapshot, settings=options, priorities={1001: 5})
    sound, _ = survey(snapshot)
    assert survey(sound)[0] == sound
    for policy in POLICIES.values():
        for rebalance in (False, True):
            all_of_it = msgspec.structs.replace(sound, rebalance=rebalance)
            assert check(policy(all_of_it), all_of_it) == ()
