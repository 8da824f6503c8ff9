"""Peers on the Perspective Broker door that may not be there, or say what they may not: refused in words, and the cell goes on."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.cred.credentials import UsernamePassword
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.ssl import Certificate, optionsForClientTLS
from twisted.internet.task import deferLater
from twisted.spread import banana, pb
from twisted.trial.unittest import TestCase

from tashi.sandbox.layout import load_layout
from tests.integration.attackers import DIALECT, Target, agent_login, attack, target_of, user_call
from tests.integration.cells import RunningCell, running_cell

HOSTILE_BYTES = {
    "HTTP": b"GET / HTTP/1.0\r\n\r\n",
    "zeros": b"\0" * 100_000,
    "ones": b"\xff" * 100_000,
    "lists within lists": b"\x01\x80" * 50_000,
    "a list of a billion": b"\x00\x28\x6b\x5c\x03\x80",
    "a string of a gigabyte": b"\x00\x00\x00\x00\x04\x82" + b"x" * 1000,
    "a string beyond the limit": b"\x01\x00\x28\x82" + b"x" * 700_000,
    "a very long prefix": b"\x01" * 10_000 + b"\x82",
    "a very long number": b"\x7f" * 60 + b"\x85",
}


class Shady(pb.Copyable):
    """An object of a class that nobody agreed on."""


class Mind(pb.Referenceable):
    """Takes any orders."""

    def remote_orders(self, text: bytes) -> bytes:
        return b"ok"


class Peers(TestCase):
    """Against one simulated cell."""

    timeout = 60

    @pytest.fixture(autouse=True)
    def _given(self, simulated_cell: RunningCell) -> Iterator[None]:
        self.cell = simulated_cell
        before = simulated_cell.cli("getInstances", "-o", "json"), simulated_cell.cli("getHosts", "-o", "name")
        yield
        assert (simulated_cell.cli("getInstances", "-o", "json"), simulated_cell.cli("getHosts", "-o", "name")) == before

    async def root(self, door: str) -> Any:
        """The object that a peer sees first, at the unix socket or the port for agents."""
        return await root_of(self, self.cell, door)

    async def test_nobody_calls_anything_without_a_login(self) -> None:
        """A peer that has not logged in can call no verb, no report, no password login and nothing of Python's."""
        for door in ("port", "socket"):
            root = await self.root(door)
            for name in ("call", "report", "more", "orders", "login", "loginAnonymous", "getHosts", "__init__", "_login_node", "logout"):
                with self.assertRaises(pb.RemoteError) as raised:
                    await root.callRemote(name, b"{}")
                self.assertEqual(raised.exception.remoteType, b"twisted.spread.flavors.NoSuchMethod", name)

    async def test_there_is_no_password_login(self) -> None:
        """The login of Perspective Broker's own, whose challenge needs plain passwords, is not offered."""
        factory = pb.PBClientFactory()
        await connect(self, self.cell, "port", factory)
        with self.assertRaises(pb.RemoteError):
            await factory.login(UsernamePassword(b"root", b""))

    async def test_a_user_logs_in_by_the_socket_only(self) -> None:
        """Who comes by the network is no user, whoever he says he is."""
        avatar, answer = await (await self.root("port")).callRemote("login_user")
        self.assertIsNone(avatar)
        self.assertEqual(json.loads(answer)["error"]["code"], "forbidden")
        avatar, answer = await (await self.root("socket")).callRemote("login_user")
        self.assertTrue(json.loads(answer)["user"]["admin"])

    async def test_a_node_needs_the_secret(self) -> None:
        """A new host needs the join secret, a known one the secret it first came with; wrong ones are told so and get nothing."""
        secret = "s" * 32
        logins = [
            ({"name": "evil", "secret": secret, "join": "wrong"}, "forbidden", "join secret"),
            ({"name": "evil", "secret": secret, "join": ""}, "forbidden", "join secret"),
            ({"name": "evil", "secret": secret, "join": "é"}, "forbidden", "join secret"),
            ({"name": "node1", "secret": secret, "join": self.join_secret()}, "forbidden", "pinned"),
            ({"name": "evil", "secret": "short", "join": self.join_secret()}, "forbidden", "too short"),
            ({"name": "<b>", "secret": secret, "join": self.join_secret()}, "bad-argument", "name"),
            ({"name": "../x", "secret": secret, "join": self.join_secret()}, "bad-argument", "name"),
            ({"name": "a\n", "secret": secret, "join": self.join_secret()}, "bad-argument", "name"),
            ({"name": 7, "secret": secret}, "bad-argument", "name"),
            ({}, "bad-argument", "name"),
            ([], "bad-argument", ""),
        ]
        root = await self.root("port")
        for login, code, word in logins:
            avatar, answer = await root.callRemote("login_node", json.dumps(login).encode(), Mind())
            self.assertIsNone(avatar)
            error = json.loads(answer)["error"]
            self.assertEqual(error["code"], code, login)
            self.assertIn(word, error["message"])
            self.assertNotIn(self.join_secret(), error["message"])

    async def test_a_login_that_is_none(self) -> None:
        """What is no JSON, or brings nobody to take orders, is refused; the connection lives."""
        root = await self.root("port")
        for text in (b"", b"{", b"\xff", b"[" * 2000, b'{"name": NaN}', "text", 7, None, [b"x"], {b"a": 1}):
            with self.subTest(text):
                try:
                    avatar, answer = await root.callRemote("login_node", text, Mind())
                except pb.RemoteError:
                    continue
                self.assertIsNone(avatar)
                self.assertEqual(json.loads(answer)["error"]["code"], "bad-argument")
        login = json.dumps({"name": "evil", "secret": "s" * 32, "join": self.join_secret()}).encode()
        for mind in (None, "x", 7):
            avatar, answer = await root.callRemote("login_node", login, mind)
            self.assertIsNone(avatar)
            self.assertEqual(json.loads(answer)["error"]["code"], "forbidden")

    async def test_objects_of_other_classes_are_not_made(self) -> None:
        """Nothing but plain data and references comes over the wire."""
        root = await self.root("port")
        with self.assertRaises(pb.RemoteError) as raised:
            await root.callRemote("login_node", Shady(), Mind())
        self.assertIn(b"InsecureJelly", raised.exception.remoteType)
        self.flushLoggedErrors()

    async def test_a_user_calls_verbs_only(self) -> None:
        """A user's wrong calls are answered in words, with the code of the mistake."""
        avatar, _ = await (await self.root("socket")).callRemote("login_user")
        wrong = {
            b"": "bad-argument", b"{": "bad-argument", b"[]": "bad-argument", b"\xff": "bad-argument", b"[" * 100_000: "bad-argument",
            b'{"verb":"x"}': "unknown-verb", b'{"verb":7}': "bad-argument", b'{"verb":"__init__"}': "unknown-verb",
            b'{"verb":"createVm"}': "bad-argument", b'{"verb":"createVm","arguments":[]}': "bad-argument",
            b'{"verb":"createVm","arguments":{"name":"a","disks":[{"uri":"../x"}]}}': "bad-argument",
            b'{"verb":"createVm","arguments":{"name":"a","disks":[{"uri":"nothing"}]}}': "unknown-image",
            b'{"verb":"createVm","arguments":{"name":"a\\n","disks":[{"uri":"tashi"}]}}': "bad-argument",
            b'{"verb":"createVm","arguments":{"name":"a","disks":[{"uri":"tashi"}],"memory":99999999999}}': "bad-argument",
            b'{"verb":"createVm","arguments":{"name":"a","disks":[{"uri":"tashi"}],"memory":2147483648}}': "no-suitable-host",
            b'{"verb":"createVm","arguments":{"name":"a","disks":[{"uri":"tashi"}],"cores":1025}}': "no-suitable-host",
            b'{"verb":"createVm","arguments":{"name":"a","disks":[{"uri":"tashi"}],"userId":77}}': "unknown-user",
            b'{"verb":"createVm","arguments":{"name":"a","disks":[{"uri":"tashi"}],"hints":{"__x":"y"}}}': "bad-argument",
            b'{"verb":"createVm","arguments":{"name":"a","disks":[{"uri":"tashi"}],"hints":{"x":"y\\n"}}}': "bad-argument",
            b'{"verb":"createVm","arguments":{"name":"a","disks":[{"uri":"tashi"}],"nics":[{"mac":"x\'/>"}]}}': "bad-argument",
            b'{"verb":"createVm","arguments":{"name":"a","disks":[{"uri":"tashi"}],"nics":[{"ip":"x\'/>"}]}}': "bad-argument",
            b'{"verb":"createVm","arguments":{"name":"a","disks":[{"uri":"tashi"}],"surprise":1}}': "bad-argument",
            b'{"verb":"createMany","arguments":{"instances":[]}}': "bad-argument",
            b'{"verb":"createMany","arguments":{"instances":[7]}}': "bad-argument",
            b'{"verb":"destroyVm","arguments":{"instance":1e400}}': "bad-argument",
            b'{"verb":"destroyVm","arguments":{"instance":true}}': "bad-argument",
            b'{"verb":"destroyVm","arguments":{"instance":"10; drop"}}': "unknown-id",
            b'{"verb":"destroyMany","arguments":{"basename":""}}': "bad-argument",
            b'{"verb":"waitFor","arguments":{"ids":[true],"until":"Running"}}': "bad-argument",
            b'{"verb":"waitFor","arguments":{"ids":[1],"until":"x"}}': "bad-argument",
            b'{"verb":"waitFor","arguments":{"ids":[1],"until":"gone","timeout":"soon"}}': "bad-argument",
            b'{"verb":"waitFor","arguments":{"ids":[1],"until":"gone","timeout":-1}}': "bad-argument",
            b'{"verb":"waitFor","arguments":{"ids":[],"until":"gone","timeout":[]}}': "bad-argument",
            b'{"verb":"setHostConfig","arguments":{"hostId":1,"elemName":"a b","value":"c"}}': "bad-argument",
            b'{"verb":"setHostConfig","arguments":{"hostId":99,"elemName":"a","value":"c"}}': "unknown-id",
            b'{"verb":"registerUser","arguments":{"name":"a b"}}': "bad-argument",
            b'{"verb":"registerUser","arguments":{"name":"carol","priority":"high"}}': "bad-argument",
            b'{"verb":"registerUser","arguments":{"name":"carol","passwd":7}}': "bad-argument",
            b'{"verb":"registerUser","arguments":{"name":"carol","jid":"<x@y>"}}': "bad-argument",
            b'{"verb":"registerUser","arguments":{"name":"carol","jid":7}}': "bad-argument",
            b'{"verb":"registerUser","arguments":{"name":"carol","userId":-1}}': "bad-argument",
            b'{"verb":"registerUser","arguments":{"name":"alice","userId":1000}}': "conflict",
            b'{"verb":"unregisterUser","arguments":{"userId":0}}': "bad-argument",
            b'{"verb":"unregisterUser","arguments":{"userId":"nobody"}}': "unknown-user",
        }  # fmt: skip
        for text, code in wrong.items():
            pages, _, page = await avatar.callRemote("call", text)
            error = json.loads(page).get("error", {})
            self.assertEqual((error.get("code"), pages), (code, 1), f"{text[:100]!r}: {page[:200]!r}")
            self.assertTrue(error["message"].isprintable(), error)
        for call in ((), (b"{}", 7), (7,), (None,), (["x"],)):
            try:
                _, _, page = await avatar.callRemote("call", *call)
            except pb.RemoteError:
                continue
            self.assertIn("error", json.loads(page))
        for token, index in ((1, 1), (99, 0), ("x", 1), (1, "x"), (None, None), (1, -1)):
            self.assertEqual(await avatar.callRemote("more", token, index), b"")
        self.flushLoggedErrors()

    def test_bytes_that_are_no_banana(self) -> None:
        """Garbage and oversized values end the connection that brought them, without an answer to a second call and without harm."""
        for name, data in HOSTILE_BYTES.items():
            for connection in (self.plain_tcp(), self.tls(), self.unix()):
                with self.subTest(name), connection:
                    connection.settimeout(20)
                    try:
                        connection.sendall(data)
                        connection.shutdown(socket.SHUT_WR)
                        while connection.recv(65536):
                            pass
                    except OSError:
                        pass
        self.assertIn("root", self.cell.cli("whoami"))

    def plain_tcp(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", port_of(self.cell)), 20)

    def tls(self) -> socket.socket:
        context = ssl.create_default_context(cafile=self.cell.state_dir / "manager" / "ca.pem")
        return context.wrap_socket(self.plain_tcp(), server_hostname="tashi-cluster-manager")

    def unix(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(socket_of(self.cell))
        return connection

    def join_secret(self) -> str:
        return (self.cell.state_dir / "manager" / "join.secret").read_text().strip()


class Impostor(TestCase):
    """Against a cell that one bad agent has joined."""

    timeout = 60

    async def test_an_agent_speaks_for_its_own_host_only(self) -> None:
        """What one host says of a VM that the records place on another changes nothing, nor does what it says of an old generation."""
        with running_cell("--hypervisor", "test") as cell:
            cell.cli("createVm", "--name", "web", "--disks", "tashi", "--wait")
            (before,) = cell.instances()
            login = {"name": "evil", "secret": "s" * 32, "join": (cell.state_dir / "manager" / "join.secret").read_text().strip()}
            avatar, welcome = await (await root_of(self, cell, "port")).callRemote("login_node", json.dumps(login).encode(), Mind())
            self.assertEqual(json.loads(welcome)["hostId"], 2)
            for name in ("call", "more", "orders", "login_node"):
                with self.assertRaises(pb.RemoteError):
                    await avatar.callRemote(name, b'{"verb":"getInstances"}')
            for seen in ("gone", "failed", "running", "shutoff", "Gone", "Exited"):
                for generation in (0, 1, 99):
                    observation = {"instanceId": 1, "generation": generation, "seen": seen, "at": 0}
                    await avatar.callRemote("report", json.dumps({"facts": FACTS, "observations": [observation]}).encode())
            full = {"facts": FACTS, "observations": [], "full": True, "page": 1, "pages": 1}
            self.assertEqual(await avatar.callRemote("report", json.dumps(full).encode()), b"ok")
            (after,) = cell.instances()
            self.assertEqual(after, before)
            for text in (b"", b"{", b"[]", b'{"facts": 1}', b'{"facts":null,"observations":[{"instanceId":"1"}]}'):
                self.assertEqual(json.loads(await avatar.callRemote("report", text))["error"]["code"], "bad-argument")


class Attackers(TestCase):
    """Peers that do not log in, at full speed on both ports, beside honest ones."""

    timeout = 180

    def test_attackers_keep_nobody_out(self) -> None:
        """A2: lists without end, idle connections and slow logins cost less than 10 MB; agents log in, users are answered."""
        with running_cell("--hypervisor", "test") as cell:
            target = target_of(cell.state_dir)
            user_call(target)
            agent_login(target)
            before = resident_megabytes(cell)
            log = cell.state_dir / "log" / "manager.log"
            size = log.stat().st_size
            with attack(("lists", "idle", "slow"), target):
                end = time.monotonic() + 6
                answers, logins = [], []
                while time.monotonic() < end:
                    answers.append(user_call(target))
                    logins.append(agent_login(target))
                    time.sleep(0.2)
                descriptors = len(os.listdir(f"/proc/{cell.pid('manager')}/fd"))
            assert resident_megabytes(cell) - before < 10
            assert sorted(answers)[len(answers) // 2] < 1, answers
            assert max(logins) < 10, logins
            assert descriptors < 200
            text = log.read_text()[size:]
            assert "Traceback" not in text
            assert len(text.splitlines()) < 400

    def test_a_users_calls_at_full_speed_keep_nobody_out(self) -> None:
        """A3: a user who calls at full speed over many connections costs agents and other users no second, and no megabytes."""
        with running_cell("--hypervisor", "test") as cell:
            cell.cli("createMany", "--basename", "web", "--count", "200", "--disks", "tashi", "--memory", "1")
            target = target_of(cell.state_dir)
            user_call(target)
            before = resident_megabytes(cell)
            audit = cell.state_dir / "manager" / "audit.log"
            size = audit.stat().st_size
            with attack(("calls",), target):
                end = time.monotonic() + 6
                answers, logins = [], []
                while time.monotonic() < end:
                    answers.append(user_call(target))
                    logins.append(agent_login(target))
                    time.sleep(0.2)
            assert max(answers) < 2, answers
            assert max(logins) < 5, logins
            assert resident_megabytes(cell) - before < 20
            assert audit.stat().st_size - size < 100_000

    def test_a_user_s_wrong_calls_are_ten_lines(self) -> None:
        """A12: thousands of wrong logins and calls of no method leave a few lines in the log, and no traceback."""
        with running_cell("--hypervisor", "test") as cell:
            target = target_of(cell.state_dir)
            log = cell.state_dir / "log" / "manager.log"
            size = log.stat().st_size
            login = banana.encode([b"message", 1, b"root", b"login_node", 1, [b"tuple", b"{}", [b"remote", 1]], [b"dictionary"]])
            bad = banana.encode([b"message", 2, b"root", b"nothing", 1, [b"tuple"], [b"dictionary"]])
            for number in range(300):
                with contextlib.suppress(OSError), self.unix(target) as connection:
                    connection.sendall(DIALECT + (login if number % 2 else bad) * 20)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):
                        pass
            user_call(target)
            text = log.read_text()[size:]
            assert "Traceback" not in text
            assert "refused a login" in text
            assert len(text.splitlines()) < 50, text

    def test_waits_of_callers_that_hang_up_stop_nobody(self) -> None:
        """A3: three waitFor of 200,000 copies, and many of 1,000 instances, by callers that hang up, leave the cell answering at once."""
        with running_cell("--hypervisor", "test") as cell:
            target = target_of(cell.state_dir)
            login = banana.encode([b"message", 1, b"root", b"login_user", 1, [b"tuple"], [b"dictionary"]])

            def call(number: int, ids: list[int]) -> bytes:
                text = json.dumps({"verb": "waitFor", "arguments": {"ids": ids, "until": "Running", "timeout": 600}}, separators=(",", ":"))
                return banana.encode([b"message", number, 1, b"call", 1, [b"tuple", text.encode()], [b"dictionary"]])

            began = time.monotonic()
            for _ in range(3):
                with self.unix(target) as connection:
                    connection.sendall(DIALECT + login)
                    connection.recv(65536)
                    connection.sendall(call(2, [1] * 200_000))
                    connection.settimeout(2)
                    with contextlib.suppress(TimeoutError):  # it is not read from as long as it does not read its answers
                        connection.sendall(b"".join(call(number, list(range(1, 1001))) for number in range(3, 60)))
            user_call(target)
            assert time.monotonic() - began < 10
            self.assertIn("root", cell.cli("whoami"))

    def test_a_never_ending_call_of_a_user_ends(self) -> None:
        """A2 after the login: a user's list without end, and a call that never comes to its end, are cut off; the next user is served."""
        with running_cell("--hypervisor", "test") as cell:
            target = target_of(cell.state_dir)
            login = banana.encode([b"message", 1, b"root", b"login_user", 1, [b"tuple"], [b"dictionary"]])
            before = resident_megabytes(cell)
            for _ in range(20):
                with contextlib.suppress(OSError), self.unix(target) as connection:
                    connection.sendall(DIALECT + login)
                    connection.recv(65536)
                    while True:
                        connection.sendall(b"\x00\x0f\x80" + b"\x01\x81" * 30_000)
            user_call(target)
            assert resident_megabytes(cell) - before < 10

    def test_who_does_not_read_is_not_read(self) -> None:
        """A user who asks for answers and never reads them is given a few, not all that fit into memory."""
        with running_cell("--hypervisor", "test") as cell:
            target = target_of(cell.state_dir)
            cell.cli("createMany", "--basename", "web", "--count", "200", "--disks", "tashi", "--memory", "1")
            user_call(target)
            before = resident_megabytes(cell)
            login = banana.encode([b"message", 1, b"root", b"login_user", 1, [b"tuple"], [b"dictionary"]])
            call = banana.encode([b"message", 2, 1, b"call", 1, [b"tuple", b'{"verb":"getInstances"}'], [b"dictionary"]])
            with self.unix(target) as connection:
                connection.sendall(DIALECT + login)
                connection.recv(65536)
                with contextlib.suppress(OSError):
                    connection.settimeout(3)
                    while True:
                        connection.sendall(call * 100)
                user_call(target)
                assert resident_megabytes(cell) - before < 20

    def unix(self, target: Target) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        connection.connect(target.path)
        return connection


def resident_megabytes(cell: RunningCell) -> float:
    """What the control plane holds."""
    pages = int((Path("/proc") / str(cell.pid("manager")) / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


FACTS = {"hypervisor": "test", "memory": 1024, "cores": 4, "cpuSpeed": 1000, "version": "1", "networks": [0]}


def port_of(cell: RunningCell) -> int:
    layout = load_layout(cell.state_dir)
    assert layout is not None
    return layout.identity.manager_port


def socket_of(cell: RunningCell) -> str:
    layout = load_layout(cell.state_dir)
    assert layout is not None
    return str(layout.manager_socket)


async def connect(test: TestCase, cell: RunningCell, door: str, factory: pb.PBClientFactory) -> None:
    """Connect; the test's end hangs up."""
    endpoint: Any
    if door == "socket":
        endpoint = UNIXClientEndpoint(reactor, socket_of(cell))
    else:
        authority = Certificate.loadPEM((cell.state_dir / "manager" / "ca.pem").read_bytes())
        tls = optionsForClientTLS("tashi-cluster-manager", trustRoot=authority)
        endpoint = wrapClientTLS(tls, HostnameEndpoint(reactor, "127.0.0.1", port_of(cell)))
    broker = await endpoint.connect(factory)
    gone: Deferred[None] = Deferred()
    broker.notifyOnDisconnect(lambda: gone.callback(None))

    async def hang_up() -> None:
        broker.transport.abortConnection()
        await gone
        await deferLater(reactor, 0)

    test.addCleanup(lambda: Deferred.fromCoroutine(hang_up()))


async def root_of(test: TestCase, cell: RunningCell, door: str) -> Any:
    factory = pb.PBClientFactory()
    await connect(test, cell, door, factory)
    return await factory.getRootObject()
