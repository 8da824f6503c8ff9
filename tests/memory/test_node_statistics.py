"""The agent looks at what its instances use, however long libvirt takes to say."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tashi.errors import INTERNAL, OurFault
from tashi.model.statistics import Counters, InstanceUse, Sample, Statistics, Use
from tashi.node.statistics import MOST_CALLS, Sampling
from tests.memory.test_node_agent import NodeAgentTests as _AgentCase
from tests.memory.test_node_executor import CELL, start, uuid_of


class SamplingTests(SynchronousTestCase):
    """A look every ten seconds."""

    def setUp(self) -> None:
        """A libvirt that answers when the test says."""
        self.clock = Clock()
        self.calls: list[Deferred[Sample]] = []
        self.told: list[Statistics] = []
        self.logged: list[str] = []
        globalLogPublisher.addObserver(self.note)
        self.addCleanup(globalLogPublisher.removeObserver, self.note)
        self.sampling = Sampling(self.clock, 10.0, self.ask, self.told.append)
        self.sampling.start()

    def note(self, event: object) -> None:
        """Keep what is logged here."""
        assert isinstance(event, dict)
        if event.get("log_namespace", "").endswith("Sampling"):
            self.logged.append(event["log_format"].format(**event))

    def ask(self) -> Deferred[Sample]:
        """A call that has not returned yet."""
        answer: Deferred[Sample] = Deferred()
        self.calls.append(answer)
        return answer

    def answer(self, call: int = -1) -> None:
        """Let a call return."""
        now = self.clock.seconds()
        self.calls[call].callback(Sample(at=now, machine=Counters(cpu=round(now * 1e9))))

    def test_each_interval(self) -> None:
        """Each call but the first makes something told."""
        for _ in range(4):
            self.answer()
            self.clock.advance(10)
        self.assertEqual(self.told, [Statistics(interval=10.0, seconds=10.0, host=Use(cpu=100.0))] * 3)
        self.assertEqual(len(self.calls), 5)

    def test_late(self) -> None:
        """While a call is late there is no second one, and one line says so; what it brings still counts."""
        self.answer()
        self.clock.advance(10)
        self.clock.advance(10)
        self.assertEqual((len(self.calls), len(self.logged)), (2, 1))
        self.clock.advance(5)
        self.answer()
        self.assertEqual([told.seconds for told in self.told], [25.0])
        self.clock.advance(5)
        self.assertEqual((len(self.calls), len(self.logged)), (3, 1))

    def test_hung(self) -> None:
        """A call that hangs is given up, the next goes beside it, and what the hung one brings in the end is not told."""
        self.clock.advance(10)
        self.clock.advance(10)
        self.assertEqual(len(self.calls), 2)
        self.answer()
        self.clock.advance(10)
        self.answer(0)
        self.assertEqual(self.told, [])
        self.answer()
        self.assertEqual([told.seconds for told in self.told], [10.0])

    def test_many_hang(self) -> None:
        """There are never more calls than libvirtd takes, and it goes on with the first guest that does."""
        for _ in range(3 * MOST_CALLS):
            self.clock.advance(10)
        self.assertEqual(len(self.calls), MOST_CALLS)
        self.answer(0)
        self.clock.advance(10)
        self.assertEqual(len(self.calls), MOST_CALLS + 1)
        self.answer()
        self.clock.advance(10)
        self.answer()
        self.assertEqual([told.seconds for told in self.told], [10.0])

    def test_failures(self) -> None:
        """A libvirt that is away is said to be, once, and the rates then span the gap."""
        self.answer()
        for _ in range(3):
            self.clock.advance(10)
            self.calls[-1].errback(OurFault(INTERNAL, "libvirt does not answer"))
        self.assertEqual(self.logged, ["what instances use is not known: libvirt does not answer"])
        self.clock.advance(10)
        self.answer()
        self.assertEqual([told.seconds for told in self.told], [40.0])

    def test_stop(self) -> None:
        """After the end nothing is asked, and what still comes is not told."""
        self.answer()
        self.clock.advance(10)
        self.sampling.stop()
        self.answer()
        self.clock.advance(30)
        self.assertEqual((self.told, len(self.calls)), ([], 2))

    def test_off(self) -> None:
        """Without an interval nothing is asked."""
        asked: list[None] = []
        sampling = Sampling(self.clock, 0.0, lambda: asked.append(None), self.told.append)
        sampling.start()
        self.clock.advance(100)
        sampling.stop()
        self.assertEqual(asked, [])

    def test_failure_at_once(self) -> None:
        """A call that fails or returns at once is as good as another."""
        answers = iter([fail(OurFault(INTERNAL, "no")), succeed(Sample(at=1.0)), succeed(Sample(at=2.0))])
        sampling = Sampling(self.clock, 1.0, lambda: next(answers), self.told.append)
        sampling.start()
        self.clock.advance(1)
        self.clock.advance(1)
        self.assertEqual(self.told, [Statistics(interval=1.0, seconds=1.0)])
        sampling.stop()


class AgentStatisticsTests(_AgentCase):
    """An agent with an interval; what it promises without one it keeps."""

    stats_interval = 10.0

    def reported(self) -> list[Statistics]:
        """The statistics that were reported so far."""
        return [report.statistics for report in self.plane.reports if report.statistics is not None]

    def look(self, cpu: int) -> None:
        """One interval passes, in which each instance's processor time gets to this many seconds."""
        self.host.seconds += 10
        self.host.counters = {number: Counters(cpu=cpu * 10**9) for number in self.host.counters}
        self.go_on(10)

    def test_use_is_reported(self) -> None:
        """Each interval the use since the last one goes into a report."""
        self.begin()
        self.plane.order(start())
        self.host.counters = {1: Counters()}
        self.go_on()
        for cpu in (1, 2, 4):
            self.look(cpu)
        uses = [statistics.instances for statistics in self.reported()]
        self.assertEqual(uses[-2:], [(InstanceUse(instance_id=1, cpu=10.0),), (InstanceUse(instance_id=1, cpu=20.0),)])

    def test_many(self) -> None:
        """The use of ten thousand instances comes in pages."""
        for number in range(1, 10_001):
            self.host.start(CELL, start(number))
        self.host.counters = dict.fromkeys(range(1, 10_001), Counters(cpu=0))
        self.begin()
        self.look(0)
        self.plane.reports.clear()
        self.look(1)
        self.assertEqual([len(statistics.instances) for statistics in self.reported()], [1000] * 10)
        self.assertEqual({use.instance_id for page in self.reported() for use in page.instances}, set(range(1, 10_001)))

    def test_without_a_link(self) -> None:
        """What could not be told is not told later."""
        self.host.start(CELL, start())
        self.host.counters = {1: Counters()}
        self.begin()
        self.look(1)
        self.wire.broken = True
        self.wire.cut()
        self.look(2)
        self.look(3)
        self.plane.reports.clear()
        self.wire.broken = False
        self.go_on(40)
        self.assertTrue(self.plane.reports[0].full)
        self.assertEqual([use for use in self.reported() if use.seconds < 30], [])

    def test_a_stranger_in_the_counters(self) -> None:
        """A domain that has gone is told of no more."""
        self.host.start(CELL, start())
        self.host.counters = {1: Counters()}
        self.begin()
        self.look(1)
        self.host.destroy(CELL, uuid_of(1), 9)
        self.plane.reports.clear()
        self.look(2)
        self.assertEqual([statistics.instances for statistics in self.reported()], [()])
