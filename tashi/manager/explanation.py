"""Why an instance is where it is, or why it is nowhere, in words that name numbers."""

from __future__ import annotations

from typing import Final

from tashi.manager import squeezing
from tashi.manager.cluster import Cluster
from tashi.manager.picture import Picture
from tashi.manager.planner import InThread
from tashi.model.instance import Instance
from tashi.scheduling.explain import explain
from tashi.scheduling.policies import RULES

LIGHT: Final = 200
"""Hosts that may be looked at while the reactor waits."""


class Explanation:
    """Answers `explain`; ``apart`` is where there is time for work on what nothing changes."""

    def __init__(self, cluster: Cluster, picture: Picture, apart: InThread) -> None:
        self._cluster = cluster
        self._picture = picture
        self._apart = apart

    async def of(self, instance: Instance) -> str:
        """One line on the instance, then one a host."""
        snapshot = self._picture.whole()
        head = f"{instance.name} ({instance.id}) is {instance.state.name}"
        host = self._cluster.host_name(instance.host_id)
        if host is not None:
            head += f" on {host}, placed there by {instance.placed_why or 'an earlier version'}"
        for state in filter(None, (squeezing.fault(instance), squeezing.words(instance))):
            head += f"; {state}"
        rule = RULES.get(snapshot.settings.policy)

        def words() -> str:
            return "\n".join([head, *explain(snapshot, instance, rule and rule(snapshot.settings))])

        if not snapshot.hosts:
            return f"{head}\nno host has joined the cell yet"
        told: str = words() if len(snapshot.hosts) <= LIGHT else await self._apart(words)
        return told
