"""Accepted commands and their outcomes: one each, written by the transaction that decides it, told from the outbox."""

from __future__ import annotations

import msgspec

from tashi.errors import INTERNAL, OurFault, TashiError
from tashi.manager.cluster import Transaction
from tashi.model import replies
from tashi.model.events import audit_record
from tashi.model.instance import Instance
from tashi.model.request import Origin, Request
from tashi.model.states import InstanceState

CREATES = frozenset({"createcompute", "createmanycompute"})


def accept(
    tx: Transaction,
    origin: Origin,
    instance_ids: tuple[int, ...],
    *,
    resource_id: str | None = None,
    deadline: float | None = None,
    notify: str | None = None,
) -> Request:
    """A command that will get its one outcome later; from here on it survives every crash."""
    request = Request(
        id=tx.next_id("request"),
        origin=origin,
        instance_ids=instance_ids,
        resource_id=resource_id,
        accepted_at=tx.now,
        deadline=deadline,
        notify=notify,
    )
    tx.put_request(request)
    return request


def succeed(tx: Transaction, request: Request, instances: tuple[Instance, ...]) -> None:
    """The outcome is OK."""
    host = tx.cluster.host_name(instances[0].host_id) if instances else None
    _finish(tx, request, replies.ok(request.origin.verb, instances, host, tx.now), "OK")


def fail(tx: Transaction, request: Request, error: TashiError) -> None:
    """The outcome is this error."""
    _finish(tx, request, replies.error(request.origin.verb, error, request.resource_id, tx.now), error.code)


def settle(tx: Transaction, instance: Instance, error: TashiError | None = None) -> list[int]:
    """The instance has got to another state: finish the requests that waited for it.

    Returns the instances that must now be destroyed, because a create answered ERROR leaves none. ``error`` is what to tell
    the creates when the state alone does not say why.
    """
    doomed: list[int] = []
    for request_id in tx.open_requests(instance.id):
        request = tx.request(request_id)
        if request is None or request.done_at is not None:
            continue
        if request.origin.verb in CREATES:
            if instance.state is InstanceState.Running:
                instances = tuple(other for other in map(tx.instance, request.instance_ids) if other is not None)
                if all(other.state is InstanceState.Running for other in instances):
                    succeed(tx, request, instances)
            elif instance.state in (InstanceState.Held, InstanceState.Exited):
                why = error or OurFault(
                    INTERNAL, f"{instance.name} could not be started: {instance.reason or 'it ended'}; ask again when that is mended"
                )
                fail(tx, request, why)
                doomed.extend(request.instance_ids)
        elif instance.state is InstanceState.Exited and all(tx.instance(other) is None for other in request.instance_ids):
            succeed(tx, request, (instance,))
    return doomed


def _finish(tx: Transaction, request: Request, body: str, result: str) -> None:
    tx.put_request(msgspec.structs.replace(request, done_at=tx.now, outcome=body))
    tx.send(request.origin, body)
    if request.notify and request.notify != request.origin.sender:
        tx.send(request.origin, body, to=request.notify)
    target = request.resource_id or " ".join(map(str, request.instance_ids))
    tx.tell(audit_record(request.origin.sender, request.origin.verb, target, result))
