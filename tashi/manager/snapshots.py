"""The cluster as text, as a scheduler sees it now: to look at, to keep beside the report of a bad decision, to plan on again elsewhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from tashi.manager.arguments import Arguments
from tashi.manager.cluster import Cluster
from tashi.manager.operations import require_admin
from tashi.model.user import Principal
from tashi.scheduling.snapshot import Snapshot
from tashi.scheduling.text.writing import write

InThread = Callable[[Callable[[], str]], Awaitable[str]]


class Snapshots:
    """The verb `snapshot`: for admins, since it shows everybody's hints. A large one is written in a thread, where there is one."""

    def __init__(self, cluster: Cluster, take: Callable[[], Snapshot], in_thread: InThread | None = None) -> None:
        self._cluster = cluster
        self._take = take
        self._in_thread = in_thread
        self.verbs: dict[str, Callable[[Principal, Arguments], Any | Awaitable[Any]]] = {"snapshot": self._snapshot}

    def _snapshot(self, who: Principal, arguments: Arguments) -> Awaitable[dict[str, str]]:
        require_admin(who, "snapshot")
        return self._written()

    async def _written(self) -> dict[str, str]:
        users = {user.id: user.name for user in self._cluster.users.values()}
        snapshot = self._take()
        if self._in_thread is None:
            return {"text": write(snapshot, users)}
        return {"text": await self._in_thread(lambda: write(snapshot, users))}
