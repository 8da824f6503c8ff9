"""Nobody reaches what is another's: random users, names, keys and verbs at all doors, compared with a model.

TASHI_REFERENCE_STEPS is the number of steps in all; each world takes 250 of them.
"""

from __future__ import annotations

import json
import os
import re
from random import Random
from typing import Any, Final
from uuid import UUID

import msgspec
import pytest

from tashi.images.directory import ImageFile
from tashi.model.instance import Instance, domain_uuid
from tashi.model.orders import Destroy
from tashi.model.questions import Answer, ConsoleOpened, Done, LogPage, OpenConsole, Question, ReadLog
from tashi.model.user import User
from tests.builders import some_facts
from tests.fake_agent import FakeAgent
from tests.simulation.belongings import FORBIDDEN, REFUSALS, UNKNOWN, Actor, Belongings, Vm
from tests.simulation.requesters import Doors
from tests.small_cell import SmallCell

STEPS_A_WORLD: Final = 250
SEEDS: Final = max(1, int(os.environ.get("TASHI_REFERENCE_STEPS", "500")) // STEPS_A_WORLD)
NAMES: Final = ("web", "db", "order-1", "mail", "a1", "web-0", "web-1", "farm-0")
KEYS: Final = ("web", "db", "order-1", "1", "2", "3", "k")
BASENAMES: Final = ("web", "farm", "web-0")
ISM, ISM2, ADMIN, LLMS = (f"{name}@example.org" for name in ("ism", "ism2", "admin", "llms"))
CAROL: Final = "carol@example.org"
MANY: Final = 12
ROOT: Final = Actor("root", uid=0, user=0, everybody=True, admin=True)
_BARE: Final = re.compile(r"[A-Za-z][A-Za-z0-9.-]*")


@pytest.mark.parametrize("seed", range(SEEDS))
def test_nobody_reaches_what_is_anothers(seed: int) -> None:
    """Each command reaches the instance that the model says, or is refused with its code, and no other record
    changes."""
    world = World(seed)
    for _ in range(STEPS_A_WORLD):
        world.step()


class SlowToDestroy(FakeAgent):
    """A host that may put off what it is to destroy."""

    puts_off = False

    def work(self, most: int | None = None) -> int:
        later = [order for order in self.orders if self.puts_off and isinstance(order, Destroy)]
        self.orders = [order for order in self.orders if order not in later]
        done = super().work(most)
        self.orders = later + self.orders
        return done


class World:
    """A cell, the actors, and what the model knows of both."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.duplicates = bool(seed % 2)
        facts = some_facts(cores=10_000, memory=10_000_000)
        self.agents = [SlowToDestroy(name, facts) for name in ("h1", "h2")]
        for agent in self.agents:
            agent.answers = _answer
        self.cell = SmallCell(
            hosts=self.agents,
            publishing=False,
            trusted=frozenset({ISM, ISM2}),
            admins=frozenset({ADMIN}),
            allow_duplicate_names=self.duplicates,
        )
        with self.cell.manager.cluster.transaction("register_bob") as tx:
            tx.put_user(User(id=1001, name="bob", jid="bob@example.org"))
        self.cell.settle()
        self.doors = Doors(self.cell, (LLMS, ISM, ISM2))
        self.model = Belongings()
        self.model.users = {"root": 0, "alice": 1000, "bob": 1001}
        self.owed: list[tuple[str, int]] = []
        """Deletes that are answered when a host has destroyed: the sender's JID, and the instance."""
        self.cell_id = UUID(self.cell.manager.cluster.settings["cell"])
        self.log: list[str] = []

    # ---- one step

    def step(self) -> None:
        """Let one actor do one thing, and compare."""
        chance = self.chance
        before = dict(self._records())
        draw = chance.random()
        if draw < 0.02:
            changed = self._rename_as_an_older_version_could()
        elif draw < 0.05:
            changed = self._change_pace()
        elif draw < 0.06 and not self._puts_off():
            self._note("restart")
            self.cell.restart()
            self.doors.open()
            self.doors.work()
            self.doors.messages()  # what was answered lately may come again
            changed = None
        elif draw < 0.55:
            changed = self._message(self._sender())
        else:
            changed = self._command_line(self._person())
        after = self._records()
        if changed is not None:
            touched = {
                number for number in before.keys() | after.keys() if before.get(number) != after.get(number)
            }
            assert touched <= changed, self._told(f"{touched - changed} changed, too")
        living = {vm.number: (vm.name, vm.owner, vm.sender, vm.key) for vm in self.model.living()}
        assert {
            n: (one.name, one.user_id, one.owner_jid, one.resource_id) for n, one in after.items()
        } == living, self._told("")

    def _records(self) -> dict[int, Instance]:
        return self.cell.manager.cluster.instances

    def _told(self, words: str) -> str:
        return "\n".join([words, *self.log[-12:]])

    def _note(self, words: object) -> None:
        self.log.append(str(words))

    def _rename_as_an_older_version_could(self) -> set[int]:
        """A name that is digits alone."""
        vms = self.model.living()
        if not vms:
            return set()
        vm = self.chance.choice(vms)
        vm.name, vm.group = str(self.chance.choice(list(self.model.vms))), None
        self._note(f"{vm.number} is called {vm.name}")
        with self.cell.manager.cluster.transaction("rename") as tx:
            tx.put_instance(msgspec.structs.replace(self._records()[vm.number], name=vm.name))
        self.doors.work()
        return {vm.number}

    def _puts_off(self) -> bool:
        return self.agents[0].puts_off

    def _change_pace(self) -> set[int]:
        """Let the hosts put off what they are to destroy, or do it now; what is owed is answered then."""
        puts_off = not self._puts_off()
        self._note(f"puts off: {puts_off}")
        for agent in self.agents:
            agent.puts_off = puts_off
        self.doors.work()
        dying = {vm.number for vm in self.model.living() if vm.dying}
        answers = [(row.to.partition("/")[0], json.loads(row.body)) for row in self.doors.messages()]
        if puts_off:
            assert answers == []
            return set()
        assert {body["status"] for _, body in answers} <= {"OK"}
        assert sorted((jid, body["ids"][0]) for jid, body in answers) == sorted(self.owed), self._told("owed")
        self.owed.clear()
        for number in dying:
            self.model.vms[number].gone = True
        return dying

    # ---- actors and references

    def _sender(self) -> Actor:
        carol = self.model.users.get("carol")
        hers = Actor("carol" if carol else "stranger", jid=CAROL, user=carol)
        return self.chance.choice(
            [
                Actor("ism", jid=ISM, everybody=True),
                Actor("ism2", jid=ISM2, everybody=True),
                Actor("admin", jid=ADMIN, everybody=True, admin=True),
                Actor("alice", jid="alice@example.org", user=1000),
                Actor("bob", jid="bob@example.org", user=1001),
                hers,
                hers if carol else Actor("alice", jid="alice@example.org", user=1000),
            ]
        )

    def _person(self) -> Actor:
        return self.chance.choice(
            [
                ROOT,
                Actor("alice", uid=1000, user=1000),
                Actor("bob", uid=1001, user=1001),
                Actor("uid 4711", uid=4711),
                Actor("uid of carol", uid=self.model.users.get("carol", 100_000)),
            ]
        )

    def _reference(self) -> int | str:
        chance = self.chance
        numbers = list(self.model.vms)[-MANY * 2 :] or [1]
        texts = [*NAMES, *KEYS, str(chance.choice(numbers)), "003", "nothing", "true"]
        return chance.choice(numbers) if chance.random() < 0.4 else chance.choice([*texts, *NAMES])

    def _as_argument(self, reference: int | str) -> str:
        """As one writes it in a message: a bare word where that can only be a name."""
        if (
            isinstance(reference, str)
            and _BARE.fullmatch(reference)
            and reference != "true"
            and self.chance.random() < 0.5
        ):
            return reference
        return json.dumps(reference)

    def _as_word(self, reference: int | str) -> str:
        """As one types it."""
        is_digits = isinstance(reference, str) and reference.isdigit() and str(int(reference)) == reference
        return (
            f"name:{reference}"
            if is_digits or (self.chance.random() < 0.1 and isinstance(reference, str))
            else str(reference)
        )

    # ---- by message

    def _message(self, who: Actor) -> set[int]:
        if who.name == "stranger":
            body = self.chance.choice(["deletecompute web", "listcompute", "getcompute 1"])
            assert self.doors.say(CAROL, body) is None
            return set()
        full = len(self.model.living()) > MANY
        verbs = ["delete"] * (6 if full else 3) + [
            "update",
            "update",
            "get",
            "get",
            "explain",
            "list",
            "host",
        ]
        if not full:
            verbs += ["create"] * 6 + ["many"]
        match self.chance.choice(verbs):
            case "delete":
                return self._delete(who)
            case "update":
                return self._update(who)
            case "get":
                self._get(who)
            case "explain":
                self._explain(who)
            case "list":
                self._list(who)
            case "host":
                self._set_host(who)
            case "create":
                return self._create(who, 1)
            case "many":
                return self._create(who, 2)
        return set()

    def _say(self, who: Actor, body: str) -> dict[str, Any] | None:
        self._note(f"{who.name}: {body}")
        answer = self.doors.say(str(who.jid), body)
        self._note(f"  -> {answer}")
        return answer

    def _ask(self, who: Actor, body: str) -> dict[str, Any]:
        answer = self._say(who, body)
        assert answer is not None, self._told("no answer")
        return answer

    def _delete(self, who: Actor) -> set[int]:
        reference = self._reference()
        meant = self.model.meant(who, reference, change=True, history=True)
        answer = self._say(who, f"deletecompute {self._as_argument(reference)}")
        if isinstance(meant, str):
            assert answer and answer.get("code") == meant, self._told(f"expected {meant}")
            assert answer["resourceId"] is None
            return set()
        if not meant.gone and self._puts_off():
            meant.dying = True
            self.owed.append((str(who.jid), meant.number))
            assert answer is None, self._told("answered early")
            return {meant.number}
        assert answer and answer.get("ids") == [meant.number], self._told(f"expected {meant.number}")
        meant.gone = True
        return {meant.number}

    def _update(self, who: Actor) -> set[int]:
        reference = str(self._reference())
        share = self.chance.randint(2, 262_144)
        meant = self.model.meant(who, reference, change=True, history=False)
        asked = {"resourceId": reference, "cpu_share": share}
        if self.model.disks and self.chance.random() < 0.2:
            asked |= {"imageIdentifier": self.chance.choice(list(self.model.disks)), "restart": True}
        answer = self._ask(who, f"updatecompute {json.dumps(asked)}")
        if isinstance(meant, str):
            assert answer.get("code") == meant, self._told(f"expected {meant}")
            return set()
        if "restart" in asked and asked["imageIdentifier"] != meant.disk:
            assert answer["status"] == "ERROR", self._told("a persistent disk is no image")
            return set()
        assert answer.get("code") not in REFUSALS, self._told(f"expected {meant.number}")
        if answer["status"] == "OK":
            assert answer["ids"] == [meant.number]
            assert self._records()[meant.number].cpu_share == share
        return {meant.number}

    def _get(self, who: Actor) -> None:
        reference = self._reference()
        meant = self.model.meant(who, reference, change=False, history=True)
        answer = self._ask(who, f"getcompute {self._as_argument(reference)}")
        if isinstance(meant, str):
            assert answer.get("code") == meant, self._told(f"expected {meant}")
        else:
            assert answer.get("id") == meant.number, self._told(f"expected {meant.number}")
            self._shows_no_secrets(who, [answer])

    def _explain(self, who: Actor) -> None:
        reference = self._reference()
        meant = self.model.meant(who, reference, change=False, history=False)
        answer = self._ask(who, f"explain {self._as_argument(reference)}")
        if isinstance(meant, str):
            assert answer.get("code") == meant, self._told(f"expected {meant}")
        else:
            assert answer["message"].startswith(f"{meant.name} ({meant.number}) is "), self._told(
                f"expected {meant.number}"
            )

    def _list(self, who: Actor) -> None:
        rows = self._ask(who, "listcompute")["instances"]
        assert {row["id"] for row in rows} == {vm.number for vm in self.model.living()}
        self._shows_no_secrets(who, rows)

    def _set_host(self, who: Actor) -> None:
        host = self.chance.choice([1, "h1", "1", "h9", 9])
        answer = self._ask(
            who, f"sethostconfig {json.dumps({'hostId': host, 'elemName': 'rack', 'value': '7'})}"
        )
        expected = FORBIDDEN if who.jid != ADMIN else None if host in (1, "h1") else UNKNOWN
        assert answer.get("code") == expected, self._told(str(expected))

    def _create(self, who: Actor, count: int) -> set[int]:
        wishes = [self._wish(who, disks=count == 1) for _ in range(count)]
        expected = self._refusal_of_create(who, wishes)
        fails = expected is None and not self._puts_off() and self.chance.random() < 0.05
        if fails:
            for agent in self.agents:
                agent.breaks = lambda order: "broken"
        before = set(self._records())
        existing = [self.model.under_key(who.jid, wish.get("resourceId")) for wish in wishes]
        body = json.dumps(wishes if count > 1 else wishes[0])
        answer = self._ask(who, f"create{'many' if count > 1 else ''}compute {body}")
        for agent in self.agents:
            agent.breaks = lambda order: None
        if fails and not all(existing):
            assert answer.get("code") in ("no-suitable-host", "internal"), self._told("it fails")
            self._learn_failures(who, [wish for wish, vm in zip(wishes, existing, strict=True) if vm is None])
            return set()
        assert answer.get("code") == expected, self._told(f"expected {expected}")
        made = iter(sorted(set(self._records()) - before))
        if expected is None:
            ids = []
            for wish, vm in zip(wishes, existing, strict=True):
                if vm is None:
                    vm = self._learn(
                        Vm(
                            next(made),
                            wish["hostname"],
                            wish["userId"],
                            sender=who.jid,
                            key=wish.get("resourceId"),
                        )
                    )
                    vm.content = wish
                    self._got_disk(vm, wish["imageIdentifier"], wish["persistent"])
                ids.append(vm.number)
            assert answer["ids"] == ids, self._told(str(ids))
        assert list(made) == [], self._told("more than was asked for")
        return set(self._records()) - before

    def _image(self, who: Actor, owner: int) -> tuple[str, bool]:
        """An image, and whether the instance is to have a copy of its own; or a persistent disk, of whomever
        it is."""
        draw = self.chance.random()
        if draw < 0.6 or not self.model.disks:
            return "tashi", draw < 0.2
        disk = self.chance.choice(list(self.model.disks))
        if self.model.may_attach(who, disk, owner) and not self.model.is_free(disk):
            return "tashi", True  # the disk would be waited for
        return disk, self.chance.random() < 0.5

    def _got_disk(self, vm: Vm, image: str, persistent: bool) -> None:
        if image != "tashi":
            vm.disk = image
        elif persistent:
            vm.disk = f"disk-{vm.number}-{vm.name}-0.img"
            self.model.disks[vm.disk] = vm.owner
        (disk,) = self._records()[vm.number].disks
        assert disk.uri == (vm.disk or "tashi.img"), self._told(f"{vm.number} has {disk.uri}")

    def _wish(self, who: Actor, disks: bool) -> dict[str, Any]:
        chance = self.chance
        owner = (
            who.user
            if who.user is not None and chance.random() < 0.8
            else chance.choice([*self.model.users.values(), 4242])
        )
        wish = {
            "hostname": chance.choice(NAMES) if chance.random() < 0.97 else "77",
            "imageIdentifier": "tashi",
            "userId": owner,
        }
        wish["hints"] = {"secret": f"of {owner}"}
        image, wish["persistent"] = self._image(who, owner) if disks else ("tashi", False)
        wish["imageIdentifier"] = image
        if chance.random() < 0.6:
            wish["resourceId"] = chance.choice(KEYS)
        if chance.random() < 0.2:
            wish["notificationUri"] = chance.choice(
                [who.jid, LLMS, ISM.upper(), "bob@example.org", "eve@example.org"]
            )
        return wish

    def _refusal_of_create(self, who: Actor, wishes: list[dict[str, Any]]) -> str | None:
        model, names, keys = self.model, [], []
        for wish in wishes:
            told = wish.get("notificationUri", who.jid).lower()
            if wish["hostname"] == "77" or told not in (who.jid, LLMS, ISM, ISM2):
                return "bad-argument"
            names.append(wish["hostname"])
            keys.append(wish.get("resourceId"))
        if len(set(names)) < len(names):
            return "duplicate-hostname"
        if len({key for key in keys if key}) < len([key for key in keys if key]):
            return "conflict"
        existing = [model.under_key(who.jid, key) for key in keys]
        for wish, vm in zip(wishes, existing, strict=True):
            if vm is not None and (vm.dying or vm.content != wish):
                return "conflict"
        for wish, vm in zip(wishes, existing, strict=True):
            if vm is None and not (who.everybody or wish["userId"] == who.user):
                return FORBIDDEN
            if vm is None and wish["userId"] not in model.users.values():
                return "unknown-user"
            if vm is None and model.is_taken(wish["hostname"]) and not self.duplicates:
                return "duplicate-hostname"
            image = wish["imageIdentifier"]
            if vm is None and image in model.disks and not model.may_attach(who, image, wish["userId"]):
                return "unknown-image"
        return None

    def _learn(self, vm: Vm) -> Vm:
        assert vm.number not in self.model.vms
        self.model.vms[vm.number] = vm
        return vm

    def _learn_failures(self, who: Actor, wishes: list[dict[str, Any]]) -> None:
        """What was made and could not start is history, under the numbers that followed the last one."""
        last = self.cell.manager.cluster.counters["instance"]
        for number, wish in zip(range(last - len(wishes) + 1, last + 1), wishes, strict=True):
            vm = self._learn(
                Vm(number, wish["hostname"], wish["userId"], sender=who.jid, key=wish.get("resourceId"))
            )
            vm.gone = True

    # ---- by command line

    def _command_line(self, who: Actor) -> set[int]:
        full = len(self.model.living()) > MANY
        verbs = ["destroyVm"] * (5 if full else 2) + [
            "destroyMany",
            "users",
            "users",
            "explain",
            "log",
            "console",
        ]
        verbs += ["getInstances", "getImages", "pauseVm", "unpauseVm", "adaptCpuShare", "adaptCpuShare"]
        if not full:
            verbs += ["createVm"] * 3 + ["createMany"]
        match self.chance.choice(verbs):
            case "createVm":
                return self._create_vm(who)
            case "createMany":
                return self._create_many(who)
            case "destroyMany":
                return self._destroy_many(who)
            case "users":
                return self._users(who if self.chance.random() < 0.3 else ROOT)
            case "getInstances":
                rows = self._type(who, "getInstances")
                assert {row["id"] for row in rows} == {vm.number for vm in self.model.living()}
                self._shows_no_secrets(who, rows)
            case "getImages":
                self._get_images(who)
            case "explain":
                self._explain_typed(who)
            case "log" | "console" as what:
                self._console(who, what)
            case verb:
                return self._change_typed(who, verb)
        return set()

    def _type(self, who: Actor, *words: str) -> Any:
        assert who.uid is not None
        self._note(f"{who.name}: {' '.join(words)}")
        answer = self.doors.type(who.uid, list(words))
        self._note(f"  -> {answer if isinstance(answer, str) else [row.get('id') for row in answer]}")
        return answer

    def _create_vm(self, who: Actor) -> set[int]:
        name, owner, words = self.chance.choice(NAMES), who.user, []
        expected = None if owner is not None else "unknown-user"
        if self.chance.random() < 0.5:
            reference = self.chance.choice(
                [*self.model.users, *self.model.users.values(), "nobody", 4242, "1000"]
            )
            words = ["--userId", f"name:{reference}" if reference == "1000" else str(reference)]
            owner = reference if isinstance(reference, int) else self.model.users.get(reference)
            if owner not in self.model.users.values():
                expected = "unknown-user"
            else:
                expected = None if who.everybody or who.user == owner else FORBIDDEN
        if expected is None and not self.duplicates and self.model.is_taken(name):
            expected = "duplicate-hostname"
        image, persistent = self._image(who, owner if owner is not None else 4242)
        if (
            expected is None
            and image in self.model.disks
            and not self.model.may_attach(who, image, owner or 0)
        ):
            expected = "unknown-image"
        before = set(self._records())
        disk = f"{image}:{persistent}"
        answer = self._type(
            who, "createVm", "--name", name, "--disks", disk, "--hints", f"secret=of {owner}", *words
        )
        made = set(self._records()) - before
        assert (answer if isinstance(answer, str) else None) == expected, self._told(str(expected))
        if expected is None:
            assert owner is not None
            assert [row["id"] for row in answer] == list(made)
            self._got_disk(self._learn(Vm(answer[0]["id"], name, owner)), image, persistent)
        else:
            assert made == set()
        return made

    def _create_many(self, who: Actor) -> set[int]:
        base = self.chance.choice(BASENAMES)
        names = [f"{base}-{number}" for number in range(2)]
        expected = "unknown-user" if who.user is None else None
        if expected is None and not self.duplicates and any(map(self.model.is_taken, names)):
            expected = "duplicate-hostname"
        before = set(self._records())
        answer = self._type(who, "createMany", "--basename", base, "--count", "2", "--disks", "tashi")
        made = set(self._records()) - before
        assert (answer if isinstance(answer, str) else None) == expected, self._told(str(expected))
        if expected is None:
            assert who.user is not None
            for row, name in zip(answer, names, strict=True):
                self._learn(Vm(row["id"], name, who.user)).group = base
        return made

    def _destroy_many(self, who: Actor) -> set[int]:
        base = self.chance.choice(BASENAMES)
        meant = self.model.group(who, base)
        answer = self._type(who, "destroyMany", "--basename", base)
        if isinstance(meant, str):
            assert answer == meant, self._told(f"expected {meant}")
            return set()
        assert not isinstance(answer, str), self._told(f"expected {[vm.number for vm in meant]}")
        assert [row["id"] for row in answer] == [vm.number for vm in meant]
        for vm in meant:
            vm.dying = True
            vm.gone = not self._puts_off()
        return {vm.number for vm in meant}

    def _change_typed(self, who: Actor, verb: str) -> set[int]:
        reference = self._reference()
        share = str(self.chance.randint(2, 262_144))
        meant = self.model.meant(who, reference, change=True, history=False)
        more = ["--share", share] if verb == "adaptCpuShare" else []
        answer = self._type(who, verb, "--instance", self._as_word(reference), *more)
        if isinstance(meant, str):
            assert answer == meant, self._told(f"expected {meant}")
            return set()
        assert not (isinstance(answer, str) and answer in REFUSALS), self._told(f"expected {meant.number}")
        if not isinstance(answer, str):
            assert [row["id"] for row in answer] == [meant.number]
            if verb == "destroyVm":
                meant.dying = True
                meant.gone = not self._puts_off()
        return {meant.number}

    def _explain_typed(self, who: Actor) -> None:
        reference = self._reference()
        meant = self.model.meant(who, reference, change=False, history=False)
        answer = self._type(who, "explain", "--instance", self._as_word(reference))
        if isinstance(meant, str):
            assert answer == meant, self._told(f"expected {meant}")
        else:
            assert answer[0]["text"].startswith(f"{meant.name} ({meant.number}) is "), self._told(
                f"expected {meant.number}"
            )

    def _get_images(self, who: Actor) -> None:
        """Persistent disks are listed to their owners and to administrators."""
        files = ["other.img", "tashi.img", *self.model.disks]
        self.cell.images.files = [ImageFile(name=name, size="1.00G") for name in files]
        listed = {row["imageName"] for row in self._type(who, "getImages")}
        own = {
            disk
            for disk, owner in self.model.disks.items()
            if who.admin or (owner is not None and owner == who.user)
        }
        assert listed == {"other.img", "tashi.img"} | own, self._told(f"expected {own}")

    def _console(self, who: Actor, what: str) -> None:
        """Open the console, or read its log: only of one's own, and of the log also when it is gone."""
        assert who.uid is not None
        reference = self._reference()
        word = self._as_word(reference)
        meant = self.model.meant(who, reference, change=True, history=what == "log")
        for agent in self.agents:
            agent.questions.clear()
        self._note(f"{who.name}: {what} {word}")
        answer = self.doors.call(who.uid, "readConsoleLog" if what == "log" else "openConsole", word)
        asked = [question.uuid for agent in self.agents for question in agent.questions]  # type: ignore[union-attr]
        if isinstance(meant, str):
            assert (answer, asked) == (meant, []), self._told(f"expected {meant}")
        else:
            assert not (isinstance(answer, str) and answer in REFUSALS), self._told(
                f"expected {meant.number}, got {answer}"
            )
            assert set(asked) <= {str(domain_uuid(self.cell_id, meant.number))}

    def _users(self, who: Actor) -> set[int]:
        """carol comes and goes; each time she is another user, whom no uid acts as."""
        changed: set[int] = set()
        carol = self.model.users.get("carol")
        if carol is None:
            answer = self._type(who, "registerUser", "--name", "carol", "--jid", "Carol@EXAMPLE.org")
            assert (answer == FORBIDDEN) == (who.user != 0), self._told("registerUser")
            if who.user == 0:
                self.model.users["carol"] = answer[0]["id"]
                assert answer[0]["id"] not in {vm.owner for vm in self.model.vms.values()}
            return changed
        if who == ROOT and not self._puts_off() and self.chance.random() < 0.3:
            for vm in [vm for vm in self.model.living() if vm.owner == carol]:
                assert self.doors.say(ADMIN, f"deletecompute {vm.number}")
                vm.gone = True
                changed.add(vm.number)
        reference = self.chance.choice(["carol", carol, f"name:{carol}", "Carol"])
        owns = any(vm.owner == carol for vm in self.model.living())
        known = reference in ("carol", carol)
        expected = (
            FORBIDDEN if who.user != 0 else "unknown-user" if not known else "conflict" if owns else None
        )
        answer = self._type(who, "unregisterUser", "--userId", str(reference))
        assert (answer if isinstance(answer, str) else None) == expected, self._told(str(expected))
        if expected is None:
            del self.model.users["carol"]
            self.model.disks |= {disk: None for disk, owner in self.model.disks.items() if owner == carol}
        return changed

    def _shows_no_secrets(self, who: Actor, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            vm = self.model.vms[row["id"]]
            if not self.model.may(who, vm):
                assert (row["hints"], row["nics"]) == ({}, []), self._told(f"{who.name} sees {row}")


def _answer(question: Question) -> Answer:
    if isinstance(question, ReadLog):
        return LogPage(data=b"the console")
    return ConsoleOpened(session="s") if isinstance(question, OpenConsole) else Done()
