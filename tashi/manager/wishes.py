"""What its owner may wish of an instance that is on a host: each is one function within a transaction of the caller's."""

from __future__ import annotations

from typing import Final

import msgspec

from tashi.errors import BUSY, CONFLICT, YourMistake
from tashi.manager.cluster import Transaction
from tashi.manager.lifecycle import advance
from tashi.model.events import vm_action
from tashi.model.instance import Instance, Task
from tashi.model.orders import Observation
from tashi.model.states import Happening, InstanceState, is_legal

MOST_TASKS: Final = 100
_NEEDED: Final = {
    Happening.PAUSE_ASKED: InstanceState.Running,
    Happening.UNPAUSE_ASKED: InstanceState.Paused,
    Happening.SHUTDOWN_ASKED: InstanceState.Running,
}


def wish(tx: Transaction, instance: Instance, happening: Happening, *, reason: str = "", grace: float = 0.0) -> Instance:
    """Pause, unpause or shut down; ``grace`` is how many seconds a guest has to shut down. YourMistake(conflict) in another state."""
    if not is_legal(instance.state, happening):
        raise wrong_state(instance, _NEEDED[happening])
    until = tx.now + grace if happening is Happening.SHUTDOWN_ASKED else None
    return advance(tx, instance, happening, reason=reason, generation=instance.generation + 1, grace_until=until)


def end_grace(tx: Transaction, instance: Instance, grace: float) -> None:
    """The guest has had its time: it stays as it is, and that is said."""
    reason = f"the guest has not shut down for {grace:g} s; shutdownVm asks it again, destroyVm ends it"
    tx.put_instance(msgspec.structs.replace(instance, grace_until=None, reason=reason))
    state = instance.state.name
    tx.tell(vm_action("stateChanged", instance, state, state, reason, tx.cluster.host_name(instance.host_id)))


def add_task(tx: Transaction, instance: Instance, task: Task) -> Instance:
    """Have this done when what was asked before is; YourMistake when the instance does not run, or has too much to do already."""
    if instance.state is not InstanceState.Running:
        raise wrong_state(instance, InstanceState.Running)
    if len(instance.tasks) >= MOST_TASKS:
        raise YourMistake(BUSY, f"{instance.name} has {MOST_TASKS} tasks before it already; ask again later")
    generation = instance.generation + (not instance.tasks)
    after = msgspec.structs.replace(instance, tasks=(*instance.tasks, task), generation=generation)
    tx.put_instance(after)
    return after


def end_task(tx: Transaction, instance: Instance, observation: Observation) -> Instance:
    """Its host has done the first task, or refused it; on to the next."""
    rest = instance.tasks[1:]
    after = msgspec.structs.replace(instance, tasks=rest, generation=instance.generation + bool(rest), reason=observation.refused)
    tx.put_instance(after)
    return after


def wrong_state(instance: Instance, needed: InstanceState) -> YourMistake:
    """What whoever asks is told of an instance in the wrong state."""
    return YourMistake(CONFLICT, f"VmState is not {needed.name} - it is {instance.state.name}")
