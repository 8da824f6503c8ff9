"""The outbox as the publisher sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tashi.manager.cluster import Cluster
from tashi.model.request import Outgoing


class Outbox:
    """`tashi.interfaces.IOutbox` over the cluster's records."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def pending(self) -> Sequence[Outgoing]:
        """See IOutbox."""
        return self._cluster.outgoing()

    def done(self, ids: Sequence[int]) -> None:
        """See IOutbox."""
        self._cluster.outgoing_done(ids)

    def subscribe(self, listener: Callable[[], None]) -> None:
        """See IOutbox."""
        self._cluster.outbox_listeners.append(listener)
