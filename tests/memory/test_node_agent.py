"""The agent against a small control plane on one clock and in-memory connections: login, lists, changes, silence, back-off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.spread import pb
from twisted.test import iosim
from twisted.trial.unittest import SynchronousTestCase

from tashi.model.causes import Cause
from tashi.model.orders import NodeLogin, NodeWelcome, Observation, Pause, Report, Seen
from tashi.model.questions import (
    Answer,
    ChangeCdrom,
    CloseConsole,
    ConsoleOpened,
    Done,
    LogPage,
    OpenConsole,
    Question,
    ReadLog,
    Refused,
    StartVnc,
    StopVnc,
)
from tashi.node.access.answers import Answers
from tashi.node.agent import PATIENCE, NodeAgent
from tashi.node.fake import FakeHypervisor
from tashi.wire.codec import decode, encode
from tests.fake_access import FakeAccess
from tests.memory.test_node_executor import CELL, destroy, start, uuid_of

PERIOD = 10.0


class OneClock(Clock):
    """A clock with the one method of a threaded reactor that the agent needs."""

    def callFromThread(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Everything happens in this thread."""
        self.callLater(0, function, *arguments)


class ControlPlane(pb.Root):
    """A control plane that takes note; ``refusal`` turns agents away, ``silent`` keeps it from answering reports."""

    def __init__(self) -> None:
        self.logins: list[NodeLogin] = []
        self.reports: list[Report] = []
        self.minds: list[Any] = []
        self.refusal = ""
        self.silent = False

    def remote_login_node(self, login: bytes, mind: Any) -> tuple[Any, bytes]:
        """As the wire's portal."""
        self.logins.append(decode(login, NodeLogin))
        if self.refusal:
            return None, encode({"error": {"code": "forbidden", "message": self.refusal}})
        self.minds.append(mind)
        return Avatar(self), encode(NodeWelcome(host_id=4, cell=CELL, lease=30.0, mark="mark at login"))

    def order(self, *orders: Any) -> None:
        """Send orders over the newest link."""
        self.minds[-1].callRemote("orders", encode(orders))

    def ask(self, question: Question) -> Deferred[Answer]:
        """Ask something over the newest link."""
        asked: Deferred[bytes] = self.minds[-1].callRemote("ask", encode(question))
        return asked.addCallback(decode, Answer)


class Avatar(pb.Referenceable):
    """What a logged-in agent may call."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane

    def remote_report(self, text: bytes) -> Any:
        """Take note of a report."""
        self.plane.reports.append(decode(text, Report))
        return Deferred() if self.plane.silent else b"ok"


class Wire:
    """An endpoint whose connections lie in memory; ``broken`` refuses new ones."""

    def __init__(self, root: ControlPlane) -> None:
        self.factory = pb.PBServerFactory(root)
        self.pumps: list[Any] = []
        self.attempts = 0
        self.broken = False

    def connect(self, factory: Any) -> Deferred[Any]:
        """As IStreamClientEndpoint."""
        self.attempts += 1
        if self.broken:
            return fail(ConnectionRefusedError())
        server, client = self.factory.buildProtocol(None), factory.buildProtocol(None)
        pump = iosim.connect(
            server, iosim.FakeTransport(server, isServer=True), client, iosim.FakeTransport(client, isServer=False), greet=False
        )
        self.pumps.append(pump)
        return succeed(client)

    def cut(self) -> None:
        """Lose the newest connection."""
        self.pumps[-1].serverIO.loseConnection()


class NodeAgentTests(SynchronousTestCase):
    """One agent and one control plane."""

    stats_interval = 0.0

    def setUp(self) -> None:
        """Neither has spoken yet."""
        self.clock = OneClock()
        self.plane = ControlPlane()
        self.wire = Wire(self.plane)
        self.host = FakeHypervisor(images=["a.img"])
        self.marks: list[str] = []
        self.disk_full = False
        self.agent = self.an_agent()

    def an_agent(self) -> NodeAgent:
        """An agent on this host; its threads are this thread."""
        login = NodeLogin(name="node1", secret="s" * 64, join="j", version="1")
        self.access = FakeAccess({uuid_of(1)})
        answers = Answers(self.clock, self.access, maybeDeferred)
        agent = NodeAgent(
            self.clock,
            self.wire,
            lambda: login,
            self.host,
            maybeDeferred,
            PERIOD,
            answers,
            stats_interval=self.stats_interval,
            keep_mark=self.keep_mark,
        )
        self.addCleanup(lambda: agent.running and agent.stopService())
        return agent

    def keep_mark(self, mark: str) -> None:
        """As a file of the state directory, on a disk that may be full."""
        if self.disk_full:
            raise OSError("no space left")
        self.marks.append(mark)

    def go_on(self, seconds: float = 0.0) -> None:
        """Let time pass, and everything that is then to be said be said."""
        steps = max(1, round(seconds / 0.5))
        for _ in range(steps):
            self.clock.advance(seconds / steps)
            for _ in range(12):
                for pump in self.wire.pumps:
                    pump.flush()
                self.clock.advance(0)

    def begin(self) -> None:
        """Start the agent and let it log in."""
        self.agent.startService()
        self.go_on()

    def seen(self) -> list[tuple[int, int, Seen]]:
        """What was reported so far, without lists; it is then forgotten."""
        reports = [report for report in self.plane.reports if not report.full]
        self.plane.reports.clear()
        return [(seen.instance_id, seen.generation, seen.seen) for report in reports for seen in report.observations]

    def test_login(self) -> None:
        """The agent says who it is, what the machine offers, and that nothing runs there."""
        self.begin()
        login = NodeLogin(name="node1", secret="s" * 64, join="j", version="1", identity=self.host.identity())
        self.assertEqual(self.plane.logins, [login])
        self.assertEqual(self.plane.reports, [Report(facts=self.host.facts(), full=True)])

    def test_marks_are_kept(self) -> None:
        """A9: the mark of the login, and each that is told later, is kept for the next login; a full disk ends no link."""
        self.begin()
        self.plane.minds[-1].callRemote("remember", b"mark a minute later")
        self.go_on()
        self.assertEqual(self.marks, ["mark at login", "mark a minute later"])
        self.disk_full = True
        self.plane.minds[-1].callRemote("remember", b"another")
        self.go_on(3 * PERIOD)
        self.assertEqual(len(self.plane.logins), 1)

    def test_order(self) -> None:
        """An order is carried out and its outcome reported."""
        self.begin()
        self.plane.order(start())
        self.go_on()
        self.assertEqual(self.seen(), [(1, 1, Seen.RUNNING)])
        self.plane.order(destroy())
        self.go_on()
        self.assertEqual(self.seen(), [(1, 2, Seen.GONE)])

    def test_batch(self) -> None:
        """What happens in one turn goes into one report."""
        self.begin()
        self.plane.order(*(start(instance_id) for instance_id in range(1, 101)))
        self.go_on()
        self.assertEqual([len(report.observations) for report in self.plane.reports], [0, 100])

    def test_pages(self) -> None:
        """A long list comes in pages, and is complete."""
        for instance_id in range(1, 2502):
            self.host.start(CELL, start(instance_id))
        self.begin()
        self.assertEqual([(report.full, report.page, report.pages) for report in self.plane.reports], [(True, n, 3) for n in (1, 2, 3)])
        self.assertEqual(sum(len(report.observations) for report in self.plane.reports), 2501)

    def test_keep_alive(self) -> None:
        """A host where nothing happens still speaks once a period."""
        self.begin()
        self.plane.reports.clear()
        self.go_on(3 * PERIOD)
        self.assertEqual([report for report in self.plane.reports if not report.full], [Report(facts=self.host.facts())] * 3)

    def test_new_facts(self) -> None:
        """A machine that changes is reported as it is now."""
        self.begin()
        self.host._facts = msgspec.structs.replace(self.host._facts, memory=4096)
        self.go_on(PERIOD)
        self.assertEqual(self.plane.reports[-1].facts.memory, 4096)

    def test_reconnect(self) -> None:
        """After the link was cut the agent comes back and lists what runs."""
        self.begin()
        self.plane.order(start())
        self.go_on()
        self.plane.reports.clear()
        self.wire.cut()
        self.go_on(5)
        self.assertEqual(len(self.plane.logins), 2)
        self.assertEqual([seen.instance_id for seen in self.plane.reports[0].observations], [1])
        self.assertTrue(self.plane.reports[0].full)

    def test_outcome_while_disconnected(self) -> None:
        """The failure of an order is not lost with the link it came by."""
        self.begin()
        self.wire.broken = True
        self.wire.cut()
        self.agent.take_orders([start(image="none.img")])
        self.go_on(60)
        self.plane.reports.clear()
        self.wire.broken = False
        self.go_on(40)
        self.assertEqual(self.seen(), [(1, 1, Seen.FAILED)])

    def test_unacknowledged(self) -> None:
        """A report without an answer drops the link, and is told again over the next one."""
        self.begin()
        self.plane.silent = True
        self.plane.order(start(image="none.img"))
        self.go_on()
        self.plane.silent = False
        self.go_on(PATIENCE + 5)
        self.assertEqual(len(self.plane.logins), 2)
        self.assertEqual(self.seen(), [(1, 1, Seen.FAILED)] * 2)

    def test_refused(self) -> None:
        """An agent that is turned away asks again, more and more seldom, and is let in when it may be."""
        self.plane.refusal = "host node1 is pinned to another secret"
        self.agent.startService()
        self.go_on(300)
        refused = len(self.plane.logins)
        self.assertTrue(8 < refused < 25, refused)
        self.plane.refusal = ""
        self.go_on(31)
        self.assertEqual(len(self.plane.minds), 1)
        self.go_on(60)
        self.assertEqual(len(self.plane.logins), refused + 1)

    def test_never_gives_up(self) -> None:
        """A control plane that cannot be reached is tried again at least every half minute."""
        self.wire.broken = True
        self.agent.startService()
        self.go_on(1000)
        before = self.wire.attempts
        self.go_on(60)
        self.assertGreaterEqual(self.wire.attempts, before + 2)

    def test_hypervisor_away_at_start(self) -> None:
        """An agent joins only when it can say what its machine offers."""
        self.host.away = True
        self.begin()
        self.go_on(60)
        self.assertEqual(self.plane.logins, [])
        self.host.away = False
        self.go_on(31)
        self.assertEqual(len(self.plane.reports) > 0 and self.plane.reports[0].full, True)

    def test_hypervisor_away_later(self) -> None:
        """While libvirt is away the agent keeps its lease, and lists nothing that it cannot see."""
        self.begin()
        self.plane.order(start())
        self.go_on()
        self.host.vanish()
        self.wire.cut()
        self.plane.reports.clear()
        self.go_on(2 * PERIOD)
        self.assertEqual([report for report in self.plane.reports if report.full], [])
        self.host.away = False
        self.go_on(2 * PERIOD)
        listed = [report for report in self.plane.reports if report.full]
        self.assertEqual([seen.instance_id for seen in listed[0].observations], [1])

    def lists(self) -> list[list[int]]:
        """The instances of each complete list so far; all reports are then forgotten."""
        listed = [[one.instance_id for one in report.observations] for report in self.plane.reports if report.full]
        self.plane.reports.clear()
        return listed

    def test_h1_lists_come_again(self) -> None:
        """H1: everything is listed a second time soon after the first, and then once in a while, over one link."""
        self.begin()
        self.plane.order(start())
        self.go_on()
        self.assertEqual(self.lists(), [[]])
        self.go_on(9.5)
        self.assertEqual(self.lists(), [])
        self.go_on(1.5)
        self.assertEqual(self.lists(), [[1]])
        self.go_on(58)
        self.assertEqual(self.lists(), [])
        self.go_on(3)
        self.assertEqual(self.lists(), [[1]])
        self.assertEqual(len(self.plane.logins), 1)
        self.wire.cut()
        self.go_on(20)
        self.assertEqual(self.lists(), [[1], [1]])

    def test_h1_a_missing_domain_is_listed_soon(self) -> None:
        """H1: a domain that is found missing is told, and two more lists come within a quarter of a minute."""
        self.begin()
        self.plane.order(start())
        self.go_on(12)
        self.lists()
        self.host._domains.clear()
        self.plane.order(Pause(instance_id=1, generation=2, uuid=uuid_of(1)))
        self.go_on()
        self.assertEqual(self.seen()[-1], (1, 2, Seen.MISSING))
        self.go_on(14)
        self.assertEqual(self.lists(), [[], []])

    def test_a_list_tells_what_is_so_now(self) -> None:
        """What changes while a list is on its way is told as it is when its page is sent: no page is older than a report before it."""
        for instance_id in range(1, 1002):
            self.host.start(CELL, start(instance_id))
        self.begin()
        self.lists()
        report = Avatar.remote_report

        def take(avatar: Avatar, text: bytes) -> Any:
            answer = report(avatar, text)
            if (page := decode(text, Report)).full and page.page == 1:
                self.host.change(uuid_of(1001), Seen.PAUSED)
                answer = Deferred()
                self.clock.callLater(0.1, answer.callback, b"ok")
            return answer

        self.patch(Avatar, "remote_report", take)
        self.go_on(12)
        told = [(page.full, one.seen) for page in self.plane.reports for one in page.observations if one.instance_id == 1001]
        self.assertEqual(told, [(False, Seen.PAUSED), (True, Seen.PAUSED)])

    def test_h1_another_libvirt_is_not_listed(self) -> None:
        """H1: an agent whose libvirt has become another one lists nothing of it, and logs in as what it is now."""
        self.begin()
        self.plane.order(start())
        self.go_on()
        self.lists()
        self.host.machine_id = "another machine"
        self.plane.refusal = "host node1 is pinned to another machine"
        self.go_on(20)
        self.assertEqual(self.lists(), [])
        self.assertEqual(self.plane.logins[-1].identity, self.host.identity())

    def test_h1_a_refusal_is_logged_once(self) -> None:
        """H1: an agent that may not log in says why once, and tries less and less often."""
        self.plane.refusal = "host node1 is pinned to another machine"
        logged: list[Any] = []

        def note(event: Any) -> None:
            if "no link" in (event.get("log_format") or ""):
                logged.append(event)

        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)
        self.agent.startService()
        self.go_on(300)
        self.assertEqual([event["why"] for event in logged], [self.plane.refusal])

    def test_crash_is_told(self) -> None:
        """An instance whose machine dies is reported gone, with how."""
        self.begin()
        self.plane.order(start())
        self.go_on()
        self.host.change(uuid_of(1), Seen.GONE, Cause.CRASHED)
        self.go_on()
        last: Observation = self.plane.reports[-1].observations[-1]
        self.assertEqual((last.seen, last.reason), (Seen.GONE, Cause.CRASHED))

    def ask(self, question: Question) -> Answer:
        """What the agent answers now."""
        asked = self.plane.ask(question)
        self.go_on()
        return self.successResultOf(asked)

    def test_questions(self) -> None:
        """A question is answered at once; what cannot be is refused in words."""
        self.begin()
        self.access.logs["tashi-1-vm1"] = b"hello"
        self.assertEqual(self.ask(ReadLog(uuid=uuid_of(1), name="tashi-1-vm1", offset=1)), LogPage(data=b"ello"))
        self.assertEqual(self.ask(ChangeCdrom(uuid=uuid_of(1), image="")), Done())
        for question, code in (
            (ChangeCdrom(uuid=uuid_of(1), image="x.iso"), "unknown-image"),
            (StartVnc(uuid=uuid_of(2)), "conflict"),
            (StopVnc(uuid=uuid_of(2)), "conflict"),
            (CloseConsole(uuid=uuid_of(1), session="s"), None),
        ):
            answer = self.ask(question)
            self.assertEqual(answer.code if isinstance(answer, Refused) else None, code)

    def test_faulty_answer(self) -> None:
        """A fault of the agent's own is told without its traceback, and logged with it."""
        self.begin()
        self.patch(self.access, "change_cdrom", lambda *arguments: 1 / 0)
        answer = self.ask(ChangeCdrom(uuid=uuid_of(1), image=""))
        self.assertIn("its log says how", answer.message if isinstance(answer, Refused) else "")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_consoles_end_with_the_link(self) -> None:
        """When the control plane, or libvirt, has gone, nobody is at a console any more."""
        self.begin()
        for lose in (self.wire.cut, self.host.vanish):
            self.assertIsInstance(self.ask(OpenConsole(uuid=uuid_of(1))), ConsoleOpened)
            lose()
            self.go_on(5)
            self.assertEqual(self.access.consoles[-1].closed, 1)

    def test_stop(self) -> None:
        """An agent that is stopped leaves the instances running."""
        self.begin()
        self.plane.order(start())
        self.go_on()
        stopped = maybeDeferred(self.agent.stopService)
        self.go_on()
        self.successResultOf(stopped)
        self.assertEqual(len(self.host.domains(CELL)), 1)
        self.go_on(100)
        self.assertEqual(len(self.plane.logins), 1)
