"""What instances are given while they run: by verb and by message, applied or refused by their host, one wish after another."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tashi.errors import YourMistake
from tashi.model.instance import Resources
from tashi.model.orders import Adapt
from tashi.model.user import Principal
from tashi.scheduling.snapshot import SchedulingSettings
from tests.builders import a_spec, some_facts
from tests.small_cell import FakeAgent, SmallCell, result_of

ALICE = Principal(name="alice", user_id=1000)


def _running(**spec: Any) -> tuple[SmallCell, FakeAgent]:
    """A cell with one host where web runs, which the ISM made."""
    cell = SmallCell(hosts=[FakeAgent("h1")])
    cell.create(a_spec("web", resource_id="key", **spec))
    cell.work()
    assert cell.state("web") == "Running"
    return cell, cell.agents[0]


def _adapted(cell: SmallCell) -> list[tuple[Any, Any]]:
    return [(event["before"], event["after"]) for event in cell.events if event.get("action") == "adapted"]


def _code(cell: SmallCell, verb: str, **arguments: Any) -> str:
    with pytest.raises(YourMistake) as caught:
        cell.call(ALICE, verb, instance="web", **arguments)
    return caught.value.code


@pytest.mark.parametrize(
    ("verb", "arguments", "column", "value"),
    [
        ("adaptCpuShare", {"share": 512}, "cpuShare", 512),
        ("adaptMemoryLimit", {"limit": 64}, "memory", 64),
        ("adaptDiskBandwidth", {"weight": 500}, "diskWeight", 500),
        ("adaptDiskBandwidth", {"iops": 200}, "diskIops", 200),
        ("adaptDiskBandwidth", {"bytes": 10**15}, "diskBytes", 10**15),
        ("adaptNetworkBandwidth", {"downspeed": 800}, "netDown", 800),
        ("adaptNetworkBandwidth", {"upspeed": 400, "downspeed": None}, "netUp", 400),
    ],
)
def test_adapt(verb: str, arguments: dict[str, Any], column: str, value: int) -> None:
    """The record says what was wished when the host has done it, not before; and that is told with before and after."""
    cell, _ = _running()
    before = cell.call(ALICE, verb, instance="web", **arguments)
    assert before[column] != value
    cell.work()
    (after,) = cell.call(ALICE, "getInstances")
    assert after == before | {column: value}
    (told,) = _adapted(cell)
    assert told == ({column: before[column] or 0} if column != "diskWeight" else {}, {column: value})


def test_the_end_of_a_limit() -> None:
    """0 takes a limit away: the record holds none, and the event says 0; where there was none an update has nothing to do."""
    cell, _ = _running(cpu_speed=1000, disk_iops=5, disk_bytes=6, net_down=8, net_up=16)
    ends = dict.fromkeys(("cpu_speed", "disk_iops", "disk_bytes", "net_down", "net_up"), 0)
    for stanza in ("u1", "u2"):
        cell.update("key", stanza, **ends)
        cell.work()
        assert cell.replies[-1]["status"] == "OK"
    instance = cell.instance("web")
    assert [getattr(instance, name) for name in ends] == [None] * 5
    assert [after for _, after in _adapted(cell)] == [dict.fromkeys(("cpuSpeed", "diskIops", "diskBytes", "netDown", "netUp"), 0)]
    for verb, arguments in (("adaptDiskBandwidth", {"iops": 9, "bytes": 9}), ("adaptDiskBandwidth", {"iops": 0, "bytes": 0})):
        cell.call(ALICE, verb, instance="web", **arguments)
        cell.work()
    assert (cell.instance("web").disk_iops, cell.instance("web").disk_bytes) == (None, None)


def test_what_the_hypervisor_has_is_recorded() -> None:
    """Where it cannot have exactly what is wished, the record is what it has."""
    cell, agent = _running()
    agent.gives = lambda wished: Resources(net_down=808)
    cell.call(ALICE, "adaptNetworkBandwidth", instance="web", downspeed=801)
    cell.work()
    assert cell.instance("web").net_down == 808


def test_refused() -> None:
    """What a host cannot do leaves the record as it was; who waits is told why, and the audit trail has it."""
    cell, agent = _running()
    agent.refuses = lambda deed: "no such controller"
    before = cell.call(ALICE, "adaptDiskBandwidth", instance="web", weight=500)
    wait = Deferred.fromCoroutine(cell.manager.verbs.call(ALICE, "waitFor", {"ids": [1], "until": "adapted"}))
    cell.work()
    assert result_of(wait) == [{"id": 1, "ok": False, "state": "Running", "reason": "no such controller"}]
    assert cell.call(ALICE, "getInstances") == [before | {"reason": "no such controller"}]
    assert _adapted(cell) == []
    assert [event["result"] for event in cell.events if event.get("verb") == "adaptdiskbandwidth"] == ["OK", "refused: no such controller"]
    agent.refuses = lambda deed: ""
    cell.call(ALICE, "adaptDiskBandwidth", instance="web", weight=500)
    cell.work()
    assert cell.call(ALICE, "waitFor", ids=[1], until="adapted")[0]["ok"]


def test_out_of_range() -> None:
    """Values that can never be are refused at once, and more memory than the instance was made with."""
    cell, agent = _running()
    for verb, arguments in (
        ("adaptCpuShare", {"share": 1}),
        ("adaptCpuShare", {"share": 262_145}),
        ("adaptCpuShare", {"share": True}),
        ("adaptCpuShare", {}),
        ("adaptMemoryLimit", {"limit": 0}),
        ("adaptDiskBandwidth", {"weight": 99}),
        ("adaptDiskBandwidth", {"weight": "500"}),
        ("adaptNetworkBandwidth", {}),
        ("adaptNetworkBandwidth", {"upspeed": -1}),
    ):
        assert _code(cell, verb, **arguments) == "bad-argument"
    assert _code(cell, "adaptMemoryLimit", limit=129) == "not-supported-live"
    assert agent.orders == []


def test_memory_is_kept_for_it() -> None:
    """Memory that a guest does without for a while is still its own: no other instance is placed there, and it can have it back."""
    cell, _ = _running(memory=10_000)
    cell.call(ALICE, "adaptMemoryLimit", instance="web", limit=64)
    cell.work()
    assert cell.manager.cluster.loads[1].memory == 10_000
    cell.call(ALICE, "adaptMemoryLimit", instance="web", limit=10_000)
    cell.work()
    assert cell.call(ALICE, "getInstances")[0]["memory"] == 10_000


def test_one_after_another() -> None:
    """Wishes that come faster than the host can follow are carried out in their sequence, over a restart, too."""
    cell, agent = _running()
    for share in (100, 200, 300):
        cell.call(ALICE, "adaptCpuShare", instance="web", share=share)
    assert [order.wished.cpu_share for order in agent.orders if isinstance(order, Adapt)] == [100]
    agent.work()
    cell.restart()
    cell.work()
    assert [after["cpuShare"] for _, after in _adapted(cell)] == [100, 200, 300]


def test_pending_raises_count() -> None:
    """What one instance is about to get of its host's speed cannot be had by another, nor by one that is placed meanwhile."""
    cell = SmallCell(hosts=[FakeAgent("h1", some_facts(cores=3))], scheduling=SchedulingSettings(cpu_speed_over_rate=1 / 3))
    cell.create(a_spec("web", resource_id="web"), a_spec("db", resource_id="db"))
    cell.work()
    cell.update("web", "u1", cpu_speed=1500)
    cell.update("web", "u2", cpu_speed=1000)
    cell.update("db", "u3", cpu_speed=501)
    cell.create(a_spec("late", cpu_speed=501), stanza="s2")
    cell.settle()
    assert [(reply["code"], "1 MHz short" in reply["message"]) for reply in cell.replies[1:]] == [("no-suitable-host", True)]
    assert cell.state("late") == "Pending"
    cell.update("db", "u4", cpu_speed=500)
    cell.work()
    assert (cell.manager.cluster.loads[1].speed, cell.instance("web").cpu_speed, cell.state("late")) == (1500, 1000, "Pending")


def test_too_many() -> None:
    """A hundred wishes may wait for one instance."""
    cell, _ = _running()
    for _ in range(100):
        cell.call(ALICE, "adaptCpuShare", instance="web", share=100)
    assert _code(cell, "adaptCpuShare", share=100) == "busy"


def test_update() -> None:
    """An update is answered once, when its host has done it."""
    cell, _ = _running()
    cell.update("key", cpu_share=512, memory=64)
    cell.settle()
    assert len(cell.replies) == 1
    cell.work()
    reply = cell.replies[-1]
    assert (reply["status"], reply["verb"], reply["resourceId"]) == ("OK", "updatecompute", "key")
    assert (reply["ids"], reply["state"]) == ([1], "Running")
    assert _adapted(cell) == [({"cpuShare": 1024, "memory": 128}, {"cpuShare": 512, "memory": 64})]
    cell.update("key", "u2", cpu_share=512, memory=64, name="web", cores=1, image="tashi")
    cell.settle()
    assert [reply["status"] for reply in cell.replies[1:]] == ["OK", "OK"]
    assert len(_adapted(cell)) == 1


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"cores": 2}, "not-supported-live"),
        ({"image": "other"}, "not-supported-live"),
        ({"name": "other"}, "not-supported-live"),
        ({"sla": "gold"}, "not-supported-live"),
        ({"memory": 129}, "not-supported-live"),
        ({"cpu_speed": 2001}, "no-suitable-host"),
        ({"resource_id": "nobody", "cpu_share": 512}, "unknown-id"),
    ],
)
def test_wrong_updates(fields: dict[str, Any], code: str) -> None:
    """What cannot be while it runs is refused at once and changes nothing."""
    cell, agent = _running()
    before = cell.instance("web")
    cell.update(**{"resource_id": "key", **fields})
    cell.settle()
    assert (cell.replies[-1]["status"], cell.replies[-1]["code"]) == ("ERROR", code)
    assert (cell.instance("web"), agent.orders) == (before, [])


def test_update_of_anothers() -> None:
    """Nobody adapts what is not theirs, and nothing that does not run."""
    cell, _ = _running()
    bob = Principal(name="bob", user_id=1001, jid="bob@example.org")
    cell.update("key", "u0", bob, cpu_share=512)
    cell.update("web", "u1", bob, cpu_share=512)
    cell.call(ALICE, "pauseVm", instance="web")
    cell.work()
    cell.update("key", "u2", cpu_share=512)
    cell.settle()
    assert [reply["code"] for reply in cell.replies[1:]] == ["unknown-id", "forbidden", "conflict"]


def test_refused_update() -> None:
    """An update that the host refuses is answered with the host's words."""
    cell, agent = _running()
    agent.refuses = lambda deed: "Specified qdisc kind is unknown"
    cell.update("key", net_down=800)
    cell.work()
    reply = cell.replies[-1]
    assert (reply["code"], "qdisc" in reply["message"]) == ("not-supported-live", True)
    assert cell.instance("web").net_down is None


def test_destroyed_before_the_update() -> None:
    """An update whose instance is destroyed before it was done is answered so, once."""
    cell, agent = _running()
    cell.update("key", cpu_share=512)
    agent.orders.clear()
    cell.delete("key")
    cell.work()
    assert [(reply["verb"], reply.get("code")) for reply in cell.replies[1:]] == [("updatecompute", "conflict"), ("deletecompute", None)]


def test_update_of_a_silent_host() -> None:
    """An update whose host does not answer is answered in time, and carried out when the host is back."""
    cell, agent = _running()
    cell.update("key", cpu_share=512)
    cell.settle()
    agent.lose_link()
    cell.live(50)
    assert cell.replies[-1]["code"] == "timeout"
    agent.login(cell)
    cell.work()
    assert cell.instance("web").cpu_share == 512
    assert len(cell.replies) == 2
