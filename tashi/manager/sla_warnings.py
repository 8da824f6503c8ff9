"""Somebody is told when a term of an instance is not kept where it is: once for each term, until it is kept again and broken anew.

What has been told stands in the record, so that it is told once whatever restarts.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

import msgspec

from tashi.manager.cluster import Cluster
from tashi.manager.settings import ManagerSettings
from tashi.model.events import sla_warning
from tashi.model.host import Host
from tashi.model.instance import Instance
from tashi.model.states import InstanceState
from tashi.scheduling.honour import broken_terms

AT_ONCE: Final = 500
"""Instances that are looked at in one turn of the reactor."""
_IN_USE: Final = frozenset({InstanceState.Running, InstanceState.Paused})


class SlaWarnings:
    """Looks at what has changed since it looked last, and at everything when it begins."""

    def __init__(self, cluster: Cluster, settings: ManagerSettings) -> None:
        self._cluster = cluster
        self._settings = settings
        self._changed = dict.fromkeys(sorted(cluster.instances))  # in the order of their changes
        self._hosts: set[int] = set()
        cluster.watchers.append(self._note)

    def check(self) -> None:
        """Tell what is to be told; call it about once a second."""
        for host_id in sorted(self._hosts):
            self._changed.update(dict.fromkeys(sorted(self._cluster.on_host.get(host_id, ()))))
        self._hosts.clear()
        found: list[tuple[Instance, dict[str, str]]] = []
        for number in list(islice(self._changed, AT_ONCE)):
            del self._changed[number]
            instance = self._cluster.instances.get(number)
            broken = None if instance is None else self._broken(instance)
            if instance is not None and broken is not None and tuple(broken) != instance.broken_terms:
                found.append((instance, broken))
        if not found:
            return
        with self._cluster.transaction("warn_of_terms") as tx:
            for instance, broken in found:
                tx.put_instance(msgspec.structs.replace(instance, broken_terms=tuple(broken)))
                for term in [term for term in broken if term not in instance.broken_terms]:
                    tx.tell(sla_warning(instance, term, broken[term], tx.cluster.host_name(instance.host_id)))

    def _broken(self, instance: Instance) -> dict[str, str] | None:
        """The terms that are broken; None: nothing can be said, since it is not in use or its host is not heard."""
        host = self._cluster.hosts.get(instance.host_id or 0)
        if host is None or host.decayed or instance.state not in _IN_USE:
            return None
        scheduling = self._settings.scheduling
        return broken_terms(instance, host, self._cluster.loads[host.id], scheduling, self._settings.sla_classes)

    def _note(self, record: Instance | Host) -> None:
        """An instance concerns itself, and those that share its host's room with it; a host concerns all that are on it."""
        if isinstance(record, Host):
            self._hosts.add(record.id)
            return
        self._changed[record.id] = None
        if record.host_id is not None and (record.cpu_speed or record.hints):
            self._hosts.add(record.host_id)
