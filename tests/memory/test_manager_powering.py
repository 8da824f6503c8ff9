"""Hosts that are switched off and on: what they hold decides, what is seen ends it, and a restart in between changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tashi.errors import CONFLICT, FORBIDDEN, INTERNAL, UNKNOWN_ID, OurFault, TashiError, YourMistake
from tashi.manager.powering import POLL, REPEAT, Powering
from tashi.model.host import Host
from tashi.model.questions import Refused, ShutDownHost
from tashi.model.user import Principal
from tests.builders import ADMIN, a_host, a_login, a_spec
from tests.fake_power import FakePower
from tests.small_cell import FakeAgent, SmallCell, result_of

ALICE = Principal(name="alice", user_id=1000)
WAKE, OFF, RETRY, LEASE = 300.0, 180.0, 600.0, 30.0


class Plant:
    """A cell of three hosts, and the switches of their machines: what goes off is silent, what goes on logs in after ``boot`` seconds."""

    def __init__(self, *, tells: bool = True, **settings: Any) -> None:
        self.boot: float | None = 5.0
        self.power = FakePower({"h1", "h2", "h3"}, self._switched, tells=tells)
        self.cell = SmallCell(hosts=[FakeAgent(name) for name in ("h1", "h2", "h3")], power=self.power, **settings)
        self.agents = {agent.name: agent for agent in self.cell.agents}

    def _switched(self, name: str, on: bool) -> None:
        agent = self.agents[name]
        if not on:
            self.cell.agents.remove(agent)
        elif self.boot is not None:
            self.cell.clock.callLater(self.boot, self.come, name)

    def come(self, name: str) -> None:
        """The machine's agent logs in, whoever has switched it on."""
        self.power.dark.discard(name)
        self.cell.agents.append(self.agents[name])
        self.agents[name].login(self.cell)

    def host(self, name: str) -> Host:
        """The record."""
        return next(host for host in self.cell.manager.cluster.hosts.values() if host.name == name)

    def state(self, name: str = "h3") -> str:
        """The name of the host's state."""
        return self.host(name).state.name

    def off(self, name: str = "h3") -> None:
        """As the planner switches it off."""
        self.cell.manager.powering.switch_off(self.host(name).id, "empty for long")

    def on(self, name: str = "h3") -> None:
        """As the planner switches it on."""
        self.cell.manager.powering.switch_on(self.host(name).id, "somebody waits")

    def dark(self, name: str = "h3") -> None:
        """It is off, and nobody remembers how."""
        self.off(name)
        self.cell.live(2)
        assert self.state(name) == "PoweredOff"
        self.power.asked.clear()

    def actions(self, name: str = "h3") -> list[tuple[str, str]]:
        """What was told of the host after it had joined."""
        told = [(event["action"], event["reason"]) for event in self.cell.events if event["type"] == "hostAction" and event["name"] == name]
        return [one for one in told if one[0] != "registered"]


def test_off_and_on() -> None:
    """A host that goes off takes nothing from then on, is shown as off, and is the same as before when it has come on."""
    plant = Plant()
    plant.off()
    assert plant.state() == "PoweringOff"
    plant.cell.create(a_spec(hints={"targetHost": "h3"}))
    plant.cell.live(2)
    assert (plant.state(), plant.host("h3").up, plant.host("h3").notes) == ("PoweredOff", False, "empty for long")
    assert plant.actions() == [("poweredOff", "empty for long")]
    assert "h3: is powered off" in plant.cell.instance().reason
    row = next(row for row in plant.cell.call(ADMIN, "getHosts") if row["name"] == "h3")
    assert (row["state"], row["up"], row["notes"]) == ("PoweredOff", False, "empty for long")
    plant.on()
    plant.cell.live(3)
    assert (plant.state(), plant.host("h3").notes) == ("PoweringOn", "somebody waits")
    plant.cell.live(3)
    plant.cell.work()
    assert (plant.state(), plant.host("h3").notes, plant.cell.state()) == ("Normal", "", "Running")
    assert plant.actions()[1:] == [("poweredOn", "")]
    assert plant.power.asked == ["off h3", "on h3"]


def test_no_alarm() -> None:
    """A host that was switched off is not missed, in this life of the control plane or the next, and is in the layout."""
    plant = Plant()
    plant.off()
    plant.cell.live(3 * LEASE)
    plant.cell.restart()
    plant.cell.live(3 * LEASE)
    assert (plant.actions(), plant.state()) == ([("poweredOff", "empty for long")], "PoweredOff")
    layout = [event for event in plant.cell.all_events if event["type"] == "vmLayout"][-1]
    assert [(host["name"], host["state"]) for host in layout["hosts"]] == [("h1", "Normal"), ("h2", "Normal"), ("h3", "PoweredOff")]


def test_what_holds_anything_stays_on() -> None:
    """A host with an instance, or to which one is on its way, is not switched off."""
    plant = Plant()
    plant.cell.create(a_spec(hints={"targetHost": "h3"}))
    plant.cell.settle()
    plant.off()
    plant.cell.work()
    plant.off()
    with pytest.raises(YourMistake, match=r"h3 holds an instance.*drainHost") as caught:
        plant.cell.call(ADMIN, "powerOff", host="h3")
    assert caught.value.code == CONFLICT
    plant.cell.call(ADMIN, "migrateVm", instance="vm1", dst="h2")
    plant.off("h2")
    plant.cell.work()
    plant.off("h2")
    assert (plant.state(), plant.state("h2"), plant.power.asked) == ("Normal", "Normal", [])
    plant.off("h3")  # all that the move left there is cleared away
    plant.cell.live(2)
    assert plant.state() == "PoweredOff"


def test_what_does_not_answer_stays_on() -> None:
    """Of a host that is silent nobody knows what it holds."""
    plant = Plant()
    plant.agents["h3"].lose_link()
    plant.off()
    with pytest.raises(YourMistake, match="does not answer just now"):
        plant.cell.call(ADMIN, "powerOff", host="h3")
    assert (plant.state(), plant.power.asked) == ("Normal", [])


def test_verbs() -> None:
    """Administrators switch by verb; what cannot be is refused with the reason."""
    plant = Plant()
    for who, verb, host, code in (
        (ALICE, "powerOff", "h3", FORBIDDEN),
        (ALICE, "powerOn", "h3", FORBIDDEN),
        (ADMIN, "powerOff", "h9", UNKNOWN_ID),
        (ADMIN, "powerOn", "h3", CONFLICT),
    ):
        with pytest.raises(YourMistake) as caught:
            plant.cell.call(who, verb, host=host)
        assert caught.value.code == code
    assert plant.cell.call(ADMIN, "powerOff", host="h3")["state"] in ("PoweringOff", "PoweredOff")
    plant.cell.live(2)
    with pytest.raises(YourMistake, match="h3 is PoweredOff; only a host that is Normal or Drained is powered off"):
        plant.cell.call(ADMIN, "powerOff", host="h3")
    assert plant.cell.call(ADMIN, "powerOn", host=3)["state"] == "PoweringOn"
    audited = [(event["verb"], event["result"]) for event in plant.cell.events if event["type"] == "auditRecord"]
    assert audited.count(("poweroff", "OK")) == audited.count(("poweron", "OK")) == 1
    assert ("poweroff", FORBIDDEN) in audited


def test_without_a_driver() -> None:
    """With no driver nothing is switched, and verbs say what to do; what was under way before comes to its end."""
    cell = SmallCell(hosts=[FakeAgent("h1")])
    with pytest.raises(YourMistake, match=r"set \[Power\] driver"):
        cell.call(ADMIN, "powerOff", host="h1")
    cell.manager.powering.switch_off(1, "for fun")
    assert cell.manager.cluster.hosts[1].state.name == "Normal"
    plant = Plant()
    plant.boot = None
    plant.dark("h2")
    plant.power.heeds = False
    plant.on("h2")
    plant.off("h3")
    plant.cell.settle()
    plant.cell.power = None
    plant.cell.restart()
    plant.cell.live(2)
    assert (plant.state("h2"), plant.state("h3")) == ("WakeFailed", "Normal")


def test_a_host_that_does_not_go_off() -> None:
    """What the driver fails to switch off is in use again, says why, and is left alone for a while by the planner, not by people."""
    plant = Plant()
    plant.power.fails["h3"] = OurFault(INTERNAL, "the BMC of h3 is on fire")
    plant.off()
    plant.cell.live(2)
    assert (plant.state(), plant.host("h3").notes) == ("Normal", "not powered off: the BMC of h3 is on fire")
    plant.off()
    plant.cell.live(2)
    assert plant.power.asked == ["off h3"]
    plant.cell.call(ADMIN, "powerOff", host="h3")
    plant.cell.live(2)
    assert plant.power.asked == ["off h3", "off h3"]
    plant.power.fails.clear()
    plant.cell.live(RETRY)
    plant.off()
    plant.cell.live(2)
    assert (plant.state(), plant.actions()) == ("PoweredOff", [("poweredOff", "empty for long")])


def test_a_driver_that_breaks() -> None:
    """Whatever a driver's own fault is, the host is not left on its way for ever: it stays on, or has failed to wake, and says why."""
    plant = Plant()
    plant.dark("h2")
    plant.power.fails = {name: RuntimeError("out of wires") for name in ("h2", "h3")}
    plant.off("h3")
    plant.on("h2")
    plant.cell.live(2)
    assert (plant.state("h3"), plant.state("h2")) == ("Normal", "WakeFailed")
    for name in ("h2", "h3"):
        assert "the power driver failed: RuntimeError: out of wires" in plant.host(name).notes


def test_a_host_without_a_switch() -> None:
    """A host that the driver does not know stays on; one that was switched off before its address was lost fails to wake, in words."""
    plant = Plant()
    plant.dark("h2")
    plant.power.names.clear()
    plant.off()
    with pytest.raises(YourMistake, match="host h3 has no switch"):
        plant.cell.call(ADMIN, "powerOff", host="h3")
    plant.on("h2")
    plant.cell.live(2)
    assert (plant.state("h3"), plant.state("h2"), plant.power.asked) == ("Normal", "WakeFailed", [])
    assert "host h2 has no switch" in plant.host("h2").notes


def test_a_host_that_stays_on() -> None:
    """A machine that was told to go off and is on when its time is over is in use again."""
    plant = Plant()
    plant.power.heeds = False
    plant.off()
    plant.cell.live(OFF)
    assert plant.state() == "PoweringOff"
    plant.cell.live(LEASE + 2)
    assert plant.state() == "Normal"
    assert "it is still on" in plant.host("h3").notes


def test_nobody_answers() -> None:
    """An agent whose machine goes down may not come to its answer: what is seen counts, as with a host that has answered."""
    plant = Plant(tells=False)
    plant.power.silent.add("h3")
    plant.off("h3")
    plant.cell.live(2)
    plant.agents["h3"].power_cut()
    plant.cell.live(LEASE + 2)
    assert (plant.state(), plant.actions()) == ("PoweredOff", [("poweredOff", "empty for long")])
    plant.power.silent.add("h2")
    plant.off("h2")
    plant.cell.live(OFF + LEASE + 5)
    assert plant.state("h2") == "Normal"
    assert "it is still on" in plant.host("h2").notes


def test_another_machine_s_switch() -> None:
    """A driver that calls a host off whose agent answers is about another machine: nothing is switched."""
    plant = Plant()
    plant.power.dark.add("h3")
    plant.off()
    plant.cell.live(2)
    assert (plant.state(), plant.power.asked) == ("Normal", [])
    assert "is that another machine's power?" in plant.host("h3").notes


def test_nobody_can_tell() -> None:
    """Where the driver cannot tell what is on, a host is off when it has been silent for as long as its lease."""
    plant = Plant(tells=False)
    plant.off()
    plant.cell.live(LEASE - 2)
    assert plant.state() == "PoweringOff"
    plant.cell.live(5)
    assert plant.state() == "PoweredOff"
    plant.on()
    plant.cell.live(6)
    assert (plant.state(), plant.actions()) == ("Normal", [("poweredOff", "empty for long"), ("poweredOn", "")])


def test_the_agent_comes_back_while_its_machine_goes_off() -> None:
    """An agent that logs in again before its machine is off changes nothing: the host takes nothing, and goes off."""
    plant = Plant()
    plant.power.heeds = False
    plant.off()
    plant.cell.live(2)
    plant.agents["h3"].restart()
    plant.cell.live(2)
    assert plant.state() == "PoweringOff"
    plant.power.heeds = True
    result_of(plant.power.switch_off(plant.host("h3")))
    plant.cell.live(2)
    assert (plant.state(), plant.actions()) == ("PoweredOff", [("poweredOff", "empty for long")])


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("heeds", [True, False])
def test_a_restart_on_the_way_off(tells: bool, heeds: bool) -> None:
    """A control plane that ends before or after the driver has been asked switches the host off when it is back."""
    plant = Plant(tells=tells)
    plant.power.heeds = heeds
    plant.off()
    plant.cell.settle()
    plant.power.heeds = True
    plant.cell.restart()
    plant.cell.live(2)
    assert plant.power.asked == (["off h3"] if heeds else ["off h3", "off h3"])
    plant.cell.live(LEASE + 2)
    assert (plant.state(), plant.actions()) == ("PoweredOff", [("poweredOff", "empty for long")])


@pytest.mark.parametrize("boot", [2.0, 20.0])
def test_a_restart_on_the_way_on(boot: float) -> None:
    """A control plane that ends before the host has come waits for it when it is back."""
    plant = Plant()
    plant.boot = boot
    plant.dark()
    plant.on()
    plant.cell.settle()
    plant.cell.restart()
    plant.cell.live(boot + 1)
    assert (plant.state(), plant.actions()) == ("Normal", [("poweredOff", "empty for long"), ("poweredOn", "")])
    assert plant.power.asked == ["on h3"]


def test_a_host_that_does_not_wake() -> None:
    """What does not come in time has failed to wake; what comes after all is in use again."""
    plant = Plant()
    plant.boot = None
    plant.dark()
    plant.on()
    plant.cell.live(WAKE - 5)
    assert plant.state() == "PoweringOn"
    plant.cell.live(10)
    words = "its agent has not come within 300 s of its being switched on"
    assert (plant.state(), plant.host("h3").notes, plant.actions()[1:]) == ("WakeFailed", words, [("wakeFailed", words)])
    plant.on()
    assert plant.state() == "WakeFailed"  # for a while
    plant.come("h3")
    plant.cell.settle()
    assert (plant.state(), plant.host("h3").notes, plant.actions()[-1][0]) == ("Normal", "", "poweredOn")


def test_a_switch_that_is_not_heeded_at_first() -> None:
    """A machine that was not quite off when it was switched on is switched on once more; one that is on and boots is not."""
    plant = Plant(tells=False)
    plant.boot = None
    plant.off()
    plant.cell.live(LEASE + 5)
    plant.power.asked.clear()
    plant.on()
    plant.cell.live(2 * REPEAT + 2 * POLL)
    assert plant.power.asked == ["on h3"] * 3
    knowing = Plant()
    knowing.boot = None
    knowing.dark()
    knowing.on()
    knowing.cell.live(2 * REPEAT + 2 * POLL)
    assert knowing.power.asked == ["on h3"]


def test_the_next_is_tried() -> None:
    """A failure makes the planner look again, which finds the next host, and does not come back to the first for a while."""
    plant = Plant()
    plant.dark("h2")
    plant.dark("h3")
    plant.power.fails["h3"] = OurFault(INTERNAL, "the BMC of h3 is on fire")
    cluster = plant.cell.manager.cluster

    def plan() -> None:
        """One host more is wanted: those that failed come last."""
        off = [host for host in cluster.hosts.values() if host.state.name in ("PoweredOff", "WakeFailed")]
        if not any(host.state.name == "PoweringOn" for host in off) and off and len(off) == 2:
            powering.switch_on(max(off, key=lambda host: (host.state.name == "PoweredOff", host.id)).id, "one more is needed")

    powering = Powering(plant.cell.process, cluster, plant.cell.settings, plant.power, plant.cell.manager.hosts.let_go, plan)
    plan()
    plant.cell.live(8)
    assert (plant.state("h2"), plant.state("h3"), plant.power.asked) == ("Normal", "WakeFailed", ["on h3", "on h2"])
    powering.switch_on(3, "again")
    plant.cell.live(2)
    assert plant.power.asked == ["on h3", "on h2"]
    plant.power.fails.clear()
    plant.cell.live(RETRY)
    powering.switch_on(3, "again")
    plant.cell.live(8)
    assert plant.state("h3") == "Normal"


def test_a_host_that_comes_by_itself() -> None:
    """Somebody pressed the button of a host that was off: it is in use again."""
    plant = Plant()
    plant.dark()
    plant.come("h3")
    plant.cell.settle()
    assert (plant.state(), plant.actions()[-1]) == ("Normal", ("poweredOn", "it came by itself, and was PoweredOff"))
    assert plant.host("h3").up and not plant.host("h3").decayed


def test_a_host_of_another_version() -> None:
    """A host that comes with another version of the agent is on, and not used."""
    plant = Plant()
    plant.boot = None
    plant.dark()
    plant.on()
    plant.agents["h3"].login(plant.cell, a_login("h3", version="2"))
    plant.cell.settle()
    assert (plant.state(), plant.actions()[-1][0]) == ("VersionMismatch", "poweredOn")


def test_another_version_on_the_way_off() -> None:
    """A control plane of a new version that takes up the way of a host off follows it to its end, whatever version its agent has."""
    plant = Plant()
    plant.power.heeds = False
    plant.off()
    plant.cell.settle()
    plant.agents["h3"].login(plant.cell, a_login("h3", version="2"))
    plant.cell.live(2)
    assert plant.state() == "PoweringOff"
    plant.power.heeds = True
    result_of(plant.power.switch_off(plant.host("h3")))
    plant.cell.live(2)
    assert plant.state() == "PoweredOff"
    plant.on()
    plant.cell.live(6)
    assert plant.state() == "Normal"


def test_a_drained_host() -> None:
    """A host that was drained is drained when it is on again; one that is off may be told so, or the contrary."""
    plant = Plant()
    plant.cell.call(ADMIN, "drainHost", host="h3")
    plant.dark()
    plant.on()
    plant.cell.live(6)
    assert plant.state() == "Drained"
    plant.dark()
    assert plant.cell.call(ADMIN, "setHostState", host="h3", state="Normal")["state"] == "PoweredOff"
    plant.on()
    plant.cell.live(6)
    assert plant.state() == "Normal"
    plant.dark()
    plant.cell.call(ADMIN, "drainHost", host="h3")
    plant.on()
    plant.cell.live(6)
    assert plant.state() == "Drained"


def test_a_host_that_is_unregistered() -> None:
    """A host that is off, or waited for, may be forgotten; nobody waits for it any longer."""
    plant = Plant()
    plant.boot = None
    plant.dark()
    plant.on()
    plant.cell.call(ADMIN, "unregisterHost", hostId="h3")
    plant.cell.live(WAKE + 10)
    assert [host.name for host in plant.cell.manager.cluster.hosts.values()] == ["h1", "h2"]
    assert plant.actions()[-1][0] == "unregistered"


def test_its_own_shutdown() -> None:
    """A host's agent is asked to shut its machine down; it may refuse, or be away."""
    cell = SmallCell(hosts=[FakeAgent("h1")])
    host = cell.manager.cluster.hosts[1]
    result_of(cell.shut_down(host))
    assert cell.agents[0].questions == [ShutDownHost()]
    cell.agents[0].answers = lambda question: Refused(code=CONFLICT, message="two domains run here")
    with pytest.raises(TashiError, match="two domains run here"):
        result_of(cell.shut_down(host))
    with pytest.raises(OurFault, match="the agent of h7 is away"):
        result_of(cell.shut_down(a_host(7)))
