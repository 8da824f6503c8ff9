"""Why an instance could go to each of the other hosts or could not, worked out now, in words that name numbers."""

from __future__ import annotations

import msgspec

from tashi.model.instance import Instance
from tashi.scheduling.fleet import Fleet
from tashi.scheduling.placing.choosing import Rule
from tashi.scheduling.snapshot import Snapshot


def explain(snapshot: Snapshot, instance: Instance, rule: Rule | None = None) -> list[str]:
    """One line for each host other than its own, by id: what is in the way, or how good it would be there by this rule, and here.

    One that has a place is looked at as if it were to be placed now. A policy that has no rule does not say how good.
    """
    fleet = Fleet(snapshot)
    for host_id in instance.rooms:
        place = fleet.place_of.get(host_id)
        if place is not None and any(one.id == instance.id for one in fleet.room(place).residents):
            fleet.remove(instance, place)
    waiting = msgspec.structs.replace(instance, host_id=None, migration=None)
    disks = fleet.rooms.disks_in_use(waiting)
    here = fleet.place_of.get(instance.host_id or 0)
    scores = None if rule is None else rule.score(fleet, instance).tolist()
    lines = []
    for place, host in enumerate(fleet.hosts):
        if place == here:
            continue
        if disks:
            reason: str | None = f"the persistent disk {disks[0]} is in use by {fleet.rooms.holder(disks[0])}"
        else:
            reason = fleet.objection(waiting, place)
        if reason is None and (rule is None or scores is None):
            reason = f"would take it, beside {fleet.count[place]} instances"
        elif reason is None and rule is not None and scores is not None:
            reason = f"would take it: {rule.figure(scores[place])}"
            reason += f" there, {rule.number(scores[here])} here" if here is not None else ""
        lines.append(f"{host.name}: {reason}")
    return lines
