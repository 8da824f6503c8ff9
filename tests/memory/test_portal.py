"""The Perspective Broker door, over real sockets on this machine: who gets in, and what those outside can do."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from typing import Any

from twisted.internet import endpoints, reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.spread import pb
from twisted.trial.unittest import SkipTest, TestCase

from tashi.errors import OurFault
from tashi.model.orders import NodeWelcome, Order, Report, Start
from tashi.model.questions import CloseConsole, ConsoleOutput, Done, Question, Refused, StopVnc
from tashi.model.states import InstanceState
from tashi.model.user import Principal
from tashi.wire.admission import Admission
from tashi.wire.broker import BrokerFactory
from tashi.wire.codec import PAGE_BYTES, decode, encode
from tashi.wire.gate import GateFactory
from tashi.wire.nodelink import ACKNOWLEDGE_SECONDS, ANSWER_SECONDS, NodeLink
from tashi.wire.portal import Door
from tests.builders import a_login, a_report, a_spec, an_identity, an_instance, seen
from tests.small_cell import SmallCell


class Mind(pb.Referenceable):
    """The object with which an agent takes its orders."""

    def __init__(self) -> None:
        self.orders: list[Any] = []
        self.questions: list[Any] = []
        self.answer: Any = Done()
        self.came: Deferred[None] = Deferred()

    def remote_ask(self, text: bytes) -> Any:
        self.questions.append(decode(text, Question))
        answer = self.answer
        return answer if isinstance(answer, Deferred) else encode(answer)

    def remote_orders(self, text: bytes) -> bytes:
        self.orders += decode(text, list[Order])
        if not self.came.called:
            self.came.callback(None)
        return b"ok"


class PortalTest(TestCase):
    """A cell whose doors are a unix socket and a TCP port."""

    timeout = 30

    async def setUp(self) -> None:
        self.cell = SmallCell()
        manager = self.cell.manager
        self.factory = BrokerFactory(reactor, Door(reactor, manager.hosts, manager.verbs, manager.cluster.users))
        self.admission = Admission(reactor)
        self.brokers: list[pb.Broker] = []
        directory = tempfile.mkdtemp()
        os.chmod(directory, 0o755)
        self.addCleanup(shutil.rmtree, directory)
        self.path = os.path.join(directory, "socket")
        for endpoint, for_users in (
            (endpoints.UNIXServerEndpoint(reactor, self.path, mode=0o666), True),
            (endpoints.TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"), False),
        ):
            port = await endpoint.listen(GateFactory(reactor, self.factory, self.factory, self.admission, for_users=for_users))
            self.addCleanup(port.stopListening)
        self.port = port.getHost().port

    async def tearDown(self) -> None:
        for broker in self.brokers:
            if not broker.disconnected:
                gone: Deferred[None] = Deferred()
                broker.notifyOnDisconnect(lambda gone=gone: gone.callback(None))
                broker.transport.abortConnection()
                await gone
        for _ in range(3):  # the other ends
            await self._a_moment()

    async def _a_moment(self) -> None:
        moment: Deferred[None] = Deferred()
        reactor.callLater(0.01, moment.callback, None)  # type: ignore[attr-defined]
        await moment

    async def _root(self, *, tcp: bool = False, uid: int | None = None) -> Any:
        """The object that a fresh connection begins with."""
        factory = pb.PBClientFactory()
        factory.noisy = False
        if tcp:
            broker = await endpoints.TCP4ClientEndpoint(reactor, "127.0.0.1", self.port).connect(factory)
        elif uid is None:
            broker = await endpoints.UNIXClientEndpoint(reactor, self.path).connect(factory)
        else:
            broker = self._connect_as(uid, factory)
        self.brokers.append(broker)
        return await factory.getRootObject()

    def _connect_as(self, uid: int, factory: pb.PBClientFactory) -> pb.Broker:
        if os.geteuid() != 0:
            raise SkipTest("only root can be somebody else")
        made: list[pb.Broker] = []
        build = factory.buildProtocol
        factory.buildProtocol = lambda address: made.append(build(address)) or made[-1]  # type: ignore[func-returns-value,method-assign]
        with socket.socket(socket.AF_UNIX) as connection:
            os.seteuid(uid)
            try:
                connection.connect(self.path)
            finally:
                os.seteuid(0)
            connection.setblocking(False)
            reactor.adoptStreamConnection(connection.fileno(), socket.AF_UNIX, factory)  # type: ignore[attr-defined]
        return made[0]

    async def _user(self, **who: Any) -> tuple[Any, dict[str, Any]]:
        avatar, welcome = await (await self._root(**who)).callRemote("login_user")
        return avatar, decode(welcome, dict[str, Any])

    async def _call(self, avatar: Any, verb: str, **arguments: Any) -> dict[str, Any]:
        count, token, text = await avatar.callRemote("call", encode({"verb": verb, "arguments": arguments}))
        for index in range(1, count):
            text += await avatar.callRemote("more", token, index)
        found: dict[str, Any] = decode(text, dict[str, Any])
        return found

    async def _node(self, name: str = "h1", mind: Any = None, **login: Any) -> tuple[Any, bytes]:
        root = await self._root(tcp=True)
        avatar, welcome = await root.callRemote("login_node", encode(a_login(name, **login)), mind or Mind())
        return avatar, welcome

    # ---- outside

    async def test_who_is_not_logged_in_can_call_nothing(self) -> None:
        """The threshold has two ways in and nothing else, and stays standing whatever is tried."""
        root = await self._root(tcp=True)
        for method in ("call", "more", "report", "orders", "rootObject", "login", "loginAnonymous", "_peer", "_login_node", "__init__"):
            with self.assertRaises(pb.RemoteError):
                await root.callRemote(method, b"{}")
        for arguments in ((), (encode(a_login()),), (encode(a_login()), Mind(), "admin")):
            with self.assertRaises(pb.RemoteError):
                await root.callRemote("login_node", *arguments)
        self.flushLoggedErrors()
        self.assertEqual(self.cell.manager.cluster.hosts, {})

    async def test_a_user_over_tcp_is_refused_in_words(self) -> None:
        """Only a unix socket says who is at the other end."""
        avatar, answer = await self._user(tcp=True)
        self.assertIsNone(avatar)
        self.assertEqual(answer["error"]["code"], "forbidden")
        self.assertIn("unix socket", answer["error"]["message"])

    async def test_what_is_no_login_is_refused_in_words(self) -> None:
        """A broken login has an answer like any other mistake, and an agent needs something that takes orders."""
        root = await self._root(tcp=True)
        for text, mind in ((b"{", Mind()), (b'{"name": 7}', Mind()), (7, Mind()), (b"\xff", Mind()), (encode(a_login()), None)):
            avatar, answer = await root.callRemote("login_node", text, mind)
            self.assertIsNone(avatar)
            self.assertIn(decode(answer, dict[str, Any])["error"]["code"], ("bad-argument", "forbidden"))

    # ---- users

    async def test_a_user_is_who_the_kernel_says(self) -> None:
        """The uid at the other end is the user's id; 0 is the admin; a uid that is no user's may look and not touch."""
        for uid, expected in (
            (0, {"userId": 0, "name": "root", "admin": True}),
            (1000, {"userId": 1000, "name": "alice", "admin": False}),
            (4711, {"userId": None, "name": "uid 4711", "admin": False}),
        ):
            avatar, welcome = await self._user(uid=uid)
            self.assertEqual(welcome["user"], expected)
            self.assertEqual((await self._call(avatar, "whoami"))["result"], expected)
            self.assertEqual((await self._call(avatar, "getInstances"))["result"], [])
        refused = await self._call(avatar, "createVm", name="x", disks=[{"uri": "tashi"}])
        self.assertEqual(refused["error"]["code"], "unknown-user")

    async def test_o3_a_number_that_was_drawn_is_nobodys_uid(self) -> None:
        """A user who was registered without --userId acts for no uid of the machine, also over a connection that is older."""
        before, _ = await self._user(uid=100_000)
        admin = Principal(name="root", user_id=0, admin=True)
        self.assertEqual(self.cell.call(admin, "registerUser", name="carol")["id"], 100_000)
        self.cell.call(admin, "createVm", name="hers", disks=[{"uri": "tashi"}], userId="carol")
        after, welcome = await self._user(uid=100_000)
        self.assertEqual(welcome["user"], {"userId": None, "name": "uid 100000", "admin": False})
        for avatar in (before, after):
            self.assertEqual((await self._call(avatar, "destroyVm", instance="hers"))["error"]["code"], "forbidden")
            refused = (await self._call(avatar, "createVm", name="x", disks=[{"uri": "tashi"}]))["error"]
            self.assertEqual(refused["code"], "unknown-user")
            self.assertIn("--userId 100000", refused["message"])
        self.assertEqual(self.cell.state("hers"), "Pending")

    async def test_ten_thousand_rows_come_in_pages(self) -> None:
        """A long answer is cut below PB's limit, is whole when joined, and is forgotten when read."""
        with self.cell.manager.cluster.transaction("fill") as tx:
            for number in range(1, 10_001):
                tx.put_instance(an_instance(number, hints={"note": "n" * 50}))
        avatar, _ = await self._user()
        count, token, first = await avatar.callRemote("call", encode({"verb": "getInstances"}))
        self.assertGreater(count, 5)
        self.assertEqual(len(first), PAGE_BYTES)
        text = first
        for index in range(1, count):
            text += await avatar.callRemote("more", token, index)
        rows = decode(text, dict[str, Any])["result"]
        self.assertEqual([row["id"] for row in rows], list(range(1, 10_001)))
        for stale in ((token, 1), (token, -1), (token, "x"), (99, 1)):
            self.assertEqual(await avatar.callRemote("more", *stale), b"")

    async def test_a_bad_call_is_answered_and_the_next_one_works(self) -> None:
        """Whatever a user sends has an answer; a fault of ours is told without its traceback and logged with it."""
        avatar, _ = await self._user()
        for text in (b"", b"{", b"[]", b'{"verb": 7}', b'{"verb": "getInstances", "arguments": []}', 7, None, "text"):
            _, _, answer = await avatar.callRemote("call", text)
            self.assertEqual(decode(answer, dict[str, Any])["error"]["code"], "bad-argument", text)
        self.cell.manager.verbs._table["getimages"] = lambda who, arguments: 1 / 0
        error = (await self._call(avatar, "getImages"))["error"]
        self.assertEqual(error["code"], "internal")
        self.assertNotIn("division", error["message"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((await self._call(avatar, "getHosts"))["result"], [])

    async def test_an_answer_waits_for_the_disk(self) -> None:
        """A change is told when it is durable."""
        avatar, _ = await self._user(uid=1000)
        call = Deferred.fromCoroutine(self._call(avatar, "createVm", name="web", disks=[{"uri": "tashi"}]))
        while not self.cell.manager.cluster.instances:
            await self._a_moment()
        await self._a_moment()
        self.assertFalse(call.called)
        self.cell.settle()
        self.assertEqual((await call)["result"]["name"], "web")

    # ---- agents

    async def test_an_agent_logs_in_reports_and_gets_orders(self) -> None:
        """From the join secret to the first order."""
        mind = Mind()
        avatar, welcome = await self._node(mind=mind)
        found: NodeWelcome = decode(welcome, NodeWelcome)
        self.assertEqual((found.host_id, found.lease), (1, 30.0))
        self.assertEqual(await avatar.callRemote("report", encode(a_report(full=True))), b"ok")
        self.cell.settle()
        self.cell.create(a_spec("web"))
        self.cell.settle()
        await mind.came
        (order,) = mind.orders
        self.assertIsInstance(order, Start)
        self.assertEqual(order.name, "web")

    async def _running(self) -> Mind:
        """The agent of a host on which alice's instance 1 runs."""
        mind = Mind()
        node, _ = await self._node(mind=mind)
        instance = an_instance(1, user_id=1000, host_id=1, state=InstanceState.Running, generation=1)
        with self.cell.manager.cluster.transaction("fill") as tx:
            tx.put_instance(instance)
        await node.callRemote("report", encode(a_report(seen(instance), full=True)))
        self.cell.settle()
        return mind

    async def test_orders_do_not_wait_for_acknowledgements(self) -> None:
        """What is sent to an agent goes out at once, however short it is."""
        made: list[pb.Broker] = []
        build = self.factory.buildProtocol
        self.factory.buildProtocol = lambda address: made.append(build(address)) or made[-1]  # type: ignore[func-returns-value,method-assign]
        await self._node()
        self.assertEqual([broker.transport.getTcpNoDelay() for broker in made], [True])

    async def test_an_agent_is_asked(self) -> None:
        """A question crosses two wires, and its answer both of them back; so does a refusal."""
        mind = await self._running()
        avatar, _ = await self._user(uid=1000)
        about = {"instance": 1, "session": "s"}
        mind.answer = ConsoleOutput(data=b"\xff", missed=3)
        self.assertEqual((await self._call(avatar, "readConsole", **about))["result"], {"data": "/w==", "missed": 3, "ended": ""})
        mind.answer = Refused(code="busy", message="later")
        error = (await self._call(avatar, "writeConsole", **about, data="eA=="))["error"]
        self.assertEqual(error, {"code": "busy", "message": "later"})
        mind.answer = fail(ValueError())
        self.assertIn("cannot answer", (await self._call(avatar, "closeConsole", **about))["error"]["message"])
        self.flushLoggedErrors(ValueError)

    async def test_a_reader_who_hangs_up_leaves_the_console(self) -> None:
        """The end of a user's connection ends what that user waits for, without a word in the log."""
        mind = await self._running()
        mind.answer = Deferred()
        avatar, _ = await self._user(uid=1000)
        reading = Deferred.fromCoroutine(self._call(avatar, "readConsole", instance=1, session="s"))
        reading.addErrback(lambda failure: failure.trap(pb.PBConnectionLost, ConnectionLost))
        while not mind.questions:
            await self._a_moment()
        self.brokers[-1].transport.abortConnection()
        while len(mind.questions) < 2:
            await self._a_moment()
        self.assertEqual(mind.questions[1], CloseConsole(uuid=mind.questions[0].uuid, session="s"))
        await reading
        mind.answer.callback(encode(ConsoleOutput()))

    async def test_a_wrong_secret_is_refused(self) -> None:
        """Neither the join secret nor a name's pinned secret can be guessed."""
        for login in ({"join": "wrong"}, {"join": ""}):
            avatar, answer = await self._node(**login)
            self.assertIsNone(avatar)
            self.assertEqual(decode(answer, dict[str, Any])["error"]["code"], "forbidden")
        await self._node()
        avatar, answer = await self._node(secret="somebody else's secret, long enough")
        self.assertIsNone(avatar)
        self.assertIn("pinned to another secret", decode(answer, dict[str, Any])["error"]["message"])

    async def test_an_agent_can_only_report_of_its_own_host(self) -> None:
        """Its perspective has one method, which takes no host; what is no report is refused and changes nothing."""
        avatar, _ = await self._node()
        for method in ("call", "login_user", "logout", "orders"):
            with self.assertRaises(pb.RemoteError):
                await avatar.callRemote(method, b"{}")
        for text in (b"{", b"[]", 7, encode({"facts": {}})):
            answer = await avatar.callRemote("report", text)
            self.assertEqual(decode(answer, dict[str, Any])["error"]["code"], "bad-argument")
        self.flushLoggedErrors()
        self.assertFalse(self.cell.manager.cluster.hosts[1].up)

    async def test_a_host_whose_connection_ends_is_decayed(self) -> None:
        """The door notices at once; the lease runs on."""
        avatar, _ = await self._node()
        await avatar.callRemote("report", encode(a_report(full=True)))
        self.assertFalse(self.cell.manager.cluster.hosts[1].decayed)
        self.brokers[-1].transport.abortConnection()
        while not self.cell.manager.cluster.hosts[1].decayed:
            await self._a_moment()
        self.assertTrue(self.cell.manager.cluster.hosts[1].up)

    async def test_a11_a_second_agent_is_refused_while_the_first_answers(self) -> None:
        """A11: one host has one link, and it stays with the agent that has it and answers."""
        await self._node()
        first = self.brokers[-1]
        for _ in range(3):
            avatar, answer = await self._node()
            self.assertIsNone(avatar)
            self.assertIn("has an agent that is logged in and answers", decode(answer, dict[str, Any])["error"]["message"])
        self.assertFalse(first.disconnected)

    async def test_an_agent_that_hangs_gives_way(self) -> None:
        """An agent that does not answer any more loses its link to the next one, which need not wait for the lease to end."""
        mind = Mind()
        await self._node(mind=mind)
        first = self.brokers[-1]
        self.patch(Mind, "remote_orders", lambda mind, text: Deferred())
        avatar, _ = await self._node()
        self.assertIsNotNone(avatar)
        while not first.disconnected:
            await self._a_moment()

    async def test_an_agent_that_gave_up_its_login_has_no_link(self) -> None:
        """A connection that is lost while the former agent is asked whether it lives leaves no link behind."""
        await self._node()
        self.patch(Mind, "remote_orders", lambda mind, text: Deferred())
        login = Deferred.fromCoroutine(self._node())
        login.addErrback(lambda failure: failure.trap(pb.PBConnectionLost, ConnectionLost, ConnectionDone))
        while len(self.brokers) < 2:
            await self._a_moment()
        await self._a_moment()
        await self._a_moment()
        self.brokers[-1].transport.abortConnection()
        await login
        while not self.cell.manager.cluster.hosts[1].decayed or self.cell.manager.hosts._links:
            await self._a_moment()

    async def test_a_refused_agent_is_logged_once(self) -> None:
        """An agent on another machine tries again for ever; that stands in the log once."""
        logged: list[str] = []

        def note(event: Any) -> None:
            if "refused" in (event.get("log_format") or ""):
                logged.append(event["log_format"])

        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)
        await self._node()
        for _ in range(5):
            avatar, _ = await self._node(identity=an_identity("h2"))
            self.assertIsNone(avatar)
        self.assertEqual(logged, ["an agent of host {name} was refused: {words}"])

    async def test_a_long_report_is_taken(self) -> None:
        """A page of a thousand observations with cards and reasons is well below PB's limit."""
        avatar, _ = await self._node()
        instances = [an_instance(number) for number in range(1000)]
        report = a_report(*(seen(instance, reason="r" * 400) for instance in instances), full=True)
        text = encode(report)
        self.assertLess(len(text), 640 * 1024)
        self.assertEqual(decode(text, Report), report)
        self.assertEqual(await avatar.callRemote("report", text), b"ok")


class NodeLinkTest(TestCase):
    """A link over which nobody acknowledges."""

    def test_an_agent_that_takes_no_orders_is_dropped(self) -> None:
        """After its time to acknowledge the link is closed, and the agent will come back."""
        clock, closed = Clock(), []

        class Deaf:
            def callRemote(self, name: str, text: bytes) -> Deferred[bytes]:
                return Deferred()

        class Transport:
            def abortConnection(self) -> None:
                closed.append(True)

        class Broker:
            transport = Transport()

        NodeLink(clock, Deaf(), Broker()).send([Start(instance_id=1, generation=1, name="a", uuid="u", cores=1, memory=1, disks=())])  # type: ignore[arg-type]
        clock.advance(ACKNOWLEDGE_SECONDS - 1)
        self.assertEqual(closed, [])
        clock.advance(2)
        self.assertEqual(closed, [True])

    def test_an_agent_that_does_not_answer_is_kept(self) -> None:
        """What is asked has its time; libvirt may be slow, and the link is still good."""

        class Slow:
            def callRemote(self, name: str, text: bytes) -> Deferred[bytes]:
                return Deferred()

        clock = Clock()
        asking = Deferred.fromCoroutine(NodeLink(clock, Slow(), None).ask(StopVnc(uuid="u")))  # type: ignore[arg-type]
        clock.advance(ANSWER_SECONDS)
        self.assertEqual(self.failureResultOf(asking, OurFault).value.code, "timeout")
