"""Why an instance is where it is, or why it is nowhere, in words that name numbers."""

from __future__ import annotations

from tashi.manager import squeezing
from tashi.manager.cluster import Cluster
from tashi.manager.lookup import the_instance
from tashi.manager.picture import Picture
from tashi.scheduling.explain import explain
from tashi.scheduling.policies import RULES


class Explanation:
    """Answers `explain`."""

    def __init__(self, cluster: Cluster, picture: Picture) -> None:
        self._cluster = cluster
        self._picture = picture

    def of(self, reference: int | str) -> str:
        """One line on the instance, then one a host; YourMistake(unknown-id) when there is no such instance."""
        instance = the_instance(self._cluster, reference)
        snapshot = self._picture.whole()
        head = f"{instance.name} ({instance.id}) is {instance.state.name}"
        host = self._cluster.host_name(instance.host_id)
        if host is not None:
            head += f" on {host}, placed there by {instance.placed_why or 'an earlier version'}"
        for words in filter(None, (squeezing.fault(instance), squeezing.words(instance))):
            head += f"; {words}"
        rule = RULES.get(snapshot.settings.policy)
        lines = [head, *explain(snapshot, instance, rule(snapshot.settings) if rule is not None else None)]
        if not snapshot.hosts:
            lines.append("no host has joined the cell yet")
        return "\n".join(lines)
