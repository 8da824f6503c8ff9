"""The outbox as the publisher sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tashi.manager.cluster import Cluster
from tashi.model.request import Outgoing


class Outbox:
    """`tashi.interfaces.IOutbox` over the cluster's records."""

    def __init__(self, cluster: Cluster, too_large: Callable[[int], None] = lambda size: None) -> None:
        """``too_large`` hears the size in bytes of a stanza that the server does not take."""
        self._cluster = cluster
        self._too_large = too_large

    def pending(self) -> Sequence[Outgoing]:
        """See IOutbox."""
        return self._cluster.outgoing()

    def done(self, ids: Sequence[int]) -> None:
        """See IOutbox."""
        self._cluster.outgoing_done(ids)

    def set_aside(self, row_id: int, why: str, size: int) -> None:
        """See IOutbox."""
        self._cluster.set_aside(row_id, why)
        if size:
            self._too_large(size)

    def subscribe(self, listener: Callable[[], None]) -> None:
        """See IOutbox."""
        self._cluster.outbox_listeners.append(listener)
