"""Sessions at guests' consoles: what is said reaches whoever reads, floods are bounded, and nobody's absence keeps a session."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from tashi.errors import BUSY, CONFLICT, OurFault, YourMistake
from tashi.model.questions import INPUT_BYTES, OUTPUT_BYTES, CloseConsole, ConsoleOutput, OpenConsole, ReadConsole, WriteConsole
from tashi.node.access.consoles import BYTES_A_SECOND, CLOSED, KEPT_BYTES, READ_SECONDS, UNREAD_SECONDS, Consoles
from tests.fake_access import FakeAccess
from tests.memory.test_node_agent import OneClock
from tests.memory.test_node_executor import CELL, Calls, uuid_of

UUID = uuid_of(1)


class ConsolesTests(SynchronousTestCase):
    """One host with a guest that says back what is typed."""

    def setUp(self) -> None:
        """Nobody is at the console."""
        self.clock = OneClock()
        self.access = FakeAccess({UUID})
        self.consoles = Consoles(self.clock, self.access, maybeDeferred)

    def opening(self, force: bool = False) -> Deferred[str]:
        """Somebody opens the console."""
        return Deferred.fromCoroutine(self.consoles.open(CELL, OpenConsole(uuid=UUID, force=force)))

    def open(self, force: bool = False) -> str:
        """The session of somebody who has."""
        return self.successResultOf(self.opening(force))

    def read(self, session: str, uuid: str = UUID) -> Deferred[ConsoleOutput]:
        """Somebody waits for what is said."""
        return self.consoles.read(ReadConsole(uuid=uuid, session=session))

    def type(self, session: str, data: bytes, uuid: str = UUID) -> Deferred[None]:
        """Somebody types."""
        return Deferred.fromCoroutine(self.consoles.write(WriteConsole(uuid=uuid, session=session, data=data)))

    def said(self, session: str) -> ConsoleOutput:
        """What is there to read now."""
        self.clock.advance(0)
        return self.successResultOf(self.read(session))

    def refused(self, work: Deferred[Any], code: str) -> str:
        """The words of a refusal with this code."""
        error = self.failureResultOf(work, OurFault, YourMistake).value
        self.assertEqual(error.code, code)
        return str(error)

    def test_conversation(self) -> None:
        """What is typed reaches the guest, and what it says whoever waits for it."""
        session = self.open()
        waiting = self.read(session)
        self.assertNoResult(waiting)
        typed = self.type(session, b"hello")
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(waiting), ConsoleOutput(data=b"hello"))
        self.clock.advance(1)
        self.successResultOf(typed)
        self.assertEqual(self.access.consoles[0].typed, b"hello")

    def test_silence(self) -> None:
        """A reader to whom nothing is said gets nothing after a while, and asks again for as long as it likes."""
        session = self.open()
        for _ in range(10):
            waiting = self.read(session)
            self.clock.advance(READ_SECONDS)
            self.assertEqual(self.successResultOf(waiting), ConsoleOutput())

    def test_flood(self) -> None:
        """A guest that says more than is fetched loses what it said first, and is said to; nothing grows."""
        session = self.open()
        for number in range(200):
            self.access.consoles[0].say(bytes([number]) * 10_000)
        self.assertLessEqual(len(self.clock.getDelayedCalls()), 2)
        first, rest = self.said(session), []
        self.assertEqual((len(first.data), first.missed), (OUTPUT_BYTES, 2_000_000 - KEPT_BYTES))
        for _ in range(KEPT_BYTES // OUTPUT_BYTES - 1):
            rest.append(self.said(session))
        self.assertEqual({(len(output.data), output.missed) for output in rest}, {(OUTPUT_BYTES, 0)})
        self.assertEqual(rest[-1].data[-1], 199)
        self.assertNoResult(self.read(session))

    def test_one_at_a_time(self) -> None:
        """A console that is in use is refused, and taken over by force, which the former user is told."""
        first = self.open()
        waiting = self.read(first)
        self.assertIn("--force", self.refused(self.opening(), CONFLICT))
        second = self.open(force=True)
        self.assertIn("taken the console over", self.successResultOf(waiting).ended)
        self.assertEqual([console.closed for console in self.access.consoles], [1, 0])
        self.refused(self.type(first, b"x"), CONFLICT)
        self.type(second, b"y")
        self.assertEqual(self.said(second).data, b"y")

    def test_taken_over_while_it_is_opened(self) -> None:
        """Of two that open a console at once one has it."""
        calls = Calls()
        calls.held = True
        self.consoles = Consoles(self.clock, self.access, calls.run)
        first, second = self.opening(), self.opening(force=True)
        calls.held = False
        for result, function, arguments in calls.waiting:
            maybeDeferred(function, *arguments).chainDeferred(result)
        self.refused(first, CONFLICT)
        self.assertTrue(self.successResultOf(second))
        self.assertEqual([console.closed for console in self.access.consoles], [1, 0])

    def test_guest_ends(self) -> None:
        """The last words of a guest are read before it is said that there are no more; then the console is free."""
        session = self.open()
        self.access.consoles[0].say(b"bye")
        self.access.consoles[0].end()
        self.assertEqual(self.said(session), ConsoleOutput(data=b"bye"))
        self.assertEqual(self.said(session), ConsoleOutput(ended=CLOSED))
        self.assertEqual(self.said(session), ConsoleOutput(ended=CLOSED))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.open()

    def test_unread(self) -> None:
        """A session that nobody reads ends, and leaves nothing."""
        session = self.open()
        self.clock.advance(UNREAD_SECONDS + 1)
        self.assertEqual(self.access.consoles[0].closed, 1)
        self.assertEqual(self.said(session).ended, CLOSED)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.open()

    def test_left(self) -> None:
        """Whoever leaves frees the console, and leaves once."""
        session = self.open()
        for _ in range(2):
            self.consoles.close(CloseConsole(uuid=UUID, session=session))
        self.assertEqual(self.access.consoles[0].closed, 1)
        self.open()

    def test_link_lost(self) -> None:
        """All sessions end for a reason that is told."""
        session = self.open()
        waiting = self.read(session)
        self.consoles.close_all("the control plane has gone")
        self.assertEqual(self.successResultOf(waiting).ended, "the control plane has gone")

    def test_pace(self) -> None:
        """Nobody types faster than a serial line, or more at once, however many hands they have."""
        session = self.open()
        typed = self.type(session, b"x" * INPUT_BYTES)
        self.refused(self.type(session, b"y"), BUSY)
        self.clock.advance(INPUT_BYTES / BYTES_A_SECOND - 0.01)
        self.assertNoResult(typed)
        self.clock.advance(0.02)
        self.successResultOf(typed)
        self.refused(self.type(session, b"x" * (INPUT_BYTES + 1)), "bad-argument")

    def test_deaf_guest(self) -> None:
        """A guest that does not read is said not to, and can be typed at again."""
        session = self.open()
        self.access.consoles[0].deaf = True
        self.refused(self.type(session, b"x"), BUSY)
        self.access.consoles[0].deaf = False
        self.type(session, b"y")
        self.assertEqual(self.access.consoles[0].typed, b"y")

    def test_session_of_another_domain(self) -> None:
        """A session's name opens its own domain only."""
        session = self.open()
        self.access.consoles[0].say(b"secret")
        other = uuid_of(2)
        self.assertEqual(self.successResultOf(self.read(session, other)), ConsoleOutput(ended=CLOSED))
        self.refused(self.type(session, b"x", other), CONFLICT)
        self.consoles.close(CloseConsole(uuid=other, session=session))
        self.assertEqual(self.said(session).data, b"secret")

    def test_not_running(self) -> None:
        """The console of a domain that is not there cannot be opened, and stays free."""
        self.access.domains.clear()
        for _ in range(2):
            self.refused(self.opening(), CONFLICT)

    def test_second_reader(self) -> None:
        """A second reader ends the wait of the first."""
        session = self.open()
        first, second = self.read(session), self.read(session)
        self.assertEqual(self.successResultOf(first), ConsoleOutput())
        self.assertNoResult(second)
