"""The verbs of the command line, as the control plane carries them out."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tashi.errors import YourMistake
from tashi.model.user import Principal, User
from tashi.users.system import first_free_uid
from tests.builders import ADMIN, BOB, a_spec, some_facts
from tests.small_cell import FakeAgent, SmallCell, result_of

ALICE = Principal(name="alice", user_id=1000)
NOBODY = Principal(name="uid 4711", uid=4711)
DISKS = [{"uri": "tashi"}]


def _cell(*hosts: str) -> SmallCell:
    return SmallCell(hosts=[FakeAgent(name) for name in hosts or ("h1",)])


def _code(cell: SmallCell, who: Principal, verb: str, **arguments: Any) -> str:
    try:
        cell.call(who, verb, **arguments)
    except YourMistake as mistake:
        return mistake.code
    return "OK"


def test_create_and_destroy() -> None:
    """A VM is made for who asks, and destroyed by its owner."""
    cell = _cell()
    row = cell.call(ALICE, "createVm", name="web", disks=DISKS, cores=2, memory=512)
    assert (row["id"], row["state"], row["user"], row["disks"]) == (1, "Pending", "alice", [{"uri": "tashi.img", "persistent": False}])
    cell.work()
    (row,) = cell.call(ALICE, "GETINSTANCES")
    assert (row["state"], row["host"], row["cores"], row["memory"]) == ("Running", "h1", 2, 512)
    assert cell.call(ALICE, "destroyVm", instance="web")["state"] == "Destroying"
    cell.work()
    assert cell.call(ALICE, "getInstances") == []


def test_many() -> None:
    """createMany is all or nothing; destroyMany takes what is numbered under a name, and all must be the asker's."""
    cell = _cell()
    wish = [{"name": f"web-{number}", "disks": DISKS} for number in range(3)]
    assert len(cell.call(ALICE, "createMany", instances=wish)) == 3
    assert _code(cell, ALICE, "createMany", instances=[{"name": "x", "disks": DISKS}, {"name": "web-1", "disks": DISKS}]) == (
        "duplicate-hostname"
    )
    cell.call(ALICE, "createVm", name="web-site", disks=DISKS)
    cell.work()
    assert _code(cell, BOB, "destroyMany", basename="web") == "forbidden"
    assert len(cell.call(ALICE, "destroyMany", basename="web")) == 3
    cell.work()
    assert [row["name"] for row in cell.call(ALICE, "getInstances")] == ["web-site"]
    assert _code(cell, ALICE, "destroyMany", basename="web") == "unknown-id"


@pytest.mark.parametrize(
    "wrong", [{"name": "web-1"}, {"name": "a b"}, {"name": "db"}, {"name": "x", "cores": 0}, {"name": "x", "userId": 1001}]
)
def test_one_wrong_among_many_alike(wrong: dict[str, Any]) -> None:
    """Of many that are alike each is looked at all the same, and one that is wrong is the end of all."""
    cell = _cell()
    cell.call(ALICE, "createVm", name="db", disks=DISKS)
    wish = [{"name": f"web-{number}", "disks": DISKS} for number in range(3)]
    assert _code(cell, ALICE, "createMany", instances=[*wish, {"disks": DISKS, **wrong}]) != "OK"
    assert [row["name"] for row in cell.call(ALICE, "getInstances")] == ["db"]
    rows = cell.call(ADMIN, "createMany", instances=[wish[0] | {"userId": 1000}, wish[1] | {"userId": 1001}, wish[2] | {"userId": 1001}])
    assert [row["userId"] for row in rows] == [1000, 1001, 1001]
    assert len({row["nics"][0]["mac"] for row in rows}) == 3


MATRIX = [
    # verb, arguments, alice (owner), bob, a uid that is no user, admin
    ("getInstances", {}, "OK", "OK", "OK", "OK"),
    ("getHosts", {}, "OK", "OK", "OK", "OK"),
    ("getUsers", {}, "OK", "OK", "OK", "OK"),
    ("getImages", {}, "OK", "OK", "OK", "OK"),
    ("whoami", {}, "OK", "OK", "OK", "OK"),
    ("explain", {"instance": "web"}, "OK", "OK", "OK", "OK"),
    ("createVm", {"name": "new", "disks": DISKS}, "OK", "OK", "unknown-user", "OK"),
    ("createVm", {"name": "new", "disks": DISKS, "userId": 1000}, "OK", "forbidden", "forbidden", "OK"),
    ("createMany", {"instances": [{"name": "new", "disks": DISKS, "userId": 1000}]}, "OK", "forbidden", "forbidden", "OK"),
    ("destroyVm", {"instance": 1}, "OK", "forbidden", "forbidden", "OK"),
    ("destroyMany", {"basename": "many"}, "OK", "forbidden", "forbidden", "OK"),
    ("pauseVm", {"instance": 1}, "conflict", "forbidden", "forbidden", "conflict"),
    ("unpauseVm", {"instance": 1}, "conflict", "forbidden", "forbidden", "conflict"),
    ("shutdownVm", {"instance": 1}, "conflict", "forbidden", "forbidden", "conflict"),
    ("shutdownMany", {"basename": "many"}, "conflict", "forbidden", "forbidden", "conflict"),
    ("vmmSpecificCall", {"instance": 1, "arg": "reset"}, "conflict", "forbidden", "forbidden", "conflict"),
    ("vmmSpecificCall", {"instance": 1, "arg": "startVnc"}, "conflict", "forbidden", "forbidden", "conflict"),
    ("openConsole", {"instance": 1}, "conflict", "forbidden", "forbidden", "conflict"),
    ("adaptCpuShare", {"instance": 1, "share": 512}, "conflict", "forbidden", "forbidden", "conflict"),
    ("adaptMemoryLimit", {"instance": 1, "limit": 64}, "conflict", "forbidden", "forbidden", "conflict"),
    ("adaptDiskBandwidth", {"instance": 1, "weight": 500}, "conflict", "forbidden", "forbidden", "conflict"),
    ("adaptNetworkBandwidth", {"instance": 1, "upspeed": 8}, "conflict", "forbidden", "forbidden", "conflict"),
    ("setHostConfig", {"hostId": 1, "elemName": "location", "value": "ie"}, "forbidden", "forbidden", "forbidden", "OK"),
    ("registerUser", {"name": "carol"}, "forbidden", "forbidden", "forbidden", "OK"),
    ("plan", {}, "OK", "OK", "OK", "OK"),
    ("plan", {"apply": True}, "forbidden", "forbidden", "forbidden", "OK"),
    ("snapshot", {}, "forbidden", "forbidden", "forbidden", "OK"),
    ("powerOff", {"host": "h1"}, "forbidden", "forbidden", "forbidden", "conflict"),
    ("powerOn", {"host": "h1"}, "forbidden", "forbidden", "forbidden", "conflict"),
    ("drainHost", {"host": "h1"}, "forbidden", "forbidden", "forbidden", "OK"),
    ("setHostState", {"host": "h1", "state": "Drained"}, "forbidden", "forbidden", "forbidden", "OK"),
    ("unregisterHost", {"hostId": "h1"}, "forbidden", "forbidden", "forbidden", "conflict"),
    ("unregisterUser", {"userId": 1001}, "forbidden", "forbidden", "forbidden", "OK"),
]


@pytest.mark.parametrize(("verb", "arguments", "owner", "other", "unknown", "admin"), MATRIX)
def test_who_may_do_what(verb: str, arguments: dict[str, Any], owner: str, other: str, unknown: str, admin: str) -> None:
    """The table above holds, and what is refused is in the audit trail."""
    for who, expected in ((ALICE, owner), (BOB, other), (NOBODY, unknown), (ADMIN, admin)):
        cell = _cell()
        cell.call(ALICE, "createVm", name="web", disks=DISKS)
        cell.call(ALICE, "createMany", instances=[{"name": "many-1", "disks": DISKS}])
        assert _code(cell, who, verb, **arguments) == expected
        audit = [event for event in cell.events if event["type"] == "auditRecord" and event["who"] == who.name]
        if expected != "OK":
            assert (audit[-1]["verb"], audit[-1]["result"]) == (verb.lower(), expected)


def test_hints_and_cards_are_shown_to_their_owner() -> None:
    """Users see all rows, and of others' not what is private."""
    cell = _cell()
    cell.call(ALICE, "createVm", name="web", disks=DISKS, nics=[{"network": 0}], hints={"note": "mine"})
    for who, hints, cards in ((ALICE, {"note": "mine"}, 1), (ADMIN, {"note": "mine"}, 1), (BOB, {}, 0)):
        (row,) = cell.call(who, "getInstances")
        assert (row["hints"], len(row["nics"])) == (hints, cards)


@pytest.mark.parametrize(
    ("verb", "arguments", "code"),
    [
        ("noSuchVerb", {}, "unknown-verb"),
        ("createVm", {}, "bad-argument"),
        ("createVm", {"name": "x", "disks": DISKS, "colour": "red"}, "bad-argument"),
        ("createVm", {"name": "x", "disks": DISKS, "cores": "2"}, "bad-argument"),
        ("createVm", {"name": "x", "disks": DISKS, "cores": 0}, "bad-argument"),
        ("createVm", {"name": "x", "disks": DISKS, "memory": 2**31 + 1}, "bad-argument"),
        ("createVm", {"name": "../x", "disks": DISKS}, "bad-argument"),
        ("createVm", {"name": "x", "disks": [{"uri": "../../etc/shadow"}]}, "unknown-image"),
        ("createVm", {"name": "x", "disks": DISKS * 17}, "bad-argument"),
        ("createVm", {"name": "x", "disks": DISKS, "hints": {str(n): "" for n in range(65)}}, "bad-argument"),
        ("createVm", {"name": "x", "disks": DISKS, "nics": [{"mac": "zz"}]}, "bad-argument"),
        ("createMany", {"instances": "two"}, "bad-argument"),
        ("createMany", {"instances": []}, "bad-argument"),
        ("destroyVm", {"instance": "nobody"}, "unknown-id"),
        ("destroyVm", {"instance": True}, "bad-argument"),
        ("destroyVm", {}, "bad-argument"),
        ("destroyMany", {"basename": 7}, "bad-argument"),
        ("explain", {"instance": 77}, "unknown-id"),
        ("setHostConfig", {"hostId": "h9", "elemName": "location", "value": "ie"}, "unknown-id"),
        ("setHostConfig", {"hostId": "h1", "elemName": "a b", "value": "ie"}, "bad-argument"),
        ("setHostConfig", {"hostId": "h1", "elemName": "location", "value": "i\ne"}, "bad-argument"),
        ("registerUser", {"name": "a b"}, "bad-argument"),
        ("registerUser", {"name": "carol", "priority": "high"}, "bad-argument"),
        ("registerUser", {"name": "carol", "userId": -1}, "bad-argument"),
        ("registerUser", {"name": "carol", "jid": "not a jid"}, "bad-argument"),
        ("registerUser", {"name": "carol", "jid": 7}, "bad-argument"),
        ("registerUser", {"name": "carol", "passwd": 7}, "bad-argument"),
        ("registerUser", {"name": "carol", "jid": "alice@example.org"}, "conflict"),
        ("registerUser", {"name": "alice", "userId": 7}, "conflict"),
        ("registerUser", {"name": "carol", "userId": 1000}, "conflict"),
        ("unregisterUser", {"userId": "nobody"}, "unknown-user"),
        ("unregisterUser", {"userId": 0}, "bad-argument"),
        ("waitFor", {"ids": "1", "until": "Running"}, "bad-argument"),
        ("waitFor", {"ids": [1], "until": "Pausing"}, "bad-argument"),
        ("pauseVm", {}, "bad-argument"),
        ("pauseVm", {"instance": 77}, "unknown-id"),
        ("waitFor", {"ids": [1], "until": "gone", "timeout": "long"}, "bad-argument"),
        ("waitFor", {"ids": [1], "until": "gone", "timeout": -1}, "bad-argument"),
        ("waitFor", {"ids": [1], "until": "gone", "timeout": float("nan")}, "bad-argument"),
        ("waitFor", {"ids": [1], "until": "gone", "timeout": float("inf")}, "bad-argument"),
    ],
)
def test_what_is_wrong_is_told(verb: str, arguments: dict[str, Any], code: str) -> None:
    """Each mistake has its code, and nothing is changed by it."""
    cell = _cell()
    before = str(cell.manager.cluster.users)
    assert _code(cell, ADMIN, verb, **arguments) == code
    assert (cell.manager.cluster.instances, str(cell.manager.cluster.users)) == ({}, before)


def test_users_come_and_go() -> None:
    """A user who owns instances stays; one who owns none goes; the same registration twice is one."""
    cell = _cell()
    carol = cell.call(ADMIN, "registerUser", name="carol", passwd="hunter2", priority=12, jid="carol@example.org")
    assert carol == {"id": 100_000, "name": "carol", "priority": 12, "jid": "carol@example.org"}
    assert cell.call(ADMIN, "registerUser", name="carol", priority=12, jid="carol@example.org") == carol
    assert cell.call(ADMIN, "registerUser", name="carol", passwd="hunter2", priority=12, jid="carol@example.org") == carol
    for other in ("hunter3", "hunter2 "):
        assert _code(cell, ADMIN, "registerUser", name="carol", passwd=other, priority=12, jid="carol@example.org") == "conflict"
    cell.call(ADMIN, "registerUser", name="without")
    assert _code(cell, ADMIN, "registerUser", name="without", passwd="hunter2") == "conflict"
    cell.call(ADMIN, "unregisterUser", userId="without")
    assert "hunter2" not in str(cell.store.rows)  # type: ignore[attr-defined]
    cell.call(ALICE, "createVm", name="web", disks=DISKS)
    assert _code(cell, ADMIN, "unregisterUser", userId="alice") == "conflict"
    cell.call(ADMIN, "unregisterUser", userId="carol")
    assert [row["name"] for row in cell.call(ALICE, "getUsers")] == ["root", "alice", "bob"]
    assert cell.manager.commands.identify("carol@example.org") is None


def test_o3_a_drawn_number_is_nobodys_on_the_machine() -> None:
    """Without --userId the number comes from 100,000 on, skips the machine's users and ours, and no uid acts as that user."""
    machine = {1002, 100_000, 100_001, 100_003}
    cell = SmallCell(first_free_uid=lambda least: next(one for one in range(least, 2**32) if one not in machine))
    cell.call(ADMIN, "registerUser", name="dora", userId=100_002)
    numbers = [cell.call(ADMIN, "registerUser", name=name)["id"] for name in ("carol", "emil")]
    assert numbers == [100_004, 100_005]
    machine.add(100_006)
    cell.call(ADMIN, "unregisterUser", userId="emil")
    assert cell.call(ADMIN, "registerUser", name="emil")["id"] == 100_007, "no number is given twice"
    users = cell.manager.cluster.users
    assert {user.name: user.uid_login for user in users.values()} == {
        "root": True, "alice": True, "bob": True, "dora": True, "carol": False, "emil": False
    }  # fmt: skip
    cell.call(ADMIN, "registerUser", name="carol", userId=100_004)
    assert cell.manager.cluster.users[100_004].uid_login, "now the number is asked for"
    cell.call(ADMIN, "registerUser", name="last", userId=2**32 - 1)
    assert cell.call(ADMIN, "registerUser", name="next")["id"] == 100_008


def test_o3_the_machines_own_users_are_asked() -> None:
    """The number that is proposed is one that this machine's name service does not know."""
    import pwd

    taken = {user.pw_uid for user in pwd.getpwall()}
    for least in (0, 1, 65_534, 100_000):
        assert first_free_uid(least) >= least
        assert first_free_uid(least) not in taken


def test_d8_equal_addresses_are_one_user() -> None:
    """registerUser prepares a JID: it acts as the user in every spelling, belongs to one user, and has no resource."""
    cell = _cell()
    row = cell.call(ADMIN, "registerUser", name="carol", jid="Carol@EXAMPLE.org")
    assert row["jid"] == "carol@example.org"
    assert cell.call(ADMIN, "registerUser", name="carol", jid="cAROL@example.ORG") == row
    assert _code(cell, ADMIN, "registerUser", name="dora", jid="ＣＡＲＯＬ@example.org") == "conflict"
    for wrong in ("carol@example.org/Gajim", "example.org", "a b@example.org", "carol@a_b.example", "@example.org", "carol@"):
        assert _code(cell, ADMIN, "registerUser", name="dora", jid=wrong) == "bad-argument"
    who = cell.manager.commands.identify("carol@example.org")
    assert who is not None and who.user_id == row["id"]
    with cell.manager.cluster.transaction("restore") as tx:  # as an older version has stored it
        tx.put_user(User(id=7, name="old", jid="Old@Example.org"))
    who = cell.manager.commands.identify("old@example.org")
    assert who is not None and who.user_id == 7


def test_d8_of_two_old_spellings_the_prepared_one_acts_as_before() -> None:
    """Where an older version let two users have one address, the address acts as the user who was reached by it."""
    cell = _cell()
    with cell.manager.cluster.transaction("restore") as tx:
        for number, jid in ((7, "Old@Example.org"), (8, "old@example.org"), (9, "OLD@example.org")):
            tx.put_user(User(id=number, name=f"old{number}", jid=jid))

    def who_acts() -> int | None:
        who = cell.manager.commands.identify("old@example.org")
        return who.user_id if who else None

    assert who_acts() == 8
    cell.settle()
    cell.restart()
    assert who_acts() == 8
    cell.call(ADMIN, "unregisterUser", userId=9)
    assert who_acts() == 8
    cell.call(ADMIN, "unregisterUser", userId=8)
    assert who_acts() is None, "until the next start, which finds the other"


def test_h11_destroy_many_takes_what_create_many_made() -> None:
    """Names that are numbered alike, but were made otherwise or by another createMany or user, stay."""
    cell = _cell()

    def many(who: Principal, *names: str) -> None:
        cell.call(who, "createMany", instances=[{"name": name, "disks": DISKS} for name in names])

    many(ALICE, "web-0", "web-1")
    many(ALICE, "web-2-0", "web-2-1")
    many(BOB, "web-00", "web-01")
    for name in ("web-1-database", "web-7", "web"):
        cell.call(ALICE, "createVm", name=name, disks=DISKS)
    cell.work()
    assert _code(cell, ADMIN, "destroyMany", basename="web") == "ambiguous"
    assert _code(cell, NOBODY, "shutdownMany", basename="web") == "forbidden"
    assert [row["name"] for row in cell.call(ALICE, "destroyMany", basename="web")] == ["web-0", "web-1"]
    cell.work()
    kept = {row["name"] for row in cell.call(ALICE, "getInstances")}
    assert kept == {"web-2-0", "web-2-1", "web-00", "web-01", "web-1-database", "web-7", "web"}
    assert _code(cell, ALICE, "destroyMany", basename="web") == "forbidden", "only bob's are left"
    assert [row["name"] for row in cell.call(ADMIN, "destroyMany", basename="web")] == ["web-00", "web-01"]
    cell.work()
    assert _code(cell, ALICE, "destroyMany", basename="web") == "unknown-id"


def test_a_higher_priority_is_served_first() -> None:
    """When room comes, it goes to the more important user's instance, then to the older one."""
    cell = SmallCell()
    cell.call(ADMIN, "registerUser", name="vip", userId=7, priority=12)
    for name, user in (("a", 1000), ("b", 1001), ("c", 7)):
        cell.call(ADMIN, "createVm", name=name, disks=DISKS, userId=user)
    cell.join(FakeAgent("h1", some_facts(cores=2)))
    assert {name: cell.state(name) for name in "abc"} == {"a": "Activating", "b": "Pending", "c": "Activating"}


def test_explain_says_why_here_and_why_not_there() -> None:
    """Of a placed instance the policy's words and one line for each other host; of a waiting one a reason for each."""
    cell = _cell("h1", "h2", "h3")
    cell.call(ADMIN, "setHostConfig", hostId="h2", elemName="location", value="ie")
    cell.call(ALICE, "createVm", name="web", disks=DISKS, hints={"location": "ie"})
    cell.work()
    assert cell.call(ALICE, "explain", instance="web").splitlines() == [
        "web (1) is Running on h2, placed there by Primitive: 0 instances there before, the only host that fits",
        "h1: is in location unknown, not ie",
        "h3: is in location unknown, not ie",
    ]
    cell.agents[1].lose_link()
    cell.call(ALICE, "createVm", name="next", disks=DISKS, hints={"location": "ie"})
    assert cell.call(ALICE, "explain", instance="next").splitlines()[1:] == [
        "h1: is in location unknown, not ie",
        "h2: does not answer just now",
        "h3: is in location unknown, not ie",
    ]


def test_a_host_joins_where_it_was_put() -> None:
    """What is set of a host stays through its absence; an empty value takes it away."""
    cell = _cell()
    cell.call(ADMIN, "setHostConfig", hostId=1, elemName="location", value="ie")
    cell.restart()
    assert cell.call(ALICE, "getHosts")[0]["config"] == {"location": "ie"}
    assert cell.call(ADMIN, "setHostConfig", hostId="h1", elemName="location", value="")["config"] == {}


# ---- waiting


def _waiting(cell: SmallCell, *ids: int, until: str = "Running", timeout: float = 300) -> Deferred[Any]:
    arguments = {"ids": list(ids), "until": until, "timeout": timeout}
    return Deferred.fromCoroutine(cell.manager.verbs.call(ALICE, "waitFor", arguments))


def test_waiting_until_all_run() -> None:
    """The answer comes with the last one."""
    cell = _cell()
    cell.create(a_spec("a"), a_spec("b"))
    waiting = _waiting(cell, 1, 2)
    cell.settle()
    agent = cell.agents[0]
    held = agent.orders.pop()
    agent.work()
    cell.settle()
    assert not waiting.called
    agent.orders.append(held)
    cell.work()
    assert [(row["id"], row["ok"], row["state"]) for row in result_of(waiting)] == [(1, True, "Running"), (2, True, "Running")]


def test_waiting_for_what_is_there_already() -> None:
    """Running now is good enough; and what is not there is gone."""
    cell = _cell()
    cell.create()
    cell.work()
    assert [row["ok"] for row in result_of(_waiting(cell, 1))] == [True]
    assert [(row["ok"], row["state"]) for row in result_of(_waiting(cell, 77))] == [(False, "Exited")]
    assert [row["ok"] for row in result_of(_waiting(cell, 77, until="gone"))] == [True]
    assert result_of(_waiting(cell)) == []


def test_waiting_until_gone() -> None:
    """The answer comes when the host has said so."""
    cell = _cell()
    cell.create()
    cell.work()
    waiting = _waiting(cell, 1, until="gone")
    cell.delete(1)
    cell.settle()
    assert not waiting.called
    cell.work()
    assert [row["ok"] for row in result_of(waiting)] == [True]


def test_waiting_for_what_cannot_be_started() -> None:
    """An instance that is held is not going to run: waiting ends with its reason; it is its owner's to destroy."""
    cell = _cell()
    cell.agents[0].breaks = lambda order: "no such image"
    cell.call(ALICE, "createVm", name="web", disks=DISKS)
    waiting = _waiting(cell, 1)
    cell.work()
    assert [(row["ok"], row["state"], row["reason"]) for row in result_of(waiting)] == [(False, "Held", "no such image")]
    cell.call(ALICE, "destroyVm", instance="web")
    assert cell.state("web") == "none"


def test_waiting_has_an_end() -> None:
    """When time is up the answer says what is in the way."""
    cell = SmallCell()
    cell.create(a_spec("web"))
    waiting = _waiting(cell, 1, timeout=10)
    cell.settle(11)
    (row,) = result_of(waiting)
    assert (row["ok"], row["state"], row["reason"]) == (False, "Pending", "time is up: no host has joined the cell yet")
