"""Wishes about instances that run: pause, unpause, shut down, reset; what hosts make of them, and what is told."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tashi.errors import YourMistake
from tashi.model.orders import Pause, Reset
from tashi.model.user import Principal
from tests.small_cell import FakeAgent, SmallCell, result_of

ALICE = Principal(name="alice", user_id=1000)


def _running(**settings: Any) -> tuple[SmallCell, FakeAgent]:
    """A cell with one host where web runs."""
    cell = SmallCell(hosts=[FakeAgent("h1")], **settings)
    cell.call(ALICE, "createVm", name="web", disks=[{"uri": "tashi"}])
    cell.work()
    return cell, cell.agents[0]


def _steps(cell: SmallCell) -> list[str]:
    return [f"{event['from']} -> {event['to']}" for event in cell.events if event.get("action") in ("stateChanged", "destroyed")]


def _refused(cell: SmallCell, verb: str, **arguments: Any) -> str:
    with pytest.raises(YourMistake) as caught:
        cell.call(ALICE, verb, instance="web", **arguments)
    return caught.value.message


def test_pause_and_unpause() -> None:
    """A running instance is paused, a paused one goes on, and each step is told."""
    cell, agent = _running()
    assert cell.call(ALICE, "pauseVm", instance="web")["state"] == "Pausing"
    cell.work()
    assert (cell.state("web"), agent.paused) == ("Paused", {1})
    assert cell.call(ALICE, "unpauseVm", instance="web")["state"] == "Unpausing"
    cell.work()
    assert (cell.state("web"), agent.paused) == ("Running", set())
    assert _steps(cell)[1:] == ["Running -> Pausing", "Pausing -> Paused", "Paused -> Unpausing", "Unpausing -> Running"]


def test_wrong_state() -> None:
    """Each wish says which state it needs and which it found, and changes nothing."""
    cell, _ = _running()
    assert _refused(cell, "unpauseVm") == "VmState is not Paused - it is Running"
    cell.call(ALICE, "pauseVm", instance="web")
    cell.work()
    for verb, arguments in (("pauseVm", {}), ("shutdownVm", {}), ("vmmSpecificCall", {"arg": "reset"})):
        assert _refused(cell, verb, **arguments) == "VmState is not Running - it is Paused"
    assert cell.state("web") == "Paused"


def test_refused_pause() -> None:
    """An instance that cannot be paused runs on, with the host's words as its reason."""
    cell, agent = _running()
    agent.refuses = lambda deed: "the guest is stubborn"
    cell.call(ALICE, "pauseVm", instance="web")
    wait = Deferred.fromCoroutine(cell.manager.verbs.call(ALICE, "waitFor", {"ids": [1], "until": "Paused"}))
    cell.work()
    assert result_of(wait) == [{"id": 1, "ok": False, "state": "Running", "reason": "the guest is stubborn"}]


def test_lost_pause() -> None:
    """A pause whose order was lost with its link is repeated when the host is back, over a restart of the control plane, too."""
    cell, agent = _running()
    cell.call(ALICE, "pauseVm", instance="web")
    agent.lose_link()
    cell.restart()
    assert [type(order) for order in agent.orders] == [Pause]
    cell.work()
    assert cell.state("web") == "Paused"


def test_shutdown() -> None:
    """A guest that heeds its power button leaves the list, told as destroyed."""
    cell, _ = _running()
    cell.call(ALICE, "shutdownVm", instance="web")
    cell.work()
    assert cell.state("web") == "none"
    assert _steps(cell)[1:] == ["Running -> ShuttingDown", "ShuttingDown -> Exited"]
    assert cell.actions()[-1] == "destroyed"


def test_shutdown_unheeded() -> None:
    """A guest that does not shut down within its grace runs on and that is said, once; then its owner may ask again or destroy it."""
    cell, agent = _running(shutdown_grace=20.0)
    agent.deaf = True
    cell.call(ALICE, "shutdownVm", instance="web")
    cell.work()
    cell.live(10)
    assert "asked" in cell.instance("web").reason
    cell.restart()
    cell.live(40)
    instance = cell.instance("web")
    assert (instance.state.name, "for 20 s" in instance.reason) == ("Running", True)
    assert _steps(cell)[1:] == ["Running -> ShuttingDown", "ShuttingDown -> Running"]
    assert cell.call(ALICE, "shutdownVm", instance="web")["state"] == "ShuttingDown"
    cell.call(ALICE, "destroyVm", instance="web")
    cell.work()
    assert cell.state("web") == "none"


def test_shutdown_many() -> None:
    """All instances of a createMany are asked, or none."""
    cell, _ = _running()
    cell.call(ALICE, "createMany", instances=[{"name": f"w-{number}", "disks": [{"uri": "tashi"}]} for number in range(2)])
    cell.work()
    assert [row["state"] for row in cell.call(ALICE, "shutdownMany", basename="w")] == ["ShuttingDown"] * 2
    cell.work()
    assert [row["name"] for row in cell.call(ALICE, "getInstances")] == ["web"]


def test_reset() -> None:
    """A reset is an order of its own each time it is asked for, one after another, and the instance runs on."""
    cell, agent = _running()
    assert cell.call(ALICE, "vmmSpecificCall", instance="web", arg="LIST").split()[-2:] == ["reset", "list"]
    for arg in ("explode", "reset:hard", "", "changeCdrom"):
        assert "Unknown command" in _refused(cell, "vmmSpecificCall", arg=arg)
    generations = []
    for _ in range(2):
        assert cell.call(ALICE, "vmmSpecificCall", instance="web", arg="reset") == "Sent reset signal to instance"
    for _ in range(2):
        (order,) = agent.orders
        assert isinstance(order, Reset)
        generations.append(order.generation)
        agent.work()
        cell.settle()
    assert (generations, agent.orders, cell.state("web"), cell.instance("web").tasks) == ([2, 3], [], "Running", ())


def test_task_over_a_pause() -> None:
    """A task that a pause has overtaken is done when the instance runs again; one of an instance that is destroyed is forgotten."""
    cell, agent = _running()
    cell.call(ALICE, "vmmSpecificCall", instance="web", arg="reset")
    agent.orders.clear()
    cell.call(ALICE, "pauseVm", instance="web")
    cell.work()
    cell.call(ALICE, "unpauseVm", instance="web")
    cell.settle()
    agent.work()
    cell.settle()
    assert [type(order) for order in agent.orders] == [Reset]
    cell.call(ALICE, "destroyVm", instance="web")
    assert cell.instance("web").tasks == ()
    cell.work()
    assert cell.state("web") == "none"


def test_silent_host() -> None:
    """A wish is lost with its host's silence; what the host then says of the domain counts, though it never heard of the wish."""
    cell, agent = _running()
    cell.call(ALICE, "pauseVm", instance="web")
    agent.lose_link()
    cell.live(40)
    assert cell.state("web") == "Orphaned"
    agent.login(cell)
    cell.work()
    assert cell.state("web") == "Running"
    agent.domains.clear()
    agent.tell(full=True)
    cell.live(10)
    assert cell.state("web") == "Orphaned"
    agent.tell(full=True)
    cell.settle()
    assert cell.state("web") == "none"
