"""The terms an instance brings along, read from its hints, where categories, SLA classes and --hints put them; what a host is fit for."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from tashi.model.disks import is_own
from tashi.model.host import Host
from tashi.model.instance import Instance
from tashi.model.states import HostState, InstanceState

CAN_BE_POWERED_ON: Final = frozenset({HostState.PoweredOff, HostState.WakeFailed})
WITH: Final = "with"
"""The hint with=NAME: on the same host as the instance of that name, if one has a place."""
APART: Final = "apart"
"""The hint apart=NAME: never on the same host as an instance of that name."""
GROUP: Final = "group"
"""The hint group=NAME: as few of a group on one host as can be."""
_NONE: Final[frozenset[str]] = frozenset()
_TRUE = frozenset({"true", "yes", "1"})


def is_true(text: str | None) -> bool:
    """Whether a hint or a host's configuration says yes: true, yes or 1 in any case."""
    return text is not None and text.lower() in _TRUE


def wants_isolation(instance: Instance) -> bool:
    """No instance of another user may be on the same host, now or later."""
    return is_true(instance.hints.get("isolation"))


def can_leave(instance: Instance) -> bool:
    """Whether it runs and has nothing else to do, so that it can leave a host that is to be emptied."""
    return instance.state is InstanceState.Running and not instance.tasks and instance.migration is None


def is_tied(instance: Instance) -> bool:
    """Whether it has asked to be on the same host as another, or never to be."""
    return WITH in instance.hints or APART in instance.hints


def stays(instance: Instance, host_id: int) -> bool:
    """Whether one that takes room on this host is not about to leave it, and has not left it already."""
    if instance.migration is not None and instance.host_id == host_id:
        return False
    return not any(one.host_id == host_id for one in instance.residue)


def can_move(instance: Instance) -> bool:
    """The same, and nothing is left of it elsewhere: time enough for moves that only better things."""
    return can_leave(instance) and not instance.residue


def is_pinned(instance: Instance) -> bool:
    """Whether it has asked for one host and no other: it leaves that only when the host is to be emptied, or somebody says so."""
    return "targetHost" in instance.hints and not is_true(instance.hints.get("allowElsewhere"))


def is_resting(instance: Instance, now: float, cooldown: float) -> bool:
    """Whether it has moved so lately that it is left where it is, unless its host is to be emptied."""
    return bool(instance.moved_at) and now < instance.moved_at + cooldown


def needs(instance: Instance) -> Hashable:
    """What decides where an instance may go, but for its persistent disks: two with equal needs are refused alike."""
    networks = tuple(nic.network for nic in instance.nics)
    failures = (instance.refused_by, instance.reason) if instance.refused_by else ()
    return instance.cores, instance.memory, instance.cpu_speed, instance.user_id, networks, failures, tuple(instance.hints.items())


def persistent_disks(instance: Instance) -> frozenset[str]:
    """The disks that only one instance may have at a time, however it has them; a template is copied or lies beneath an overlay."""
    for disk in instance.disks:
        if is_own(disk.uri):
            return frozenset([disk.uri for disk in instance.disks if is_own(disk.uri)])
    return _NONE


def is_ready(host: Host) -> bool:
    """Whether the host is up and takes instances: in service, and not being emptied."""
    return host.up and not host.decayed and host.state is HostState.Normal and not host.draining


def hypervisor_of(host: Host) -> str:
    """What runs its instances: one moves only between hosts with the same."""
    return host.facts.hypervisor if host.facts else ""
