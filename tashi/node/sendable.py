"""Reports and orders within the bounds of the wire.

An observation that cannot be sent is replaced by one without what is wrong with it; an order that cannot be read is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from twisted.logger import Logger

from tashi.errors import TashiError
from tashi.model.bounds import LARGEST, LONGEST_NAME, MOST_CORES, MOST_ITEMS, MOST_MEGAHERTZ, MOST_MEMORY, clamped, cut
from tashi.model.host import HostFacts
from tashi.model.orders import Observation, Order, Report
from tashi.wire.codec import decode, encode

_log = Logger()


def facts_within_bounds(facts: HostFacts) -> HostFacts:
    """The facts of a machine, with numbers clamped and texts cut to what a control plane takes."""
    return msgspec.structs.replace(
        facts,
        memory=clamped(facts.memory, 0, MOST_MEMORY),
        cores=clamped(facts.cores, 1, MOST_CORES),
        cpu_speed=clamped(facts.cpu_speed, 0, MOST_MEGAHERTZ),
        version=cut(facts.version, LONGEST_NAME),
        fqdn=cut(facts.fqdn),
        hypervisor=cut(facts.hypervisor, LONGEST_NAME),
        networks=tuple(network for network in facts.networks if 0 <= network <= 4095)[:MOST_ITEMS],
        mac=cut(facts.mac, LONGEST_NAME),
    )


def encoded_report(report: Report) -> bytes:
    """The report as it is sent. An observation that no control plane would read is sent without what is wrong with it."""
    try:
        text = encode(report)
        decode(text, Report)
        return text
    except (TashiError, UnicodeEncodeError) as error:
        _log.warn("a report is out of bounds and is sent in part: {error}", error=error)
    statistics = report.statistics if report.statistics is not None and _is_readable(report.statistics) else None
    return encode(
        msgspec.structs.replace(
            report,
            facts=facts_within_bounds(report.facts),
            observations=tuple(one for each in report.observations if (one := _readable(each)) is not None),
            statistics=statistics,
        )
    )


def read_orders(text: bytes) -> Sequence[Order]:
    """The orders in this text; one that is out of bounds is left out, and does not keep the others."""
    orders: list[Order] = []
    for raw in decode(text, list[msgspec.Raw]):
        try:
            orders.append(decode(bytes(raw), Order))
        except TashiError as error:
            _log.warn("an order is not carried out: {error}", error=error.message)
    return orders


def _readable(observation: Observation) -> Observation | None:
    """The observation, or what of it can be read; None where not even its instance can be."""
    if _is_readable(observation):
        return observation
    if not 0 <= observation.instance_id <= LARGEST:
        return None
    return Observation(
        instance_id=observation.instance_id,
        generation=clamped(observation.generation, 0, LARGEST),
        seen=observation.seen,
        reason=cut(observation.reason),
        done=observation.done,
        refused=cut(observation.refused) or ("its outcome is out of bounds" if observation.done else ""),
    )


def _is_readable(record: msgspec.Struct) -> bool:
    try:
        decode(encode(record), type(record))
    except (TashiError, UnicodeEncodeError):
        return False
    return True
