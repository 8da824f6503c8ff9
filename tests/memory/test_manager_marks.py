"""Records that went back in time: the manager steps over every number that was given out, and says so (O1, A9)."""

from __future__ import annotations

import copy

import msgspec
import pytest

from tashi.errors import YourMistake
from tashi.model.causes import Cause
from tashi.model.marks import GENERATION_STEP, LOSS, MOST_TEXT, Loss, Mark, reserved, sign, verify
from tashi.model.user import Principal
from tashi.store.memory import MemoryStore
from tests.builders import ADMIN, a_login, a_spec
from tests.small_cell import FakeAgent, SmallCell


def _cell_with(*agents: FakeAgent) -> SmallCell:
    """A cell with one running instance, and what its store held then."""
    cell = SmallCell(hosts=agents)
    cell.create(a_spec("web"), stanza="a")
    cell.work()
    return cell


def _taken_back(cell: SmallCell, earlier: MemoryStore) -> None:
    """The manager ends, and starts again with the rows of an earlier moment."""
    assert isinstance(cell.store, MemoryStore)
    cell.store.rows, cell.store.runs = earlier.rows, earlier.runs
    cell.restart()


def _losses(cell: SmallCell) -> list[dict[str, object]]:
    return [event for event in cell.events if event["type"] == "cellAction"]


def test_o1_a_loss_that_the_store_knows_of_is_stepped_over_once() -> None:
    """O1: after a restore the next id, event and generation are above the old ones; storeLost is told once, and a restart tells nothing."""
    agent = FakeAgent("h1")
    cell = _cell_with(agent)
    before = cell.instance("web")
    assert isinstance(cell.store, MemoryStore)
    loss = Loss(
        reason="restored from a file",
        numbers={"instance": 1000, "event": 100_000, "outbox": 100_000, "request": 100_000},
    )
    cell.store.rows["settings"][LOSS] = msgspec.json.encode(msgspec.json.encode(loss).decode()).decode()
    cell.restart()
    cell.create(a_spec("next"), stanza="b")
    cell.work()
    (lost,) = _losses(cell)
    assert (lost["action"], lost["reason"], lost["seq"]) == ("storeLost", "restored from a file", 100_001)
    assert cell.replies[-1]["ids"] == [1001]
    assert cell.instance("web").generation == before.generation + GENERATION_STEP
    assert cell.state("web") == "Running", "what its host reports of an older order counts"
    cell.restart()
    assert len(_losses(cell)) == 1
    assert cell.instance("web").generation == before.generation + GENERATION_STEP
    assert cell.manager.store_status().warnings == ()


def _restored_while_it_starts(*, by_message: bool) -> tuple[SmallCell, FakeAgent, FakeAgent]:
    """A cell whose records are of the moment before web ran, with the host that they name; web runs on the other host, not heard of yet."""
    h1, h2 = FakeAgent("h1"), FakeAgent("h2")
    cell = SmallCell(hosts=[h1, h2])
    if by_message:
        cell.create(a_spec("web"), stanza="a")
    else:
        cell.call(ADMIN, "createVm", name="web", disks=[{"uri": "tashi"}], userId=1000)
    cell.settle()
    assert cell.state("web") == "Activating"
    earlier = copy.deepcopy(cell.store)
    assert isinstance(earlier, MemoryStore)
    named = h1 if cell.instance("web").host_id == h1.host_id else h2
    other = h2 if named is h1 else h1
    cell.work()
    other.domains[1], other.incarnations[1] = named.domains.pop(1) + 3, cell.instance("web").incarnation
    loss = Loss(reason="restored", numbers={"request": 1000, "outbox": 1000, "event": 1000})
    earlier.rows["settings"][LOSS] = msgspec.json.encode(msgspec.json.encode(loss).decode()).decode()
    for agent in (h1, h2):
        agent.lose_link()
    cell.agents.clear()
    _taken_back(cell, earlier)
    cell.join(named)
    cell.work()
    return cell, named, other


def test_o1_nothing_is_started_from_lost_records() -> None:
    """O1: an instance that the restored records were about to start is Held until every host has said what it has."""
    cell, named, other = _restored_while_it_starts(by_message=False)
    assert (cell.state("web"), cell.instance("web").cause, named.domains) == ("Held", Cause.RECORDS_LOST, {})
    with pytest.raises(YourMistake, match=other.name):
        cell.call(ADMIN, "resumeVm", instance="web")
    cell.join(other)
    cell.work()
    assert (cell.state("web"), cell.instance("web").host_id) == ("Running", other.host_id)
    assert (list(named.domains), list(other.domains)) == ([], [1])


def test_o1_an_instance_held_for_lost_records_starts_when_no_host_has_it() -> None:
    """O1: once all hosts have reported, resumeVm starts what none of them has."""
    cell, named, other = _restored_while_it_starts(by_message=False)
    other.domains.clear()
    cell.join(other)
    cell.work()
    assert cell.state("web") == "Held"
    cell.call(ADMIN, "resumeVm", instance="web")
    cell.work()
    assert (cell.state("web"), len(named.domains) + len(other.domains)) == ("Running", 1)


def test_o1_a_command_that_lost_records_may_have_answered_has_another_stanza_id() -> None:
    """O1: an open create is answered with an error, under a number that the lost records cannot have given out."""
    cell, named, _ = _restored_while_it_starts(by_message=True)
    assert (cell.replies[0]["status"], cell.replies[-1]["status"]) == ("OK", "ERROR")
    assert "records were lost" in cell.replies[-1]["message"]
    ids = [row.stanza_id for row in cell.manager.outbox.pending() if row.to]
    assert cell.state("web") == "none" and named.domains == {}
    assert all(one.endswith("-r1001") for one in ids) or not ids
    assert [request.id for request in cell.manager.cluster.requests.values()] == [1001]


def test_orders_after_a_loss_are_newer_than_those_that_were_lost() -> None:
    """A delete is carried out although the host had later orders than the records know of."""
    agent = FakeAgent("h1")
    cell = _cell_with(agent)
    earlier = copy.deepcopy(cell.store)
    assert isinstance(earlier, MemoryStore)
    agent.domains[1] += 5  # the host has heard of later orders
    earlier.rows["settings"][LOSS] = msgspec.json.encode(msgspec.json.encode(Loss(reason="restored")).decode()).decode()
    _taken_back(cell, earlier)
    assert cell.state("web") == "Running"
    cell.delete("web")
    cell.work()
    assert (cell.state("web"), agent.domains) == ("none", {})


def test_a_state_directory_that_went_back_is_noticed_by_an_agent_s_mark() -> None:
    """A9: marker and database agree, both old; the first host that logs in shows a later mark, and numbers step above it."""
    agent = FakeAgent("h1")
    cell = SmallCell(hosts=[agent])
    cell.settle()
    earlier = copy.deepcopy(cell.store)
    assert isinstance(earlier, MemoryStore)
    for name in ("a", "b", "c"):
        cell.create(a_spec(name), stanza=name)
        cell.work()
    cell.live(61)
    told = len(cell.events)
    agent.domains.clear()
    _taken_back(cell, earlier)
    (lost,) = _losses(cell)
    assert "host h1 was told of commit" in str(lost["reason"]) and "the state directory is an older copy" in str(lost["reason"])
    assert cell.manager.store_status().warnings == (f"records were lost: {lost['reason']}",)
    assert lost["seq"] == 100_001 > told
    cell.create(a_spec("d"), stanza="d")
    cell.work()
    assert cell.replies[-1]["ids"] == [1001]
    # a second host that knows as much is no news
    cell.join(FakeAgent("h2"))
    other = FakeAgent("h3")
    other.mark = sign(Mark(run="run-0", commits=10**6, numbers={"instance": 1000}), cell.manager.cluster.settings["markKey"])
    cell.join(other)
    assert len(_losses(cell)) == 1


def test_a9_a_cell_that_begins_anew_is_noticed_by_an_agent_s_mark() -> None:
    """A9: database and marker are both gone; hosts that show the marks of the lost records are a warning, three at most."""
    cell = SmallCell(hosts=[FakeAgent("h1")])
    assert cell.manager.store_status().warnings == ()
    for number in range(2, 7):
        agent = FakeAgent(f"h{number}")
        agent.mark = sign(Mark(run="lost", commits=5), "the key of the lost records")
        for _ in range(2):
            agent.login(cell, a_login(agent.name, mark=agent.mark))
    first, second, third = cell.manager.store_status().warnings
    assert "host h2 shows a mark of other records" in first and "tashi db restore FILE" in first
    assert "host h3" in second and "host h4" in third


def test_a_hostile_agent_cannot_make_a_mark() -> None:
    """A mark that this cell did not sign, or no mark at all, neither stops the cell nor moves its numbers."""
    cell = SmallCell(hosts=[FakeAgent("h1")])
    key = cell.manager.cluster.settings["markKey"]
    good = cell.agents[0].mark
    absurd = Mark(run="x", commits=10**300, numbers={"instance": 10**300})
    forged = [
        sign(absurd, "another key"),
        "0" * 64 + " " + sign(absurd, key).partition(" ")[2],
        good[:-1],
        good.replace('"commits":', '"commits":9'),
        "x" * 10**6,
        "\x00é " * 10,
    ]
    for number, mark in enumerate(forged):
        agent = FakeAgent(f"e{number}")
        agent.login(cell, a_login(agent.name, mark=mark))
    cell.settle()
    assert _losses(cell) == []
    cell.create(a_spec("web"), stanza="a")
    cell.work()
    assert cell.replies[-1]["ids"] == [1]


def test_agents_are_told_marks_as_time_goes_by() -> None:
    """An agent that stays logged in keeps a mark that is at most a minute old."""
    agent = FakeAgent("h1")
    cell = SmallCell(hosts=[agent])
    at_login = agent.mark
    cell.create(a_spec("web"), stanza="a")
    cell.work()
    assert agent.mark == at_login
    cell.live(61)
    mark = verify(agent.mark, cell.manager.cluster.settings["markKey"])
    earlier = verify(at_login, cell.manager.cluster.settings["markKey"])
    assert mark is not None and earlier is not None
    assert mark.commits > earlier.commits and mark.numbers["instance"] == 1000


def test_a_mark_survives_its_signature_only_unchanged() -> None:
    """What was signed is read back, and is short enough to be kept."""
    mark = Mark(
        cell="c" * 36,
        run="r" * 16,
        commits=10**15,
        numbers=dict.fromkeys(("instance", "host", "user", "event"), 10**15),
    )
    text = sign(mark, "key")
    assert verify(text, "key") == mark and len(text) < MOST_TEXT
    assert verify(text, "other") is None
    assert [reserved("instance", number) for number in (0, 1, 999, 1000, 1001)] == [
        1000,
        1000,
        1000,
        2000,
        2000,
    ]


@pytest.mark.parametrize("moment", range(14))
def test_o1_records_of_any_moment_are_restored(moment: int) -> None:
    """O1: whatever was under way when the backup was made and whatever came later, no id is given twice and everything ends."""
    hosts = [FakeAgent("h1"), FakeAgent("h2")]
    cell = SmallCell(hosts=hosts)
    backup = copy.deepcopy(cell.store)
    steps = [
        lambda: cell.create(a_spec("a"), stanza="a"),
        lambda: cell.create(a_spec("b"), a_spec("c"), stanza="bc"),
        cell.work,
        lambda: cell.call(ADMIN, "pauseVm", instance=1),
        cell.work,
        lambda: cell.call(ADMIN, "unpauseVm", instance=1),
        lambda: cell.create(a_spec("d"), stanza="d"),
        cell.work,
        lambda: cell.delete("b", stanza="x"),
        lambda: cell.update("none", stanza="u"),
        cell.work,
        lambda: cell.call(ADMIN, "migrateVm", instance=1, dst="h2"),
        lambda: cell.create(a_spec("e"), stanza="e"),
        cell.work,
    ]
    for number, step in enumerate(steps):
        step()
        cell.clock.advance(0)
        if number == moment:
            backup = copy.deepcopy(cell.store)
    given = {number for reply in cell.replies for number in reply.get("ids", ())}
    assert isinstance(backup, MemoryStore)
    loss = Loss(reason="restored", numbers=cell.store.mark().numbers)
    backup.rows["settings"][LOSS] = msgspec.json.encode(msgspec.json.encode(loss).decode()).decode()
    _taken_back(cell, backup)
    cell.work()
    cell.live(40)
    cell.work()
    states = {instance.name: instance.state.name for instance in cell.manager.cluster.instances.values()}
    # what has moved or gone since the backup is in doubt until its host has listed its domains twice
    assert set(states.values()) <= {"Running", "Paused", "Orphaned"}, states
    cell.create(a_spec("new"), stanza="new")
    cell.work()
    (number,) = cell.replies[-1]["ids"]
    assert number == 1001 and number not in given
    for instance in list(cell.manager.cluster.instances.values()):
        cell.delete(instance.id, stanza=f"delete {instance.id}", who=Principal(user_id=0, name="root", admin=True))
    cell.work()
    assert cell.manager.cluster.instances == {}
