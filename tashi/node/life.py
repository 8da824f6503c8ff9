"""What is known of one instance on this host, and how an observation compares with the one before it."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tashi.model.causes import ENDED, OFF, Cause
from tashi.model.orders import Migrate, Observation, Order, PrepareDisks, Seen, Start, Suspend

PROGRESS_SECONDS: Final = 1.0
ALIVE: Final = (Seen.RUNNING, Seen.PAUSED)
Key = tuple[int, str]
"""The id and the incarnation of an instance."""
AT_AN_END: Final = ENDED | {Cause.MIGRATED_AWAY}
_NOT_ENDED: Final = OFF | {Cause.MIGRATED_AWAY}


class Life:
    """What is known of one incarnation of an instance on this host."""

    def __init__(self, key: Key, domain: str) -> None:
        self.key = key
        self.instance_id, self.incarnation = key
        self.domain = domain
        self.generation = -1
        self.destroying = False  # the order of this generation is a Destroy
        self.done: Observation | None = None  # the outcome of the deed of this generation, once there is one
        self.waiting: Order | None = None
        self.busy = False
        self.at: Order | None = None  # what takes long and is under way
        self.percent: int | None = None
        self.order: Order | None = None  # the last that was begun
        self.hint: Seen | None = None  # what libvirt said last, if nobody has looked since
        self.look = False
        self.asked = False  # somebody waits to be told, even what was told before
        self.cause: Cause | None = None  # why it does not run, as libvirt said last
        self.last: Observation | None = None
        self.changed = 0

    def notice(self, seen: Seen | None, cause: Cause | None) -> None:
        """Keep what the hypervisor says of it; that it was undefined says nothing of how it had ended before."""
        self.hint = seen
        if cause is not Cause.UNDEFINED or self.cause not in AT_AN_END:
            self.cause = cause

    @property
    def known_cause(self) -> Cause | None:
        """Why the domain does not run, as the hypervisor said last, or had told before it was restarted."""
        return self.cause or (self.last.cause if self.last is not None else None)

    def observed(self, seen: Seen, **fields: Any) -> Observation:
        """Return an observation of this incarnation."""
        return Observation(instance_id=self.instance_id, incarnation=self.incarnation, seen=seen, **fields)

    @property
    def is_gone(self) -> bool:
        """Return whether nothing of the domain is here; one that was migrated away may have left its definition."""
        return self.last is not None and self.last.seen is Seen.GONE and self.last.cause is not Cause.MIGRATED_AWAY

    def keep_outcome(self, observation: Observation) -> None:
        """Keep the outcome of the last deed. One that was refused where nothing was seen, as without the share, is tried again when it is
        repeated."""
        undone = observation.refused and observation.seen is Seen.MISSING
        if observation.done and observation.generation == self.generation and not undone:
            self.done = observation

    def has_begun(self, order: Order) -> bool:
        """Return whether this order, or a newer one, was begun here: then its outcome is known or still to come."""
        return self.order is not None and self.order.generation >= order.generation


def takes_long(order: Order) -> bool:
    """Whether it may take minutes: then it has a thread apart, says how far it is, and ends when the instance is to be destroyed."""
    return isinstance(order, PrepareDisks | Migrate | Suspend) or (isinstance(order, Start) and bool(order.saved))


def interval(order: Order) -> float:
    """Seconds between two questions how far it is: a copy comes to its end without being watched, and is told less often."""
    return 2 * PROGRESS_SECONDS if isinstance(order, PrepareDisks) else PROGRESS_SECONDS


def is_news(life: Life) -> bool:
    """Return whether the last hint of the hypervisor says something else than what is known."""
    hint, known = life.hint, life.last
    if hint is None or known is None:
        return hint is not None
    if hint is Seen.PAUSED and known.seen is Seen.PAUSED:
        return life.cause is not known.cause
    return hint is not known.seen and (known.seen in ALIVE or hint in ALIVE)


def is_forgotten(known: Observation, observation: Observation) -> bool:
    """Return whether libvirt no longer knows why this domain is off, although it is known not to have ended."""
    return observation.seen is Seen.GONE and observation.cause is None and known.cause in _NOT_ENDED


def same(known: Observation | None, observation: Observation | None) -> bool:
    """Whether both tell the same, at whatever time; one without network cards says nothing of them, and the size is no news."""
    if known is None or observation is None:
        return False
    nics = observation.nics or known.nics
    return msgspec.structs.replace(known, at=0.0, domain=None) == msgspec.structs.replace(observation, at=0.0, domain=None, nics=nics)
