"""Guests that are shrunk for the more important and grown back: what is asked, told and recorded, and what no accident makes untrue."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tashi.errors import YourMistake
from tashi.manager import squeezing
from tashi.manager.draining import Draining
from tashi.model.instance import Instance, Resources
from tashi.model.orders import Adapt, Deed, Start
from tashi.model.user import Principal, User
from tashi.scheduling.check import check
from tashi.scheduling.fleet import Fleet
from tashi.scheduling.placing.primitive import plan
from tashi.scheduling.plan import Grow, Plan, Postpone, Shrink
from tashi.scheduling.snapshot import Snapshot
from tashi.scheduling.squeezing import RETRY_AFTER, grow, squeeze
from tests.builders import ADMIN, ISM, a_spec, some_facts
from tests.small_cell import FakeAgent, SmallCell, result_of

ALICE = Principal(name="alice", user_id=1000)
GOLD = 1002


class Guests(FakeAgent):
    """A host of 1024 MB that knows what each of its guests may really use."""

    def __init__(self, name: str, **facts: Any) -> None:
        super().__init__(name, some_facts(**{"memory": 1024, **facts}))
        self.real: dict[int, int] = {}
        self.refuses = self._adapt
        self.unwilling = ""

    def _adapt(self, deed: Deed) -> str:
        if isinstance(deed, Adapt) and deed.wished.memory is not None and not self.unwilling:
            self.real[deed.instance_id] = deed.wished.memory
        return self.unwilling if isinstance(deed, Adapt) else ""

    def used(self, cell: SmallCell) -> int:
        """MB that its guests may use together."""
        return sum(self.real.get(number, cell.manager.cluster.instances[number].memory) for number in self.domains)


def _cell(*hosts: FakeAgent, **low: Any) -> SmallCell:
    """A cell with gold's user; alice's low runs there with 1000 MB."""
    cell = SmallCell(hosts=hosts or [Guests("h1")], provision_timeout=3000.0)
    with cell.manager.cluster.transaction("register_gold") as tx:
        tx.put_user(User(id=GOLD, name="gold", priority=100))
    cell.create(a_spec("low", resource_id="low", **{"memory": 1000, **low}))
    cell.work()
    assert cell.state("low") == "Running"
    return cell


def _gold(cell: SmallCell, memory: int = 512, name: str = "gold") -> None:
    cell.create(a_spec(name, user_id=GOLD, memory=memory, resource_id=name), stanza=name)
    cell.settle()


def _snapshot(cell: SmallCell) -> Snapshot:
    cluster = cell.manager.cluster
    priorities = {user.id: user.priority for user in cluster.users.values()}
    waiting = [cluster.instances[number] for number in cluster.pending]
    return Snapshot(
        hosts=dict(cluster.hosts),
        placed={host_id: tuple(cluster.instances[number] for number in sorted(group)) for host_id, group in cluster.on_host.items()},
        loads={host_id: load.copy() for host_id, load in cluster.loads.items()},
        pending=tuple(sorted(waiting, key=lambda one: (-priorities[one.user_id], one.id))),
        settings=cell.settings.scheduling,
        priorities=priorities,
        time=cell.clock.seconds(),
    )


def _plan(cell: SmallCell) -> None:
    """Have shrunk and grown what a plan wants now, if it is not being done already."""
    cell.settle()
    snapshot = _snapshot(cell)
    fleet = Fleet(snapshot)
    waits = [action for action in plan(snapshot).actions if isinstance(action, Postpone)]
    actions = [*squeeze(fleet, waits), *grow(fleet)]
    assert check(Plan(actions=tuple(actions)), snapshot) == ()
    with cell.manager.cluster.transaction("squeeze") as tx:
        for action in actions:
            instance = tx.instance(action.instance_id)
            assert instance is not None
            carry_out = squeezing.shrink(tx, instance, action) if isinstance(action, Shrink) else squeezing.grow(tx, instance, action)
            assert carry_out is not None
    cell.settle()


def _memory(instance: Instance) -> tuple[int | None, int | None, int]:
    """What its guest may use, what it had before, and what room it takes."""
    return instance.resources.memory, instance.shrunk_from, instance.taken_memory


def _shrunk() -> SmallCell:
    """A cell where low has been shrunk to 512 MB for gold, which runs; another host has no room for either."""
    cell = _cell()
    _gold(cell)
    _plan(cell)
    cell.work()
    assert (cell.state("gold"), _memory(cell.instance("low"))) == ("Running", (512, 1000, 512))
    return cell


def _adapted(cell: SmallCell) -> list[tuple[int, int, str]]:
    events = [event for event in cell.events if event.get("action") == "adapted"]
    return [(event["before"]["memory"], event["after"]["memory"], event["reason"]) for event in events]


def test_the_whole_story() -> None:
    """Low gives what gold lacks, gold runs as soon as it has been given, and low has it again when gold has gone; each step is told."""
    cell = _cell()
    _gold(cell)
    _plan(cell)
    assert (_memory(cell.instance("low")), cell.state("gold")) == ((1000, 1000, 1000), "Pending")
    assert [order.wished for order in cell.agents[0].orders if isinstance(order, Adapt)] == [Resources(memory=512)]
    _plan(cell)
    assert len(cell.agents[0].orders) == 1
    cell.work()
    assert (cell.state("gold"), cell.manager.cluster.loads[1].memory) == ("Running", 1024)
    (row, _) = cell.call(ALICE, "getInstances")
    assert (row["memory"], row["reason"]) == (512, "shrunk from 1000 to 512 MB to make room for gold (priority 100, its own is 0)")
    _plan(cell)
    assert cell.agents[0].orders == []
    cell.delete("gold")
    cell.work()
    _plan(cell)
    assert (_memory(cell.instance("low")), cell.manager.cluster.loads[1].memory) == ((512, 1000, 512), 1000)  # kept as soon as it is asked
    cell.work()
    assert (_memory(cell.instance("low")), cell.instance("low").shrunk_why) == ((1000, None, 1000), "")
    assert _adapted(cell) == [
        (1000, 512, "memory: 1000 -> 512, to make room for gold (priority 100, its own is 0)"),
        (512, 1000, "memory: 512 -> 1000, there is room again"),
    ]


def test_no_fault_of_what_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """To be shrunk is no failure of what somebody waits for: a change that is made, or a move off a host that is being emptied."""
    cell = _shrunk()
    (row,) = result_of(Deferred.fromCoroutine(cell.manager.verbs.call(ADMIN, "waitFor", {"ids": [1], "until": "adapted"})))
    assert row["ok"] and row["reason"].startswith("shrunk from 1000")
    monkeypatch.setattr(Draining, "run", lambda self: None)  # it finds nothing yet
    cell.call(ADMIN, "drainHost", host="h1")
    wait = Deferred.fromCoroutine(cell.manager.verbs.call(ADMIN, "waitFor", {"ids": [1], "until": "migrated"}))
    cell.settle()
    assert not wait.called


def test_explained_as_long_as_it_is_so() -> None:
    """explain says once why a guest has less than its memory, whatever else has been done to it since."""
    cell = _shrunk()
    words = "shrunk from 1000 to 512 MB to make room for gold (priority 100, its own is 0)"
    assert cell.call(ALICE, "explain", instance="low").count(words) == 1
    cell.call(ALICE, "adaptCpuShare", instance="low", share=500)
    cell.work()
    assert cell.instance("low").reason == ""
    assert cell.call(ALICE, "explain", instance="low").count(words) == 1
    cell.delete("gold")
    cell.work()
    _plan(cell)
    cell.work()
    assert "shrunk" not in cell.call(ALICE, "explain", instance="low")


def test_given_back_in_parts() -> None:
    """With some of the room back low has some of its memory back, and the rest later."""
    cell = _shrunk()
    cell.delete("gold")
    cell.work()
    _gold(cell, 200, "small")
    _plan(cell)
    cell.work()
    assert _memory(cell.instance("low")) == (824, 1000, 824)
    cell.delete("small", "d2")
    cell.work()
    _plan(cell)
    cell.work()
    assert _memory(cell.instance("low")) == (1000, None, 1000)


def test_refused() -> None:
    """A guest that does not give is as it was, keeps its room, and is asked again only after a while; the audit trail has it."""
    cell = _cell()
    (agent,) = cell.agents
    agent.unwilling = "the guest's balloon stands"
    _gold(cell)
    for _ in range(3):
        _plan(cell)
        cell.work()
    low = cell.instance("low")
    assert (_memory(low), low.tasks, cell.manager.cluster.loads[1].memory, cell.state("gold")) == ((1000, None, 1000), (), 1000, "Pending")
    told = [event["result"] for event in cell.events if event.get("verb") == "shrink"]
    assert (told, low.reason) == (["refused: the guest's balloon stands"], "the guest's balloon stands")
    agent.unwilling = ""
    cell.clock.advance(RETRY_AFTER)
    agent.login(cell)
    _plan(cell)
    cell.work()
    assert (cell.state("gold"), cell.instance("low").resize_failed_at) == ("Running", 0.0)


def test_refused_to_grow() -> None:
    """One that cannot have its memory back counts as if it had, since it may; it is asked again after a while."""
    cell = _shrunk()
    cell.delete("gold")
    cell.work()
    cell.agents[0].unwilling = "no"
    for _ in range(3):
        _plan(cell)
        cell.work()
    assert (_memory(cell.instance("low")), cell.manager.cluster.loads[1].memory) == ((1000, 1000, 1000), 1000)
    assert [event["result"] for event in cell.events if event.get("verb") == "grow"] == ["refused: no"]
    cell.agents[0].unwilling = ""
    cell.clock.advance(RETRY_AFTER)
    cell.agents[0].login(cell)
    _plan(cell)
    cell.work()
    assert (_memory(cell.instance("low")), cell.agents[0].used(cell)) == ((1000, None, 1000), 1000)


def test_a_balloon_that_stands_short() -> None:
    """What the hypervisor has counts, but one that was given all it had is not shrunk any more."""
    cell = _cell()
    (agent,) = cell.agents
    agent.gives = lambda wished: Resources(memory=(wished.memory or 0) + (1 if (wished.memory or 0) < 1000 else -1))
    _gold(cell)
    _plan(cell)
    agent.work()
    assert _memory(cell.instance("low")) == (513, 1000, 513)
    _plan(cell)
    cell.work()
    assert (_memory(cell.instance("low")), cell.state("gold")) == ((498, 1000, 498), "Running")
    cell.delete("gold")
    cell.work()
    _plan(cell)
    cell.work()
    assert _memory(cell.instance("low")) == (999, None, 1000)


def test_the_owners_limit() -> None:
    """Its owner cannot set the limit of one that is or is being shrunk, and reads why; all else can be adapted."""
    cell = _cell()
    _gold(cell)
    _plan(cell)
    for _ in range(2):
        for limit in (900, 100):
            with pytest.raises(YourMistake) as caught:
                cell.call(ALICE, "adaptMemoryLimit", instance="low", limit=limit)
            assert caught.value.code == "conflict"
            assert "the scheduler has shrunk low from 1000 MB to make room for gold (priority 100, its own is 0)" in caught.value.message
        cell.work()
    cell.call(ALICE, "adaptCpuShare", instance="low", share=77)
    cell.work()
    assert (cell.instance("low").cpu_share, _memory(cell.instance("low"))) == (77, (512, 1000, 512))


def test_a_limit_that_was_the_owners() -> None:
    """One that was limited before loses one step, gives all it did without, and has its own limit and all its room back."""
    cell = _cell()
    cell.call(ALICE, "adaptMemoryLimit", instance="low", limit=300)
    cell.work()
    assert _memory(cell.instance("low")) == (300, None, 1000)
    _gold(cell)
    _plan(cell)
    assert (cell.state("gold"), cell.manager.cluster.loads[1].memory) == ("Pending", 1000)
    cell.work()
    assert (cell.state("gold"), _memory(cell.instance("low"))) == ("Running", (284, 300, 284))
    cell.delete("gold")
    cell.work()
    _plan(cell)
    assert cell.manager.cluster.loads[1].memory == 1000
    cell.work()
    assert _memory(cell.instance("low")) == (300, None, 1000)


def test_suspended() -> None:
    """While its memory changes it is not suspended; suspended and resumed it is as large as it was, and grows where it goes on."""
    cell = _cell()
    _gold(cell)
    _plan(cell)
    with pytest.raises(YourMistake) as caught:
        cell.call(ALICE, "suspendVm", instance="low")
    assert (caught.value.code, "by the scheduler" in caught.value.message) == ("busy", True)
    cell.work()
    cell.call(ALICE, "suspendVm", instance="low")
    cell.work()
    assert (cell.state("low"), cell.manager.cluster.loads[1].memory) == ("Suspended", 512)
    cell.call(ALICE, "resumeVm", instance="low")
    cell.work()
    assert (_memory(cell.instance("low")), cell.manager.cluster.loads[1].memory) == ((512, 1000, 512), 1024)
    cell.delete("gold")
    cell.work()
    _plan(cell)
    cell.work()
    assert _memory(cell.instance("low")) == (1000, None, 1000)


def test_paused_and_reset_meanwhile() -> None:
    """One that is paused while it is shrunk gives its memory when it runs again; till then it counts as it was."""
    cell = _cell()
    _gold(cell)
    _plan(cell)
    cell.call(ALICE, "pauseVm", instance="low")
    cell.work()
    assert (cell.state("low"), _memory(cell.instance("low")), cell.state("gold")) == ("Paused", (1000, 1000, 1000), "Pending")
    cell.call(ALICE, "unpauseVm", instance="low")
    cell.work()
    assert (cell.state("gold"), _memory(cell.instance("low"))) == ("Running", (512, 1000, 512))
    cell.call(ALICE, "vmmSpecificCall", instance="low", arg="reset")
    cell.work()
    assert _memory(cell.instance("low")) == (512, 1000, 512)


def test_moved() -> None:
    """It moves to where there is room for what it has, and grows there."""
    cell = _shrunk()
    cell.join(Guests("h2", memory=700))
    cell.call(ALICE, "migrateVm", instance="low", dst="h2")
    cell.work()
    assert (cell.instance("low").host_id, cell.manager.cluster.loads[2].memory, cell.manager.cluster.loads[1].memory) == (2, 512, 512)
    _plan(cell)
    cell.work()
    assert (_memory(cell.instance("low")), cell.manager.cluster.loads[2].memory) == ((700, 1000, 700), 700)


def test_begun_again() -> None:
    """Begun again with other cores it is as small as it was, on no more room than that; with a size asked for anew it is what is asked."""
    cell = _shrunk()
    cell.update("low", cores=2, restart=True)
    cell.settle()
    assert (cell.state("low"), cell.manager.cluster.loads[1].memory) == ("Restarting", 1024)
    cell.agents[0].work()
    cell.settle()
    (start,) = cell.agents[0].orders
    assert isinstance(start, Start)
    assert (start.memory, start.memory_limit, start.cores) == (1000, 512, 2)
    cell.work()
    assert (_memory(cell.instance("low")), cell.instance("low").state.name) == ((512, 1000, 512), "Running")
    cell.update("low", "u2", cores=1, memory=1000, restart=True)
    cell.settle()
    assert cell.replies[-1]["code"] == "no-suitable-host"
    cell.update("low", "u3", cores=1, memory=400, restart=True)
    cell.work()
    assert (_memory(cell.instance("low")), cell.manager.cluster.loads[1].memory) == ((400, None, 400), 912)


def test_things_have_changed_meanwhile() -> None:
    """What is planned of one that has something else to do by now, or no room any more, is left undone."""
    cell = _shrunk()
    cluster = cell.manager.cluster
    low = cell.instance("low")
    with cluster.transaction("too_late") as tx:
        assert squeezing.grow(tx, low, Grow(instance_id=low.id, memory=600)) is None
        assert squeezing.shrink(tx, low, Shrink(instance_id=low.id, memory=512)) is None
    cell.delete("gold")
    cell.work()
    cell.call(ALICE, "adaptCpuShare", instance="low", share=77)
    busy = cell.instance("low")
    with cluster.transaction("busy") as tx:
        assert squeezing.grow(tx, busy, Grow(instance_id=low.id, memory=600)) is None
        assert squeezing.shrink(tx, busy, Shrink(instance_id=low.id, memory=100)) is None
    assert cell.instance("low") == busy


@pytest.mark.parametrize("seed", range(24))
def test_no_accident_gives_more_than_there_is(seed: int) -> None:
    """Whatever is killed, lost, refused or asked in between, guests together never may use more than their host has; and in the end
    everybody has what it had."""
    chance = Random(seed)
    cell = _cell()
    (agent,) = cell.agents
    cell.create(a_spec("more", resource_id="more", memory=20), stanza="more")
    cell.work()
    for number in range(40):
        agent.unwilling = chance.choice(["", "", "", "no"])
        match chance.randrange(8):
            case 0:
                _gold(cell, chance.choice([100, 400, 900]), f"gold{number}")
            case 1:
                doomed = [one.name for one in cell.manager.cluster.instances.values() if one.user_id == GOLD]
                if doomed:
                    cell.delete(chance.choice(doomed), f"d{number}", ISM)
            case 2:
                cell.restart()
            case 3:
                agent.restart()
            case 4:
                agent.tell = lambda *ignored, **fields: None  # type: ignore[method-assign]
                agent.work(1)  # its word is lost
                vars(agent).pop("tell")
            case 5:
                cell.clock.advance(RETRY_AFTER)
                agent.login(cell)
            case _:
                agent.work(1)
        if chance.random() < 0.7:
            _plan(cell)
        cell.settle()
        assert agent.used(cell) <= 1024
        assert cell.manager.cluster.loads[1].memory <= 1024
    agent.unwilling = ""
    for one in list(cell.manager.cluster.instances.values()):
        if one.user_id == GOLD:
            cell.delete(one.id, f"end{one.id}", ISM)
    for _ in range(4):
        agent.login(cell)
        cell.work()
        cell.clock.advance(RETRY_AFTER)
        agent.login(cell)
        _plan(cell)
        cell.work()
    assert [(*_memory(cell.instance(name)), cell.instance(name).tasks) for name in ("low", "more")] == [
        (1000, None, 1000, ()),
        (20, None, 20, ()),
    ]
