"""The parts of a simulated cell: a store that is slow, machines that fail, links that break, and a sender who repeats himself.

The cluster manager, its rows, and each host's executor are the real ones. Everything else here goes wrong by chance, from one seed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tashi.errors import INTERNAL, OurFault
from tashi.interfaces import Change
from tashi.manager.service import ClusterManager
from tashi.manager.settings import ManagerSettings
from tashi.model.instance import Disk, InstanceSpec, InstanceUpdate
from tashi.model.orders import Observation, Order, PrepareDisks, Report, Start
from tashi.node.executor import Executor
from tashi.node.fake import FakeHypervisor, SharedDirectory
from tashi.store.memory import MemoryStore
from tests.builders import ISM, USERS, a_login, a_spec, an_origin, some_facts
from tests.small_cell import Images, Process, result_of

PAGE = 2
"""Observations a page: small, so that lists have several."""


class World:
    """One clock, one source of chance, and whether things still go wrong."""

    def __init__(self, seed: int) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.chance = Random(seed)
        self.faulty = True
        self.shared = SharedDirectory()

    def happens(self, probability: float) -> bool:
        """Whether this misfortune happens now."""
        return self.faulty and self.chance.random() < probability

    def delay(self, most: float) -> float:
        """How long something takes, in seconds."""
        return self.chance.uniform(0.0, most)


class SlowStore(MemoryStore):
    """Commits take their time and sometimes fail; one that is under way when its process is killed is lost."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self.process: Process = Process(world.clock)

    async def commit(self, changes: Sequence[Change]) -> None:
        written: Deferred[None] = Deferred()
        self.process.callLater(self._world.delay(0.2), written.callback, None)
        await written
        if self._world.happens(0.02):
            raise OSError("disk full")
        await super().commit(changes)


class Machine(FakeHypervisor):
    """A hypervisor whose starts fail now and then."""

    def __init__(self, world: World) -> None:
        super().__init__(images=["tashi.img"], facts=some_facts(cores=4, memory=4096), shared=world.shared)
        self._world = world

    def start(self, cell: str, order: Start) -> Observation:
        if order.uuid not in self._domains and self._world.happens(0.15):
            self.give_up(order.uuid, [disk.uri for disk in order.disks if disk.template])
            raise OurFault(INTERNAL, "qemu does not start")
        return super().start(cell, order)

    def prepare_disks(self, cell: str, order: PrepareDisks) -> None:
        if self._world.happens(0.1):
            self.give_up(order.uuid, [copy.name for copy in order.copies])
            raise OurFault(INTERNAL, "/images is full")
        super().prepare_disks(cell, order)

    def crash(self) -> None:
        """The plug is pulled: no domain survives."""
        self._domains.clear()

    def running(self) -> list[Start]:
        """The orders of all domains there are."""
        return [domain.order for domain in self._domains.values()]


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

    def close(self) -> None:
        self._agent.lose_link()


class Agent:
    """One host: its machine, and an agent that logs in, lists everything, and tells what happens."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self.name = name
        self.machine = Machine(world)
        self.cell: Cell | None = None
        self._start()

    def _start(self) -> None:
        self.process = Process(self._world.clock)
        self.machine._listeners.clear()
        self.executor = Executor(self.machine, self._run, self.process, self._note)
        self.machine.watch(self.executor.notice)
        self.link: Link | None = None
        self._listed = False
        self._untold: dict[int, Observation] = {}
        self.process.callLater(self._world.delay(2.0), self._connect)
        self.process.callLater(5.0, self._beat)

    def restart(self) -> None:
        """The agent's process is killed and begins again; its domains run on."""
        self.process.kill()
        self._drop()
        self._start()

    def power_cut(self) -> None:
        """The machine goes down and comes up empty."""
        self.process.kill()
        self._drop()
        self.machine.crash()
        self._world.clock.callLater(self._world.delay(60.0), self._start)

    def lose_link(self) -> None:
        """The connection breaks, and is made again after a while."""
        if self.link is not None:
            self._drop()
            self.process.callLater(self._world.delay(8.0), self._connect)

    def _drop(self) -> None:
        link, self.link, self._listed = self.link, None, False
        if link is not None:
            link.alive = False
            if self.cell is not None and self.cell.up:
                self.cell.manager.hosts.logout(self._host_id, link)

    def _run(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        process = self.process

        def call() -> None:
            if not process.alive and self._world.chance.random() < 0.5:
                return  # killed before libvirt had got it
            outcome: list[Any] = []
            Deferred.fromCoroutine(_call(function, arguments)).addBoth(outcome.append)
            process.callLater(self._world.delay(0.5), lambda: done.callback(outcome[0]))

        self._world.clock.callLater(self._world.delay(3.0 if self._world.faulty else 0.5), call)
        return done

    def _note(self, observation: Observation) -> None:
        self._untold[observation.instance_id] = observation
        self._flush()

    def _connect(self) -> None:
        if self.link is not None:
            return
        if self.cell is None or not self.cell.up:
            self.process.callLater(self._world.delay(4.0), self._connect)
            return
        link = self.link = Link(self._world, self)
        welcome = result_of(self.cell.manager.hosts.login(a_login(self.name), link))
        self._host_id = welcome.host_id
        self.executor.enter(welcome.cell)
        Deferred.fromCoroutine(self.executor.survey()).addCallback(self._list, link)

    def _list(self, seen: Sequence[Observation], link: Link) -> None:
        if link is not self.link:
            return
        pages = [tuple(seen[start : start + PAGE]) for start in range(0, len(seen), PAGE)] or [()]
        for number, page in enumerate(pages, start=1):
            self._report(link, page, full=True, page=number, pages=len(pages))
        self._listed = True
        self._flush()

    def _flush(self) -> None:
        if self.link is not None and self._listed and self._untold:
            told = dict(self._untold)
            self._report(self.link, tuple(told.values()), then=lambda: self._told(told))

    def _told(self, told: dict[int, Observation]) -> None:
        for number, observation in told.items():
            if self._untold.get(number) is observation:
                del self._untold[number]

    def _report(self, link: Link, seen: Sequence[Observation], then: Callable[[], object] = bool, **place: Any) -> None:
        report = Report(facts=self.machine.facts(), observations=tuple(seen), **place)

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


class Cell:
    """The manager on its rows, killed and started again; what it told is kept as its recipients saw it."""

    def __init__(self, world: World, agents: Sequence[Agent]) -> None:
        self._world = world
        self.agents = agents
        self.store = SlowStore(world)
        self.told: dict[str, dict[str, set[str]]] = {}
        """For each command, by its thread: the bodies told, by stanza id."""
        self.events: dict[int, set[str]] = {}
        self.up = False
        for agent in agents:
            agent.cell = self
        self.start()
        with self.manager.cluster.transaction("register_users") as tx:
            for user in USERS:
                tx.put_user(user)

    def start(self) -> None:
        """Begin on what the store has kept."""
        self.process = self.store.process = Process(self._world.clock)
        settings = ManagerSettings(trusted=frozenset({str(ISM.jid)}), layout_interval=1e9)
        self.manager = ClusterManager(self.process, self.store, Images(), settings, join_secret="join", version="1", publishing=True)  # type: ignore[arg-type]
        result_of(self.manager.open())
        self.manager.startService()
        self.manager.outbox.subscribe(self._publish_soon)
        self._publishing = False
        self._publish_soon()
        self.up = True

    def kill(self) -> None:
        """The process ends without a word; it is started again after a while."""
        self.up = False
        self.process.kill()
        for agent in self.agents:
            agent.lose_link()
        self._world.clock.callLater(self._world.delay(20.0), self.start)

    def _publish_soon(self) -> None:
        if not self._publishing:
            self._publishing = True
            self.process.callLater(self._world.delay(1.0), self._publish)

    def _publish(self) -> None:
        """Send what is outgoing; the confirmation comes later, if the process lives until then."""
        self._publishing = False
        rows = self.manager.outbox.pending()
        for row in rows:
            if row.to:
                self.told.setdefault(str(row.thread), {}).setdefault(row.stanza_id, set()).add(row.body)
            elif row.seq is not None:
                self.events.setdefault(row.seq, set()).add(row.body)
        manager = self.manager
        self.process.callLater(self._world.delay(1.0), lambda: manager.outbox.done([row.id for row in rows]))


class Sender:
    """Sends commands, some of them twice, and repeats what was not answered with the very same stanza."""

    def __init__(self, world: World, cell: Cell) -> None:
        self._world = world
        self._cell = cell
        self.commands: dict[str, Callable[[], None]] = {}
        self.names: dict[str, tuple[str, ...]] = {}
        """What each create asked for."""
        self._specs: dict[str, list[InstanceSpec]] = {}

    def act(self) -> None:
        """Send one command more."""
        chance = self._world.chance
        thread = f"t{len(self.commands)}"
        if self.names and chance.random() < 0.3:
            victim = chance.choice([name for names in self.names.values() for name in names])
            self._send(thread, "deletecompute", lambda origin: self._delete(origin, victim), victim)
            return
        if self.names and chance.random() < 0.2:
            victim = chance.choice([name for names in self.names.values() for name in names])
            update = InstanceUpdate(resource_id=f"r-{victim}", cores=chance.randint(1, 4), restart=True)
            self._send(thread, "reprovisioncompute", lambda origin: self._cell.manager.commands.update(ISM, origin, update), victim)
            return
        specs = [self._spec(f"{thread}-{number}") for number in range(chance.choice([1, 1, 1, 2, 3]))]
        if self.names and chance.random() < 0.2:  # the same as before, in a stanza of its own
            former = chance.choice(list(self.names))
            specs = self._specs[former]
        self._specs[thread] = specs
        self.names[thread] = tuple(spec.name for spec in specs)
        verb = "createcompute" if len(specs) == 1 else "createmanycompute"
        self._send(thread, verb, lambda origin: self._create(origin, specs), "")

    def ask_for(self, name: str) -> str:
        """A small machine of this name; the command's thread."""
        self._send(name, "createcompute", lambda origin: self._create(origin, [a_spec(name)]), "")
        return name

    def repeat(self) -> None:
        """Send again whatever has no answer."""
        if self._cell.up:
            for thread, command in self.commands.items():
                if thread not in self._cell.told:
                    command()

    def _spec(self, name: str) -> InstanceSpec:
        chance = self._world.chance
        disks = (Disk(uri="tashi", persistent=chance.random() < 0.3),)
        return a_spec(name, cores=chance.randint(1, 3), memory=chance.choice([128, 1024, 2048]), disks=disks, resource_id=f"r-{name}")

    def _send(self, thread: str, verb: str, call: Callable[[Any], None], what: str) -> None:
        origin = an_origin(f"stanza-{thread}", verb, thread=thread, fingerprint=thread + what)

        def command() -> None:
            if self._cell.up:
                call(origin)

        self.commands[thread] = command
        command()
        if self._world.happens(0.2):
            self._world.clock.callLater(self._world.delay(0.05), command)

    def _create(self, origin: Any, specs: Sequence[InstanceSpec]) -> None:
        self._cell.manager.commands.create(ISM, origin, specs, [str(spec) for spec in specs])

    def _delete(self, origin: Any, name: str) -> None:
        self._cell.manager.commands.delete(ISM, origin, name)


def outcome_of(bodies: dict[str, set[str]]) -> dict[str, Any]:
    """The one outcome that a command was told."""
    (body,) = {body for told in bodies.values() for body in told}
    found: dict[str, Any] = json.loads(body)
    return found
