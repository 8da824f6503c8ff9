"""Waiting for instances on behalf of a client: answered when each has got where it was wished, has failed, or time is up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred

from tashi.clocks import LastResort
from tashi.errors import BAD_ARGUMENT, BUSY, YourMistake
from tashi.manager.cluster import Cluster
from tashi.manager.squeezing import fault
from tashi.model.host import Host
from tashi.model.instance import Instance
from tashi.model.states import InstanceState

Row = dict[str, Any]
UNTIL: Final = ("Running", "Paused", "Suspended", "adapted", "migrated", "gone")
MOST_IDS: Final = 1000
"""Different instances that one call may wait for."""
MOST_WAITED: Final = 50_000
"""Instances that all calls of one user together may wait for."""
_AT_REST: Final = frozenset({InstanceState.Running, InstanceState.Paused, InstanceState.Suspended, InstanceState.Held})
"""Where an instance stays until somebody wishes something else."""


class Waiting:
    """Watches the cluster for those who wait."""

    def __init__(self, reactor: Any, cluster: Cluster) -> None:
        self._reactor = reactor
        self._cluster = cluster
        self._waiters: dict[int, dict[_Waiter, None]] = {}
        self._waited: dict[int | None, int] = {}  # instances that a user's calls wait for
        cluster.watchers.append(self._changed)

    async def wait(self, user_id: int | None, ids: Sequence[int], until: str, timeout: float) -> list[Row]:
        """One row for each different instance: ``id``, ``ok``, ``state``, ``reason``. ``until`` is one of `UNTIL`; ``timeout`` in seconds.

        YourMistake(bad-argument) for more than MOST_IDS, YourMistake(busy) when the user waits for MOST_WAITED already.
        """
        wanted = tuple(dict.fromkeys(ids))
        if len(wanted) > MOST_IDS:
            raise YourMistake(BAD_ARGUMENT, f"ids names {len(wanted)} instances; wait for at most {MOST_IDS} at a time")
        waited = self._waited.get(user_id, 0) + len(wanted)
        if waited > MOST_WAITED:
            raise YourMistake(BUSY, f"your calls would wait for {waited} instances, more than {MOST_WAITED}; end some of them")
        self._waited[user_id] = waited
        waiter = _Waiter(set(wanted), until)
        call = None
        try:
            for instance_id in wanted:
                self._waiters.setdefault(instance_id, {})[waiter] = None
                instance = self._cluster.instances.get(instance_id)
                if instance is None:
                    waiter.settle(instance_id, until == "gone", "Exited", "it is gone")
                else:
                    self._look(waiter, instance)
            if not waiter.done.called:
                call = LastResort(self._reactor, timeout, lambda: waiter.time_up(self._cluster))
            await waiter.done
        finally:
            if call is not None and call.active():
                call.cancel()
            self._forget(user_id, wanted, waiter)
        return [waiter.rows[instance_id] for instance_id in wanted]

    def _forget(self, user_id: int | None, ids: Sequence[int], waiter: _Waiter) -> None:
        """Whoever waited has been answered, or is gone."""
        for instance_id in ids:
            waiters = self._waiters.get(instance_id, {})
            waiters.pop(waiter, None)
            if not waiters:
                self._waiters.pop(instance_id, None)
        self._waited[user_id] -= len(ids)
        if not self._waited[user_id]:
            del self._waited[user_id]

    def _changed(self, record: Instance | Host) -> None:
        if isinstance(record, Instance):
            for waiter in list(self._waiters.get(record.id, ())):
                self._look(waiter, record)
        elif not record.draining:
            for number in self._cluster.on_host.get(record.id, set()) & self._waiters.keys():
                self._changed(self._cluster.instances[number])

    def _look(self, waiter: _Waiter, instance: Instance) -> None:
        """Let one that waits see the instance, unless that is still to be sent away from a host that is being emptied."""
        host = self._cluster.hosts.get(instance.host_id or 0)
        leaves = host is not None and host.draining and instance.state is InstanceState.Running and not fault(instance)
        if not (leaves and waiter.until == "migrated"):
            waiter.look(instance)


class _Waiter:
    def __init__(self, ids: set[int], until: str) -> None:
        self.until = until
        self.open = ids
        self.rows: dict[int, Row] = {}
        self.done: Deferred[None] = Deferred()
        if not ids:
            self.done.callback(None)

    def look(self, instance: Instance) -> None:
        state = instance.state
        if state is InstanceState.Exited:
            self.settle(instance.id, self.until == "gone", state.name, instance.reason)
        elif self.until == "adapted":
            if not instance.tasks:
                self.settle(instance.id, not fault(instance), state.name, instance.reason)
        elif self.until == "migrated" and state is InstanceState.Running:
            self.settle(instance.id, not fault(instance), state.name, instance.reason)
        elif state in _AT_REST and self.until != "gone":
            self.settle(instance.id, state.name == self.until, state.name, instance.reason)

    def settle(self, instance_id: int, ok: bool, state: str, reason: str) -> None:
        if instance_id in self.open:
            self.open.discard(instance_id)
            self.rows[instance_id] = {"id": instance_id, "ok": ok, "state": state, "reason": reason}
            if not self.open and not self.done.called:
                self.done.callback(None)

    def time_up(self, cluster: Cluster) -> None:
        for instance_id in sorted(self.open):
            instance = cluster.instances.get(instance_id)
            state = instance.state.name if instance else "Exited"
            why = instance.reason if instance and instance.reason else "it took too long"
            self.settle(instance_id, False, state, f"time is up: {why}")
