"""Whether a host may take an instance, and if not, why: the filters in their order, the first that objects speaks.

The filters of `EVER` look only at what the host is; those of `NOW` and `FOR_A_MOVE` also at the state it is in and at what it holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tashi.model.instance import Instance
from tashi.model.states import HostState
from tashi.scheduling.room import Room
from tashi.scheduling.terms import is_true, wants_isolation

Filter = Callable[[Instance, Room], str | None]
_WITHOUT_POWER: Final = frozenset({HostState.PoweredOff, HostState.PoweringOn, HostState.PoweringOff, HostState.WakeFailed})


def _up(instance: Instance, room: Room) -> str | None:
    if room.host.state in _WITHOUT_POWER:
        return _state(instance, room)
    if not room.host.up:
        return "is down"
    return "does not answer just now" if room.host.decayed else None


def _state(instance: Instance, room: Room) -> str | None:
    match room.host.state:
        case HostState.Normal:
            return None
        case HostState.Drained:
            return "is drained"
        case HostState.VersionMismatch:
            return "runs another version of the agent"
        case HostState.PoweredOff:
            return "is powered off"
        case HostState.PoweringOn:
            return "is being powered on"
        case HostState.PoweringOff:
            return "is being powered off"
        case HostState.WakeFailed:
            return "did not come when it was powered on"


def _residue(instance: Instance, room: Room) -> str | None:
    left = any(one.host_id == room.host.id for one in instance.residue)
    return "is still to be cleared of what an earlier stay left there" if left else None


def _reservation(instance: Instance, room: Room) -> str | None:
    reserved = room.host.reserved
    return None if not reserved or instance.user_id in reserved else "is reserved for other users"


def _networks(instance: Instance, room: Room) -> str | None:
    facts = room.host.facts
    missing = sorted(nic.network for nic in instance.nics if facts is None or not facts.has_network(nic.network))
    return f"has no network {missing[0]}" if missing else None


def _target(instance: Instance, room: Room) -> str | None:
    target = instance.hints.get("targetHost")
    if target is None or target in (room.host.name, str(room.host.id)) or is_true(instance.hints.get("allowElsewhere")):
        return None
    return f"is not the target host {target}"


def _location(instance: Instance, room: Room) -> str | None:
    wanted = instance.hints.get("location")
    if wanted is None:
        return None
    here = room.host.config.get("location")
    return None if here == wanted else f"is in location {here or 'unknown'}, not {wanted}"


def _auditability(instance: Instance, room: Room) -> str | None:
    if not is_true(instance.hints.get("auditability")) or is_true(room.host.config.get("auditability")):
        return None
    return "is not auditable"


def _isolation(instance: Instance, room: Room) -> str | None:
    users = room.load.users
    others = len(users) - (instance.user_id in users)
    if others and wants_isolation(instance):
        return "holds instances of other users, and isolation is asked"
    if others and room.load.isolated:
        return "holds an instance that asked for isolation"
    return None


def _failed_before(instance: Instance, room: Room) -> str | None:
    return f"failed to start it: {instance.reason}" if room.host.id in instance.refused_by else None


def _memory(instance: Instance, room: Room) -> str | None:
    return room.lacks_memory(instance)


def _cores(instance: Instance, room: Room) -> str | None:
    return room.lacks_cores(instance)


def _speed(instance: Instance, room: Room) -> str | None:
    return room.lacks_speed(instance)


NOW: Final[tuple[Filter, ...]] = (
    _up, _state, _residue, _reservation, _networks, _target, _location, _auditability, _isolation, _failed_before, _memory, _cores, _speed,
)  # fmt: skip
FOR_A_MOVE: Final[tuple[Filter, ...]] = (
    _up, _state, _residue, _reservation, _networks, _location, _auditability, _isolation, _memory, _cores, _speed,
)  # fmt: skip
"""What still binds when somebody says by name where an instance is to move."""
ONCE_UP: Final[tuple[Filter, ...]] = NOW[2:]
"""What binds when a host has come up and takes instances."""
OF_THE_HOST: Final = frozenset({_up, _state, _residue, _reservation, _networks, _target, _location, _auditability, _failed_before})
"""Those that look at nothing that an instance placed meanwhile could change."""
EVER: Final[tuple[Filter, ...]] = (_reservation, _networks, _target, _location, _auditability, _memory, _cores, _speed)


def objection(instance: Instance, room: Room, filters: tuple[Filter, ...] = NOW) -> str | None:
    """The first filter's reason why this host does not take this instance; None: it does."""
    for check in filters:
        reason = check(instance, room)
        if reason is not None:
            return reason
    return None
