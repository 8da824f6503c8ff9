"""Commands of the message sink: each has one outcome, however often it is told."""

from __future__ import annotations

import pytest

from tashi.errors import EXPIRED, YourMistake
from tashi.model.instance import Disk
from tashi.model.orders import Observation, Seen
from tashi.model.sla import SlaClass
from tashi.model.states import InstanceState
from tashi.model.user import Principal
from tests.builders import ALICE, ISM, a_spec, an_origin, some_facts
from tests.small_cell import FakeAgent, SmallCell, result_of

BOB = Principal(name="bob@example.org", user_id=1001, jid="bob@example.org")


def _cell(**settings: object) -> SmallCell:
    return SmallCell(hosts=[FakeAgent("h1")], **settings)  # type: ignore[arg-type]


def _codes(cell: SmallCell) -> list[str]:
    return [reply.get("code", reply["status"]) for reply in cell.replies]


# ---- the same thing told twice


def test_the_same_stanza_under_way_is_one_command() -> None:
    """A stanza that comes twice before its answer is answered once."""
    cell = _cell()
    for _ in range(2):
        cell.create(a_spec(resource_id="r"))
        cell.create(a_spec("vm2"), stanza="s2")
        cell.settle()
    cell.work()
    assert _codes(cell) == ["OK", "OK"]
    assert sorted(cell.manager.cluster.instances) == [1, 2]


def test_an_answered_stanza_without_a_key_is_answered_again() -> None:
    """A create that is not safe to repeat is not carried out again: its outcome is told once more, as the same stanza."""
    cell = _cell()
    cell.create(a_spec())
    cell.work()
    cell.delete(1)
    cell.work()
    cell.deliver()
    cell.create(a_spec())
    cell.work()
    first, _, again = [row for row in cell.outgoing if row.to]
    assert (again.body, again.stanza_id) == (first.body, first.stanza_id)
    assert again.id != first.id
    assert cell.manager.cluster.instances == {}


def test_the_same_stanza_id_with_another_body_is_another_command() -> None:
    """Some clients count their ids from 1 in every run."""
    cell = _cell()
    cell.create(a_spec("vm1"), origin=an_origin("1", fingerprint="a"))
    cell.create(a_spec("vm2"), origin=an_origin("1", fingerprint="b"))
    cell.work()
    assert [reply["resources"] for reply in cell.replies] == [["vm1"], ["vm2"]]


def test_an_answered_stanza_with_a_key_is_looked_at_again() -> None:
    """With a resourceId a repeated stanza is evaluated: there is the machine, or after its deletion there is one again."""
    cell = _cell()
    for stanza in ("s1", "s1"):
        cell.create(a_spec(resource_id="r"), stanza=stanza)
        cell.work()
        cell.deliver()
    cell.delete("r")
    cell.work()
    cell.create(a_spec(resource_id="r"))
    cell.work()
    assert [reply["ids"] for reply in cell.replies] == [[1], [1], [1], [2]]


def test_a_stanza_whose_answer_is_on_its_way_needs_no_other() -> None:
    """While the reply has not arrived, the same stanza asks for nothing new."""
    cell = _cell()
    for _ in range(2):
        cell.create(a_spec(resource_id="r"))
        cell.work()
    assert len([row for row in cell.outgoing if row.to]) == 1


def test_one_resource_id_is_one_instance() -> None:
    """Equal content under the same key gives the same instance: while it starts, and when it runs."""
    cell = _cell()
    cell.create(a_spec(resource_id="r"), stanza="s1")
    cell.create(a_spec(resource_id="r"), stanza="s2")
    cell.work()
    cell.create(a_spec(resource_id="r"), stanza="s3")
    cell.work()
    assert [(reply["status"], reply["ids"]) for reply in cell.replies] == [("OK", [1])] * 3
    assert len({row.stanza_id for row in cell.outgoing if row.to}) == 3


def test_other_content_under_the_same_key_is_a_conflict() -> None:
    """Nothing is changed, and the sender is told why."""
    cell = _cell()
    cell.create(a_spec(resource_id="r"), stanza="s1")
    cell.create(a_spec(resource_id="r", memory=256), stanza="s2")
    cell.work()
    assert _codes(cell) == ["conflict", "OK"]
    assert "'r' already names instance 1" in cell.replies[0]["message"]
    assert cell.instance().memory == 128


def test_keys_of_different_senders_do_not_meet() -> None:
    """A key is its sender's own."""
    cell = _cell()
    cell.create(a_spec("vm1", resource_id="r"), stanza="s1")
    cell.create(a_spec("vm2", resource_id="r"), who=ALICE, origin=an_origin("s1", sender=ALICE.jid, reply_to=f"{ALICE.jid}/x"))
    cell.work()
    assert [reply["ids"] for reply in cell.replies] == [[1], [2]]


def test_the_key_is_taken_until_the_instance_is_gone() -> None:
    """While an instance is being destroyed on demand its key is not free; afterwards it is."""
    cell = _cell()
    cell.create(a_spec(resource_id="r"), stanza="s1")
    cell.work()
    cell.delete("r", stanza="d1")
    cell.create(a_spec(resource_id="r"), stanza="s2")
    cell.work()
    cell.create(a_spec(resource_id="r"), stanza="s3")
    cell.work()
    assert _codes(cell) == ["OK", "conflict", "OK", "OK"]
    assert cell.replies[3]["ids"] == [2]


def test_the_key_and_the_name_are_free_when_the_creation_has_failed() -> None:
    """After a timeout the sender may ask again at once, also while the host that was too slow cannot be reached."""
    slow, quick = FakeAgent("h1"), FakeAgent("h2")
    cell = SmallCell(hosts=[slow])
    cell.create(a_spec(resource_id="r"), stanza="s1")
    cell.settle()
    slow.lose_link()
    cell.live(46)
    assert (_codes(cell), cell.state()) == (["timeout"], "Destroying")
    cell.join(quick)
    cell.create(a_spec(resource_id="r"), stanza="s2")
    cell.work()
    assert (_codes(cell), cell.replies[1]["host"]) == (["timeout", "OK"], "h2")
    slow.domains[1] = 1  # it had started after all
    slow.login(cell)
    cell.work()
    assert (slow.domains, sorted(quick.domains)) == ({}, [2])


def test_every_repeat_of_a_failing_create_is_told_the_same() -> None:
    """All who wait for one instance learn of its failure at the same moment in the same words, and later repeats start afresh."""
    cell = SmallCell()
    cell.create(a_spec(resource_id="r"), stanza="s1")
    cell.live(30)
    cell.create(a_spec(resource_id="r"), stanza="s2")
    cell.live(16)
    assert _codes(cell) == ["no-suitable-host"] * 2
    assert cell.replies[0]["message"] == cell.replies[1]["message"]
    assert cell.manager.cluster.instances == {}
    cell.create(a_spec(resource_id="r"), stanza="s3")
    cell.join(FakeAgent("h1"))
    cell.work()
    assert _codes(cell)[2:] == ["OK"]


# ---- create


def test_no_host_at_all_is_told_at_the_deadline() -> None:
    """Without a host a create waits for one, and ends as no-suitable-host after provisionTimeout."""
    cell = SmallCell()
    cell.create()
    cell.live(44)
    assert cell.replies == []
    cell.live(2)
    assert _codes(cell) == ["no-suitable-host"]
    assert "no host has joined the cell yet" in cell.replies[0]["message"]
    assert (cell.state(), cell.actions()) == ("none", ["created", "destroyed"])


def test_what_no_host_could_ever_hold_is_refused_at_once() -> None:
    """The refusal names each host and what it lacks."""
    cell = _cell()
    cell.create(a_spec(cores=9))
    cell.settle()
    assert _codes(cell) == ["no-suitable-host"]
    assert "h1: has 8 cores, and the instance asks for 9" in cell.replies[0]["message"]
    assert cell.manager.cluster.instances == {}


def test_what_does_not_fit_now_waits_for_room() -> None:
    """An instance that an empty host could hold waits until another has gone."""
    cell = _cell()
    cell.create(a_spec("big", cores=8), stanza="s1")
    cell.work()
    cell.create(a_spec("next", cores=2), stanza="s2")
    cell.work()
    assert (cell.state("next"), cell.instance("next").reason) == ("Pending", "h1: 2 cores short")
    cell.delete("big")
    cell.work()
    assert cell.state("next") == "Running"


def test_a_start_that_takes_too_long_is_undone() -> None:
    """Not Running by provisionTimeout means timeout, and the host is told to destroy what it may have begun."""
    cell = _cell()
    agent = cell.agents[0]
    cell.create()
    cell.live(46)
    assert _codes(cell) == ["timeout"]
    assert [type(order).__name__ for order in agent.orders] == ["Start", "Start", "Destroy"]
    agent.work()
    cell.work()
    assert (agent.domains, cell.state()) == ({}, "none")


def test_a_failed_start_is_tried_on_another_host() -> None:
    """A host that cannot start an instance is passed over, and the next one gets it."""
    bad, good = FakeAgent("h1"), FakeAgent("h2")
    bad.breaks = lambda order: "no such image here"
    cell = SmallCell(hosts=[bad, good])
    for name in ("vm1", "vm2"):
        cell.create(a_spec(name), stanza=name)
        cell.work()
    assert [(reply["status"], reply["host"]) for reply in cell.replies] == [("OK", "h2")] * 2
    assert (bad.domains, sorted(good.domains)) == ({}, [1, 2])


def test_when_every_host_has_failed_the_create_has() -> None:
    """The last host's words are told, and nothing is left."""
    agents = [FakeAgent("h1"), FakeAgent("h2")]
    for agent in agents:
        agent.breaks = lambda order: "the disk is full"
    cell = SmallCell(hosts=agents)
    cell.create()
    cell.work()
    assert _codes(cell) == ["no-suitable-host"]
    assert "the disk is full" in cell.replies[0]["message"]
    assert cell.manager.cluster.instances == {}
    assert cell.actions()[-2:] == ["held", "destroyed"]


def test_an_instance_that_ends_while_it_starts_is_a_failure() -> None:
    """A machine that dies before it was seen running is answered ERROR and leaves nothing."""
    cell = _cell()
    agent = cell.agents[0]
    cell.create()
    cell.settle()
    (order,) = agent.orders
    agent.orders.clear()
    agent.tell(Observation(instance_id=order.instance_id, generation=order.generation, seen=Seen.GONE, reason="qemu crashed"))
    cell.work()
    assert _codes(cell) == ["internal"]
    assert "qemu crashed" in cell.replies[0]["message"]
    assert cell.manager.cluster.instances == {}


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ({"user_id": 4711}, "unknown-user"),
        ({"disks": (Disk(uri="nope"),)}, "unknown-image"),
        ({"sla": "platinum"}, "unknown-sla"),
        ({"memory": 5000}, "quota"),
        ({"cores": 5}, "quota"),
        ({"name": "taken"}, "duplicate-hostname"),
        ({"name": "no host name"}, "bad-argument"),
        ({"hints": {"__resume_source": "x"}}, "bad-argument"),
        ({"hints": {"x": "y" * 256}}, "bad-argument"),
        ({"disks": ()}, "bad-argument"),
    ],
)
def test_what_cannot_be_had_is_refused(spec: dict[str, object], code: str) -> None:
    """A refusal is one reply and one line of the audit trail, and changes nothing."""
    cell = _cell(max_memory=4096, max_cores=4)
    cell.create(a_spec("taken"), stanza="s1")
    cell.work()
    cell.create(a_spec(**spec), stanza="s2")
    cell.settle()
    assert _codes(cell) == ["OK", code]
    assert list(cell.manager.cluster.instances) == [1]
    assert [event["result"] for event in cell.events if event["type"] == "auditRecord"][-1] == code


def test_only_trusted_senders_act_for_others() -> None:
    """A user's own JID creates and deletes that user's instances and nobody else's."""
    cell = _cell()
    mine = an_origin("s1", sender=ALICE.jid, reply_to=f"{ALICE.jid}/x")
    cell.create(a_spec("hers", user_id=1000), who=ALICE, origin=mine)
    cell.create(a_spec("bobs", user_id=1001), who=ALICE, origin=an_origin("s2", sender=ALICE.jid, reply_to=f"{ALICE.jid}/x"))
    cell.work()
    cell.delete("hers", who=BOB)
    cell.work()
    assert _codes(cell) == ["forbidden", "OK", "forbidden"]
    assert cell.state("hers") == "Running"


def test_an_sla_class_brings_its_terms() -> None:
    """What the class says is added to what was not asked for itself."""
    gold = SlaClass(name="gold", priority=100, cpu_share=2048, hints={"isolation": "True"})
    cell = _cell(sla_classes={"gold": gold})
    cell.create(a_spec("vm1", sla="gold"), stanza="s1")
    cell.create(a_spec("vm2", user_id=1001), stanza="s2")
    cell.work()
    assert (cell.instance("vm1").cpu_share, cell.instance("vm1").hints) == (2048, {"isolation": "True"})
    assert (cell.state("vm1"), cell.instance("vm2").reason) == ("Running", "h1: holds an instance that asked for isolation")


# ---- createmany


def test_many_are_answered_once_when_all_run() -> None:
    """One reply, with all names, at the last one's start."""
    cell = _cell()
    cell.create(a_spec("a", resource_id="ra"), a_spec("b", resource_id="rb"))
    cell.settle()
    agent = cell.agents[0]
    first, second = agent.orders
    agent.orders = [first]
    cell.work()
    assert cell.replies == []
    agent.orders = [second]
    cell.work()
    assert [(reply["ids"], reply["resources"]) for reply in cell.replies] == [([1, 2], ["a", "b"])]


def test_many_are_refused_together() -> None:
    """One that cannot be had is enough, and its fellow is not made."""
    cell = _cell()
    cell.create(a_spec("a"), a_spec("b", user_id=4711))
    cell.create(a_spec("a"), a_spec("a"), stanza="s2")
    cell.settle()
    assert _codes(cell) == ["unknown-user", "duplicate-hostname"]
    assert cell.manager.cluster.instances == {}


def test_many_fail_together() -> None:
    """When one cannot be started, those that run already are destroyed."""
    cell = _cell()
    agent = cell.agents[0]
    agent.breaks = lambda order: "broken" if order.name == "b" else None
    cell.create(a_spec("a"), a_spec("b"), a_spec("c"))
    cell.work()
    assert _codes(cell) == ["no-suitable-host"]
    assert (agent.domains, cell.manager.cluster.instances) == ({}, {})


def test_many_undo_only_what_they_made() -> None:
    """An instance that another command has made outlives the failure of one that names it again."""
    cell = _cell()
    agent = cell.agents[0]
    agent.breaks = lambda order: "broken" if order.name == "b" else None
    cell.create(a_spec("a", resource_id="ra"), stanza="s1")
    cell.work()
    cell.create(a_spec("a", resource_id="ra"), a_spec("b", resource_id="rb"), stanza="s2")
    cell.work()
    assert _codes(cell) == ["OK", "no-suitable-host"]
    assert (cell.state("a"), cell.state("b"), sorted(agent.domains)) == ("Running", "none", [1])


# ---- delete


def test_delete_of_what_waits_is_answered_at_once() -> None:
    """Nobody's help is needed; the create that waited is told what became of it."""
    cell = SmallCell()
    cell.create(a_spec(resource_id="r"))
    cell.settle()
    cell.delete("r")
    cell.settle()
    assert {reply["verb"]: reply.get("code", "OK") for reply in cell.replies} == {"createcompute": "conflict", "deletecompute": "OK"}
    assert "deleted by ism@example.org before it ran" in cell.replies[0]["message"]


def test_delete_of_what_starts() -> None:
    """The create is told at once, the delete when the host has said that it is gone."""
    cell = _cell()
    cell.create()
    cell.settle()
    cell.delete("vm1")
    cell.settle()
    assert _codes(cell) == ["conflict"]
    cell.work()
    assert _codes(cell) == ["conflict", "OK"]
    assert cell.agents[0].domains == {}


def test_delete_of_what_runs_is_answered_when_it_is_gone() -> None:
    """By id, name or resourceId; each of several deletes has its own answer."""
    cell = _cell()
    cell.create(a_spec(resource_id="r"))
    cell.work()
    cell.delete(1, stanza="d1")
    cell.delete("vm1", stanza="d2")
    cell.delete("r", stanza="d3")
    cell.delete("r", stanza="d3")
    cell.settle()
    assert len(cell.replies) == 1
    cell.work()
    assert [(reply["verb"], reply["ids"]) for reply in cell.replies[1:]] == [("deletecompute", [1])] * 3


def test_delete_of_what_is_gone_is_fine_if_it_ever_was() -> None:
    """OK for what history knows, also when it went in this very moment; unknown-id for what never was."""
    cell = SmallCell()
    cell.create(a_spec(resource_id="r"))
    cell.settle()
    for number, reference in enumerate(("r", "r", "vm1", 1, "nothing", 77)):
        cell.delete(reference, stanza=f"d{number}")
    cell.settle()
    assert _codes(cell) == ["conflict", "OK", "OK", "OK", "OK", "unknown-id", "unknown-id"]


def test_what_is_gone_belongs_to_its_owner_still() -> None:
    """Somebody else's history is no more to be deleted than somebody else's instance."""
    cell = _cell()
    cell.create(a_spec())
    cell.work()
    cell.delete(1)
    cell.work()
    cell.delete(1, stanza="d2", who=BOB)
    cell.settle()
    assert _codes(cell) == ["OK", "OK", "forbidden"]


def test_delete_on_a_silent_host_is_answered_timeout_and_carried_out_on_return() -> None:
    """The wish stands until the host is back."""
    cell = _cell()
    agent = cell.agents[0]
    cell.create()
    cell.work()
    agent.lose_link()
    cell.delete("vm1")
    cell.live(47)
    assert _codes(cell) == ["OK", "timeout"]
    assert "when its host answers" in cell.replies[1]["message"]
    agent.login(cell)
    cell.work()
    assert (agent.domains, cell.state()) == ({}, "none")
    assert len(cell.replies) == 2


# ---- reads


def test_reads_see_the_living_and_the_gone() -> None:
    """getcompute tells an instance's state, and of a gone one what history knows."""
    cell = _cell()
    cell.create(a_spec(resource_id="r", hints={"note": "mine"}))
    cell.settle()
    commands = cell.manager.commands
    assert result_of(commands.get(ISM, "r"))["state"] == "Activating"
    assert result_of(commands.get(BOB, "vm1"))["hints"] == {}
    with pytest.raises(YourMistake, match="there is no instance 'r'"):
        result_of(commands.get(BOB, "r"))
    cell.delete("r")
    cell.work()
    assert result_of(commands.get(ISM, 1))["state"] == InstanceState.Exited.name
    with pytest.raises(Exception, match="there is no instance 77"):
        result_of(commands.get(ISM, 77))


def test_a_long_list_comes_in_pages() -> None:
    """Each page is below 100 KiB, the pages together are the list, and the last says that it is."""
    cell = SmallCell()
    cell.create(*[a_spec(f"vm{number}", hints={"note": "x" * 200}) for number in range(1000)])
    ids: list[int] = []
    after: int | None = 0
    pages = 0
    while after is not None:
        page = cell.manager.commands.list(ISM, after)
        assert len(str(page)) < 110 * 1024
        ids += [row["id"] for row in page["instances"]]
        after, pages = page["next"], pages + 1
    assert (ids, pages > 4) == (list(range(1, 1001)), True)


def test_strangers_are_counted_and_not_answered() -> None:
    """An unknown sender is in the audit trail once a minute, with a count."""
    cell = _cell()
    assert cell.manager.commands.identify("mallory@example.net") is None
    for _ in range(3):
        cell.manager.commands.refuse_stranger("mallory@example.net", "createcompute")
    cell.live(61)
    (record,) = [event for event in cell.events if event["type"] == "auditRecord"]
    assert (record["who"], record["count"], cell.replies) == ("mallory@example.net", 3, [])


def test_who_is_who() -> None:
    """A JID is trusted by itself or its domain, an admin by name, a user by the JID registered for it."""
    cell = SmallCell(trusted=frozenset({"ism@example.org", "slas.example"}), admins=frozenset({"root@example.org"}))
    identify = cell.manager.commands.identify
    ism, domain, admin, alice = (identify(jid) for jid in ("ism@example.org", "any@slas.example", "root@example.org", "alice@example.org"))
    assert ism and ism.trusted and not ism.admin
    assert domain and domain.trusted
    assert admin and admin.admin and not admin.trusted
    assert alice and alice.user_id == 1000 and not alice.trusted
    assert identify("any@evil-slas.example") is None


def test_the_count_of_waiting_commands_falls_with_each_answer() -> None:
    """A sender's queue is what it is owed."""
    cell = SmallCell()
    for number in range(3):
        cell.create(a_spec(f"vm{number}"), stanza=f"s{number}")
    assert cell.manager.commands.queued(str(ISM.jid)) == 3
    cell.delete("vm1")
    assert cell.manager.commands.queued(str(ISM.jid)) == 4, "the delete waits for the store"
    cell.settle()
    assert cell.manager.commands.queued(str(ISM.jid)) == 2
    cell.join(FakeAgent("h1", some_facts()))
    cell.work()
    assert cell.manager.commands.queued(str(ISM.jid)) == 0


def test_a_refusal_does_not_overtake_an_outcome() -> None:
    """A stanza that comes again too late, or when its sender's queue is full, keeps the outcome that it has or will have."""
    late = YourMistake(EXPIRED, "too late")
    cell = _cell()
    cell.create(a_spec(resource_id="r"), stanza="s1")
    cell.manager.commands.refuse(ISM, an_origin("s1"), late)
    cell.work()
    cell.deliver()
    cell.manager.commands.refuse(ISM, an_origin("s1"), late)
    cell.settle()
    first, again = [row for row in cell.outgoing if row.to]
    assert (again.body, again.stanza_id, _codes(cell)) == (first.body, first.stanza_id, ["OK"])


def test_a_setting_told_twice_is_answered_once() -> None:
    """sethostconfig is one command like any other."""
    admin = Principal(name="root@example.org", admin=True, jid="root@example.org")
    cell = _cell()
    for _ in range(2):
        cell.manager.commands.set_host_config(admin, an_origin("s1", "sethostconfig"), "h1", "location", "ie")
        cell.settle()
    cell.manager.commands.set_host_config(ISM, an_origin("s2", "sethostconfig"), "h1", "location", "de")
    cell.settle()
    assert _codes(cell) == ["OK", "forbidden"]
    assert cell.manager.cluster.hosts[1].config == {"location": "ie"}
