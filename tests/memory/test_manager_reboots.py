"""Hosts that are rebooted under their instances: what ran is Held and says so, and goes on when its owner wants it to."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec
import pytest

from tashi.errors import YourMistake
from tashi.manager.reconcile import order_for
from tashi.model.causes import Cause
from tashi.model.instance import Disk
from tashi.model.orders import Destroy, Migrate, Observation, Seen, Suspend
from tashi.model.states import InstanceState
from tashi.scheduling.room import rooms_of
from tashi.scheduling.survey import survey
from tests.builders import ALICE, BOB, a_spec
from tests.small_cell import FakeAgent, SmallCell

REBOOTED = "its host h1 was rebooted; its throw-away disk is lost"


def a_cell(**spec: Any) -> tuple[SmallCell, FakeAgent, FakeAgent]:
    """A cell of two hosts, whose first one runs vm1."""
    h1, h2 = FakeAgent("h1"), FakeAgent("h2")
    cell = SmallCell(hosts=[h1, h2])
    cell.create(a_spec(**{"resource_id": "r", "hints": {"targetHost": "h1"}, **spec}))
    cell.work()
    assert cell.state() == "Running"
    return cell, h1, h2


def move_until_ordered(cell: SmallCell, h1: FakeAgent) -> None:
    """Have vm1 move to h2 until its host has been told to send it."""
    cell.call(ALICE, "migrateVm", instance="vm1", dst="h2")
    while not any(isinstance(order, Migrate) for order in h1.orders):
        cell.settle()
        for agent in cell.agents:
            if not any(isinstance(order, Migrate) for order in agent.orders):
                agent.work()


def reboot(cell: SmallCell, agent: FakeAgent, silence: float = 0.0) -> None:
    """Cut the host's power, and let it come back after this silence."""
    agent.power_cut()
    if silence:
        cell.live(silence)
    agent.login(cell)
    cell.settle()


@pytest.mark.parametrize("silence", [0.0, 40.0])
def test_o2_an_instance_of_a_rebooted_host_is_held(silence: float) -> None:
    """O2: a quick reboot, or one after a long silence, loses no instance: it is Held with the reason, told, and nothing is left of it."""
    cell, h1, _ = a_cell()
    reboot(cell, h1, silence)
    instance = cell.instance()
    assert (instance.state.name, instance.reason, instance.host_id, instance.decayed) == ("Held", REBOOTED, None, False)
    assert (cell.events[-1]["action"], cell.events[-1]["reason"]) == ("held", REBOOTED)
    assert [type(order) for order in h1.orders] == [Destroy]
    cell.work()
    assert (cell.state(), cell.instance().residue) == ("Held", ())
    assert [load.memory for load in cell.manager.cluster.loads.values() if load.memory] == []


def test_o2_resume_starts_it_again() -> None:
    """O2: resumeVm of a Held instance has it placed and started, under the same id; only its owner may."""
    cell, h1, h2 = a_cell(hints={})
    first = cell.instance()
    reboot(cell, h1)
    with pytest.raises(YourMistake):
        cell.call(BOB, "resumeVm", instance="vm1")
    assert cell.call(ALICE, "resumeVm", instance="vm1")["state"] == "Pending"
    cell.work()
    again = cell.instance()
    assert (again.state.name, again.id, again.disks) == ("Running", first.id, first.disks)
    assert again.generation > first.generation and again.started > first.started
    assert len(h1.domains) + len(h2.domains) == 1


def test_h3_resume_tries_a_held_instance_again() -> None:
    """H3: an instance that no host could start is tried anew on all of them when its owner resumes it."""
    agent = FakeAgent("h1")
    cell = SmallCell(hosts=[agent])
    agent.breaks = lambda order: "the share is away"
    cell.call(ALICE, "createVm", name="vm1", disks=[{"uri": "tashi"}])
    cell.work()
    assert (cell.state(), cell.instance().refused_by) == ("Held", (1,))
    agent.breaks = lambda order: None
    cell.call(ALICE, "resumeVm", instance="vm1")
    cell.work()
    assert (cell.state(), cell.instance().refused_by) == ("Running", ())


def test_a_persistent_disk_is_not_lost() -> None:
    """The reason names a lost disk only where there is one, and counts them."""
    kept, thrown = Disk(uri="tashi", persistent=True), Disk(uri="tashi")
    for disks, words in (
        ((kept,), "its host h1 was rebooted"),
        ((kept, thrown), REBOOTED),
        ((thrown, thrown), "its host h1 was rebooted; its 2 throw-away disks are lost"),
    ):
        cell, h1, _ = a_cell(disks=disks)
        reboot(cell, h1)
        assert cell.instance().reason == words


@pytest.mark.parametrize("verb", ["pauseVm", "shutdownVm"])
@pytest.mark.parametrize("done", [True, False])
def test_a_reboot_ends_what_was_asked(verb: str, done: bool) -> None:
    """Whatever was under way when the host stopped, the instance is Held, and resumed it runs."""
    cell, h1, _ = a_cell(hints={})
    h1.deaf = True
    cell.call(ALICE, verb, instance="vm1")
    if done:
        cell.work()
    reboot(cell, h1)
    h1.paused.clear()
    assert (cell.state(), cell.instance().reason) == ("Held", REBOOTED)
    cell.call(ALICE, "resumeVm", instance="vm1")
    cell.work()
    assert (cell.state(), cell.instance().grace_until, cell.instance().tasks) == ("Running", None, ())


@pytest.mark.parametrize("saved", [True, False])
def test_a_suspension_counts_if_it_was_whole(saved: bool) -> None:
    """What was saved before its host stopped is Suspended; what was not is Held."""
    cell, h1, _ = a_cell(hints={})
    cell.call(ALICE, "suspendVm", instance="vm1")
    cell.settle()
    (order,) = h1.orders
    assert isinstance(order, Suspend)
    h1.power_cut()
    if saved:
        cell.saved.add(order.saved)
    h1.login(cell)
    cell.work()
    assert (cell.state(), cell.instance().reason == REBOOTED) == (("Suspended", False) if saved else ("Held", True))
    cell.call(ALICE, "resumeVm", instance="vm1")
    cell.work()
    assert cell.state() == "Running"


def test_a_destroy_ends_with_the_reboot() -> None:
    """An instance that was to be destroyed is gone, as wished."""
    cell, h1, _ = a_cell()
    cell.delete("r")
    cell.settle()
    reboot(cell, h1)
    cell.work()
    assert (cell.state(), [reply["status"] for reply in cell.replies if reply["verb"] == "deletecompute"]) == ("none", ["OK"])


def test_a_start_is_repeated() -> None:
    """An instance that was to start on the host starts there when it is back."""
    h1 = FakeAgent("h1")
    cell = SmallCell(hosts=[h1])
    cell.create()
    cell.settle()
    reboot(cell, h1)
    cell.work()
    assert (cell.state(), list(h1.domains)) == ("Running", [1])


def test_a_restart_goes_on() -> None:
    """An instance that is begun again with more cores is begun again all the same."""
    cell, h1, _ = a_cell(hints={})
    cell.update("r", cores=2, restart=True)
    cell.settle()
    assert cell.state() == "Restarting"
    reboot(cell, h1)
    cell.work()
    assert (cell.state(), cell.instance().cores) == ("Running", 2)


def test_a_suspended_instance_stays() -> None:
    """What is on no host does not notice."""
    cell, h1, _ = a_cell()
    cell.call(ALICE, "suspendVm", instance="vm1")
    cell.work()
    reboot(cell, h1)
    cell.work()
    assert cell.state() == "Suspended"


@pytest.mark.parametrize("begun", [True, False])
def test_a_source_that_is_rebooted_before_a_move(begun: bool) -> None:
    """Before anything has moved the instance is Held, and its target clears away what it has prepared."""
    cell, h1, h2 = a_cell(hints={})
    cell.call(ALICE, "migrateVm", instance="vm1", dst="h2")
    cell.settle()
    if begun:
        h1.work()
        cell.settle()
    assert cell.state() == "MigratePrep"
    reboot(cell, h1)
    assert (cell.state(), cell.instance().reason, cell.instance().migration) == ("Held", REBOOTED, None)
    cell.work()
    assert (cell.instance().residue, h2.expected) == ((), {})


@pytest.mark.parametrize("silence", [0.0, 40.0])
@pytest.mark.parametrize("arrived", [True, False])
def test_a_source_that_is_rebooted_during_a_move(arrived: bool, silence: float) -> None:
    """The target is asked: where it has the instance that runs there, else it is Held; never both."""
    cell, h1, h2 = a_cell(hints={})
    move_until_ordered(cell, h1)
    if arrived:
        h2.domains[1] = h2.expected.pop(1)
    reboot(cell, h1, silence)
    assert cell.state() == "Orphaned"
    assert cell.instance().reason == "its host h1 was rebooted while it moved"
    cell.work()
    if arrived:
        assert (cell.state(), cell.instance().host_id, list(h2.domains)) == ("Running", 2, [1])
    else:
        assert (cell.state(), cell.instance().reason, h2.domains, h2.expected) == ("Held", REBOOTED, {}, {})
        held = cell.instance()
        assert 0 < held.unused_below <= held.generation
        destroy = order_for(msgspec.structs.replace(held, state=InstanceState.Destroying), uuid.uuid4())
        assert isinstance(destroy, Destroy) and destroy.unused_below == held.unused_below
        cell.call(ALICE, "resumeVm", instance="vm1")
        cell.work()
        assert (cell.state(), len(h1.domains) + len(h2.domains)) == ("Running", 1)
    assert cell.instance().residue == ()


@pytest.mark.parametrize("cause", [Cause.ADMINISTRATOR, Cause.REVERTED, Cause.MIGRATING])
def test_an_instance_that_was_moved_while_paused_belongs_to_its_target(cause: Cause) -> None:
    """A target whose domain is paused for good has it, although it never ran there, when its source has lost all; one that is only
    on its way is still waited for."""
    cell, h1, h2 = a_cell(hints={})
    move_until_ordered(cell, h1)
    h2.domains[1] = h2.expected.pop(1)
    h2.paused.add(1)
    h2.causes[1] = cause
    reboot(cell, h1)
    cell.work()
    if cause is Cause.MIGRATING:
        assert (cell.state(), cell.manager.cluster.host_name(cell.instance().host_id)) == ("Orphaned", "h1")
        return
    assert (cell.state(), cell.manager.cluster.host_name(cell.instance().host_id)) == ("Paused", "h2")
    assert (cell.instance().cause, cell.instance().residue) == (cause, ())
    cell.call(ALICE, "unpauseVm", instance="vm1")
    cell.work()
    assert cell.state() == "Running"


def test_a_target_that_is_rebooted_after_a_move() -> None:
    """An instance belongs to the boot that it was last seen on: after a move that is its new host's."""
    cell, h1, h2 = a_cell(hints={})
    cell.call(ALICE, "migrateVm", instance="vm1", dst="h2")
    cell.work()
    assert (cell.state(), cell.instance().host_id) == ("Running", 2)
    reboot(cell, h1)
    cell.work()
    assert cell.state() == "Running"
    reboot(cell, h2)
    assert (cell.state(), cell.instance().reason) == ("Held", REBOOTED.replace("h1", "h2"))


def test_what_runs_after_the_reboot_is_running() -> None:
    """An instance that something on the host has started before the agent logs in runs, on the new boot."""
    cell, h1, _ = a_cell()
    h1.power_cut()
    h1.domains[1] = 1
    h1.login(cell)
    cell.settle()
    assert cell.state() == "Running"
    assert cell.instance().boot.endswith("/boot 2")
    h1.domains.clear()
    h1.tell(full=True)
    cell.settle()
    assert cell.instance().reason == "missing on h1, end not seen"  # it is this boot's, and that goes on


def test_a_restarted_agent_is_no_reboot() -> None:
    """The agent comes and goes, the boot stays, and so does the instance."""
    cell, h1, _ = a_cell()
    boot = cell.instance().boot
    h1.restart()
    cell.work()
    assert (cell.state(), cell.instance().boot) == ("Running", boot)
    assert boot.endswith("/boot 1")


def test_a_reboot_after_a_restart_of_the_manager() -> None:
    """The boot stands in the records: a control plane that begins again notices the reboot, too."""
    cell, h1, _ = a_cell()
    h1.power_cut()
    cell.restart()
    cell.settle()
    assert (cell.state(), cell.instance().reason) == ("Held", REBOOTED)


def test_an_old_word_of_the_former_boot_is_void() -> None:
    """What the host says of a Held instance whose remains it is to clear away starts nothing."""
    cell, h1, _ = a_cell()
    reboot(cell, h1)
    h1.tell(Observation(instance_id=1, generation=1, seen=Seen.RUNNING))
    cell.settle()
    assert cell.state() == "Held"
    cell.work()
    assert (cell.state(), h1.domains) == ("Held", {})


def test_what_is_left_on_a_rebooted_host_takes_room_in_every_plan() -> None:
    """A Held instance that its former host has not cleared away yet takes room there, for those who plan moves, too."""
    cell, h1, _ = a_cell(cores=3)
    reboot(cell, h1)
    assert (cell.state(), len(cell.instance().residue)) == ("Held", 1)
    snapshot = cell.manager.picture.whole(rebalance=True)
    room = rooms_of(snapshot)[h1.host_id]
    assert ([one.name for one in room.residents], room.load.cores) == (["vm1"], 3)
    assert survey(snapshot) == (snapshot, ())
    cell.work()
    snapshot = cell.manager.picture.whole(rebalance=True)
    assert rooms_of(snapshot)[h1.host_id].residents == []
    assert survey(snapshot) == (snapshot, ())
