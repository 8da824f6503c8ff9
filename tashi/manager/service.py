"""The cluster manager as one service: its parts made and joined, its loops started and stopped."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.task import deferLater
from twisted.logger import Logger

from tashi.clocks import Clock, WallClock
from tashi.interfaces import IPower, IStore
from tashi.limited_log import LimitedLog
from tashi.manager.cluster import Cluster
from tashi.manager.commands import Commands
from tashi.manager.consoles import Consoles
from tashi.manager.convergence import Convergence
from tashi.manager.creation import Creation
from tashi.manager.deadlines import Deadlines
from tashi.manager.dispatch import Dispatch
from tashi.manager.explanation import Explanation
from tashi.manager.guarded import KickableLoop
from tashi.manager.hosts import Hosts
from tashi.manager.images import Directory, Images
from tashi.manager.journal import Journal
from tashi.manager.layout import Layout
from tashi.manager.lookup import Lookup
from tashi.manager.marks import Marks, tell_of_absence
from tashi.manager.network_cards import NetworkCards
from tashi.manager.outbox import Outbox
from tashi.manager.picture import Picture
from tashi.manager.planner import InThread, Planner
from tashi.manager.power_verbs import PowerVerbs
from tashi.manager.powering import Powering
from tashi.manager.proposals import Proposals
from tashi.manager.questions import Questions
from tashi.manager.refused_calls import RefusedCalls
from tashi.manager.refused_logins import RefusedLogins
from tashi.manager.settings import ManagerSettings
from tashi.manager.sla_warnings import SlaWarnings
from tashi.manager.snapshots import Snapshots
from tashi.manager.specific import SpecificCalls
from tashi.manager.status import Status, hosts_part, instances_part, outbox_part, queues_part, store_part
from tashi.manager.stray_verbs import StrayVerbs
from tashi.manager.strays import Strays
from tashi.manager.usage import Usage
from tashi.manager.verbs import Verbs
from tashi.manager.waiting import Waiting
from tashi.model.host import Host
from tashi.model.instance import Instance
from tashi.model.states import InstanceState
from tashi.model.store_status import StoreStatus
from tashi.model.user import User
from tashi.scheduling.policies import POLICIES, Policy

FLOOD_PAUSE = 0.01
"""Seconds between two passes of a flood: short beside a start, long enough for many requests to be planned together."""

REPEAT_SECONDS = 30.0
STOP_SECONDS = 5.0


class ClusterManager(Service):
    """Everything between the doors and the store. `open` it before its doors are opened."""

    log = Logger()
    name = "cluster manager"

    commands: Commands
    verbs: Verbs
    hosts: Hosts
    node_door: RefusedLogins
    status: Status
    outbox: Outbox
    usage: Usage
    powering: Powering
    picture: Picture
    marks: Marks

    def __init__(
        self,
        reactor: Any,
        store: IStore,
        images: Directory,
        settings: ManagerSettings,
        policy: Policy = POLICIES["Primitive"],
        *,
        join_secret: str,
        version: str,
        publishing: bool,
        make_power: Callable[[Callable[[Host], Awaitable[None]]], IPower | None] = lambda shut_down: None,
        in_thread: InThread | None = None,
        wall: Clock | None = None,
        first_free_uid: Callable[[int], int] = lambda least: least,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
        write_audit: Callable[[str], None] | None = None,
    ) -> None:
        """``make_power`` makes the driver that switches hosts on and off, of a way to have a host's agent shut its machine down;
        ``in_thread`` makes plans that would hold the reactor for too long; without it every plan is made in the reactor;
        ``wall`` gives the time of day, without it the machine's; ``first_free_uid`` gives the lowest number from another on that no
        user of the control plane's machine has; ``random_bytes`` draws the incarnations of instances; ``write_audit`` takes the
        lines of the audit log, without it they go to the program's log."""
        self._random_bytes = random_bytes
        self._first_free_uid = first_free_uid
        self._reactor = reactor
        self._wall = wall or WallClock()
        self._write_audit = write_audit
        self._store = store
        self._images = images
        self._settings = settings
        self._join_secret = join_secret
        self._version = version
        self._publishing = publishing
        self._make_power = make_power
        self._planner = Planner(policy, settings.scheduling.policy, in_thread)
        self._loops: list[KickableLoop] = []

    async def open(self) -> None:
        """Take over what the store has kept, and make the parts."""
        reactor, settings = self._reactor, self._settings
        tables = await self._store.load()
        self.journal = Journal(reactor, self._store)
        cluster = self.cluster = Cluster(
            reactor, self.journal, "tashi", publishing=self._publishing, wall=self._wall, random_bytes=self._random_bytes
        )
        cluster.write_audit = self._write_audit
        cluster.restore(tables)
        cell = uuid.UUID(cluster.setting("cell", lambda: str(uuid.UUID(bytes=secrets.token_bytes(16), version=4))))
        cluster.source = f"tashi-{cell.hex[:8]}"
        marks = self.marks = Marks(cluster, self._store, str(cell))
        marks.begin()
        self.journal.when_back.append(partial(tell_of_absence, cluster))
        if 0 not in cluster.users:
            with cluster.transaction("register_root") as tx:
                tx.put_user(User(id=0, name="root"))
        dispatch = Dispatch(reactor, cluster, cell)
        usage = self.usage = Usage(cluster)
        picture = self.picture = Picture(cluster, settings, usage)
        planning = KickableLoop(reactor, settings.schedule_delay, lambda: convergence.run(), "planning", pause=FLOOD_PAUSE)
        cards = NetworkCards(cluster)
        questions = Questions(cluster, cell, dispatch.link_to)
        images = Images(cluster, self._images)
        images.adopt_copies()
        creation = Creation(cluster, images, settings, cards)
        explanation = Explanation(cluster, picture, self._planner.apart)
        self.layout = Layout(reactor, cluster, settings.layout_interval, settings.ratings, usage)
        self.outbox = Outbox(cluster, self.layout.limit_parts)
        limited = self._limited = LimitedLog(reactor, Logger("tashi.manager"))
        strays = Strays(cluster, limited)
        others = (planning.kick, usage, cards, marks, limited, self._images, strays)
        self.hosts = Hosts(cluster, dispatch, settings, cell, self._join_secret, self._version, *others)
        self.node_door = RefusedLogins(self.hosts, cluster)
        power = self._make_power(questions.shut_down)
        self.powering = Powering(reactor, cluster, settings, power, self.hosts.let_go, planning.kick)
        convergence = Convergence(reactor, cluster, settings, picture, self._planner, self.powering)
        lookup = Lookup(cluster, self._store)
        self.commands = Commands(cluster, lookup, creation, explanation, settings, planning.kick, limited)
        waiting = Waiting(reactor, cluster)
        cluster.watchers.append(self._forget_saved)
        specific = SpecificCalls(cluster, images, questions)
        status = self.status = Status(cluster, self._version)
        status.add("hosts", lambda: hosts_part(cluster.hosts))
        status.add("instances", lambda: instances_part(cluster))
        status.add("queues", lambda: queues_part(cluster))
        status.add("outbox", lambda: outbox_part(cluster))
        status.add("store", lambda: store_part(self.store_status(), cluster.wall.seconds()))
        parts = (
            status,
            Consoles(cluster, lookup, questions),
            StrayVerbs(
                cluster,
                strays,
                questions,
                dispatch,
                cell,
                planning.kick,
                allow_duplicate_names=settings.allow_duplicate_names,
            ),
            PowerVerbs(cluster, self.powering, settings.ratings),
            Proposals(cluster, convergence, self._planner, planning.kick),
            Snapshots(cluster, picture.whole, self._planner.apart),
        )
        kicks = (planning.kick, convergence.empty_hosts)
        refused = RefusedCalls(cluster)
        self.verbs = Verbs(
            cluster, creation, images, explanation, waiting, settings, *kicks, usage, specific, parts, self._first_free_uid, refused
        )
        deadlines, warnings = Deadlines(cluster, settings), SlaWarnings(cluster, settings)
        self.hosts.begin()

        def each_second() -> Deferred[None]:
            return deferLater(reactor, 0.0, judge)  # what others said before this moment is read first

        def judge() -> None:
            cluster.awake.look()
            self.hosts.check_leases()
            deadlines.check()
            warnings.check()

        def each_minute() -> None:
            deadlines.forget()
            usage.forget()
            self.commands.tell_strangers()
            self.hosts.send_marks()
            self.node_door.tell()
            refused.tell()

        self._loops = [
            planning,
            KickableLoop(reactor, 1.0, each_second, "deadlines"),
            KickableLoop(reactor, 60.0, each_minute, "upkeep"),
            KickableLoop(reactor, REPEAT_SECONDS, dispatch.repeat, "repeat orders"),
        ]
        self.log.info(
            "cell {cell}: {instances} instances, {hosts} hosts, {users} users",
            cell=cell,
            instances=len(cluster.instances),
            hosts=len(cluster.hosts),
            users=len(cluster.users),
        )

    def _forget_saved(self, record: Instance | Host) -> None:
        if isinstance(record, Instance) and record.saved and record.state is InstanceState.Exited:
            self.cluster.journal.when_written(lambda: self._images.forget_saved(record.saved, self.cluster.settings["cell"]))

    def store_status(self) -> StoreStatus:
        """Return how the store is, with warnings for the operator; it waits for nothing."""
        return self.journal.told_by(msgspec.structs.replace(self._store.status(), warnings=self.marks.warnings))

    def startService(self) -> None:
        super().startService()
        self.powering.begin()
        for loop in self._loops:
            loop.start()
        self.layout.start()

    def stopService(self) -> Deferred[None]:
        super().stopService()
        for loop in self._loops:
            loop.stop()
        self.layout.stop()
        self._limited.close()
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        try:
            await self.journal.written().addTimeout(STOP_SECONDS, self._reactor)
        except TimeoutError:
            self.log.error("the store does not take the last changes; nobody has been told of them")
        await self._store.close()
