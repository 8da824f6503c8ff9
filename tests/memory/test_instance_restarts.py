"""Instances that end and begin again with other cores, memory or image: one outcome, whatever fails on the way, and nothing lost."""

from __future__ import annotations

from typing import Any

import pytest

from tashi.model.instance import Disk, Nic
from tashi.model.orders import Destroy, Start
from tashi.model.user import Principal
from tests.builders import a_spec, some_facts
from tests.small_cell import FakeAgent, SmallCell

ALICE = Principal(name="alice", user_id=1000)


def _running(*hosts: FakeAgent, **spec: Any) -> SmallCell:
    """A cell where web runs, which the ISM made, on the first of the hosts."""
    cell = SmallCell(hosts=hosts or [FakeAgent("h1")], max_cores=8)
    cell.own_disk("disk-9-web-0")
    cell.create(a_spec("web", resource_id="key", **spec))
    cell.work()
    assert (cell.state("web"), cell.instance("web").host_id) == ("Running", 1)
    return cell


def _small(name: str = "h1") -> FakeAgent:
    return FakeAgent(name, some_facts(cores=2, memory=1024))


def test_restart() -> None:
    """It ends, and begins again as it was asked to be, under its id, name, resourceId and MAC addresses; that is answered once."""
    cell = _running(nics=(Nic(network=0),), disk_iops=7)
    before, (agent,) = cell.instance("web"), cell.agents
    cell.update("key", cores=2, memory=256, image="other", cpu_share=512, disk_iops=0, restart=True)
    cell.settle()
    assert (cell.state("web"), cell.instance("web").cores, len(cell.replies)) == ("Restarting", 1, 1)
    assert [type(order) for order in agent.orders] == [Destroy]
    agent.work()
    cell.settle()
    (start,) = agent.orders
    assert isinstance(start, Start)
    assert (start.cores, start.memory, start.disks, start.nics) == (2, 256, (Disk(uri="other.img"),), before.nics)
    assert (start.cpu_share, start.disk_iops, start.instance_id, start.name) == (512, None, before.id, "web")
    cell.work()
    reply = cell.replies[-1]
    assert (reply["status"], reply["ids"], reply["state"], reply["host"], len(cell.replies)) == ("OK", [1], "Running", "h1", 2)
    after = cell.instance("web")
    assert (after.becoming, after.resource_id, after.reason, after.host_id) == (None, "key", "", 1)
    cell.create(a_spec("web", resource_id="key", nics=(Nic(network=0),), disk_iops=7), stanza="s2")
    cell.settle()
    assert (cell.replies[-1]["status"], len(cell.manager.cluster.instances)) == ("OK", 1)


def test_no_restart_without_need() -> None:
    """What can be while it runs is done so, restart allowed or not; what is so already is answered at once."""
    cell = _running()
    cell.update("key", cpu_share=512, memory=64, restart=True)
    cell.work()
    assert (cell.instance("web").cpu_share, cell.instance("web").memory_limit, cell.instance("web").started) == (512, 64, 1)
    cell.update("key", "u2", cores=1, image="tashi.img", restart=True)
    cell.settle()
    assert [reply["status"] for reply in cell.replies[1:]] == ["OK", "OK"]


def test_memory() -> None:
    """With a restart less memory is less for good; unsaid, it and its limit stay."""
    cell = _running(memory=512)
    cell.update("key", "u1", memory=128)
    cell.work()
    cell.update("key", "u2", cores=2, restart=True)
    cell.work()
    assert (cell.instance("web").memory, cell.instance("web").memory_limit) == (512, 128)
    cell.update("key", "u3", cores=1, memory=256, restart=True)
    cell.work()
    assert (cell.instance("web").memory, cell.instance("web").memory_limit) == (256, None)
    assert cell.manager.cluster.loads[1].memory == 256


@pytest.mark.parametrize("orders_carried_out", [0, 1, 2])
@pytest.mark.parametrize("told", [True, False])
def test_crashes(orders_carried_out: int, told: bool) -> None:
    """The manager may be killed at any step, its host's word be lost with it: there is one domain in the end, and one answer."""
    cell = _running()
    (agent,) = cell.agents
    cell.update("key", cores=2, restart=True)
    cell.settle()
    for _ in range(orders_carried_out):
        if not told:
            agent.tell = lambda *ignored, **fields: None  # type: ignore[method-assign]
        agent.work()
        vars(agent).pop("tell", None)
        cell.settle()
    cell.restart()
    for _ in range(40):
        cell.live(1)
        cell.work()
    instance = cell.instance("web")
    assert (instance.state.name, instance.cores, agent.domains) == ("Running", 2, {1: instance.generation})
    assert [(reply["verb"], reply["status"]) for reply in cell.replies] == [("createcompute", "OK"), ("updatecompute", "OK")]


def test_power_cut() -> None:
    """A host that comes back empty has nothing more to end: the instance begins again there."""
    cell = _running()
    (agent,) = cell.agents
    cell.update("key", cores=2, restart=True)
    cell.settle()
    agent.lose_link()
    agent.domains.clear()
    cell.live(40)
    assert cell.state("web") == "Restarting"
    agent.login(cell)
    cell.work()
    assert (cell.state("web"), agent.domains.keys(), cell.instance("web").cores) == ("Running", {1}, 2)


@pytest.mark.parametrize(
    ("fields", "code", "word"),
    [
        ({"cores": 3}, "no-suitable-host", "h1: has 2 cores"),
        ({"memory": 2048}, "no-suitable-host", "h1: 1024 MB short of memory"),
        ({"cores": 2, "cpu_speed": 2001}, "no-suitable-host", "MHz"),
        ({"cores": 9}, "quota", "9 cores"),
        ({"image": "nothing"}, "unknown-image", "nothing"),
        ({"image": "disk-9-web-0"}, "not-supported-live", "imageIdentifier"),
        ({"name": "other"}, "not-supported-live", "hostname"),
        ({"sla": "gold"}, "not-supported-live", "sla category"),
    ],
)
def test_refused(fields: dict[str, Any], code: str, word: str) -> None:
    """What cannot be is refused before anything is touched."""
    cell = _running(_small())
    before = cell.instance("web")
    cell.update("key", restart=True, **fields)
    cell.settle()
    assert (cell.replies[-1]["code"], word in cell.replies[-1]["message"]) == (code, True), cell.replies[-1]
    assert (cell.instance("web"), cell.agents[0].orders) == (before, [])


def test_persistent_disk() -> None:
    """A persistent disk stays attached: it is no image that could be changed."""
    cell = _running(disks=(Disk(uri="disk-9-web-0", persistent=True),))
    cell.update("key", image="other", restart=True)
    cell.update("key", "u2", cores=2, restart=True)
    cell.work()
    assert [reply.get("code", "OK") for reply in cell.replies[1:]] == ["not-supported-live", "OK"]
    assert cell.instance("web").disks == (Disk(uri="disk-9-web-0", persistent=True),)


def test_not_now() -> None:
    """One that does not run, or is being adapted, is not restarted."""
    cell = _running()
    cell.call(ALICE, "adaptCpuShare", instance="web", share=100)
    cell.update("key", "u1", cores=2, restart=True)
    cell.work()
    cell.call(ALICE, "pauseVm", instance="web")
    cell.work()
    cell.update("key", "u2", cores=2, restart=True)
    cell.settle()
    assert [reply["code"] for reply in cell.replies[1:]] == ["busy", "conflict"]


def test_elsewhere() -> None:
    """What its host has no room for begins again on another one."""
    cell = _running(_small(), FakeAgent("h2"))
    cell.update("key", memory=2048, restart=True)
    cell.work()
    assert (cell.instance("web").host_id, cell.state("web"), cell.replies[-1]["host"]) == (2, "Running", "h2")
    assert [agent.domains.keys() for agent in cell.agents] == [set(), {1}]


def test_room_is_kept_for_both() -> None:
    """Until its domain is gone there is room for what it is and for what it becomes: nobody is placed into either."""
    cell = _running(FakeAgent("h1", some_facts(cores=4, memory=1024)), memory=1024)
    cell.update("key", cores=2, memory=512, restart=True)
    cell.create(a_spec("next", memory=512), stanza="s2")
    cell.settle()
    assert cell.state("next") == "Pending"
    cell.work()
    assert (cell.state("web"), cell.state("next")) == ("Running", "Running")


def test_nowhere() -> None:
    """One that cannot be started again is held, with its disk, and who asked is told why."""
    cell = _running()
    cell.agents[0].breaks = lambda order: "no such machine"
    cell.update("key", cores=2, restart=True)
    cell.work()
    cell.live(5)
    assert (cell.replies[-1]["status"], cell.replies[-1]["code"]) == ("ERROR", "no-suitable-host")
    assert "no such machine" in cell.replies[-1]["message"]
    assert cell.state("web") == "Held"


def test_destroyed_meanwhile() -> None:
    """The wish to be rid of it is stronger; each command has its outcome."""
    cell = _running()
    cell.update("key", cores=2, restart=True)
    cell.settle()
    cell.delete("key")
    cell.work()
    assert [(reply["verb"], reply.get("code")) for reply in cell.replies[1:]] == [("updatecompute", "conflict"), ("deletecompute", None)]
    assert (cell.agents[0].domains, cell.manager.cluster.instances) == ({}, {})
