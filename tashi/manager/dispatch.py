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
from tashi.manager.reconcile import order_for


class Dispatch:
    """Keeps the links of the hosts that are ready for orders."""

    def __init__(self, reactor: Any, cluster: Cluster, cell: UUID) -> None:
        self._reactor = reactor
        self._cluster = cluster
        self._cell = cell
        self._ready: dict[int, INodeLink] = {}
        self._waiting: dict[int, dict[int, None]] = defaultdict(dict)  # host -> instances, in the order they came
        self._scheduled = False
        cluster.order_listeners.append(lambda instance: self.order(instance.id))

    def host_ready(self, host_id: int, link: INodeLink) -> None:
        """The host has told all it has; repeat what its instances call for."""
        self._ready[host_id] = link
        for instance_id in sorted(self._cluster.on_host.get(host_id, ())):
            self.order(instance_id)

    def host_gone(self, host_id: int) -> None:
        """No orders to this host until it has logged in again."""
        self._ready.pop(host_id, None)
        self._waiting.pop(host_id, None)

    def repeat(self) -> None:
        """Say again what has not happened yet; an agent that has done it, or is at it, only says so."""
        for host_id in self._ready:
            for instance_id in self._cluster.on_host.get(host_id, ()):
                self.order(instance_id)

    def order(self, instance_id: int) -> None:
        """Tell the instance's host what the instance's state calls for; call it when that state is durable."""
        instance = self._cluster.instances.get(instance_id)
        if instance is None or instance.host_id not in self._ready or order_for(instance, self._cell) is None:
            return
        self._waiting[instance.host_id][instance_id] = None
        if not self._scheduled:
            self._scheduled = True
            self._reactor.callLater(0, self._send)

    def _send(self) -> None:
        self._scheduled = False
        waiting, self._waiting = self._waiting, defaultdict(dict)
        for host_id, instance_ids in waiting.items():
            link = self._ready.get(host_id)
            instances = (self._cluster.instances.get(instance_id) for instance_id in instance_ids)
            orders = [order_for(instance, self._cell) for instance in instances if instance is not None and instance.host_id == host_id]
            needed = [order for order in orders if order is not None]
            if link is not None and needed:
                link.send(needed)
