"""Suspended instances: their memory kept, their host freed; resumed anywhere, whatever fails or is killed on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from twisted.internet.defer import Deferred

from tashi.errors import YourMistake
from tashi.model.instance import saved_name
from tashi.model.orders import Observation, Seen, Start, Suspend
from tashi.model.user import Principal
from tests.builders import ADMIN, a_spec, seen, some_facts
from tests.small_cell import FakeAgent, SmallCell, result_of

ALICE = Principal(name="alice", user_id=1000)
BOB = Principal(name="bob", user_id=1001)
STEPS = range(6)


def saved(cell: SmallCell) -> str:
    """Where the memory of the first instance is kept, which is told by its cell, its id and its incarnation."""
    instance = next(iter(cell.manager.cluster.instances.values()))
    return saved_name(UUID(cell.manager.cluster.settings["cell"]), instance.id, instance.incarnation)


def a_cell(hosts: int = 2) -> tuple[SmallCell, FakeAgent, FakeAgent]:
    """A cell where vm1 runs on h1, and its first two hosts."""
    cell = SmallCell()
    cell.join(FakeAgent("h1", some_facts(cores=1, memory=4096)))
    cell.create(a_spec(resource_id="r"))
    cell.work()
    for number in range(2, hosts + 1):
        cell.join(FakeAgent(f"h{number}", some_facts(cores=1, memory=4096)))
    return cell, cell.agents[0], cell.agents[-1]


def suspend(cell: SmallCell) -> None:
    """Suspend vm1, to the end."""
    cell.call(ALICE, "suspendVm", instance="vm1")
    cell.work()
    assert cell.state() == "Suspended"


def waiting(cell: SmallCell, state: str) -> Deferred[Any]:
    """The client's --wait."""
    return Deferred.fromCoroutine(cell.manager.verbs.call(ALICE, "waitFor", {"ids": [1], "until": state}))


def steps(cell: SmallCell) -> list[str]:
    """The states since it first ran."""
    told = [f"{event['from']} -> {event['to']}" for event in cell.events if event["type"] == "vmAction"]
    return told[told.index("Activating -> Running") + 1 :]


def is_free(cell: SmallCell, host_id: int = 1) -> bool:
    """Whether nothing takes room there."""
    records = cell.manager.cluster
    return (records.loads[host_id].count, host_id in records.on_host, host_id in records.errands) == (0, False, False)


def play(cell: SmallCell, step: int, disturb: Callable[[], object]) -> None:
    """Let the hosts carry out their orders, one at a time; at this turn the disturbance happens."""
    for number in range(20):
        if number == step:
            disturb()
        cell.settle(0.02)
        for agent in cell.agents:
            if agent.work(1):
                break
    cell.live(35)
    cell.work()


def test_the_plain_story() -> None:
    """A suspended instance takes no room anywhere; resumed, it goes on where there is room, and each step is told."""
    cell, h1, h2 = a_cell()
    assert cell.call(ALICE, "suspendVm", instance="vm1")["state"] == "Suspending"
    wait = waiting(cell, "Suspended")
    cell.work()
    assert result_of(wait)[0]["ok"]
    assert (cell.state(), cell.instance().host_id, h1.domains, is_free(cell)) == ("Suspended", None, {}, True)
    cell.create(a_spec("vm2"), stanza="s2")  # takes its place, and the other one
    cell.create(a_spec("vm3"), stanza="s3")
    cell.work()
    assert cell.call(ALICE, "resumeVm", instance="vm1")["state"] == "Pending"
    wait = waiting(cell, "Running")
    cell.work()
    assert (cell.state(), "h1: 1 cores short" in cell.instance().reason) == ("Pending", True)
    cell.delete("vm3" if cell.instance("vm3").host_id == 2 else "vm2")
    cell.work()
    assert result_of(wait)[0]["ok"]
    assert (cell.state(), cell.instance().host_id, list(h2.domains), cell.saved) == ("Running", 2, [1], set())
    assert steps(cell)[:2] == ["Running -> Suspending", "Suspending -> Suspended"]
    assert [step for step in steps(cell) if "Resuming" in step] == ["Pending -> Resuming", "Resuming -> Running"]


def test_wrong_state() -> None:
    """Each wish says which state it needs and which it found, and only the owner may have it."""
    cell, _, _ = a_cell()
    for verb, who, words in (("resumeVm", ALICE, "VmState is not Suspended - it is Running"), ("suspendVm", BOB, "permissions")):
        with pytest.raises(YourMistake, match=words):
            cell.call(who, verb, instance="vm1")
    suspend(cell)
    for verb, words in (("suspendVm", "not Running - it is Suspended"), ("pauseVm", "not Running - it is Suspended")):
        with pytest.raises(YourMistake, match=words):
            cell.call(ALICE, verb, instance="vm1")
    with pytest.raises(YourMistake, match="not Running - it is Suspended"):
        cell.call(ALICE, "migrateVm", instance="vm1", dst="h2")
    assert cell.state() == "Suspended"


def test_a_suspend_that_fails() -> None:
    """An instance that cannot be suspended runs on, with the reason."""
    cell, h1, _ = a_cell()
    h1.refuses = lambda deed: "the disk is full"
    cell.call(ALICE, "suspendVm", instance="vm1")
    wait = waiting(cell, "Suspended")
    cell.work()
    assert result_of(wait) == [{"id": 1, "ok": False, "state": "Running", "reason": "the disk is full"}]
    assert (cell.instance().saved, list(h1.domains)) == ("", [1])
    h1.refuses = lambda deed: ""
    suspend(cell)


def test_a_resume_that_fails() -> None:
    """An instance that cannot be resumed stays suspended, with the reason, and can be tried again."""
    cell, _, _ = a_cell()
    suspend(cell)
    for agent in cell.agents:
        agent.breaks = lambda order: "no KVM here"
    cell.call(ALICE, "resumeVm", instance="vm1")
    wait = waiting(cell, "Running")
    cell.work()
    assert result_of(wait) == [{"id": 1, "ok": False, "state": "Suspended", "reason": "no KVM here"}]
    assert (is_free(cell, 1), is_free(cell, 2), len(cell.saved)) == (True, True, 1)
    for agent in cell.agents:
        agent.breaks = lambda order: None
    cell.call(ALICE, "resumeVm", instance="vm1")
    cell.work()
    assert (cell.state(), cell.instance().saved, cell.instance().reason) == ("Running", "", "")


def test_it_outlives_a_restart() -> None:
    """A suspended instance is suspended after a restart of the control plane, too; one that waits to go on then does."""
    cell, h1, _ = a_cell(1)
    suspend(cell)
    cell.restart()
    cell.live(60)
    assert (cell.state(), h1.orders) == ("Suspended", [])
    cell.call(ADMIN, "setHostState", host="h1", state="Drained")
    cell.call(ALICE, "resumeVm", instance="vm1")
    cell.restart()
    assert cell.state() == "Pending"
    cell.call(ADMIN, "setHostState", host="h1", state="Normal")
    cell.settle()
    (order,) = h1.orders
    assert isinstance(order, Start) and order.saved == saved(cell)
    cell.work()
    assert cell.state() == "Running"


@pytest.mark.parametrize("where", ["Suspending", "Suspended", "Pending", "Resuming"])
def test_a_destroy(where: str) -> None:
    """Wherever it is on its way, a destroyed instance is gone, and its delete is answered once."""
    cell, h1, h2 = a_cell()
    cell.call(ALICE, "suspendVm", instance="vm1")
    if where != "Suspending":
        cell.work()
    if where in ("Pending", "Resuming"):
        for host in ("h1", "h2"):
            cell.call(ADMIN, "setHostState", host=host, state="Drained" if where == "Pending" else "Normal")
        cell.call(ALICE, "resumeVm", instance="vm1")
    assert cell.state() == where
    cell.delete("r")
    cell.work()
    assert (cell.state(), h1.domains, h2.domains, is_free(cell, 1), is_free(cell, 2)) == ("none", {}, {}, True, True)
    assert cell.saved == set()
    assert [reply["status"] for reply in cell.replies if reply["verb"] == "deletecompute"] == ["OK"]


@pytest.mark.parametrize("fate", ["runs", "saved", "gone"])
def test_a_silent_host_while_it_suspends(fate: str) -> None:
    """It is Suspending until its host says what has become of it."""
    cell, h1, _ = a_cell()
    cell.call(ALICE, "suspendVm", instance="vm1")
    h1.lose_link()
    if fate != "runs":
        h1.domains.clear()
    if fate == "saved":
        cell.saved.add(saved(cell))
    cell.live(60)
    assert (cell.state(), cell.instance().decayed) == ("Suspending", True)
    h1.login(cell)
    cell.work()
    assert cell.state() == ("Orphaned" if fate == "gone" else "Suspended")
    assert cell.instance().decayed == (fate == "gone")
    for _ in range(2):
        h1.tell(*h1.all(), full=True)
        cell.live(11)
    cell.work()
    assert cell.state() == ("none" if fate == "gone" else "Suspended")


def test_a_saved_memory_that_its_host_does_not_see() -> None:
    """A host without the share misses an instance whose suspension was finished: while its memory is kept no list ends it."""
    cell, h1, _ = a_cell()
    cell.call(ALICE, "suspendVm", instance="vm1")
    cell.settle()
    (order,) = h1.orders
    h1.domains.clear()
    h1.work()
    cell.saved.add(saved(cell))
    for _ in range(3):
        h1.tell(full=True)
        cell.live(11)
    assert (cell.state(), cell.instance().reason, cell.saved) == ("Orphaned", "missing on h1, end not seen", {saved(cell)})
    assert isinstance(order, Suspend)


@pytest.mark.parametrize("kept", [True, False])
def test_o1_suspended_after_the_backup(kept: bool) -> None:
    """O1: an instance that runs by its restored record, and that no host has, is Suspended where its memory is kept, and goes on."""
    cell, h1, _ = a_cell()
    h1.domains.clear()
    if kept:
        cell.saved.add(saved(cell))
    for _ in range(3):
        h1.tell(full=True)
        cell.live(11)
    assert cell.state() == ("Suspended" if kept else "none")
    if kept:
        assert "resumeVm continues it" in cell.instance().reason
        cell.call(ALICE, "resumeVm", instance="vm1")
        cell.work()
        assert cell.state() == "Running"


def test_a_suspension_whose_memory_is_kept_goes_on() -> None:
    """A host that does not see the saved memory just now is asked again, and tells when it does."""
    cell, h1, _ = a_cell()
    cell.call(ALICE, "suspendVm", instance="vm1")
    cell.settle()
    cell.saved.add(saved(cell))
    h1.orders.clear()
    h1.domains.clear()
    h1.tell(seen(cell.instance(), Seen.MISSING, done=True, refused="the share is away"))
    assert cell.state() == "Suspending"
    h1.tell(seen(cell.instance(), Seen.SAVED, done=True))
    assert cell.state() == "Suspended"


def test_gone_while_it_suspends() -> None:
    """A host that says the domain is gone, and has not heard of the suspension, is asked: somebody before it may have saved it."""
    cell, h1, _ = a_cell()
    cell.call(ALICE, "suspendVm", instance="vm1")
    generation = h1.domains.pop(1)
    cell.saved.add(saved(cell))
    h1.tell(Observation(instance_id=1, generation=generation, seen=Seen.GONE, reason="saved"))
    cell.settle()
    assert cell.state() == "Suspending"
    assert [type(order) for order in h1.orders] == [Suspend]
    cell.work()
    assert cell.state() == "Suspended"


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("who", ["manager", "host"])
def test_a_restart_at_any_step(who: str, step: int) -> None:
    """Whoever is killed and begins again, and whenever, it is suspended and goes on."""
    cell, h1, h2 = a_cell()

    def restart() -> None:
        if who == "manager":
            cell.restart()
        else:
            h1.restart()
            h2.restart()

    cell.call(ALICE, "suspendVm", instance="vm1")
    play(cell, step, restart)
    assert (cell.state(), h1.domains, cell.saved) == ("Suspended", {}, {saved(cell)})
    cell.call(ALICE, "resumeVm", instance="vm1")
    play(cell, step, restart)
    assert (cell.state(), cell.saved, len(h1.domains) + len(h2.domains)) == ("Running", set(), 1)
    assert [step for step in steps(cell) if step.endswith("Running")] == ["Resuming -> Running"]


def test_a_silent_host_while_it_resumes() -> None:
    """It is Resuming until its host is back, and is started nowhere else meanwhile."""
    cell, _, _ = a_cell()
    suspend(cell)
    cell.call(ALICE, "resumeVm", instance="vm1")
    host = next(agent for agent in cell.agents if agent.orders)
    host.lose_link()
    cell.live(60)
    assert (cell.state(), [agent.domains for agent in cell.agents]) == ("Resuming", [{}, {}])
    host.login(cell)
    cell.work()
    assert (cell.state(), list(host.domains), cell.instance().decayed) == ("Running", [1], False)


def test_suspended_on_its_way_from_a_move() -> None:
    """An instance that was moved and suspended does not resume on, nor is forgotten before, a host that has yet to be cleared."""
    cell, h1, _ = a_cell()
    for agent in cell.agents:
        agent.facts = some_facts(cores=1, memory=4096, hypervisor="test")
        agent.tell()
    cell.call(ALICE, "migrateVm", instance="vm1", dst="h2")
    for _ in range(3):
        cell.settle()
        for agent in cell.agents:
            agent.work(1)
    h1.lose_link()
    cell.settle()
    cell.work()
    assert (cell.state(), [one.host_id for one in cell.instance().residue]) == ("Running", [1])
    suspend(cell)
    cell.call(ADMIN, "setHostState", host="h2", state="Drained")
    cell.call(ALICE, "resumeVm", instance="vm1")
    cell.live(60)
    cell.delete("r")
    cell.settle()
    assert cell.state() == "Destroying"
    h1.login(cell)
    cell.work()
    assert (cell.state(), is_free(cell, 1), is_free(cell, 2)) == ("none", True, True)
    assert [reply["status"] for reply in cell.replies if reply["verb"] == "deletecompute"] == ["OK"]
