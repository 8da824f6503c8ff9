"""Every step of an instance's life: the state table decides, and the same transaction tells and answers whom it concerns."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.logger import Logger

from tashi.errors import CONFLICT, TashiError, YourMistake
from tashi.manager import requests
from tashi.manager.cluster import Transaction
from tashi.model.causes import Cause
from tashi.model.disks import DiskRecord, disks_after
from tashi.model.events import Event, vm_action
from tashi.model.instance import Instance, Residue
from tashi.model.states import WITHOUT_A_HOST, Happening, InstanceState, is_legal, step

_log = Logger()

_ENDED_AS_WISHED = frozenset({InstanceState.Destroying, InstanceState.ShuttingDown, *WITHOUT_A_HOST})

_PAST_TASKS = frozenset({InstanceState.Destroying, InstanceState.Exited, *WITHOUT_A_HOST})


def advance(
    tx: Transaction, instance: Instance, happening: Happening, *, reason: str = "", error: TashiError | None = None, **changes: Any
) -> Instance:
    """The instance after the happening: recorded, told as an event, and answered to whoever waited for it.

    ``changes`` are further fields of the record; ``error`` is what waiting creates are told if this ends them.
    Raises IllegalHappening where the table holds no such step.
    """
    state = step(instance.state, happening)
    if state in WITHOUT_A_HOST:
        changes |= {"host_id": None, "boot": ""}
    elif state in (InstanceState.Running, InstanceState.Paused):
        changes |= {"refused_by": (), "saved": ""}
        resumes_tasks = bool(instance.tasks) and state is InstanceState.Running and state is not instance.state
        if resumes_tasks or instance.state is InstanceState.MigrateTrans:
            changes.setdefault("generation", instance.generation + 1)  # its hosts are told of the task anew, and of what is left
    disks = disks_after(instance, happening)
    if disks != instance.disks:
        changes["disks"] = disks
    if state in _PAST_TASKS:
        changes["tasks"] = ()
    if state is not InstanceState.ShuttingDown:
        changes["grace_until"] = None
    changes["cause"] = _cause_in(state, instance, changes.get("cause"))
    if state is instance.state and (changes["cause"] is instance.cause or happening is Happening.HOST_LOST):
        reason = reason or instance.reason
    after = msgspec.structs.replace(instance, state=state, reason=reason, **changes)
    if after == instance:
        return instance
    _record_disks(tx, instance, after)
    if state is InstanceState.Exited:
        tx.forget_instance(after)
    else:
        tx.put_instance(after)
    if state is not instance.state or after.cause is not instance.cause:
        event = _event(tx, instance, after, happening, reason)
        tx.tell(event)
        if event["action"] == "failed":
            tx.after_commit(lambda: _log.warn("lost an instance: {what}", what=event["description"]))
        elif event["action"] == "held":
            tx.after_commit(lambda: _log.warn("an instance does not run: {what}", what=event["description"]))
    if state is not instance.state:
        for doomed, why in requests.settle(tx, after, error).items():
            destroy(tx, doomed, reason=reason, failed=why)
    return after


def _record_disks(tx: Transaction, before: Instance, after: Instance) -> None:
    """Record the owner of each copy that a host has just made. The record stays when the copy is given up: a host that was told to
    do so keeps a copy that its instance has run with after all."""
    unused = {disk.uri for disk in before.disks if disk.template}
    for disk in after.disks:
        if disk.template and disk.uri not in unused:
            tx.put_disk(DiskRecord(name=disk.uri, user_id=after.user_id, instance_id=after.id, created_at=tx.now))


def destroy(
    tx: Transaction,
    instance_id: int,
    *,
    reason: str = "",
    failed: TashiError | None = None,
    happening: Happening = Happening.DESTROY_ASKED,
) -> Instance | None:
    """Wish the instance gone. On no host it is gone at once; else the host is ordered, and says when it is. None: it was gone.

    ``failed``: its creation was answered so; its resourceId is free again from now on.
    """
    instance = tx.instance(instance_id)
    if instance is None or instance.state is InstanceState.Destroying:
        return instance
    error = failed or YourMistake(CONFLICT, f"{instance.name} was {reason or 'destroyed'} before it ran; ask again if it is still wanted")
    owner = {} if failed is None else {"key_is_free": True}
    if instance.state in WITHOUT_A_HOST and not instance.residue:
        return advance(tx, instance, Happening.GIVEN_UP, reason=reason, error=error, **owner)
    generation = instance.generation + 1
    residue, host_id = instance.residue, instance.host_id
    if instance.migration is not None and instance.migration.received:
        residue = (*residue, Residue(host_id=instance.migration.target, generation=generation))
    if host_id is None:
        host_id, residue = residue[0].host_id, residue[1:]
    changes = {"host_id": host_id, "generation": generation, "migration": None, "residue": residue} | owner
    return advance(tx, instance, happening, reason=reason, error=error, **changes)


def end(tx: Transaction, instance: Instance, reason: str) -> None:
    """Its host has it no longer. Where nothing can be left of it that is the end; else it is Destroying until each host has cleared it
    away, one after another: one that was asked before the one it came from had let go of it may have got it afterwards."""
    prepared = instance.state is InstanceState.MigrateTrans or (instance.migration is not None and bool(instance.migration.received))
    if instance.state is InstanceState.Destroying and instance.residue:
        first, *rest = instance.residue
        tx.put_instance(
            msgspec.structs.replace(instance, host_id=first.host_id, residue=tuple(rest), generation=instance.generation + 1, decayed=False)
        )
    elif is_legal(instance.state, Happening.REMAINS) and (instance.residue or prepared):
        destroy(tx, instance.id, reason=reason, happening=Happening.REMAINS)
    else:
        advance(tx, instance, Happening.SEEN_GONE, reason=reason, decayed=False)


def born_again(tx: Transaction, instance: Instance) -> dict[str, Any]:
    """The change by which an instance gets the incarnation that its record, made by an older version, does not have: its next domain
    carries it. One whose memory is saved, or of which something is left on a host, is known there without one and stays so."""
    if instance.incarnation or instance.saved or instance.residue:
        return {}
    return {"incarnation": tx.cluster.new_incarnation()}


def _cause_in(state: InstanceState, before: Instance, cause: Cause | None) -> Cause | None:
    """Why an instance in this state does not run: a doubt keeps what was known before it."""
    if state is InstanceState.Orphaned:
        return cause or (Cause.OWNER if before.state is InstanceState.Pausing else before.cause)
    return cause if state in (InstanceState.Paused, InstanceState.Held) else None


def _event(tx: Transaction, before: Instance, after: Instance, happening: Happening, reason: str) -> Event:
    if happening is Happening.ARRIVED or (before.state is InstanceState.MigrateTrans and happening is Happening.SEEN_RUNNING):
        former = tx.cluster.host_name(after.residue[-1].host_id) if after.residue else None
        host = tx.cluster.host_name(after.host_id)
        return vm_action("migrated", after, former, host, reason or after.placed_why, host)
    match after.state:
        case _ if after.state is InstanceState.Exited or happening is Happening.REMAINS:
            as_wished = before.state in _ENDED_AS_WISHED or reason == "shut down"
            action = "destroyed" if as_wished else "failed"
        case InstanceState.Held:
            action = "held"
        case _ if happening in (Happening.PLACED, Happening.DISK_NEEDED, Happening.RESUME_PLACED):
            action = "placed"
        case InstanceState.MigratePrep | InstanceState.MigrateTrans:
            action = "migrating"
        case _:
            action = "stateChanged"
    event = vm_action(action, after, before.state.name, after.state.name, reason, tx.cluster.host_name(after.host_id))
    return event if after.cause is None else event | {"cause": after.cause.value}
