"""Orders to hosts: sent when the change that calls for them is durable, one message a host and turn, over the link it has now.

An order that is lost with its link is not remembered here: the state of the instance is the memory, and the host's next login
repeats what it calls for.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any
from uuid import UUID

from tashi.interfaces import INodeLink
from tashi.manager.cluster import Cluster
from tashi.manager.reconcile import errands_of
from tashi.model.instance import Instance
from tashi.model.orders import Order


class Dispatch:
    """Keeps the links of the hosts that are ready for orders."""

    def __init__(self, reactor: Any, cluster: Cluster, cell: UUID) -> None:
        self._reactor = reactor
        self._cluster = cluster
        self._cell = cell
        self._ready: dict[int, INodeLink] = {}
        self._waiting: dict[int, dict[int, Order]] = defaultdict(dict)  # host -> instance -> its newest order
        self._scheduled = False
        cluster.order_listeners.append(self.order)

    def host_ready(self, host_id: int, link: INodeLink) -> None:
        """The host has told all it has; repeat what its instances call for."""
        self._ready[host_id] = link
        self._repeat(host_id)

    def host_gone(self, host_id: int) -> None:
        """No orders to this host until it has logged in again."""
        self._ready.pop(host_id, None)
        self._waiting.pop(host_id, None)

    def link_to(self, host_id: int | None) -> INodeLink | None:
        """The link of this host, when it is ready for orders."""
        return None if host_id is None else self._ready.get(host_id)

    def repeat(self) -> None:
        """Say again what has not happened yet; an agent that has done it, or is at it, only says so."""
        for host_id in self._ready:
            self._repeat(host_id)

    def order(self, instance: Instance) -> None:
        """Tell the instance's hosts what this state of it calls for; call it when the state is durable."""
        for host_id, order in errands_of(instance, self._cell):
            if host_id in self._ready:
                self._waiting[host_id][instance.id] = order
                if not self._scheduled:
                    self._scheduled = True
                    self._reactor.callLater(0, self._send)

    def _repeat(self, host_id: int) -> None:
        instances = [self._cluster.instances[instance_id] for instance_id in sorted(self._cluster.errands.get(host_id, ()))]
        unfinished = [instance for instance in instances if any(host == host_id for host, _ in errands_of(instance, self._cell))]

        def order() -> None:
            for instance in unfinished:
                self.order(instance)

        if unfinished:
            self._cluster.journal.when_written(order)

    def _send(self) -> None:
        self._scheduled = False
        waiting, self._waiting = self._waiting, defaultdict(dict)
        for host_id, orders in waiting.items():
            link = self._ready.get(host_id)
            needed = [order for order in orders.values() if self._still_stands(host_id, order)]
            if link is not None and needed:
                link.send(needed)

    def _still_stands(self, host_id: int, order: Order) -> bool:
        """Whether the record has not moved on; where it has, another order follows as soon as that is durable."""
        instance = self._cluster.instances.get(order.instance_id)
        return instance is not None and (host_id, order) in errands_of(instance, self._cell)
