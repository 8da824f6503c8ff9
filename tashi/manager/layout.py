"""The layout event: which host holds what. Sent on change, at most once a second, and every layoutInterval; long ones in parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from tashi.manager.cluster import Cluster
from tashi.manager.guarded import KickableLoop
from tashi.manager.usage import Usage
from tashi.model.events import fqdn
from tashi.model.host import Host
from tashi.model.instance import Instance
from tashi.scheduling.load import HostUsage

PART_BYTES = 80 * 1024
SMALLEST_PART_BYTES = 8 * 1024
"""Every server takes a stanza of 10,000 bytes (RFC 6120)."""
MOST_NAMES = 500
_encoder = msgspec.json.Encoder()


class Layout:
    """Tells the layout of the cluster whenever it has changed."""

    def __init__(self, reactor: Any, cluster: Cluster, interval: float, priorities: Mapping[int, int], usage: Usage) -> None:
        self._cluster = cluster
        self._usage = usage
        self._priorities = priorities
        self._part_bytes = PART_BYTES
        self._loop = KickableLoop(reactor, interval, self.tell, "layout", pause=1.0)
        cluster.watchers.append(lambda record: self._loop.kick())

    def start(self) -> None:
        if self._cluster.publishing:
            self._loop.start()

    def stop(self) -> None:
        self._loop.stop()

    def limit_parts(self, size: int) -> None:
        """Make smaller parts: the server does not take a stanza of this many bytes."""
        self._part_bytes = max(SMALLEST_PART_BYTES, min(self._part_bytes, size // 2))

    def tell(self) -> None:
        """One vmLayout event, or several parts of one."""
        cluster = self._cluster
        # as text from here on: it is written once, and ten thousand dictionaries would keep the garbage collector busy
        usage = self._usage.by_host()
        hosts = [entry for host in cluster.hosts.values() for entry in self._host(host, usage.get(host.id, HostUsage()))]
        entries = [("hosts", _encoder.encode(entry)) for entry in hosts]
        entries += [("vms", _encoder.encode(self._vm(instance))) for instance in cluster.instances.values()]
        parts: list[dict[str, list[msgspec.Raw]]] = [{"hosts": [], "vms": []}]
        size = 0
        for kind, entry in entries:
            size += len(entry) + 1
            if size > self._part_bytes:
                parts.append({"hosts": [], "vms": []})
                size = len(entry) + 1
            parts[-1][kind].append(msgspec.Raw(entry))
        words = f"{len(cluster.hosts)} hosts, {len(cluster.instances)} instances"
        with cluster.transaction("tell_layout") as tx:
            for number, part in enumerate(parts, start=1):
                tx.tell({"type": "vmLayout", "description": words, "part": number, "parts": len(parts), **part})

    def _host(self, host: Host, usage: HostUsage) -> Iterator[dict[str, Any]]:
        """The host's entry; a host that holds very many instances has several, each with some of their names."""
        facts = host.facts
        instances = [self._cluster.instances[number] for number in sorted(self._cluster.on_host.get(host.id, ()))]
        memory = sum(instance.memory for instance in instances)
        cores = sum(instance.cores for instance in instances)
        speed = usage.speed(instances)
        names = [fqdn(instance) for instance in instances]
        entry = {
            "type": "host",
            "id": host.id,
            "name": host.name,
            "fqdn": facts.fqdn if facts and facts.fqdn else host.name,
            "up": host.up,
            "state": host.state.name,
            "memory": facts.memory if facts else 0,
            "cores": facts.cores if facts else 0,
            "cpuSpeed": facts.cpu_speed if facts else 0,
            "memUsage": memory,
            "coresUsage": cores,
            "cpuUsage": speed,
            "load": memory + cores * 512 + speed,
            "priority": self._priorities.get(host.id, 0),
            **_known(self._usage.of_host(host)),
        }
        for start in range(0, max(1, len(names)), MOST_NAMES):
            yield {**entry, "vmList": names[start : start + MOST_NAMES]}

    def _vm(self, instance: Instance) -> dict[str, Any]:
        return {
            "id": instance.id,
            "resourceId": instance.resource_id,
            "name": instance.name,
            "fqdn": fqdn(instance),
            "userId": instance.user_id,
            "state": instance.state.name,
            "host": self._cluster.host_name(instance.host_id),
            "cores": instance.cores,
            "memory": instance.memory_limit or instance.memory,
            "cpuShare": instance.cpu_share,
            "sla": instance.sla,
            **_known(self._usage.of_instance(instance)),
        }


def _known(stats: dict[str, Any] | None) -> dict[str, Any]:
    return {"stats": stats} if stats is not None else {}
