"""Guests that are shrunk to make room for the more important, and grown back: what their records say at every moment.

Asked for, a shrink is a task, and ``shrunk_from`` is what the guest had. The instance takes as much room as before until its host has said
how much the guest uses now, and from then on that much. Growing, it takes what it will have as soon as that is asked for, and goes on
doing so when its host refuses: the host may have done it, its word been lost, and then refused to do it again. Whoever was refused is not
asked again for a while. So whatever is lost on the way, no record counts less than a guest may use.

It stays shrunk wherever it moves, is suspended or begins again, until it is grown back or is made anew with another size.
"""

from __future__ import annotations

from typing import Final

import msgspec

from tashi.errors import BUSY, CONFLICT, YourMistake
from tashi.manager.cluster import Transaction
from tashi.model.instance import Instance, Resources, Task
from tashi.scheduling.plan import Grow, Shrink
from tashi.scheduling.terms import can_move

WHO: Final = "the scheduler"
SHRINK: Final = "shrink"
GROW: Final = "grow"
_SHRUNK: Final = "shrunk from "


def shrink(tx: Transaction, instance: Instance, action: Shrink) -> Instance | None:
    """Have its guest use no more than the plan says; None: it has something else to do by now, and nothing is changed."""
    now = instance.resources.memory or 0
    if not can_move(instance) or not 0 < action.memory < now:
        return None
    shrunk_from = now if instance.shrunk_from is None else instance.shrunk_from
    return _ask(tx, msgspec.structs.replace(instance, shrunk_from=shrunk_from, shrunk_why=action.why), SHRINK, action.memory)


def grow(tx: Transaction, instance: Instance, action: Grow) -> Instance | None:
    """Let its guest use as much as the plan says; None: it has something else to do or no room by now, and nothing is changed."""
    host = tx.cluster.hosts.get(instance.host_id or 0)
    now, most = instance.resources.memory or 0, instance.shrunk_from or 0
    if host is None or host.facts is None or not can_move(instance) or not min(now + 1, most) <= action.memory <= most:
        return None
    more = instance.taking(action.memory) - instance.taken_memory
    if tx.cluster.loads[host.id].memory + more > host.facts.memory - host.stray_memory:
        return None
    return _ask(tx, instance, GROW, action.memory)


def ended(before: Instance, after: Instance, refused: str, now: float) -> Instance:
    """The record when its host has done, or refused, the first task of ``before``."""
    task = before.tasks[0]
    if task.verb not in (SHRINK, GROW) or task.adapt is None:
        return after
    after = msgspec.structs.replace(after, resize_failed_at=now if refused else 0.0)
    if task.verb == SHRINK and not refused:
        return msgspec.structs.replace(after, reason=words(after))
    if task.verb == GROW and refused:
        return msgspec.structs.replace(after, memory_limit=task.adapt.memory)
    # what counts is what it was given: a balloon may stand a little short of that for ever
    if before.shrunk_from == (task.adapt.memory if task.verb == GROW else after.resources.memory):
        return msgspec.structs.replace(after, shrunk_from=None, shrunk_why="")
    return after


def why(task: Task, instance: Instance) -> str:
    """Why the scheduler had the task done; empty: it was somebody else's."""
    return {SHRINK: instance.shrunk_why, GROW: "there is room again"}.get(task.verb, "")


def words(instance: Instance) -> str:
    """How much of its memory the instance has, and why; empty when it has all."""
    now = instance.resources.memory
    if instance.shrunk_from is None or instance.shrunk_from == now:
        return ""
    return f"{_SHRUNK}{instance.shrunk_from} to {now} MB {instance.shrunk_why}"


def fault(instance: Instance) -> str:
    """What went wrong with what was asked of it last: its reason, when that says more than that it is shrunk."""
    return "" if instance.reason.startswith(_SHRUNK) else instance.reason


def refuse_limit(instance: Instance) -> None:
    """YourMistake when nobody but the scheduler sets its memory limit now: more would be others' memory, and less be given back."""
    if instance.shrunk_from is not None:
        raise YourMistake(
            CONFLICT,
            f"{WHO} has shrunk {instance.name} from {instance.shrunk_from} MB {instance.shrunk_why}; it gives them back when there is room "
            "again, and its memory limit can be set then",
        )


def refuse_suspension(instance: Instance) -> None:
    """YourMistake while its memory is being changed: it would be kept without anybody's knowing with how much."""
    if instance.tasks and instance.tasks[0].verb in (SHRINK, GROW):
        raise YourMistake(BUSY, f"the memory of {instance.name} is being changed by {WHO}; suspend it when that is done")


def _ask(tx: Transaction, instance: Instance, verb: str, memory: int) -> Instance:
    task = Task(adapt=Resources(memory=memory), who=WHO, verb=verb)
    after = msgspec.structs.replace(instance, tasks=(task,), generation=instance.generation + 1)
    tx.put_instance(after)
    return after
