"""Counters of all running domains by one call of libvirt, and of the machine; what a driver does not tell is left out."""

from __future__ import annotations

import contextlib
import re
import time
import uuid
from collections.abc import Mapping
from typing import Any, Final

import libvirt

from tashi.model.instance import domain_uuid
from tashi.model.statistics import Counters, Sample

_GROUPS: Final = (
    libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_BLOCK
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
)
_FLAGS: Final = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
"""A guest's own process is asked for some of it. One that hangs never answers, and libvirt waits for ever; NOWAIT lets the calls after that
pass over what it should be asked."""
_NAME: Final = re.compile("tashi-([0-9]{1,18})-")
_KIBIBYTE: Final = 1024


def read_statistics(connection: Any, cell: str) -> Sample:
    """The counters of the cell's domains, known by name and UUID; libvirt's error when it does not answer."""
    space = uuid.UUID(cell)
    domains = {}
    for domain, raw in connection.getAllDomainStats(_GROUPS, _FLAGS):
        instance_id = _instance_of(domain, space)
        if instance_id is not None:
            domains[instance_id] = _counters(domain.ID(), raw)
    at = time.monotonic()
    return Sample(at=at, domains=domains, machine=_machine(connection))


def _instance_of(domain: Any, cell: uuid.UUID) -> int | None:
    """The instance whose domain this is, by what libvirt has sent along: no call for each domain. None: not of this cell."""
    name = _NAME.match(domain.name())
    if name is None or domain_uuid(cell, int(name[1])).bytes != domain.UUID():
        return None
    return int(name[1])


def _counters(life: int, raw: Mapping[str, Any]) -> Counters:
    available, unused = raw.get("balloon.available"), raw.get("balloon.unused")
    return Counters(
        life=life,
        cpu=raw.get("cpu.time"),
        memory=None if available is None or unused is None else max(0, available - unused) * _KIBIBYTE,
        resident=None if (rss := raw.get("balloon.rss")) is None else rss * _KIBIBYTE,
        read=_sum(raw, "block", "rd.bytes"),
        written=_sum(raw, "block", "wr.bytes"),
        reads=_sum(raw, "block", "rd.reqs"),
        writes=_sum(raw, "block", "wr.reqs"),
        received=_sum(raw, "net", "rx.bytes"),
        sent=_sum(raw, "net", "tx.bytes"),
    )


def _sum(raw: Mapping[str, Any], group: str, name: str) -> int | None:
    """Over all of the domain's disks or cards; None unless each of them tells it."""
    values = [raw.get(f"{group}.{number}.{name}") for number in range(raw.get(f"{group}.count", 0))]
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _machine(connection: Any) -> Counters:
    cpu = memory = None
    with contextlib.suppress(libvirt.libvirtError, KeyError):  # what a driver does not know is not told
        spent = connection.getCPUStats(libvirt.VIR_NODE_CPU_STATS_ALL_CPUS)
        cpu = spent["kernel"] + spent["user"]
    with contextlib.suppress(libvirt.libvirtError, KeyError):
        held = connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)
        memory = (held["total"] - held["free"] - held["buffers"] - held["cached"]) * _KIBIBYTE
    return Counters(cpu=cpu, memory=memory)
