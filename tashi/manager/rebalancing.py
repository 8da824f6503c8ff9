"""Running instances are moved to where they are better off: after a hold, a few at once, and one plan to its end before the next.

Every rebalanceInterval a round looks for moves. When so many rounds in a row have found some that pay, those of the last one become
the programme, whose steps are begun in their order as they fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from twisted.logger import Logger

from tashi.errors import CONFLICT, YourMistake
from tashi.manager.cluster import Cluster
from tashi.manager.migrations import REBALANCE, migrate, refusal
from tashi.manager.settings import ManagerSettings
from tashi.model.host import Host
from tashi.model.instance import Instance
from tashi.model.states import InstanceState
from tashi.scheduling.moving.calm import Calm
from tashi.scheduling.moving.programme import Programme, Step, programme
from tashi.scheduling.plan import Migrate, Plan
from tashi.scheduling.terms import can_move, is_ready

_ON_THE_WAY: Final = frozenset({InstanceState.MigratePrep, InstanceState.MigrateTrans})
_STARTING: Final = frozenset({InstanceState.PreparingDisk, InstanceState.Activating})
AT_ONCE: Final = 20
"""Steps that are looked at in one turn of the reactor: each of a long programme takes its time."""
WHO: Final = "the scheduler"


class Rebalancing:
    """The rounds, and the programme that comes of them."""

    log = Logger()

    def __init__(self, cluster: Cluster, settings: ManagerSettings) -> None:
        self._cluster = cluster
        self._settings = settings
        self._calm = Calm()
        self._programme = Programme()
        self._next_round = cluster.clock.seconds() + settings.rebalance_interval
        self._starting: set[int] = set()
        if settings.reschedule_after_start and settings.scheduling.auto_migrations:
            cluster.watchers.append(self._look_for_starts)

    @property
    def is_moving(self) -> bool:
        """Whether a programme is under way."""
        return not self._programme.is_done

    def is_due(self) -> bool:
        """Whether a round is to look for moves now."""
        auto = self._settings.scheduling.auto_migrations
        return auto and not self.is_moving and self._cluster.clock.seconds() >= self._next_round

    def take(self, plan: Plan) -> None:
        """What the round has found: nothing is moved before it has lasted."""
        now, settings = self._cluster.clock.seconds(), self._settings
        self._next_round = now + settings.rebalance_interval
        moves = moves_of(plan)
        self._calm = self._calm.after(bool(moves), now, settings.rebalance_interval)
        if moves and not self.is_moving and self._calm.lasts(settings.scheduling.hold_rounds):
            self.begin(moves)

    def begin(self, moves: Sequence[Migrate]) -> None:
        """Make these moves, beginning now; YourMistake(conflict) when those of an earlier plan are not at their end."""
        self.require_rest()
        self._calm = Calm()
        concerned = [one for move in moves if (one := self._cluster.instances.get(move.instance_id)) is not None]
        self._programme = programme(moves, {one.id: one.host_id for one in concerned if one.host_id is not None})
        self.log.info("{count} moves are begun", count=len(self._programme.waiting))
        self.proceed()

    def require_rest(self) -> None:
        """YourMistake(conflict) when the moves of a plan are not at their end."""
        if self.is_moving:
            left = len(self._programme.waiting) + len(self._programme.under_way)
            raise YourMistake(CONFLICT, f"{left} moves of an earlier plan are still to be made; try again when they are")

    def proceed(self) -> None:
        """Take note of what has become of the steps that were begun, and begin those whose turn it is."""
        if not self.is_moving:
            return
        for step in self._programme.under_way:
            self._programme = self._after(step)
        tried: list[Step] = []
        while len(tried) < AT_ONCE and len(self._on_the_way()) < self._settings.scheduling.most_moves:
            following = self._programme.next_free(tried)
            if following is None:
                break
            tried.append(following)
            self._programme = self._begun(following)
        if not self.is_moving:
            self._next_round = self._cluster.clock.seconds() + self._settings.rebalance_interval
            self.log.info("the moves are at their end")

    def _after(self, step: Step) -> Programme:
        """The programme when this step that was begun has been looked after."""
        instance = self._cluster.instances.get(step.instance_id)
        if instance is None:
            return self._programme.gone(step)
        if instance.host_id == step.target:
            arrived = instance.state is not InstanceState.MigrateTrans
            return self._programme.taken(step) if arrived else self._programme
        if instance.state in _ON_THE_WAY and instance.migration is not None and instance.migration.target == step.target:
            return self._programme
        return self._programme.failed(step) if instance.host_id == step.source else self._programme.gone(step)

    def _begun(self, step: Step) -> Programme:
        """The programme when this waiting step has been begun, is dropped, or goes on waiting."""
        instance, target = self._cluster.instances.get(step.instance_id), self._cluster.hosts.get(step.target)
        if instance is None or instance.host_id != step.source:
            return self._programme.gone(step)
        if target is None:
            return self._programme.failed(step)
        if not can_move(instance):
            return self._programme if self._is_cleared_soon(instance) else self._programme.failed(step)
        scheduling = self._settings.scheduling
        if sum(one.host_id == step.source for one in self._on_the_way()) >= scheduling.most_moves_per_host:
            return self._programme
        reason = refusal(self._cluster, instance, target, scheduling)
        if reason is not None:
            if is_ready(target) and self._is_left_soon(target):
                return self._programme
            self.log.info("{instance} is not moved to {host}: it {reason}", instance=instance.name, host=target.name, reason=reason)
            return self._programme.failed(step)
        with self._cluster.transaction("rebalance") as tx:
            migrate(tx, instance, target, scheduling, who=WHO, verb=REBALANCE, why=step.why)
        return self._programme.begun(step)

    def _on_the_way(self) -> list[Instance]:
        """All that move now, whoever asked for it."""
        return [one for number in self._cluster.moving if (one := self._cluster.instances[number]).state in _ON_THE_WAY]

    def _is_cleared_soon(self, instance: Instance) -> bool:
        """Whether all that keeps it from moving is what is left of an earlier stay, on hosts that will clear it away."""
        hosts = [self._cluster.hosts.get(one.host_id) for one in instance.residue]
        return instance.state is InstanceState.Running and bool(hosts) and not instance.tasks and all(one and one.up for one in hosts)

    def _is_left_soon(self, host: Host) -> bool:
        """Whether somebody is leaving this host, or has left and what is left of it is being cleared away."""
        there = (self._cluster.instances[number] for number in self._cluster.errands.get(host.id, ()))
        return any((one.state in _ON_THE_WAY if one.host_id == host.id else one.migration is None) for one in there)

    def _look_for_starts(self, record: Instance | Host) -> None:
        """When an instance has reached Running after its start, the next round is now."""
        if not isinstance(record, Instance):
            return
        if record.state in _STARTING:
            self._starting.add(record.id)
        elif record.id in self._starting:
            self._starting.discard(record.id)
            if record.state is InstanceState.Running:
                self._next_round = self._cluster.clock.seconds()


def moves_of(plan: Plan) -> tuple[Migrate, ...]:
    """The moves that only better things."""
    return tuple(action for action in plan.actions if isinstance(action, Migrate) and not action.evacuates)
