"""Balanced moves instances to where the loads are more even, and only while that pays."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tashi.model.instance import Nic
from tashi.model.states import HostState
from tashi.scheduling.check import check
from tashi.scheduling.fleet import Fleet
from tashi.scheduling.load import HostUsage
from tashi.scheduling.moving import balancing
from tashi.scheduling.moving.balancing import imbalance, rebalance
from tashi.scheduling.moving.moves import Moves
from tashi.scheduling.plan import Plan
from tashi.scheduling.snapshot import SchedulingSettings, Snapshot
from tests.builders import a_host, a_snapshot, an_instance, some_facts
from tests.strategies import snapshots

EXPRESSIONS = (
    "memUsage + coresUsage * 512 + cpuUsage",
    "memUsage",
    "memUsage * (coresUsage + 1)",
    "max(memUsage / 1024, coresUsage) - cpuUsage / 9000",
)


def moves_of(snapshot: Snapshot) -> Moves:
    """The moves, which pass the check."""
    found = rebalance(Fleet(snapshot))
    assert check(Plan(actions=found.moves), snapshot) == ()
    return found


def where(found: Moves) -> list[tuple[int, int]]:
    return [(move.instance_id, move.host_id) for move in found.moves]


def varied(snapshot: Snapshot, seed: int) -> Snapshot:
    """The same with usage, an expression and settings drawn from a seed."""
    chance = Random(seed)
    drawn = SchedulingSettings(
        load_expression=chance.choice(EXPRESSIONS), min_gain=chance.choice([0.0, 0.1, 0.5]), cpu_cores_over_rate=chance.choice([1.0, 4.0])
    )
    usage = {host_id: HostUsage(instances={one.id: chance.randint(0, 4000) for one in group}) for host_id, group in snapshot.placed.items()}
    return msgspec.structs.replace(snapshot, settings=drawn, usage=usage, time=10.0)


@given(snapshots(most_hosts=5, most_instances=14), st.integers(0, 99))
@settings(max_examples=60)
def test_it_never_worsens_anything(snapshot: Snapshot, seed: int) -> None:
    """Whatever the cluster: the plan is sound, the imbalance falls by min_gain at least, and the fleet is what is promised."""
    snapshot = varied(snapshot, seed)
    before = imbalance(Fleet(snapshot))
    fleet = Fleet(snapshot)
    found = rebalance(fleet)
    assert check(Plan(actions=found.moves), snapshot) == ()
    assert rebalance(Fleet(snapshot)) == found
    assert found.before.imbalance == before
    assert imbalance(fleet) == pytest.approx(found.after.imbalance, abs=1e-12)
    if found.moves:
        assert found.after.imbalance <= before * (1 - snapshot.settings.min_gain) and found.after.imbalance < before
    else:
        assert found.after == found.before
        assert (fleet.count == Fleet(snapshot).count).all()


@given(st.integers(0, 9999))
@settings(max_examples=15, deadline=None)
def test_larger_clusters_are_looked_at_in_classes(seed: int) -> None:
    """Where not every pair is looked at, plans are as sound, and leave at most a little more imbalance."""
    chance = Random(seed)
    hosts = [f"h{number} 32c 64G | " + ", ".join(f"v {chance.randint(1, 4)}c {chance.randint(1, 6)}G" for _ in range(chance.randint(0, 7)))
             for number in range(12)]  # fmt: skip
    snapshot = varied(a_snapshot(*hosts), seed)
    exact = moves_of(snapshot).after.imbalance
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(balancing, "EXACT", 0)
        patched.setattr(balancing, "AT_ONCE", 4)
        found = moves_of(snapshot)
    assert found.after.imbalance <= exact + 0.1 * found.before.imbalance


def test_the_fullest_host_gives_to_the_emptiest() -> None:
    """Two of four go, one by one, and each says what it wins."""
    found = moves_of(a_snapshot("a 8c 8G | v 1c 1G, v 1c 1G, v 1c 1G, v 1c 1G", "b 8c 8G", load_expression="memUsage"))
    assert where(found) == [(1, 2), (2, 2)]
    assert [move.why for move in found.moves] == [
        "Balanced: imbalance 0.25 -> 0.125; a's load 0.5 -> 0.375, b's 0 -> 0.125",
        "Balanced: imbalance 0.125 -> 0; a's load 0.375 -> 0.25, b's 0.125 -> 0.25",
    ]
    assert (found.before.imbalance, found.after.imbalance, found.after.hosts_in_use) == (0.25, 0, 2)


def test_a_sum_does_not_hide_what_is_full() -> None:
    """A host full of memory beside one full of cores is not even, though both have the same load."""
    cluster = ("a 64c 64G | " + ", ".join(["v 1c 8G"] * 4), "b 64c 64G | " + ", ".join(["v 8c 1G"] * 4))
    found = moves_of(a_snapshot(*cluster, load_expression="memUsage / 1024 + coresUsage"))
    assert found.after.imbalance < 0.2 * found.before.imbalance
    assert where(moves_of(a_snapshot(*cluster, load_expression="(memUsage / 1024 + coresUsage) * 1"))) == []


def test_hosts_are_loaded_in_proportion() -> None:
    """A host that is twice as large gets twice as much."""
    found = moves_of(a_snapshot("a 8c 8G | " + ", ".join(["v 1c 1G"] * 6), "b 16c 16G", load_expression="memUsage"))
    assert len(found.moves) == 4 and found.after.imbalance == 0


@pytest.mark.parametrize(("min_gain", "count"), [(0.0, 2), (0.1, 1), (0.4, 1), (0.9, 0)])
def test_it_moves_only_what_pays(min_gain: float, count: int) -> None:
    """A plan that wins less than min_gain is none, and a move that wins next to nothing is not made."""
    crowded = a_snapshot(
        "a 8c 8G | v 1c 2G, v 1c 40M, w 1c 1G", "b 8c 8G | w 1c 1G", "c 8c 8G | w 1c 1G", load_expression="memUsage", min_gain=min_gain
    )
    assert len(moves_of(crowded).moves) == count


def test_measured_usage_counts() -> None:
    """Instances of one size are told apart by what they use."""
    snapshot = a_snapshot("a 8c 8G | v 1c 1G, v 1c 1G, v 1c 1G", "b 8c 8G | v 1c 1G", load_expression="cpuUsage")
    snapshot = msgspec.structs.replace(snapshot, usage={1: HostUsage(instances={1: 100, 2: 900, 3: 1000}), 2: HostUsage(instances={4: 0})})
    assert where(moves_of(snapshot)) == [(3, 2)]


STAYS: dict[str, dict[str, Any]] = {
    "it has moved lately": {"moved_at": 50.0},
    "it is paused": {"state": 5},
    "it is bound to its host": {"hints": {"targetHost": "h1"}},
    "it is bound to a place": {"hints": {"location": "ie"}},
    "it has failed to start there": {"refused_by": (2,)},
}


@pytest.mark.parametrize("why", STAYS)
def test_what_must_not_move_stays(why: str) -> None:
    """The others go in its stead, even if they win less."""
    fields = STAYS[why]
    hosts = {1: a_host(1, config={"location": "ie"}), 2: a_host(2)}
    group = (an_instance(1, host_id=1, memory=4096, **fields), an_instance(2, host_id=1, memory=3000))
    snapshot = Snapshot(hosts=hosts, placed={1: group}, pending=(), settings=SchedulingSettings(load_expression="memUsage"), time=60.0)
    assert where(moves_of(snapshot)) == [(2, 2)]


@pytest.mark.parametrize(
    "other",
    [
        {"up": False}, {"decayed": True}, {"state": HostState.Drained}, {"state": HostState.PoweredOff}, {"facts": None},
        {"facts": some_facts(hypervisor="xen")}, {"facts": some_facts(memory=512)}, {"facts": some_facts(networks=())}, {"reserved": (7,)},
    ],
)  # fmt: skip
def test_what_takes_no_instance_gets_none(other: dict[str, Any]) -> None:
    """Nothing goes to a host that is not in service, is of another kind, too small, or for others."""
    hosts = {1: a_host(1), 2: a_host(2, **other)}
    group = tuple(an_instance(number, host_id=1, memory=1024, nics=(Nic(),)) for number in (1, 2))
    snapshot = Snapshot(hosts=hosts, placed={1: group}, pending=(), settings=SchedulingSettings(load_expression="memUsage"))
    assert moves_of(snapshot).moves == ()


def test_isolation_is_kept() -> None:
    """Where the emptiest host is closed to others, the next one is taken."""
    alone = an_instance(9, host_id=2, user_id=1001, memory=1, hints={"isolation": "True"})
    group = tuple(an_instance(number, host_id=1, memory=1024) for number in (1, 2, 3))
    beside = (an_instance(8, host_id=3, memory=512),)
    hosts = {number: a_host(number) for number in (1, 2, 3)}
    snapshot = Snapshot(
        hosts=hosts, placed={1: group, 2: (alone,), 3: beside}, pending=(), settings=SchedulingSettings(load_expression="memUsage")
    )
    assert where(moves_of(snapshot)) == [(1, 3)]


def test_a_plan_that_does_not_pay_leaves_the_fleet_as_it_was() -> None:
    """What was tried is taken back."""
    fleet = Fleet(a_snapshot("a 8c 8G | v 1c 5G, v 1c 1G", "b 8c 8G | v 1c 1G", load_expression="memUsage", min_gain=0.99))
    assert rebalance(fleet).moves == ()
    assert fleet.count.tolist() == [2, 1]


def test_nothing_is_even() -> None:
    """No hosts, one host, empty hosts: imbalance 0 and no moves."""
    for cluster in ([], ["a 8c 8G | v 1c"], ["a 8c 8G", "b 4c 4G"]):
        found = moves_of(a_snapshot(*cluster))
        assert (found.moves, found.before.imbalance) == ((), 0)
