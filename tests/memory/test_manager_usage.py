"""What instances and hosts use, as the control plane shows it: told by agents, smoothed, forgotten, never written down."""

from __future__ import annotations

from typing import Any

import pytest

from tashi.errors import YourMistake
from tashi.model.orders import Report
from tashi.model.statistics import InstanceUse, Statistics, Use
from tashi.scheduling.load import HostUsage
from tashi.scheduling.snapshot import Snapshot
from tashi.store.memory import MemoryStore
from tashi.wire.codec import decode, encode
from tests.builders import ADMIN, a_spec, some_facts
from tests.small_cell import FakeAgent, SmallCell


def told(*uses: InstanceUse, host: Use | None = None, interval: float = 10.0, seconds: float = 10.0) -> Statistics:
    """What an agent tells."""
    return Statistics(interval=interval, seconds=seconds, host=host, instances=uses)


def a_cell(*specs: Any, **settings: Any) -> tuple[SmallCell, FakeAgent]:
    """A cell with one host of 2,000 MHz a core, on which these run."""
    agent = FakeAgent("h1")
    cell = SmallCell(hosts=[agent], **settings)
    for number, spec in enumerate(specs or [a_spec("vm1")]):
        cell.create(spec, stanza=f"s{number}")
    cell.work()
    return cell, agent


def shown(cell: SmallCell, name: str = "vm1") -> dict[str, Any] | None:
    """The stats in the instance's row of getInstances."""
    stats: dict[str, Any] | None = next(row["stats"] for row in cell.call(ADMIN, "getInstances") if row["name"] == name)
    return stats


def snapshot(cell: SmallCell) -> Snapshot:
    """What a scheduler is given a second later."""
    cell.settle(1.1)
    return cell.manager.picture.whole()


def test_shown() -> None:
    """The rows of instances and hosts have what was told, and null for what was not; before that they have nothing."""
    cell, agent = a_cell()
    assert shown(cell) is None
    assert cell.call(ADMIN, "getHosts")[0]["stats"] is None
    agent.tell(statistics=told(InstanceUse(instance_id=1, cpu=50.0, memory=60, read=512, tx=8), host=Use(cpu=75.0, memory=900)))
    assert shown(cell) == {
        "cpu": 50.0, "memory": 60, "resident": None, "read": 512, "write": None, "readOps": None, "writeOps": None, "rx": None, "tx": 8,
        "cpuUsage": 1000,
    }  # fmt: skip
    host = cell.call(ADMIN, "getHosts")[0]["stats"]
    assert (host["cpu"], host["cpuUsage"], host["memory"]) == (75.0, 1500, 900)


def test_in_the_layout() -> None:
    """A host's cpuUsage counts of each instance what it uses or has reserved, whichever is more, and its load counts that."""
    cell, agent = a_cell(a_spec("idle", cpu_speed=500), a_spec("busy", cpu_speed=500), a_spec("free"), layout_interval=5.0)
    uses = [InstanceUse(instance_id=number, cpu=cpu) for number, cpu in ((1, 1.0), (2, 90.0), (3, 10.0))]
    agent.tell(statistics=told(*uses, host=Use(cpu=120.0)))
    cell.settle(6)
    layout = [event for event in cell.all_events if event["type"] == "vmLayout"][-1]
    (host,) = layout["hosts"]
    assert host["cpuUsage"] == 500 + 1800 + 200
    assert host["load"] == host["memUsage"] + 3 * 512 + 2500
    assert host["stats"]["cpu"] == 120.0
    assert [vm["stats"]["cpuUsage"] for vm in layout["vms"]] == [20, 1800, 200]


def test_for_the_scheduler() -> None:
    """A snapshot has what is measured on each host; without statistics nothing."""
    cell, agent = a_cell(a_spec("vm1"), a_spec("vm2", cpu_speed=300))
    assert snapshot(cell).usage == {}
    agent.tell(statistics=told(InstanceUse(instance_id=1, cpu=50.0), InstanceUse(instance_id=2, memory=5), host=Use(cpu=60.0)))
    usage = snapshot(cell).usage
    assert usage == {1: HostUsage(machine=1200, instances={1: 1000})}
    assert usage[1].speed(snapshot(cell).placed[1]) == 1300


def test_a_spike_is_smoothed() -> None:
    """What is scheduled by follows slowly, two thirds of the way in a minute; the last value is shown beside it."""
    cell, agent = a_cell()
    agent.tell(statistics=told(InstanceUse(instance_id=1, cpu=0.0)))
    agent.tell(statistics=told(InstanceUse(instance_id=1, cpu=100.0)))
    stats = shown(cell)
    assert stats is not None and stats["cpu"] == 100.0 and 300 < stats["cpuUsage"] < 320
    for _ in range(5):
        agent.tell(statistics=told(InstanceUse(instance_id=1, cpu=100.0)))
    stats = shown(cell)
    assert stats is not None and stats["cpuUsage"] == pytest.approx(2000 * 0.632, abs=2)


def test_silence() -> None:
    """What is not told again for three intervals is not shown any more, though the host lives."""
    cell, agent = a_cell()
    agent.tell(statistics=told(InstanceUse(instance_id=1, cpu=50.0), host=Use(cpu=5.0)))
    cell.live(25)
    assert shown(cell) is not None
    cell.live(6)
    assert shown(cell) is None
    assert cell.call(ADMIN, "getHosts")[0]["stats"] is None
    assert snapshot(cell).usage == {}


def test_a_value_that_is_not_told_again() -> None:
    """A report is all that is known: what an earlier one told and it does not is not shown."""
    cell, agent = a_cell()
    agent.tell(statistics=told(InstanceUse(instance_id=1, cpu=50.0, read=7)))
    agent.tell(statistics=told(InstanceUse(instance_id=1, read=8)))
    stats = shown(cell)
    assert stats is not None and (stats["cpu"], stats["cpuUsage"], stats["read"]) == (None, None, 8)


def test_a_restart() -> None:
    """A control plane that has just started shows nothing of before, and nothing of it is in the store."""
    cell, agent = a_cell()
    assert isinstance(cell.store, MemoryStore)
    before = repr(cell.store.rows)
    agent.tell(statistics=told(InstanceUse(instance_id=1, cpu=50.0)))
    cell.settle()
    assert repr(cell.store.rows) == before
    cell.restart()
    assert shown(cell) is None


def test_of_others() -> None:
    """A host is not heard on instances that are not on it, or that there are none of."""
    cell, _ = a_cell()
    other = cell.join(FakeAgent("h2", some_facts()))
    other.tell(statistics=told(InstanceUse(instance_id=1, cpu=50.0), InstanceUse(instance_id=99, cpu=50.0)))
    assert shown(cell) is None


def test_gone() -> None:
    """With an instance goes what it used."""
    cell, agent = a_cell()
    agent.tell(statistics=told(InstanceUse(instance_id=1, cpu=50.0), interval=3600.0))
    cell.delete("vm1")
    cell.work()
    assert snapshot(cell).usage == {}
    cell.live(61)
    assert cell.manager.usage._instances == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"interval": 0.0},
        {"interval": 1e9},
        {"seconds": -1.0},
        {"uses": (InstanceUse(instance_id=1, cpu=-1.0),)},
        {"uses": (InstanceUse(instance_id=1, cpu=1e300),)},
        {"uses": (InstanceUse(instance_id=1, memory=-5),)},
    ],
)
def test_nonsense(wrong: dict[str, Any]) -> None:
    """A report with a use that cannot be is none, and the refusal names the field."""
    wrong = dict(wrong)
    statistics = told(*wrong.pop("uses", ()), **wrong)
    with pytest.raises(YourMistake, match=r"statistics"):
        decode(encode(Report(facts=some_facts(), statistics=statistics)), Report)
