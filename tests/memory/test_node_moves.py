"""What takes long on a host: moves from one executor to another, suspending and resuming, progress, and being ended."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tashi.model.orders import Depart, Look, Migrate, Observation, Offer, Order, Receive, Seen, Suspend
from tashi.node.executor import Executor
from tashi.node.fake import FakeHypervisor, SharedDirectory
from tests.memory.test_node_executor import CELL, Calls, deed, destroy, start, uuid_of

ABOUT: dict[str, Any] = {"instance_id": 1, "uuid": uuid_of(1)}
MACHINE: dict[str, Any] = {"cores": 1, "memory": 64, "disks": start().disks}
SAVED = "suspend/1_vm1"


class Host:
    """One machine with its executor, and what it tells."""

    def __init__(self, clock: Clock, shared: SharedDirectory) -> None:
        self.clock = clock
        self.machine = FakeHypervisor(images=["a.img"], shared=shared)
        self.told: list[Observation] = []
        self.restart()

    def restart(self) -> None:
        """An agent that knows nothing begins here."""
        self.calls, self.long_calls = Calls(), Calls()
        self.machine._listeners.clear()
        self.executor = Executor(self.machine, self.calls.run, self.clock, self.told.append, self.long_calls.run)
        self.executor.enter(CELL)
        self.machine.watch(self.executor.notice)
        self.survey()

    def survey(self) -> list[tuple[Seen, int]]:
        """What it would list now."""
        found: list[list[Observation]] = []
        Deferred.fromCoroutine(self.executor.survey()).addCallback(found.append)
        return [(one.seen, one.generation) for one in found[0]] if found else []

    def give(self, *orders: Order) -> Observation:
        """Give it these orders: what it told last."""
        self.executor.give(orders)
        return self.told[-1]

    def seen(self) -> list[tuple[Seen, int]]:
        """What it told, shortened; it is then forgotten."""
        told = [(one.seen, one.generation) for one in self.told]
        self.told.clear()
        return told


class MoveTests(SynchronousTestCase):
    """A domain that runs here, and a host that is to have it."""

    def setUp(self) -> None:
        """Two hosts, and an instance on the first."""
        self.clock = Clock()
        self.shared = SharedDirectory()
        self.here, self.there = Host(self.clock, self.shared), Host(self.clock, self.shared)
        self.here.give(start())
        self.here.told.clear()

    def prepare(self, generation: int = 2) -> Migrate:
        """Both ends made ready: the order to move."""
        described = self.here.give(deed(Depart, generation=generation)).offer
        assert described is not None
        receive = Receive(**ABOUT, generation=generation + 1, name="vm1", described=described.domain, **MACHINE)
        offer = self.there.give(receive).offer
        assert offer is not None
        self.here.told.clear()
        self.there.told.clear()
        return Migrate(**ABOUT, generation=generation + 2, landing=offer.domain, address=offer.address, shared=offer.shared)

    def test_offers(self) -> None:
        """The source describes its domain, the target expects it, and both are told again when they are asked again."""
        for _ in range(2):
            told = self.here.give(deed(Depart))
            self.assertEqual((told.seen, told.done, told.offer), (Seen.RUNNING, True, Offer(domain="vm1")))
            receive = Receive(**ABOUT, generation=3, name="vm1", described="vm1", **MACHINE)
            told = self.there.give(receive)
            self.assertEqual((told.seen, told.done, told.refused), (Seen.EXPECTED, True, ""))
            self.assertEqual(told.offer, Offer(domain="vm1", address="machine 1", shared=True))
        self.assertEqual(self.there.survey(), [])

    def test_moved(self) -> None:
        """The source tells that its domain is gone, the target that it runs, by the generation that announced it."""
        self.here.give(self.prepare())
        self.assertEqual((self.here.told[-1].reason, self.here.seen(), self.there.seen()[-1]), (
            "migrated away", [(Seen.GONE, 4)], (Seen.RUNNING, 3)
        ))  # fmt: skip
        self.assertEqual((self.here.survey(), self.there.survey()), ([], [(Seen.RUNNING, 3)]))

    def test_under_way(self) -> None:
        """While it moves the domain runs here and stands still there; the same order again does not move it twice."""
        order = self.prepare()
        self.here.long_calls.held = True
        self.here.executor.give([order])
        self.here.machine.begin_move(order)
        self.here.executor.give([order])
        self.assertEqual(len(self.here.long_calls.waiting), 1)
        self.assertEqual((self.here.survey(), self.there.survey()), ([(Seen.RUNNING, 2)], [(Seen.PAUSED, 3)]))
        self.here.long_calls.let_go()
        self.assertEqual(([seen for seen, _ in self.here.seen()], self.there.seen()[-1]), ([Seen.GONE], (Seen.RUNNING, 3)))

    def test_refused(self) -> None:
        """A move that fails is told as refused by a source whose domain runs on; of the target nothing stays once it is cleared."""
        order = self.prepare()
        self.there.give(destroy(generation=5))
        told = self.here.give(order)
        self.assertEqual((told.seen, told.generation, told.done), (Seen.RUNNING, 4, True))
        self.assertIn("does not expect it", told.refused)
        self.assertEqual((self.here.survey(), self.there.survey()), ([(Seen.RUNNING, 4)], []))

    def test_its_agent_begins_again(self) -> None:
        """A source whose agent was killed while the domain moved tells that it is gone, or moves it, when it is ordered again."""
        order = self.prepare()
        self.here.long_calls.held = True
        self.here.executor.give([order])
        self.here.machine.begin_move(order)
        self.here.restart()
        self.here.told.clear()
        self.here.give(order)
        self.assertEqual((self.here.seen(), self.there.survey()), ([(Seen.GONE, 4)], [(Seen.RUNNING, 3)]))
        self.here.restart()
        self.assertEqual(self.here.give(order).seen, Seen.MISSING)

    def test_the_target_begins_again(self) -> None:
        """A target whose agent was killed looks at what arrives, and tells it unasked and when it is asked."""
        order = self.prepare()
        self.there.restart()
        self.here.give(order)
        self.assertEqual(self.there.told[-1].seen, Seen.RUNNING)
        told = self.there.give(deed(Look, generation=5))
        self.assertEqual((told.seen, told.generation), (Seen.RUNNING, 5))

    def test_looked_for_in_vain(self) -> None:
        """A host that is asked for what it has not says so; if it arrives afterwards that is told without another question."""
        order = self.prepare()
        for _ in range(2):
            self.assertEqual(self.there.give(deed(Look, generation=5)).seen, Seen.MISSING)
        self.here.give(order)
        self.assertEqual((self.there.told[-1].seen, self.there.told[-1].refused), (Seen.RUNNING, ""))

    def test_destroyed_on_its_way(self) -> None:
        """A destroy ends what is under way, and then the domain; nothing is left at either end."""
        order = self.prepare()
        self.here.long_calls.held = True
        self.here.executor.give([order])
        self.here.machine.begin_move(order)
        self.here.executor.give([destroy(generation=5)])
        self.clock.advance(0)
        self.assertEqual(self.there.survey(), [])
        self.here.long_calls.let_go()
        self.assertEqual((self.here.told[-1].seen, self.here.told[-1].generation), (Seen.GONE, 5))
        self.assertEqual((self.here.machine.domains(CELL), self.there.machine.domains(CELL)), ([], []))

    def test_there_and_back(self) -> None:
        """A domain comes back to a host that had it before and was told to clear it away."""
        self.here.give(self.prepare())
        self.here.give(destroy(generation=5))
        self.here, self.there = self.there, self.here
        self.here.give(self.prepare(6))
        self.assertEqual((self.there.survey(), self.here.survey()), ([(Seen.RUNNING, 7)], []))

    def test_progress(self) -> None:
        """How far it is, is told once for each percent, until it is at its end."""
        order = self.prepare()
        percents = [10, 10, None, 40]
        self.patch(self.here.machine, "progress", lambda cell, domain: percents.pop(0))
        self.here.long_calls.held = True
        self.here.executor.give([order])
        self.clock.pump([1.0] * 4)
        told = [(one.progress, one.seen, one.generation, one.done) for one in self.here.told]
        self.assertEqual(told, [(10, Seen.RUNNING, 4, False), (40, Seen.RUNNING, 4, False)])
        self.here.long_calls.let_go()
        self.clock.pump([1.0] * 3)
        self.assertEqual((self.here.told[-1].seen, self.here.told[-1].progress, percents), (Seen.GONE, None, []))

    def test_libvirt_away(self) -> None:
        """A move whose connection broke is asked for again when libvirt is back: it has moved, once."""
        order = self.prepare()
        self.here.long_calls.held = True
        self.here.executor.give([order])
        self.here.machine.begin_move(order)
        self.here.machine.away = True
        self.here.long_calls.let_go()
        self.here.long_calls.held = self.here.machine.away = False
        self.clock.pump([1.0] * 20)
        self.assertEqual((self.here.told[-1].seen, self.there.survey()), (Seen.GONE, [(Seen.RUNNING, 3)]))


class SuspendTests(SynchronousTestCase):
    """A domain that runs, and the directory where its memory is kept."""

    def setUp(self) -> None:
        """Two hosts with one directory, and an instance on the first."""
        self.shared = SharedDirectory()
        self.here, self.there = (Host(Clock(), self.shared) for _ in range(2))
        self.here.give(start())
        self.here.told.clear()
        self.order = Suspend(**ABOUT, generation=2, saved=SAVED)

    def test_suspended(self) -> None:
        """It is told saved, and again when it is ordered again, by an agent that knows nothing of it, too."""
        for _ in range(2):
            told = self.here.give(self.order)
            self.assertEqual((told.seen, told.generation, told.done, told.refused), (Seen.SAVED, 2, True, ""))
        self.here.restart()
        self.assertEqual(self.here.survey(), [])
        self.assertEqual(self.here.give(self.order).seen, Seen.SAVED)
        self.assertEqual(list(self.shared.saved), [SAVED])

    def test_killed_meanwhile(self) -> None:
        """An agent that begins while libvirt is still saving, and sees the domain end, tells it saved once it is ordered."""
        self.here.restart()
        self.here.machine.do(CELL, self.order)
        self.assertEqual(self.here.seen()[-1][0], Seen.MISSING)
        self.assertEqual(self.here.give(self.order).seen, Seen.SAVED)

    def test_refused(self) -> None:
        """A domain that cannot be saved runs on."""
        self.here.machine.refuses = "no room"
        told = self.here.give(self.order)
        self.assertEqual((told.seen, told.done, told.refused), (Seen.RUNNING, True, "no room"))

    def test_ended_before(self) -> None:
        """One that is not there when it is to be saved is told missing."""
        self.here.machine._domains.clear()
        self.assertEqual(self.here.give(self.order).seen, Seen.MISSING)

    def test_resumed(self) -> None:
        """Another host lets it go on, once: the memory is then used up, and the order repeated finds it running."""
        self.here.give(self.order)
        again = msgspec.structs.replace(start(generation=4), saved=SAVED)
        for _ in range(2):
            self.assertEqual((self.there.give(again).seen, self.shared.saved), (Seen.RUNNING, {}))
        self.there.restart()
        self.assertEqual(self.there.give(again).seen, Seen.RUNNING)

    def test_nothing_to_resume(self) -> None:
        """Where nothing is saved, nothing is started."""
        told = self.there.give(msgspec.structs.replace(start(generation=4), saved=SAVED))
        self.assertEqual((told.seen, "nothing saved" in told.reason, self.there.survey()), (Seen.FAILED, True, []))

    def test_a_resume_that_fails(self) -> None:
        """A resume that fails on one host leaves what is saved for another try."""
        self.here.give(self.order)
        again = msgspec.structs.replace(start(generation=4, image="none.img"), saved=SAVED)
        self.assertEqual((self.there.give(again).seen, list(self.shared.saved)), (Seen.FAILED, [SAVED]))
        self.assertEqual(self.here.give(msgspec.structs.replace(start(generation=6), saved=SAVED)).seen, Seen.RUNNING)
