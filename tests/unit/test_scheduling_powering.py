"""Hosts that are switched off when nobody needs them, and on when somebody does."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tashi.model.host import Host
from tashi.model.instance import Disk, Instance, Migration
from tashi.model.states import HostState
from tashi.scheduling.check import check
from tashi.scheduling.fleet import Fleet
from tashi.scheduling.placing.primitive import plan
from tashi.scheduling.plan import Plan, Postpone, PowerOff, PowerOn
from tashi.scheduling.powering import power
from tashi.scheduling.snapshot import SchedulingSettings, Snapshot
from tashi.scheduling.terms import CAN_BE_POWERED_ON, is_ready
from tests.builders import a_host, an_instance

NOW = 10_000.0


def _off(host_id: int, state: HostState = HostState.PoweredOff, **fields: Any) -> Host:
    return a_host(host_id, **{"up": False, "decayed": True, "state": state, **fields})


def _cluster(*hosts: Host, placed: tuple[Instance, ...] = (), waiting: tuple[Instance, ...] = (), **fields: Any) -> Snapshot:
    """Hosts that have been empty for an hour unless something is there."""
    groups = {host.id: tuple(one for one in placed if one.host_id == host.id) for host in hosts}
    guaranteed = fields.pop("guaranteed", 0)
    return Snapshot(
        **{
            "hosts": {host.id: host for host in hosts},
            "placed": groups,
            "pending": waiting,
            "empty_since": {host.id: NOW - 3600 for host in hosts if not groups[host.id]},
            "settings": SchedulingSettings(auto_powering=True, guaranteed_servers=guaranteed),
            "time": NOW,
            **fields,
        }
    )


def _switched(snapshot: Snapshot) -> list[PowerOn | PowerOff]:
    """What is switched by a plan that is sound."""
    fleet, made = Fleet(snapshot), plan(snapshot)
    found = {one.id: one for one in snapshot.pending}
    for action in made.actions:
        if not isinstance(action, Postpone):
            fleet.add(found[action.instance_id], fleet.place_of[action.host_id])
    switched = power(fleet, [action for action in made.actions if isinstance(action, Postpone)])
    assert check(Plan(actions=(*made.actions, *switched)), snapshot) == ()
    return switched


def _ids(snapshot: Snapshot) -> list[int]:
    return [action.host_id for action in _switched(snapshot)]


def test_the_worst_rated_go_first() -> None:
    """Beyond the guaranteed ones empty hosts go off: the worst rated, then the highest id; it says why."""
    hosts = [a_host(number) for number in range(1, 6)]
    snapshot = _cluster(*hosts, ratings={5: 2, 2: -1, 1: 1}, guaranteed=2)
    assert _ids(snapshot) == [2, 4, 3]
    assert _switched(snapshot)[0].why == "it has been empty for 3600 s; 5 hosts are ready, and 2 are to stay"
    assert _ids(msgspec.structs.replace(snapshot, settings=SchedulingSettings(auto_powering=False, guaranteed_servers=2))) == []


def test_what_is_used_stays_on() -> None:
    """A host stays on that has an instance, is promised to one, or expects one; those count among the guaranteed."""
    moving = an_instance(1, host_id=1, migration=Migration(target=2))
    snapshot = _cluster(a_host(1), a_host(2), a_host(3), a_host(4), placed=(moving,), waiting=(an_instance(2),), cursor=2)
    assert _ids(snapshot) == [4]
    assert _ids(_cluster(a_host(1), a_host(2), a_host(3), placed=(an_instance(1, host_id=1),), guaranteed=2)) == [3]


def test_who_leaves_in_this_plan_is_still_there() -> None:
    """A host that this plan empties is not empty yet."""
    guest = an_instance(1, host_id=1)
    snapshot = _cluster(a_host(1), a_host(2), placed=(guest,))
    fleet = Fleet(snapshot)
    fleet.move(guest, 0, 1)
    assert power(fleet, ()) == []


@pytest.mark.parametrize(
    ("host", "since"),
    [
        (a_host(1), NOW - 299),  # it has come up lately, or become empty
        (a_host(1), None),
        (a_host(1, draining=True), 0.0),
        (a_host(1, state=HostState.Drained), 0.0),
        (a_host(1, state=HostState.VersionMismatch), 0.0),
        (a_host(1, decayed=True), 0.0),
        (_off(1), 0.0),
        (_off(1, HostState.PoweringOff), 0.0),
    ],
)
def test_what_is_left_alone(host: Host, since: float | None) -> None:
    """What has not been empty for long, is not in service, or is an operator's business, is not switched off."""
    assert _ids(_cluster(host, empty_since={} if since is None else {1: since})) == []
    assert _ids(_cluster(a_host(1), empty_since={1: NOW - 300})) == [1]


def test_nothing_goes_off_while_something_waits() -> None:
    """As long as anything waits every host stays on."""
    assert _ids(_cluster(a_host(1), a_host(2), waiting=(an_instance(1, cores=9),))) == []


def test_the_best_rated_that_would_fit() -> None:
    """For what waits the best-rated host is switched on that would take it; with its reason."""
    hosts = (a_host(1, memory=64), _off(2), _off(3), _off(4, memory=64), _off(5, reserved=(7,)))
    snapshot = _cluster(*hosts, ratings={3: 5, 4: 9, 5: 9}, waiting=(an_instance(1, memory=1024),))
    assert _switched(snapshot) == [PowerOn(host_id=3, why="it has room for vm1, and no host that is up has")]
    assert _ids(msgspec.structs.replace(snapshot, settings=SchedulingSettings(guaranteed_servers=0))) == []
    aimed = an_instance(1, memory=1024, hints={"targetHost": "h2"})
    assert _ids(msgspec.structs.replace(snapshot, pending=(aimed,))) == [2]
    assert _ids(msgspec.structs.replace(snapshot, pending=(an_instance(1, cores=9),))) == []


def test_the_fewest() -> None:
    """All that wait are packed: one large host rather than two, however well rated those are."""
    waiting = tuple(an_instance(number, memory=4096) for number in range(1, 5))
    hosts = (_off(1, memory=8192), _off(2, memory=8192), _off(3, memory=16384))
    snapshot = _cluster(*hosts, ratings={1: 5, 2: 5}, waiting=waiting)
    assert _switched(snapshot) == [PowerOn(host_id=3, why="it has room for vm1 and 3 more that wait, and no host that is up has")]
    assert _ids(_cluster(*hosts[:2], waiting=waiting)) == [1, 2]


def test_what_is_coming_is_not_asked_for_twice() -> None:
    """The next pass counts on hosts that are being switched on, and on those that have only lost their link."""
    waiting = tuple(an_instance(number, memory=8192) for number in range(1, 4))
    for coming in (_off(1, HostState.PoweringOn), a_host(1, decayed=True)):
        assert _ids(_cluster(coming, _off(2), _off(3), waiting=waiting[:2])) == []
        assert _ids(_cluster(coming, _off(2), _off(3), waiting=waiting)) == [2]
    assert _ids(_cluster(_off(1, HostState.Normal), _off(2), waiting=waiting[:1])) == [2]  # down, who knows for how long


def test_those_that_did_not_come_are_last() -> None:
    """A host that failed to come is tried only when no other would do."""
    failed = _off(1, HostState.WakeFailed)
    waiting = tuple(an_instance(number, memory=16384) for number in range(1, 3))
    assert _ids(_cluster(failed, _off(2), ratings={1: 9}, waiting=waiting[:1])) == [2]
    assert _ids(_cluster(failed, _off(2), ratings={1: 9}, waiting=waiting)) == [2, 1]
    assert _ids(_cluster(failed, _off(2), ratings={1: 9}, guaranteed=1)) == [2]


def test_no_power_for_a_disk() -> None:
    """A host is not switched on for one that waits for a disk that another has."""
    disk = (Disk(uri="disk-1-a-0.img", persistent=True),)
    assert _ids(_cluster(a_host(1), _off(2), placed=(an_instance(1, host_id=1, disks=disk),), waiting=(an_instance(2, disks=disk),))) == []


def test_the_guaranteed_are_there() -> None:
    """With fewer ready hosts than are guaranteed the best-rated others are switched on, those that are for who waits among them."""
    hosts = (a_host(1), _off(2), _off(3), _off(4), _off(5, HostState.PoweringOn), a_host(6, state=HostState.Drained))
    snapshot = _cluster(*hosts, ratings={4: 1}, guaranteed=4)
    assert [(action.host_id, action.why) for action in _switched(snapshot)] == [
        (4, "2 hosts are ready or coming, and 4 are to be"),
        (2, "3 hosts are ready or coming, and 4 are to be"),
    ]
    large = an_instance(1, hints={"targetHost": "h3"})
    assert _ids(msgspec.structs.replace(snapshot, pending=(large,))) == [3, 4]


@st.composite
def _clusters(draw: st.DrawFn) -> Snapshot:
    """Hosts in all states, some empty for a while, some used, and some that wait."""
    chance = Random(draw(st.integers(0, 2**32)))
    hosts, placed = [], []
    for number in range(1, 1 + draw(st.integers(0, 8))):
        state = chance.choice([HostState.Normal, HostState.Normal, HostState.Normal, *HostState])
        up = state not in (HostState.PoweredOff, HostState.PoweringOn, HostState.WakeFailed) and chance.random() < 0.9
        fields = {"memory": chance.choice([1024, 4096]), "draining": chance.random() < 0.1, "decayed": not up or chance.random() < 0.1}
        hosts.append(a_host(number, state=state, up=up, **fields))
        if up and chance.random() < 0.4:
            target = chance.choice([None, None, Migration(target=chance.randint(1, 8))])
            placed.append(an_instance(number, host_id=number, memory=512, migration=target))
    waiting = [
        an_instance(100 + number, memory=chance.choice([512, 3000, 9000]), cores=chance.choice([1, 9]))
        for number in range(draw(st.integers(0, 5)))
    ]
    since = {host.id: NOW - chance.choice([0, 299, 300, 3600]) for host in hosts if chance.random() < 0.9}
    ratings = {host.id: chance.randint(0, 2) for host in hosts}
    fields = {"guaranteed": chance.randint(0, 3), "ratings": ratings, "empty_since": since, "cursor": chance.randint(0, 8)}
    return _cluster(*hosts, placed=tuple(placed), waiting=tuple(waiting), **fields)


@settings(max_examples=200, deadline=None)
@given(_clusters())
def test_any_switching(snapshot: Snapshot) -> None:
    """No used host goes off, nor so many that too few remain; who comes is off and helps; the pass after it switches nothing more on."""
    switched = _switched(snapshot)
    hosts = snapshot.hosts
    off = [hosts[action.host_id] for action in switched if isinstance(action, PowerOff)]
    on = [hosts[action.host_id] for action in switched if isinstance(action, PowerOn)]
    assert not (off and on)
    guaranteed = snapshot.settings.guaranteed_servers
    ready = sum(map(is_ready, hosts.values()))
    expected = {one.migration.target for group in snapshot.placed.values() for one in group if one.migration is not None}
    for host in off:
        assert is_ready(host) and not host.draining and not snapshot.placed[host.id] and host.id not in expected
        assert NOW - snapshot.empty_since[host.id] >= snapshot.settings.power_off_delay
    assert not off or ready - len(off) >= guaranteed
    assert all(host.state in CAN_BE_POWERED_ON for host in on)
    rated = snapshot.ratings
    assert [rated[host.id] for host in off] == sorted(rated[host.id] for host in off)
    next_hosts = {**hosts, **{host.id: msgspec.structs.replace(host, state=HostState.PoweringOn) for host in on}}
    assert not [action for action in _switched(msgspec.structs.replace(snapshot, hosts=next_hosts)) if isinstance(action, PowerOn)]
