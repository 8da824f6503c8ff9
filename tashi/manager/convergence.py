"""The loop: what waits is planned on a snapshot, the plan is checked, transactions make it so, the hosts are told.

An event kicks it; the scheduleDelay is only the longest time without a pass. The reactor is never held for long: a plan that takes its time
is made in a thread, and a large one is carried out in slices. What has changed meanwhile is not planned over: each slice is checked again
on the cluster as it is then, and what is no longer sound is left to the next pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from tashi.errors import NO_SUITABLE_HOST, OurFault, YourMistake
from tashi.manager.cluster import Cluster, Transaction
from tashi.manager.draining import Draining
from tashi.manager.lifecycle import advance, born_again
from tashi.manager.migrations import begin_waiting
from tashi.manager.picture import Picture
from tashi.manager.planner import Planner
from tashi.manager.powering import Powering
from tashi.manager.rebalancing import Rebalancing
from tashi.manager.settings import ManagerSettings
from tashi.manager.squeezing import grow, shrink
from tashi.manager.strays import generation_after
from tashi.model.disks import copies_needed
from tashi.model.states import Happening, InstanceState
from tashi.scheduling.check import check
from tashi.scheduling.plan import Action, Grow, Place, Plan, Postpone, PowerOff, PowerOn, Shrink, in_words
from tashi.scheduling.snapshot import Snapshot

AT_ONCE: Final = 100
"""Actions that are carried out in one turn of the reactor."""


class Convergence:
    """Passes over all that is to be planned."""

    log = Logger()

    def __init__(
        self, reactor: Any, cluster: Cluster, settings: ManagerSettings, picture: Picture, planner: Planner, powering: Powering
    ) -> None:
        self._reactor = reactor
        self._cluster = cluster
        self._settings = settings
        self._picture = picture
        self._planner = planner
        self._powering = powering
        self._seen = -1
        """The version of the records that was planned on last."""
        self._idle_until = 0.0
        self._failed = False
        self.draining = Draining(cluster, settings, picture.whole, planner.in_thread)
        self.rebalancing = Rebalancing(cluster, settings)

    def run(self) -> Deferred[None] | None:
        """One pass: go on with what is under way, then plan what there is to plan. Fires when all of it is carried out."""
        self.empty_hosts()
        self.rebalancing.proceed()
        if self._has_news() or self.rebalancing.is_due():
            return Deferred.fromCoroutine(self._plan())
        return None

    def empty_hosts(self) -> None:
        """Send away at once what can leave the hosts that are being emptied, and let those move whose turn it is."""
        self.draining.run()
        begin_waiting(self._cluster, self._settings)

    async def propose(self, *, rebalance: bool = True) -> tuple[Snapshot, Plan, int]:
        """What would be done now, by default moves that only better things included, and the version of the records that it is planned on.
        OurFault when the policy gives no sound plan."""
        version = -1

        def look() -> Snapshot:
            nonlocal version
            version = self._cluster.version
            return self._picture.whole(rebalance=rebalance)

        snapshot, plan = await self._planner.plan(look)
        return snapshot, plan, version

    async def carry_out(self, plan: Plan, version: int) -> None:
        """Carry out what still holds of a sound plan that was made on this version of the records, but for its moves: those that empty
        hosts are made by `draining`, the others by `rebalancing`."""
        words: dict[int, str] = {}  # instances that need the same are refused in the same words
        placements = [action for action in plan.actions if isinstance(action, Place | Postpone)]
        sound = True
        for first in range(0, len(placements), AT_ONCE):
            if first:
                await self._turn()
            sound = sound and self._cluster.version == version  # what has once changed without the plan's knowing remains so
            self._carry_out(placements[first : first + AT_ONCE], words, sound=sound)
            version = self._cluster.version
        # the plan may count on moves that have yet to be made
        self._carry_out([action for action in plan.actions if isinstance(action, Shrink | Grow | PowerOn | PowerOff)], words, sound=False)

    async def _plan(self) -> None:
        if self._has_news():
            await self._pass(rebalance=False)
        if self.rebalancing.is_due():
            plan = await self._pass(rebalance=True)
            self.rebalancing.take(plan)

    async def _pass(self, *, rebalance: bool) -> Plan:
        self._idle_until = self._cluster.clock.seconds() + self._settings.schedule_delay
        before = self._cluster.version
        try:
            _, plan, self._seen = await self.propose(rebalance=rebalance)
        except OurFault as fault:
            self._seen, self._failed = before, True
            await self._blame(fault)
            return Plan()
        self._failed = False
        await self.carry_out(plan, self._seen)
        return plan

    def _has_news(self) -> bool:
        """Whether there is anything to plan that was not when the last plan was made. What waits for nothing but time, such as hosts to be
        switched off, is looked after once a scheduleDelay."""
        cluster = self._cluster
        if cluster.pending and cluster.version != self._seen:
            return True
        lasting = self._settings.scheduling.auto_powering or cluster.shrunk or (self._failed and cluster.pending)
        return bool(lasting) and cluster.clock.seconds() >= self._idle_until

    async def _blame(self, fault: OurFault) -> None:
        """Let what waits say that it is not its own fault."""
        waiting = sorted(self._cluster.pending)
        for first in range(0, len(waiting), AT_ONCE):
            if first:
                await self._turn()
            for number in waiting[first : first + AT_ONCE]:
                instance = self._cluster.instances.get(number)
                if (
                    instance is not None
                    and number in self._cluster.pending
                    and not instance.refused_by
                    and instance.reason != fault.message
                ):
                    self._cluster.remark(number, fault.message)

    def _turn(self) -> Deferred[None]:
        """The reactor's next turn."""
        turn: Deferred[None] = Deferred()
        self._reactor.callLater(0, turn.callback, None)
        return turn

    def _carry_out(self, actions: Sequence[Action], words: dict[int, str], *, sound: bool) -> None:
        """Carry out those of the actions that are sound now; as a whole when all of them are, else by halves."""
        if not sound:
            actions = [action for action in actions if self._still_concerns(action)]
            if not actions:
                return
            if check(Plan(actions=tuple(actions)), self._picture.around(actions)):
                if len(actions) > 1:
                    middle = len(actions) // 2
                    self._carry_out(actions[:middle], words, sound=False)
                    self._carry_out(actions[middle:], words, sound=False)
                return
        self._do(actions, words)

    def _still_concerns(self, action: Action) -> bool:
        """Whether what the action is about is still as the plan took it to be."""
        match action:
            case Place() | Postpone():
                return action.instance_id in self._cluster.pending
            case Shrink() | Grow():
                instance = self._cluster.instances.get(action.instance_id)
                return instance is not None and instance.state is InstanceState.Running
            case _:
                return True

    def _do(self, actions: Sequence[Action], words: dict[int, str]) -> None:
        with self._cluster.transaction("carry_out_plan") as tx:
            for action in actions:
                match action:
                    case Place():
                        self._place(tx, action)
                    case Postpone():
                        key = id(action.refusals)
                        if key not in words:
                            words[key] = in_words(action.refusals)
                        self._postpone(tx, action, words[key])
                    case Shrink() if (instance := tx.instance(action.instance_id)) is not None:
                        shrink(tx, instance, action)
                    case Grow() if (instance := tx.instance(action.instance_id)) is not None:
                        grow(tx, instance, action)
        for action in actions:
            match action:
                case PowerOn():
                    self._powering.switch_on(action.host_id, action.why)
                case PowerOff():
                    self._powering.switch_off(action.host_id, action.why)

    def _place(self, tx: Transaction, action: Place) -> None:
        instance = tx.instance(action.instance_id)
        if instance is None:
            return
        generation = generation_after(tx.cluster, instance)
        changes: dict[str, Any] = {
            "host_id": action.host_id,
            "generation": generation,
            "started": generation,
            "placed_why": action.why,
        }
        changes |= born_again(tx, instance)
        happening = Happening.DISK_NEEDED if copies_needed(instance) else Happening.PLACED
        if instance.saved:
            happening = Happening.RESUME_PLACED
        advance(tx, instance, happening, **changes)
        self._picture.cursor = action.host_id

    def _postpone(self, tx: Transaction, action: Postpone, reason: str) -> None:
        instance = tx.instance(action.instance_id)
        if instance is None:
            return
        if instance.refused_by and self._cluster.hosts.keys() <= set(instance.refused_by):
            error = YourMistake(NO_SUITABLE_HOST, f"no host could start {instance.name}: {instance.reason}")
            advance(tx, instance, Happening.FAILED, reason=instance.reason, error=error)
        elif reason != instance.reason and not instance.refused_by:
            if not instance.reason:
                self.log.info("{instance} waits for a place: {reason}", instance=instance.name, reason=reason)
            self._cluster.remark(instance.id, reason)
