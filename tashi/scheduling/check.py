"""Whether a plan may be carried out: an independent look at every step, whoever made the plan.

No plan is carried out unchecked. The check knows the rules, not the policies. The steps are tried in their order, and each must fit when
those before it have been taken; room that is won by shrinking counts only in the next plan, when it has been seen to be there.
"""

from __future__ import annotations

from tashi.model.instance import Instance
from tashi.scheduling.filters import FOR_A_MOVE, objection
from tashi.scheduling.plan import Action, Grow, Migrate, Place, Plan, PowerOff, PowerOn, Shrink
from tashi.scheduling.room import Room, disks_in_use, guests_of, room_of
from tashi.scheduling.snapshot import Snapshot
from tashi.scheduling.terms import CAN_BE_POWERED_ON, can_move, hypervisor_of, is_ready, is_resting, persistent_disks


def check(plan: Plan, snapshot: Snapshot) -> tuple[str, ...]:
    """What is wrong with the plan, in words; nothing: it is sound."""
    trial = _Trial(snapshot)
    return tuple(problem for action in plan.actions if (problem := trial.take(action)) is not None)


class _Trial:
    """The cluster as it would be after the steps so far. Only the hosts that are named are looked at."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._waiting = {instance.id: instance for instance in snapshot.pending}
        self._placed = {instance.id: instance for group in snapshot.placed.values() for instance in group}
        self._guests = guests_of(snapshot)
        self._rooms: dict[int, Room] = {}
        self._powered: set[int] = set()
        self._ready = sum(is_ready(host) for host in snapshot.hosts.values())

    def take(self, action: Action) -> str | None:
        """Take one step; what is wrong with it, if anything, and then it is not taken."""
        if isinstance(action, PowerOn | PowerOff):
            return self._power(action)
        if isinstance(action, Migrate | Shrink | Grow):
            instance = self._placed.pop(action.instance_id, None)
            if instance is None:
                return f"instance {action.instance_id} is on no host, or is named twice"
            return self._migrate(instance, action) if isinstance(action, Migrate) else self._resize(instance, action)
        instance = self._waiting.pop(action.instance_id, None)
        if instance is None:
            return f"instance {action.instance_id} does not wait for a place, or is named twice"
        return self._place(instance, action) if isinstance(action, Place) else None

    def _place(self, instance: Instance, action: Place) -> str | None:
        room = self._room(action.host_id)
        if room is None:
            return f"instance {instance.id} is sent to host {action.host_id}, which there is not"
        if persistent_disks(instance):
            rooms = {host_id: self._room(host_id) for host_id in self._snapshot.hosts}
            shared = disks_in_use(instance, {host_id: one for host_id, one in rooms.items() if one}, self._snapshot.kept_disks)
            if shared:
                return f"instance {instance.id} would share the persistent disk {shared[0]} with another"
        reason = objection(instance, room)
        if reason is not None:
            return f"instance {instance.id} is sent to {room.host.name}, which {reason}"
        room.add(instance)
        return None

    def _migrate(self, instance: Instance, action: Migrate) -> str | None:
        source, target = self._room(instance.host_id), self._room(action.host_id)
        what = f"instance {instance.id} is moved to {target.host.name if target else action.host_id}"
        if source is None or target is None or source is target:
            return f"{what}, which there is not" if source is not target else f"{what}, where it is"
        if not can_move(instance):
            return f"{what}, and has something else to do"
        if action.evacuates:
            if not source.host.draining:
                return f"{what} to empty {source.host.name}, which nobody asked for"
        elif is_resting(instance, self._snapshot.time, self._snapshot.settings.cooldown):
            return f"{what}, and has moved lately"
        if hypervisor_of(source.host) != hypervisor_of(target.host):
            return f"{what}, which runs another hypervisor"
        reason = objection(instance, target, FOR_A_MOVE)
        if reason is not None:
            return f"{what}, which {reason}"
        source.remove(instance)
        target.add(instance)
        return None

    def _resize(self, instance: Instance, action: Shrink | Grow) -> str | None:
        what, room = f"the memory of instance {instance.id} becomes {action.memory} MB", self._room(instance.host_id)
        if room is None or not can_move(instance):
            return f"{what}, and it has something else to do"
        now = instance.resources.memory or 0
        if isinstance(action, Shrink):
            floor = self._snapshot.floor(instance)
            if not floor <= action.memory < now:
                return f"{what} of {now} MB, and {floor} MB are guaranteed"
            return None
        if instance.shrunk_from is None or not now < action.memory <= instance.shrunk_from:
            return f"{what}, which is not what it had before it was shrunk"
        # at its full size again it takes all of its memory, whatever its guest may use
        more = instance.taking(action.memory) - instance.taken_memory
        if room.load.memory + more > room.memory:
            return f"{what}, and {room.host.name} is {room.load.memory + more - room.memory} MB short of memory"
        room.load.memory += more
        return None

    def _power(self, action: PowerOn | PowerOff) -> str | None:
        room = self._room(action.host_id)
        if room is None or action.host_id in self._powered:
            return f"host {action.host_id} is switched, and there is none, or it is named twice"
        self._powered.add(action.host_id)
        if isinstance(action, PowerOn):
            return None if room.host.state in CAN_BE_POWERED_ON else f"{room.host.name} is switched on, and is not off"
        if not is_ready(room.host):
            return f"{room.host.name} is switched off, and is not up and in service"
        if room.load.count or room.residents:
            return f"{room.host.name} is switched off, and is in use"
        self._ready -= 1
        if self._ready < self._snapshot.settings.guaranteed_servers:
            return f"{room.host.name} is switched off, and {self._snapshot.settings.guaranteed_servers} hosts are to stay on"
        return None

    def _room(self, host_id: int | None) -> Room | None:
        host = self._snapshot.hosts.get(host_id or 0)
        if host is None:
            return None
        if host.id not in self._rooms:
            self._rooms[host.id] = room_of(self._snapshot, host, self._guests.get(host.id, ()))
        return self._rooms[host.id]
