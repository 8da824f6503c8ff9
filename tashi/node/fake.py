"""A hypervisor in memory: an `IHypervisor` that keeps the same contract as libvirt's, for tests and simulations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from tashi import __version__
from tashi.errors import CONFLICT, INTERNAL, UNKNOWN_IMAGE, OurFault
from tashi.model.causes import OFF, Cause, in_words
from tashi.model.host import HostFacts
from tashi.model.host_identity import HostIdentity
from tashi.model.instance import Resources
from tashi.model.orders import (
    Adapt,
    Deed,
    Depart,
    Migrate,
    Observation,
    Offer,
    Pause,
    PrepareDisks,
    Receive,
    Reset,
    Seen,
    Shutdown,
    Start,
    Suspend,
    Unpause,
    answer,
)
from tashi.model.statistics import Counters, Sample
from tashi.model.stray import DomainSummary
from tashi.node.domain.xml import kilobytes, nics_of
from tashi.node.faults import HypervisorAway
from tashi.node.network.cards import Card

_IMMOVABLE: Final = OFF | {Cause.NO_SPACE, Cause.IO_ERROR}


class _Domain(msgspec.Struct, kw_only=True):
    cell: str
    order: Start
    seen: Seen = Seen.RUNNING
    cause: Cause | None = None


class SharedDirectory:
    """What machines that share their directories have in common: each other, images, and the memory of suspended domains."""

    def __init__(self) -> None:
        self.machines: dict[str, FakeHypervisor] = {}
        self.saved: dict[str, _Domain] = {}
        self.images: set[str] = set()
        self.unused: dict[str, set[str]] = {}  # by domain, the copies that it has not run with


class FakeHypervisor:
    """A machine whose images are the given names; ``away`` makes every call fail as an absent daemon would."""

    def __init__(self, images: Sequence[str] = (), facts: HostFacts | None = None, shared: SharedDirectory | None = None) -> None:
        self.away = False
        self.begun: list[str] = []  # the calls so far, as "start 7"
        self.refuses = ""  # why deeds cannot be done here; empty: they can
        self.resets = 0
        self.machine_id = "a machine"
        self.boots = 1  # a machine that is switched on again is on another boot
        self.percent: int | None = None  # how far everything is that is under way
        self.is_full = False  # there is no space for the guests' disks
        self.has_acpi = True  # guests heed their power button
        self.seconds = 0.0  # the time of samples
        self.counters: dict[int, Counters] = {}  # of instances that run, where anything is known
        self.machine = Counters()
        self._facts = facts or HostFacts(memory=8192, cores=8, cpu_speed=2000, version=__version__, hypervisor="test")
        self._shared = shared or SharedDirectory()
        self.images = self._shared.images
        self.images |= set(images)
        self._address = f"machine {len(self._shared.machines)}"
        self._shared.machines[self._address] = self
        self._expected: dict[str, int] = {}  # the generation by which each domain that may arrive was announced
        self._leaving: dict[str, FakeHypervisor] = {}  # the targets of domains that are on their way
        self._domains: dict[str, _Domain] = {}
        self._listeners: list[Callable[[str | None, Seen | None, Cause | None], None]] = []

    def watch(self, listener: Callable[[str | None, Seen | None, Cause | None], None]) -> None:
        """See IHypervisor."""
        self._listeners.append(listener)

    def facts(self) -> HostFacts:
        """See IHypervisor."""
        self._answer()
        return self._facts

    def identity(self) -> HostIdentity:
        """See IHypervisor."""
        self._answer()
        return HostIdentity(machine_id=self.machine_id, host_uuid=self._address, uri="test:///default", boot_id=f"boot {self.boots}")

    def prepare_disks(self, cell: str, order: PrepareDisks) -> None:
        """See IHypervisor."""
        self.begun.append(f"prepare {order.instance_id}")
        self._answer()
        unused = self._shared.unused.get(order.uuid, set())
        for copy in order.copies:
            if copy.template not in self.images:
                raise OurFault(UNKNOWN_IMAGE, f"the image {copy.template} cannot be opened: there is none")
            if copy.name in self.images - unused:
                raise OurFault(INTERNAL, f"there is a file {copy.name} already, which was not made for this instance")
        names = {copy.name for copy in order.copies}
        self.images |= names
        self._shared.unused[order.uuid] = names

    def start(self, cell: str, order: Start) -> Observation:
        """See IHypervisor."""
        self.begun.append(f"start {order.instance_id}")
        self._answer()
        domain = self._domains.get(order.uuid)
        if domain is not None:
            _check_own(domain, cell, order.incarnation)
        if domain is not None and domain.seen is Seen.GONE and domain.cause is not None and domain.order.generation == order.generation:
            del self._domains[order.uuid]
            return _observation(domain)
        if domain is None or domain.seen is Seen.GONE:
            for disk in order.disks:
                if disk.uri not in self.images:
                    self.give_up(order.uuid, [disk.uri for disk in order.disks if disk.template])
                    raise OurFault(UNKNOWN_IMAGE, f"the image {disk.uri} cannot be opened: there is none")
            if order.saved:
                if order.saved not in self._shared.saved:
                    raise OurFault(INTERNAL, f"there is nothing saved as {order.saved}")
                del self._shared.saved[order.saved]
            domain = self._domains[order.uuid] = _Domain(cell=cell, order=order)
            self._tell(order.uuid, Seen.RUNNING)
        else:
            domain.order = msgspec.structs.replace(domain.order, generation=order.generation)
        self._shared.unused.pop(order.uuid, None)
        return msgspec.structs.replace(_observation(domain), nics=nics_of(order))

    def destroy(
        self,
        cell: str,
        domain_uuid: str,
        generation: int,
        copies: Sequence[str] = (),
        saved: str = "",
        incarnation: str = "",
    ) -> None:
        """See IHypervisor."""
        self.begun.append("destroy")
        self._answer()
        self._shared.saved.pop(saved, None)
        domain = self._domains.get(domain_uuid)
        if domain is not None:
            _check_own(domain, cell)
            if domain.order.incarnation != incarnation:
                return
        self._expected.pop(domain_uuid, None)
        self._come_back(domain_uuid)
        if self._domains.pop(domain_uuid, None) is not None:
            self._tell(domain_uuid, Seen.GONE, Cause.DESTROYED)
        self.give_up(domain_uuid, copies)

    def do(self, cell: str, deed: Deed) -> Resources | Offer | Seen | None:
        """See IHypervisor."""
        self.begun.append(f"{type(deed).__name__.lower()} {deed.instance_id}")
        self._answer()
        if isinstance(deed, Receive):
            if self.refuses:
                raise OurFault(INTERNAL, self.refuses)
            if deed.uuid in self._domains:
                _check_own(self._domains[deed.uuid], cell, deed.incarnation)
                raise OurFault(INTERNAL, "there is such a domain already")
            self._expected[deed.uuid] = deed.generation
            return Offer(domain=deed.described, address=self._address, shared=True)
        if isinstance(deed, Suspend) and deed.saved in self._shared.saved and deed.uuid not in self._domains:
            return Seen.SAVED
        domain = self._domains.get(deed.uuid)
        if domain is None or domain.seen is Seen.GONE:
            return None
        _check_own(domain, cell, deed.incarnation)
        if domain.cause in OFF and not isinstance(deed, Pause | Unpause):
            raise OurFault(CONFLICT, f"the domain does not run: {in_words(domain.cause)}")
        again = domain.order.generation == deed.generation
        domain.order = msgspec.structs.replace(domain.order, generation=deed.generation)
        if self.refuses:
            raise OurFault(INTERNAL, self.refuses)
        match deed:
            case Depart() | Migrate() if domain.cause in _IMMOVABLE:
                raise OurFault(CONFLICT, "an I/O error has paused it")
            case Pause() if domain.cause is Cause.NO_SPACE:
                raise OurFault(CONFLICT, in_words(Cause.NO_SPACE))
            case Pause() if domain.seen is Seen.RUNNING:
                self.change(deed.uuid, Seen.PAUSED, Cause.ADMINISTRATOR)
            case Unpause() if domain.cause is Cause.SAVED_TO_FILE:
                raise OurFault(CONFLICT, in_words(domain.cause))
            case Unpause() if domain.cause is Cause.NO_SPACE and self.is_full:
                raise OurFault(INTERNAL, "there is still no space for its disks")
            case Unpause() if domain.seen is Seen.PAUSED:
                self.change(deed.uuid, Seen.RUNNING)
            case Shutdown() if self.has_acpi:
                self.change(deed.uuid, Seen.GONE, Cause.SHUT_DOWN)
            case Reset() if not again:
                self.resets += 1
            case Adapt():
                return _whole(deed.wished)
            case Depart():
                return Offer(domain=domain.order.name)
            case Migrate():
                self.begin_move(deed)
                self._end_move(domain, deed)
            case Suspend():
                self._shared.saved[deed.saved] = self._domains.pop(deed.uuid)
                self._tell(deed.uuid, Seen.GONE, Cause.SAVED_TO_FILE)
                return Seen.SAVED
        return None

    def progress(self, cell: str, domain_uuid: str) -> int | None:
        """See IHypervisor."""
        return self.percent

    def abort(self, cell: str, domain_uuid: str, incarnation: str = "") -> None:
        """See IHypervisor."""
        self.begun.append("abort")
        self._come_back(domain_uuid)

    def begin_move(self, deed: Migrate) -> None:
        """Let the domain be on its way: its target has it, too, and it stands still there until the deed is at its end. Begun again,
        it goes on."""
        domain, target = self._domains.get(deed.uuid), self._shared.machines[deed.address]
        if domain is None or domain.seen is Seen.GONE or domain.cause in _IMMOVABLE or deed.uuid in self._leaving:
            return
        generation = target._expected.pop(deed.uuid, None)
        if generation is None or target.away:
            raise OurFault(INTERNAL, f"{deed.address} does not expect it")
        self._leaving[deed.uuid] = target
        order = msgspec.structs.replace(domain.order, generation=generation)
        target._domains[deed.uuid] = _Domain(cell=domain.cell, order=order, seen=Seen.PAUSED, cause=Cause.MIGRATING)
        target._tell(deed.uuid, Seen.PAUSED, Cause.MIGRATING)

    def _end_move(self, domain: _Domain, deed: Migrate) -> None:
        target = self._leaving.pop(deed.uuid, None)
        if target is None or deed.uuid not in target._domains:
            raise OurFault(INTERNAL, f"{deed.address} lost it on the way")
        target._domains[deed.uuid].seen, target._domains[deed.uuid].cause = domain.seen, domain.cause
        del self._domains[deed.uuid]
        target._tell(deed.uuid, domain.seen)
        self._tell(deed.uuid, Seen.GONE, Cause.MIGRATED_AWAY)

    def _come_back(self, domain_uuid: str) -> None:
        target = self._leaving.pop(domain_uuid, None)
        if target is not None:
            target.drop(domain_uuid)

    def drop(self, domain_uuid: str) -> None:
        """Let a domain end without a trace, as one that was on its way here and comes no more."""
        if self._domains.pop(domain_uuid, None) is not None:
            self._tell(domain_uuid, Seen.GONE)

    def settle(
        self, cell: str, domain_uuid: str, generation: int, cause: Cause | None = None, incarnation: str = ""
    ) -> Observation | None:
        """See IHypervisor."""
        self.begun.append("settle")
        self._answer()
        domain = self._domains.get(domain_uuid)
        if domain is None or (domain.cell, domain.order.incarnation) != (cell, incarnation):
            return None
        if domain.seen is Seen.GONE and domain.cause is not Cause.MIGRATED_AWAY:
            del self._domains[domain_uuid]
            if domain.cause is None:
                return None  # never begun
        return _observation(domain)

    def resume_if_room(self, cell: str, domain_uuid: str, incarnation: str = "") -> None:
        """See IHypervisor."""
        self.begun.append("resume if room")
        self._answer()
        domain = self._domains.get(domain_uuid)
        if domain is not None and domain.cause is Cause.NO_SPACE and not self.is_full:
            self.change(domain_uuid, Seen.RUNNING)

    def domains(self, cell: str) -> Sequence[Observation]:
        """See IHypervisor."""
        self._answer()
        return [_sized(domain) for domain in self._domains.values() if domain.cell == cell]

    def look(self, cell: str, domain_uuid: str) -> Observation | None:
        """See IHypervisor."""
        self._answer()
        domain = self._domains.get(domain_uuid)
        return _sized(domain) if domain is not None and domain.cell == cell else None

    def cards(self, cell: str) -> Mapping[int, tuple[Card, ...]]:
        """See IHypervisor: what is only in memory has no wires."""
        return {}

    def statistics(self, cell: str) -> Sample:
        """See IHypervisor."""
        self._answer()
        running = [one.order.instance_id for one in self._domains.values() if one.cell == cell and one.seen is not Seen.GONE]
        domains = {instance_id: self.counters.get(instance_id, Counters()) for instance_id in running}
        return Sample(at=self.seconds, domains=domains, machine=self.machine)

    def close(self) -> None:
        """See IHypervisor."""

    def change(self, domain_uuid: str, seen: Seen, cause: Cause | None = None) -> None:
        """Let something happen to a domain from outside: it pauses, continues, or ends, for this cause."""
        if seen is Seen.GONE:
            self._come_back(domain_uuid)
        self._domains[domain_uuid].seen = seen
        self._domains[domain_uuid].cause = cause
        self._tell(domain_uuid, seen, cause)

    def vanish(self) -> None:
        """Lose sight of the machine's virtualisation."""
        self.away = True
        self._tell(None, None)

    def give_up(self, domain_uuid: str, copies: Sequence[str]) -> None:
        """Remove those of these copies that the domain has not run with."""
        self.images -= self._shared.unused.pop(domain_uuid, set()).intersection(copies)

    def _answer(self) -> None:
        if self.away:
            raise HypervisorAway("libvirt does not answer")

    def _tell(self, domain_uuid: str | None, seen: Seen | None, cause: Cause | None = None) -> None:
        for listener in self._listeners:
            listener(domain_uuid, seen, cause)


def _whole(wished: Resources) -> Resources:
    """Bandwidths in whole kilobytes, as a host has them."""
    down, up = (value and kilobytes(value) * 8 for value in (wished.net_down, wished.net_up))
    return msgspec.structs.replace(wished, net_down=down, net_up=up)


def _observation(domain: _Domain) -> Observation:
    reason = "" if domain.cause is None else in_words(domain.cause)
    return answer(domain.order, domain.seen, reason, cause=domain.cause)


def _sized(domain: _Domain) -> Observation:
    """What is seen of the domain, with its size if it is alive."""
    order, observation = domain.order, _observation(domain)
    summary = DomainSummary(name=order.name, user_id=order.user_id, cores=order.cores, memory=order.memory)
    summary = msgspec.structs.replace(summary, disks=tuple(disk.uri for disk in order.disks if disk.persistent))
    return observation if observation.seen is Seen.GONE else msgspec.structs.replace(observation, domain=summary)


def _check_own(domain: _Domain, cell: str, incarnation: str | None = None) -> None:
    """OurFault unless the domain is of this cell and, when one is named, of this incarnation."""
    if domain.cell != cell:
        raise OurFault(INTERNAL, "the domain has the instance's UUID but is not this cell's; it was left alone")
    if incarnation not in (None, domain.order.incarnation):
        raise OurFault(INTERNAL, "the domain has the instance's UUID but belongs to another instance; it was left alone")
