"""Whether the terms an instance was given are kept where it is: of each that is not, why, in words."""

from __future__ import annotations

from collections.abc import Mapping

from tashi.model.host import Host
from tashi.model.instance import Instance
from tashi.model.sla import SlaClass
from tashi.scheduling.load import Load
from tashi.scheduling.snapshot import SchedulingSettings
from tashi.scheduling.terms import is_true, wants_isolation


def broken_terms(
    instance: Instance, host: Host, load: Load, settings: SchedulingSettings, sla_classes: Mapping[str, SlaClass]
) -> dict[str, str]:
    """The terms that this host, on which so much is taken, does not keep: location, auditability, isolation, cpuSpeed, memory, sla."""
    broken: dict[str, str] = {}
    wanted, here = instance.hints.get("location"), host.config.get("location")
    if wanted is not None and here != wanted:
        broken["location"] = f"{host.name} is in location {here or 'unknown'}, not {wanted}"
    if is_true(instance.hints.get("auditability")) and not is_true(host.config.get("auditability")):
        broken["auditability"] = f"{host.name} is not auditable"
    others = len(load.users) - (instance.user_id in load.users)
    if wants_isolation(instance) and others:
        broken["isolation"] = f"{host.name} holds instances of {others} other users"
    facts = host.facts
    if instance.cpu_speed and facts is not None:
        offered = facts.cores * facts.cpu_speed * settings.cpu_speed_over_rate
        if instance.cpu_speed > facts.cpu_speed:
            broken["cpuSpeed"] = f"{instance.cpu_speed} MHz a core are reserved, and the cores of {host.name} have {facts.cpu_speed} MHz"
        elif load.speed > offered:
            broken["cpuSpeed"] = f"{load.speed} MHz are reserved on {host.name}, which has {offered:g} MHz to give"
    memory = instance.resources.memory or 0
    if instance.shrunk_from is not None and memory < instance.shrunk_from:
        broken["memory"] = f"it has {memory} of its {instance.shrunk_from} MB, to make room for more important ones"
    if instance.sla and instance.sla not in sla_classes:
        broken["sla"] = f"its SLA class {instance.sla} is not one of this cell's any more"
    return broken
