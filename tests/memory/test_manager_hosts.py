"""Hosts come, speak, fall silent and come back."""

from __future__ import annotations

from typing import Any

import pytest

from tashi.errors import CONFLICT, FORBIDDEN, YourMistake
from tashi.model.causes import Cause, in_words
from tashi.model.orders import Observation, Seen, Start
from tests.builders import ADMIN, a_login, a_report, a_spec, an_identity, some_facts
from tests.small_cell import FakeAgent, SmallCell


def _running(*agents: FakeAgent, **settings: Any) -> SmallCell:
    """A cell whose first host runs vm1."""
    cell = SmallCell(hosts=agents or [FakeAgent("h1")], **settings)
    cell.create(a_spec(hints={"targetHost": "h1"}))
    cell.work()
    assert cell.state() == "Running"
    return cell


def _host_actions(cell: SmallCell) -> list[tuple[str, str]]:
    return [(event["name"], event["action"]) for event in cell.events if event["type"] == "hostAction"]


# ---- logging in


def test_a_new_host_joins_with_the_join_secret() -> None:
    """The first login makes the host and tells it; ids count from 1."""
    cell = SmallCell(hosts=[FakeAgent("h1"), FakeAgent("h2")])
    assert [(host.id, host.name, host.up, host.decayed) for host in cell.manager.cluster.hosts.values()] == [
        (1, "h1", True, False), (2, "h2", True, False),
    ]  # fmt: skip
    assert _host_actions(cell) == [("h1", "registered"), ("h2", "registered")]


def test_a_wrong_join_secret_is_refused() -> None:
    """Without the cell's join secret no host is made, whatever its own secret."""
    cell = SmallCell()
    for join in ("", "wrong", "join "):
        with pytest.raises(YourMistake, match="its join secret is not this cell's") as caught:
            FakeAgent("h1").login(cell, a_login("h1", join=join))
        assert caught.value.code == FORBIDDEN
    assert cell.manager.cluster.hosts == {}


@pytest.mark.parametrize("secret", ["", "short", "s" * 31])
def test_a7_an_unusable_join_secret_lets_nobody_in(secret: str) -> None:
    """A7: a cell whose join secret could be guessed takes no host, whatever that host shows."""
    cell = SmallCell()
    cell.manager.hosts._join_secret = secret
    with pytest.raises(YourMistake, match="its join secret is not this cell's"):
        FakeAgent("h1").login(cell, a_login("h1", join=secret))
    assert cell.manager.cluster.hosts == {}


def test_the_first_login_pins_the_hosts_secret() -> None:
    """Afterwards that secret is needed, and alone is enough; it is not kept itself."""
    agent = FakeAgent("h1")
    cell = SmallCell(hosts=[agent])
    agent.login(cell, a_login("h1", join=""))
    with pytest.raises(YourMistake, match="pinned to another secret"):
        FakeAgent("h1").login(cell, a_login("h1", secret="somebody else's".ljust(40)))
    assert a_login("h1").secret not in str(cell.store.rows)  # type: ignore[attr-defined]
    assert _host_actions(cell) == [("h1", "registered")]


def test_a_short_secret_is_refused() -> None:
    """A secret that could be guessed pins nothing."""
    with pytest.raises(YourMistake, match="too short"):
        FakeAgent("h1").login(SmallCell(), a_login("h1", secret="short"))


def test_a_host_has_a_proper_name() -> None:
    """A host's name keeps the rules of names."""
    with pytest.raises(YourMistake, match="name is "):
        FakeAgent("h1").login(SmallCell(), a_login("h 1\n"))


def test_a_host_of_another_version_gets_nothing() -> None:
    """Until its agent is of the control plane's version again, or versions may differ."""
    agent = FakeAgent("h1")
    cell = SmallCell()
    agent.login(cell, a_login("h1", version="2"))
    cell.create()
    cell.work()
    assert cell.instance().reason == "h1: runs another version of the agent"
    agent.login(cell)
    cell.agents = [agent]
    cell.work()
    assert cell.state() == "Running"


def test_a_drained_host_of_another_version_stays_drained() -> None:
    """Whoever drains a host to bring its agent up to date finds it drained when that is done."""
    agent = FakeAgent("h1")
    cell = SmallCell(hosts=[agent])
    cell.call(ADMIN, "setHostState", host="h1", state="Drained")
    states = []
    for version in ("2", "2", "1"):
        agent.login(cell, a_login("h1", version=version))
        cell.settle()
        states.append(cell.manager.cluster.hosts[1].state.name)
    assert states == ["VersionMismatch", "VersionMismatch", "Drained"]


def test_a_host_gets_nothing_before_it_has_told_everything() -> None:
    """Until its list is complete nothing is placed there, and nothing is ordered."""
    agent = FakeAgent("h1")
    cell = SmallCell()
    cell.agents = [agent]
    agent.login(cell, tell_all=False)
    cell.create()
    cell.settle()
    agent.tell(full=True, page=1, pages=2)
    cell.settle()
    assert (cell.state(), agent.orders) == ("Pending", [])
    agent.tell(full=True, page=2, pages=2)
    cell.work()
    assert cell.state() == "Running"


def test_a_second_login_replaces_the_first() -> None:
    """The newest link counts; the old one is dropped, and what still comes over it is ignored."""
    agent = FakeAgent("h1")
    cell = _running(agent)
    old = agent._link
    agent.login(cell)
    assert agent.closed == 1
    gone = Observation(instance_id=1, generation=1, seen=Seen.GONE)
    assert old is not None
    cell.manager.hosts.report(agent.host_id, old, a_report(gone))
    cell.manager.hosts.logout(agent.host_id, old)
    cell.settle()
    assert (cell.state(), cell.manager.cluster.hosts[1].decayed) == ("Running", False)


# ---- silence


def test_a_lost_link_decays_a_host() -> None:
    """It is up until its lease ends, gets nothing meanwhile, and its instances are as they were."""
    agent = FakeAgent("h1")
    cell = _running(agent)
    agent.lose_link()
    cell.create(a_spec("vm2"), stanza="s2")
    cell.settle()
    host = cell.manager.cluster.hosts[1]
    assert (host.up, host.decayed, cell.state(), cell.state("vm2")) == (True, True, "Running", "Pending")
    agent.login(cell)
    cell.work()
    assert (cell.manager.cluster.hosts[1].decayed, cell.state("vm2")) == (False, "Running")


def test_a_silent_host_is_down_and_its_instances_are_orphaned() -> None:
    """After the lease nothing is guessed, nothing is started elsewhere, and on return all is as it was."""
    agent, other = FakeAgent("h1"), FakeAgent("h2")
    cell = _running(agent, other)
    agent.lose_link()
    cell.live(31)
    host = cell.manager.cluster.hosts[1]
    assert (host.up, host.decayed, cell.state(), cell.instance().decayed) == (False, True, "Orphaned", True)
    cell.live(600)
    assert (cell.state(), other.domains) == ("Orphaned", {})
    agent.login(cell)
    cell.work()
    assert (cell.state(), cell.instance().decayed, cell.manager.cluster.hosts[1].up) == ("Running", False, True)
    assert [action for action in _host_actions(cell) if action[0] == "h1"] == [("h1", "registered"), ("h1", "decayed"), ("h1", "decayed")]


def test_a_host_with_a_link_and_without_a_word_is_down_too() -> None:
    """A link over which nothing comes is dropped when the lease ends."""
    agent = FakeAgent("h1")
    cell = _running(agent)
    for _ in range(32):
        cell.clock.advance(1)
    assert (cell.state(), agent.closed) == ("Orphaned", 1)


def test_what_ended_while_its_host_was_silent_is_gone() -> None:
    """A host that comes back without an instance has lost it: when two lists lack it, it is told as failed."""
    agent = FakeAgent("h1")
    cell = _running(agent)
    agent.lose_link()
    cell.live(31)
    agent.domains.clear()
    agent.login(cell)
    cell.work()
    assert (cell.state(), cell.instance().reason) == ("Orphaned", "missing on h1, end not seen")
    cell.live(10)
    agent.tell(full=True)
    cell.work()
    assert (cell.state(), cell.actions()[-1]) == ("none", "failed")


def test_a_host_that_flaps_every_15_seconds_loses_nothing() -> None:
    """For ten minutes the link comes and goes, and the instance runs on unharmed."""
    agent = FakeAgent("h1")
    cell = _running(agent)
    for _ in range(20):
        agent.lose_link()
        cell.live(15)
        agent.login(cell)
        cell.live(15)
    assert (cell.state(), agent.domains) == ("Running", {1: 1})
    assert cell.actions() == ["created", "placed", "stateChanged"]


# ---- who may say what


def test_no_host_speaks_for_another() -> None:
    """What another host says of an instance changes nothing."""
    other = FakeAgent("h2")
    cell = _running(FakeAgent("h1"), other)
    for what in Seen:
        other.tell(Observation(instance_id=1, generation=1, seen=what))
    cell.settle()
    assert (cell.state(), cell.instance().host_id) == ("Running", 1)


def test_an_older_generation_is_void() -> None:
    """A late answer to an order that was overtaken changes nothing."""
    agent = FakeAgent("h1")
    cell = _running(agent)
    cell.delete("vm1")
    cell.settle()
    agent.tell(Observation(instance_id=1, generation=1, seen=Seen.GONE))
    agent.tell(Observation(instance_id=1, generation=1, seen=Seen.RUNNING))
    cell.settle()
    assert cell.state() == "Destroying"
    cell.work()
    assert cell.state() == "none"


def test_a_domain_of_nobody_is_left_alone() -> None:
    """What the records do not hold is not made up, and not destroyed."""
    agent = FakeAgent("h1")
    agent.domains[77] = 3
    cell = SmallCell(hosts=[agent])
    cell.work()
    assert (cell.manager.cluster.instances, agent.domains) == ({}, {77: 3})


# ---- orders and lists


def test_an_order_lost_with_its_link_is_given_again() -> None:
    """The state of the instance is the memory of its order."""
    agent = FakeAgent("h1")
    cell = SmallCell(hosts=[agent])
    cell.create()
    cell.settle()
    agent.lose_link()
    agent.login(cell)
    cell.work()
    assert (cell.state(), agent.domains) == ("Running", {1: 1})


def test_an_order_that_nothing_came_of_is_said_again() -> None:
    """Once in a while what has not happened yet is repeated, in the same words."""
    agent = FakeAgent("h1")
    cell = SmallCell(hosts=[agent])
    cell.create()
    cell.live(31)
    first, again = agent.orders
    assert isinstance(first, Start)
    assert first == again


def test_what_starts_during_a_list_is_not_missing_from_it() -> None:
    """A machine seen running between two pages of a list is not taken for gone because no page names it."""
    agent = FakeAgent("h1")
    cell = SmallCell(hosts=[agent])
    cell.create()
    cell.settle()
    agent.login(cell, tell_all=False)
    agent.tell(full=True, page=1, pages=2)
    agent.tell(Observation(instance_id=1, generation=1, seen=Seen.RUNNING))
    agent.tell(full=True, page=2, pages=2)
    cell.settle()
    assert cell.state() == "Running"


def test_a_delete_overtaking_a_start_is_not_concluded_from_a_list() -> None:
    """A host that is still at the start does not list the domain yet: only its answer to the destroy says that it is gone."""
    agent = FakeAgent("h1")
    cell = SmallCell(hosts=[agent])
    cell.create()
    cell.settle()
    cell.delete("vm1")
    agent.login(cell)
    cell.settle()
    assert cell.state() == "Destroying"
    agent.domains[1] = 1  # now the start has come to its end
    cell.work()
    assert (cell.state(), agent.domains) == ("none", {})


def test_a_list_that_begins_again_counts_from_its_beginning() -> None:
    """Pages of a list that was broken off are forgotten."""
    agent = FakeAgent("h1")
    cell = _running(agent)
    agent.tell(full=True, page=2, pages=2)
    cell.settle()
    assert cell.state() == "Running"
    agent.tell(*agent.all(), full=True, page=1, pages=2)
    agent.login(cell, tell_all=False)
    agent.tell(full=True, page=1, pages=1)
    cell.settle()
    assert cell.state() == "Orphaned"


def test_a_paused_machine_is_told_and_comes_back() -> None:
    """A machine that is paused behind our back is Paused, and Running when it goes on."""
    agent = FakeAgent("h1")
    cell = _running(agent)
    for what, state in ((Seen.PAUSED, "Paused"), (Seen.RUNNING, "Running")):
        agent.tell(Observation(instance_id=1, generation=1, seen=what))
        cell.settle()
        assert cell.state() == state


def test_a_machine_that_ends_by_itself_is_told_as_failed() -> None:
    """It leaves the list, stands in history, and is not started again."""
    agent = FakeAgent("h1")
    cell = _running(agent)
    agent.domains.clear()
    agent.tell(Observation(instance_id=1, generation=1, seen=Seen.GONE, reason="crashed"))
    cell.work()
    assert (cell.state(), cell.actions()[-1], agent.orders) == ("none", "failed", [])


def test_what_is_seen_again_unchanged_is_not_written_again() -> None:
    """A report that says nothing new costs no commit."""
    agent = FakeAgent("h1")
    cell = _running(agent)
    cell.live(5)
    commits: list[object] = []
    commit = cell.store.commit
    cell.store.commit = lambda changes: commits.append(changes) or commit(changes)  # type: ignore[func-returns-value,method-assign,return-value]
    agent.tell(*agent.all())
    agent.tell(*agent.all(), full=True)
    cell.settle()
    assert commits == []


def test_a_host_that_changes_is_planned_as_it_is() -> None:
    """New facts count from the report that brings them."""
    agent = FakeAgent("h1", some_facts(cores=1))
    cell = _running(agent)
    agent.facts = some_facts(cores=2)
    agent.tell()
    cell.create(a_spec("vm2"), stanza="s2")
    cell.work()
    assert cell.state("vm2") == "Running"


def test_a_host_that_dies_under_a_stuck_guest() -> None:
    """An instance whose guest did not answer any more is Orphaned with its host, as the others are."""
    agent = FakeAgent("h1")
    cell = SmallCell(hosts=[agent])
    cell.create()
    cell.work()
    agent.tell(Observation(instance_id=1, generation=1, seen=Seen.RUNNING, stuck=True))
    cell.settle()
    assert (cell.state(), cell.instance().decayed) == ("Running", True)
    agent.lose_link()
    cell.live(40)
    assert cell.state() == "Orphaned"


# ---- which machine it is


def test_h1_another_machine_with_the_secret_is_refused() -> None:
    """H1: a copy of the agent's directory on another machine is refused in words, and what the host runs is left alone."""
    agent = FakeAgent("h1")
    cell = _running(agent)
    for field in ("machine_id", "host_uuid", "uri"):
        clone = FakeAgent("h1")
        with pytest.raises(YourMistake, match="is pinned to another machine: expected libvirt qemu:///system") as caught:
            clone.login(cell, a_login("h1", identity=an_identity("h1", **{field: "another's"})))
        assert caught.value.code == FORBIDDEN
        for word in ("node.secret", "[NodeManagerService] name", "tashi unregisterHost --hostId h1", "mainboard"):
            assert word in caught.value.message
    cell.live(30)
    assert (cell.state(), agent.closed, agent.domains) == ("Running", 0, {1: 1})


def test_h1_a_refused_machine_is_told_once() -> None:
    """H1: however often a refused agent comes back, there is one event for each host and machine."""
    cell = _running(FakeAgent("h1"))
    for machine in ("m1", "m2", "m1", "m1", "m2"):
        with pytest.raises(YourMistake):
            FakeAgent("h1").login(cell, a_login("h1", identity=an_identity("h1", machine_id=machine)))
    cell.settle()
    faults = [event for event in cell.events if event["type"] == "hostAction" and event["action"] == "faulty"]
    assert len(faults) == 2
    assert all(event["reason"].startswith("identity: host h1 is pinned to another machine") for event in faults)


def test_h1_a_dead_hosts_secret_is_not_enough() -> None:
    """H1: when the pinned machine is silent nothing is guessed: after an administrator's word a repaired host keeps its instances."""
    agent = FakeAgent("h1")
    cell = _running(agent)
    agent.lose_link()
    cell.live(40)
    repaired = a_login("h1", identity=an_identity("h1", 2, host_uuid="new board"))
    with pytest.raises(YourMistake, match="has a new mainboard"):
        agent.login(cell, repaired)
    cell.call(ADMIN, "unregisterHost", hostId="h1")
    agent.domains.clear()
    assert agent.login(cell, repaired).host_id == 1
    for _ in range(3):
        cell.live(11)
        agent.tell(full=True)
    assert (cell.state(), cell.instance().reason) == ("Orphaned", "missing on h1, end not seen")
    cell.delete("vm1")
    cell.work()
    assert cell.state() == "none"


def test_h1_a_machine_has_one_name() -> None:
    """H1: an agent that was given another name finds its libvirt in the cell already, and two hosts never share one."""
    cell = _running(FakeAgent("h1"))
    with pytest.raises(YourMistake, match=r"is in the cell as host h1; set .* name = h1, or run `tashi unregisterHost --hostId h1`"):
        FakeAgent("h2").login(cell, a_login("h2", identity=an_identity("h1", 2)))
    assert len(cell.manager.cluster.hosts) == 1


def test_a_host_of_an_older_version_is_pinned_at_its_next_login() -> None:
    """A record without a machine takes that of the next login with its secret; later an agent that tells none is refused."""
    agent = FakeAgent("h1")
    cell = SmallCell()
    agent.login(cell, a_login("h1", identity=None))
    assert cell.manager.cluster.hosts[1].identity is None
    agent.login(cell)
    assert cell.manager.cluster.hosts[1].identity == an_identity("h1")
    with pytest.raises(YourMistake, match="does not say where it runs; upgrade it"):
        agent.login(cell, a_login("h1", identity=None))


def test_a11_two_agents_do_not_take_turns() -> None:
    """A11: while an agent answers, another process with the same secret and machine is refused; when it hangs, the other gets in."""
    agent = FakeAgent("h1")
    cell = _running(agent)
    other = FakeAgent("h1")
    other.domains, other.incarnations = dict(agent.domains), dict(agent.incarnations)
    for boot in (1, 2):
        with pytest.raises(YourMistake, match="has an agent that is logged in and answers") as caught:
            other.login(cell, a_login("h1", identity=an_identity("h1", boot)))
        assert caught.value.code == CONFLICT
    assert (agent.closed, cell.state()) == (0, "Running")
    agent.hangs = True
    other.login(cell)
    assert agent.closed == 1
    with pytest.raises(YourMistake, match="answers"):
        agent.login(cell)
    cell.settle()
    assert cell.state() == "Running"
    faults = [event for event in cell.events if event["type"] == "hostAction" and event["action"] == "faulty"]
    assert len(faults) == 1


# ---- what is missing


def _missing(**told: Any) -> tuple[SmallCell, FakeAgent]:
    """A cell whose host has listed once without vm1."""
    agent = FakeAgent("h1")
    cell = _running(agent)
    agent.domains.clear()
    agent.tell(full=True, **told)
    cell.settle()
    return cell, agent


def test_h1_an_empty_libvirt_is_doubt() -> None:
    """H1: an instance that a list lacks is Orphaned with the reason, as state and as event, and its room is kept."""
    cell, _ = _missing()
    instance = cell.instance()
    assert (instance.state.name, instance.reason, instance.decayed) == ("Orphaned", "missing on h1, end not seen", True)
    told = cell.events[-1]
    assert (told["action"], told["to"], told["reason"]) == ("stateChanged", "Orphaned", "missing on h1, end not seen")
    assert cell.manager.cluster.loads[1].memory == instance.memory


def test_h1_two_lists_ten_seconds_apart_end_it() -> None:
    """H1: however many lists come within ten seconds, it is in doubt; one that comes later ends it, as failed and with the reason."""
    cell, agent = _missing()
    for _ in range(8):
        cell.live(1)
        agent.tell(full=True)
    assert cell.state() == "Orphaned"
    cell.live(1)
    agent.tell(full=True)
    cell.settle()
    assert (cell.state(), cell.actions()[-1]) == ("none", "failed")
    assert cell.events[-1]["reason"] == "missing on h1: two complete lists lack it, and nobody saw it end"


def test_h1_what_is_seen_between_two_lists_lives() -> None:
    """H1: an instance that a list or a report names again has not been missing since the first list."""
    cell, agent = _missing()
    cell.live(6)
    agent.domains[1] = 1
    agent.tell(*agent.all())
    cell.settle()
    assert (cell.state(), cell.instance().reason) == ("Running", "")
    agent.domains.clear()
    cell.live(6)
    agent.tell(full=True)
    cell.settle()
    assert cell.state() == "Orphaned"
    cell.live(10)
    agent.tell(full=True)
    cell.settle()
    assert cell.state() == "none"


@pytest.mark.parametrize("again", ["agent", "manager"])
def test_h1_a_new_link_begins_anew(again: str) -> None:
    """H1: lists are compared over one link only: after a reconnect two more are needed."""
    cell, agent = _missing()
    cell.live(8)
    if again == "agent":
        agent.restart()
    else:
        cell.restart()
    for _ in range(8):
        cell.live(1)
        agent.tell(full=True)
    assert cell.state() == "Orphaned"
    cell.live(2)
    agent.tell(full=True)
    cell.settle()
    assert cell.state() == "none"


@pytest.mark.parametrize(
    "pages",
    [[(2, 2)], [(1, 2)], [(1, 3), (3, 3)], [(1, 2), (2, 3), (3, 3)], [(1, 3), (2, 3), (2, 3)], [(1, 2), (1, 2)], [(1, 0)], [(0, 0)]],
)
def test_h1_an_incomplete_list_proves_nothing(pages: list[tuple[int, int]]) -> None:
    """H1: a list whose pages do not all come, in order and of one list, is none."""
    agent = FakeAgent("h1")
    cell = _running(agent)
    for _ in range(2):
        for page, number in pages:
            agent.tell(full=True, page=page, pages=number)
        cell.live(11)
    assert cell.state() == "Running"


def test_h1_a_domain_that_vanished_is_doubt_at_once() -> None:
    """H1: an agent that finds a domain missing says so before its next list."""
    agent = FakeAgent("h1")
    cell = _running(agent)
    agent.domains.clear()
    agent.tell(Observation(instance_id=1, generation=1, seen=Seen.MISSING))
    cell.settle()
    assert (cell.state(), cell.instance().reason) == ("Orphaned", "missing on h1, end not seen")


@pytest.mark.parametrize("incarnation", [True, False])
def test_h1_a_domain_that_lost_its_mark_has_not_ended(incarnation: bool) -> None:
    """H1: a domain that runs without its mark is in doubt, however many lists say so, until its host knows it again."""
    agent = FakeAgent("h1")
    cell = _running(agent)
    own = cell.instance().incarnation if incarnation else ""  # an agent that was restarted does not know it
    if not incarnation:
        agent.incarnations.clear()
    lost = Observation(
        instance_id=1, generation=1, incarnation=own, seen=Seen.MISSING, cause=Cause.UNMARKED, reason=in_words(Cause.UNMARKED)
    )
    running = cell.instance()
    agent.tell(lost)
    for _ in range(4):
        agent.tell(lost, full=True)
        cell.live(11)
    assert (cell.state(), cell.instance().reason) == ("Orphaned", in_words(Cause.UNMARKED))
    agent.tell(Observation(instance_id=1, generation=running.generation, incarnation=running.incarnation, seen=Seen.RUNNING), full=True)
    cell.settle()
    assert (cell.state(), cell.instance().reason) == ("Running", "")


def test_h1_a_start_that_finds_its_domain_unmarked_is_not_tried_elsewhere() -> None:
    """H1: an instance whose domain lost its mark before its start was told stays where it is; no other host starts it, too."""
    h1, h2 = FakeAgent("h1"), FakeAgent("h2")
    cell = SmallCell(hosts=[h1, h2])
    cell.create()
    cell.settle()
    instance = cell.instance()
    host = next(agent for agent in (h1, h2) if agent.host_id == instance.host_id)
    host.orders.clear()
    lost = Observation(
        instance_id=1,
        generation=instance.generation,
        incarnation=instance.incarnation,
        seen=Seen.MISSING,
        cause=Cause.UNMARKED,
        reason=in_words(Cause.UNMARKED),
    )
    host.tell(lost)
    cell.settle()
    assert (cell.state(), cell.instance().host_id) in (("Activating", host.host_id), ("Orphaned", host.host_id))
    assert (h1.domains, h2.domains) == ({}, {})


def test_h1_a_list_of_another_machine_ends_nothing() -> None:
    """H1: when the host's name has come to another machine by an administrator's word, no number of lists ends what the first one ran."""
    agent = FakeAgent("h1")
    cell = _running(agent)
    agent.lose_link()
    cell.live(40)
    cell.call(ADMIN, "unregisterHost", hostId="h1")
    other = FakeAgent("h1")
    other.login(cell, a_login("h1", identity=an_identity("h1", uri="test:///default")))
    for _ in range(5):
        cell.live(11)
        other.tell(full=True)
    assert (cell.state(), cell.instance().reason) == ("Orphaned", "missing on h1, end not seen")


def test_an_end_that_was_seen_needs_no_second_list() -> None:
    """A host that says how a domain ended is believed at once."""
    cell, agent = _missing()
    agent.tell(Observation(instance_id=1, generation=1, seen=Seen.GONE, reason="crashed"))
    cell.settle()
    assert (cell.state(), cell.events[-1]["reason"]) == ("none", "crashed")
