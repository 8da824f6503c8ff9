"""The control plane of a simulated cell: the real cluster manager on its rows, killed and started again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred

from tashi.manager.service import ClusterManager
from tashi.manager.settings import ManagerSettings
from tashi.scheduling.policies import POLICIES
from tashi.scheduling.snapshot import SchedulingSettings
from tests.builders import ISM, JOIN_SECRET, USERS
from tests.simulation.hosts import Agent
from tests.simulation.world import SlowStore, World
from tests.small_cell import Images, Process, result_of

_POLICIES: Final = ("Primitive", "Balanced", "Consolidated", "Primitive")


class Cell:
    """The manager on its rows, killed and started again; what it told is kept as its recipients saw it."""

    def __init__(self, world: World, agents: Sequence[Agent]) -> None:
        self._world = world
        self.agents = agents
        self.store = SlowStore(world)
        self.told: dict[str, dict[str, set[str]]] = {}
        """For each command, by its thread: the bodies told, by stanza id."""
        self.told_at: dict[str, float] = {}
        """When each command was first told its outcome."""
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
        policy = _POLICIES[self._world.seed % len(_POLICIES)]
        scheduling = SchedulingSettings(policy=policy, auto_migrations=policy != "Primitive", min_gain=0.01, hold_rounds=1, cooldown=10.0)
        settings = ManagerSettings(trusted=frozenset({str(ISM.jid)}), layout_interval=1e9, scheduling=scheduling, rebalance_interval=3.0)
        self.manager = ClusterManager(
            self.process,
            self.store,
            Images(self._forget_saved, self._world.shared.saved.__contains__),
            settings,
            lambda snapshot: POLICIES[policy](snapshot),  # as another package's, which is always asked in a thread
            join_secret=JOIN_SECRET,
            version="1",
            publishing=True,
            in_thread=self._slowly,
            random_bytes=self._world.incarnations.randbytes,
            wall=self._world.wall,
        )
        result_of(self.manager.open())
        self.manager.startService()
        self.manager.outbox.subscribe(self._publish_soon)
        self._publishing = False
        self._publish_soon()
        self.up = True

    def _slowly(self, work: Callable[[], Any]) -> Deferred[Any]:
        """As a thread does it that takes its time."""
        done: Deferred[Any] = Deferred()
        outcome = maybeDeferred(work)
        self.process.callLater(self._world.delay(1.0), lambda: outcome.chainDeferred(done))
        return done

    def _forget_saved(self, saved: str) -> None:
        self._world.shared.saved.pop(saved, None)

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
                self.told_at.setdefault(str(row.thread), self._world.clock.seconds())
                self.told.setdefault(str(row.thread), {}).setdefault(row.stanza_id, set()).add(row.body)
            elif row.seq is not None:
                self.events.setdefault(row.seq, set()).add(row.body)
        manager = self.manager
        self.process.callLater(self._world.delay(1.0), lambda: manager.outbox.done([row.id for row in rows]))
