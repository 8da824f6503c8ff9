"""The client over a real unix socket, against a small control plane that lives in the test and keeps to the wire's words."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.failure import Failure
from twisted.spread import pb
from twisted.trial.unittest import TestCase

from tashi.client import CannotReach, connect
from tashi.client.command import execute
from tashi.client.link import open_link
from tashi.client.parse import parse
from tashi.errors import TashiError
from tashi.wire.codec import decode, encode

HOST = {"id": 1, "name": "node1", "up": True, "decayed": False, "state": "Normal", "memory": 4096, "cores": 4, "cpuSpeed": 2000,
        "version": "1", "notes": "", "reserved": [], "config": {"location": "ie"}, "priority": 0}  # fmt: skip
USERS = [{"id": 0, "name": "root", "priority": 0, "jid": None}, {"id": 1000, "name": "alice", "priority": 1, "jid": None}]


class Avatar(pb.Referenceable):
    """What a logged-in user may call: a cell that starts every instance at once, unless its name begins with "sad"."""

    def __init__(self, page: int) -> None:
        self.page = page
        self.instances: dict[int, dict[str, Any]] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.texts: list[bytes] = []
        self.pause = ""  # the verb that is never answered

    def remote_call(self, text: bytes) -> tuple[int, int, bytes] | Deferred[Any]:
        question = decode(text, dict[str, Any])
        verb, content = question["verb"], question["arguments"]
        self.asked.append((verb, content))
        try:
            answer: dict[str, Any] = {"result": getattr(self, f"do_{verb}")(**content)}
        except TashiError as error:
            answer = {"error": {"code": error.code, "message": error.message}}
        if verb == self.pause:
            return Deferred()
        self.texts.append(encode(answer))
        return -(-len(self.texts[-1]) // self.page), len(self.texts) - 1, self.remote_more(len(self.texts) - 1, 0)

    def remote_more(self, token: int, index: int) -> bytes:
        return self.texts[token][index * self.page : (index + 1) * self.page]

    def do_createVm(self, **wish: Any) -> dict[str, Any]:
        number = len(self.instances) + 1
        owner = {**{user["name"]: user["id"] for user in USERS}, None: 1000}.get(wish["userId"], wish["userId"])
        if isinstance(owner, str):
            raise TashiError("unknown-user", f"there is no user {owner}")
        row = {**wish, "id": number, "userId": owner, "user": "alice", "hostId": None, "host": None, "state": "Pending"}
        self.instances[number] = row
        return row

    def do_createMany(self, instances: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [self.do_createVm(**wish) for wish in instances]

    def do_destroyVm(self, instance: int | str) -> dict[str, Any]:
        for row in self.instances.values():
            if instance in (row["id"], row["name"]):
                if row["userId"] == 0:
                    raise TashiError("forbidden", f"You don't have permissions on VM {instance}")
                return self.instances.pop(row["id"])
        raise TashiError("unknown-id", f"Unknown instance {instance}")

    def do_waitFor(self, ids: list[int], until: str, timeout: float) -> list[dict[str, Any]]:
        rows = []
        for number in ids:
            row = self.instances.get(number, {"name": "", "state": "Exited"})
            sad = row["name"].startswith("sad")
            if until == "Running":
                row.update(state="Held", reason="node1: 8 cores short") if sad else row.update(state="Running", hostId=1, host="node1")
            rows.append({"id": number, "ok": not sad, "state": row["state"], "reason": row.get("reason", "")})
        return rows

    def do_getInstances(self) -> list[dict[str, Any]]:
        return list(self.instances.values())

    def do_getHosts(self) -> list[dict[str, Any]]:
        return [HOST, {**HOST, "id": 2, "name": "node2", "up": False}]

    def do_getUsers(self) -> list[dict[str, Any]]:
        return USERS

    def do_whoami(self) -> dict[str, Any]:
        return {"userId": 1000, "name": "alice", "admin": False}

    def do_explain(self, instance: int | str) -> str:
        if instance == "two":
            raise TashiError("ambiguous", "two is more than one")
        return f"{instance} is on node1\nnode2: down"

    def do_registerUser(self, **user: Any) -> dict[str, Any]:
        return {"id": 1001, **user}

    def do_setHostConfig(self, **_: Any) -> dict[str, Any]:
        raise TashiError("conflict", "not now")

    def do_getImages(self) -> list[dict[str, Any]]:
        raise ZeroDivisionError


class Root(pb.Root):
    """The door of a control plane: it lets everybody in as alice, or nobody."""

    def __init__(self, avatar: Avatar | None) -> None:
        self.avatar = avatar

    def remote_login_user(self) -> tuple[Avatar | None, bytes]:
        if self.avatar is None:
            return None, encode({"error": {"code": "forbidden", "message": "uid 7 is no user of this cell"}})
        return self.avatar, encode({"user": {"userId": 1000, "name": "alice", "admin": False}})


class ClientCase(TestCase):
    """A control plane behind a socket in a directory of its own."""

    page = 100

    async def setUp(self) -> None:
        self.directory = tempfile.mkdtemp(prefix="tc")
        self.addCleanup(shutil.rmtree, self.directory)
        self.socket = os.path.join(self.directory, "tashi.sock")
        self.avatar = Avatar(self.page)
        self.root = Root(self.avatar)
        port = await UNIXServerEndpoint(reactor, self.socket).listen(pb.PBServerFactory(self.root))
        self.addCleanup(port.stopListening)

    async def tashi(self, *words: str) -> tuple[int, str, str]:
        """The exit code, stdout and stderr of a command line."""
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            code = await execute(parse(words), reactor, self.socket)
        return code, out.getvalue(), err.getvalue()

    async def refused(self, work: Callable[[], Awaitable[object]], kind: type[Exception]) -> Any:
        try:
            await work()
        except kind as error:
            return error
        self.fail(f"{kind.__name__} was not raised")


class VerbTests(ClientCase):
    async def test_a_created_instance_is_a_table_of_one_row(self) -> None:
        """createVm asks for what the line says, with a random MAC and the caller as owner, and prints the row."""
        code, out, err = await self.tashi("createvm", "--name", "web", "--disks", "tashi.img:True", "--hints", "a=1")
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(out.splitlines()[2].split(), ["1", "None", "web", "alice", "Pending", "tashi.img:True", "128", "1"])
        [(verb, wish)] = self.avatar.asked
        self.assertEqual(verb, "createVm")
        self.assertRegex(wish.pop("nics")[0]["mac"], "^52:54:00:")
        self.assertEqual(
            wish,
            {"name": "web", "userId": None, "disks": [{"uri": "tashi.img", "persistent": True}], "cores": 1, "memory": 128,
             "hints": {"a": "1"}, "cpuShare": 1024},
        )  # fmt: skip

    async def test_many_are_named_in_one_width_and_have_macs_of_their_own(self) -> None:
        """createMany numbers from 0 with leading zeros, asks once, and gives each card a MAC but all the same address."""
        code, out, _ = await self.tashi(
            "createMany", "--basename", "w", "--disks", "d", "--count", "11", "--nics", "1:1.2.3.4,2", "-o", "name"
        )
        self.assertEqual((code, out.split()), (0, [f"w-{number:02}" for number in range(11)]))
        [(_, content)] = self.avatar.asked
        self.assertEqual(len({card["mac"] for wish in content["instances"] for card in wish["nics"]}), 22)
        self.assertEqual({wish["nics"][0]["ip"] for wish in content["instances"]}, {"1.2.3.4"})

    async def test_an_owner_may_be_named(self) -> None:
        """--userId takes a name, which the control plane looks up; an unknown one exits with 4 and creates nothing."""
        await self.tashi("createVm", "--name", "a", "--disks", "d", "--userId", "root")
        self.assertEqual(self.avatar.asked[-1][1]["userId"], "root")
        code, out, err = await self.tashi("createVm", "--name", "b", "--disks", "d", "--userId", "nobody")
        self.assertEqual((code, out), (4, ""))
        self.assertIn("there is no user nobody", err)
        self.assertEqual(len(self.avatar.instances), 1)

    async def test_a_word_that_is_not_utf_8_is_refused(self) -> None:
        """A byte that the terminal sends and UTF-8 does not know is one sentence, and nothing is asked for."""
        for words in (("--name", "\udcff", "--disks", "d"), ("--name", "a", "--disks", "d", "--hints", "b=\ud800")):
            code, _, err = await self.tashi("createVm", *words)
            self.assertEqual((code, self.avatar.asked), (1, []))
            self.assertIn("expected text in UTF-8, got '", err)

    async def test_a_name_of_digits_goes_over_the_wire_as_a_name(self) -> None:
        """name:9 is the JSON string "9", and 9 the JSON integer, at the command line and in the Python interface (O11)."""
        for text, sent in (("name:9", "9"), ("9", 9), ("003", "003"), ("name:web", "web")):
            await self.tashi("destroyVm", "--instance", text)
            self.assertEqual(self.avatar.asked[-1], ("destroyVm", {"instance": sent}))
            async with connect(reactor, socket=self.socket) as cell:
                with contextlib.suppress(TashiError):
                    await cell.destroyVm(text)
            self.assertEqual(self.avatar.asked[-1], ("destroyVm", {"instance": sent}))

    async def test_waiting_ends_with_the_rows_as_they_are_then(self) -> None:
        """createVm --wait prints the instance as Running on its host."""
        code, out, err = await self.tashi("createVm", "--name", "web", "--disks", "d", "--wait", "-o", "json")
        self.assertEqual((code, err), (0, ""))
        self.assertEqual([(row["state"], row["host"]) for row in json.loads(out)], [("Running", "node1")])

    async def test_waiting_fails_when_one_does_not_get_there(self) -> None:
        """An instance that is Held ends --wait with exit code 1 and its reason, and the table is printed all the same."""
        code, out, err = await self.tashi("createVm", "--name", "sad", "--disks", "d", "--wait", "--timeout", "7")
        self.assertEqual(code, 1)
        self.assertIn("Held", out)
        self.assertEqual(err, "sad is not Running but Held: node1: 8 cores short\n")
        self.assertEqual(self.avatar.asked[1], ("waitFor", {"ids": [1], "until": "Running", "timeout": 7.0}))

    async def test_destroying_says_nothing(self) -> None:
        """destroyVm prints nothing as a table, and the rows when JSON is asked for."""
        await self.tashi("createMany", "--basename", "w", "--disks", "d", "--count", "2")
        self.assertEqual(await self.tashi("destroyVm", "--instance", "w-0", "--wait"), (0, "", ""))
        _, out, _ = await self.tashi("destroyVm", "--instance", "2", "-o", "json")
        self.assertEqual(json.loads(out)[0]["name"], "w-1")

    async def test_sentences_stand_for_the_table(self) -> None:
        """getSlots counts the hosts that are up and Normal; explain and registerUser answer in words."""
        await self.tashi("createVm", "--name", "web", "--disks", "d", "--cores", "3", "--wait")
        _, out, _ = await self.tashi("getSlots")
        self.assertEqual(out, "1 available slot for instances with 1 core and 128 MB of memory.\n")
        _, out, _ = await self.tashi("getSlots", "--cores", "2")
        self.assertEqual(out, "0 available slots for instances with 2 cores and 128 MB of memory.\n")
        _, out, _ = await self.tashi("explain", "--instance", "web")
        self.assertEqual(out, "web is on node1\nnode2: down\n")
        _, out, _ = await self.tashi("registerUser", "--name", "mihas", "--priority", "12")
        self.assertEqual(out, "User mihas registered with userId 1001\n")

    async def test_the_layout_joins_hosts_and_instances(self) -> None:
        """getVmLayout shows each host with its instances and what they use."""
        await self.tashi("createMany", "--basename", "w", "--disks", "d", "--count", "2", "--wait")
        _, out, _ = await self.tashi("getVmLayout", "-o", "json")
        node1, node2 = json.loads(out)
        self.assertEqual((node1["instances"], node1["usedMemory"], node1["usedCores"]), (["w-0", "w-1"], 256, 2))
        self.assertEqual((node2["instances"], node2["usedMemory"]), ([], 0))
        self.avatar.instances[1] |= {"cpuSpeed": 500, "stats": {"cpuUsage": 700}}
        self.avatar.instances[2] |= {"cpuSpeed": 500, "stats": {"cpuUsage": None}}
        _, out, _ = await self.tashi("getVmLayout", "-o", "json")
        self.assertEqual([row["usedCpu"] for row in json.loads(out)], [1200, 0])
        self.assertNotIn("usedCpu", (await self.tashi("getVmLayout"))[1])

    async def test_my_instances_are_those_i_own(self) -> None:
        """getMyInstances leaves out what belongs to others."""
        await self.tashi("createVm", "--name", "mine", "--disks", "d")
        await self.tashi("createVm", "--name", "other", "--disks", "d", "--userId", "7")
        _, out, _ = await self.tashi("getMyInstances", "-o", "name")
        self.assertEqual(out, "mine\n")


class FailureTests(ClientCase):
    async def test_the_exit_code_says_what_kind_of_failure(self) -> None:
        """ambiguous is 2, forbidden 3, unknown 4, everything else 1; the words go to stderr and nothing to stdout."""
        await self.tashi("createVm", "--name", "a", "--disks", "d")
        self.avatar.instances[1]["userId"] = 0
        self.assertEqual(
            await self.tashi("destroyVm", "--instance", "a"), (3, "", "Failed in calling destroyVm: You don't have permissions on VM a\n")
        )
        await self.tashi("createVm", "--name", "a", "--disks", "d")
        self.avatar.instances[2]["userId"] = 1000
        self.assertEqual(
            await self.tashi("explain", "--instance", "two"), (2, "", "Failed in calling explain: two is more than one\n")
        )
        self.assertEqual(await self.tashi("destroyVm", "--instance", "b"), (4, "", "Failed in calling destroyVm: Unknown instance b\n"))
        code, _, err = await self.tashi("setHostConfig", "--hostId", "2", "--elemName", "a", "--value", "b")
        self.assertEqual((code, err), (1, "Failed in calling setHostConfig: not now\n"))

    async def test_a_failing_control_plane_is_told_apart_from_a_missing_one(self) -> None:
        """A fault inside the control plane exits with 1 and points to its log."""
        code, _, err = await self.tashi("getImages")
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual(code, 1)
        self.assertIn("its log says more", err)

    async def test_a_missing_socket_is_named(self) -> None:
        """Nobody there: exit code 5, where it was sought, why, and what to do."""
        self.socket = os.path.join(self.directory, "none.sock")
        code, out, err = await self.tashi("getInstances")
        self.assertEqual((code, out), (5, ""))
        self.assertIn(f"{self.socket}: there is no such socket; start it with", err)

    async def test_a_path_too_long_for_a_socket_is_refused_in_words(self) -> None:
        """What the system says of an impossible path is passed on."""
        error = await self.refused(lambda: open_link(reactor, "/tmp/" + "x" * 200, 1.0), CannotReach)
        self.assertIn("cannot reach the control plane at /tmp/xxx", str(error))

    async def test_a_stranger_is_told_that_he_is_one(self) -> None:
        """A login that is refused exits with 3 and the reason."""
        self.root.avatar = None
        code, _, err = await self.tashi("whoami")
        self.assertEqual((code, err), (3, "Failed in calling whoami: uid 7 is no user of this cell\n"))

    async def test_a_control_plane_that_hangs_up_is_cannot_reach(self) -> None:
        """A link lost during a call says that the outcome is not known."""

        def hang_up() -> None:
            for broker in brokers:
                broker.transport.abortConnection()

        self.avatar.do_whoami = hang_up  # type: ignore[method-assign,assignment]
        async with connect(reactor, socket=self.socket) as cell:
            brokers = [cell._link._avatar.broker]  # type: ignore[attr-defined]
            error = await self.refused(cell.whoami, CannotReach)
        self.assertIn("look with `tashi getInstances`", str(error))

    async def test_a_peer_that_says_nothing_is_given_up(self) -> None:
        """A socket whose owner never answers ends the login after its time."""
        path = os.path.join(self.directory, "mute.sock")
        port = await UNIXServerEndpoint(reactor, path).listen(Factory.forProtocol(Protocol))
        self.addCleanup(port.stopListening)
        error = await self.refused(lambda: open_link(reactor, path, 0.05), CannotReach)
        self.assertIn("no answer to the login", str(error))


class PagesTests(ClientCase):
    page = 480 * 1024

    async def test_a_wish_too_long_for_one_call_is_refused(self) -> None:
        """createMany is one call; what does not go into one is refused before anything is sent."""
        code, _, err = await self.tashi("createMany", "--basename", "w", "--disks", "d", "--count", "10000")
        self.assertEqual((code, self.avatar.asked), (1, []))
        self.assertIn("ask for less at a time", err)

    async def test_ten_thousand_instances_come_in_pages_and_in_time(self) -> None:
        """A list far beyond what PB carries in one value arrives whole and is printed, each within a second."""
        async with connect(reactor, socket=self.socket) as cell:
            for basename in "abcd":
                await cell.createMany(basename, "tashi.img", 2_500)
            before = time.perf_counter()
            rows = await cell.getInstances()
        self.assertEqual(len(rows), 10_000)
        self.assertGreater(len(self.avatar.texts[-1]), 4 * self.page)
        code, out, _ = await self.tashi("getInstances")
        self.assertEqual((code, len(out.splitlines())), (0, 10_002))
        self.assertLess(time.perf_counter() - before, 2.0)


class ProcessTests(ClientCase):
    page = 480 * 1024

    def environment(self, **more: str) -> dict[str, str]:
        """What a process is started with: a configuration that names the socket, and nothing of this machine's user."""
        Path(self.directory, "Client.cfg").write_text(f"[Client]\nsocket = {self.socket}\n")
        root = str(Path(__file__).resolve().parents[2])
        return {"PATH": os.environ["PATH"], "HOME": self.directory, "TASHI_CONF": self.directory, "PYTHONPATH": root, **more}

    async def run_tashi(self, *words: str, stdin: bytes = b"", **environ: str) -> tuple[int, str, str]:
        """The command as a process of its own."""
        out, err, code = await getProcessOutputAndValue(
            sys.executable, ["-m", "tashi.client", *words], self.environment(**environ), self.directory, stdinBytes=stdin or None
        )
        return code, out.decode(), err.decode()

    async def test_the_command_finds_its_socket_by_the_configuration(self) -> None:
        """`python -m tashi.client` does the whole way from words to an exit code."""
        code, out, err = await self.run_tashi("whoami", "-o", "json")
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(json.loads(out), [{"userId": 1000, "name": "alice", "admin": False}])
        code, out, err = await self.run_tashi("whoare", "-o", "json")
        self.assertEqual((code, out), (2, ""))
        self.assertIn("did you mean whoami?", err)

    async def test_a_password_is_read_from_stdin(self) -> None:
        """--passwd - reads it and says nothing; --passwd X works with a warning on stderr."""
        code, out, err = await self.run_tashi("registerUser", "--name", "mihas", "--passwd", "-", stdin=b"secret\n")
        self.assertEqual((code, out, err), (0, "User mihas registered with userId 1001\n", ""))
        self.assertEqual(self.avatar.asked[-1][1]["passwd"], "secret")
        code, _, err = await self.run_tashi("registerUser", "--name", "mihas", "--passwd", "mihas12", "--priority", "12")
        self.assertEqual((code, self.avatar.asked[-1][1]["passwd"]), (0, "mihas12"))
        self.assertIn("warning:", err)

    async def test_an_interrupted_wait_says_what_stands(self) -> None:
        """Ctrl-C during --wait ends at once with exit code 130, and says that the wish is not taken back."""

        class Child(ProcessProtocol):
            def __init__(self) -> None:
                self.error = b""
                self.ended: Deferred[int] = Deferred()

            def errReceived(self, data: bytes) -> None:
                self.error += data

            def processEnded(self, reason: Failure) -> None:
                self.ended.callback(reason.value.exitCode)

        def interrupt(**_: Any) -> list[Any]:
            child.transport.signalProcess("INT")  # type: ignore[union-attr]
            return []

        child = Child()
        self.avatar.do_waitFor = interrupt  # type: ignore[method-assign]
        self.avatar.pause = "waitFor"
        words = ("createVm", "--name", "web", "--disks", "d", "--wait")
        reactor.spawnProcess(child, sys.executable, [sys.executable, "-m", "tashi.client", *words], self.environment(), self.directory)
        self.assertEqual(await child.ended, 130)
        self.assertIn(b"interrupted; what the control plane has been asked for stands", child.error)
        self.assertEqual([row["name"] for row in self.avatar.instances.values()], ["web"])

    async def test_completion_knows_verbs_and_live_names(self) -> None:
        """The shell is offered verbs, options, and the names that the cell has now."""
        await self.tashi("createVm", "--name", "web", "--disks", "d")
        self.assertEqual(await self.completed("tashi createV"), ["createVm "])
        self.assertEqual(await self.completed("tashi destroyVm --ins"), ["--instance "])
        self.assertEqual(await self.completed("tashi destroyVm --instance "), ["web "])

    async def completed(self, line: str) -> list[str]:
        answer = Path(self.directory, "answer")
        await self.run_tashi(
            _ARGCOMPLETE="1", _ARGCOMPLETE_STDOUT_FILENAME=str(answer), _ARGCOMPLETE_IFS="\n", COMP_LINE=line, COMP_POINT=str(len(line))
        )
        return answer.read_text().splitlines()
