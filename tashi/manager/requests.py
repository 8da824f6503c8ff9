"""Accepted commands and their outcomes: one each, written by the transaction that decides it, told from the outbox."""

from __future__ import annotations

import msgspec

from tashi.errors import CONFLICT, INTERNAL, NOT_SUPPORTED_LIVE, OurFault, TashiError, YourMistake
from tashi.manager.cluster import Transaction
from tashi.model import replies
from tashi.model.events import audit_record
from tashi.model.instance import Instance
from tashi.model.request import Origin, Request
from tashi.model.states import InstanceState

CREATES = frozenset({"createcompute", "createmanycompute"})
UPDATES = frozenset({"updatecompute", "reprovisioncompute"})
_NOT_YET = frozenset({InstanceState.Pending, InstanceState.PreparingDisk, InstanceState.Activating, InstanceState.Held})
_ENDED = frozenset({InstanceState.Held, InstanceState.Destroying, InstanceState.Exited})


def accept(
    tx: Transaction,
    origin: Origin,
    instance_ids: tuple[int, ...],
    *,
    made: tuple[int, ...] = (),
    resource_id: str | None = None,
    deadline: float | None = None,
    notify: str | None = None,
) -> Request:
    """A command that will get its one outcome later; from here on it survives every crash."""
    request = Request(
        id=tx.next_id("request"),
        origin=origin,
        instance_ids=instance_ids,
        made=made,
        resource_id=resource_id,
        accepted_at=tx.now,
        deadline=deadline,
        notify=notify,
    )
    tx.put_request(request)
    return request


def succeed(tx: Transaction, request: Request, instances: tuple[Instance, ...], target: str = "") -> None:
    """The outcome is OK. ``target`` is what the audit trail names where there are no instances."""
    host = tx.cluster.host_name(instances[0].host_id) if instances else None
    _finish(tx, request, replies.ok(request.origin.verb, instances, host, tx.now), "OK", target)


def fail(tx: Transaction, request: Request, error: TashiError, target: str = "") -> None:
    """The outcome is this error. ``target`` is what the audit trail names; empty: the instances."""
    body = replies.error(request.origin.verb, error, request.resource_id, tx.now)
    _finish(tx, request, body, error.code, target)


def end(tx: Transaction, request_id: int, instance: Instance, refused: str) -> None:
    """The host has done what was asked of the instance, or has ``refused`` it; a request that was answered meanwhile stays so."""
    request = tx.request(request_id)
    if request is None or request.done_at is not None:
        return
    if refused:
        fail(tx, request, YourMistake(NOT_SUPPORTED_LIVE, f"{instance.name} was not changed: {refused}"))
    else:
        succeed(tx, request, (instance,))


def has_started(instance: Instance) -> bool:
    """Whether it runs, or has run."""
    return instance.state not in _NOT_YET or bool(instance.saved)


def settle(tx: Transaction, instance: Instance, error: TashiError | None = None) -> dict[int, TashiError]:
    """The instance has got to another state: finish the requests that waited for it.

    Returns the instances that must now be destroyed, each with what its create was told, because a create answered ERROR leaves
    none. ``error`` is what to tell the creates when the state alone does not say why.
    """
    doomed: dict[int, TashiError] = {}
    for request_id in tx.open_requests(instance.id):
        request = tx.request(request_id)
        if request is None or request.done_at is not None:
            continue
        if request.origin.verb in CREATES:
            if instance.state in _ENDED:
                why = error or OurFault(
                    INTERNAL, f"{instance.name} could not be started: {instance.reason or 'it ended'}; ask again when that is mended"
                )
                fail(tx, request, why)
                doomed |= dict.fromkeys(request.made, why)
            elif has_started(instance):
                instances = tuple(other for other in map(tx.instance, request.instance_ids) if other is not None)
                if all(map(has_started, instances)):
                    succeed(tx, request, instances)
        elif request.origin.verb in UPDATES:
            if instance.state is InstanceState.Held:
                reason = instance.reason or "it ended"
                fail(tx, request, error or OurFault(INTERNAL, f"{instance.name} ended, and could not be started again: {reason}"))
            elif instance.state in _ENDED:
                fail(tx, request, YourMistake(CONFLICT, f"{instance.name} ended before it could be changed"))
            elif instance.state is InstanceState.Running and all(task.request != request.id for task in instance.tasks):
                succeed(tx, request, (instance,))  # it was restarted
        elif instance.state is InstanceState.Exited and all(tx.instance(other) is None for other in request.instance_ids):
            succeed(tx, request, (instance,))
    return doomed


def _finish(tx: Transaction, request: Request, body: str, result: str, target: str = "") -> None:
    tx.put_request(msgspec.structs.replace(request, done_at=tx.now, outcome=body))
    tx.send(request.origin, body, request.id)
    if request.notify and request.notify != request.origin.sender:
        tx.notify(request.notify, replies.notification(body, request.origin.sender), request.id)
    target = target or request.resource_id or " ".join(map(str, request.instance_ids))
    tx.tell(audit_record(request.origin.sender, request.origin.verb, target, result, door="xmpp"))
