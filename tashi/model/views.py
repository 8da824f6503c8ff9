"""Rows as a user sees them: records joined with the names of what they point at, in the fields the command line promises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tashi.model.events import fqdn
from tashi.model.host import Host
from tashi.model.instance import Instance, Nic
from tashi.model.user import User


def instance_row(instance: Instance, users: Mapping[int, User], hosts: Mapping[int, Host], *, own: bool = True) -> dict[str, Any]:
    """One row of getInstances. Hints and network cards are shown only of the asker's ``own``."""
    user = users.get(instance.user_id)
    host = hosts.get(instance.host_id) if instance.host_id is not None else None
    return {
        "id": instance.id,
        "name": instance.name,
        "state": instance.state.name,
        "userId": instance.user_id,
        "user": user.name if user else None,
        "hostId": instance.host_id,
        "host": host.name if host else None,
        "cores": instance.cores,
        "memory": instance.memory_limit or instance.memory,
        "maxMemory": instance.memory,
        "cpuShare": instance.cpu_share,
        "cpuSpeed": instance.cpu_speed,
        "diskWeight": instance.disk_weight,
        "diskIops": instance.disk_iops,
        "diskBytes": instance.disk_bytes,
        "netDown": instance.net_down,
        "netUp": instance.net_up,
        "disks": [{"uri": disk.uri, "persistent": disk.persistent} for disk in instance.disks],
        "nics": [_nic_row(nic) for nic in instance.nics] if own else [],
        "hints": instance.hints if own else {},
        "resourceId": instance.resource_id,
        "fqdn": fqdn(instance),
        "reason": instance.reason,
        "decayed": instance.decayed,
        "sla": instance.sla,
    }


def _nic_row(nic: Nic) -> dict[str, Any]:
    """A card with the address it was given, else the one its guest was seen to use; ``learnt`` is that one in any case."""
    return {"network": nic.network, "mac": nic.mac, "ip": nic.ip or nic.learnt, "learnt": nic.learnt}


def host_row(host: Host, priority: int = 0) -> dict[str, Any]:
    """One row of getHosts."""
    facts = host.facts
    return {
        "id": host.id,
        "name": host.name,
        "up": host.up,
        "decayed": host.decayed,
        "state": host.state.name,
        "memory": facts.memory if facts else 0,
        "cores": facts.cores if facts else 0,
        "cpuSpeed": facts.cpu_speed if facts else 0,
        "version": facts.version if facts else "",
        "hypervisor": facts.hypervisor if facts else "",
        "mac": host.mac,
        "address": host.address,
        "unconfirmed": host.unconfirmed,
        "notes": host.notes,
        "reserved": list(host.reserved),
        "config": host.config,
        "priority": priority,
        "strays": {"count": len(host.strays), "memory": host.stray_memory, "cores": host.stray_cores},
    }


def user_row(user: User) -> dict[str, Any]:
    """One row of getUsers; a password's hash stays where it is."""
    return {"id": user.id, "name": user.name, "priority": user.priority, "jid": user.jid}


def plain(value: Any) -> Any:
    """The value as plain JSON data."""
    return msgspec.to_builtins(value)
