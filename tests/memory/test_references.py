"""References: an id is an integer, a text is the sender's own resourceId or else a name, and nobody reaches
what is another's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tashi.errors import BUSY, YourMistake
from tashi.model.instance import Instance, InstanceUpdate, Resources
from tashi.model.states import InstanceState
from tashi.model.user import Principal, User
from tashi.xmpp.grammar import is_silent
from tests.builders import ADMIN, ALICE, ISM, a_host, a_login, a_spec, an_instance, an_origin
from tests.small_cell import FakeAgent, SmallCell, result_of

BOB = Principal(name="bob@example.org", user_id=1001, jid="bob@example.org")
ALICE_HERE = Principal(name="alice", user_id=1000)
BOB_HERE = Principal(name="bob", user_id=1001)
DISKS = [{"uri": "tashi"}]


class Door:
    """Commands of several senders to one cell, each in a stanza of its own."""

    def __init__(self, **settings: Any) -> None:
        self.cell = SmallCell(hosts=[FakeAgent("h1")], **settings)
        self._stanzas = 0

    def create(self, who: Principal, name: str, user_id: int = 1000, key: str | None = None) -> int:
        """Create an instance that runs; its id."""
        answer = self._answer(
            lambda origin: self.cell.manager.commands.create(
                who, origin, [a_spec(name, user_id=user_id, resource_id=key)], [f"{name} {user_id}"]
            ),
            who,
            "createcompute",
        )
        assert answer["status"] == "OK", answer
        return int(answer["ids"][0])

    def delete(self, who: Principal, reference: int | str) -> dict[str, Any]:
        """Delete by this reference; the answer."""
        return self._answer(
            lambda origin: self.cell.manager.commands.delete(who, origin, reference), who, "deletecompute"
        )

    def update(self, who: Principal, reference: str, cpu_share: int = 512) -> dict[str, Any]:
        """Set the CPU share of the instance that the reference names; the answer."""
        update = InstanceUpdate(resource_id=reference, resources=Resources(cpu_share=cpu_share))
        return self._answer(
            lambda origin: self.cell.manager.commands.update(who, origin, update), who, "updatecompute"
        )

    def get(self, who: Principal, reference: int | str) -> int:
        """The id of the instance that getcompute finds."""
        return int(result_of(self.cell.manager.commands.get(who, reference))["id"])

    def code(self, who: Principal, verb: str, **arguments: Any) -> str:
        """The code that a verb at the command line is answered with, or OK."""
        try:
            self.cell.call(who, verb, **arguments)
        except YourMistake as mistake:
            return mistake.code
        return "OK"

    def refusal(self, who: Principal, verb: str, **arguments: Any) -> str:
        """The words of that refusal."""
        with pytest.raises(YourMistake) as caught:
            self.cell.call(who, verb, **arguments)
        return caught.value.message

    def living(self) -> list[int]:
        """The ids of the instances that live, those that are being destroyed excepted."""
        found = self.cell.manager.cluster.instances.values()
        return sorted(one.id for one in found if one.state is not InstanceState.Destroying)

    def old_instance(self, number: int, name: str, **fields: Any) -> Instance:
        """An instance that an older version of Tashi has recorded, with a name that is no longer allowed."""
        instance = an_instance(number, name, **fields)
        with self.cell.manager.cluster.transaction("restore") as tx:
            tx.put_instance(instance)
        self.cell.settle()
        return instance

    def _answer(self, command: Any, who: Principal, verb: str) -> dict[str, Any]:
        self._stanzas += 1
        before = len(self.cell.replies)
        sender = {"sender": str(who.jid), "reply_to": f"{who.jid}/x"}
        command(an_origin(f"s{self._stanzas}", verb, **sender))
        self.cell.work()
        (answer,) = self.cell.replies[before:]
        return dict(answer)


# ---- a text is never an id


def test_d1_a_repeated_delete_by_resource_id_never_reaches_an_id() -> None:
    """deletecompute "1" twice deletes the sender's own instance twice, and never the instance with the id
    1."""
    door = Door()
    web1 = door.create(ALICE, "web1")
    mine = door.create(ISM, "order", key="1")
    assert (web1, mine) == (1, 2)
    answers = [door.delete(ISM, "1") for _ in range(3)]
    assert [(answer["status"], answer.get("ids")) for answer in answers] == [("OK", [2])] * 3
    assert door.living() == [web1]


def test_d1_an_update_with_an_unused_key_changes_nothing() -> None:
    """updatecompute with a resourceId that nobody used is refused, even when an instance has that id."""
    door = Door()
    number = door.create(ALICE, "web1")
    answer = door.update(ISM, str(number))
    assert (answer["code"], "in quotes is a name or a resourceId" in answer["message"]) == (
        "unknown-id",
        True,
    )
    assert door.cell.instance("web1").cpu_share == 1024


def test_d1_a_name_that_is_given_at_the_command_line_is_no_id() -> None:
    """destroyVm of the name 003 leaves the instance with the id 3 alone, also by the Python interface."""
    door = Door()
    for name in ("a1", "a2", "a3"):
        door.create(ALICE, name)
    assert door.code(ADMIN, "destroyVm", instance="003") == "unknown-id"
    assert door.code(ADMIN, "destroyVm", instance="3") == "unknown-id"
    assert door.living() == [1, 2, 3]


@pytest.mark.parametrize("wrong", [True, 1.0, 1.5, -1, 2**63, 10**30, [1], {"id": 1}])
@pytest.mark.parametrize(
    ("verb", "argument", "more"),
    [
        ("destroyVm", "instance", {}),
        ("explain", "instance", {}),
        ("migrateVm", "dst", {"instance": 1}),
        ("drainHost", "host", {}),
        ("unregisterUser", "userId", {}),
    ],
)
def test_a_reference_is_an_integer_or_a_text(
    verb: str, argument: str, more: dict[str, Any], wrong: object
) -> None:
    """Booleans, fractions and numbers that are no id are refused at the command line's door, with the
    argument's name."""
    door = Door()
    door.create(ALICE, "web1")
    assert door.code(ADMIN, verb, **{argument: wrong}, **more) == "bad-argument"
    assert argument in door.refusal(ADMIN, verb, **{argument: wrong}, **more)
    assert door.living() == [1]


# ---- a resourceId is its sender's own


def test_d2_a_resource_id_belongs_to_its_sender() -> None:
    """Two senders with the same resourceId see, change and delete each their own instance."""
    door = Door()
    isms = door.create(ISM, "a", key="order-2")
    hers = door.create(ALICE, "b", key="order-2")
    assert (door.get(ISM, "order-2"), door.get(ALICE, "order-2")) == (isms, hers)
    assert door.update(ALICE, "order-2")["ids"] == [hers]
    assert door.delete(ISM, "order-2")["ids"] == [isms]
    assert door.living() == [hers]
    assert door.delete(ISM, "order-2")["ids"] == [isms]
    assert door.living() == [hers]


def test_d2_the_older_key_of_another_hides_nothing() -> None:
    """Where the other sender's instance is the younger one, one's own key still finds one's own instance."""
    door = Door()
    hers = door.create(ALICE, "b", key="order-2")
    isms = door.create(ISM, "a", key="order-2")
    assert (door.get(ALICE, "order-2"), door.get(ISM, "order-2")) == (hers, isms)
    assert door.delete(ALICE, "order-2")["ids"] == [hers]
    assert door.living() == [isms]


def test_another_senders_resource_id_is_unknown() -> None:
    """A resourceId of another sender finds nothing, living or gone, and the refusal does not tell that it
    exists."""
    door = Door()
    door.create(ALICE, "hers", key="secret")
    for who in (BOB, ISM):
        answer = door.delete(who, "secret")
        assert (answer["code"], answer["resourceId"]) == ("unknown-id", None)
        assert door.update(who, "secret")["code"] == "unknown-id"
        with pytest.raises(YourMistake, match="there is no instance 'secret'"):
            door.get(who, "secret")
        with pytest.raises(YourMistake, match="there is no instance 'secret'"):
            result_of(door.cell.manager.commands.explain(who, "secret"))
    assert door.code(ADMIN, "destroyVm", instance="secret") == "unknown-id"
    assert door.delete(ALICE, "secret")["status"] == "OK"
    assert [door.delete(who, "secret")["code"] for who in (BOB, ISM)] == ["unknown-id"] * 2


def test_a4_a_resource_id_diverts_nobody_from_a_name() -> None:
    """alice's resourceId that equals bob's host name reaches neither root's commands for bob's instance nor
    the ISM's."""
    door = Door()
    bobs = door.create(BOB, "web1", user_id=1001)
    hers = door.create(ALICE, "hers", key="web1")
    assert door.get(ISM, "web1") == bobs
    assert door.update(ISM, "web1")["ids"] == [bobs]
    assert door.cell.call(ADMIN, "destroyVm", instance="web1")["id"] == bobs
    door.cell.work()
    assert door.living() == [hers]
    assert [door.delete(ALICE, "web1").get("ids") for _ in range(2)] == [[hers], [hers]]


def test_an_own_key_comes_before_anybodys_name_also_when_it_is_gone() -> None:
    """A trusted sender's repeated delete of its key never reaches an instance whose name is like the key."""
    door = Door()
    mine = door.create(ISM, "a", key="order-77")
    other = door.create(ALICE, "order-77")
    assert [door.delete(ISM, "order-77").get("ids") for _ in range(2)] == [[mine], [mine]]
    answer = door.update(ISM, "order-77")
    assert (answer["code"], "is gone" in answer["message"]) == ("unknown-id", True)
    assert door.cell.instance("order-77").cpu_share == 1024
    assert door.living() == [other]


def test_the_key_of_a_failed_creation_is_free_and_still_known() -> None:
    """After a creation that was answered ERROR its key may be used again, and to delete it is fine."""
    door = Door()
    door.cell.agents[0].breaks = lambda order: "the disk is full"
    door.cell.create(a_spec("a", resource_id="r"))
    door.cell.work()
    assert door.delete(ISM, "r")["status"] == "OK"
    door.cell.agents[0].breaks = lambda order: None
    again = door.create(ISM, "a", key="r")
    assert door.get(ISM, "r") == again


def test_commands_of_one_sender_keep_their_order_while_the_store_is_asked() -> None:
    """A create that follows the delete of the same name finds the name free, though the delete had to ask the
    store."""
    door = Door()
    door.create(ISM, "web")
    commands = door.cell.manager.commands
    commands.create(ISM, an_origin("c1"), [a_spec("other")], ["other"])  # the store is not at rest
    commands.delete(ISM, an_origin("d1", "deletecompute"), "web")
    commands.create(ISM, an_origin("c2"), [a_spec("web")], ["web"])
    assert door.cell.state("web") == "Running"
    door.cell.work()
    assert [(reply["verb"], reply["status"], reply["ids"]) for reply in door.cell.replies[1:]] == [
        ("createcompute", "OK", [2]), ("deletecompute", "OK", [1]), ("createcompute", "OK", [3])
    ]  # fmt: skip


def test_a_refusal_does_not_overtake_a_command_that_waits_for_its_turn() -> None:
    """A stanza that comes again while its command waits for the store has one outcome, whatever the second
    one is refused for."""
    door = Door()
    door.create(ISM, "web")
    commands = door.cell.manager.commands
    commands.create(ISM, an_origin("c1"), [a_spec("other")], ["other"])  # the store is not at rest
    commands.delete(ISM, an_origin("d1", "deletecompute"), "web")
    commands.refuse(ISM, an_origin("d1", "deletecompute"), YourMistake(BUSY, "later"))
    door.cell.work()
    assert [(reply["verb"], reply["status"]) for reply in door.cell.replies[1:]] == [
        ("createcompute", "OK"), ("deletecompute", "OK")
    ]  # fmt: skip


def test_a_fault_in_a_queued_command_is_answered_and_the_next_one_is_carried_out() -> None:
    """An internal error in a command that waited for its turn costs that command alone."""
    door = Door()
    door.create(ISM, "web")
    commands = door.cell.manager.commands
    commands.create(ISM, an_origin("c1"), [a_spec("other")], ["other"])  # the store is not at rest
    commands.delete(ISM, an_origin("d1", "deletecompute"), "web")
    commands.create(ISM, an_origin("c2"), [a_spec("db")], [])  # a digest is missing
    commands.create(ISM, an_origin("c3"), [a_spec("db")], ["db"])
    door.cell.work()
    assert sorted(reply.get("code") or str(reply["ids"]) for reply in door.cell.replies) == [
        "[1]",
        "[1]",
        "[2]",
        "[3]",
        "internal",
    ]
    assert door.cell.instance("db").id == 3
    assert commands.queued(str(ISM.jid)) == 0


# ---- who is told


def test_a8_a_notification_does_not_look_like_an_answer() -> None:
    """Who is named in notificationUri is told who asked, outside the thread of the command; the answer itself
    is as always."""
    door = Door()
    origin = an_origin("s1", thread="the victim's", stanza_type="chat")
    door.cell.create(a_spec("web", resource_id="r", notification_uri="llms@example.org"), origin=origin)
    door.cell.work()
    answer, told = sorted((row for row in door.cell.outgoing if row.to), key=lambda row: row.to)
    assert (answer.to, told.to) == ("ism@example.org/laptop", "llms@example.org")
    assert (told.thread, told.stanza_type) == (None, "normal")
    assert told.stanza_id != answer.stanza_id
    body, copy = json.loads(answer.body), json.loads(told.body)
    assert copy == body | {"notification": True, "requester": "ism@example.org"}
    assert is_silent(told.body), "another sink does not answer it"


def test_a8_who_asks_to_be_told_is_told_once() -> None:
    """A notificationUri that is the sender's own is the answer."""
    door = Door()
    door.cell.create(a_spec("web", notification_uri=str(ISM.jid)))
    door.cell.work()
    (row,) = (row for row in door.cell.outgoing if row.to)
    assert "notification" not in json.loads(row.body)


# ---- names


def test_a_name_that_is_two_of_the_askers_is_ambiguous() -> None:
    """The refusal names the candidates by id, at every door, and changes nothing."""
    door = Door(allow_duplicate_names=True)
    first, second = door.create(ALICE, "web"), door.create(ALICE, "web")
    answer = door.delete(ALICE, "web")
    assert answer["code"] == "ambiguous"
    assert f"{first}, {second}" in answer["message"]
    assert door.update(ALICE, "web")["code"] == "ambiguous"
    for verb in ("destroyVm", "explain", "pauseVm", "openConsole"):
        assert door.code(ALICE_HERE, verb, instance="web") == "ambiguous"
    with pytest.raises(YourMistake, match="more than one"):
        door.get(ISM, "web")
    assert door.living() == [first, second]
    assert door.delete(ALICE, second)["ids"] == [second]
    assert door.delete(ALICE, "web")["ids"] == [first]


def test_of_equal_names_the_askers_own_is_meant() -> None:
    """Each user reaches the own instance by a name that others use, too; who may act on both must say
    which."""
    door = Door(allow_duplicate_names=True)
    hers, his = door.create(ALICE, "web"), door.create(BOB, "web", user_id=1001)
    assert (door.get(ALICE, "web"), door.get(BOB, "web")) == (hers, his)
    assert door.code(ADMIN, "destroyVm", instance="web") == "ambiguous"
    assert door.delete(ISM, "web")["code"] == "ambiguous"
    assert door.cell.call(BOB_HERE, "destroyVm", instance="web")["id"] == his
    door.cell.work()
    assert door.delete(BOB, "web")["ids"] == [his], "already gone"
    assert door.living() == [hers]


def test_a_name_of_others_alone_is_forbidden_and_changes_nothing() -> None:
    """A name that exists and is nobody's whom the sender may act for is forbidden; reads see it, while it is
    unambiguous."""
    door = Door(allow_duplicate_names=True)
    his = door.create(BOB, "web", user_id=1001)
    assert door.delete(ALICE, "web")["code"] == "forbidden"
    assert door.update(ALICE, "web")["code"] == "forbidden"
    assert door.code(ALICE_HERE, "destroyVm", instance="web") == "forbidden"
    assert door.get(ALICE, "web") == his
    second = door.create(BOB, "web", user_id=1001)
    assert door.delete(ALICE, "web")["code"] == "forbidden"
    with pytest.raises(YourMistake, match="more than one"):
        door.get(ALICE, "web")
    assert door.living() == [his, second]


def test_what_is_being_destroyed_has_lost_its_name() -> None:
    """A new instance has the name of one that a silent host has still to destroy, and the name means the new
    one."""
    door = Door()
    door.create(ALICE, "web")
    agent = door.cell.agents[0]
    agent.lose_link()
    door.cell.call(ALICE_HERE, "destroyVm", instance="web")
    door.cell.join(FakeAgent("h2"))
    new = door.create(ALICE, "web")
    assert door.get(ALICE, "web") == new
    assert door.update(ALICE, "web")["ids"] == [new]


def test_a_gone_name_is_its_owners_still() -> None:
    """A delete by a name in history is fine for its owner, forbidden for others, and finds the asker's own
    before a newer one."""
    door = Door()
    hers = door.create(ALICE, "web")
    assert door.delete(ALICE, "web")["ids"] == [hers]
    his = door.create(BOB, "web", user_id=1001)
    assert door.delete(ALICE, "web")["ids"] == [hers]
    assert door.living() == [his]
    assert door.delete(BOB, "web")["ids"] == [his]
    assert door.delete(ALICE, "web")["ids"] == [hers]
    assert door.delete(ALICE, his)["code"] == "forbidden"
    assert (
        door.delete(Principal(name="carol@example.org", user_id=1002, jid="carol@example.org"), "web")["code"]
        == "forbidden"
    )


# ---- digits


def test_o11_no_new_name_is_digits_alone() -> None:
    """createVm, createMany, createcompute, a host's login and registerUser refuse a name that reads like an
    id."""
    door = Door()
    assert door.code(ALICE_HERE, "createVm", name="9", disks=DISKS) == "bad-argument"
    wish = [{"name": name, "disks": DISKS} for name in ("web-0", "003")]
    assert door.code(ALICE_HERE, "createMany", instances=wish) == "bad-argument"
    assert door.code(ADMIN, "registerUser", name="1001") == "bad-argument"
    door.cell.create(a_spec("007"))
    with pytest.raises(YourMistake, match="reads like an id"):
        FakeAgent("7").login(door.cell, a_login("7"))
    door.cell.work()
    assert door.cell.replies[-1]["code"] == "bad-argument"
    assert (door.living(), sorted(door.cell.manager.cluster.hosts)) == ([], [1])


def test_o11_an_old_name_of_digits_is_never_guessed() -> None:
    """Digits that are the id of one instance and the name of another are refused, name both, and each can be
    named otherwise."""
    door = Door()
    web = door.create(ALICE, "web")
    door.old_instance(9, str(web))
    words = door.refusal(ADMIN, "destroyVm", instance=web)
    assert f"1 is the id of instance web ({web}) and the name of instance 1 (9)" in words
    assert "name:1" in words
    assert door.code(ADMIN, "destroyVm", instance=web) == "ambiguous"
    assert door.living() == [web, 9]
    assert door.cell.call(ADMIN, "explain", instance="1").startswith("1 (9)"), "what name:1 is on the wire"
    assert door.cell.call(ADMIN, "explain", instance="web").startswith("web (1)")
    assert door.cell.call(ADMIN, "destroyVm", instance=9)["id"] == 9


def test_o11_digits_that_were_an_id_do_not_become_a_name() -> None:
    """A repeated destroyVm by id does not reach an old instance that has these digits for a name."""
    door = Door()
    web = door.create(ALICE, "web")
    assert door.cell.call(ADMIN, "destroyVm", instance=web)["id"] == web
    door.cell.work()
    door.old_instance(9, str(web))
    assert door.code(ADMIN, "destroyVm", instance=web) == "unknown-id"
    assert "but one of that name: 1 (9)" in door.refusal(ADMIN, "destroyVm", instance=web)
    assert door.living() == [9]


def test_a_json_integer_is_an_id_whatever_old_names_there_are() -> None:
    """In a message an integer is an id and a string a name, so that nothing is ambiguous."""
    door = Door()
    web = door.create(ALICE, "web")
    door.old_instance(9, str(web))
    assert door.get(ISM, "1") == 9
    assert door.delete(ISM, web)["ids"] == [web]
    assert door.living() == [9]


def test_hosts_and_users_are_named_by_the_same_rules() -> None:
    """A host's or user's id is an integer, its name a text; digits that are both are refused and name
    both."""
    door = Door()
    for host in ("1", "01", "H1", 7):
        assert door.code(ADMIN, "setHostConfig", hostId=host, elemName="a", value="b") == "unknown-id"
    for user in ("1000", "Alice", 77):
        assert door.code(ADMIN, "unregisterUser", userId=user) == "unknown-user"
        assert door.code(ADMIN, "createVm", name="x", disks=DISKS, userId=user) == "unknown-user"
    with door.cell.manager.cluster.transaction("restore") as tx:
        tx.put_host(a_host(8, "1"))
        tx.put_user(User(id=1002, name="1001"))
    assert door.code(ADMIN, "drainHost", host=1) == "ambiguous"
    assert "h1 (1)" in door.refusal(ADMIN, "drainHost", host=1)
    assert "1 (8)" in door.refusal(ADMIN, "drainHost", host=1)
    assert door.code(ADMIN, "unregisterUser", userId=1001) == "ambiguous"
    assert door.code(ADMIN, "createVm", name="x", disks=DISKS, userId=1001) == "ambiguous"
    assert door.cell.call(ADMIN, "createVm", name="x", disks=DISKS, userId="1001")["userId"] == 1002
    assert [row["name"] for row in door.cell.call(ADMIN, "drainHost", host="h1")] == ["x"]
