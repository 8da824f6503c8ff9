"""The hosts of a simulated cell: machines that fail, agents that are killed, links that break. Each host's executor is the real one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
from twisted.internet.defer import Deferred, succeed

from tashi.errors import INTERNAL, OurFault
from tashi.model.causes import Cause
from tashi.model.instance import Resources
from tashi.model.orders import Deed, Migrate, Observation, Offer, Order, PrepareDisks, Receive, Report, Seen, Start, Suspend
from tashi.node.executor import Executor
from tashi.node.fake import FakeHypervisor
from tashi.node.listing import Listing
from tests.builders import a_login, some_facts
from tests.simulation.world import World
from tests.small_cell import Process, result_of

if TYPE_CHECKING:
    from tests.simulation.cell import Cell

PAGE = 2
"""Observations a page: small, so that lists have several."""

CORES, MEMORY = 10, 8192


class Machine(FakeHypervisor):
    """A hypervisor whose starts and moves fail now and then."""

    def __init__(self, world: World) -> None:
        self.offer = some_facts(cores=CORES, memory=MEMORY, hypervisor="test")
        super().__init__(images=["tashi.img"], facts=self.offer, shared=world.shared)
        self._world = world
        self.busy_until: dict[str, float] = {}
        """When what takes long on a domain is at its end."""
        self.has_share = True
        """Whether the directory that all hosts share is mounted here."""
        self.brought: set[str] = set()
        """The domains that were moved here by hand, for which nobody has reserved room."""

    def start(self, cell: str, order: Start) -> Observation:
        if order.uuid not in self._domains and not self.has_share:
            self._world.left_behind.add(order.uuid)
            self._need_share()
        if order.uuid not in self._domains and self._world.happens(0.15):
            self.give_up(order.uuid, [disk.uri for disk in order.disks if disk.template])
            raise OurFault(INTERNAL, "qemu does not start")
        return super().start(cell, order)

    def prepare_disks(self, cell: str, order: PrepareDisks) -> None:
        if not self.has_share:
            self._world.left_behind.add(order.uuid)
            self._need_share()
        if self._world.happens(0.1):
            self.give_up(order.uuid, [copy.name for copy in order.copies])
            raise OurFault(INTERNAL, "/images is full")
        super().prepare_disks(cell, order)

    def destroy(self, cell: str, domain_uuid: str, *arguments: Any, **named: Any) -> None:
        self._need_share()
        super().destroy(cell, domain_uuid, *arguments, **named)

    def do(self, cell: str, deed: Deed) -> Resources | Offer | Seen | None:
        if isinstance(deed, Suspend | Receive):
            self._need_share()
        if deed.uuid in self._domains and self._world.happens(0.1):
            self._come_back(deed.uuid)
            self._domains[deed.uuid].order = msgspec.structs.replace(self._domains[deed.uuid].order, generation=deed.generation)
            raise OurFault(INTERNAL, "it cannot be done")
        before = self._domains.get(deed.uuid)
        outcome = super().do(cell, deed)
        if isinstance(deed, Migrate) and before is not None and self._world.happens(0.1):
            # the daemon ended when all but its word was over: the domain runs at its target, and stands still here
            order = msgspec.structs.replace(before.order, generation=deed.generation)
            self._domains[deed.uuid] = msgspec.structs.replace(before, order=order, seen=Seen.PAUSED)
            raise OurFault(INTERNAL, "libvirtd has ended")
        return outcome

    def try_move(self, order: Migrate) -> None:
        """Begin it; what is wrong with it is told at its end."""
        with suppress(OurFault):
            self.begin_move(order)

    def crash(self) -> None:
        """The plug is pulled: no domain survives, and none that was on its way from here arrives, unless it was all but there."""
        for domain, target in list(self._leaving.items()):
            if domain in self._domains and domain in target._domains and self._world.chance.random() < 0.3:
                del self._domains[domain]
                target.change(domain, Seen.RUNNING)
            else:
                target.drop(domain)
        self._leaving.clear()
        self._expected.clear()
        self._world.lost |= {order.name for order in self.running()}
        self._domains.clear()

    def lose_one(self) -> None:
        """The qemu of one domain dies."""
        here = [uuid for uuid, _ in self._here()]
        if here:
            domain = self._world.chance.choice(here)
            if not any(machine._leaving.get(domain) is self for machine in self._shared.machines.values()):
                self._world.lost.add(self._domains[domain].order.name)
            self.change(domain, Seen.GONE, Cause.CRASHED)

    def pause_one(self) -> None:
        """One domain is paused, saved or reverted by its host or by an administrator."""
        free = [domain for domain in self.active() if domain not in self._leaving]
        if free:
            causes = (Cause.ADMINISTRATOR, Cause.NO_SPACE, Cause.SAVED_BY_HOST, Cause.REVERTED)
            self.change(self._world.chance.choice(free), Seen.PAUSED, self._world.chance.choice(causes))

    def start_saved(self, domain: str) -> None:
        """Start a domain again from its managed save, if it is still saved here (`virsh start`)."""
        if domain in self._domains and self._domains[domain].cause is Cause.SAVED_BY_HOST:
            self.change(domain, Seen.RUNNING)

    def is_idle(self, domain: str) -> bool:
        """Return whether nothing is under way at the domain, so that libvirt does not refuse another job on it."""
        return domain not in self._leaving and self.busy_until.get(domain, 0.0) <= self._world.clock.seconds()

    def order_of(self, domain: str) -> Start:
        """Return what a domain was started with."""
        return self._domains[domain].order

    def has_room_for(self, order: Start) -> bool:
        """Return whether a domain of this size fits beside all that is here."""
        here = self.occupying()
        cores, memory = sum(one.cores for one in here), sum(one.memory for one in here)
        return order.uuid not in self._domains and cores + order.cores <= CORES and memory + order.memory <= MEMORY

    def move_by_hand(self, domain: str, target: Machine, *, undefine: bool) -> None:
        """Move a running domain without a word to its agent. Without ``undefine`` its definition stays here, shut off."""
        target._domains[domain] = msgspec.structs.replace(self._domains[domain])
        target.brought.add(domain)
        self.brought.discard(domain)
        target._tell(domain, Seen.RUNNING)
        self.change(domain, Seen.GONE, Cause.MIGRATED_AWAY)
        if undefine:
            del self._domains[domain]

    def lose_share_for_a_while(self) -> None:
        """The shared directory is not mounted: domains are paused by I/O errors, and nothing that needs it can be done."""
        if self.has_share:
            self.has_share = False
            chance = self._world.chance_of("share")
            for domain in self.active():
                if domain not in self._leaving and chance.random() < 0.5:
                    self.change(domain, Seen.PAUSED, Cause.IO_ERROR)
            self._world.clock.callLater(chance.uniform(0.0, 30.0), self._mount_share)

    def _mount_share(self) -> None:
        self.has_share = True

    def _need_share(self) -> None:
        if not self.has_share:
            raise OurFault(INTERNAL, "the shared directory is not mounted")

    def vanish_for_a_while(self) -> None:
        """libvirt does not answer."""
        if not self.away:
            self.vanish()
            self._world.clock.callLater(self._world.delay(10.0), self._return)

    def _return(self) -> None:
        self.away = False

    def active(self) -> list[str]:
        """The domains that do run just now."""
        return [uuid for uuid, domain in self._domains.items() if domain.seen is Seen.RUNNING]

    def running(self) -> list[Start]:
        """The orders of all domains that run, or would if nobody had paused them or moved them away."""
        arriving = {uuid for machine in self._shared.machines.values() for uuid, target in machine._leaving.items() if target is self}
        return [domain.order for uuid, domain in self._here() if uuid not in arriving]

    def _here(self) -> list[tuple[str, Any]]:
        """The domains by UUID, without those that run elsewhere and are only defined here."""
        return [(uuid, domain) for uuid, domain in self._domains.items() if domain.cause is not Cause.MIGRATED_AWAY]

    def saved(self) -> list[Start]:
        """The orders of all domains whose memory is kept."""
        return [domain.order for domain in self._shared.saved.values()]

    def occupying(self) -> list[Start]:
        """The orders of the domains that take cores and memory: all but those that have ended and are not cleared away yet."""
        return [domain.order for domain in self._domains.values() if domain.seen is not Seen.GONE]

    def all(self) -> list[Start]:
        """The orders of all domains there are, without definitions that a move by hand has left."""
        return [domain.order for _, domain in self._here()]


class Link:
    """An INodeLink whose messages take a while, in order, and which breaks."""

    def __init__(self, world: World, agent: Agent) -> None:
        self.alive = True
        self._world = world
        self._agent = agent
        self._latency = world.delay(0.1)

    def send(self, orders: Sequence[Order]) -> None:
        self.carry(lambda: self._agent.executor.give(orders))

    def carry(self, what: Callable[[], object]) -> None:
        """Let this happen at the other end, if the link holds until then."""
        self._world.clock.callLater(self._latency, lambda: what() if self.alive else None)

    def remember(self, mark: str) -> None:
        self.carry(lambda: setattr(self._agent, "mark", mark))

    async def answers(self) -> bool:
        return self.alive

    def close(self) -> None:
        self._agent.lose_link()


class Agent:
    """One host: its machine, and an agent that logs in, lists everything, and tells what happens."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self.name = name
        self.machine = Machine(world)
        self._identity = self.machine.identity()
        self.cell: Cell | None = None
        self._start()

    def _start(self) -> None:
        self.process = Process(self._world.clock)
        self.machine._listeners.clear()
        self.executor = Executor(self.machine, self._run, self.process, self._note, self._run_long)
        self.machine.watch(self.executor.notice)
        self.link: Link | None = None
        self._listing: Listing | None = None
        self._listed = False
        self._untold: dict[tuple[int, str], Observation] = {}
        self._under_way: dict[Callable[[], None], None] = {}
        self.process.callLater(self._world.delay(2.0), self._connect)
        self.process.callLater(5.0, self._beat)

    def restart(self) -> None:
        """The agent's process is killed and begins again; its domains run on."""
        self._kill()
        self._start()

    def power_cut(self) -> None:
        """The machine goes down and comes up empty."""
        self._kill()
        self.machine.crash()
        self.machine.boots += 1
        self._identity = msgspec.structs.replace(self._identity, boot_id=f"boot {self.machine.boots}")
        self._world.clock.callLater(self._world.delay(60.0), self._start)

    def _kill(self) -> None:
        self.process.kill()
        self._drop()
        for call in list(self._under_way):
            if self._world.chance.random() < 0.5:  # libvirt had got it
                call()

    def lose_link(self) -> None:
        """The connection breaks, and is made again after a while."""
        if self.link is not None:
            self._drop()
            self.process.callLater(self._world.delay(8.0), self._connect)

    def _drop(self) -> None:
        link, self.link, self._listed = self.link, None, False
        if self._listing is not None:
            self._listing.stop()
        if link is not None:
            link.alive = False
            if self.cell is not None and self.cell.up:
                self.cell.manager.hosts.logout(self._host_id, link)

    def _run(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        process = self.process

        def call() -> None:
            self._under_way.pop(call, None)
            outcome: list[Any] = []
            Deferred.fromCoroutine(_call(function, arguments)).addBoth(outcome.append)
            process.callLater(self._world.delay(0.5), lambda: done.callback(outcome[0]))

        self._under_way[call] = None
        process.callLater(self._world.delay(3.0 if self._world.faulty else 0.5), call)
        return done

    def _run_long(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """As `_run`, and what has begun goes on when the agent is killed; a domain that moves is at both ends meanwhile."""
        *_, order = arguments
        done: Deferred[Any] = Deferred()
        clock, process, machine = self._world.clock, self.process, self.machine

        def begin() -> None:
            before = machine.busy_until.get(order.uuid, 0.0)
            if not process.alive:
                return
            if before > clock.seconds():  # the machine is at it already, for an agent that was killed
                clock.callLater(before - clock.seconds(), begin)
                return
            if isinstance(order, Migrate):
                machine.try_move(order)
            duration = self._world.delay(10.0 if self._world.faulty else 2.0)
            machine.busy_until[order.uuid] = clock.seconds() + duration
            clock.callLater(duration, end)

        def end() -> None:
            if isinstance(order, PrepareDisks) and not process.alive:
                return  # a copy is the agent's own work
            outcome: list[Any] = []
            Deferred.fromCoroutine(_call(function, arguments)).addBoth(outcome.append)
            process.callLater(self._world.delay(0.5), lambda: done.callback(outcome[0]))

        clock.callLater(self._world.delay(1.0), begin)
        return done

    def _note(self, observation: Observation) -> None:
        self._untold[observation.instance_id, observation.incarnation] = observation
        if observation.seen is Seen.MISSING and self._listing is not None:
            self._listing.hasten()
        self._flush()

    def _connect(self) -> None:
        if self.link is not None:
            return
        if self.cell is None or not self.cell.up:
            self.process.callLater(self._world.delay(4.0), self._connect)
            return
        link = self.link = Link(self._world, self)
        welcome = result_of(self.cell.manager.hosts.login(a_login(self.name, identity=self._identity), link))
        self._host_id = welcome.host_id
        self.executor.enter(welcome.cell)
        self._survey(link)
        self._listing = Listing(self.process, lambda: self._survey(link))

    def _survey(self, link: Link) -> Deferred[None]:
        """List all that is here, at the login and later again."""
        if link is not self.link:
            return succeed(None)
        return Deferred.fromCoroutine(self.executor.survey()).addCallback(self._list, link)

    def _list(self, seen: Sequence[Observation], link: Link) -> None:
        if link is not self.link:
            return
        pages = [tuple(seen[start : start + PAGE]) for start in range(0, len(seen), PAGE)] or [()]
        for number, listed in enumerate(pages, start=1):
            page = [now for one in listed if (now := self.executor.latest(one)) is not None]
            self._report(link, page, full=True, page=number, pages=len(pages))
        self._listed = True
        self._flush()

    def _flush(self) -> None:
        if self.link is not None and self._listed and self._untold:
            told = dict(self._untold)
            self._report(self.link, tuple(told.values()), then=lambda: self._told(told))

    def _told(self, told: dict[tuple[int, str], Observation]) -> None:
        for number, observation in told.items():
            if self._untold.get(number) is observation:
                del self._untold[number]

    def _report(self, link: Link, seen: Sequence[Observation], then: Callable[[], object] = bool, **place: Any) -> None:
        report = Report(facts=self.machine.offer, observations=tuple(seen), **place)

        def arrive() -> None:
            if self.cell is not None and self.cell.up:
                self.cell.manager.hosts.report(self._host_id, link, report)
                then()

        link.carry(arrive)

    def _beat(self) -> None:
        if self.link is not None and self._listed:
            self._report(self.link, ())
        self.process.callLater(5.0, self._beat)


async def _call(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    return function(*arguments)
