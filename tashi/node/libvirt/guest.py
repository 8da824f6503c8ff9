"""The cell's domains on this machine's libvirt, behind `IHypervisor`: our words in, our words out, libvirt's codes stay here.

A domain is defined and then started, so that what becomes of it is still known after a crash of the daemon or of the machine; on the test
driver, whose domains live in this process anyway, it is created in one step. A domain without our mark is none of ours and is not touched.
"""

from __future__ import annotations

import contextlib
import functools
import secrets
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import libvirt
import msgspec
from twisted.logger import Logger

from tashi.errors import INTERNAL, OurFault
from tashi.model.causes import ENDED as CAUSES_OF_AN_END
from tashi.model.causes import OFF, Cause
from tashi.model.host import HostFacts
from tashi.model.instance import Resources, console_name, domain_name
from tashi.model.orders import (
    Adapt,
    Deed,
    Depart,
    Look,
    Migrate,
    Observation,
    Offer,
    PrepareDisks,
    Receive,
    Reset,
    Seen,
    Start,
    Suspend,
    Unpause,
    answer,
)
from tashi.model.statistics import Sample
from tashi.node.access.logs import ConsoleLogs
from tashi.node.domain.landing import files_of
from tashi.node.domain.xen import xml_for_xen
from tashi.node.domain.xml import AttachedDisk, Mark, domain_xml, nics_of
from tashi.node.libvirt.adapt import adapt, tell_scheduler
from tashi.node.libvirt.cards import CardReader
from tashi.node.libvirt.causes import cause_of
from tashi.node.libvirt.connection import LibvirtConnection, gone_meanwhile, is_alive
from tashi.node.libvirt.deeds import do_live, do_while_off
from tashi.node.libvirt.domain import ENDED, canonical, console_of, find, has_run, mark_of, observed_as, own_mark, renewed, seen_of, sized
from tashi.node.libvirt.events import Listener
from tashi.node.libvirt.host import HostReader
from tashi.node.libvirt.jobs import Jobs
from tashi.node.libvirt.migrate import NOWHERE, Moves, Way
from tashi.node.libvirt.pauses import go_on_if_room, refuse_move
from tashi.node.libvirt.removal import Removal, undefine
from tashi.node.libvirt.save import SavedDomains
from tashi.node.libvirt.statistics import read_statistics
from tashi.node.libvirt.unmarked import unmarked
from tashi.node.network.bridges import Bridges
from tashi.node.storage.disks import Disks
from tashi.node.storage.scratch import scratch_of

NOT_ENDED: Final = OFF | {Cause.MIGRATED_AWAY}
_log = Logger()


class LibvirtHypervisor:
    """An IHypervisor on a libvirt URI: qemu, xen or test."""

    def __init__(
        self,
        connection: LibvirtConnection,
        host: HostReader,
        disks: Disks,
        consoles: Path,
        bridges: Bridges,
        way: Way = NOWHERE,
        longest: float = 300.0,
    ) -> None:
        """``consoles``: the directory for what guests print; ``way``: how domains move to other hosts and from them; ``longest``: the
        seconds that a migration or suspension may take."""
        self._jobs = Jobs(longest)
        self._moves = Moves(connection.uri, way, disks, self._jobs, consoles, bridges)
        self._saved = SavedDomains(disks, self._jobs)
        self._connection = connection
        self._measuring = connection.apart()
        self._host = host
        self._disks = disks
        self._logs = ConsoleLogs(consoles)
        self._remove = Removal(disks, self._logs).remove
        self._bridges = bridges
        self.cards = CardReader(connection).cards
        self.identity = lambda: host.identity(connection)

    def watch(self, listener: Listener) -> None:
        """See IHypervisor."""
        self._connection.watch(listener)

    def close(self) -> None:
        """See IHypervisor."""
        self._connection.close()
        self._measuring.close()

    def facts(self) -> HostFacts:
        """See IHypervisor."""
        with self._connection.talking("the host could not be read") as connection:
            facts = self._host.facts(connection)
            networks, vlans = self._bridges.offered(self._host.domain_kind(connection) == "test")
            return msgspec.structs.replace(facts, networks=networks, vlans=vlans)

    def prepare_disks(self, cell: str, order: PrepareDisks) -> None:
        """See IHypervisor."""
        self._disks.copies.make(canonical(order.uuid), order.generation, order.copies)

    def start(self, cell: str, order: Start) -> Observation:
        """See IHypervisor."""
        with self._connection.talking(f"{domain_name(order.instance_id, order.name)} was not started") as connection:
            domain = find(connection, canonical(order.uuid))
            if domain is not None:
                lost = unmarked(domain, cell, order.incarnation, order.generation)
                if lost is not None:  # not a failure, after which another host would start it
                    return lost
                mark = own_mark(domain, cell, order.incarnation)
                if domain.state()[0] not in ENDED:
                    self._disks.keep(canonical(order.uuid), order.generation, order.disks)
                    if order.saved:
                        self._saved.forget(order.saved, cell)
                    self._bridges.arrived(domain.XMLDesc)  # whoever started it may not have got to that
                    where = libvirt.VIR_DOMAIN_AFFECT_LIVE | (libvirt.VIR_DOMAIN_AFFECT_CONFIG if domain.isPersistent() else 0)
                    return seen_of(domain, renewed(domain, mark, order.generation, where))
                if (kept := self._look_at(domain, mark)).cause in OFF:
                    renewed(domain, mark, order.generation, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
                    return msgspec.structs.replace(kept, generation=order.generation)
                if mark.generation == order.generation and has_run(domain) and not (order.saved and self._saved.is_saved(order.saved)):
                    ended = self._look_at(domain, mark)
                    self._remove(domain, order.generation, keep_console=True)
                    return ended
                if order.saved:
                    undefine(domain)  # the rest of a resume that was cut short; its disks are still needed
                else:
                    self._remove(domain, order.generation)
            if order.saved:
                kind = self._host.domain_kind(connection)
                land = functools.partial(self._moves.land, connection, cell, kind, order)
                self._saved.resume(connection, canonical(order.uuid), order.generation, order.saved, land)
                self._bridges.arrived(connection.lookupByUUIDString(canonical(order.uuid)).XMLDesc)
            else:
                self._create(connection, cell, order)
        return answer(order, Seen.RUNNING, nics=nics_of(order))

    def destroy(
        self, cell: str, domain_uuid: str, generation: int, copies: Sequence[str] = (), saved: str = "", incarnation: str = ""
    ) -> None:
        """See IHypervisor."""
        domain_uuid = canonical(domain_uuid)
        if saved:
            self._saved.forget(saved, cell)
        with self._connection.talking("the domain was not destroyed") as connection:
            domain = find(connection, domain_uuid)
            if domain is None:
                self._disks.discard(domain_uuid, generation, copies)
                return
            if own_mark(domain, cell, None).incarnation != incarnation:
                return  # what was to be destroyed is not here; this domain is another instance's
            if domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING:  # it may just have come from another host
                self._disks.take(domain_uuid, lambda: files_of(domain.XMLDesc()))
            self._remove(domain, generation)
            self._disks.copies.discard(domain_uuid, generation, copies)

    def progress(self, cell: str, domain_uuid: str) -> int | None:
        """See IHypervisor."""
        percent = self._disks.copies.progress(canonical(domain_uuid))
        if percent is None:
            with self._connection.talking("its progress is not known") as connection:
                percent = self._jobs.progress(connection, canonical(domain_uuid))
        return percent

    def abort(self, cell: str, domain_uuid: str, incarnation: str = "") -> None:
        """See IHypervisor."""
        self._disks.copies.abort(canonical(domain_uuid))
        with self._connection.talking("it could not be ended") as connection, gone_meanwhile(libvirt.VIR_ERR_OPERATION_INVALID):
            if not self._jobs.abort(connection, canonical(domain_uuid)):
                domain = find(connection, canonical(domain_uuid))
                if domain is not None and own_mark(domain, cell, incarnation):
                    domain.destroy()

    def do(self, cell: str, deed: Deed) -> Resources | Offer | Seen | None:
        """See IHypervisor."""
        with self._connection.talking("the host refuses") as connection, gone_meanwhile():
            domain = find(connection, canonical(deed.uuid))
            if isinstance(deed, Look):
                if domain is not None:
                    own_mark(domain, cell, deed.incarnation)
                self._disks.take_all(canonical(deed.uuid), deed.generation)
                return None
            if isinstance(deed, Receive):
                return self._receive(connection, cell, domain, deed)
            if isinstance(deed, Suspend):
                return self._suspend(cell, domain, deed)
            if domain is None:
                return None
            mark = own_mark(domain, cell, deed.incarnation)
            if domain.state()[0] in ENDED:
                if isinstance(deed, Unpause):
                    self._disks.check_bases(canonical(deed.uuid), files_of(domain.XMLDesc()))
                if isinstance(deed, Migrate):
                    self._clear_moved(domain, deed)  # it was done before the agent was restarted
                elif do_while_off(domain, mark, deed):
                    self._bridges.arrived(domain.XMLDesc)
                    renewed(domain, mark, deed.generation)
                return None
            if isinstance(deed, Depart | Migrate):
                refuse_move(domain, mark)
            if isinstance(deed, Migrate):  # its mark is not renewed: a domain that is moving already would not take it
                self._moves.migrate(domain, deed)
                self._clear_moved(find(connection, canonical(deed.uuid)), deed)
                return None
            again = mark.generation == deed.generation
            renewed(domain, mark, deed.generation)  # first, so that a reset never comes twice
            if isinstance(deed, Adapt):
                megahertz = connection.getInfo()[3] if deed.wished.cpu_speed is not None else 0
                return adapt(domain, deed.wished, kind=self._host.domain_kind(connection), megahertz=megahertz)
            if isinstance(deed, Depart):
                return self._moves.depart(domain, deed)
            if not (again and isinstance(deed, Reset)):
                do_live(domain, mark, deed)
        return None

    def _clear_moved(self, domain: Any, deed: Migrate) -> None:
        """Remove what is left of a domain that we have moved to another host."""
        if domain is None:
            self._disks.discard(canonical(deed.uuid), deed.generation)
        elif cause_of(*domain.state()) is Cause.MIGRATED_AWAY:
            self._remove(domain, deed.generation, keep_console=True)

    def _receive(self, connection: Any, cell: str, domain: Any, deed: Receive) -> Offer:
        if domain is not None:
            mark = own_mark(domain, cell, deed.incarnation)
            if domain.state()[0] not in ENDED or seen_of(domain, mark).cause in OFF:
                raise OurFault(INTERNAL, "the domain is on this host already")
            self._remove(domain, deed.generation)
        return self._moves.receive(cell, connection, self._host.domain_kind(connection), deed)

    def _suspend(self, cell: str, domain: Any, deed: Suspend) -> Seen | None:
        if domain is None:
            return Seen.SAVED if self._saved.is_saved(deed.saved) else None
        if not self._saved.suspend(domain, own_mark(domain, cell, deed.incarnation), deed):
            return None
        self._remove(domain, deed.generation, keep_console=True)
        return Seen.SAVED

    def settle(self, cell: str, domain_uuid: str, generation: int, cause: Cause | None = None, incarnation: str = "") -> Observation | None:
        """See IHypervisor."""
        domain_uuid = canonical(domain_uuid)
        with self._connection.talking("the domain could not be looked at") as connection:
            domain = find(connection, domain_uuid)
            mark = None if domain is None else mark_of(domain)
            if domain is None or mark is None or (mark.cell, mark.incarnation) != (cell, incarnation):
                if domain is None and cause in CAUSES_OF_AN_END:
                    self._disks.discard(domain_uuid, generation)
                return None if domain is None else unmarked(domain, cell, incarnation, generation)
            observation = self._look_at(domain, mark)
            if observation.seen is Seen.GONE and observation.cause is None and cause in NOT_ENDED:
                observation = observed_as(observation, cause)  # libvirt has forgotten it since
            if observation.seen is Seen.RUNNING:
                self._saved.forget_all(mark)
                self._disks.take(domain_uuid, lambda: files_of(domain.XMLDesc()))
                if self._moves.has_arrived(domain_uuid):
                    self._bridges.arrived(domain.XMLDesc)
            if observation.seen is Seen.GONE and observation.cause is not Cause.MIGRATED_AWAY:
                _log.info(
                    "domain {name} of instance {id}, order {generation}, has ended ({how}); it is removed",
                    name=domain.name(), id=mark.instance_id, generation=mark.generation, how=observation.reason or "it has never run",
                )  # fmt: skip
                self._remove(domain, generation, keep_console=True)
                self._prune_logs(connection)
                return observation if observation.reason else None
            return observation

    def resume_if_room(self, cell: str, domain_uuid: str, incarnation: str = "") -> None:
        """See IHypervisor."""
        with self._connection.talking("it could not be continued") as connection, gone_meanwhile():
            domain = find(connection, canonical(domain_uuid))
            if domain is not None:
                go_on_if_room(domain, own_mark(domain, cell, incarnation))

    def domains(self, cell: str) -> Sequence[Observation]:
        """See IHypervisor."""
        found = []
        with self._connection.talking("the domains could not be listed") as connection:
            for domain in connection.listAllDomains():
                with gone_meanwhile():
                    mark = mark_of(domain)
                    if mark is not None and mark.cell == cell:
                        found.append(self._look_at(domain, mark))
                    elif (lost := unmarked(domain, cell)) is not None:
                        found.append(lost)
        return found

    def look(self, cell: str, domain_uuid: str) -> Observation | None:
        """See IHypervisor."""
        with self._connection.talking("the domain could not be looked at") as connection:
            domain = find(connection, canonical(domain_uuid))
            mark = None if domain is None else mark_of(domain)
            return self._look_at(domain, mark) if mark is not None and mark.cell == cell else None

    def statistics(self, cell: str) -> Sample:
        """See IHypervisor."""
        with self._measuring.talking("what the domains use could not be read") as connection:
            return read_statistics(connection, cell)

    def _look_at(self, domain: Any, mark: Mark) -> Observation:
        observation = sized(domain, mark, seen_of(domain, mark))
        ended = observation.seen is Seen.GONE or observation.cause is Cause.SAVED_TO_FILE
        if ended and self._saved.is_memory_of(mark):
            return msgspec.structs.replace(observation, seen=Seen.SAVED, reason="", cause=None)
        return observation

    def _create(self, connection: Any, cell: str, order: Start) -> None:
        domain_uuid = canonical(order.uuid)
        kind = self._host.domain_kind(connection)
        simulated = kind == "test"
        console = self._logs.path(console_name(uuid.UUID(cell), order.instance_id, order.incarnation, order.name))
        domain = None
        try:
            bridges = self._bridges.ready((nic.network for nic in order.nics), simulated)
            disks = self._disks.check(order.disks) if simulated else self._prepare(order)
            megahertz = connection.getInfo()[3] if order.cpu_speed else 0
            xml = domain_xml(
                order, cell=cell, kind=kind, disks=disks, bridges=bridges,
                console=str(console), secret=secrets.token_urlsafe(6), megahertz=megahertz,
            )  # fmt: skip
            if simulated:
                connection.createXML(xml)
            else:
                self._logs.make_room()
                domain = connection.defineXML(xml if kind != "xen" else xml_for_xen(xml, order, f"{self._disks.share}/images"))
                domain.create()
                self._bridges.plugged(domain.XMLDesc)
                tell_scheduler(domain, order, kind, megahertz)
        except BaseException:
            if not is_alive(connection):
                raise  # it may run all the same: whoever is at this order next will see
            with contextlib.suppress(libvirt.libvirtError):  # the first failure is the one to tell of
                if domain is not None:
                    self._remove(domain, order.generation, keep_console=True)
            self._disks.give_up(domain_uuid, order.generation, order.disks)
            raise
        self._disks.keep(domain_uuid, order.generation, order.disks)

    def _prepare(self, order: Start) -> list[AttachedDisk]:
        return self._disks.prepare(canonical(order.uuid), order.generation, order.disks, scratch_of(order))

    def _prune_logs(self, connection: Any) -> None:
        living = connection.listAllDomains()
        self._logs.prune({domain.name() for domain in living} | {console_of(domain) for domain in living})
