"""Where each policy puts what waits, and that the columns find what a walk through all hosts would."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings

from tashi.model.host import Host
from tashi.model.instance import Instance, Migration
from tashi.scheduling.check import check
from tashi.scheduling.filters import FOR_A_MOVE, NOW, objection
from tashi.scheduling.fleet import Fleet
from tashi.scheduling.load import HostUsage, demand, load_of
from tashi.scheduling.placing.choosing import place
from tashi.scheduling.placing.expression import parse
from tashi.scheduling.plan import Place, Plan, Postpone, Refusal
from tashi.scheduling.policies import POLICIES, RULES
from tashi.scheduling.room import Room, Rooms, rooms_of
from tashi.scheduling.snapshot import Snapshot
from tashi.scheduling.terms import is_true
from tests.builders import a_snapshot
from tests.strategies import snapshots


def _placed(policy: str, snapshot: Snapshot) -> dict[str, str | None]:
    """Which instance goes to which host, by name."""
    names = {instance.id: instance.name for instance in snapshot.pending}
    made = POLICIES[policy](snapshot)
    assert check(made, snapshot) == ()
    return {
        names[action.instance_id]: snapshot.hosts[action.host_id].name if isinstance(action, Place) else None
        for action in made.actions
        if isinstance(action, Place | Postpone)
    }


def test_balanced_takes_the_host_whose_load_is_least_afterwards() -> None:
    """What counts is the share that is used with the instance there, so a big host takes more."""
    snapshot = a_snapshot("h1 8c 16G | vm1 4c 8G", "h2 4c 8G | vm2 1c 2G", "h3 16c 32G | vm3 4c 8G", waiting="a 2c 4G")
    assert _placed("Balanced", snapshot) == {"a": "h3"}
    (action,) = POLICIES["Balanced"](snapshot).actions
    assert isinstance(action, Place)
    assert action.why == "Balanced: load 0.21 after placing, best of 3 hosts that fit"


def test_the_load_expression_decides_what_counts() -> None:
    """With memory alone in it, cores do not matter."""
    hosts = ("h1 8c 16G | vm1 6c 1G", "h2 8c 16G | vm2 1c 8G")
    assert _placed("Balanced", a_snapshot(*hosts, waiting="a", load_expression="memUsage")) == {"a": "h1"}
    assert _placed("Balanced", a_snapshot(*hosts, waiting="a", load_expression="coresUsage")) == {"a": "h2"}


def test_measured_speed_counts_as_load() -> None:
    """A host whose instance works hard is avoided, though the other holds more."""
    snapshot = a_snapshot("h1 8c 16G | vm1", "h2 8c 16G | vm2, vm3", waiting="a", load_expression="coresUsage + cpuUsage")
    assert _placed("Balanced", snapshot) == {"a": "h1"}
    assert _placed("Balanced", msgspec.structs.replace(snapshot, usage={1: HostUsage(instances={1: 1900})})) == {"a": "h2"}


def test_consolidated_fills_the_fullest_and_opens_no_host_without_need() -> None:
    """An instance goes where least is left over; an empty host is opened when no other has room."""
    snapshot = a_snapshot("h1 8c 16G | vm1 2c 4G", "h2 8c 16G", "h3 8c 16G | vm2 5c 10G", waiting="a 3c 6G, b 2c 4G, c 8c 16G")
    assert _placed("Consolidated", snapshot) == {"c": "h2", "a": "h3", "b": "h1"}


def test_consolidated_takes_the_big_ones_first_among_equals() -> None:
    """Priority goes before size, size before age."""
    snapshot = a_snapshot("h1 4c 16G", waiting="a 1c 1G, b 3c 4G, c 2c 1G")
    assert list(_placed("Consolidated", snapshot)) == ["b", "c", "a"]
    urgent = msgspec.structs.replace(snapshot.pending[0], user_id=1001)
    ranked = msgspec.structs.replace(snapshot, pending=(urgent, *snapshot.pending[1:]), priorities={1001: 5})
    assert list(_placed("Consolidated", ranked)) == ["a", "b", "c"]


@pytest.mark.parametrize("policy", ["Primitive", "Balanced"])
def test_better_rated_hosts_serve_the_important(policy: str) -> None:
    """Of hosts that are equally good the important take the best-rated, the others the worst-rated."""
    snapshot = a_snapshot("h1 8c 16G", "h2 8c 16G", "h3 8c 16G", waiting="a, b")
    important, other = snapshot.pending[0], msgspec.structs.replace(snapshot.pending[1], user_id=1001)
    rated = msgspec.structs.replace(snapshot, pending=(important, other), priorities={1000: 10}, ratings={1: 5, 2: 9, 3: 1})
    assert _placed(policy, rated) == {"a": "h2", "b": "h3"}


def test_equal_needs_share_their_refusals() -> None:
    """What many wait for alike is worked out once."""
    made = POLICIES["Balanced"](a_snapshot("h1 1c 1G", "h2 1c 2G", waiting="a 2c 4G, b 2c 4G, c 2c 3G")).actions
    first, second, third = (action.refusals for action in made if isinstance(action, Postpone))
    assert first is second
    assert [str(one) for one in first] == ["h1: 3072 MB short of memory", "h2: 2048 MB short of memory"]
    assert [str(one) for one in third] == ["h1: 2048 MB short of memory", "h2: 1024 MB short of memory"]


def _naive(policy: str, snapshot: Snapshot) -> list[tuple[int, int | None]]:
    """The same by asking every host of every instance, with scores of its own."""
    fleet, rooms, cursor = Fleet(snapshot), rooms_of(snapshot), snapshot.cursor
    kinds = [one for group in (snapshot.pending, *snapshot.placed.values()) for one in group]
    ranks = [snapshot.priority(one) for one in kinds]
    made: list[tuple[int, int | None]] = []
    for instance in RULES[policy](snapshot.settings).order(fleet):
        wanted = {disk.uri for disk in instance.disks if disk.uri.startswith("disk-")}
        used = {uri for room in rooms.values() for uri in room.load.disks} | set(snapshot.kept_disks)
        fits = [] if wanted & used else [room for host_id, room in sorted(rooms.items()) if objection(instance, room, NOW) is None]
        if not fits:
            made.append((instance.id, None))
            continue
        target = instance.hints.get("targetHost")
        aimed = [room for room in fits if target in (room.host.name, str(room.host.id))]
        group = instance.hints.get("group")
        if group:
            met = [sum(one.hints.get("group") == group for one in room.residents) for room in fits]
            fits = [room for room, count in zip(fits, met, strict=True) if count == min(met)]
        scores = [_score(policy, snapshot, room, instance) for room in fits]
        fits = [room for room, score in zip(fits, scores, strict=True) if score == min(scores)]
        rating = {room.host.id: snapshot.ratings.get(room.host.id, 0) for room in fits}
        best = max(rating.values()) if snapshot.priority(instance) >= (min(ranks) + max(ranks)) / 2 else min(rating.values())
        fits = [room for room in fits if rating[room.host.id] == best]
        later = [room for room in fits if room.host.id > cursor] if policy == "Primitive" else []
        chosen = (aimed or later or fits)[0]
        chosen.add(instance)
        cursor = chosen.host.id
        made.append((instance.id, cursor))
    return made


def _score(policy: str, snapshot: Snapshot, room: Room, instance: Instance) -> float:
    memory, cores, speed = demand(instance)
    if policy == "Primitive":
        dense = instance.hints.get("densePack")
        return -room.load.count if (is_true(dense) if dense else snapshot.settings.dense_pack) else room.load.count
    if policy == "Consolidated":
        left = 1 - (room.load.memory + memory) / max(room.memory, 1)
        left += 1 - (room.load.cores + cores) / max(room.cores, 1)
        return left / 2 + (room.load.count == 0)
    usage = snapshot.usage.get(room.host.id, HostUsage())
    busy = sum(max(usage.instances.get(one.id, 0), one.cores * (one.cpu_speed or 0)) for one in room.residents)
    expression = parse(snapshot.settings.load_expression)
    whole = expression.value(room.memory, room.cores, room.speed)
    return float(expression.value(room.load.memory + memory, room.load.cores + cores, busy + speed) / (whole or 1))


@settings(max_examples=80)
@given(snapshots())
def test_columns_find_what_a_walk_finds(snapshot: Snapshot) -> None:
    """Every policy decides as if it asked every host of every instance and compared all scores."""
    for policy in POLICIES:
        actions = POLICIES[policy](snapshot).actions
        assert [(one.instance_id, one.host_id if isinstance(one, Place) else None) for one in actions] == _naive(policy, snapshot)


@settings(max_examples=60)
@given(snapshots())
def test_the_columns_agree_with_the_filters(snapshot: Snapshot) -> None:
    """What fits by the columns is what the filters say, of what waits and of what might move, before and after changes."""
    fleet = Fleet(snapshot)
    for _ in range(2):
        for instance in snapshot.pending:
            answers = [fleet.objection(instance, at) is None for at in range(len(fleet.hosts))]
            assert fleet.fitting(instance).tolist() == answers
        for host_id, group in snapshot.placed.items():
            for instance in group:
                here = fleet.place_of[host_id]
                answers = [fleet.objection(instance, at, FOR_A_MOVE) is None for at in range(len(fleet.hosts)) if at != here]
                assert [fits for at, fits in enumerate(fleet.fitting(instance, FOR_A_MOVE).tolist()) if at != here] == answers
        place(fleet, RULES["Balanced"](snapshot.settings))


@settings(max_examples=60)
@given(snapshots(), snapshots())
def test_an_earlier_fleet_changes_nothing(snapshot: Snapshot, other: Snapshot) -> None:
    """A pass that begins with what an earlier one worked out decides like one that begins afresh."""
    rule = RULES["Balanced"](snapshot.settings)
    earlier = Fleet(other)
    place(earlier, rule)
    afresh = place(Fleet(snapshot), rule)
    kept = Fleet(snapshot, earlier)
    assert place(kept, rule) == afresh
    later = msgspec.structs.replace(snapshot, loads={number: load_of(room.residents) for number, room in rooms_of(snapshot).items()})
    assert place(Fleet(later, kept), rule) == afresh


@settings(max_examples=60)
@given(snapshots())
def test_the_columns_stay_true(snapshot: Snapshot) -> None:
    """After a plan the columns say what the rooms say."""
    fleet = Fleet(snapshot)
    place(fleet, RULES["Consolidated"](snapshot.settings))
    rooms = [fleet.room(at) for at in range(len(fleet.hosts))]
    assert fleet.used_memory.tolist() == [room.load.memory for room in rooms]
    assert fleet.used_cores.tolist() == [room.load.cores for room in rooms]
    assert fleet.used_speed.tolist() == [room.load.speed for room in rooms]
    assert fleet.count.tolist() == [len(room.residents) for room in rooms]
    for room in rooms:
        assert room.load == load_of(room.residents)


def test_what_is_arriving_takes_room_where_it_goes() -> None:
    """One that moves is a guest of both hosts, whether the sums are known or not."""
    snapshot = a_snapshot("h1 8c 16G | vm1", "h2 8c 16G")
    moving = msgspec.structs.replace(snapshot.placed[1][0], migration=Migration(target=2))
    snapshot = msgspec.structs.replace(snapshot, placed={1: (moving,), 2: ()})
    assert [[one.id for one in Rooms(snapshot).guests(number)] for number in (1, 2)] == [[1], [1]]


def test_no_hosts_no_places() -> None:
    """A cell without hosts postpones everything, without a reason of any host."""
    for policy in POLICIES.values():
        assert policy(a_snapshot(waiting="a")) == Plan(actions=(Postpone(instance_id=1),))


def test_a_host_without_facts_is_not_divided_by() -> None:
    """A host that has not said what it offers is refused, not reckoned with."""
    unknown = Host(id=1, name="h1", up=True, decayed=False)
    snapshot = msgspec.structs.replace(a_snapshot(waiting="a"), hosts={1: unknown})
    for policy in POLICIES.values():
        assert policy(snapshot).actions == (Postpone(instance_id=1, refusals=(Refusal(host="h1", reason="128 MB short of memory"),)),)
