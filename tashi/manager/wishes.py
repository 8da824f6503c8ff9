"""What its owner may wish of an instance that is on a host: each is one function within a transaction of the caller's."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

import msgspec

from tashi.errors import BUSY, CONFLICT, NO_SUITABLE_HOST, NOT_SUPPORTED_LIVE, YourMistake
from tashi.manager import requests, squeezing
from tashi.manager.cluster import Transaction
from tashi.manager.lifecycle import advance
from tashi.manager.marks import refuse_early_start
from tashi.model.causes import OFF
from tashi.model.events import Event, audit_record, vm_action
from tashi.model.instance import LIMITS, Instance, Resources, Task, saved_name
from tashi.model.orders import Observation
from tashi.model.states import Happening, InstanceState, is_legal
from tashi.scheduling.room import Room
from tashi.scheduling.snapshot import SchedulingSettings

MOST_TASKS: Final = 100
_NEEDED: Final = {
    Happening.PAUSE_ASKED: InstanceState.Running,
    Happening.UNPAUSE_ASKED: InstanceState.Paused,
    Happening.SHUTDOWN_ASKED: InstanceState.Running,
    Happening.SUSPEND_ASKED: InstanceState.Running,
    Happening.RESUME_ASKED: InstanceState.Suspended,
}


def wish(tx: Transaction, instance: Instance, happening: Happening, *, reason: str = "", grace: float = 0.0) -> Instance:
    """Pause, unpause, suspend, resume or shut down; ``grace`` is how many seconds a guest has to shut down. Resuming a Held instance has
    it placed and started again. YourMistake(conflict) in another state."""
    if happening is Happening.RESUME_ASKED and instance.state is InstanceState.Held:
        refuse_early_start(tx.cluster, instance)
        return advance(tx, instance, Happening.RETRIED, reason=reason, refused_by=())
    legal = is_legal(instance.state, happening)
    if happening is Happening.RESUME_ASKED and instance.state is InstanceState.Paused:
        legal = instance.cause in OFF
    if not legal:
        raise wrong_state(instance, _NEEDED[happening])
    changes: dict[str, Any] = {"generation": instance.generation + 1}
    if happening is Happening.SHUTDOWN_ASKED:
        changes["grace_until"] = tx.now + grace
    elif happening is Happening.SUSPEND_ASKED:
        squeezing.refuse_suspension(instance)
        changes["saved"] = saved_name(UUID(tx.cluster.settings["cell"]), instance.id, instance.incarnation)
    return advance(tx, instance, happening, reason=reason, **changes)


def end_grace(tx: Transaction, instance: Instance, grace: float) -> None:
    """The guest has had its time: it runs on, and that is said. Should it shut down later, it has ended all the same."""
    reason = f"the guest has not shut down for {grace:g} s; shutdownVm asks it again, destroyVm ends it"
    advance(tx, instance, Happening.FAILED, reason=reason)


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
    task, *rest = instance.tasks
    changes: dict[str, object] = {}
    if task.adapt is not None and not observation.refused:
        changes = recorded(observation.adapted or task.adapt)
    after = msgspec.structs.replace(
        instance, tasks=tuple(rest), generation=instance.generation + bool(rest), reason=observation.refused, **changes
    )
    after = squeezing.ended(instance, after, observation.refused, tx.cluster.clock.seconds())
    tx.put_instance(after)
    if observation.refused:
        if task.request is None:
            target, door = f"{instance.name} ({instance.id})", "scheduler" if task.who == squeezing.WHO else "socket"
            tx.tell(audit_record(task.who, task.verb, target, f"refused: {observation.refused}", door=door))
    elif task.adapt is not None:
        tx.tell(_adapted(tx, instance, after, task.adapt, squeezing.why(task, instance)))
    if task.request is not None:
        requests.end(tx, task.request, after, observation.refused)
    return after


def adapt(
    tx: Transaction,
    instance: Instance,
    wished: Resources,
    settings: SchedulingSettings,
    *,
    who: str,
    verb: str,
    request: int | None = None,
) -> Instance:
    """Have these resources given to the instance; YourMistake when it cannot have them, or not while it runs, or does not run."""
    if wished.memory is not None and wished.memory > instance.memory:
        raise YourMistake(
            NOT_SUPPORTED_LIVE,
            f"{instance.name} was made with {instance.memory} MB of memory and cannot have {wished.memory} while it runs; ask for less, or "
            "for another instance",
        )
    if wished.memory is not None:
        squeezing.refuse_limit(instance)
    host = tx.cluster.hosts.get(instance.host_id or 0)
    if host is not None and wished.cpu_speed is not None and instance.state is InstanceState.Running:
        load = tx.cluster.loads[host.id].copy()
        load.remove(instance)
        short = Room(host, settings, load).lacks_speed(msgspec.structs.replace(instance, cpu_speed=wished.cpu_speed))
        if short is not None:
            raise YourMistake(NO_SUITABLE_HOST, f"{instance.name} cannot have {wished.cpu_speed} MHz a core: its host {host.name} {short}")
    return add_task(tx, instance, Task(adapt=wished, who=who, verb=verb, request=request))


def _said(resources: Resources) -> dict[str, int]:
    """What they say, by field."""
    return {name: value for name, value in msgspec.structs.asdict(resources).items() if value is not None}


def recorded(resources: Resources) -> dict[str, object]:
    """What they say, as the instance's record has it: its memory is what was promised to it, and no limit is None."""
    return {"memory_limit" if name == "memory" else name: value or None for name, value in _said(resources).items()}


def _adapted(tx: Transaction, before: Instance, after: Instance, wished: Resources, why: str) -> Event:
    names = _said(wished)
    old, new = (Resources(**{name: _shown(name, getattr(one.resources, name)) for name in names}) for one in (before, after))
    words = ", ".join(f"{name}: {getattr(old, name)} -> {getattr(new, name)}" for name in names) + (f", {why}" if why else "")
    event = vm_action("adapted", after, None, None, words, tx.cluster.host_name(after.host_id))
    return event | {"before": msgspec.to_builtins(old), "after": msgspec.to_builtins(new)}


def _shown(name: str, value: int | None) -> int | None:
    return 0 if value is None and name in LIMITS else value


def wrong_state(instance: Instance, needed: InstanceState) -> YourMistake:
    """What whoever asks is told of an instance in the wrong state."""
    return YourMistake(CONFLICT, f"VmState is not {needed.name} - it is {instance.state.name}")
