"""Whether a plan may be carried out: an independent look at every step, whoever made the plan.

No plan is carried out unchecked. The check knows the rules, not the policies.
"""

from __future__ import annotations

from tashi.scheduling.filters import objection
from tashi.scheduling.plan import Place, Plan
from tashi.scheduling.room import disks_in_use, rooms_of
from tashi.scheduling.snapshot import Snapshot


def check(plan: Plan, snapshot: Snapshot) -> tuple[str, ...]:
    """What is wrong with the plan, in words; nothing: it is sound. The steps are tried in their order."""
    problems: list[str] = []
    rooms = rooms_of(snapshot)
    waiting = {instance.id: instance for instance in snapshot.pending}
    for action in plan.actions:
        instance = waiting.pop(action.instance_id, None)
        if instance is None:
            problems.append(f"instance {action.instance_id} does not wait for a place, or is named twice")
        elif isinstance(action, Place):
            room = rooms.get(action.host_id)
            if room is None:
                problems.append(f"instance {instance.id} is sent to host {action.host_id}, which there is not")
                continue
            reason = objection(instance, room)
            shared = disks_in_use(instance, rooms, snapshot.kept_disks)
            if shared:
                problems.append(f"instance {instance.id} would share the persistent disk {shared[0]} with another")
            elif reason is not None:
                problems.append(f"instance {instance.id} is sent to {room.host.name}, which {reason}")
            else:
                room.add(instance)
    return tuple(problems)
