"""One outcome for each command, told as one message, whatever is repeated, killed or offline: as foreign clients see it."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.cells import Peer, RunningCell, compute, running_cell, until
from tests.integration.conversation import say


@pytest.fixture(scope="module")
def small_cell() -> Iterator[RunningCell]:
    """A cell with one host of two cores, which gives up soon, and takes few commands at a time."""
    with running_cell(
        "--hypervisor", "test", "--cores", "2", "--memory", "4096",
        "--set", "XMPP.provisionTimeout=2", "--set", "XMPP.maxQueuedCommands=3", "--set", "XMPP.recipient=llms@cell.test, ism@cell.test",
    ) as cell:  # fmt: skip
        yield cell


@pytest.fixture(scope="module")
def cell() -> Iterator[RunningCell]:
    """A cell with one host that takes whatever is asked; each test uses names of its own."""
    with running_cell("--hypervisor", "test") as cell:
        yield cell


def names(cell: RunningCell, prefix: str) -> list[str]:
    return [row["name"] for row in cell.instances() if row["name"].startswith(prefix)]


def test_the_same_stanza_twice_is_one_machine(cell: RunningCell) -> None:
    """A command without a resourceId that a server delivers twice, with one id, is carried out once, and told again with the same id."""

    async def story() -> None:
        async with cell.peer("ism") as ism:
            body = 'createcompute {"hostname":"twice","imageIdentifier":"tashi","userId":1000}'
            for _ in range(2):
                say(ism, cell.sink, body, id="same")
            await ism.until(lambda messages: len(messages) >= 1)
            say(ism, cell.sink, body, id="same")
            await ism.ask(cell.sink, "fence")
            replies = [json.loads(message["body"]) for message in ism.messages]
            assert {tuple(reply["ids"]) for reply in replies if reply["verb"] == "createcompute"} == {(replies[0]["ids"][0],)}
            say(ism, cell.sink, body, id="other")
            await ism.until(lambda messages: any("duplicate-hostname" in message["body"] for message in messages))

    asyncio.run(story())
    assert names(cell, "twice") == ["twice"]


def test_d1_d2_a_text_reaches_only_what_is_the_senders(cell: RunningCell) -> None:
    """A repeated delete by a resourceId finds what it deleted, and neither an id nor another sender's equal key (D1, D2)."""

    async def story() -> None:
        async with cell.peer("ism") as ism, cell.peer("alice") as alice:
            (hers,) = (await alice.ask(cell.sink, compute("reach-hers", resourceId="order-2")))["ids"]
            (isms,) = (await ism.ask(cell.sink, compute("reach-isms", userId=1001, resourceId="order-2")))["ids"]
            (odd,) = (await ism.ask(cell.sink, compute("reach-odd", userId=1001, resourceId=str(hers))))["ids"]
            for _ in range(3):
                for reference, number in (("order-2", isms), (str(hers), odd)):
                    answer = await ism.ask(cell.sink, f'deletecompute "{reference}"')
                    assert (answer["status"], answer["ids"]) == ("OK", [number])
            unknown = await ism.ask(cell.sink, f'deletecompute "{hers}0"')
            assert (unknown["code"], "never an id" in unknown["message"]) == ("unknown-id", True)
            assert names(cell, "reach") == ["reach-hers"]
            assert (await alice.ask(cell.sink, 'getcompute "order-2"'))["id"] == hers
            assert (await alice.ask(cell.sink, 'deletecompute "order-2"'))["ids"] == [hers]

    asyncio.run(story())
    assert "reads like an id" in cell.cli("createVm", "--name", "1001", "--disks", "tashi", code=1)
    assert "is given twice" in cell.cli("destroyVm", "--instance", "a", "--instance", "9", code=2)


def test_a_resource_id_names_one_machine(cell: RunningCell) -> None:
    """Equal content gives the same ids, other content is a conflict; another sender's key is another; a key is free when its VM is gone."""

    async def story() -> None:
        async with cell.peer("ism") as ism, cell.peer("alice") as alice:
            first = await ism.ask(cell.sink, compute("key1"))
            assert (await ism.ask(cell.sink, compute("key1")))["ids"] == first["ids"]
            spaced = compute("key1").replace('", "', '" ,\n "')
            assert (await ism.ask(cell.sink, spaced))["ids"] == first["ids"]
            other = await ism.ask(cell.sink, compute("key1", memory_size=256))
            assert (other["status"], other["code"], other["resourceId"]) == ("ERROR", "conflict", "key-key1")
            hers = await alice.ask(cell.sink, compute("key2", resourceId="key-key1"))
            assert hers["status"] == "OK" and hers["ids"] != first["ids"]
            assert (await ism.ask(cell.sink, f"deletecompute {first['ids'][0]}"))["status"] == "OK"
            again = await ism.ask(cell.sink, compute("key1", memory_size=256))
            assert again["status"] == "OK" and again["ids"] not in (first["ids"], hers["ids"])
            failed = await ism.ask(cell.sink, compute("key3", cpu_cores=2000))
            assert failed["code"] == "no-suitable-host"
            assert (await ism.ask(cell.sink, compute("key3")))["status"] == "OK", "a failed creation leaves its key free"

    asyncio.run(story())


def test_many_are_made_or_none(cell: RunningCell) -> None:
    """createmanycompute answers once, with an id and a name for each; with one that cannot be there is none at all."""

    async def story() -> None:
        def many(*wanted: dict[str, Any]) -> str:
            common = {"imageIdentifier": "tashi", "userId": 1000}
            return "createmanycompute " + json.dumps([{**common, **one} for one in wanted])

        async with cell.peer("ism") as ism:
            bad = await ism.ask(cell.sink, many({"hostname": "m0"}, {"hostname": "m1", "userId": 77}))
            assert bad["code"] == "unknown-user"
            good = await ism.ask(cell.sink, many({"hostname": "m0"}, {"hostname": "m1"}, {"hostname": "m2"}))
            assert good["status"] == "OK" and good["resources"] == ["m0", "m1", "m2"] and len(set(good["ids"])) == 3
            assert (await ism.ask(cell.sink, many({"hostname": "m3"}, {"hostname": "m1"})))["code"] == "duplicate-hostname"
            await ism.ask(cell.sink, "fence")
            assert len(ism.messages) == 4

    asyncio.run(story())
    assert names(cell, "m") == ["m0", "m1", "m2"]


@pytest.mark.parametrize("kind", ["chat", "normal", None])
def test_a_reply_goes_back_as_it_came(cell: RunningCell, kind: str | None) -> None:
    """The reply has the command's type and thread, and goes to the full JID that sent it, not to the sender's other clients."""

    async def story() -> None:
        async with cell.peer("ism", "first") as first, cell.peer("ism", "second") as second:
            name = f"reply-{kind}"
            attributes = {} if kind is None else {"type": kind}
            words = "".join(f" {name}='{value}'" for name, value in attributes.items())
            body = compute(name).replace('"', "&quot;")
            first.client.send_raw(f"<message to='{cell.sink}'{words}><thread>t-{kind}</thread><body>{body}</body></message>")
            await first.replies(1)
            (reply,) = first.messages
            assert (reply["type"], reply["thread"]) == (kind or "normal", f"t-{kind}")
            assert (str(reply["from"]), str(reply["to"])) == (cell.sink, f"{first.client.boundjid.bare}/first")
            whoami = await second.ask(cell.sink, "whoami", **({"kind": kind} if kind else {}))
            assert whoami["status"] == "OK" and len(second.messages) == 1

    asyncio.run(story())


def test_who_has_left_finds_the_reply_waiting(cell: RunningCell) -> None:
    """A reply to a client that did not wait is kept by the server for the account's next client."""

    async def leave() -> None:
        async with cell.peer("alice", "hasty") as alice:
            alice.say(cell.sink, compute("waits"))
            alice.client.register_plugin("xep_0199")
            await alice.client.plugin["xep_0199"].send_ping(cell.description["xmpp"]["domain"])

    async def come_back() -> dict[str, Any]:
        async with cell.peer("alice", "later") as alice:
            return (await alice.replies(1))[0]

    asyncio.run(leave())
    cell.wait_for_instances(lambda rows: any((row["name"], row["state"]) == ("waits", "Running") for row in rows))
    reply = asyncio.run(come_back())
    assert (reply["status"], reply["resources"]) == ("OK", ["waits"])


def test_reads_are_answered_at_once(cell: RunningCell) -> None:
    """getcompute tells of the living and the gone by id, key and name; explain, help and whoami are words; a read leaves no event."""

    async def story() -> None:
        async with cell.peer("ism") as ism, cell.peer("alice") as alice, cell.peer("admin") as admin:
            (number,) = (await ism.ask(cell.sink, compute("seen", userId=1001, hints={"a": "b"})))["ids"]
            for reference in (number, "seen", '"key-seen"', '"seen"'):
                row = await ism.ask(cell.sink, f"getcompute {reference}")
                assert (row["id"], row["state"], row["host"], row["hints"]) == (number, "Running", "node1", {"a": "b"})
            assert (await alice.ask(cell.sink, "getcompute seen"))["hints"] == {}, "hints are shown of one's own"
            assert "placed there by Primitive" in (await ism.ask(cell.sink, f"explain {number}"))["message"]
            gone = await ism.ask(cell.sink, "DELETEcompute seen")
            assert (gone["status"], gone["ids"], gone["verb"]) == ("OK", [number], "deletecompute")
            assert (await ism.ask(cell.sink, f"getcompute {number}"))["state"] == "Exited"
            again = await ism.ask(cell.sink, f"deletecompute {number}")
            assert (again["status"], again["ids"]) == ("OK", [number]), "what is gone already is gone"
            assert "sethostconfig" not in (await alice.ask(cell.sink, "help"))["message"]
            assert "sethostconfig" in (await admin.ask(cell.sink, "help"))["message"]
            assert "user 1000" in (await alice.ask(cell.sink, "whoami"))["message"]
            assert "trusted" in (await ism.ask(cell.sink, "whoami"))["message"]

    asyncio.run(story())


def test_an_admin_configures_a_host(cell: RunningCell) -> None:
    """sethostconfig of an admin is done and audited; one of a trusted manager who is no admin is forbidden."""

    async def story() -> None:
        async with cell.peer("admin") as admin, cell.peer("ism") as ism, cell.peer("llms") as llms:
            command = 'sethostconfig {"hostId":1,"elemName":"rack","value":"7"}'
            assert (await ism.ask(cell.sink, command))["code"] == "forbidden"
            assert (await admin.ask(cell.sink, command))["status"] == "OK"
            assert (await admin.ask(cell.sink, command.replace('"hostId":1', '"hostId":9')))["code"] == "unknown-id"

            def audited() -> list[tuple[str, str]]:
                records = [event for event in events(llms) if event.get("verb") == "sethostconfig"]
                return [(event["who"], event["result"]) for event in records if event["who"] != "root"]  # as whom the cell was set up

            await llms.until(lambda messages: ("admin@cell.test", "unknown-id") in audited())
            assert audited() == [("ism@cell.test", "forbidden"), ("admin@cell.test", "OK"), ("admin@cell.test", "unknown-id")]
            assert [event["action"] for event in events(llms) if event["type"] == "hostAction"][-1] == "configSet"

    asyncio.run(story())
    assert json.loads(cell.cli("getHosts", "-o", "json"))[0]["config"]["rack"] == "7"


def test_a_notification_goes_where_it_may(small_cell: RunningCell) -> None:
    """The outcome is told to notificationUri, too, when that is a recipient; and every recipient hears every event."""

    async def story() -> None:
        async with small_cell.peer("ism") as ism, small_cell.peer("llms") as llms, small_cell.peer("alice") as alice:
            alice.say(small_cell.sink, compute("told", notificationUri="llms@cell.test"))
            (reply,) = await alice.replies(1)
            await llms.until(lambda messages: any('"status"' in message["body"] for message in messages))
            (copy,) = [body for body in bodies(llms) if "status" in body]
            assert copy == reply | {"notification": True, "requester": "alice@cell.test"}
            (number,) = reply["ids"]
            for peer in (ism, llms):
                await peer.until(
                    lambda messages, peer=peer: any(one.get("to") == "Running" and one["id"] == number for one in events(peer))
                )
            shared = {event["seq"]: event for event in events(ism)}.keys() & {event["seq"] for event in events(llms)}
            mine, theirs = ({e["seq"]: e for e in events(peer) if e["seq"] in shared} for peer in (ism, llms))
            assert shared and mine == theirs
            assert (await alice.ask(small_cell.sink, f"deletecompute {number}"))["status"] == "OK"

    asyncio.run(story())


def test_what_finds_no_room_in_time_leaves_nothing(small_cell: RunningCell) -> None:
    """A create that no host took within provisionTimeout is told why, and leaves no VM; more commands than may wait are told busy."""

    async def story() -> None:
        async with small_cell.peer("alice") as alice:
            (full,) = (await alice.ask(small_cell.sink, compute("full", cpu_cores=2)))["ids"]
            for number in range(5):
                alice.say(small_cell.sink, compute(f"late{number}"))
            replies = {reply["resourceId"]: reply for reply in (await alice.replies(6))[1:]}
            codes = [replies[f"key-late{number}"]["code"] for number in range(5)]
            assert codes == ["no-suitable-host"] * 3 + ["busy"] * 2
            assert "node1: " in replies["key-late0"]["message"] and "core" in replies["key-late0"]["message"]
            listed = await alice.ask(small_cell.sink, "listcompute")
            assert [row["id"] for row in listed["instances"]] == [full]
            assert (await alice.ask(small_cell.sink, f"deletecompute {full}"))["status"] == "OK"
            assert (await alice.ask(small_cell.sink, compute("late0")))["status"] == "OK"
            await alice.ask(small_cell.sink, "deletecompute late0")

    asyncio.run(story())


def test_a_thousand_machines_come_in_pages(cell: RunningCell) -> None:
    """listcompute tells of a thousand in pages of less than 100 KiB, each once, in order."""

    async def story() -> None:
        async with cell.peer("ism") as ism:
            before = await all_pages(cell, ism)
            for start in range(0, 1000, 250):
                wanted = [{"hostname": f"p{number}", "imageIdentifier": "tashi", "userId": 1000} for number in range(start, start + 250)]
                say(ism, cell.sink, "createmanycompute " + json.dumps(wanted))
            await ism.until(lambda messages: sum('"createmanycompute"' in message["body"] for message in messages) == 4, 120)
            after = await all_pages(cell, ism)
            ids = [row["id"] for row in after]
            assert ids == sorted(set(ids)) and len(ids) == 1000 + len(before)
            assert {row["state"] for row in after} == {"Running"}
            assert max(len(message["body"].encode()) for message in ism.messages) < 100 * 1024
            cell.cli("destroyMany", "--basename", "p", code=4)  # those are basename-number

    try:
        asyncio.run(story())
    finally:
        cell.down()  # quicker than a thousand deletes; nothing follows in this module that needs them
        cell.start()


async def all_pages(cell: RunningCell, peer: Peer) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    page = await peer.ask(cell.sink, "listcompute")
    while True:
        rows += page["instances"]
        if page["next"] is None:
            return rows
        assert page["next"] == rows[-1]["id"]
        page = await peer.ask(cell.sink, "listcompute " + json.dumps({"after": page["next"]}))


def test_the_manager_dies_between_create_and_delete() -> None:
    """Killed after the create was answered, the control plane carries out the delete that waited for it, with one outcome."""
    with running_cell("--hypervisor", "test") as cell:

        async def story() -> None:
            async with cell.peer("ism") as ism:
                (number,) = (await ism.ask(cell.sink, compute("one")))["ids"]
                log = cell.state_dir / "log" / "prosody.log"
                gone = log.read_text().count("Client disconnected")
                cell.kill("manager")
                until(lambda: log.read_text().count("Client disconnected"), lambda count: count > gone, 10)
                ism.say(cell.sink, f"deletecompute {number}")
                await asyncio.to_thread(cell.start)
                await ism.until(lambda messages: any("deletecompute" in message["body"] for message in messages))
                (reply,) = [body for body in bodies(ism) if body["verb"] == "deletecompute"]
                assert (reply["status"], reply["ids"]) == ("OK", [number])
                assert (await ism.ask(cell.sink, "listcompute"))["instances"] == []
                assert (await ism.ask(cell.sink, compute("two")))["ids"] == [number + 1], "an id is never given twice"

        asyncio.run(story())


def test_the_xmpp_server_dies_amid_creates() -> None:
    """Killed and started again amid forty creates, each has one outcome once the unanswered are repeated, and events come without a gap."""
    with running_cell("--hypervisor", "test") as cell:
        asyncio.run(_server_dies(cell))
        assert len(cell.instances()) == 40


async def _server_dies(cell: RunningCell) -> None:
    commands = {f"key-x{number}": compute(f"x{number}") for number in range(40)}
    heard: list[Any] = []
    stanzas: dict[str, str] = {}

    def keep(peer: Peer) -> None:
        for message in peer.messages:
            assert stanzas.setdefault(message["id"], message["body"]) == message["body"], "a repeated stanza says the same"

    async with cell.peer("llms") as llms, cell.peer("ism") as ism:
        for command in commands.values():
            ism.say(cell.sink, command)
        await ism.replies(5)
        ends = [asyncio.ensure_future(peer.client.wait_until("disconnected", timeout=20)) for peer in (llms, ism)]
        cell.kill("xmpp")
        await asyncio.gather(*ends)  # by now both have read all that the server had sent
        keep(ism)
        heard += events(llms)
    await asyncio.to_thread(cell.start)
    async with cell.peer("llms") as llms, cell.peer("ism") as ism:
        await ism.ask(cell.sink, "whoami")
        answered = {json.loads(body).get("resourceId") for body in stanzas.values()}
        for key, command in commands.items():
            if key not in answered:
                ism.say(cell.sink, command)

        def outcomes() -> dict[str, set[tuple[str, int]]]:
            told = defaultdict(set)
            for body in [*stanzas.values(), *(message["body"] for message in ism.messages)]:
                reply = json.loads(body)
                if reply.get("verb") == "createcompute":
                    told[reply["resourceId"]].add((reply["status"], *reply.get("ids", ())))
            return told

        await ism.until(lambda messages: len(outcomes()) == 40)
        keep(ism)
        assert all(len(told) == 1 and next(iter(told))[0] == "OK" for told in outcomes().values()), outcomes()
        assert len({next(iter(told)) for told in outcomes().values()}) == 40
        running = {f"x{number}" for number in range(40)}

        def seen() -> set[str]:
            return {event["fqdn"] for event in [*heard, *events(llms)] if event["type"] == "vmAction" and event["to"] == "Running"}

        await llms.until(lambda messages: seen() == running)
        numbers = {event["seq"] for event in [*heard, *events(llms)]}
        assert numbers == set(range(min(numbers), max(numbers) + 1)), "no gap"


def bodies(peer: Peer) -> list[dict[str, Any]]:
    return [json.loads(message["body"]) for message in peer.messages]


def events(peer: Peer) -> list[dict[str, Any]]:
    return [body for body in bodies(peer) if "seq" in body]
