"""The executor's promises on one clock and the hypervisor in memory: order, repetition, refusal, absence."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tashi.errors import OurFault
from tashi.model.causes import Cause, in_words
from tashi.model.disks import DiskCopy
from tashi.model.instance import Disk, Nic, Resources, domain_uuid
from tashi.model.orders import Adapt, Deed, Destroy, Observation, Pause, PrepareDisks, Reset, Seen, Shutdown, Start, Suspend
from tashi.node.executor import Executor
from tashi.node.fake import FakeHypervisor

CELL = "6f1e2f1c-7b5e-4b57-8a52-0a6b1c8a2a11"


def uuid_of(instance_id: int) -> str:
    """The domain UUID of an instance of the cell."""
    return str(domain_uuid(uuid.UUID(CELL), instance_id))


def start(instance_id: int = 1, generation: int = 1, image: str = "a.img") -> Start:
    """An order to start."""
    return Start(
        instance_id=instance_id, generation=generation, name=f"vm{instance_id}", uuid=uuid_of(instance_id), cores=1, memory=64,
        disks=(Disk(uri=image),),
    )  # fmt: skip


def destroy(instance_id: int = 1, generation: int = 2) -> Destroy:
    """An order to destroy."""
    return Destroy(instance_id=instance_id, generation=generation, uuid=uuid_of(instance_id))


def deed(kind: type[Deed], instance_id: int = 1, generation: int = 2) -> Any:
    """An order about a domain that runs."""
    return kind(instance_id=instance_id, generation=generation, uuid=uuid_of(instance_id))


class UnmarkedHypervisor(FakeHypervisor):
    """A host with instance 1, from whose domain somebody removes the mark."""

    lost = False

    def domains(self, cell: str) -> Sequence[Observation]:
        """See IHypervisor."""
        return [self._doubt()] if self.lost else super().domains(cell)

    def settle(self, cell: str, domain_uuid: str, generation: int, cause: Cause | None = None, incarnation: str = "") -> Observation | None:
        """See IHypervisor."""
        if self.lost:
            return msgspec.structs.replace(self._doubt(), generation=generation, incarnation=incarnation)
        return super().settle(cell, domain_uuid, generation, cause, incarnation)

    def _doubt(self) -> Observation:
        return Observation(instance_id=1, generation=0, seen=Seen.MISSING, cause=Cause.UNMARKED, reason=in_words(Cause.UNMARKED))


class Calls:
    """Stands for the threads: calls run at once, or wait until they are let go."""

    def __init__(self) -> None:
        self.held = False
        self.waiting: list[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = []

    def run(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """As `Threads.run`."""
        if not self.held:
            return maybeDeferred(function, *arguments)
        result: Deferred[Any] = Deferred()
        self.waiting.append((result, function, arguments))
        return result

    def let_go(self, count: int | None = None) -> None:
        """Make the calls that wait, the first ``count`` of them or all."""
        waiting, self.waiting = self.waiting[:count], self.waiting[count:] if count is not None else []
        for result, function, arguments in waiting:
            maybeDeferred(function, *arguments).chainDeferred(result)


class ExecutorCase(SynchronousTestCase):
    """One host of the cell."""

    def setUp(self) -> None:
        """A host with one image, and what it tells."""
        self.clock = Clock()
        self.calls = Calls()
        self.told: list[Observation] = []
        self.host = FakeHypervisor(images=["a.img"])
        self.executor = self.an_executor()

    def an_executor(self) -> Executor:
        """An executor that knows nothing yet, as after a start of the agent."""
        executor = Executor(self.host, self.calls.run, self.clock, self.told.append)
        executor.enter(CELL)
        self.host.watch(executor.notice)
        return executor

    def seen(self) -> list[tuple[int, int, Seen]]:
        """What was told, shortened; it is then forgotten."""
        told = [(seen.instance_id, seen.generation, seen.seen) for seen in self.told]
        self.told.clear()
        return told


class ExecutorTests(ExecutorCase):
    """Orders that begin and end domains."""

    def test_start_and_destroy(self) -> None:
        """A started instance is told running, a destroyed one gone, each once."""
        self.executor.give([start()])
        self.assertEqual(self.seen(), [(1, 1, Seen.RUNNING)])
        self.executor.give([destroy()])
        self.assertEqual(self.seen(), [(1, 2, Seen.GONE)])

    def test_addresses(self) -> None:
        """What is learnt of an instance's cards is told with it, at once and later, each news once."""
        nics = (Nic(network=3, mac="52:54:00:00:00:01", ip="10.0.0.7"),)
        self.executor.learn(1, nics)
        self.executor.give([start()])
        self.assertEqual(self.told[-1].nics, nics)
        self.executor.learn(1, nics)
        self.assertEqual(len(self.told), 1)
        other = (msgspec.structs.replace(nics[0], ip="10.0.0.8"),)
        self.executor.learn(1, other)
        self.assertEqual([observation.nics for observation in self.told], [nics, other])
        self.host.change(uuid_of(1), Seen.PAUSED)
        self.assertEqual((self.told[-1].seen, self.told[-1].nics), (Seen.PAUSED, other))

    def test_addresses_of_a_new_domain(self) -> None:
        """What was learnt ends with the domain."""
        self.executor.give([start()])
        self.executor.learn(1, (Nic(mac="52:54:00:00:00:01", ip="10.0.0.7"),))
        self.executor.give([destroy(), start(generation=3)])
        self.assertEqual((self.told[-1].generation, self.told[-1].nics), (3, ()))
        self.executor.learn(2, (Nic(mac="52:54:00:00:00:02", ip="10.0.0.8"),))
        self.assertEqual(self.told[-1].instance_id, 1)

    def test_addresses_after_a_deed(self) -> None:
        """They are told beside the outcome of a deed, and do not undo it."""
        self.executor.give([start(), deed(Reset)])
        self.executor.learn(1, (Nic(mac="52:54:00:00:00:01", ip="10.0.0.7"),))
        self.assertEqual((self.told[-1].done, self.told[-1].generation, self.told[-1].nics[0].ip), (True, 2, "10.0.0.7"))

    def test_failure(self) -> None:
        """A start that fails is told with the reason."""
        self.executor.give([start(image="none.img")])
        self.assertIn("none.img", self.told[0].reason)
        self.assertEqual(self.seen(), [(1, 1, Seen.FAILED)])

    def test_repeated_start(self) -> None:
        """An order that comes twice starts nothing twice, and is answered twice."""
        self.executor.give([start()])
        self.executor.give([start()])
        self.assertEqual(self.seen(), [(1, 1, Seen.RUNNING)] * 2)
        self.assertEqual(self.host.begun.count("start 1"), 1)

    def test_repeated_while_under_way(self) -> None:
        """An order that comes again while it is carried out is answered by its outcome."""
        self.calls.held = True
        self.executor.give([start(), start()])
        self.executor.give([start()])
        self.calls.let_go()
        self.assertEqual(self.seen(), [(1, 1, Seen.RUNNING)])
        self.assertEqual(self.host.begun, ["start 1"])

    def test_ended_is_not_restarted(self) -> None:
        """The order of an instance that ran and ended does not start it again."""
        self.executor.give([start()])
        self.host.change(uuid_of(1), Seen.GONE, Cause.CRASHED)
        self.assertEqual(self.told[-1].reason, "crashed")
        self.seen()
        self.executor.give([start()])
        self.assertEqual(self.seen(), [(1, 1, Seen.GONE)])
        self.assertEqual(self.host.begun.count("start 1"), 1)

    def test_old_order(self) -> None:
        """An order older than what is known is refused."""
        self.executor.give([start(generation=3), destroy(generation=4), start(generation=3), start(generation=4)])
        self.assertEqual(self.seen(), [(1, 3, Seen.RUNNING), (1, 4, Seen.GONE)])

    def test_newer_start(self) -> None:
        """A newer start of a running instance is answered with its generation."""
        self.executor.give([start(), start(generation=2)])
        self.assertEqual(self.seen(), [(1, 1, Seen.RUNNING), (1, 2, Seen.RUNNING)])

    def test_one_after_another(self) -> None:
        """The second order of an instance waits for the first; another instance does not."""
        self.calls.held = True
        self.executor.give([start(1), destroy(1), start(2)])
        self.assertEqual(len(self.calls.waiting), 2)
        self.calls.let_go()
        self.assertEqual(self.host.begun, ["start 1", "start 2"])
        self.calls.let_go()
        self.assertEqual(self.host.begun, ["start 1", "start 2", "destroy"])
        self.assertEqual(self.seen(), [(2, 1, Seen.RUNNING), (1, 2, Seen.GONE)])

    def test_overtaken(self) -> None:
        """An order that still waits when a newer one comes is never begun."""
        self.calls.held = True
        self.executor.give([start(1), start(1, 2), destroy(1, 3)])
        self.calls.let_go()
        self.calls.let_go()
        self.assertEqual(self.host.begun, ["start 1", "destroy"])

    def test_pause_and_end_are_told(self) -> None:
        """What happens to a domain by itself is told."""
        self.executor.give([start()])
        self.host.change(uuid_of(1), Seen.PAUSED)
        self.host.change(uuid_of(1), Seen.RUNNING)
        self.host.change(uuid_of(1), Seen.GONE, Cause.SHUT_DOWN)
        self.assertEqual([seen for _, _, seen in self.seen()], [Seen.RUNNING, Seen.PAUSED, Seen.RUNNING, Seen.GONE])

    def test_survey_after_restart(self) -> None:
        """A new executor knows the domains by their marks: it lists them, repeats no start and clears away what ended."""
        self.executor.give([start(1, 5), start(2, 6)])
        self.executor.stop()
        self.host.change(uuid_of(2), Seen.GONE, Cause.CRASHED)
        self.seen()
        executor = self.an_executor()
        listed = self.successResultOf(Deferred.fromCoroutine(executor.survey()))
        self.assertEqual({(seen.instance_id, seen.generation, seen.seen) for seen in listed}, {(1, 5, Seen.RUNNING), (2, 6, Seen.GONE)})
        self.assertEqual(self.told[-1].reason, "crashed")
        executor.give([start(1, 5), start(1, 4), start(2, 6)])
        self.assertNotIn("start 1", self.host.begun[2:])
        self.assertEqual([(seen.instance_id, seen.generation, seen.seen) for seen in self.host.domains(CELL)], [(1, 5, Seen.RUNNING)])

    def test_survey_and_a_start_meanwhile(self) -> None:
        """An instance that was started while the list was made is on it."""
        self.calls.held = True
        survey = Deferred.fromCoroutine(self.executor.survey())
        result, function, arguments = self.calls.waiting.pop()
        empty = function(*arguments)
        self.calls.held = False
        self.executor.give([start()])
        result.callback(empty)
        self.assertEqual([seen.instance_id for seen in self.successResultOf(survey)], [1])

    def test_never_begun(self) -> None:
        """A domain that an agent left half made is cleared away without a word, and its order starts it."""
        listeners, self.host._listeners = self.host._listeners, []  # this agent was not there yet
        self.host.start(CELL, start())
        self.host.change(uuid_of(1), Seen.GONE)
        self.host._listeners = listeners
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.executor.survey())), [])
        self.assertEqual(self.seen(), [])
        self.executor.give([start()])
        self.assertEqual(self.seen(), [(1, 1, Seen.RUNNING)])

    def test_a_domain_that_nobody_ordered(self) -> None:
        """H1: a domain of the cell that appears here, as by a migration by hand, is told at once; another cell's is not."""
        self.host.start("0c9a0f0e-1111-4222-8333-444455556666", start(2))
        self.host.start(CELL, msgspec.structs.replace(start(1, 5), incarnation="a" * 32))
        (told,) = self.told
        self.assertEqual((told.instance_id, told.generation, told.incarnation, told.seen), (1, 5, "a" * 32, Seen.RUNNING))
        self.assertIsNotNone(told.domain)

    def test_two_incarnations_of_one_id(self) -> None:
        """O1: orders about one incarnation are answered for it alone, and the domain of the other one stays what it is."""
        theirs, ours = (msgspec.structs.replace(start(1, age), incarnation=mark * 32) for age, mark in ((5, "a"), (1, "b")))
        self.executor.give([theirs])
        self.executor.give([ours])
        self.executor.give([msgspec.structs.replace(destroy(1, 2), incarnation="b" * 32)])
        told = [(seen.incarnation[0], seen.generation, seen.seen) for seen in self.told]
        self.assertEqual(told, [("a", 5, Seen.RUNNING), ("b", 1, Seen.FAILED), ("b", 2, Seen.GONE)])
        listed = self.successResultOf(Deferred.fromCoroutine(self.executor.survey()))
        self.assertEqual([(seen.incarnation[0], seen.seen) for seen in listed if seen.seen is Seen.RUNNING], [("a", Seen.RUNNING)])

    def test_vanished(self) -> None:
        """An instance that is no longer there when everything is listed is told missing: nobody saw it end."""
        self.executor.give([start()])
        self.host._domains.clear()
        listed = self.successResultOf(Deferred.fromCoroutine(self.executor.survey()))
        self.assertNotIn(Seen.RUNNING, [seen.seen for seen in listed])
        self.assertEqual(self.seen(), [(1, 1, Seen.RUNNING), (1, 1, Seen.MISSING)])

    def test_h1_a_domain_that_lost_its_mark(self) -> None:
        """H1: a domain that lives without its mark is listed, for the incarnation that is known to have it, and told once."""
        host = self.host = UnmarkedHypervisor(images=["a.img"])
        self.executor = self.an_executor()
        self.executor.give([msgspec.structs.replace(start(), incarnation="a" * 32)])
        host.lost = True
        for executor, incarnation in ((self.executor, "a" * 32), (self.an_executor(), "")):
            self.told.clear()
            for _ in range(2):
                listed = self.successResultOf(Deferred.fromCoroutine(executor.survey()))
                found = [(seen.incarnation, seen.seen, seen.cause) for seen in listed]
                self.assertEqual(found, [(incarnation, Seen.MISSING, Cause.UNMARKED)])
            self.assertEqual([(seen.incarnation, seen.cause) for seen in self.told], [(incarnation, Cause.UNMARKED)])

    def test_hypervisor_away(self) -> None:
        """While libvirt is away no order fails; afterwards the newest of each instance is carried out."""
        self.executor.give([start(1)])
        self.host.vanish()
        self.executor.give([start(2), start(3), destroy(3)])
        self.clock.pump([1.0] * 60)
        self.assertEqual(self.seen(), [(1, 1, Seen.RUNNING)])
        self.host.away = False
        self.clock.pump([1.0] * 20)
        self.assertEqual(set(self.seen()), {(2, 1, Seen.RUNNING), (3, 2, Seen.GONE)})
        self.flushLoggedErrors(OurFault)

    def test_away_in_the_middle(self) -> None:
        """A start whose connection broke is asked for again, and its domain is not started twice."""
        self.calls.held = True
        self.executor.give([start(1)])
        self.host.away = True
        self.calls.let_go()
        self.calls.held = self.host.away = False
        self.clock.pump([1.0] * 20)
        self.assertEqual(self.seen(), [(1, 1, Seen.RUNNING)])
        self.assertEqual(len(self.host.domains(CELL)), 1)

    def test_failed_destroy_is_tried_again_after_its_domain_was_seen(self) -> None:
        """A destroy that failed is carried out when it is asked for again, also when the domain was listed or moved away by hand since."""
        for number, (seen, cause) in enumerate([(Seen.PAUSED, Cause.IO_ERROR), (Seen.GONE, Cause.MIGRATED_AWAY)], 1):
            self.executor.give([start(number)])
            works, self.host.destroy = self.host.destroy, self.refuse  # type: ignore[method-assign]
            self.executor.give([destroy(number)])
            self.successResultOf(Deferred.fromCoroutine(self.executor.survey()))
            self.host.change(uuid_of(number), seen, cause)
            self.host.destroy = works  # type: ignore[method-assign]
            self.executor.give([destroy(number)])
            self.assertEqual((self.told[-1].seen, self.told[-1].reason), (Seen.GONE, "destroyed"))
            self.assertEqual(self.host.domains(CELL), [])

    def test_failed_destroy_is_tried_again(self) -> None:
        """A destroy that failed is carried out when it is asked for again."""
        self.executor.give([start()])
        works, self.host.destroy = self.host.destroy, self.refuse  # type: ignore[method-assign]
        self.executor.give([destroy()])
        self.host.destroy = works  # type: ignore[method-assign]
        self.executor.give([destroy()])
        self.assertEqual(self.seen(), [(1, 1, Seen.RUNNING), (1, 2, Seen.FAILED), (1, 2, Seen.GONE)])

    def test_a_suspension_without_the_share_is_asked_again(self) -> None:
        """Where the domain is gone and its saved memory cannot be seen no end is told, and the order is tried again when it is repeated."""
        order = Suspend(instance_id=1, generation=2, uuid=uuid_of(1), saved="s")
        self.executor.give([start(), order])
        again = self.an_executor()  # an agent that was killed meanwhile
        works, self.host.do = self.host.do, self.refuse_deed  # type: ignore[method-assign]
        again.give([order])
        self.assertEqual((self.told[-1].seen, self.told[-1].done), (Seen.MISSING, True))
        self.host.do = works  # type: ignore[method-assign]
        again.give([order])
        self.assertEqual((self.told[-1].seen, self.told[-1].done), (Seen.SAVED, True))

    def test_a_fault_of_ours(self) -> None:
        """A mistake in the program fails the order and is logged; the next order is carried out."""
        works, self.host.start = self.host.start, self.stumble  # type: ignore[method-assign]
        self.executor.give([start()])
        self.host.start = works  # type: ignore[method-assign]
        self.executor.give([start(generation=2)])
        self.assertEqual(self.seen(), [(1, 1, Seen.FAILED), (1, 2, Seen.RUNNING)])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_fault_of_ours_after_the_start(self) -> None:
        """A mistake made when the domain runs already is not told as a failed start, which another host would repeat."""
        works = self.host.start

        def start_and_stumble(cell: str, order: Start) -> Observation:
            works(cell, order)
            raise ZeroDivisionError

        self.host.start = start_and_stumble  # type: ignore[method-assign]
        self.executor.give([start()])
        self.assertEqual(self.seen(), [(1, 1, Seen.RUNNING)])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_another_cell(self) -> None:
        """What belongs to the former cell is not spoken of in the new one."""
        self.executor.give([start()])
        self.executor.enter("0c9a0f0e-1111-4222-8333-444455556666")
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.executor.survey())), [])

    def test_time(self) -> None:
        """An observation carries the host's time."""
        self.clock.advance(12.5)
        self.executor.give([start()])
        self.assertEqual(self.told, [msgspec.structs.replace(self.told[0], at=12.5)])

    def refuse_deed(self, cell: str, order: Deed) -> None:
        """A deed that cannot be done."""
        raise OurFault("internal", "the share is away")

    def refuse(
        self, cell: str, domain: str, generation: int, copies: Sequence[str], saved: str, incarnation: str
    ) -> None:
        """A destroy that libvirt refuses."""
        raise OurFault("internal", "Device or resource busy")

    def stumble(self, cell: str, order: Start) -> Observation:
        """A start with a mistake in it."""
        raise ZeroDivisionError


class DeedTests(ExecutorCase):
    """Deeds on domains that run."""

    def begin(self) -> None:
        """One domain that runs, told."""
        self.executor.give([start()])
        self.told.clear()

    def sight(self, what: Seen, generation: int = 2, **fields: Any) -> Observation:
        """An observation of the domain."""
        return Observation(instance_id=1, generation=generation, seen=what, **fields)

    def test_done(self) -> None:
        """A deed is told with what is seen after it, and repeated it is not done again."""
        self.begin()
        for _ in range(2):
            self.executor.give([deed(Pause)])
        paused = self.sight(Seen.PAUSED, done=True, cause=Cause.ADMINISTRATOR, reason=in_words(Cause.ADMINISTRATOR))
        self.assertEqual(self.told, [paused] * 2)
        self.assertEqual(self.host.begun.count("pause 1"), 1)

    def test_refused(self) -> None:
        """A deed that cannot be done is told as refused, and the end of its domain is told afterwards."""
        self.begin()
        self.host.refuses = "no"
        self.executor.give([deed(Pause)])
        self.assertEqual(self.told, [self.sight(Seen.RUNNING, done=True, refused="no")])
        self.host.change(uuid_of(1), Seen.GONE, Cause.CRASHED)
        self.assertEqual((self.told[-1].seen, self.told[-1].reason, self.told[-1].generation), (Seen.GONE, "crashed", 2))

    def test_adapted(self) -> None:
        """What the hypervisor has after an adaptation is told, and stays part of what is told until the next order."""
        self.begin()
        wished = Resources(net_down=801)
        self.executor.give([Adapt(instance_id=1, generation=2, uuid=uuid_of(1), wished=wished)])
        self.assertEqual(self.told, [self.sight(Seen.RUNNING, done=True, adapted=Resources(net_down=808))])
        self.host.change(uuid_of(1), Seen.PAUSED)
        self.assertEqual(self.told[-1], self.sight(Seen.PAUSED, done=True, adapted=Resources(net_down=808)))

    def test_our_fault(self) -> None:
        """A deed that stumbles over a fault of ours is told as refused, and what is seen of its domain with it."""
        self.begin()
        self.patch(self.host, "do", lambda cell, deed: 1 / 0)
        self.executor.give([deed(Pause)])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        (told,) = self.told
        self.assertEqual((told.seen, told.done, "agent failed" in told.refused), (Seen.RUNNING, True, True))

    def test_domain_gone(self) -> None:
        """A deed on a domain that is not there is answered with that."""
        self.begin()
        self.host._domains.clear()
        self.executor.give([deed(Pause)])
        self.assertEqual([(told.seen, told.generation) for told in self.told], [(Seen.MISSING, 2)])

    def test_shutdown(self) -> None:
        """A guest that shuts down at once is told gone, once."""
        self.begin()
        self.executor.give([deed(Shutdown)])
        self.assertEqual([(told.seen, told.cause) for told in self.told], [(Seen.GONE, Cause.SHUT_DOWN)])

    def test_after_restart(self) -> None:
        """An agent that starts does a deed it did not do itself, but a reset that was done is not done twice."""
        self.begin()
        self.host.do(CELL, deed(Reset))
        self.executor = self.an_executor()
        self.successResultOf(Deferred.fromCoroutine(self.executor.survey()))
        self.executor.give([deed(Reset)])
        self.assertEqual(self.host.resets, 1)
        self.assertEqual(self.told[-1], self.sight(Seen.RUNNING, done=True))
        self.executor.give([deed(Reset, generation=3)])
        self.assertEqual(self.host.resets, 2)

    def test_a_destroy_takes_what_a_move_has_left(self) -> None:
        """H7: disks that belong to no host, since a move ended with its source, are taken by the Destroy that says so, and no other."""
        self.begin()
        self.host.begun.clear()
        self.executor.give([Destroy(instance_id=1, generation=3, uuid=uuid_of(1), unused_below=2)])
        self.assertEqual((self.host.begun, self.told[-1].seen), (["look 1", "destroy"], Seen.GONE))

    def test_an_order_during_a_look(self) -> None:
        """A13: a Suspend that comes while its domain is only looked at is carried out, and its outcome is told."""
        self.begin()
        self.host.do(CELL, deed(Reset))  # by an agent before this one, which had the order already
        self.host._listeners.clear()
        self.executor = self.an_executor()
        self.successResultOf(Deferred.fromCoroutine(self.executor.survey()))
        self.told.clear()
        self.calls.held = True
        suspend = Suspend(instance_id=1, generation=2, uuid=uuid_of(1), saved="suspend/1_vm1")
        self.host.do(CELL, suspend)  # by libvirt, which the killed agent had asked
        self.executor.give([suspend])
        self.calls.let_go()
        self.calls.let_go()
        self.assertEqual([(told.seen, told.done) for told in self.told], [(Seen.SAVED, True)])

    def test_outcome_without_a_domain(self) -> None:
        """A Suspend that finds neither a domain nor its memory is told as done: the domain is missing."""
        self.begin()
        self.host._domains.clear()
        self.executor.give([Suspend(instance_id=1, generation=2, uuid=uuid_of(1), saved="suspend/1_vm1")])
        self.assertEqual([(told.seen, told.generation, told.done) for told in self.told], [(Seen.MISSING, 2, True)])

    def test_away(self) -> None:
        """A deed waits until libvirt is back."""
        self.begin()
        self.host.vanish()
        self.executor.give([deed(Pause)])
        self.assertEqual(self.told, [])
        self.host.away = False
        self.clock.pump([1.0] * 12)
        self.assertEqual(self.told[-1].seen, Seen.PAUSED)

    def test_newer_order(self) -> None:
        """A destroy overtakes a deed that waits."""
        self.begin()
        self.calls.held = True
        self.executor.give([deed(Reset, generation=2), deed(Pause, generation=3), destroy(generation=4)])
        while self.calls.waiting:
            self.calls.let_go()
        self.assertEqual((self.told[-1].seen, self.told[-1].generation), (Seen.GONE, 4))
        self.assertNotIn("pause 1", self.host.begun)


class DiskTests(ExecutorCase):
    """Disks that are copied before there is a domain."""

    def copies(self, template: str = "a.img", generation: int = 1) -> PrepareDisks:
        """An order to copy an image."""
        copy = DiskCopy(template=template, name="disk-1-vm1-0.img")
        return PrepareDisks(instance_id=1, generation=generation, uuid=uuid_of(1), copies=(copy,))

    def test_ready(self) -> None:
        """Disks that are there are told ready, again as often as it is asked, and the domain can be started with them."""
        self.executor.give([self.copies()])
        self.executor.give([self.copies()])
        self.assertEqual(self.seen(), [(1, 1, Seen.READY)] * 2)
        self.executor.give([start(generation=2, image="disk-1-vm1-0.img")])
        self.assertEqual(self.seen(), [(1, 2, Seen.RUNNING)])

    def test_after_a_restart(self) -> None:
        """An agent that knows nothing of the order carries it out when it comes again."""
        self.executor.give([self.copies()])
        self.executor = self.an_executor()
        self.executor.give([self.copies()])
        self.assertEqual(self.seen(), [(1, 1, Seen.READY)] * 2)

    def test_failure(self) -> None:
        """A copy that cannot be made is told with the reason; the next order is another matter."""
        self.executor.give([self.copies("none.img")])
        self.assertIn("none.img", self.told[0].reason)
        self.executor.give([self.copies(generation=2)])
        self.assertEqual(self.seen(), [(1, 1, Seen.FAILED), (1, 2, Seen.READY)])

    def test_progress(self) -> None:
        """While disks are copied it is told every two seconds how far they are, and that is told to be nothing else."""
        self.executor.give([self.copies("none.img")])
        self.calls.held = True
        self.executor.give([self.copies(generation=2)])
        (copying,) = self.calls.waiting
        self.calls.waiting, self.calls.held = [], False
        for percent in (10, 10, 20):
            self.host.percent = percent
            self.clock.advance(2.0)
        told = [(each.seen, each.generation, each.progress) for each in self.told if each.progress is not None]
        self.assertEqual(told, [(Seen.EXPECTED, 2, 10), (Seen.EXPECTED, 2, 20)])
        self.calls.waiting = [copying]
        self.calls.let_go()
        self.host.percent = 30
        self.clock.advance(5.0)
        self.assertEqual(self.told[-1].seen, Seen.READY)

    def test_destroy_while_copying(self) -> None:
        """What is copied for an instance that is to be destroyed is given up, and said so again until it ends."""
        self.calls.held = True
        self.executor.give([self.copies()])
        (copying,) = self.calls.waiting
        self.calls.waiting, self.calls.held = [], False
        self.executor.give([destroy()])
        self.clock.pump([2.0, 2.0])
        self.assertEqual(self.host.begun, ["abort"] * 3)
        self.assertEqual(self.told, [])
        self.calls.waiting = [copying]
        self.calls.let_go()
        self.assertEqual(self.seen(), [(1, 2, Seen.GONE)])
