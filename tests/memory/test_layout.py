"""The layout event: which host holds what."""

from __future__ import annotations

from typing import Any

import msgspec

from tests.builders import a_spec, an_instance, some_facts
from tests.small_cell import FakeAgent, SmallCell


def _layouts(cell: SmallCell) -> list[dict[str, Any]]:
    return [event for event in cell.all_events if event["type"] == "vmLayout"]


def test_a_layout_says_what_is_where() -> None:
    """Hosts with what they offer, carry and hold; instances with where they are."""
    cell = SmallCell(hosts=[FakeAgent("h1"), FakeAgent("h2", some_facts(fqdn="h2.example.org"))])
    cell.create(a_spec("web", cores=2, memory=512, cpu_speed=1000, resource_id="r"))
    cell.work()
    cell.settle(2)
    layout = _layouts(cell)[-1]
    first, second = layout["hosts"]
    assert (first["name"], first["vmList"], first["memUsage"], first["coresUsage"], first["cpuUsage"]) == ("h1", ["web"], 512, 2, 2000)
    assert (second["fqdn"], second["vmList"], second["memory"], second["load"]) == ("h2.example.org", [], 16384, 0)
    assert layout["vms"] == [
        {"id": 1, "resourceId": "r", "name": "web", "fqdn": "web", "userId": 1000, "state": "Running", "host": "h1", "cores": 2,
         "memory": 512, "cpuShare": 1024, "sla": None},
    ]  # fmt: skip


def test_a_layout_follows_each_change_once_a_second_at_most() -> None:
    """A flood of changes is few layouts, and a quiet cell tells one an interval."""
    cell = SmallCell(hosts=[FakeAgent("h1", some_facts(cores=100))], layout_interval=60.0)
    cell.settle(2)
    before = len(_layouts(cell))
    for number in range(50):
        cell.create(a_spec(f"vm{number}"), stanza=f"s{number}")
        cell.settle(0.06)
    assert 3 <= len(_layouts(cell)) - before <= 5
    cell.work()
    cell.settle(2)
    before = len(_layouts(cell))
    cell.live(59)
    assert len(_layouts(cell)) - before <= 1
    cell.live(65)
    assert 1 <= len(_layouts(cell)) - before <= 3


def test_a_long_layout_comes_in_parts() -> None:
    """Each part is well below 100 KiB, they are numbered, and together they name everything once."""
    agent = FakeAgent("h1", some_facts(cores=4096, memory=2**30))
    cell = SmallCell(hosts=[agent])
    with cell.manager.cluster.transaction("fill") as tx:
        for number in range(1, 3001):
            tx.put_instance(an_instance(number, f"a-rather-long-name-of-a-machine-in-a-large-cell-{number:04}", host_id=1))
    cell.settle(2)
    layout = [event for event in _layouts(cell) if event["parts"] > 1]
    assert [event["part"] for event in layout] == list(range(1, layout[0]["parts"] + 1))
    assert max(len(msgspec.json.encode(event)) for event in layout) < 90 * 1024
    assert sorted(vm["id"] for event in layout for vm in event["vms"]) == list(range(1, 3001))
    assert len({name for event in layout for host in event["hosts"] for name in host["vmList"]}) == 3000


def test_without_subscribers_there_are_no_events() -> None:
    """With nobody to read them none are kept."""
    cell = SmallCell(hosts=[FakeAgent("h1")], publishing=False)
    cell.create()
    cell.work()
    assert (cell.all_events, len(cell.replies)) == ([], 1)
