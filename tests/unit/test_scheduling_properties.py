"""What holds of every plan, whatever the cluster, the policy and the hour: the promises of all schedulers in one place."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tashi.model.host import Host
from tashi.model.instance import Instance
from tashi.model.states import HostState, InstanceState
from tashi.scheduling.check import check
from tashi.scheduling.plan import Grow, Migrate, Place, Postpone, PowerOff, PowerOn, Shrink
from tashi.scheduling.policies import POLICIES
from tashi.scheduling.room import guests_of
from tashi.scheduling.snapshot import SchedulingSettings, Snapshot
from tests.builders import a_host, an_instance, some_facts
from tests.strategies import snapshots

NOW = 1_000_000.0
COOLDOWN = 3600.0


def _crowd(seed: int) -> Snapshot:
    """Hosts that are alike and nearly full, and more that wait than there is room for."""
    chance = Random(seed)
    hosts = {number: a_host(number, memory=4096) for number in range(1, chance.randint(3, 5))}
    placed = {number: tuple(_guest(chance, 10 * number + one, number) for one in range(chance.randint(0, 5))) for number in hosts}
    pending = tuple(_guest(chance, 100 + one, None) for one in range(chance.randint(0, 3)))
    return Snapshot(hosts=hosts, placed=placed, pending=pending, settings=SchedulingSettings())


def _guest(chance: Random, number: int, host_id: int | None) -> Instance:
    hints = chance.choice([{}, {}, {}, {}, {"apart": "vm10"}, {"with": "vm11"}, {"group": "web"}])
    return an_instance(number, host_id=host_id, memory=chance.choice([512, 768, 1024, 2048]), hints=hints)


def _at_work(plain: Snapshot, seed: int) -> Snapshot:
    """The cluster in a round that may do all that there is: with some that have moved lately, some that are shrunk, and idle hosts."""
    chance = Random(seed)
    mostly = chance.random() < 0.7
    hosts = {number: _in_service(host) if mostly else host for number, host in plain.hosts.items()}
    for number in range(len(hosts) + 1, len(hosts) + 1 + chance.randint(0, 2)):
        hosts[number] = a_host(number, memory=4096, **chance.choice([{}, {"up": False, "state": HostState.PoweredOff}]))
    if hosts and chance.random() < 0.2:
        number = chance.choice(sorted(hosts))
        hosts[number] = msgspec.structs.replace(hosts[number], draining=True, state=HostState.Drained)
    snapshot = msgspec.structs.replace(
        plain,
        hosts=hosts,
        placed={number: tuple(_with_a_past(chance, one) for one in group) for number, group in plain.placed.items()},
        pending=tuple(msgspec.structs.replace(one, user_id=chance.choice([1000, 1001, 1002])) for one in plain.pending),
        settings=msgspec.structs.replace(
            plain.settings, cooldown=COOLDOWN, minimal_vm_memory=chance.choice([64, 256]), auto_powering=True,
            guaranteed_servers=chance.randint(0, 2), power_off_delay=chance.choice([0.0, 300.0]),
        ),
        loads={}, time=NOW, rebalance=True, priorities={1000: 0, 1001: 5, 1002: 10},
    )  # fmt: skip
    used = {number for number, guests in guests_of(snapshot).items() if guests}
    return msgspec.structs.replace(snapshot, empty_since={number: NOW - chance.choice([0, 3600]) for number in hosts if number not in used})


def _in_service(host: Host) -> Host:
    return msgspec.structs.replace(host, up=True, decayed=False, state=HostState.Normal, reserved=(), facts=some_facts(memory=4096))


def _with_a_past(chance: Random, one: Instance) -> Instance:
    """It may have moved lately, or have been shrunk."""
    half = max(1, one.memory // 2) if one.state is InstanceState.Running and chance.random() < 0.2 else None
    return msgspec.structs.replace(
        one,
        user_id=chance.choice([1000, 1000, 1001, 1002]),
        moved_at=chance.choice([0.0, 0.0, NOW - 2 * COOLDOWN, NOW - COOLDOWN, NOW - COOLDOWN + 1, NOW]),
        memory_limit=half,
        shrunk_from=None if half is None else one.memory,
    )


clusters = st.builds(_at_work, snapshots(4, 10) | st.builds(_crowd, st.integers(0, 2**32)), st.integers(0, 2**32))
policies = pytest.mark.parametrize("policy", list(POLICIES))
many = settings(max_examples=50, deadline=None)


def _everybody(snapshot: Snapshot) -> Mapping[int, Instance]:
    return {one.id: one for group in (*snapshot.placed.values(), snapshot.pending) for one in group}


@policies
@many
@given(clusters)
def test_every_plan_passes_the_check(policy: str, snapshot: Snapshot) -> None:
    """No step of it breaks a rule, each fits when it is taken, and nobody who waits is forgotten."""
    plan = POLICIES[policy](snapshot)
    assert check(plan, snapshot) == ()
    answered = [action.instance_id for action in plan.actions if isinstance(action, Place | Postpone)]
    assert sorted(answered) == sorted(one.id for one in snapshot.pending)


@policies
@many
@given(clusters)
def test_the_same_cluster_is_planned_alike(policy: str, snapshot: Snapshot) -> None:
    """Whoever plans it and how often, also when the mappings of the snapshot happen to be in another order."""
    turned = msgspec.structs.replace(
        snapshot,
        hosts=dict(reversed(snapshot.hosts.items())),
        placed=dict(reversed(snapshot.placed.items())),
        priorities=dict(reversed(snapshot.priorities.items())),
    )
    plan = POLICIES[policy](snapshot)
    assert POLICIES[policy](snapshot) == plan
    assert POLICIES[policy](turned).actions == plan.actions


@policies
@many
@given(clusters)
def test_nothing_moves_within_the_cooldown(policy: str, snapshot: Snapshot) -> None:
    """Who has moved lately stays where it is, unless its host is to be emptied."""
    instances = _everybody(snapshot)
    for action in POLICIES[policy](snapshot).actions:
        if isinstance(action, Migrate):
            one = instances[action.instance_id]
            assert one.moved_at + COOLDOWN <= NOW or action.evacuates
            assert not action.evacuates or snapshot.hosts[one.host_id or 0].draining


@policies
@many
@given(clusters)
def test_squeezing_never_goes_below_the_floors(policy: str, snapshot: Snapshot) -> None:
    """Nobody is left with less than minimalVmMemory or what its class guarantees, nor gives to its equals; nobody gets more than it had."""
    plan, instances = POLICIES[policy](snapshot), _everybody(snapshot)
    placed = {action.instance_id for action in plan.actions if isinstance(action, Place)}
    waiting = [snapshot.priority(one) for one in snapshot.pending if one.id not in placed]
    for action in plan.actions:
        if isinstance(action, Shrink):
            one = instances[action.instance_id]
            assert snapshot.floor(one) <= action.memory < (one.memory_limit or one.memory)
            assert snapshot.priority(one) < max(waiting)
        elif isinstance(action, Grow):
            one = instances[action.instance_id]
            assert (one.memory_limit or one.memory) <= action.memory <= (one.shrunk_from or 0)


@policies
@many
@given(clusters)
def test_power_never_touches_a_used_host(policy: str, snapshot: Snapshot) -> None:
    """What goes off is empty, expects nobody and gets nobody; what is switched on was off; enough hosts remain."""
    plan, guests = POLICIES[policy](snapshot), guests_of(snapshot)
    gets = {action.host_id for action in plan.actions if isinstance(action, Place | Migrate)}
    off = {action.host_id for action in plan.actions if isinstance(action, PowerOff)}
    on = {action.host_id for action in plan.actions if isinstance(action, PowerOn)}
    assert not (off | on) & gets and not off & on
    assert not any(guests.get(number) for number in off)
    assert all(snapshot.hosts[number].state is HostState.Normal and not snapshot.hosts[number].draining for number in off)
    assert all(snapshot.hosts[number].state in (HostState.PoweredOff, HostState.WakeFailed) for number in on)
