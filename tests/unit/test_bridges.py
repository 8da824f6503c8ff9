"""Which networks a host has by its configuration. `lo` stands for a bridge that is there."""

from __future__ import annotations

import pytest
from twisted.logger import LogEvent, globalLogPublisher

from tashi.errors import OurFault
from tashi.node.network.bridges import Bridges
from tashi.node.network.vlans import Vlans

NOWHERE = "tashi-no-such"


@pytest.fixture
def logged() -> list[str]:
    """What is logged from now on."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        lines.append(str(event.get("words", "")))

    globalLogPublisher.addObserver(observe)
    yield lines  # type: ignore[misc]
    globalLogPublisher.removeObserver(observe)


def test_no_networks() -> None:
    """A host that was told of none offers network 0, which is no card there."""
    bridges = Bridges({})
    assert bridges.offered() == ((0,), False)
    assert bridges.ready([0, 0]) == {}
    with pytest.raises(OurFault, match="no bridge for network 1;"):
        bridges.ready([1])


def test_a_bridge_that_is_not_there(logged: list[str]) -> None:
    """Its network is not offered, which is logged once, and not begun with."""
    bridges = Bridges({0: "lo", 1: NOWHERE, 2: "lo"})
    assert bridges.offered() == bridges.offered() == ((0, 2), False)
    assert logged == [f"network 1 is not offered: there is no bridge {NOWHERE}"]
    assert bridges.ready([2, 0, 2]) == {0: "lo", 2: "lo"}
    with pytest.raises(OurFault, match=f"{NOWHERE} of network 1 is not there; make it"):
        bridges.ready([0, 1])


def test_network_0_beside_others() -> None:
    """Where there are bridges a network without one is refused, 0 like any other."""
    for bridges in (Bridges({1: "lo"}), Bridges({}, Vlans("lo", "vmbr.{id}"))):
        assert 0 not in bridges.offered()[0]
        with pytest.raises(OurFault, match="no bridge for network 0"):
            bridges.ready([0])


def test_vlans_of_no_device(logged: list[str]) -> None:
    """Without the device no VLAN is offered, and the reason is told once."""
    bridges = Bridges({0: "lo"}, Vlans(NOWHERE, "vmbr.{id}"))
    assert bridges.offered() == bridges.offered() == ((0,), False)
    assert logged == [
        f"no VLANs of {NOWHERE} are offered: there is no network device {NOWHERE}; name a ready bridge for each network in [Networks]"
    ]


def test_a_simulated_host() -> None:
    """It has every bridge that is named, and every VLAN."""
    bridges = Bridges({0: NOWHERE}, Vlans(NOWHERE, "vmbr.{id}"))
    assert bridges.offered(simulated=True) == ((0,), True)
    assert bridges.ready([0, 4094], simulated=True) == {0: NOWHERE, 4094: "vmbr.4094"}
    for network in (4095, 5000):
        with pytest.raises(OurFault, match=f"no bridge for network {network}"):
            bridges.ready([network], simulated=True)
