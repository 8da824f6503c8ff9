"""Wishes become moves of which each fits when its turn comes."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tashi.model.instance import Disk
from tashi.model.states import HostState, InstanceState
from tashi.scheduling.filters import FOR_A_MOVE, objection
from tashi.scheduling.moving.ordering import Ordered, in_order
from tashi.scheduling.room import rooms_of
from tashi.scheduling.snapshot import Snapshot
from tests.builders import a_snapshot, an_instance
from tests.strategies import snapshots


def _ordered(snapshot: Snapshot, **wanted: str) -> list[str]:
    """The moves for these wishes, by name: vm1="h2"."""
    hosts = {host.name: host.id for host in snapshot.hosts.values()}
    names = {one.name: one.id for group in snapshot.placed.values() for one in group}
    found = in_order(snapshot, {names[name]: hosts[host] for name, host in wanted.items()})
    called = {number: name for name, number in names.items()}
    assert_sound(snapshot, {names[name]: hosts[host] for name, host in wanted.items()}, found)
    return [f"{called[number]} to {snapshot.hosts[host].name}" for number, host in found.moves] + [
        f"{called[number]}: {why}" for number, why in found.refused.items()
    ]


def assert_sound(snapshot: Snapshot, wanted: Mapping[int, int], found: Ordered) -> None:
    """Every step fits when it is taken; each instance ends where it is wished, or stays and is refused."""
    rooms = rooms_of(snapshot)
    instances = {one.id: one for group in snapshot.placed.values() for one in group}
    at = {number: one.host_id or 0 for number, one in instances.items()}
    for number, target in found.moves:
        assert objection(instances[number], rooms[target], FOR_A_MOVE) is None
        assert target != at[number]
        rooms[at[number]].remove(instances[number])
        rooms[target].add(instances[number])
        at[number] = target
    for number, target in wanted.items():
        moves = [host for one, host in found.moves if one == number]
        if number in found.refused:
            assert moves == []
            assert found.refused[number]
        else:
            assert at[number] == target
            assert len(moves) <= 2
    assert {number for number, _ in found.moves} <= wanted.keys()


def test_wishes_come_first_who_are_wished_first() -> None:
    """Moves that need nothing of each other keep their order; one for where it is already is none."""
    assert _ordered(a_snapshot("h1 8c 16G | a, b, c", "h2 8c 16G", "h3 8c 16G"), c="h2", a="h3", b="h1") == ["c to h2", "a to h3"]


def test_room_is_made_before_it_is_used() -> None:
    """An instance waits until the one in its way has left."""
    assert _ordered(a_snapshot("h1 2c 8G | a 2c", "h2 2c 8G | b 2c", "h3 2c 8G"), a="h2", b="h3") == ["b to h3", "a to h2"]


def test_those_that_others_wait_for_go_first() -> None:
    """Room that one of a circle needs is not taken by somebody else before it has been there."""
    snapshot = a_snapshot("h1 4c 8G | a", "h2 4c 8G | b, x 2c", "h3 4c 8G | c, y 3c")
    assert _ordered(snapshot, a="h2", c="h2", b="h3") == ["c to h2", "b to h3", "a to h2"]


def test_a_circle_of_two() -> None:
    """Two that change places on full hosts do so over a third host; the smaller one goes round."""
    snapshot = a_snapshot("h1 8c 4G | a 1c 4G", "h2 8c 4G | b 1c 3G", "h3 8c 3G", "h4 8c 16G")
    assert _ordered(snapshot, a="h2", b="h1") == ["b to h4", "a to h2", "b to h1"]
    assert _ordered(snapshot, b="h1", a="h2") == ["b to h4", "a to h2", "b to h1"]


def test_a_circle_of_three() -> None:
    """One of three goes round, and the other two make room for each other."""
    snapshot = a_snapshot("h1 4c 8G | a 4c 2G", "h2 4c 8G | b 4c 1G", "h3 4c 8G | c 4c 3G", "h4 4c 8G")
    assert _ordered(snapshot, a="h2", b="h3", c="h1") == ["b to h4", "a to h2", "c to h1", "b to h3"]


def test_no_third_host() -> None:
    """Without a host for a stop-over those of a circle stay, and say for whom."""
    snapshot = a_snapshot("h1 8c 4G | a 1c 4G", "h2 8c 4G | b 1c 4G", "h3 8c 3G")
    words = "4096 MB short of memory, until others have left it, which cannot leave before it does, nor wait on a third host meanwhile"
    assert _ordered(snapshot, a="h2", b="h1") == [f"a: h2: {words}", f"b: h1: {words}"]


def test_the_smallest_that_finds_a_third_host() -> None:
    """When the smallest finds no third host, the next one goes round."""
    snapshot = a_snapshot("h1 8c 4G | a 1c 4G", "h2 8c 4G | b 6c 3G", "h3 4c 16G")
    assert _ordered(snapshot, a="h2", b="h1") == ["a to h3", "b to h1", "a to h2"]


def test_several_go_round() -> None:
    """Where no single one makes enough room, several wait elsewhere."""
    snapshot = a_snapshot("h1 8c 4G | big 1c 4G", "h2 8c 4G | a 1c 2G, b 1c 2G", "h3 8c 2G", "h4 8c 2G")
    assert _ordered(snapshot, big="h2", a="h1", b="h1") == ["a to h3", "b to h4", "big to h2", "a to h1", "b to h1"]


def test_nobody_is_left_at_a_stop_over() -> None:
    """A stop-over after which the instance could not go on is not made."""
    snapshot = a_snapshot("h1 8c 4G | a 1c 4G", "h2 8c 4G | b 1c 2G, c 1c 2G", "h3 8c 4G", "h4 8c 1G")
    assert _ordered(snapshot, a="h2", b="h1")[0].startswith("a: h2: 4096 MB short of memory")


def test_isolation_holds_at_every_step() -> None:
    """One that wants to be alone waits until those of other users have gone."""
    snapshot = a_snapshot("h1 8c 16G", "h2 8c 16G", "h3 8c 16G")
    alone = an_instance(1, "alone", host_id=1, hints={"isolation": "True"})
    other = an_instance(2, "other", host_id=2, user_id=1001)
    snapshot = msgspec.structs.replace(snapshot, placed={1: (alone,), 2: (other,), 3: ()})
    assert _ordered(snapshot, alone="h2", other="h1") == ["alone to h3", "other to h1", "alone to h2"]


def test_those_that_are_to_be_together() -> None:
    """One that has asked to be with another follows it, and one that is to be apart from another waits until that has gone."""
    snapshot = a_snapshot("h1 8c 16G | a", "h2 8c 16G | b", "h3 8c 16G")
    follows = msgspec.structs.replace(snapshot.placed[1][0], hints={"with": "b"})
    snapshot = msgspec.structs.replace(snapshot, placed={**snapshot.placed, 1: (follows,)})
    assert _ordered(snapshot, a="h3", b="h3") == ["b to h3", "a to h3"]
    shuns = msgspec.structs.replace(follows, hints={"apart": "b"})
    snapshot = msgspec.structs.replace(snapshot, placed={**snapshot.placed, 1: (shuns,)})
    assert _ordered(snapshot, a="h2", b="h3") == ["b to h3", "a to h2"]
    assert _ordered(snapshot, a="h2", b="h1") == ["b to h3", "a to h2", "b to h1"]
    assert _ordered(snapshot, a="h3", b="h3") == ["a to h3", "b: h3: holds a, for which apart=b is asked"]


def test_what_no_order_helps() -> None:
    """What a host is, or what an instance does, is said at once."""
    snapshot = a_snapshot("h1 8c 16G | a, b, c, d, e", "h2 8c 16G", "h3 8c 16G")
    hosts = dict(snapshot.hosts)
    hosts[2] = msgspec.structs.replace(hosts[2], state=HostState.Drained, draining=True)
    facts = hosts[3].facts
    assert facts is not None
    hosts[3] = msgspec.structs.replace(hosts[3], facts=msgspec.structs.replace(facts, hypervisor="xen"))
    group = list(snapshot.placed[1])
    group[1] = msgspec.structs.replace(group[1], state=InstanceState.Paused)
    snapshot = msgspec.structs.replace(snapshot, hosts=hosts, placed={1: tuple(group)})
    found = in_order(snapshot, {1: 2, 2: 3, 3: 3, 4: 9, 5: 1, 77: 1})
    assert found == Ordered(
        refused={
            1: "h2: is drained",
            2: "has something else to do",
            3: "h3 runs another hypervisor than h1",
            4: "there is no host 9",
            77: "is on no host",
        }
    )


def test_persistent_disks_move_along() -> None:
    """A persistent disk goes with its instance."""
    snapshot = a_snapshot("h1 8c 16G", "h2 8c 16G")
    mine = an_instance(1, "mine", host_id=1, disks=(Disk(uri="disk-1-a-0.img", persistent=True),))
    assert _ordered(msgspec.structs.replace(snapshot, placed={1: (mine,)}), mine="h2") == ["mine to h2"]


@settings(max_examples=150)
@given(snapshots(), st.integers(0, 2**32))
def test_any_wishes(snapshot: Snapshot, seed: int) -> None:
    """Whatever is wished of whatever cluster, every step fits, each is where it is wished or was, and the answer is always the same."""
    chance = Random(seed)
    running = {
        host: tuple(msgspec.structs.replace(one, state=InstanceState.Running) for one in group) for host, group in snapshot.placed.items()
    }
    snapshot = msgspec.structs.replace(snapshot, placed=running)
    everybody = [one.id for group in running.values() for one in group] + [99]
    wanted = {number: chance.choice([*snapshot.hosts, 99]) for number in everybody if chance.random() < 0.8}
    found = in_order(snapshot, wanted)
    assert_sound(snapshot, wanted, found)
    assert in_order(msgspec.json.decode(msgspec.json.encode(snapshot), type=Snapshot), wanted) == found


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(2, 7), st.integers(0, 3))
def test_full_hosts(seed: int, count: int, spare: int) -> None:
    """Any change of places on full hosts succeeds when there is an empty one, whatever the circles; without one what is refused stays."""
    chance = Random(seed)
    snapshot = a_snapshot(*["h 4c 4G | a 1c 2G, b 1c 2G"] * count, *["h 4c 4G"] * spare)
    places = [host for host in range(1, count + 1) for _ in range(2)]
    chance.shuffle(places)
    wanted = dict(enumerate(places, start=1))
    found = in_order(snapshot, wanted)
    assert_sound(snapshot, wanted, found)
    if spare:
        assert found.refused == {}


@pytest.mark.parametrize("count", [2, 3, 8])
def test_circles_of_any_length(count: int) -> None:
    """A circle needs one stop-over, however long it is."""
    snapshot = a_snapshot(*["h 4c 4G | a 4c 4G"] * count, "h 4c 4G")
    found = in_order(snapshot, {number: number % count + 1 for number in range(1, count + 1)})
    assert len(found.moves) == count + 1
    assert found.refused == {}
