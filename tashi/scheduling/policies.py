"""The policies by the names they have in `[Scheduler] scheduler =`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from tashi.model.host import Host
from tashi.model.instance import Instance
from tashi.scheduling import primitive
from tashi.scheduling.filters import EVER, objection
from tashi.scheduling.plan import Plan, Refusal
from tashi.scheduling.room import Room
from tashi.scheduling.snapshot import SchedulingSettings, Snapshot

Policy = Callable[[Snapshot], Plan]

POLICIES: Final[Mapping[str, Policy]] = {"Primitive": primitive.plan}


def never_fits(instance: Instance, hosts: Mapping[int, Host], settings: SchedulingSettings) -> tuple[Refusal, ...]:
    """One refusal per host when no host could hold the instance even if it were empty; nothing when one could, or none has joined."""
    refusals: list[Refusal] = []
    for host in hosts.values():
        if host.facts is None:
            return ()
        reason = objection(instance, Room(host, settings), EVER)
        if reason is None:
            return ()
        refusals.append(Refusal(host=host.name, reason=reason))
    return tuple(refusals)
