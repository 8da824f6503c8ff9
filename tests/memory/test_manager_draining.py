"""Hosts that are emptied: what runs there leaves, what cannot stays and says why, and nothing new comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from tashi.errors import YourMistake
from tashi.manager.draining import Draining, begin
from tashi.model.instance import Task
from tashi.model.orders import Migrate, Receive
from tashi.model.states import HostState
from tashi.model.user import Principal
from tashi.scheduling.snapshot import SchedulingSettings, Snapshot
from tests.builders import ADMIN, a_spec, some_facts
from tests.small_cell import FakeAgent, SmallCell, result_of

ALICE = Principal(name="alice", user_id=1000)


def a_cell(running: int = 2, others: tuple[int, ...] = (8, 8), **fields: Any) -> tuple[SmallCell, list[FakeAgent]]:
    """A cell where vm1, vm2, ... run on h1, and further hosts with so many cores."""
    cell = SmallCell()
    cell.join(FakeAgent("h1", some_facts(hypervisor="test")))
    for number in range(1, running + 1):
        cell.create(a_spec(f"vm{number}", **fields), stanza=f"s{number}")
    cell.work()
    for number, cores in enumerate(others, start=2):
        cell.join(FakeAgent(f"h{number}", some_facts(hypervisor="test", cores=cores)))
    return cell, cell.agents


def drain(cell: SmallCell, host: str = "h1") -> list[dict[str, Any]]:
    """The operator's drainHost: the rows of what the host has."""
    rows: list[dict[str, Any]] = cell.call(ADMIN, "drainHost", host=host)
    return rows


def drained(cell: SmallCell) -> int:
    """How often a host was told to be empty."""
    return len([event for event in cell.events if event.get("action") == "drained"])


def where(cell: SmallCell) -> dict[str, int | None]:
    """The host of each instance."""
    return {one.name: one.host_id for one in cell.manager.cluster.instances.values()}


def test_who_may() -> None:
    """Draining and its end are for administrators, name a host there is, and a state there is."""
    cell, _ = a_cell()
    for verb, arguments in (("drainHost", {}), ("setHostState", {"state": "Drained"})):
        with pytest.raises(YourMistake, match="for admins"):
            cell.call(ALICE, verb, host="h1", **arguments)
    for words, verb, arguments in (
        ("there is no host", "drainHost", {"host": "h9"}),
        ("host is missing", "drainHost", {}),
        ("Busy is not a valid host state", "setHostState", {"host": "h1", "state": "Busy"}),
    ):
        with pytest.raises(YourMistake, match=words):
            cell.call(ADMIN, verb, **arguments)
    assert {host.state.name for host in cell.manager.cluster.hosts.values()} == {"Normal"}


def test_all_leave() -> None:
    """What runs on a drained host moves to the emptiest others, and once it is empty that is said, once."""
    cell, (h1, _, _) = a_cell(4)
    rows = drain(cell)
    assert [row["state"] for row in rows] == ["MigratePrep"] * 4
    wait = Deferred.fromCoroutine(cell.manager.verbs.call(ADMIN, "waitFor", {"ids": [row["id"] for row in rows], "until": "migrated"}))
    assert drained(cell) == 0
    cell.work()
    assert all(row["ok"] for row in result_of(wait))
    assert (h1.domains, sorted(where(cell).values())) == ({}, [2, 2, 3, 3])
    cell.live(60)
    cell.restart()
    cell.live(5)
    assert drained(cell) == 1
    assert cell.manager.cluster.hosts[1].state.name == "Drained"


def test_an_empty_host() -> None:
    """A host that has nothing is drained at once, each time it is asked for."""
    cell, _ = a_cell(0)
    assert drain(cell) == []
    cell.settle()
    assert drained(cell) == 1
    drain(cell)
    cell.settle()
    assert drained(cell) == 2


def test_nothing_new() -> None:
    """A drained host gets nothing, until it is Normal again."""
    cell, _ = a_cell(1, others=())
    cell.call(ADMIN, "setHostState", host="h1", state="Drained")
    cell.create(a_spec("new"), stanza="new")
    cell.work()
    assert (cell.state("vm1"), cell.state("new"), cell.instance("new").reason) == ("Running", "Pending", "h1: is drained")
    cell.live(3)
    assert cell.state("vm1") == "Running"
    assert cell.call(ADMIN, "setHostState", host="h1", state="Normal")["state"] == "Normal"
    cell.work()
    assert cell.state("new") == "Running"


def test_what_fits_nowhere() -> None:
    """An instance that no host takes stays, says why of each host, and leaves as soon as one takes it."""
    cell, (_, _, h3) = a_cell(1, others=(1, 1), cores=2)
    rows = drain(cell)
    assert [(row["state"], row["reason"]) for row in rows] == [
        ("Running", "cannot leave h1: h2: has 1 cores, and the instance asks for 2; h3: has 1 cores, and the instance asks for 2")
    ]
    wait = Deferred.fromCoroutine(cell.manager.verbs.call(ADMIN, "waitFor", {"ids": [1], "until": "migrated"}))
    cell.settle()
    assert not result_of(wait)[0]["ok"]
    told = len(cell.events)
    cell.live(30)
    assert (cell.state(), len(cell.events)) == ("Running", told)
    cell.restart()
    cell.live(3)
    assert "cannot leave h1" in cell.instance().reason
    h3.facts = some_facts(hypervisor="test", cores=2)
    cell.live(3)
    cell.work()
    assert (cell.instance().host_id, cell.instance().reason, drained(cell)) == (3, "", 1)


def test_the_only_host() -> None:
    """With no other host there is nowhere to go; back to Normal nobody says so any more."""
    cell, _ = a_cell(1, others=())
    drain(cell)
    cell.settle()
    assert cell.instance().reason == "cannot leave h1: there is no other host"
    cell.call(ADMIN, "setHostState", host="h1", state="Normal")
    cell.live(3)
    assert (cell.state(), cell.instance().reason) == ("Running", "")


def test_it_goes_on_after_a_restart() -> None:
    """A draining survives the control plane."""
    cell, (h1, _, _) = a_cell(3)
    h1.lose_link()
    drain(cell)
    cell.restart()
    assert cell.manager.cluster.hosts[1].draining
    cell.live(3)
    cell.work()
    assert (h1.domains, drained(cell)) == ({}, 1)


def test_ended_before_it_is_empty() -> None:
    """A host that is made Normal again keeps what has not left; what is on its way goes on."""
    cell, (_, _, _) = a_cell(2)
    drain(cell)
    cell.call(ADMIN, "setHostState", host="h1", state="Normal")
    cell.work()
    assert sorted(where(cell).values()) == [2, 3]
    cell.live(10)
    assert drained(cell) == 0


@pytest.mark.parametrize("kind", [Receive, Migrate])
def test_a_move_that_fails(kind: type[Receive] | type[Migrate]) -> None:
    """An instance whose move failed goes to another host at once; one that no host gets is tried again after a while, not at once."""
    cell, (h1, h2, h3) = a_cell(1)
    refused: list[str] = []

    def refuse(deed: object) -> str:
        if isinstance(deed, kind):
            refused.append(str(deed.instance_id))
            return "the cable is out"
        return ""

    h1.refuses = h2.refuses = h3.refuses = refuse  # type: ignore[assignment]
    drain(cell)
    cell.work()
    assert len(refused) == 2
    assert (cell.state(), "the cable is out" in cell.instance().reason) == ("Running", True)
    cell.live(20)
    cell.work()
    assert len(refused) == 2
    cell.live(15)
    cell.work()
    assert len(refused) == 4
    h1.refuses = h2.refuses = h3.refuses = lambda deed: ""
    cell.live(32)
    cell.work()
    assert (h1.domains, cell.instance().reason, drained(cell)) == ({}, "", 1)


def test_what_does_not_run() -> None:
    """One that is paused stays and says so; when it runs again it leaves."""
    cell, (h1, _, _) = a_cell(2)
    cell.call(ALICE, "pauseVm", instance="vm1")
    cell.work()
    drain(cell)
    cell.work()
    assert (cell.state("vm1"), cell.instance("vm1").reason) == ("Paused", "cannot leave h1: it is Paused; it goes when it runs again")
    assert (list(h1.domains), drained(cell)) == ([1], 0)
    cell.call(ALICE, "unpauseVm", instance="vm1")
    cell.work()
    cell.live(3)
    cell.work()
    assert (h1.domains, drained(cell)) == ({}, 1)


def test_one_that_has_something_to_do() -> None:
    """An instance that is being adapted, or is still starting, leaves when that is done."""
    cell, (h1, _, _) = a_cell(1)
    cell.call(ADMIN, "setHostState", host="h2", state="Drained")
    cell.call(ADMIN, "setHostState", host="h3", state="Drained")
    cell.create(a_spec("new"), stanza="new")
    cell.settle()
    for host in ("h2", "h3"):
        cell.call(ADMIN, "setHostState", host=host, state="Normal")
    cell.call(ALICE, "adaptCpuShare", instance="vm1", share=7)
    drain(cell)
    assert (cell.state("vm1"), cell.state("new")) == ("Running", "Activating")
    cell.work()
    cell.live(3)
    cell.work()
    assert (h1.domains, sorted(where(cell).values()), cell.instance("vm1").cpu_share) == ({}, [2, 3], 7)


def test_two_at_once() -> None:
    """Two hosts drained together send nothing to each other."""
    cell, (h1, h2, h3) = a_cell(2)
    cell.call(ALICE, "migrateVm", instance="vm1", dst="h2")
    cell.work()
    drain(cell, "h1")
    drain(cell, "h2")
    cell.work()
    assert (h1.domains, h2.domains, sorted(h3.domains), drained(cell)) == ({}, {}, [1, 2], 2)


def test_a_silent_host() -> None:
    """A host that is down is not emptied by guesses; when it is back, it is."""
    cell, (h1, _, _) = a_cell(1)
    h1.lose_link()
    cell.live(40)
    drain(cell)
    cell.live(10)
    assert (cell.state(), drained(cell)) == ("Orphaned", 0)
    h1.login(cell)
    cell.live(3)
    cell.work()
    assert (cell.state(), h1.domains, drained(cell)) == ("Running", {}, 1)


class Aside:
    """A thread that does its work when it is told to."""

    def __init__(self) -> None:
        self.work: list[tuple[Deferred[Any], Callable[[], Any]]] = []

    def __call__(self, work: Callable[[], Any]) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.work.append((done, work))
        return done

    def think(self) -> Callable[[], None]:
        """Do the first work there is; the answer arrives when what is returned is called."""
        done, work = self.work.pop(0)
        found = work()
        return lambda: done.callback(found)


def look(cell: SmallCell) -> Snapshot:
    """The cluster now."""
    cluster = cell.manager.cluster
    placed = {host: tuple(cluster.instances[number] for number in sorted(numbers)) for host, numbers in cluster.on_host.items()}
    return Snapshot(hosts=dict(cluster.hosts), placed=placed, pending=(), settings=SchedulingSettings(), time=cluster.clock.seconds())


def many_hosts(cell: SmallCell, monkeypatch: pytest.MonkeyPatch) -> tuple[Draining, Aside]:
    """The draining of a cell that has too many hosts to look at them while the reactor waits; h1 is to be emptied."""
    monkeypatch.setattr("tashi.manager.draining.LIGHT", 0)
    aside = Aside()
    with cell.manager.cluster.transaction("drain_host") as tx:
        begin(tx, cell.manager.cluster.hosts[1])
    return Draining(cell.manager.cluster, cell.settings, lambda: look(cell), aside), aside


def test_a_thread_finds_the_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many hosts the targets are found aside, once at a time; what has changed meanwhile is not planned over."""
    cell, _ = a_cell(4)
    draining, aside = many_hosts(cell, monkeypatch)
    draining.run()
    draining.run()
    assert len(aside.work) == 1
    assert {cell.state(f"vm{number}") for number in range(1, 5)} == {"Running"}
    arrive = aside.think()  # vm1 and vm3 to h2, vm2 and vm4 to h3
    with cell.manager.cluster.transaction("other_things") as tx:
        tx.put_host(msgspec.structs.replace(cell.manager.cluster.hosts[2], state=HostState.Drained))
        tx.put_instance(msgspec.structs.replace(cell.instance("vm2"), tasks=(Task(),)))
    arrive()
    assert [cell.state(f"vm{number}") for number in range(1, 5)] == ["Running", "Running", "Running", "MigratePrep"]
    draining.run()
    aside.think()()
    assert [cell.state(f"vm{number}") for number in range(1, 5)] == ["MigratePrep", "Running", "MigratePrep", "MigratePrep"]
    assert {one.migration.target for one in cell.manager.cluster.instances.values() if one.migration} == {3}


def test_a_search_that_is_out_of_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent away, and nothing said, when the host is in service again before the targets are found."""
    cell, _ = a_cell(2, others=(8, 1), cores=2)
    draining, aside = many_hosts(cell, monkeypatch)
    draining.run()
    arrive = aside.think()
    cell.call(ADMIN, "setHostState", host="h1", state="Normal")
    arrive()
    assert [(cell.state(name), cell.instance(name).reason) for name in ("vm1", "vm2")] == [("Running", "")] * 2


def test_no_search_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what no host takes nothing is searched again until something has changed."""
    cell, _ = a_cell(1, others=(1, 1), cores=2)
    draining, aside = many_hosts(cell, monkeypatch)
    for _ in range(2):  # the second time for what it has said itself
        draining.run()
        aside.think()()
    assert cell.instance().reason.startswith("cannot leave h1: h2: has 1 cores")
    draining.run()
    assert aside.work == []
    with cell.manager.cluster.transaction("more_cores") as tx:
        tx.put_host(msgspec.structs.replace(cell.manager.cluster.hosts[3], facts=some_facts(hypervisor="test", cores=2)))
    draining.run()
    aside.think()()
    assert (cell.state(), cell.instance().reason) == ("MigratePrep", "moves to h3, asked by the draining of h1")


def test_a_search_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that breaks is told in the log, and the next pass searches again."""
    cell, _ = a_cell(1)
    draining, aside = many_hosts(cell, monkeypatch)
    draining.run()
    with capturedLogs() as logged:
        aside.work.pop()[0].errback(ZeroDivisionError("one too many"))
    assert [event["log_format"] for event in logged] == ["targets for what is on drained hosts were not found"]
    draining.run()
    aside.think()()
    assert cell.state() == "MigratePrep"


def test_whoever_waits_until_it_has_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that waits for those of a drained host to move is answered when they have, or when it is known that they cannot."""
    cell, _ = a_cell(2, others=(1, 1))
    monkeypatch.setattr(Draining, "run", lambda self: None)  # the cell's own one finds nothing yet
    cell.call(ADMIN, "drainHost", host="h1")
    wait = Deferred.fromCoroutine(cell.manager.verbs.call(ADMIN, "waitFor", {"ids": [1, 2], "until": "migrated"}))
    cell.settle()
    assert not wait.called
    monkeypatch.undo()
    cell.call(ALICE, "pauseVm", instance="vm2")
    cell.work()
    assert [(row["id"], row["ok"]) for row in result_of(wait)] == [(1, True), (2, False)]


def test_whoever_waits_when_the_host_is_in_service_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that waits for those of a drained host to move is answered when they need not move any more."""
    cell, _ = a_cell(1)
    monkeypatch.setattr(Draining, "run", lambda self: None)
    cell.call(ADMIN, "drainHost", host="h1")
    wait = Deferred.fromCoroutine(cell.manager.verbs.call(ADMIN, "waitFor", {"ids": [1], "until": "migrated"}))
    cell.settle()
    assert not wait.called
    cell.call(ADMIN, "setHostState", host="h1", state="Normal")
    assert result_of(wait)[0]["state"] == "Running"
