"""Whether a plan may be carried out: an independent look at every step, whoever made the plan.

No plan is carried out unchecked. The check knows the rules, not the policies. The steps are tried in their order, and each must fit when
those before it have been taken; room that is won by shrinking counts only in the next plan, when it has been seen to be there.

An instance is named once, but for one that makes a stop-over: it is moved twice, because its target does not take it at first.
"""

from __future__ import annotations

from functools import cached_property

import msgspec

from tashi.model.instance import Instance
from tashi.scheduling.filters import FOR_A_MOVE, objection
from tashi.scheduling.plan import Action, Grow, Migrate, Place, Plan, PowerOff, PowerOn, Shrink
from tashi.scheduling.room import Room, Rooms
from tashi.scheduling.snapshot import Snapshot
from tashi.scheduling.terms import CAN_BE_POWERED_ON, can_leave, can_move, hypervisor_of, is_pinned, is_ready, is_resting


def check(plan: Plan, snapshot: Snapshot) -> tuple[str, ...]:
    """What is wrong with the plan, in words; nothing: it is sound."""
    trial = _Trial(plan, snapshot)
    return tuple(problem for action in plan.actions if (problem := trial.take(action)) is not None)


class _Trial:
    """The cluster as it would be after the steps so far. Only what the plan names is looked at."""

    def __init__(self, plan: Plan, snapshot: Snapshot) -> None:
        self._plan = plan
        self._snapshot = snapshot
        self._waiting = {instance.id: instance for instance in snapshot.pending}
        self._stopped_over: dict[int, tuple[Instance, Migrate]] = {}  # those that are to go on, each as it is then
        self._rooms = Rooms(snapshot)
        self._switched: set[int] = set()
        self._moved_to: set[int] = set()  # also those that a stop-over has left again
        self._switched_off = 0
        self._onward: dict[int, list[int]] = {}  # to which hosts an instance is moved, but for the first
        for action in plan.actions:
            if isinstance(action, Migrate):
                onward = self._onward.get(action.instance_id)
                if onward is None:
                    self._onward[action.instance_id] = []
                else:
                    onward.append(action.host_id)

    def take(self, action: Action) -> str | None:
        """Take one step; what is wrong with it, if anything, and then it is not taken."""
        if isinstance(action, PowerOn | PowerOff):
            return self._power(action)
        if isinstance(action, Migrate) and action.instance_id in self._stopped_over:
            return self._go_on(action)
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
        shared = self._rooms.disks_in_use(instance)
        if shared:
            return f"instance {instance.id} would share the persistent disk {shared[0]} with another"
        reason = "is switched" if room.host.id in self._switched else objection(instance, room)
        if reason is not None:
            return f"instance {instance.id} is sent to {room.host.name}, which {reason}"
        room.add(instance)
        return None

    def _migrate(self, instance: Instance, action: Migrate) -> str | None:
        """Its first move, or its only one."""
        source, target = self._room(instance.host_id), self._room(action.host_id)
        what = f"instance {instance.id} is moved to {target.host.name if target else action.host_id}"
        if source is None or target is None:
            return f"{what}, which there is not"
        if not (can_leave(instance) if action.evacuates else can_move(instance)):
            return f"{what}, and has something else to do"
        if action.evacuates:
            if not source.host.draining:
                return f"{what} to empty {source.host.name}, which nobody asked for"
        elif is_resting(instance, self._snapshot.time, self._snapshot.settings.cooldown):
            return f"{what}, and has moved lately"
        elif is_pinned(instance):
            return f"{what}, and has asked for {instance.hints['targetHost']} by name"
        onward = self._onward[instance.id]
        if onward:
            final = self._room(onward[0])
            if final is source:
                return f"{what}, and back"
            if final is not None and objection(instance, final, FOR_A_MOVE) is None:
                return f"{what}, though {final.host.name} takes it at once"
        problem = self._move(instance, source, target, what)
        if problem is None and onward:
            self._stopped_over[instance.id] = (msgspec.structs.replace(instance, host_id=target.host.id), action)
        return problem

    def _go_on(self, action: Migrate) -> str | None:
        """Its second move, from where it has stopped over."""
        instance, before = self._stopped_over.pop(action.instance_id)
        source, target = self._room(instance.host_id), self._room(action.host_id)
        what = f"instance {instance.id} is moved on to {target.host.name if target else action.host_id}"
        if source is None or target is None:
            return f"{what}, which there is not"
        if action.evacuates != before.evacuates:
            return f"{what} for another reason than before"
        return self._move(instance, source, target, what)

    def _move(self, instance: Instance, source: Room, target: Room, what: str) -> str | None:
        if source is target:
            return f"{what}, where it is"
        if hypervisor_of(source.host) != hypervisor_of(target.host):
            return f"{what}, which runs another hypervisor"
        reason = "is switched" if target.host.id in self._switched else objection(instance, target, FOR_A_MOVE)
        if reason is not None:
            return f"{what}, which {reason}"
        source.remove(instance)
        target.add(instance)
        self._moved_to.add(target.host.id)
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
            if self._snapshot.priority(instance) >= self._most_important:
                return f"{what} of {now} MB, and nothing waits that is more important"
            return None
        # whoever would not grow the last time counts as if it had, and is asked again
        if instance.shrunk_from is None or not min(now + 1, instance.shrunk_from) <= action.memory <= instance.shrunk_from:
            return f"{what}, which is not what it had before it was shrunk"
        # at its full size again it takes all of its memory, whatever its guest may use
        more = instance.taking(action.memory) - instance.taken_memory
        if room.load.memory + more > room.memory:
            return f"{what}, and {room.host.name} is {room.load.memory + more - room.memory} MB short of memory"
        room.load.memory += more
        return None

    def _power(self, action: PowerOn | PowerOff) -> str | None:
        room = self._room(action.host_id)
        if room is None or action.host_id in self._switched:
            return f"host {action.host_id} is switched, and there is none, or it is named twice"
        self._switched.add(action.host_id)
        if isinstance(action, PowerOn):
            return None if room.host.state in CAN_BE_POWERED_ON else f"{room.host.name} is switched on, and is not off"
        if not is_ready(room.host):
            return f"{room.host.name} is switched off, and is not up and in service"
        # those that this plan moves away, or on from a stop-over, are still there when it is carried out
        placed = self._snapshot.placed.get(room.host.id)
        if room.load.count or room.residents or room.host.strays or placed or room.host.id in self._moved_to:
            return f"{room.host.name} is switched off, and is in use"
        settings, since = self._snapshot.settings, self._snapshot.empty_since.get(room.host.id)
        if since is None or self._snapshot.time - since < settings.power_off_delay:
            return f"{room.host.name} is switched off, and has not been empty for {settings.power_off_delay:g} s"
        if self._ready - self._switched_off <= settings.guaranteed_servers:
            return f"{room.host.name} is switched off, and {settings.guaranteed_servers} hosts are to stay on"
        self._switched_off += 1
        return None

    def _room(self, host_id: int | None) -> Room | None:
        return self._rooms.of(host_id or 0)

    @cached_property
    def _placed(self) -> dict[int, Instance]:
        """Those that the plan is about and that are on hosts."""
        named = {action.instance_id for action in self._plan.actions if isinstance(action, Migrate | Shrink | Grow)}
        return {one.id: one for group in self._snapshot.placed.values() for one in group if one.id in named}

    @cached_property
    def _most_important(self) -> float:
        """The highest priority of those that wait and are not placed by the plan; below any priority when there are none."""
        placed = {action.instance_id for action in self._plan.actions if isinstance(action, Place)}
        left = (self._snapshot.priority(one) for one in self._snapshot.pending if one.id not in placed)
        return max(left, default=float("-inf"))

    @cached_property
    def _ready(self) -> int:
        """How many hosts serve."""
        return sum(is_ready(host) for host in self._snapshot.hosts.values())
