"""Whether a host may take an instance, and if not, why: the filters in their order, the first that objects speaks.

The filters of `EVER` look only at what the host is; those of `NOW` and `FOR_A_MOVE` also at the state it is in and at what it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final

from tashi.model.host import Host
from tashi.model.instance import Instance
from tashi.model.states import WITHOUT_POWER, HostState
from tashi.scheduling.room import Neighbours, Room
from tashi.scheduling.terms import APART, GROUP, WITH, is_true, stays, wants_isolation

Filter = Callable[[Instance, Room], str | None]


def _up(instance: Instance, room: Room) -> str | None:
    if room.host.state in WITHOUT_POWER:
        return _state(instance, room)
    if not room.host.up:
        return "is down"
    return "does not answer just now" if room.host.decayed else None


def _state(instance: Instance, room: Room) -> str | None:
    match room.host.state:
        case HostState.Normal:
            return "is being emptied" if room.host.draining else None
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


def _with(instance: Instance, room: Room) -> str | None:
    name = instance.hints.get(WITH)
    if not name or room.rooms is None:
        return None
    homes = homes_of(name, instance, room.rooms)
    if not homes or room.host.id in homes:
        return None
    hosts = ", ".join(home.host.name for host_id in homes if (home := room.rooms.of(host_id)) is not None)
    return f"is not the host of {name}, which is {hosts}"


def is_another(one: Instance, instance: Instance) -> bool:
    """Whether hints of the one can mean the other: they speak of their owner's instances only, so that nobody binds somebody else's."""
    return one.id != instance.id and one.user_id == instance.user_id


def homes_of(name: str, instance: Instance, rooms: Neighbours) -> list[int]:
    """The ids of the hosts on one of which it is to be because one of this name is there; none: it may be anywhere.

    Of two on a host that is to be emptied the one that is asked for goes first; of two that ask for each other, either.
    """
    homes: list[int] = []
    for host_id in sorted(rooms.where(name)):
        room = rooms.of(host_id)
        if room is None:
            continue
        partners = [one for one in room.residents if one.name == name and is_another(one, instance) and stays(one, host_id)]
        leaves = room.host.draining and host_id == instance.host_id
        if any(not leaves or one.hints.get(WITH) != instance.name for one in partners):
            homes.append(host_id)
    return homes


def _torn(instance: Instance, room: Room) -> str | None:
    if room.rooms is None or instance.host_id is None or instance.host_id == room.host.id:
        return None
    follower = is_torn(instance, room.rooms)
    return f"is not the host of {follower.name}, for which with={instance.name} is asked" if follower else None


def is_torn(instance: Instance, rooms: Neighbours) -> Instance | None:
    """One beside it that has asked to be with it and would be left alone if it moved; of a host that is to be emptied it may follow."""
    here = rooms.of(instance.host_id or 0)
    if here is None or not here.load.tied or here.host.draining:
        return None
    for one in here.residents:
        if one.hints.get(WITH) == instance.name and is_another(one, instance) and stays(one, here.host.id):
            return one
    return None


def _apart(instance: Instance, room: Room) -> str | None:
    name = instance.hints.get(APART)
    if not name and not room.load.tied:
        return None
    for one in room.residents:
        if not is_another(one, instance):
            continue
        if name and one.name == name:
            return f"holds {name}, and apart={name} is asked"
        if one.hints.get(APART) == instance.name:
            return f"holds {one.name}, for which apart={instance.name} is asked"
    return None


def _spread(instance: Instance, room: Room) -> str | None:
    """For a move: it would come to more of its group than it leaves."""
    group = instance.hints.get(GROUP)
    if not group or room.rooms is None or instance.host_id == room.host.id:
        return None
    here = room.rooms.of(instance.host_id or 0)
    if here is None or here.host.draining:
        return None
    left, met = (sum(one.hints.get(GROUP) == group and one.id != instance.id for one in there.residents) for there in (here, room))
    return f"holds {met} of group {group}, and its host {left} beside it" if met > left else None


def _failed_before(instance: Instance, room: Room) -> str | None:
    return f"failed to start it: {instance.reason}" if room.host.id in instance.refused_by else None


def _memory(instance: Instance, room: Room) -> str | None:
    return room.lacks_memory(instance)


def _cores(instance: Instance, room: Room) -> str | None:
    return room.lacks_cores(instance)


def _speed(instance: Instance, room: Room) -> str | None:
    return room.lacks_speed(instance)


NOW: Final[tuple[Filter, ...]] = (
    _up, _state, _residue, _reservation, _networks, _target, _location, _auditability, _isolation, _with, _apart, _failed_before,
    _memory, _cores, _speed,
)  # fmt: skip
FOR_A_MOVE: Final[tuple[Filter, ...]] = (
    _up, _state, _residue, _reservation, _networks, _location, _auditability, _isolation, _with, _torn, _apart, _spread,
    _memory, _cores, _speed,
)  # fmt: skip
"""What still binds when somebody says by name where an instance is to move."""
TO_BETTER: Final[tuple[Filter, ...]] = (*NOW, _torn, _spread)
"""What binds when nobody has asked for a move, and it only betters things."""
ONCE_UP: Final[tuple[Filter, ...]] = NOW[2:]
"""What binds when a host has come up and takes instances."""
OF_THE_HOST: Final = frozenset({_up, _state, _residue, _reservation, _networks, _target, _location, _auditability, _failed_before})
"""Those that look at nothing that an instance placed meanwhile could change."""
OF_ITS_SORT: Final = OF_THE_HOST - {_residue, _target, _failed_before}
"""Those of them that answer alike for all hosts of a sort (`sort_of`), whatever they are called."""
OF_NEIGHBOURS: Final = frozenset({_with, _torn, _apart, _spread})
"""Those that look at who the others are, by their names."""
ISOLATION: Final = _isolation
TARGET: Final = _target
EVER: Final[tuple[Filter, ...]] = (_reservation, _networks, _target, _location, _auditability, _memory, _cores, _speed)


def sort_of(host: Host) -> Hashable:
    """All that the filters of `OF_ITS_SORT` look at."""
    facts, config = host.facts, host.config
    place = (config.get("location"), config.get("auditability")) if config else None
    return host.up, host.decayed, host.state, host.draining, host.reserved, place, facts and (facts.networks, facts.vlans)


def objection(instance: Instance, room: Room, filters: tuple[Filter, ...] = NOW) -> str | None:
    """The first filter's reason why this host does not take this instance; None: it does."""
    for check in filters:
        reason = check(instance, room)
        if reason is not None:
            return reason
    return None
