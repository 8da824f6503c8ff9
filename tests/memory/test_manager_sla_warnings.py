"""A term that is not kept where an instance is: told once, however often it is looked at."""

from __future__ import annotations

from typing import Any

import msgspec

from tashi.model.sla import SlaClass
from tashi.store.memory import MemoryStore
from tests.builders import ADMIN, a_spec, some_facts
from tests.small_cell import FakeAgent, SmallCell


def warned(cell: SmallCell) -> list[tuple[str, str, str]]:
    """Who has been told of: name, term and why, in the order it was told."""
    cell.live(2)
    return [(event["fqdn"], event["term"], event["reason"]) for event in cell.events if event["type"] == "slaWarning"]


def a_cell(*specs: Any, **settings: Any) -> SmallCell:
    """One host in Ireland, on which these run."""
    cell = SmallCell(hosts=[FakeAgent("h1")], **settings)
    for name, value in (("location", "ie"), ("auditability", "True")):
        cell.call(ADMIN, "setHostConfig", hostId="h1", elemName=name, value=value)
    cell.create(*specs)
    cell.work()
    assert warned(cell) == []
    return cell


def test_a_host_that_changes_under_an_instance() -> None:
    """When its host's configuration no longer says so, location and auditability are not kept: each is told once, and once more when it
    was kept in between."""
    cell = a_cell(a_spec("vm1", hints={"location": "ie", "auditability": "True"}, resource_id="r"), a_spec("vm2"))
    cell.call(ADMIN, "setHostConfig", hostId="h1", elemName="location", value="de")
    first = ("vm1", "location", "h1 is in location de, not ie")
    assert warned(cell) == [first]
    cell.call(ADMIN, "setHostConfig", hostId="h1", elemName="auditability", value="")
    assert warned(cell) == [first, ("vm1", "auditability", "h1 is not auditable")]
    event = next(event for event in cell.events if event["type"] == "slaWarning")
    assert (event["id"], event["resourceId"], event["host"], event["sla"]) == (1, "r", "h1", None)
    assert event["description"] == "vm1 (1) location is not kept: h1 is in location de, not ie"
    cell.live(20)
    cell.restart()
    assert len(warned(cell)) == 2
    cell.call(ADMIN, "setHostConfig", hostId="h1", elemName="location", value="ie")
    assert len(warned(cell)) == 2
    cell.call(ADMIN, "setHostConfig", hostId="h1", elemName="location", value="uk")
    assert warned(cell)[2:] == [("vm1", "location", "h1 is in location uk, not ie")]


def test_speed_that_is_not_there() -> None:
    """When a host turns out slower than what is reserved on it, those who have reserved are told of, and nobody else."""
    cell = a_cell(a_spec("vm1", cores=4, cpu_speed=1500), a_spec("vm2"))
    cell.agents[0].facts = some_facts(cores=2)
    assert warned(cell) == [("vm1", "cpuSpeed", "6000 MHz are reserved on h1, which has 4000 MHz to give")]
    cell.agents[0].facts = msgspec.structs.replace(some_facts(), cpu_speed=1000)
    assert len(warned(cell)) == 1


def test_memory_that_was_taken_away() -> None:
    """One that was shrunk has not what it was given, until it is grown back."""
    cell = a_cell(a_spec("vm1", memory=1024))
    for limit, shrunk_from in ((512, 1024), (256, 1024), (None, None)):
        with cell.manager.cluster.transaction("shrink") as tx:
            tx.put_instance(msgspec.structs.replace(cell.instance("vm1"), memory_limit=limit, shrunk_from=shrunk_from))
        assert warned(cell) == [("vm1", "memory", "it has 512 of its 1024 MB, to make room for more important ones")]
    assert cell.instance("vm1").broken_terms == ()


def test_a_class_that_there_is_no_more() -> None:
    """After a restart without its class an instance is told of; what it was given it has."""
    store = MemoryStore()
    cell = a_cell(a_spec("vm1", sla="gold"), store=store, sla_classes={"gold": SlaClass(name="gold")})
    cell.settings = msgspec.structs.replace(cell.settings, sla_classes={})
    cell.restart()
    assert warned(cell) == [("vm1", "sla", "its SLA class gold is not one of this cell's any more")]
    cell.restart()
    assert len(warned(cell)) == 1
