"""The loop: what waits is planned on a snapshot, the plan is checked, one transaction makes it so, the hosts are told.

An event kicks it; the scheduleDelay is only the longest time without a pass.
"""

from __future__ import annotations

from twisted.logger import Logger

from tashi.errors import NO_SUITABLE_HOST, YourMistake
from tashi.manager.cluster import Cluster, Transaction
from tashi.manager.draining import Draining
from tashi.manager.lifecycle import advance
from tashi.manager.migrations import begin_waiting
from tashi.manager.settings import ManagerSettings
from tashi.manager.usage import Usage
from tashi.model.disks import copies_needed
from tashi.model.instance import Instance
from tashi.model.states import Happening
from tashi.scheduling.check import check
from tashi.scheduling.plan import Place, Postpone, in_words
from tashi.scheduling.policies import POLICIES
from tashi.scheduling.snapshot import Snapshot
from tashi.scheduling.terms import persistent_disks


class Convergence:
    """One pass over all that waits for a place."""

    log = Logger()

    def __init__(self, cluster: Cluster, settings: ManagerSettings, usage: Usage) -> None:
        self._cluster = cluster
        self._usage = usage
        self._settings = settings
        self._policy = POLICIES[settings.scheduling.policy]
        self._cursor = 0
        self.draining = Draining(cluster, settings, self.snapshot)

    def run(self) -> None:
        """Plan, check and place; an instance whose every host has failed it is held."""
        self.draining.run()
        begin_waiting(self._cluster, self._settings)
        if not self._cluster.pending:
            return
        snapshot = self.snapshot()
        plan = self._policy(snapshot)
        problems = check(plan, snapshot)
        if problems:
            self.log.error("a plan was not carried out: {problems}", problems="; ".join(problems))
            return
        words: dict[int, str] = {}  # instances that need the same are refused in the same words
        with self._cluster.transaction("carry_out_plan") as tx:
            for action in plan.actions:
                if not isinstance(action, Place | Postpone):
                    continue
                instance = tx.instance(action.instance_id)
                if instance is None:
                    continue
                if isinstance(action, Place):
                    self._place(tx, instance, action)
                    continue
                key = id(action.refusals)
                if key not in words:
                    words[key] = in_words(action.refusals)
                self._postpone(tx, instance, words[key])

    def snapshot(self) -> Snapshot:
        """The cluster as the policy sees it."""
        cluster = self._cluster
        waiting = [cluster.instances[instance_id] for instance_id in cluster.pending]
        return Snapshot(
            hosts=dict(cluster.hosts),
            placed={host_id: tuple(map(cluster.instances.__getitem__, ids)) for host_id, ids in cluster.on_host.items()},
            loads={host_id: load.copy() for host_id, load in cluster.loads.items()},
            usage=self._usage.by_host(),
            pending=tuple(sorted(waiting, key=lambda instance: (-self.priority(instance), instance.id))),
            settings=self._settings.scheduling,
            kept_disks=self._kept_disks() if any(map(persistent_disks, waiting)) else {},
            cursor=self._cursor,
            time=cluster.clock.seconds(),
        )

    def _kept_disks(self) -> dict[str, int]:
        """The disks that somebody's saved memory belongs to, until it goes on with both."""
        saved = (instance for instance in self._cluster.instances.values() if instance.saved and instance.host_id is None)
        return {uri: instance.id for instance in saved for uri in persistent_disks(instance)}

    def priority(self, instance: Instance) -> int:
        """Its user's priority and its SLA class's offset: higher is served first."""
        user = self._cluster.users.get(instance.user_id)
        sla = self._settings.sla_classes.get(instance.sla) if instance.sla else None
        return (user.priority if user else 0) + (sla.priority if sla else 0)

    def _place(self, tx: Transaction, instance: Instance, action: Place) -> None:
        generation = instance.generation + 1
        changes = {"host_id": action.host_id, "generation": generation, "started": generation, "placed_why": action.why}
        happening = Happening.DISK_NEEDED if copies_needed(instance) else Happening.PLACED
        if instance.saved:
            happening = Happening.RESUME_PLACED
        advance(tx, instance, happening, **changes)  # type: ignore[arg-type]
        self._cursor = action.host_id

    def _postpone(self, tx: Transaction, instance: Instance, reason: str) -> None:
        if instance.refused_by and set(instance.refused_by) >= set(self._cluster.hosts):
            error = YourMistake(NO_SUITABLE_HOST, f"no host could start {instance.name}: {instance.reason}")
            advance(tx, instance, Happening.FAILED, reason=instance.reason, error=error)
        elif reason != instance.reason and not instance.refused_by:
            if not instance.reason:
                self.log.info("{instance} waits for a place: {reason}", instance=instance.name, reason=reason)
            self._cluster.remark(instance.id, reason)
