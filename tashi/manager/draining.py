"""Hosts that are being emptied: each of their running instances moves to the emptiest host that takes it.

One that no host takes stays, and its reason says why; it is tried again with every pass. A target that failed it is left in peace a while.
"""

from __future__ import annotations

from typing import Final

import msgspec

from tashi.manager.cluster import Cluster, Transaction
from tashi.manager.migrations import migrate, refusal
from tashi.manager.settings import ManagerSettings
from tashi.model.events import host_action
from tashi.model.host import Host
from tashi.model.instance import Instance
from tashi.model.states import HostState, InstanceState
from tashi.scheduling.plan import Refusal, in_words

PAUSE: Final = 30.0
"""Seconds before a target is tried again that an instance was sent to in vain."""


def begin(tx: Transaction, host: Host) -> Host:
    """Let this host take nothing new, and have it emptied."""
    after = msgspec.structs.replace(host, state=HostState.Drained, draining=True)
    tx.put_host(after)
    return after


class Draining:
    """Moves instances off the hosts that are being emptied."""

    def __init__(self, cluster: Cluster, settings: ManagerSettings) -> None:
        self._cluster = cluster
        self._settings = settings
        self._sent: dict[tuple[int, int], float] = {}  # instance and target, and when
        self._said: dict[int, str] = {}  # why instances stay

    def run(self) -> None:
        """One pass: send away what can go, and say which hosts are empty."""
        now = self._cluster.clock.seconds()
        self._sent = {sent: then for sent, then in self._sent.items() if now - then < PAUSE}
        draining = [host for host in self._cluster.hosts.values() if host.draining]
        stay: set[int] = set()
        for host in draining:
            instances = [self._cluster.instances[number] for number in sorted(self._cluster.on_host.get(host.id, ()))]
            if not instances:
                with self._cluster.transaction("end_draining") as tx:
                    after = msgspec.structs.replace(host, draining=False)
                    tx.put_host(after)
                    tx.tell(host_action("drained", after))
            for instance in instances:
                stay.add(instance.id)
                if instance.state is InstanceState.Running and not instance.tasks:
                    self._send_away(host, instance)
                elif instance.state is InstanceState.Paused:
                    self._say(instance, f"cannot leave {host.name}: it is Paused; it goes when it runs again")
        for number in self._said.keys() - stay:
            self._unsay(number)

    def _send_away(self, host: Host, instance: Instance) -> None:
        refusals: list[Refusal] = []
        takers: list[Host] = []
        for other in self._cluster.hosts.values():
            reason = refusal(self._cluster, instance, other, self._settings.scheduling)
            if reason is None:
                if (instance.id, other.id) not in self._sent:
                    takers.append(other)
            elif other.id != host.id:
                refusals.append(Refusal(host=other.name, reason=reason))
        if takers:
            target = min(takers, key=lambda one: (self._cluster.loads[one.id].count, one.id))
            self._sent[instance.id, target.id] = self._cluster.clock.seconds()
            with self._cluster.transaction("drain_instance") as tx:
                migrate(tx, instance, target, self._settings.scheduling, who=f"the draining of {host.name}", verb="drainhost")
        elif not any((instance.id, other) in self._sent for other in self._cluster.hosts):  # its reason is why it failed there
            self._say(instance, f"cannot leave {host.name}: {in_words(tuple(refusals)) if refusals else 'there is no other host'}")

    def _say(self, instance: Instance, reason: str) -> None:
        self._said[instance.id] = reason
        if reason != instance.reason:
            self._cluster.remark(instance.id, reason)

    def _unsay(self, number: int) -> None:
        said, instance = self._said.pop(number), self._cluster.instances.get(number)
        if instance is not None and instance.reason == said:
            self._cluster.remark(number, "")
