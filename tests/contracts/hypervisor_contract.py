"""What every `IHypervisor` keeps: mixed into a TestCase that says how to make one and how to disturb its domains."""

from __future__ import annotations

import queue
import uuid
from typing import Any, cast

import msgspec

from tashi.errors import OurFault
from tashi.interfaces import IHypervisor
from tashi.model.causes import Cause
from tashi.model.disks import DiskCopy
from tashi.model.instance import Disk, Resources, domain_uuid
from tashi.model.orders import Adapt, Deed, Observation, Pause, PrepareDisks, Reset, Seen, Start, Unpause
from tashi.model.stray import DomainSummary

CELL = "6f1e2f1c-7b5e-4b57-8a52-0a6b1c8a2a11"
OTHER_CELL = "0c9a0f0e-1111-4222-8333-444455556666"
PATIENCE = 20.0


def an_order(instance_id: int = 7, generation: int = 3, cell: str = CELL, **changes: Any) -> Start:
    """A Start order for a machine that the host surely has room for."""
    values: dict[str, Any] = {
        "instance_id": instance_id,
        "generation": generation,
        "name": f"vm{instance_id}",
        "uuid": str(domain_uuid(uuid.UUID(cell), instance_id)),
        "cores": 1,
        "memory": 32,
        "disks": (Disk(uri="boot.img"),),
    }
    return Start(**(values | changes))


def a_deed(kind: type[Deed], instance_id: int = 7, generation: int = 4, cell: str = CELL, **changes: Any) -> Any:
    """An order about the domain of `an_order`, by default the next one."""
    return kind(instance_id=instance_id, generation=generation, uuid=str(domain_uuid(uuid.UUID(cell), instance_id)), **changes)


COPIED = (Disk(uri="disk-7-vm7-0.img", persistent=True, template="boot.img"),)


def an_order_to_copy(*templates: str) -> PrepareDisks:
    """An order to copy images for the domain of `an_order`."""
    names = templates or ("boot.img",)
    copies = tuple(DiskCopy(template=name, name=f"disk-7-vm7-{place}.img") for place, name in enumerate(names))
    return PrepareDisks(instance_id=7, generation=2, uuid=an_order().uuid, copies=copies)


def without_size(seen: Observation | None) -> Observation:
    """What was seen, but for the size of the domain."""
    assert seen is not None
    return msgspec.structs.replace(seen, domain=None)


class HypervisorContract:
    """The promises of `tashi.interfaces.IHypervisor`; ``boot.img`` is an image of the host."""

    hypervisor: IHypervisor
    keeps_what_has_ended = True
    """Whether a domain that has ended is known until somebody clears it away."""

    def end(self, domain: str) -> Cause:
        """Let the domain end by itself; how it ended."""
        raise NotImplementedError

    def pause(self, domain: str) -> None:
        """Let the domain stand still, without the hypervisor's doing."""
        raise NotImplementedError

    def save(self, domain: str) -> None:
        """Let the host save the domain, as it does when it shuts down."""
        raise NotImplementedError

    def listed(self, cell: str = CELL) -> dict[int, Observation]:
        """What is seen now, by instance."""
        return {seen.instance_id: without_size(seen) for seen in self.hypervisor.domains(cell)}

    def test_facts(self) -> None:
        """A host has memory, cores and a version."""
        facts = self.hypervisor.facts()
        assert facts.memory > 0 and facts.cores > 0 and facts.version and facts.hypervisor

    def test_identity(self) -> None:
        """A machine says each time alike which one it is, by which libvirt, and which boot of it."""
        identity = self.hypervisor.identity()
        assert identity == self.hypervisor.identity()
        assert identity.host_uuid and identity.uri and identity.boot_id and identity.boot.endswith(identity.boot_id)

    def test_start(self) -> None:
        """A started domain runs and answers to its order."""
        order = an_order()
        started = self.hypervisor.start(CELL, order)
        assert (started.instance_id, started.generation, started.seen) == (7, 3, Seen.RUNNING)
        assert self.listed() == {7: Observation(instance_id=7, generation=3, seen=Seen.RUNNING)}
        assert without_size(self.hypervisor.settle(CELL, order.uuid, order.generation)) == self.listed()[7]

    def test_size(self) -> None:
        """O1: a domain that is listed, or looked at without a word of its order, tells its size, its name and its owner."""
        order = an_order(incarnation="a" * 32, user_id=1000)
        self.hypervisor.start(CELL, order)
        (listed,) = self.hypervisor.domains(CELL)
        assert listed.domain == DomainSummary(name="vm7", user_id=1000, cores=1, memory=32)
        assert self.hypervisor.look(CELL, order.uuid) == listed
        assert self.hypervisor.look(OTHER_CELL, order.uuid) is None
        assert self.hypervisor.look(CELL, an_order(8).uuid) is None

    def test_start_again(self) -> None:
        """A domain that runs is not started again, but answers to the newer order."""
        self.hypervisor.start(CELL, an_order())
        again = self.hypervisor.start(CELL, an_order(generation=5))
        assert (again.generation, again.seen) == (5, Seen.RUNNING)
        assert self.listed()[7].generation == 5

    def test_start_of_what_has_ended(self) -> None:
        """A13: a Start that comes again after its domain has run and ended says how it ended, and starts nothing."""
        order = an_order()
        self.hypervisor.start(CELL, order)
        how = self.end(order.uuid)
        if not self.keeps_what_has_ended:
            return
        ended = self.hypervisor.start(CELL, order)
        assert (ended.generation, ended.seen, ended.reason) == (3, Seen.GONE, how)
        assert self.listed() == {}
        assert self.hypervisor.start(CELL, an_order(generation=4)).seen is Seen.RUNNING

    def test_destroy(self) -> None:
        """A destroyed domain is gone; destroying it again does no harm, and it can be started anew."""
        order = an_order()
        self.hypervisor.start(CELL, order)
        self.hypervisor.destroy(CELL, order.uuid, order.generation)
        self.hypervisor.destroy(CELL, order.uuid, order.generation)
        assert self.listed() == {}
        assert self.hypervisor.settle(CELL, order.uuid, order.generation) is None
        assert self.hypervisor.start(CELL, order).seen is Seen.RUNNING

    def test_missing_image(self) -> None:
        """A start without its image fails in words and leaves nothing behind."""
        order = an_order(disks=(Disk(uri="boot.img"), Disk(uri="missing.img")))
        try:
            self.hypervisor.start(CELL, order)
        except OurFault as fault:
            assert "missing.img" in fault.message
        else:
            raise AssertionError("it was started")
        assert self.listed() == {}
        assert self.hypervisor.settle(CELL, order.uuid, order.generation) is None

    def test_copies(self) -> None:
        """Disks are copied once, and a domain is started with its copies; it has used them, so they are not given up with it."""
        copies = an_order_to_copy()
        for _ in range(2):
            self.hypervisor.prepare_disks(CELL, copies)
        self.hypervisor.start(CELL, an_order(disks=COPIED))
        self.hypervisor.destroy(CELL, copies.uuid, copies.generation + 2, [copy.name for copy in copies.copies])
        self.hypervisor.start(CELL, an_order(8, disks=(Disk(uri="disk-7-vm7-0.img", persistent=True),)))
        assert list(self.listed()) == [8]
        (listed,) = self.hypervisor.domains(CELL)
        assert listed.domain is not None and listed.domain.disks == ("disk-7-vm7-0.img",)

    def test_unused_copies(self) -> None:
        """A copy that was made for a domain which has never run goes when it is destroyed, and when its start fails."""
        copies = an_order_to_copy()
        self.hypervisor.prepare_disks(CELL, copies)
        self.hypervisor.destroy(CELL, copies.uuid, copies.generation + 2, [copy.name for copy in copies.copies])
        self._does_not_start(an_order(disks=COPIED), "disk-7-vm7-0.img")
        self.hypervisor.prepare_disks(CELL, copies)
        self._does_not_start(an_order(disks=(*COPIED, Disk(uri="missing.img"))), "missing.img")
        self._does_not_start(an_order(disks=COPIED), "disk-7-vm7-0.img")

    def test_a_copy_of_nothing(self) -> None:
        """Without its template there is no copy, and none of the others that were asked for with it."""
        two = an_order_to_copy("boot.img", "missing.img")
        try:
            self.hypervisor.prepare_disks(CELL, two)
        except OurFault as fault:
            assert "missing.img" in fault.message
        else:
            raise AssertionError("it was copied")
        self._does_not_start(an_order(disks=COPIED), "disk-7-vm7-0.img")

    def test_nothing_takes_long(self) -> None:
        """What is not under way is at no percentage."""
        order = an_order()
        self.hypervisor.start(CELL, order)
        assert self.hypervisor.progress(CELL, order.uuid) is None

    def _does_not_start(self, order: Start, word: str) -> None:
        try:
            self.hypervisor.start(CELL, order)
        except OurFault as fault:
            assert word in fault.message
        else:
            raise AssertionError("it was started")
        assert self.listed() == {}

    def test_cells_apart(self) -> None:
        """A domain of another cell is not seen, not settled and not destroyed."""
        order = an_order(cell=OTHER_CELL)
        self.hypervisor.start(OTHER_CELL, order)
        assert self.listed() == {}
        assert self.hypervisor.settle(CELL, order.uuid, order.generation) is None
        for deed in (lambda: self.hypervisor.destroy(CELL, order.uuid, order.generation), lambda: self.hypervisor.start(CELL, order)):
            try:
                deed()
            except OurFault as fault:
                assert "left alone" in fault.message
            else:
                raise AssertionError("it was touched")
        assert list(self.listed(OTHER_CELL)) == [7]

    def test_incarnations_apart(self) -> None:
        """O1: an order never touches the domain of another incarnation, which is listed with its own; a destroy ends as done."""
        theirs, ours = an_order(incarnation="a" * 32), an_order(incarnation="b" * 32)
        self.hypervisor.start(CELL, theirs)
        for call in (
            lambda: self.hypervisor.start(CELL, ours),
            lambda: self.hypervisor.start(CELL, an_order()),
            lambda: self.hypervisor.do(CELL, a_deed(Pause, incarnation="b" * 32)),
        ):
            try:
                call()
            except OurFault as fault:
                assert "another instance" in fault.message and "left alone" in fault.message
            else:
                raise AssertionError("it was touched")
        self.hypervisor.destroy(CELL, ours.uuid, 3, incarnation="b" * 32)
        assert self.hypervisor.settle(CELL, ours.uuid, 3, incarnation="b" * 32) is None
        seen = Observation(instance_id=7, generation=3, incarnation="a" * 32, seen=Seen.RUNNING)
        assert self.listed() == {7: seen} == {7: without_size(self.hypervisor.settle(CELL, ours.uuid, 3, incarnation="a" * 32))}
        self.hypervisor.destroy(CELL, ours.uuid, 3, incarnation="a" * 32)
        assert self.listed() == {}

    def test_a_domain_without_incarnation(self) -> None:
        """A domain that an older version made belongs to a record without an incarnation, and to no other."""
        self.hypervisor.start(CELL, an_order())
        assert self.hypervisor.settle(CELL, an_order().uuid, 3, incarnation="b" * 32) is None
        assert without_size(self.hypervisor.settle(CELL, an_order().uuid, 3)) == self.listed()[7]

    def test_ended(self) -> None:
        """A domain that ended is told gone, with how, and then nothing of it is left."""
        order = an_order()
        self.hypervisor.start(CELL, order)
        how = self.end(order.uuid)
        seen = self.hypervisor.settle(CELL, order.uuid, order.generation)
        if seen is not None:  # a host that forgets what has ended tells how it did in its event
            assert (seen.seen, seen.cause, seen.generation) == (Seen.GONE, how, 3)
        assert self.listed() == {}
        assert self.hypervisor.settle(CELL, order.uuid, order.generation) is None

    def test_paused(self) -> None:
        """A domain that stands still is seen paused, and left so by a repeated order."""
        order = an_order()
        self.hypervisor.start(CELL, order)
        self.pause(order.uuid)
        assert self.listed()[7].seen is Seen.PAUSED
        assert self.hypervisor.start(CELL, order).seen is Seen.PAUSED

    def test_saved_by_its_host(self) -> None:
        """H8: a domain that its host has saved is paused, not gone, whatever asks for it but a Destroy; an Unpause continues it."""
        order = an_order()
        self.hypervisor.start(CELL, order)
        for generation in (5, 6):
            self.save(order.uuid)
            for _ in range(2):
                settled = self.hypervisor.settle(CELL, order.uuid, order.generation)
                assert settled is not None and (settled.seen, settled.cause) == (Seen.PAUSED, Cause.SAVED_BY_HOST)
                assert self.listed()[7] == without_size(settled) and 3 <= settled.generation <= 5
                assert self.hypervisor.do(CELL, a_deed(Pause, generation=settled.generation)) is None
            again = self.hypervisor.start(CELL, an_order(generation=4))
            assert (again.seen, again.cause, again.generation) == (Seen.PAUSED, Cause.SAVED_BY_HOST, 4)
            try:
                self.hypervisor.do(CELL, a_deed(Reset, generation=5))
            except OurFault as fault:
                assert "saved by its host" in fault.message
            else:
                raise AssertionError("it was reset")
            self.hypervisor.do(CELL, a_deed(Unpause, generation=generation))
            assert (self.listed()[7].seen, self.listed()[7].cause) == (Seen.RUNNING, None)
        self.save(order.uuid)
        self.hypervisor.destroy(CELL, order.uuid, 8)
        assert self.listed() == {}
        assert self.hypervisor.start(CELL, an_order(generation=9)).seen is Seen.RUNNING

    def test_no_room_to_wait_for(self) -> None:
        """A domain that is paused for another cause than want of space is left so, and one that is not there is no error."""
        self.hypervisor.resume_if_room(CELL, an_order().uuid)
        self.hypervisor.start(CELL, an_order())
        self.pause(an_order().uuid)
        self.hypervisor.resume_if_room(CELL, an_order().uuid)
        assert self.listed()[7].seen is Seen.PAUSED

    def test_pause(self) -> None:
        """A domain is paused and goes on, each as often as it is asked, and answers to the order."""
        self.hypervisor.start(CELL, an_order())
        for kind, generation, seen in ((Pause, 4, Seen.PAUSED), (Unpause, 5, Seen.RUNNING)):
            for _ in range(2):
                self.hypervisor.do(CELL, a_deed(kind, generation=generation))
                observation = self.listed()[7]
                cause = Cause.ADMINISTRATOR if kind is Pause else None
                assert (observation.generation, observation.seen, observation.cause) == (generation, seen, cause)

    def test_reset(self) -> None:
        """A domain that was reset runs."""
        self.hypervisor.start(CELL, an_order())
        for _ in range(2):
            self.hypervisor.do(CELL, a_deed(Reset))
        assert self.listed()[7] == Observation(instance_id=7, generation=4, seen=Seen.RUNNING)

    def test_adapt(self) -> None:
        """What was adapted is returned as the hypervisor has it, and nothing else is mentioned."""
        self.hypervisor.start(CELL, an_order())
        wished = Resources(cpu_share=512, disk_weight=300)
        for generation in (4, 4, 5):
            assert self.hypervisor.do(CELL, a_deed(Adapt, generation=generation, wished=wished)) == wished
        assert self.listed()[7].generation == 5
        half = self.hypervisor.facts().cpu_speed // 2
        adapted = self.hypervisor.do(CELL, a_deed(Adapt, generation=6, wished=Resources(cpu_speed=half)))
        assert adapted is not None and abs((adapted.cpu_speed or 0) - half) <= 1

    def test_deed_on_nothing(self) -> None:
        """Nothing is done to a domain that is not there, and it stays so."""
        self.hypervisor.do(CELL, a_deed(Pause))
        assert self.hypervisor.do(CELL, a_deed(Adapt, generation=5, wished=Resources(cpu_share=512))) is None
        assert self.hypervisor.settle(CELL, an_order().uuid, 5) is None

    def test_deed_on_a_stranger(self) -> None:
        """A domain of another cell is not paused."""
        self.hypervisor.start(OTHER_CELL, an_order(cell=OTHER_CELL))
        try:
            self.hypervisor.do(CELL, a_deed(Pause, cell=OTHER_CELL))
        except OurFault as fault:
            assert "left alone" in fault.message
        else:
            raise AssertionError("it was touched")
        assert self.listed(OTHER_CELL)[7].seen is Seen.RUNNING

    def test_listener(self) -> None:
        """The life of a domain is told as it happens."""
        hints: queue.Queue[tuple[str | None, Seen | None, Cause | None]] = queue.Queue()
        self.hypervisor.watch(lambda *hint: hints.put(hint))
        order = an_order()
        self.hypervisor.start(CELL, order)
        self._await_hint(hints, order.uuid, Seen.RUNNING)
        how = self.end(order.uuid)
        assert self._await_hint(hints, order.uuid, Seen.GONE) == how

    def test_many(self) -> None:
        """Each domain has its own observation."""
        for instance_id in (1, 2, 3):
            self.hypervisor.start(CELL, an_order(instance_id))
        self.hypervisor.destroy(CELL, an_order(2).uuid, 4)
        assert sorted(self.listed()) == [1, 3]

    def test_statistics(self) -> None:
        """There are counters of each domain that runs, of this cell only; a later sample is of a later time and of the same lives."""
        for instance_id in (1, 2):
            self.hypervisor.start(CELL, an_order(instance_id))
        self.hypervisor.start(OTHER_CELL, an_order(3, cell=OTHER_CELL))
        first = self.hypervisor.statistics(CELL)
        assert sorted(first.domains) == [1, 2]
        self.hypervisor.destroy(CELL, an_order(2).uuid, 4)
        later = self.hypervisor.statistics(CELL)
        assert later.at >= first.at
        assert [(number, one.life) for number, one in later.domains.items()] == [(1, first.domains[1].life)]

    def _await_hint(self, hints: Any, domain: str, seen: Seen) -> Cause | None:
        while True:
            hint = hints.get(timeout=PATIENCE)
            if hint[:2] == (domain, seen):
                return cast(Cause | None, hint[2])
