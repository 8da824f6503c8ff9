"""Which hosts are switched off because nobody needs them, and which are switched on because somebody does.

A host goes off when it is up, in service and has been empty for powerOffDelay, and guaranteedServers remain that are ready; the worst
rated go first, and none as long as anything waits. One that an operator drains or has drained stays as it is. One that has just come up
is empty from then on, so that it stays for powerOffDelay whatever has become of what it was switched on for.

When something waits that no host takes that is up, the fewest are switched on that hold all that waits, of equal ones the best rated.
What those hold that are coming already, or have only lost their link, is not asked for twice. Hosts that did not come when they were last
switched on are tried after all others.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from tashi.model.host import Host
from tashi.model.instance import Instance
from tashi.model.states import HostState
from tashi.scheduling.filters import ONCE_UP, objection
from tashi.scheduling.fleet import Fleet
from tashi.scheduling.plan import Postpone, PowerOff, PowerOn
from tashi.scheduling.room import Room
from tashi.scheduling.squeezing import unplaced
from tashi.scheduling.terms import is_ready


def power(fleet: Fleet, postponed: Sequence[Postpone]) -> list[PowerOn | PowerOff]:
    """The hosts to switch, with [Scheduler] autoPowering: some on or some off, never both in one plan."""
    if not fleet.snapshot.settings.auto_powering:
        return []
    names = {action.instance_id for action in postponed}
    on = _needed(fleet, unplaced(fleet, (one for one in fleet.snapshot.pending if one.id in names)))
    if on or names:
        return [*on]
    return [*_idle(fleet)]


class Reserve:
    """The hosts that are off or on their way: what they can hold need not be made room for elsewhere."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        powering = fleet.snapshot.settings.auto_powering
        self._places = _best_first(fleet, lambda host: powering and (host.state is HostState.PoweredOff or _is_coming(host)))
        self._answers: dict[Hashable, bool] = {}

    def can_hold(self, instance: Instance) -> bool:
        """Whether one of them would take the instance if it were up."""
        if not self._places:
            return False
        kind = self._fleet.refused_alike(instance), self._fleet.tie_of(instance)
        if kind not in self._answers:
            self._answers[kind] = any(objection(instance, self._fleet.room(place), ONCE_UP) is None for place in self._places)
        return self._answers[kind]


def _idle(fleet: Fleet) -> list[PowerOff]:
    """What may go off, the worst rated first."""
    snapshot = fleet.snapshot
    ready, guaranteed = sum(map(is_ready, fleet.hosts)), snapshot.settings.guaranteed_servers
    idle: list[PowerOff] = []
    for place in reversed(_best_first(fleet, is_ready)):
        host = fleet.hosts[place]
        since = snapshot.empty_since.get(host.id)
        if ready <= guaranteed or since is None or fleet.count[place] or snapshot.placed.get(host.id):
            continue
        seconds = snapshot.time - since
        if seconds >= snapshot.settings.power_off_delay:
            why = f"it has been empty for {seconds:.0f} s; {ready} hosts are ready, and {guaranteed} are to stay"
            idle.append(PowerOff(host_id=host.id, why=why))
            ready -= 1
    return idle


def _needed(fleet: Fleet, waiting: Sequence[Instance]) -> list[PowerOn]:
    """What is to come for those that wait, and until guaranteedServers are there."""
    left = sorted(waiting, key=lambda one: (-one.taken_memory, -one.cores, one.id))
    coming = _best_first(fleet, _is_coming)
    off = _best_first(fleet, lambda host: host.state is HostState.PoweredOff)
    failed = _best_first(fleet, lambda host: host.state is HostState.WakeFailed)
    needed: list[PowerOn] = []
    for places in (coming, off, failed):
        while left and (best := _best(fleet, places, left)) is not None:
            places.remove(best)
            taken = _taken(fleet, best, left)
            left = _without(left, taken)
            if places is coming:
                continue
            others = f" and {len(taken) - 1} more that wait" if len(taken) > 1 else ""
            needed.append(PowerOn(host_id=fleet.hosts[best].id, why=f"it has room for {taken[0].name}{others}, and no host that is up has"))
    guaranteed = fleet.snapshot.settings.guaranteed_servers
    standing = len(needed) + sum(is_ready(host) or _is_coming(host) for host in fleet.hosts)
    for number, place in enumerate([*off, *failed][: max(0, guaranteed - standing)], start=standing):
        why = f"{number} hosts are ready or coming, and {guaranteed} are to be"
        needed.append(PowerOn(host_id=fleet.hosts[place].id, why=why))
    return needed


def _best(fleet: Fleet, places: Sequence[int], waiting: Sequence[Instance]) -> int | None:
    """The first of those that take most of what waits; None: none takes any. Of hosts that are alike only the first is looked at."""
    named = {host_id for one in waiting for host_id in (*one.refused_by, *(left.host_id for left in one.residue))}
    targets = {one.hints["targetHost"] for one in waiting if "targetHost" in one.hints}
    best, most = None, 0
    seen: set[Hashable] = set()
    for place in places:
        host = fleet.hosts[place]
        special = host.id in named or fleet.room(place).residents or not targets.isdisjoint((host.name, str(host.id)))
        kind = host.id if special else _kind(host)
        if kind in seen:
            continue
        seen.add(kind)
        count = len(_taken(fleet, place, waiting))
        if count > most:
            best, most = place, count
    return best


def _kind(host: Host) -> Hashable:
    """What decides what it takes while it is empty."""
    facts = host.facts
    size = (facts.memory, facts.cores, facts.cpu_speed, facts.networks, facts.vlans) if facts else ()
    return size, host.reserved, tuple(sorted(host.config.items()))


def _taken(fleet: Fleet, place: int, waiting: Sequence[Instance]) -> list[Instance]:
    """Those of them that the host holds together once it is up, beside what it has."""
    there = fleet.room(place)
    room = Room(there.host, fleet.snapshot.settings, there.load.copy(), there.residents)
    taken: list[Instance] = []
    for instance in waiting:
        if room.lacks_memory(instance) is not None:  # what mostly is short is asked first: hosts are full soon
            continue
        if objection(instance, room, ONCE_UP) is None and (not instance.hints or fleet.objection(instance, place, ONCE_UP) is None):
            room.add(instance)
            taken.append(instance)
    return taken


def _without(instances: Sequence[Instance], others: Sequence[Instance]) -> list[Instance]:
    gone = {one.id for one in others}
    return [one for one in instances if one.id not in gone]


def _is_coming(host: Host) -> bool:
    """Whether it is expected to take instances before long: it is being switched on, or has lost its link just now."""
    return host.state is HostState.PoweringOn or (host.up and host.decayed and not host.draining and host.state is HostState.Normal)


def _best_first(fleet: Fleet, wanted: Callable[[Host], bool]) -> list[int]:
    """The places of the hosts that are wanted, the best rated first, then by id."""
    places = (place for place, host in enumerate(fleet.hosts) if wanted(host))
    return sorted(places, key=lambda place: (-int(fleet.rating[place]), place))
