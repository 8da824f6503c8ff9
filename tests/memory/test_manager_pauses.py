"""What hosts do to instances by themselves, as the control plane records, tells and ends it (H6, H8)."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tashi.errors import YourMistake
from tashi.model.causes import Cause, in_words
from tashi.model.orders import Observation, Seen, Unpause
from tashi.model.user import Principal
from tests.builders import a_spec, some_facts
from tests.small_cell import FakeAgent, SmallCell, result_of

ALICE = Principal(name="alice", user_id=1000)


def a_cell() -> tuple[SmallCell, FakeAgent]:
    """A cell where vm1 runs on h1."""
    cell = SmallCell()
    agent = cell.join(FakeAgent("h1", some_facts(cores=4, memory=4096)))
    cell.create(a_spec(resource_id="r"))
    cell.work()
    assert cell.state() == "Running"
    return cell, agent


def waiting(cell: SmallCell, state: str) -> Deferred[Any]:
    """The client's --wait."""
    return Deferred.fromCoroutine(cell.manager.verbs.call(ALICE, "waitFor", {"ids": [1], "until": state}))


def last_event(cell: SmallCell) -> dict[str, Any]:
    """The last thing told of an instance."""
    return [event for event in cell.events if event["type"] == "vmAction"][-1]


def gone(agent: FakeAgent, cause: Cause) -> None:
    """The host has the instance no longer, for this cause, and says so."""
    age = agent.domains.pop(1)
    agent.tell(Observation(instance_id=1, generation=age, seen=Seen.GONE, cause=cause, reason=in_words(cause)))


@pytest.mark.parametrize(
    "cause",
    [
        Cause.NO_SPACE, Cause.IO_ERROR, Cause.WATCHDOG, Cause.PANIC, Cause.ADMINISTRATOR, Cause.SAVED_BY_HOST,
        Cause.SAVED_TO_FILE, Cause.REVERTED, Cause.MIGRATING,
    ],
)  # fmt: skip
def test_a_pause_is_told_with_why(cause: Cause) -> None:
    """H6, H8: a VM that its host paused or saved is Paused, with the reason in its record and in the event; then it runs again."""
    cell, agent = a_cell()
    agent.pause(1, cause)
    cell.settle()
    instance = cell.instance()
    assert (instance.state.name, instance.cause, instance.reason) == ("Paused", cause, in_words(cause))
    event = last_event(cell)
    assert (event["action"], event["to"], event["reason"]) == ("stateChanged", "Paused", in_words(cause))
    assert event["cause"] == cause.value
    assert cell.manager.cluster.loads[1].count == 1  # its room is kept
    agent.go_on(1)
    cell.settle()
    assert (cell.state(), cell.instance().cause, cell.instance().reason) == ("Running", None, "")
    assert "cause" not in last_event(cell)


def test_another_cause_is_told() -> None:
    """A paused instance that its host then saves is told as saved, once."""
    cell, agent = a_cell()
    cell.call(ALICE, "pauseVm", instance="vm1")
    cell.work()
    assert (cell.state(), cell.instance().cause, cell.instance().reason) == ("Paused", Cause.OWNER, "")
    agent.tell(agent.sight(1))
    count = len(cell.events)
    for _ in range(2):
        agent.pause(1, Cause.SAVED_BY_HOST)
        cell.settle()
    assert len(cell.events) == count + 1
    assert (last_event(cell)["from"], last_event(cell)["to"]) == ("Paused", "Paused")
    assert "saved by its host" in cell.instance().reason


def test_what_passes_is_no_news() -> None:
    """While a saved instance is being restored it is not told as paused for another cause."""
    cell, agent = a_cell()
    agent.pause(1, Cause.SAVED_BY_HOST)
    cell.settle()
    count = len(cell.events)
    agent.pause(1, Cause.MIGRATING)
    cell.settle()
    assert (cell.instance().cause, len(cell.events)) == (Cause.SAVED_BY_HOST, count)
    agent.go_on(1)
    cell.settle()
    assert (cell.state(), len(cell.events)) == ("Running", count + 1)


def test_unpause_without_room() -> None:
    """H6: unpauseVm on a full disk ends in Paused with the reason, as often as it is asked, and in Running when there is room."""
    cell, agent = a_cell()
    agent.pause(1, Cause.NO_SPACE)
    agent.refuses = lambda deed: "there is still no space for its disks"
    for _ in range(2):
        assert cell.call(ALICE, "unpauseVm", instance="vm1")["state"] == "Unpausing"
        wait = waiting(cell, "Running")
        cell.work()
        (row,) = result_of(wait)
        assert (row["ok"], row["state"], row["reason"]) == (False, "Paused", "there is still no space for its disks")
        assert cell.instance().cause is Cause.NO_SPACE
    agent.refuses = lambda deed: ""
    cell.call(ALICE, "unpauseVm", instance="vm1")
    cell.work()
    assert cell.state() == "Running"


def test_unpause_without_effect() -> None:
    """H6: an unpause that was done and after which the guest is paused again does not leave it Unpausing."""
    cell, agent = a_cell()
    agent.pause(1, Cause.NO_SPACE)
    cell.call(ALICE, "unpauseVm", instance="vm1")
    cell.settle()
    (order,) = agent.orders
    assert isinstance(order, Unpause)
    agent.orders.clear()
    agent.domains[1] = order.generation
    seen = agent.sight(1)
    agent.tell(Observation(instance_id=1, generation=order.generation, seen=seen.seen, cause=seen.cause, reason=seen.reason, done=True))
    cell.settle()
    assert (cell.state(), cell.instance().cause) == ("Paused", Cause.NO_SPACE)


def test_it_continues_by_itself() -> None:
    """H6: a guest that its host has continued when there was room runs, also while it is being unpaused."""
    cell, agent = a_cell()
    agent.pause(1, Cause.NO_SPACE)
    cell.call(ALICE, "unpauseVm", instance="vm1")
    agent.go_on(1)
    cell.work()
    assert cell.state() == "Running"


def test_a_pause_that_its_host_refuses() -> None:
    """A guest that its host has paused already cannot be paused by its owner, and is Paused for its host's reason."""
    cell, agent = a_cell()
    cell.call(ALICE, "pauseVm", instance="vm1")
    agent.paused.add(1)
    agent.causes[1] = Cause.NO_SPACE
    agent.refuses = lambda deed: in_words(Cause.NO_SPACE)
    cell.work()
    assert last_event(cell)["reason"] == in_words(Cause.NO_SPACE)
    assert (cell.state(), cell.instance().cause) == ("Paused", Cause.NO_SPACE)


def test_a_refused_suspend_of_a_paused_guest() -> None:
    """A deed that fails because the host has paused the guest leaves it Paused, not Running in name only."""
    cell, agent = a_cell()
    cell.call(ALICE, "suspendVm", instance="vm1")
    agent.paused.add(1)
    agent.causes[1] = Cause.IO_ERROR
    agent.refuses = lambda deed: "I/O error"
    cell.work()
    assert (cell.state(), cell.instance().cause, cell.instance().saved) == ("Paused", Cause.IO_ERROR, "")


def test_a_migration_of_a_guest_that_its_host_pauses() -> None:
    """A move that is refused while the guest is paused by its host leaves it Paused there."""
    cell, agent = a_cell()
    cell.join(FakeAgent("h2", some_facts(cores=4, memory=4096)))
    cell.call(ALICE, "migrateVm", instance="vm1", dst="h2")
    cell.settle()
    agent.paused.add(1)
    agent.causes[1] = Cause.NO_SPACE
    agent.refuses = lambda deed: "the guest does not run"
    cell.work()
    assert (cell.state(), cell.instance().cause, cell.instance().migration) == ("Paused", Cause.NO_SPACE, None)


def test_paused_when_it_arrives() -> None:
    """A move whose guest is paused when it has arrived ends in Paused at the target, and its former host clears up."""
    cell, h1 = a_cell()
    h2 = cell.join(FakeAgent("h2", some_facts(cores=4, memory=4096)))
    h2.tells_arrivals = False
    cell.call(ALICE, "migrateVm", instance="vm1", dst="h2")
    while 1 in h1.domains:
        cell.settle()
        for agent in (h1, h2):
            agent.work()
    cell.settle()
    h2.paused.add(1)
    h2.causes[1] = Cause.ADMINISTRATOR
    cell.work()
    instance = cell.instance()
    assert (instance.state.name, instance.host_id, instance.cause) == ("Paused", 2, Cause.ADMINISTRATOR)
    assert (instance.migration, instance.residue) == (None, ())


def test_saved_by_its_host_and_resumed() -> None:
    """H8: resumeVm continues what its host has saved, on that host; unpauseVm does, too."""
    for verb in ("resumeVm", "unpauseVm"):
        cell, agent = a_cell()
        agent.pause(1, Cause.SAVED_BY_HOST)
        assert cell.call(ALICE, verb, instance="vm1")["state"] == "Unpausing"
        wait = waiting(cell, "Running")
        cell.work()
        assert result_of(wait)[0]["ok"]
        assert (cell.state(), cell.instance().host_id, cell.instance().cause) == ("Running", 1, None)


def test_resume_is_not_unpause() -> None:
    """resumeVm is refused for what its owner has paused, and for what was only paused by its host."""
    cell, agent = a_cell()
    cell.call(ALICE, "pauseVm", instance="vm1")
    cell.work()
    with pytest.raises(YourMistake, match="not Suspended - it is Paused"):
        cell.call(ALICE, "resumeVm", instance="vm1")
    cell.call(ALICE, "unpauseVm", instance="vm1")
    cell.work()
    agent.pause(1, Cause.NO_SPACE)
    with pytest.raises(YourMistake, match="not Suspended - it is Paused"):
        cell.call(ALICE, "resumeVm", instance="vm1")


def test_its_host_shuts_down_and_restores_it() -> None:
    """H8: saved at the shutdown of its host it is Orphaned while that is silent; afterwards it is what its host then says of it."""
    for restored in (True, False):
        cell, agent = a_cell()
        agent.pause(1, Cause.SAVED_BY_HOST)
        agent.lose_link()
        cell.live(60)
        assert (cell.state(), cell.instance().cause) == ("Orphaned", Cause.SAVED_BY_HOST)
        if restored:
            agent.paused.clear()
        agent.login(cell)
        cell.settle()
        assert cell.state() == ("Running" if restored else "Paused")
        assert cell.instance().cause is (None if restored else Cause.SAVED_BY_HOST)


def test_the_owners_pause_survives_a_doubt() -> None:
    """What its owner had paused is paused by its owner after its host was silent, and after a restart of the control plane."""
    cell, agent = a_cell()
    cell.call(ALICE, "pauseVm", instance="vm1")
    cell.work()
    agent.lose_link()
    cell.live(60)
    assert cell.state() == "Orphaned"
    cell.restart()
    cell.settle()
    assert (cell.state(), cell.instance().cause, cell.instance().reason) == ("Paused", Cause.OWNER, "")


def test_saved_by_its_host_and_destroyed() -> None:
    """destroyVm removes what its host has saved: the order goes to that host, and the instance is gone when it says so."""
    cell, agent = a_cell()
    agent.pause(1, Cause.SAVED_BY_HOST)
    cell.call(ALICE, "destroyVm", instance="vm1")
    assert cell.state() == "Destroying"
    cell.work()
    assert (cell.state(), agent.domains) == ("none", {})


def test_migrated_away_by_somebody_else() -> None:
    """H8: an instance that somebody moves with virsh is Orphaned, told with why, and stays in the list whatever its former host lists."""
    cell, agent = a_cell()
    age = agent.domains[1]
    gone(agent, Cause.MIGRATED_AWAY)
    cell.settle()
    assert (cell.state(), cell.instance().host_id, cell.instance().cause) == ("Orphaned", 1, Cause.MIGRATED_AWAY)
    assert "migrated away by somebody else" in last_event(cell)["reason"]
    for _ in range(2):
        agent.restart()  # lists nothing
        cell.live(30)
        assert cell.state() == "Orphaned"
    cell.restart()
    cell.live(60)
    assert cell.state() == "Orphaned"
    agent.domains[1] = age  # it is moved back
    agent.tell(agent.sight(1))
    cell.settle()
    assert (cell.state(), cell.instance().cause) == ("Running", None)


def test_migrated_away_and_destroyed() -> None:
    """An instance that somebody has moved away can be destroyed: its former host clears away what it has."""
    cell, agent = a_cell()
    gone(agent, Cause.MIGRATED_AWAY)
    cell.call(ALICE, "destroyVm", instance="vm1")
    cell.work()
    assert cell.state() == "none"


def test_moved_while_a_migration_waits() -> None:
    """What somebody moves by hand while a move of ours is prepared is in doubt, and nothing of the prepared move is left in its record."""
    cell, agent = a_cell()
    cell.join(FakeAgent("h2", some_facts(cores=4, memory=4096)))
    cell.call(ALICE, "migrateVm", instance="vm1", dst="h2")
    assert cell.state() == "MigratePrep"
    agent.orders.clear()
    gone(agent, Cause.MIGRATED_AWAY)
    cell.settle()
    assert (cell.state(), cell.instance().migration) == ("Orphaned", None)


@pytest.mark.parametrize(
    ("cause", "action"),
    [(Cause.SHUT_DOWN, "destroyed"), (Cause.DESTROYED, "failed"), (Cause.CRASHED, "failed"), (Cause.UNDEFINED, "failed")],
)
def test_ends(cause: Cause, action: str) -> None:
    """H8: shut down by its guest, destroyed or undefined by an administrator and crashed are ends, each with its words."""
    cell, agent = a_cell()
    gone(agent, cause)
    cell.settle()
    assert cell.state() == "none"
    assert (last_event(cell)["action"], last_event(cell)["reason"]) == (action, in_words(cause))


def test_paused_while_it_shuts_down() -> None:
    """A guest that is paused while it shuts down is Paused with the reason, and shuts down when it continues."""
    cell, agent = a_cell()
    agent.deaf = True
    cell.call(ALICE, "shutdownVm", instance="vm1")
    cell.work()
    assert cell.state() == "ShuttingDown"
    agent.pause(1, Cause.NO_SPACE)
    cell.live(120)
    assert (cell.state(), cell.instance().grace_until) == ("Paused", None)
    agent.go_on(1)
    gone(agent, Cause.SHUT_DOWN)
    cell.settle()
    assert (cell.state(), last_event(cell)["action"]) == ("none", "destroyed")


def test_a_start_that_is_paused_at_once() -> None:
    """A created instance whose host pauses it before it has told that it runs is Paused with why, and its create is answered."""
    cell = SmallCell()
    agent = cell.join(FakeAgent("h1", some_facts()))
    cell.create()
    cell.settle()
    (order,) = agent.orders
    agent.orders.clear()
    agent.domains[1] = order.generation
    agent.paused.add(1)
    agent.causes[1] = Cause.STARTING
    agent.tell(agent.sight(1))
    cell.settle()
    assert cell.state() == "Activating"
    agent.pause(1, Cause.NO_SPACE)
    cell.settle()
    assert (cell.state(), cell.instance().cause) == ("Paused", Cause.NO_SPACE)
    assert [reply["status"] for reply in cell.replies] == ["OK"]
