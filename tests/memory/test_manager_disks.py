"""Persistent disks as the control plane sees them: copied before the start, one instance's alone, gone with what never ran."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tashi.errors import YourMistake
from tashi.model.disks import DiskCopy
from tashi.model.instance import Disk
from tashi.model.orders import Destroy, Observation, PrepareDisks, Seen, Start
from tashi.model.states import InstanceState
from tashi.model.user import Principal
from tests.builders import a_spec
from tests.small_cell import FakeAgent, SmallCell

ALICE = Principal(name="alice", user_id=1000)
PERSISTENT = (Disk(uri="tashi", persistent=True),)


def _asked(*hosts: FakeAgent, name: str = "web", disks: Any = ({"uri": "tashi", "persistent": True},), **settings: Any) -> SmallCell:
    """A cell where one instance is wished and placed, and no host has done anything yet."""
    cell = SmallCell(hosts=hosts or [FakeAgent("h1")], **settings)
    cell.own_disk("disk-9-old-0.img")
    cell.call(ALICE, "createVm", name=name, disks=list(disks))
    cell.settle()
    return cell


def _orders(cell: SmallCell, agent: int = 0) -> list[Any]:
    return list(cell.agents[agent].orders)


def _uris(cell: SmallCell, name: str = "web") -> list[str]:
    rows = cell.call(ALICE, "getInstances")
    return [disk["uri"] for row in rows if row["name"] == name for disk in row["disks"]]


def test_a_template_is_copied_before_the_start() -> None:
    """The instance is placed, its host makes the copy, and the start names it in the template's stead; each step is told."""
    cell = _asked(disks=[{"uri": "tashi", "persistent": True}, {"uri": "tashi"}])
    assert (cell.state("web"), _uris(cell)) == ("PreparingDisk", ["tashi.img", "tashi.img"])
    (order,) = _orders(cell)
    assert isinstance(order, PrepareDisks)
    assert order.copies == (DiskCopy(template="tashi.img", name="disk-1-web-0.img"),)
    cell.agents[0].work()
    cell.settle()
    (start,) = _orders(cell)
    assert isinstance(start, Start) and start.generation > order.generation
    assert [disk.uri for disk in start.disks] == ["disk-1-web-0.img", "tashi.img"]
    cell.work()
    assert (cell.state("web"), _uris(cell)) == ("Running", ["disk-1-web-0.img", "tashi.img"])
    assert [(event["action"], event["to"]) for event in cell.events if event["type"] == "vmAction"] == [
        ("created", "Pending"), ("placed", "PreparingDisk"), ("stateChanged", "Activating"), ("stateChanged", "Running"),
    ]  # fmt: skip


def test_what_is_copied_takes_room() -> None:
    """While its disks are copied an instance holds its place on the host."""
    cell = _asked()
    assert (cell.manager.cluster.loads[1].cores, cell.manager.cluster.loads[1].disks) == (1, {})


def test_a_persistent_disk_is_attached_itself() -> None:
    """A disk that an instance left behind is not copied, and is one instance's at a time."""
    own = {"uri": "disk-9-old-0.img", "persistent": True}
    cell = _asked(disks=[own])
    cell.work()
    assert (cell.state("web"), _uris(cell)) == ("Running", ["disk-9-old-0.img"])
    cell.call(ALICE, "createVm", name="second", disks=[own])
    cell.work()
    assert (cell.state("second"), cell.instance("second").reason) == (
        "Pending", "h1: the persistent disk disk-9-old-0.img is in use by another instance",
    )  # fmt: skip
    cell.call(ALICE, "destroyVm", instance="web")
    cell.work()
    assert (cell.state("web"), cell.state("second")) == ("none", "Running")


def test_a_copy_can_be_had_by_nobody_else_while_its_instance_lives() -> None:
    """The copy's name is known, and whoever names it waits."""
    cell = _asked()
    cell.work()
    cell.call(ALICE, "createVm", name="thief", disks=[{"uri": "disk-1-web-0.img"}])
    cell.work()
    assert cell.state("thief") == "Pending"


def test_a_suspended_instance_keeps_its_disk() -> None:
    """Its memory belongs to what is on the disk: nobody else gets that before it has gone on and ended."""
    agent = FakeAgent("h1")
    cell = _asked(agent)
    cell.work()
    with cell.manager.cluster.transaction("suspend") as tx:
        web = cell.instance("web")
        tx.put_instance(msgspec.structs.replace(web, state=InstanceState.Suspended, host_id=None, saved="suspend/1_web"))
    agent.domains.clear()
    cell.saved.add("suspend/1_web")
    cell.call(ALICE, "createVm", name="thief", disks=[{"uri": "disk-1-web-0.img", "persistent": True}])
    cell.work()
    assert (cell.state("thief"), "disk-1-web-0.img is in use" in cell.instance("thief").reason) == ("Pending", True)
    cell.call(ALICE, "resumeVm", instance="web")
    cell.work()
    assert (cell.state("web"), cell.state("thief")) == ("Running", "Pending")


def test_a_failed_copy_holds_the_instance() -> None:
    """The reason is the host's, nothing is started, and destroying it needs nobody."""
    agent = FakeAgent("h1")
    agent.breaks = lambda order: "/images is full"
    cell = _asked(agent, FakeAgent("h2"))
    cell.work()
    row = cell.call(ALICE, "getInstances")[0]
    assert (row["state"], row["reason"], row["hostId"]) == ("Held", "/images is full", None)
    assert _uris(cell) == ["tashi.img"]
    cell.call(ALICE, "destroyVm", instance="web")
    assert cell.state("web") == "none"


def test_a_command_whose_copy_failed_is_answered() -> None:
    """A createcompute is told why, and leaves no instance."""
    agent = FakeAgent("h1")
    agent.breaks = lambda order: "/images is full"
    cell = SmallCell(hosts=[agent])
    cell.create(a_spec(disks=PERSISTENT))
    cell.work()
    (reply,) = cell.replies
    assert (reply["status"], reply["code"]) == ("ERROR", "internal")
    assert "/images is full" in reply["message"]
    assert cell.state() == "none"


def test_another_host_copies_for_itself() -> None:
    """A host that cannot start it has given its copy up, so the next one begins with the template."""
    agent = FakeAgent("h1")
    agent.breaks = lambda order: "/scratch is full" if isinstance(order, Start) else None
    cell = _asked(agent, FakeAgent("h2"))
    cell.agents[0].work()
    cell.settle()
    cell.agents[0].work()
    cell.settle()
    assert (cell.state("web"), _uris(cell)) == ("PreparingDisk", ["tashi.img"])
    (order,) = _orders(cell, 1)
    assert order.copies == (DiskCopy(template="tashi.img", name="disk-1-web-0.img"),)
    cell.work()
    assert (cell.state("web"), cell.instance("web").host_id, _uris(cell)) == ("Running", 2, ["disk-1-web-0.img"])


def test_a_full_disk_everywhere_holds_the_instance() -> None:
    """When no host could start it, it is held with the last one's words and names the template again."""
    agents = [FakeAgent("h1"), FakeAgent("h2")]
    for agent in agents:
        agent.breaks = lambda order: "/scratch is full" if isinstance(order, Start) else None
    cell = _asked(*agents)
    cell.work()
    cell.live(3)
    cell.work()
    assert (cell.state("web"), cell.instance("web").reason, _uris(cell)) == ("Held", "/scratch is full", ["tashi.img"])


@pytest.mark.parametrize("done", [0, 1])
def test_destroying_what_has_not_run(done: int) -> None:
    """The host is told which copies to give up: those being made, and those made."""
    cell = _asked()
    for _ in range(done):
        cell.agents[0].work()
        cell.settle()
    cell.agents[0].orders.clear()
    cell.call(ALICE, "destroyVm", instance="web")
    cell.settle()
    (order,) = _orders(cell)
    assert isinstance(order, Destroy) and order.copies == ("disk-1-web-0.img",)
    cell.work()
    assert cell.state("web") == "none"


def test_destroying_what_has_run() -> None:
    """Its persistent disks are nobody's to remove."""
    cell = _asked()
    cell.work()
    cell.call(ALICE, "destroyVm", instance="web")
    cell.settle()
    (order,) = _orders(cell)
    assert isinstance(order, Destroy) and order.copies == ()


def test_a_guest_that_ended_at_once_has_run() -> None:
    """An instance whose domain was seen gone before it was seen running keeps the disk it ran with."""
    cell = _asked()
    cell.agents[0].work()
    cell.settle()
    (start,) = _orders(cell)
    cell.agents[0].orders.clear()
    cell.agents[0].tell(Observation(instance_id=1, generation=start.generation, seen=Seen.GONE, reason="crashed"))
    cell.settle()
    assert (cell.state("web"), _uris(cell)) == ("Held", ["disk-1-web-0.img"])
    assert cell.instance("web").disks[0].template == ""


def test_the_order_is_repeated() -> None:
    """A host that fell silent over it, and a control plane that was restarted, lose nothing."""
    cell = _asked()
    order = _orders(cell)
    agent = cell.agents[0]
    agent.lose_link()
    cell.live(60)
    assert (cell.state("web"), cell.instance("web").decayed) == ("PreparingDisk", True)
    cell.restart()
    assert agent.orders == order
    cell.work()
    assert (cell.state("web"), cell.instance("web").decayed) == ("Running", False)


def test_progress() -> None:
    """How far the copies are stands in the list and is told; in the end nothing of it is left."""
    cell = _asked()
    (order,) = _orders(cell)
    cell.agents[0].tell(Observation(instance_id=1, generation=order.generation, seen=Seen.EXPECTED, progress=40))
    cell.settle()
    row = cell.call(ALICE, "getInstances")[0]
    assert (row["state"], row["reason"]) == ("PreparingDisk", "its disks are copied: 40 %")
    event = cell.events[-1]
    assert (event["action"], event["to"], event["reason"], event["progress"]) == ("stateChanged", "PreparingDisk", row["reason"], 40)
    cell.work()
    assert (cell.state("web"), cell.instance("web").reason) == ("Running", "")


def test_an_old_copy_s_end_is_void() -> None:
    """What a host says of an earlier order changes nothing."""
    agent = FakeAgent("h1")
    agent.breaks = lambda order: "no" if isinstance(order, Start) else None
    cell = _asked(agent)
    (first,) = _orders(cell)
    agent.work()
    cell.settle()
    (start,) = _orders(cell)
    agent.tell(Observation(instance_id=1, generation=first.generation, seen=Seen.FAILED, reason="late"))
    agent.tell(Observation(instance_id=1, generation=first.generation, seen=Seen.READY))
    cell.settle()
    assert (cell.state("web"), cell.instance("web").generation) == ("Activating", start.generation)


def test_a_disk_named_twice() -> None:
    """One instance cannot have the same persistent disk in two places."""
    cell = SmallCell()
    cell.own_disk("disk-9-old-0.img")
    with pytest.raises(YourMistake, match="disks names a persistent disk of web twice"):
        cell.call(ALICE, "createVm", name="web", disks=[{"uri": "disk-9-old-0.img", "persistent": True}] * 2)
    assert cell.manager.cluster.instances == {}


def test_nobody_says_what_a_copy_is_of() -> None:
    """A template is not for the asker to name."""
    cell = _asked(disks=[{"uri": "disk-9-old-0.img", "persistent": True, "template": "tashi.img"}])
    assert cell.instance("web").disks == (Disk(uri="disk-9-old-0.img", persistent=True),)


@pytest.mark.parametrize("space", ["0", "-1", "nan", "inf", "1e3", "1000000000", "", "ten", "0x10", "١", "1,5", "0.0"])
def test_a_nonsense_scratch_space(space: str) -> None:
    """Scratch space is a number of GiB that some host might have; anything else is refused by the field's name."""
    cell = SmallCell()
    with pytest.raises(YourMistake, match=r"hints\.scratchSpace is "):
        cell.call(ALICE, "createVm", name="web", disks=[{"uri": "tashi"}], hints={"scratchSpace": space})
    assert cell.manager.cluster.instances == {}
