"""A loop that never dies."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from tashi.manager.guarded import KickableLoop


class KickableLoopTest(TestCase):
    """A loop every ten seconds, with a pause of one."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.rounds: list[float] = []
        self.takes = 0.0
        self.loop = KickableLoop(self.clock, 10.0, self.work, "test", pause=1.0)
        self.loop.start()
        self.clock.advance(0)

    def work(self) -> None:
        self.rounds.append(self.clock.seconds())
        self.clock.rightNow += self.takes

    def test_it_runs_at_once_and_then_every_interval(self) -> None:
        """Unkicked, it keeps its interval."""
        self.clock.pump([1.0] * 25)
        self.assertEqual(self.rounds, [0.0, 10.0, 20.0])

    def test_kicks_of_one_turn_make_one_round(self) -> None:
        """However often it is kicked, there is one round, a pause after the last."""
        for _ in range(100):
            self.loop.kick()
        self.clock.pump([0.5] * 4)
        self.assertEqual(self.rounds, [0.0, 1.0])

    def test_a_kick_after_the_pause_is_answered_at_once(self) -> None:
        """A loop that rests is kicked awake without delay."""
        self.clock.advance(5.0)
        self.loop.kick()
        self.clock.advance(0)
        self.assertEqual(self.rounds, [0.0, 5.0])

    def test_long_rounds_leave_time_for_the_rest(self) -> None:
        """After a round of three seconds the next begins no sooner than six later."""
        self.clock.advance(5.0)
        self.takes = 3.0
        self.loop.kick()
        self.clock.advance(0)
        self.loop.kick()
        self.clock.pump([0.5] * 20)
        self.assertEqual(self.rounds, [0.0, 5.0, 14.0])

    def test_work_that_goes_on_is_waited_for(self) -> None:
        """Kicks while a round goes on make one more after it, which leaves as much time as the round took; a failure ends it, too."""
        ends: list[Deferred[None]] = []

        def work() -> Deferred[None]:
            self.rounds.append(self.clock.seconds())
            ends.append(Deferred())
            return ends[-1]

        self.loop.stop()
        self.rounds.clear()
        loop = KickableLoop(self.clock, 10.0, work, "slow", pause=1.0)
        loop.start()
        self.clock.advance(0)
        for _ in range(4):
            loop.kick()
            self.clock.advance(1.0)
        self.assertEqual(self.rounds, [0.0])
        ends[0].callback(None)
        self.clock.pump([0.5] * 8)
        self.assertEqual(self.rounds, [0.0, 8.0])
        ends[1].errback(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.clock.pump([1.0] * 10)
        self.assertEqual(self.rounds, [0.0, 8.0, 18.0])

    def test_an_exception_costs_one_round(self) -> None:
        """It is logged, and the next round comes as if nothing had been."""
        loop = KickableLoop(self.clock, 10.0, lambda: self.rounds.append(1 // 0), "broken")
        loop.start()
        self.clock.pump([1.0] * 25)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)

    def test_stopped_it_stays_quiet_and_can_be_started_again(self) -> None:
        """A kick before the stop is not remembered, and does not keep it from starting."""
        self.loop.kick()
        self.loop.stop()
        self.loop.kick()
        self.clock.advance(30.0)
        self.assertEqual(self.rounds, [0.0])
        self.loop.start()
        self.clock.advance(0)
        self.assertEqual(self.rounds, [0.0, 30.0])
        self.loop.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_clock_set_back_does_not_stop_it(self) -> None:
        """A kick waits for an interval at most, whatever the clock says."""
        self.clock.rightNow = -3600.0
        self.loop.kick()
        self.clock.advance(10.0)
        self.assertEqual(len(self.rounds), 2)
