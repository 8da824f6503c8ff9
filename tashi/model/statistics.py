"""What instances and hosts use: counters as a hypervisor has them, and the rates that two samples of them make.

A value that is not known is None, never 0. A counter that went backwards has no rate, and neither has a domain that was started anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec

from tashi.model.bounds import Id, Items

MEGABYTE: Final = 2**20
Amount = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
DAY: Final = 86_400.0
Span = Annotated[float, msgspec.Meta(gt=0, le=DAY)]


class Counters(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One running domain at one moment: processor time in ns, memory in bytes, and what its disks and network cards have carried so far.

    ``life`` is another one whenever the domain was started anew.
    """

    life: int = 0
    cpu: int | None = None
    memory: int | None = None
    resident: int | None = None
    read: int | None = None
    written: int | None = None
    reads: int | None = None
    writes: int | None = None
    received: int | None = None
    sent: int | None = None


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """The domains of a cell on one machine by instance, and of the machine itself processor time and memory. ``at``: seconds, monotonic."""

    at: float
    domains: Mapping[int, Counters] = {}
    machine: Counters = Counters()


class Use(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False):
    """Between two samples: ``cpu`` in percent of one core, ``read`` and ``write`` in bytes/s and operations/s, ``rx`` and ``tx`` (to and
    from the instance) in kbit/s. At the later one, in MB: ``memory`` as its system says it uses, ``resident`` what it holds of the host's.
    """

    cpu: Share | None = None
    memory: Amount | None = None
    resident: Amount | None = None
    read: Amount | None = None
    write: Amount | None = None
    read_ops: Amount | None = None
    write_ops: Amount | None = None
    rx: Amount | None = None
    tx: Amount | None = None


class InstanceUse(Use, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False):
    """The use of one instance."""

    instance_id: Id


class Statistics(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What a host tells of its use, or a page of it: measured over ``seconds``, to be told again after ``interval`` seconds."""

    interval: Span
    seconds: Span
    host: Use | None = None  # of the machine as a whole, whoever uses it; only cpu and memory
    instances: Annotated[tuple[InstanceUse, ...], Items] = ()


def statistics_between(before: Sample, now: Sample, interval: float) -> Statistics | None:
    """The use from one sample to the next; None when no time lies between. An instance of which nothing is known is left out."""
    seconds = now.at - before.at
    if not 0 < seconds <= DAY:
        return None
    uses = []
    for instance_id, counters in now.domains.items():
        values = _use(before.domains.get(instance_id), counters, seconds)
        if values:
            uses.append(InstanceUse(instance_id=instance_id, **values))
    machine = _use(before.machine, now.machine, seconds)
    return Statistics(interval=interval, seconds=seconds, host=Use(**machine) if machine else None, instances=tuple(uses))


def pages_of(statistics: Statistics, size: int) -> list[Statistics]:
    """The same in parts of at most ``size`` instances; the first one tells of the host."""
    uses = statistics.instances
    parts = [uses[start : start + size] for start in range(0, len(uses), size)] or [()]
    return [
        msgspec.structs.replace(statistics, instances=part, host=None if number else statistics.host) for number, part in enumerate(parts)
    ]


def _use(before: Counters | None, now: Counters, seconds: float) -> dict[str, Any]:
    """The fields of a Use that are known."""
    values: dict[str, Any] = {}
    for name in ("memory", "resident"):
        if (held := getattr(now, name)) is not None:
            values[name] = held // MEGABYTE
    if before is None or before.life != now.life:
        return values
    for name, counter, unit, digits in _RATES:
        first, last = getattr(before, counter), getattr(now, counter)
        if first is not None and last is not None and last >= first:
            values[name] = round((last - first) / seconds / unit, digits)
    return values


_RATES: Final = (
    ("cpu", "cpu", 1e7, 1),
    ("read", "read", 1, None),
    ("write", "written", 1, None),
    ("read_ops", "reads", 1, None),
    ("write_ops", "writes", 1, None),
    ("rx", "received", 125, None),
    ("tx", "sent", 125, None),
)
"""A rate, its counter, what of the counter in a second is one, and decimals."""
