"""A cell under each policy, left to itself: room is made and given back, load is spread, hosts are emptied, switched off and on again."""

from __future__ import annotations

from collections import Counter

import pytest

from tashi.errors import YourMistake
from tashi.model.instance import Disk
from tashi.model.user import User
from tashi.scheduling.policies import POLICIES
from tashi.scheduling.snapshot import SchedulingSettings
from tests.builders import ADMIN, ISM, a_spec, some_facts
from tests.fake_power import FakePower
from tests.small_cell import FakeAgent, SmallCell, result_of

GOLD = 1002


def a_cell(policy: str, *agents: FakeAgent, power: FakePower | None = None, **settings: object) -> SmallCell:
    """A cell with this policy."""
    scheduling = SchedulingSettings(policy=policy, **settings)  # type: ignore[arg-type]
    return SmallCell(hosts=agents, policy=POLICIES[policy], scheduling=scheduling, power=power, provision_timeout=3000.0)


def live(cell: SmallCell, seconds: float) -> None:
    """Let time pass, in which hosts live and do as they are told."""
    end = cell.clock.seconds() + seconds
    while cell.clock.seconds() < end:
        cell.live(1)
        cell.work()


def where(cell: SmallCell) -> dict[str, int | None]:
    """The host of each instance."""
    return {one.name: one.host_id for one in cell.manager.cluster.instances.values()}


def test_room_is_made_for_the_more_important_and_given_back() -> None:
    """gold's user gets memory of alice's instance, which is told of as a term that is not kept, and has it back when gold's is gone."""
    cell = a_cell("Primitive", FakeAgent("h1", some_facts(memory=1024)))
    with cell.manager.cluster.transaction("register_gold") as tx:
        tx.put_user(User(id=GOLD, name="gold", priority=100))
    cell.create(a_spec("low", memory=1000))
    cell.work()
    cell.create(a_spec("gold", user_id=GOLD, memory=512), stanza="gold")
    live(cell, 10)
    assert (cell.state("gold"), cell.state("low")) == ("Running", "Running")
    assert cell.instance("low").resources.memory == 512
    assert [(event["fqdn"], event["term"]) for event in cell.events if event["type"] == "slaWarning"] == [("low", "memory")]
    cell.delete("gold")
    live(cell, 10)
    assert (where(cell), cell.instance("low").resources.memory) == ({"low": 1}, 1000)


def test_balanced_spreads_what_runs() -> None:
    """When hosts join that hold nothing, some of the instances move there, once, and the cell is at rest."""
    cell = a_cell("Balanced", FakeAgent("h1", some_facts(hypervisor="test")), auto_migrations=True, cooldown=60.0)
    for number in range(6):
        cell.create(a_spec(f"vm{number}", memory=1024), stanza=f"s{number}")
    cell.work()
    for name in ("h2", "h3"):
        cell.join(FakeAgent(name, some_facts(hypervisor="test")))
    live(cell, 25)
    assert set(where(cell).values()) == {1}
    live(cell, 100)
    assert Counter(where(cell).values()) == {1: 2, 2: 2, 3: 2}
    moves = [event["fqdn"] for event in cell.events if event.get("action") == "migrated"]
    live(cell, 200)
    assert len(moves) == 4 == len([event for event in cell.events if event.get("action") == "migrated"])


def test_consolidated_empties_hosts_and_switches_them_off_and_on() -> None:
    """What is spread comes together, the freed hosts go off and are no reason to refuse anybody; when somebody needs one, one comes."""
    agents = {name: FakeAgent(name, some_facts(hypervisor="test", cores=4)) for name in ("h1", "h2", "h3")}

    def switched(name: str, on: bool) -> None:
        if on:
            power.dark.discard(name)
            cell.join(agents[name])
        else:
            cell.agents.remove(agents[name])

    power = FakePower(set(agents), switched)
    settings = {"auto_migrations": True, "auto_powering": True, "guaranteed_servers": 1, "power_off_delay": 20.0}
    cell = a_cell("Consolidated", *agents.values(), power=power, **settings)
    for number in (1, 2, 3):
        hints = {"targetHost": f"h{number}", "allowElsewhere": "True"}
        cell.create(a_spec(f"vm{number}", hints=hints), stanza=f"s{number}")
    cell.work()
    assert where(cell) == {"vm1": 1, "vm2": 2, "vm3": 3}
    live(cell, 120)
    assert len(set(where(cell).values())) == 1
    states = Counter(host.state.name for host in cell.manager.cluster.hosts.values())
    assert states == {"Normal": 1, "PoweredOff": 2}
    with pytest.raises(YourMistake, match="no host of this cell could ever hold vast"):
        cell.call(ADMIN, "createVm", name="vast", userId=1000, disks=[{"uri": "tashi"}], cores=5)
    cell.create(a_spec("large", cores=4), stanza="large")
    live(cell, 60)
    assert cell.state("large") == "Running"
    states = Counter(host.state.name for host in cell.manager.cluster.hosts.values())
    assert states == {"Normal": 2, "PoweredOff": 1}


def test_explained_alike_by_every_door() -> None:
    """The sink and the command line tell the same of what is placed and of what waits, with numbers."""
    cell = a_cell("Balanced", FakeAgent("h1", some_facts(cores=1)), FakeAgent("h2", some_facts(memory=64)))
    cell.create(a_spec("web"), stanza="s1")
    cell.work()
    cell.create(a_spec("next", disks=(Disk(uri="tashi"),), memory=256), stanza="s2")
    cell.settle()
    for name in ("web", "next"):
        words = result_of(cell.manager.commands.explain(ISM, name))
        assert words == cell.call(ADMIN, "explain", instance=name)
    assert words.splitlines()[1:] == ["h1: 1 cores short", "h2: 192 MB short of memory"]
    assert "web (1) is Running on h1, placed there by Balanced" in result_of(cell.manager.commands.explain(ISM, "web"))
