"""Why a host does not take an instance, in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tashi.model.instance import Nic
from tashi.model.states import HostState
from tashi.scheduling.filters import EVER, objection
from tashi.scheduling.load import Load, load_of
from tashi.scheduling.policies import never_fits
from tashi.scheduling.room import Room, rooms_of
from tashi.scheduling.snapshot import SchedulingSettings
from tests.builders import a_host, a_snapshot, an_instance


def test_the_order_of_the_filters() -> None:
    """Of all that is wrong the first is told: what the host is before what it holds, and room last."""
    host: dict[str, Any] = {"up": False, "state": HostState.Drained, "reserved": (1001,)}
    hints = {"targetHost": "h9", "location": "ie", "auditability": "True", "isolation": "True", "apart": "vm1"}
    instance: dict[str, Any] = {"nics": (Nic(network=7),), "hints": hints, "cores": 2, "memory": 512, "cpu_speed": 3000}
    beside = [an_instance(1, host_id=1), an_instance(2, host_id=1, user_id=1001)]

    def told() -> str | None:
        return objection(an_instance(9, **instance), Room(a_host(1, cores=1, memory=256, **host), SchedulingSettings(), residents=beside))

    cures: list[tuple[str, Callable[[], object]]] = [
        ("is down", lambda: host.update(up=True)),
        ("is drained", lambda: host.update(state=HostState.Normal)),
        ("is reserved for other users", lambda: host.update(reserved=())),
        ("has no network 7", lambda: instance.update(nics=())),
        ("is not the target host h9", lambda: hints.pop("targetHost")),
        ("is in location unknown, not ie", lambda: hints.pop("location")),
        ("is not auditable", lambda: hints.pop("auditability")),
        ("holds instances of other users, and isolation is asked", lambda: hints.pop("isolation")),
        ("holds vm1, and apart=vm1 is asked", lambda: hints.pop("apart")),
        ("512 MB short of memory", lambda: instance.update(memory=0)),
        ("has 1 cores, and the instance asks for 2", lambda: instance.update(cores=1)),
        ("2 cores short", beside.clear),
        ("its cores have 2000 MHz, and the instance reserves 3000 MHz a core", lambda: instance.update(cpu_speed=None)),
    ]
    for reason, cure in cures:
        assert told() == reason
        cure()
    assert told() is None


def _objection(instance: dict[str, Any], host: dict[str, Any], *beside: dict[str, Any]) -> str | None:
    group = [an_instance(number, host_id=1, **fields) for number, fields in enumerate(beside, start=1)]
    return objection(an_instance(9, **instance), Room(a_host(1, "node3", **host), SchedulingSettings(), load_of(group)))


@pytest.mark.parametrize(
    ("instance", "host", "reason"),
    [
        ({}, {}, None),
        ({}, {"up": False}, "is down"),
        ({}, {"decayed": True}, "does not answer just now"),
        ({}, {"state": HostState.Drained}, "is drained"),
        ({}, {"state": HostState.VersionMismatch}, "runs another version of the agent"),
        ({}, {"reserved": (1001,)}, "is reserved for other users"),
        ({}, {"reserved": (1000, 1001)}, None),
        ({"nics": (Nic(network=999),)}, {}, "has no network 999"),
        ({"hints": {"targetHost": "node4"}}, {}, "is not the target host node4"),
        ({"hints": {"targetHost": "node3"}}, {}, None),
        ({"hints": {"targetHost": "1"}}, {}, None),
        ({"hints": {"targetHost": "node4", "allowElsewhere": "True"}}, {}, None),
        ({"hints": {"location": "ie"}}, {}, "is in location unknown, not ie"),
        ({"hints": {"location": "ie"}}, {"config": {"location": "de"}}, "is in location de, not ie"),
        ({"hints": {"location": "ie"}}, {"config": {"location": "ie"}}, None),
        ({"hints": {"auditability": "True"}}, {}, "is not auditable"),
        ({"hints": {"auditability": "True"}}, {"config": {"auditability": "yes"}}, None),
        ({"hints": {"auditability": "False"}}, {}, None),
        ({"refused_by": (1,), "reason": "no such image"}, {}, "failed to start it: no such image"),
        ({"memory": 16384}, {}, None),
        ({"memory": 16896}, {}, "512 MB short of memory"),
        ({"cores": 8}, {}, None),
        ({"cores": 9}, {}, "has 8 cores, and the instance asks for 9"),
        ({"cpu_speed": 2000, "cores": 8}, {}, None),
        ({"cpu_speed": 2001}, {}, "its cores have 2000 MHz, and the instance reserves 2001 MHz a core"),
    ],
)
def test_reasons(instance: dict[str, Any], host: dict[str, Any], reason: str | None) -> None:
    """Each filter says what is in the way."""
    assert _objection(instance, host) == reason


@pytest.mark.parametrize(
    ("instance", "beside", "reason"),
    [
        ({"memory": 9000}, {"memory": 8192}, "808 MB short of memory"),
        ({"cores": 5}, {"cores": 4}, "1 cores short"),
        ({"cores": 4, "cpu_speed": 2000}, {"cores": 4, "cpu_speed": 2000}, None),
        ({"cores": 4, "cpu_speed": 2000}, {"cores": 3, "cpu_speed": 2000}, None),
        ({"cores": 1, "cpu_speed": 1000}, {"cores": 7, "cpu_speed": 2000}, None),
        ({"hints": {"isolation": "True"}}, {"user_id": 1001}, "holds instances of other users, and isolation is asked"),
        ({}, {"user_id": 1001, "hints": {"isolation": "True"}}, "holds an instance that asked for isolation"),
        ({"hints": {"isolation": "True"}}, {"hints": {"isolation": "True"}}, None),
    ],
)
def test_reasons_beside_others(instance: dict[str, Any], beside: dict[str, Any], reason: str | None) -> None:
    """What is there already takes room, and wishes not to be disturbed."""
    assert _objection(instance, {}, beside) == reason


def test_cores_may_be_over_committed_and_memory_never() -> None:
    """cpuCoresOverRate multiplies the cores; no instance has more than its host all the same."""
    room = Room(a_host(), SchedulingSettings(cpu_cores_over_rate=2.0), Load(cores=12, memory=16384))
    assert objection(an_instance(cores=4, memory=0), room) is None
    assert objection(an_instance(cores=5, memory=0), room) == "1 cores short"
    assert objection(an_instance(cores=9, memory=0), room) == "has 8 cores, and the instance asks for 9"
    assert objection(an_instance(memory=1), room) == "1 MB short of memory"


def test_speed_may_be_over_committed() -> None:
    """cpuSpeedOverRate multiplies what may be reserved."""
    for rate, reason in ((1.0, "2000 MHz short of CPU speed"), (1.5, None)):
        room = Room(a_host(), SchedulingSettings(cpu_speed_over_rate=rate), Load(speed=16000))
        assert objection(an_instance(cpu_speed=2000), room) == reason


def test_what_no_host_could_ever_hold() -> None:
    """An instance too large for every host, however empty, has a reason for each; load and absence do not count."""
    snapshot = a_snapshot("h1 8c 16G | vm1 8c 16G", "h2 4c 8G")
    hosts, settings = {**snapshot.hosts, 3: a_host(3, "h3", up=False)}, snapshot.settings
    assert never_fits(an_instance(cores=8, memory=16384), hosts, settings) == ()
    refusals = never_fits(an_instance(cores=9), hosts, settings)
    assert [str(one) for one in refusals] == [
        "h1: has 8 cores, and the instance asks for 9",
        "h2: has 4 cores, and the instance asks for 9",
        "h3: has 8 cores, and the instance asks for 9",
    ]
    assert never_fits(an_instance(cores=9), {}, settings) == ()


def test_a_host_that_has_not_said_what_it_is_could_hold_anything() -> None:
    """As long as one host's facts are unknown nothing is refused for ever."""
    assert never_fits(an_instance(cores=99), {1: a_host(1), 2: a_host(2, facts=None)}, SchedulingSettings()) == ()


def test_the_filters_of_ever_know_no_moment() -> None:
    """What a host is now does not matter to whether it could ever."""
    room = Room(a_host(up=False, decayed=True, state=HostState.Drained), SchedulingSettings())
    assert objection(an_instance(refused_by=(1,)), room, EVER) is None


def test_a_load_known_and_a_load_counted_are_the_same() -> None:
    """A snapshot that brings its sums along gives the same room as one that does not, and neither is changed by use."""
    counted = a_snapshot("h1 8c 16G | vm1 2c 4G, vm2 1c 512M")
    load = load_of(counted.placed[1])
    assert (load.cores, load.memory, load.count, load.users) == (3, 4608, 2, {1000: 2})
    room = rooms_of(counted)[1]
    assert room.load == load
    room.add(an_instance(5, cores=3))
    room.load.remove(an_instance(5, cores=3))
    assert room.load == load == load_of(counted.placed[1])
