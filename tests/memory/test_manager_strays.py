"""Domains that no record accounts for, and records that are older than their domains, as after a restored backup (O1, H1)."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest

from tashi.errors import BAD_ARGUMENT, CONFLICT, FORBIDDEN, INTERNAL, UNKNOWN_ID, TashiError
from tashi.manager.strays import LONGEST_JUMP
from tashi.model.causes import Cause
from tashi.model.instance import Disk, Nic
from tashi.model.orders import Destroy, Observation, Seen, Start
from tashi.model.questions import Answer, DescribeDomain, DomainDescription, Question
from tashi.model.stray import MOST_STRAYS, DomainSummary
from tashi.store.memory import MemoryStore
from tests.builders import ADMIN, ALICE, a_spec
from tests.small_cell import FakeAgent, SmallCell

THEIRS = "a" * 32
SIZE = DomainSummary(name="lost", user_id=1001, cores=2, memory=4096)


def a_stray(number: int = 14, incarnation: str = THEIRS, **fields: Any) -> Observation:
    """What a host sees of a domain that the records may not have."""
    usual = {"instance_id": number, "generation": 5, "incarnation": incarnation, "seen": Seen.RUNNING, "domain": SIZE}
    return Observation(**(usual | fields))


def a_cell(*names: str, **settings: Any) -> SmallCell:
    """A cell with these hosts."""
    return SmallCell(hosts=[FakeAgent(name) for name in names or ("h1",)], **settings)


def strays(cell: SmallCell) -> list[tuple[int, str, str]]:
    """The id, host and name of each stray."""
    return [(row["id"], row["host"], row["name"]) for row in cell.call(ADMIN, "getStrays")]


def refusal(cell: SmallCell, verb: str, **arguments: Any) -> TashiError:
    """The error of this verb, asked for by an administrator."""
    with pytest.raises(TashiError) as caught:
        cell.call(ADMIN, verb, **arguments)
    return caught.value


def restored(cell: SmallCell, rows: dict[str, dict[int | str, str]]) -> SmallCell:
    """Start the control plane again on these rows, as after a restore; the hosts live on."""
    assert isinstance(cell.store, MemoryStore)
    cell.process.kill()
    cell.store.rows = copy.deepcopy(rows)
    for agent in cell.agents:
        agent.lose_link()
    cell._start()
    cell.settle()
    return cell


def test_o1_a_restored_backup_gives_nobody_another_ones_vm() -> None:
    """O1: root's VM, made after the backup, is a stray after the restore; alice's next one gets a new id and a domain of its own."""
    agent = FakeAgent("h1")
    cell = SmallCell(hosts=[agent])
    assert isinstance(cell.store, MemoryStore)
    backup = copy.deepcopy(cell.store.rows)
    cell.create(a_spec("roots", user_id=1001))
    cell.work()
    root = cell.instance("roots")
    restored(cell, backup)
    assert strays(cell) == [(1, "h1", "")]
    cell.create(a_spec("alices"), stanza="s2")
    cell.work()
    alice = cell.instance("alices")
    assert (alice.id, alice.state.name, alice.incarnation != root.incarnation) == (2, "Running", True)
    assert agent.domains.keys() == {1, 2} and strays(cell) == [(1, "h1", "")]
    cell.call(ALICE, "destroyVm", instance=2)
    cell.work()
    assert agent.domains.keys() == {1}


def test_o1_an_id_that_is_given_again_finds_no_foreign_domain() -> None:
    """O1: where the host with the old domain comes back only after the id was given again, the start is refused in words."""
    agent = FakeAgent("h1")
    cell = SmallCell(hosts=[agent])
    assert isinstance(cell.store, MemoryStore)
    backup = copy.deepcopy(cell.store.rows)
    cell.create(a_spec("roots", user_id=1001))
    cell.work()
    theirs = agent.domains[1]
    cell.agents.clear()
    restored(cell, backup)
    cell.create(a_spec("alices"), stanza="s2")
    cell.join(agent)
    cell.work()
    assert (cell.replies[-1]["status"], cell.state("alices"), agent.domains) == ("ERROR", "none", {1: theirs})
    assert "belongs to another instance" in cell.replies[-1]["message"]
    assert strays(cell) == [(1, "h1", "")]


def test_a_stray_is_told_once_and_shown() -> None:
    """A domain that is in no record is shown with what its host says of it, told as one event, and kept over a restart."""
    cell = a_cell()
    agent = cell.agents[0]
    for _ in range(3):
        agent.tell(a_stray())
    cell.restart()
    agent.tell(a_stray(), full=True)
    cell.settle()
    (row,) = cell.call(ADMIN, "getStrays")
    assert {name: row[name] for name in ("id", "name", "host", "state", "cores", "memory", "user")} == {
        "id": 14, "name": "lost", "host": "h1", "state": "Running", "cores": 2, "memory": 4096, "user": "bob",
    }  # fmt: skip
    found = [event for event in cell.all_events if event.get("action") == "strayFound"]
    assert [(event["type"], event["id"], event["host"]) for event in found] == [("cellAction", 14, "h1")]
    agent.tell(full=True)
    assert strays(cell) == []


def test_strays_take_room() -> None:
    """Memory and cores of a stray are not given to anybody else, and its host is not empty."""
    cell = a_cell("h1", "h2")
    cell.agents[0].tell(a_stray(domain=msgspec.structs.replace(SIZE, cores=8, memory=16000)))
    for number in range(3):
        cell.create(a_spec(f"vm{number}", memory=1024), stanza=f"s{number}")
    cell.work()
    assert {cell.instance(f"vm{number}").host_id for number in range(3)} == {2}
    row = cell.call(ADMIN, "getHosts")[0]
    assert row["strays"] == {"count": 1, "memory": 16000, "cores": 8}


def test_a1_o1_the_persistent_disk_of_a_stray_is_in_use() -> None:
    """A1, O1: nobody starts on a disk that a domain without a record has, on whatever host, until that has ended."""
    cell = a_cell("h1", "h2")
    disk = "disk-14-lost-0.img"
    cell.agents[0].tell(a_stray(domain=msgspec.structs.replace(SIZE, disks=(disk,))))
    cell.call(ADMIN, "createVm", name="thief", disks=[{"uri": disk, "persistent": True}])
    cell.work()
    assert cell.state("thief") == "Pending"
    why = f"the persistent disk {disk} is in use by stray 14 on h1, see `tashi getStrays`"
    assert why in str(cell.call(ADMIN, "explain", instance="thief"))
    cell.agents[0].tell(a_stray(seen=Seen.GONE))
    cell.work()
    assert cell.state("thief") == "Running"


def test_numbers_step_over_what_hosts_report() -> None:
    """New ids are above all that hosts report; what cannot be is ignored, and one host raises them by so much and no more."""
    cell = a_cell()
    agent = cell.agents[0]
    agent.tell(a_stray(14), a_stray(2**40), a_stray(15 + 2 * LONGEST_JUMP))
    cell.create()
    cell.work()
    assert cell.instance().id == 15
    for number in range(1, 60):
        agent.tell(a_stray(15 + number * LONGEST_JUMP // 20, domain=None))
    cell.create(a_spec("next"), stanza="s2")
    cell.work()
    assert cell.instance("next").id <= 16 + LONGEST_JUMP


def test_a_start_is_of_a_higher_generation_than_a_stray_of_its_id() -> None:
    """What lies by generation, such as overlays, is never told apart by incarnation alone."""
    cell = a_cell("h1", "h2")
    cell.agents[1].tell(a_stray(1, generation=40))
    with cell.manager.cluster.transaction("as of an older backup") as tx:
        tx._next["instance"] = 0
    cell.create()
    cell.settle()
    (start,) = [order for agent in cell.agents for order in agent.orders if isinstance(order, Start)]
    assert (start.instance_id, start.generation) == (1, 41)


def test_a_record_that_is_older_than_its_domain_catches_up() -> None:
    """O1: after a restore the same instance is known by its incarnation; its generation counts on from what its host reports."""
    agent = FakeAgent("h1")
    cell = SmallCell(hosts=[agent])
    assert isinstance(cell.store, MemoryStore)
    cell.create()
    cell.work()
    backup = copy.deepcopy(cell.store.rows)
    for verb in ("pauseVm", "unpauseVm", "pauseVm"):
        cell.call(ALICE, verb, instance="vm1")
        cell.work()
    restored(cell, backup)
    assert (cell.state(), cell.instance().generation) == ("Paused", agent.domains[1])
    cell.call(ALICE, "unpauseVm", instance="vm1")
    cell.work()
    assert (cell.state(), strays(cell)) == ("Running", [])


def test_a_waiting_record_follows_its_domain() -> None:
    """O1: a record of before the placement is not placed anew when its domain runs somewhere already."""
    agent = FakeAgent("h1")
    cell = SmallCell()
    assert isinstance(cell.store, MemoryStore)
    cell.create()
    cell.settle()
    backup = copy.deepcopy(cell.store.rows)
    cell.join(agent)
    cell.work()
    cell.agents.clear()
    restored(cell, backup)
    assert cell.state() == "Pending"
    cell.join(agent)
    cell.work()
    assert (cell.state(), cell.instance().host_id, len(agent.domains), strays(cell)) == ("Running", 1, 1, [])


def _moved(cell: SmallCell) -> tuple[FakeAgent, FakeAgent]:
    """An instance runs; its host and the other one."""
    cell.create()
    cell.work()
    here = cell.agents[0 if cell.instance().host_id == 1 else 1]
    return here, next(agent for agent in cell.agents if agent is not here)


def _sighting(here: FakeAgent) -> Observation:
    return Observation(instance_id=1, generation=here.domains[1], incarnation=here.incarnations[1], seen=Seen.RUNNING)


@pytest.mark.parametrize("first", ["source", "target"])
def test_h1_a_domain_moved_by_hand_keeps_its_record(first: str) -> None:
    """H1: an instance that somebody migrates with virsh is followed, whichever host speaks first."""
    cell = a_cell("h1", "h2")
    here, there = _moved(cell)
    seen = _sighting(here)
    gone = msgspec.structs.replace(seen, seen=Seen.GONE, cause="migrated-away", reason="migrated away")
    if first == "target":
        there.tell(seen)
        assert strays(cell) == [(1, there.name, "")]
    here.domains.clear()
    here.tell(msgspec.convert(msgspec.to_builtins(gone), Observation))
    if first == "source":
        assert cell.state() == "Orphaned"
        there.tell(seen)
    there.domains[1], there.incarnations[1] = seen.generation, seen.incarnation
    assert (cell.state(), cell.instance().host_id, strays(cell)) == ("Running", there.host_id, [])
    cell.call(ALICE, "pauseVm", instance="vm1")
    cell.work()
    assert cell.state() == "Paused" and there.paused == {1}


def test_h1_an_instance_that_was_followed_belongs_to_the_boot_of_its_new_host() -> None:
    """H1: when the host to which somebody moved a domain is rebooted at once, the instance is Held."""
    cell = a_cell("h1", "h2")
    here, there = _moved(cell)
    seen = _sighting(here)
    there.tell(seen)
    here.domains.clear()
    here.tell(msgspec.structs.replace(seen, seen=Seen.GONE, cause=Cause.MIGRATED_AWAY, reason="migrated away"))
    there.incarnations[1] = seen.incarnation
    assert (cell.state(), cell.instance().host_id) == ("Running", there.host_id)
    there.power_cut()
    there.login(cell)
    cell.work()
    assert cell.state() == "Held"


def test_h1_a_domain_moved_by_hand_while_the_cell_prepares_to_move_it_keeps_its_record() -> None:
    """H1: a move that was being prepared is void when somebody has moved the domain to a third host, and its target is cleared."""
    cell = a_cell("h1", "h2", "h3")
    cell.create()
    cell.work()
    here = next(agent for agent in cell.agents if agent.host_id == cell.instance().host_id)
    target, third = (agent for agent in cell.agents if agent is not here)
    cell.call(ALICE, "migrateVm", instance="vm1", dst=target.name)
    here.work()
    cell.settle()
    assert cell.state() == "MigratePrep"
    seen = _sighting(here)
    here.orders.clear()
    third.domains[1], third.incarnations[1] = here.domains.pop(1), seen.incarnation
    here.tell(msgspec.structs.replace(seen, seen=Seen.GONE, cause=Cause.MIGRATED_AWAY, reason="migrated away"))
    third.tell(seen)
    cell.work()
    assert (cell.state(), cell.instance().host_id, strays(cell)) == ("Running", third.host_id, [])
    assert (cell.instance().migration, cell.instance().residue, target.expected) == (None, (), {})


def test_h1_two_hosts_that_claim_one_instance_are_not_believed() -> None:
    """H1: the second one is shown as a stray, and the instance stays where its record says."""
    cell = a_cell("h1", "h2", "h3")
    cell.create()
    cell.work()
    here = next(agent for agent in cell.agents if agent.host_id == cell.instance().host_id)
    others = [agent for agent in cell.agents if agent is not here]
    for other in others:
        other.tell(_sighting(here))
    assert (cell.state(), len(strays(cell))) == ("Running", 2)
    assert all("by its record vm1 is Running" in row["reason"] for row in cell.call(ADMIN, "getStrays"))
    here.domains.clear()
    here.tell(full=True)
    cell.live(11)
    here.tell(full=True)
    assert (cell.state(), len(strays(cell))) == ("Orphaned", 2)
    assert all(not agent.orders for agent in others)


def test_destroy_stray() -> None:
    """An administrator ends a stray by an order that names its incarnation; nobody else may."""
    cell = a_cell()
    agent = cell.agents[0]
    agent.domains[14], agent.incarnations[14] = 5, THEIRS
    agent.tell(a_stray())
    with pytest.raises(TashiError) as caught:
        cell.call(ALICE, "destroyStray", host="h1", instance=14)
    assert caught.value.code == FORBIDDEN
    cell.call(ADMIN, "destroyStray", host="h1", instance=14)
    cell.settle()
    (order,) = agent.orders
    assert isinstance(order, Destroy) and (order.incarnation, order.generation) == (THEIRS, 6)
    cell.work()
    assert (agent.domains, strays(cell)) == ({}, [])
    assert refusal(cell, "destroyStray", host="h1", instance=14).code == UNKNOWN_ID


def test_destroy_stray_of_a_host_that_is_away() -> None:
    """A host without a link is said to be away."""
    cell = a_cell()
    cell.agents[0].tell(a_stray())
    cell.agents[0].lose_link()
    assert refusal(cell, "destroyStray", host="h1", instance=14).code == INTERNAL


def describing(description: DomainDescription) -> Any:
    """An agent's answers: this is the domain that is asked for."""

    def answer(question: Question) -> Answer:
        assert isinstance(question, DescribeDomain)
        return description

    return answer


DESCRIPTION = DomainDescription(
    instance_id=14,
    incarnation=THEIRS,
    name="lost",
    user_id=1001,
    cores=2,
    memory=4096,
    memory_limit=2048,
    disks=(Disk(uri="tashi.img"), Disk(uri="disk-14-lost-1.img", persistent=True)),
    nics=(Nic(network=7, mac="52:54:00:12:34:56"),),
)


def test_adopt() -> None:
    """A stray becomes its owner's instance as its host describes it, under its id and incarnation, and goes on like any other."""
    cell = a_cell()
    agent = cell.agents[0]
    agent.domains[14], agent.incarnations[14], agent.answers = 5, THEIRS, describing(DESCRIPTION)
    agent.tell(a_stray())
    row = cell.call(ADMIN, "adoptVm", host="h1", instance=14)
    assert (row["id"], row["state"], row["userId"], row["host"]) == (14, "Running", 1001, "h1")
    instance = cell.instance("lost")
    assert (instance.incarnation, instance.disks, instance.nics) == (THEIRS, DESCRIPTION.disks, DESCRIPTION.nics)
    assert (instance.memory, instance.memory_limit, strays(cell)) == (4096, 2048, [])
    assert instance.reason.startswith("adopted by ")
    agent.tell(*agent.all(), full=True)
    cell.call(ADMIN, "pauseVm", instance=14)
    cell.work()
    assert (cell.state("lost"), agent.domains.keys()) == ("Paused", {14})
    cell.call(ADMIN, "destroyVm", instance=14)
    cell.work()
    assert (cell.state("lost"), agent.domains) == ("none", {})


def test_a1_an_adopted_instance_brings_its_owner_the_disk_that_was_made_for_it() -> None:
    """A1, O1: the disk is its owner's to use after the instance; a disk that is another's is no reason to share it."""
    cell = a_cell()
    cell.agents[0].answers = describing(DESCRIPTION)
    cell.agents[0].tell(a_stray())
    cell.call(ADMIN, "adoptVm", host="h1", instance=14)
    disk = cell.manager.cluster.disks["disk-14-lost-1.img"]
    assert (disk.user_id, disk.instance_id) == (1001, 14)
    again = a_cell()
    again.agents[0].answers = describing(DESCRIPTION)
    again.agents[0].tell(a_stray())
    with again.manager.cluster.transaction("test") as tx:
        tx.put_disk(msgspec.structs.replace(disk, user_id=1000))
    error = refusal(again, "adoptVm", host="h1", instance=14)
    assert (error.code, error.message) == (
        CONFLICT, "its disk disk-14-lost-1.img belongs to user 1000; adopt it with --user 1000"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"incarnation": "b" * 32}, CONFLICT),
        ({"user_id": 4711}, BAD_ARGUMENT),
        ({"user_id": None}, BAD_ARGUMENT),
        ({"name": "../x"}, BAD_ARGUMENT),
        ({"name": "22"}, BAD_ARGUMENT),
        ({"cores": 0}, BAD_ARGUMENT),
        ({"memory": 0, "memory_limit": None}, BAD_ARGUMENT),
        ({"disks": ()}, BAD_ARGUMENT),
        ({"disks": (Disk(uri="/dev/sda"),)}, BAD_ARGUMENT),
        ({"disks": (Disk(uri="a.img"),) * 17}, BAD_ARGUMENT),
        ({"nics": (Nic(mac="ff:ff:ff:ff:ff:ff"),)}, BAD_ARGUMENT),
    ],
)
def test_adoption_checks_what_the_host_says(change: dict[str, Any], code: str) -> None:
    """A description that breaks a rule makes no record; an owner who is unknown can be named."""
    cell = a_cell()
    cell.agents[0].answers = describing(msgspec.structs.replace(DESCRIPTION, **change))
    cell.agents[0].tell(a_stray())
    assert refusal(cell, "adoptVm", host="h1", instance=14).code == code
    assert strays(cell) == [(14, "h1", "lost")] and 14 not in cell.manager.cluster.instances
    if change.get("user_id", 0) in (4711, None):
        assert cell.call(ADMIN, "adoptVm", host="h1", instance=14, user="alice", name="found")["userId"] == 1000


def test_adoption_never_takes_an_id_that_is_in_use() -> None:
    """Where a record has the id, the administrator is told to choose: that instance, or the end of this domain."""
    cell = a_cell("h1", "h2")
    cell.create()
    cell.work()
    other = next(agent for agent in cell.agents if agent.host_id != cell.instance().host_id)
    other.tell(a_stray(1))
    error = refusal(cell, "adoptVm", host=other.name, instance=1)
    assert error.code == CONFLICT and "vm1" in error.message and "destroyStray" in error.message


def test_a_hostile_host_fills_neither_memory_nor_log() -> None:
    """Of a host that reports any number of unknown domains a bounded number is kept, and as many events are told."""
    cell = a_cell()
    for page in range(20):
        cell.agents[0].tell(*(a_stray(1000 * page + number + 1) for number in range(1000)))
    cell.settle()
    assert len(strays(cell)) == MOST_STRAYS
    assert len([event for event in cell.events if event.get("action") == "strayFound"]) == MOST_STRAYS


def test_a_record_without_an_incarnation_gets_one_at_its_next_start() -> None:
    """The record of an older version keeps its domain, which has none either, and draws one when it starts anew."""
    agent = FakeAgent("h1")
    cell = SmallCell(hosts=[agent])
    cell.create()
    cell.work()
    with cell.manager.cluster.transaction("as an older version left it") as tx:
        tx.put_instance(msgspec.structs.replace(cell.instance(), incarnation=""))
    agent.incarnations[1] = ""
    agent.restart()
    assert (cell.state(), cell.instance().incarnation, strays(cell)) == ("Running", "", [])
    cell.call(ALICE, "suspendVm", instance="vm1")
    cell.work()
    cell.call(ALICE, "resumeVm", instance="vm1")
    cell.work()
    assert (cell.state(), cell.instance().incarnation) == ("Running", "")
