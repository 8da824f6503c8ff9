"""What the executor tells of pauses and ends that nobody ordered, and how guests without room continue (H6, H8)."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from tashi.model.causes import Cause, in_words
from tashi.model.orders import Observation, Pause, Seen, Shutdown, Unpause
from tashi.node.room_timer import FIRST_SECONDS, LONGEST_SECONDS, RoomTimer
from tests.memory.test_node_executor import CELL, ExecutorCase, deed, destroy, start, uuid_of


class PauseTests(ExecutorCase):
    """A domain that runs, and what happens to it."""

    def setUp(self) -> None:
        """Instance 1 runs."""
        super().setUp()
        self.executor.give([start()])
        self.told.clear()

    def causes(self) -> list[tuple[Seen, Cause | None]]:
        """What was told; it is then forgotten."""
        told = [(one.seen, one.cause) for one in self.told]
        self.told.clear()
        return told

    def test_pauses(self) -> None:
        """H6: each pause is told with its cause and its words, and another cause of the same pause as news."""
        for cause in (Cause.NO_SPACE, Cause.IO_ERROR, Cause.WATCHDOG, Cause.ADMINISTRATOR, Cause.SAVED_BY_HOST):
            self.host.change(uuid_of(1), Seen.PAUSED, cause)
            self.assertEqual(self.told[-1].reason, in_words(cause))
            self.assertEqual(self.causes(), [(Seen.PAUSED, cause)])
        self.host.change(uuid_of(1), Seen.RUNNING)
        self.assertEqual(self.causes(), [(Seen.RUNNING, None)])

    def test_a_save_is_no_end(self) -> None:
        """H8: a domain that its host saves or reverts is not removed; it runs again by itself or by an Unpause."""
        for cause in (Cause.SAVED_BY_HOST, Cause.REVERTED):
            self.host.change(uuid_of(1), Seen.PAUSED, cause)
            self.assertEqual([one.cause for one in self.host.domains(CELL)], [cause])
            self.host.change(uuid_of(1), Seen.RUNNING)
        self.host.change(uuid_of(1), Seen.PAUSED, Cause.SAVED_BY_HOST)
        self.told.clear()
        self.executor.give([deed(Shutdown)])
        self.assertIn("saved by its host", self.told[-1].refused)
        self.executor.give([deed(Unpause, generation=3)])
        self.assertEqual((self.told[-1].seen, self.told[-1].done, self.told[-1].refused), (Seen.RUNNING, True, ""))

    def test_migrated_away(self) -> None:
        """H8: a domain that somebody moves away is told gone for that cause, and what is left of it stays until it is destroyed."""
        self.host.change(uuid_of(1), Seen.GONE, Cause.MIGRATED_AWAY)
        self.assertEqual(self.causes(), [(Seen.GONE, Cause.MIGRATED_AWAY)])
        self.assertEqual(len(self.host.domains(CELL)), 1)
        listed = self.successResultOf(self.survey())
        self.assertEqual([(one.seen, one.cause) for one in listed], [(Seen.GONE, Cause.MIGRATED_AWAY)])
        self.executor.give([destroy()])
        self.assertEqual(self.host.domains(CELL), [])

    def test_ends(self) -> None:
        """An end is told with its cause, whether the domain is still defined or not, and what it was undefined after."""
        self.host.change(uuid_of(1), Seen.GONE, Cause.DESTROYED)
        self.assertEqual(self.causes(), [(Seen.GONE, Cause.DESTROYED)])
        self.executor.give([start(generation=2)])
        self.told.clear()
        self.calls.held = True
        for cause in (Cause.MIGRATED_AWAY, Cause.UNDEFINED):  # as `virsh migrate --undefinesource` does
            self.executor.notice(uuid_of(1), Seen.GONE, cause)
        del self.host._domains[uuid_of(1)]
        self.calls.held = False
        self.calls.let_go()
        self.assertEqual(self.causes(), [(Seen.GONE, Cause.MIGRATED_AWAY)])

    def test_undefined(self) -> None:
        """A domain that is undefined while it runs runs on; one that was saved and is undefined is told gone for that."""
        self.executor.notice(uuid_of(1), Seen.GONE, Cause.UNDEFINED)
        self.assertEqual(self.causes(), [])
        self.host.change(uuid_of(1), Seen.PAUSED, Cause.SAVED_BY_HOST)
        self.told.clear()
        del self.host._domains[uuid_of(1)]
        self.executor.notice(uuid_of(1), Seen.GONE, Cause.UNDEFINED)
        self.assertEqual(self.causes(), [(Seen.GONE, Cause.UNDEFINED)])

    def test_libvirt_forgets_why(self) -> None:
        """H8: a domain that is known not to have ended is not taken for one when libvirt, begun again, no longer knows why it is off."""
        for seen, cause in ((Seen.PAUSED, Cause.SAVED_TO_FILE), (Seen.GONE, Cause.MIGRATED_AWAY)):
            self.host.change(uuid_of(1), Seen.RUNNING)
            self.host.change(uuid_of(1), seen, cause)
            self.told.clear()
            domain = self.host._domains[uuid_of(1)]
            domain.seen, domain.cause = Seen.GONE, None
            listed = self.successResultOf(self.survey())
            self.assertEqual([(one.seen, one.cause) for one in listed], [(seen, cause)])
            self.assertIn(uuid_of(1), self.host._domains)
            domain.seen, domain.cause = seen, cause

    def test_room_again(self) -> None:
        """H6: a guest without room is continued within seconds of there being some; without room it is only looked at."""
        self.host.is_full = True
        self.host.change(uuid_of(1), Seen.PAUSED, Cause.NO_SPACE)
        self.told.clear()
        self.clock.pump([1.0] * 30)
        self.assertEqual(self.told, [])
        looks = self.host.begun.count("resume if room")
        self.assertTrue(2 <= looks <= 4, looks)
        self.host.is_full = False
        self.clock.pump([1.0] * 30)
        self.assertEqual(self.causes(), [(Seen.RUNNING, None)])
        self.clock.pump([1.0] * 120)
        self.assertEqual(self.host.begun.count("resume if room"), looks + 1)

    def test_only_without_room(self) -> None:
        """No other pause is ended by the agent."""
        for cause in set(Cause) - {Cause.NO_SPACE}:
            self.host.change(uuid_of(1), Seen.PAUSED, cause)
            self.clock.pump([1.0] * 10)
        self.assertNotIn("resume if room", self.host.begun)

    def test_unpause_without_room(self) -> None:
        """H6: an Unpause without room is refused in words, and the guest continues when there is some all the same."""
        self.host.is_full = True
        self.host.change(uuid_of(1), Seen.PAUSED, Cause.NO_SPACE)
        self.executor.give([deed(Unpause)])
        told = self.told[-1]
        self.assertEqual((told.done, told.seen, told.cause), (True, Seen.PAUSED, Cause.NO_SPACE))
        self.assertIn("no space", told.refused)
        self.executor.give([deed(Pause, generation=3)])
        self.assertIn("no space", self.told[-1].refused)
        self.host.is_full = False
        self.clock.pump([1.0] * 10)
        self.assertEqual(self.told[-1].seen, Seen.RUNNING)

    def test_room_waits_for_orders(self) -> None:
        """A guest is not continued while an order about it is carried out, nor when that has ended it."""
        self.host.change(uuid_of(1), Seen.PAUSED, Cause.NO_SPACE)
        self.calls.held = True
        self.executor.give([destroy()])
        self.clock.pump([1.0] * 10)
        self.calls.held = False
        self.calls.let_go()
        self.clock.pump([1.0] * 60)
        self.assertNotIn("resume if room", self.host.begun)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopped(self) -> None:
        """An executor that is stopped continues nothing."""
        self.host.change(uuid_of(1), Seen.PAUSED, Cause.NO_SPACE)
        self.executor.stop()
        self.clock.pump([1.0] * 60)
        self.assertNotIn("resume if room", self.host.begun)

    def survey(self) -> Deferred[list[Observation]]:
        """What the executor lists."""
        return Deferred.fromCoroutine(self.executor.survey())


class RoomTimerTests(ExecutorCase):
    """When a guest without room is looked at."""

    def test_less_and_less_often(self) -> None:
        """The first look is soon, each further one twice as late, up to the longest; after a long time without one it is soon again."""
        looks: list[float] = []
        timer = RoomTimer(self.clock, lambda number: (looks.append(self.clock.seconds()), timer.wait(number)))
        timer.wait(1)
        timer.wait(1)
        self.clock.pump([1.0] * 300)
        gaps = [later - sooner for sooner, later in zip([0.0, *looks], looks, strict=False)]
        self.assertEqual(gaps[:6], [FIRST_SECONDS, 6.0, 12.0, 24.0, 48.0, LONGEST_SECONDS])
        timer.forget(1)
        self.clock.pump([1.0] * 300)
        count = len(looks)
        timer.wait(1)
        self.clock.advance(FIRST_SECONDS)
        self.assertEqual(len(looks), count + 1)
        timer.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
