"""One order carried out, in a thread: what is then seen of its instance, and what became of the order."""

from __future__ import annotations

from typing import Final

import msgspec
from twisted.logger import Logger

from tashi.errors import OurFault
from tashi.interfaces import IHypervisor
from tashi.model.bounds import cut
from tashi.model.instance import Resources
from tashi.model.orders import Deed, Destroy, Look, Observation, Offer, Order, PrepareDisks, Receive, Seen, Start, answer
from tashi.node.faults import HypervisorAway

LONGEST_REASON: Final = 400
_ALIVE: Final = (Seen.RUNNING, Seen.PAUSED)
_log = Logger()


def carry_out(hypervisor: IHypervisor, cell: str, order: Order) -> Observation | None:
    """The order's outcome. Whatever may be said of it to the owner is an observation, not an error."""
    if isinstance(order, Deed):
        return _do(hypervisor, cell, order)
    try:
        if isinstance(order, Start):
            return hypervisor.start(cell, order)
        if isinstance(order, PrepareDisks):
            hypervisor.prepare_disks(cell, order)
            seen, reason = Seen.READY, ""
        else:
            if order.unused_below:
                _take_unused(hypervisor, cell, order)
            hypervisor.destroy(cell, order.uuid, order.generation, order.copies, order.saved, order.incarnation)
            seen, reason = Seen.GONE, "destroyed"
    except HypervisorAway:
        raise
    except OurFault as fault:
        seen, reason = Seen.FAILED, fault.message
    except Exception:
        # Whether it runs is not known, and what is told to have failed may be started elsewhere: look before saying so.
        _log.failure("instance {id}: an order was not carried out", id=order.instance_id)
        found = hypervisor.settle(cell, order.uuid, order.generation, incarnation=order.incarnation)
        if isinstance(order, Start) and found is not None and found.seen in _ALIVE:
            return msgspec.structs.replace(found, generation=order.generation)
        seen, reason = Seen.FAILED, "the node agent failed; its log says how"
    return answer(order, seen, reason)


def _take_unused(hypervisor: IHypervisor, cell: str, order: Destroy) -> None:
    """Let the disks of a move that nobody ended be this host's, so that they go with the domain."""
    generation = min(order.generation, order.unused_below)
    look = Look(instance_id=order.instance_id, generation=generation, incarnation=order.incarnation, uuid=order.uuid, yours=True)
    try:
        hypervisor.do(cell, look)
    except HypervisorAway:
        raise
    except OurFault as fault:  # the domain here is another instance's; a Destroy leaves it alone, too
        _log.info("instance {id}: {fault}", id=order.instance_id, fault=fault.message)


def _do(hypervisor: IHypervisor, cell: str, deed: Deed) -> Observation | None:
    """What is seen of the domain after the deed, with what became of that; None: there is no such domain any more."""
    refused, outcome = "", None
    try:
        if not isinstance(deed, Look) or deed.yours:
            outcome = hypervisor.do(cell, deed)
    except HypervisorAway:
        raise
    except OurFault as fault:
        refused = cut(fault.message, LONGEST_REASON)
    except Exception:
        _log.failure("instance {id}: a deed was not carried out", id=deed.instance_id)
        refused = "the node agent failed; its log says how"
    # what was made ready for a domain that is to arrive is not cleared away
    seen = None
    if not isinstance(deed, Receive) or outcome is None:
        seen = hypervisor.settle(cell, deed.uuid, deed.generation, incarnation=deed.incarnation)
    without_domain = Seen.EXPECTED if isinstance(deed, Receive) else outcome
    if seen is None and isinstance(without_domain, Seen):
        seen = answer(deed, without_domain)
    if seen is None and refused:
        seen = answer(deed, Seen.MISSING, refused)  # nobody saw it end: its memory may be saved, or its UUID another's
    return seen and msgspec.structs.replace(
        seen,
        generation=deed.generation,
        done=True,
        refused=refused,
        adapted=outcome if isinstance(outcome, Resources) else None,
        offer=outcome if isinstance(outcome, Offer) else None,
    )
