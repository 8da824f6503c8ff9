"""The network cards of instances: what may be asked for, what they get, and the addresses that their hosts have learnt."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tashi.errors import YourMistake
from tashi.model.instance import Nic
from tashi.model.orders import Observation, Seen
from tashi.model.user import Principal
from tests.builders import BOB, a_spec, some_facts
from tests.small_cell import FakeAgent, SmallCell

ALICE = Principal(name="alice", user_id=1000)
MAC = "52:54:00:00:56:78"


def a_cell(**settings: Any) -> SmallCell:
    """A cell with one host on networks 0 to 2."""
    return SmallCell(hosts=[FakeAgent("h1", msgspec.structs.replace(some_facts(), networks=(0, 1, 2)))], **settings)


def create(cell: SmallCell, name: str, *nics: dict[str, Any]) -> list[dict[str, Any]]:
    """The cards of a new VM of alice's with these."""
    return cell.call(ALICE, "createVm", name=name, disks=[{"uri": "tashi"}], nics=list(nics))["nics"]


def tell(cell: SmallCell, name: str, *ips: str | None, generation: int | None = None, seen: Seen = Seen.RUNNING) -> None:
    """Let the host say which addresses the instance's cards use."""
    instance = cell.instance(name)
    nics = tuple(Nic(mac=nic.mac, ip=ip) for nic, ip in zip(instance.nics, ips, strict=True))
    age = instance.generation if generation is None else generation
    cell.agents[0].tell(Observation(instance_id=instance.id, generation=age, seen=seen, nics=nics))
    cell.settle()


def shown(cell: SmallCell, name: str, who: Principal = ALICE) -> list[str | None]:
    """The addresses of an instance's cards in getInstances."""
    return [nic["ip"] for row in cell.call(who, "getInstances") if row["name"] == name for nic in row["nics"]]


def test_one_card_on_the_default_network() -> None:
    """Who names no card gets one, over XMPP, too; who names no network is on the default one."""
    cell = a_cell(default_network=2)
    (card,) = create(cell, "web")
    assert card["network"] == 2 and card["mac"].startswith("52:54:00:")
    assert [nic["network"] for nic in create(cell, "db", {}, {"network": 1})] == [2, 1]
    cell.create(a_spec(name="tizzy"))
    cell.settle()
    assert [nic.network for nic in cell.instance("tizzy").nics] == [2]


def test_two_cards_on_one_network() -> None:
    """Each card has a MAC address of its own, and the one asked for is kept as it is written everywhere else."""
    first, second = create(cell := a_cell(), "web", {"network": 1}, {"network": 1, "mac": MAC.upper()})
    assert second["mac"] == MAC != first["mac"]
    cell.work()
    assert [nic.mac for nic in cell.instance("web").nics] == [first["mac"], MAC]


@pytest.mark.parametrize(
    "card",
    [
        {"mac": "53:54:00:00:56:78"}, {"mac": "ff:ff:ff:ff:ff:ff"}, {"mac": "00:00:00:00:00:00"}, {"network": -1}, {"network": 4096},
        {"network": "1"}, {"ip": "10.0.0"}, {"learnt": "10.0.0.7"},
    ],
)  # fmt: skip
def test_no_card(card: dict[str, Any]) -> None:
    """A group's address or none at all, a network beyond all networks, and what only a host can know, are refused by name."""
    cell = a_cell()
    with pytest.raises(YourMistake, match=r"nics|learnt") as mistake:
        create(cell, "web", card)
    assert (mistake.value.code, cell.call(ALICE, "getInstances")) == ("bad-argument", [])


def test_a_mac_is_used_once() -> None:
    """What a living instance has is refused, within one command, too; it is free again when that is being destroyed."""
    cell = a_cell()
    create(cell, "web", {"mac": MAC})
    for nics in ([{"mac": MAC}], [{}, {"mac": "52:54:00:00:00:01"}, {"mac": "52:54:00:00:00:01"}]):
        with pytest.raises(YourMistake, match=r"nics: the MAC address .* is already in use") as mistake:
            create(cell, "db", *nics)
        assert mistake.value.code == "conflict"
    cell.restart()
    with pytest.raises(YourMistake, match="already in use"):
        create(cell, "db", {"mac": MAC})
    cell.work()
    cell.call(ALICE, "destroyVm", instance="web")
    assert create(cell, "db", {"mac": MAC})[0]["mac"] == MAC


def test_vlans_on_demand() -> None:
    """A host that makes VLANs takes any that there can be, and no other network."""
    facts = msgspec.structs.replace(some_facts(), networks=(0,), vlans=True)
    cell = SmallCell(hosts=[FakeAgent("h1", facts)])
    create(cell, "web", {"network": 4094}, {"network": 0})
    with pytest.raises(YourMistake, match="has no network 4095"):
        create(cell, "db", {"network": 4095})


def test_learnt_addresses() -> None:
    """They are shown to the owner, kept over a restart, and given up only for others; nothing else changes."""
    cell = a_cell()
    create(cell, "web", {"network": 1}, {"network": 2})
    cell.work()
    events = len(cell.events)
    tell(cell, "web", None, "10.0.0.7")
    assert (shown(cell, "web"), shown(cell, "web", BOB)) == ([None, "10.0.0.7"], [])
    tell(cell, "web", "10.0.1.7", None)
    cell.restart()
    assert shown(cell, "web") == ["10.0.1.7", "10.0.0.7"]
    tell(cell, "web", "10.0.1.8", "10.0.0.7")
    assert shown(cell, "web") == ["10.0.1.8", "10.0.0.7"]
    assert (cell.instance("web").generation, len(cell.events)) == (1, events)


def test_an_address_that_was_asked_for() -> None:
    """It is not overwritten; what is used instead is shown beside it."""
    cell = a_cell()
    create(cell, "web", {"ip": "10.0.0.5"})
    cell.work()
    tell(cell, "web", "10.0.0.6")
    (row,) = cell.call(ALICE, "getInstances")
    assert (row["nics"][0]["ip"], row["nics"][0]["learnt"]) == ("10.0.0.5", "10.0.0.6")


def test_who_came_first_has_it() -> None:
    """An address that another instance uses or was promised on the same network is not shown as one's own, until it is free."""
    cell = a_cell()
    create(cell, "web", {"network": 1})
    create(cell, "db", {"network": 1, "ip": "10.0.0.8"})
    create(cell, "liar", {"network": 1}, {"network": 2})
    cell.work()
    tell(cell, "web", "10.0.0.7")
    tell(cell, "liar", "10.0.0.7", "10.0.0.7")
    assert shown(cell, "liar") == [None, "10.0.0.7"]
    tell(cell, "liar", "10.0.0.8", None)
    assert shown(cell, "liar")[0] is None
    tell(cell, "web", "10.0.0.9")
    tell(cell, "liar", "10.0.0.7", None)
    assert shown(cell, "liar") == ["10.0.0.7", "10.0.0.7"]
    cell.call(ALICE, "destroyVm", instance="liar")
    cell.work()
    tell(cell, "web", "10.0.0.7")
    assert shown(cell, "web") == ["10.0.0.7"]


def test_who_is_not_believed() -> None:
    """A sighting of an older domain, of one that is gone, of a card that is not the instance's, or of no address tells no address."""
    cell = a_cell()
    create(cell, "web", {})
    cell.work()
    tell(cell, "web", "10.0.0.7", generation=0)
    tell(cell, "web", "no address")
    instance = cell.instance("web")
    strange = Observation(instance_id=instance.id, generation=1, seen=Seen.RUNNING, nics=(Nic(mac=MAC, ip="10.0.0.7"),))
    cell.agents[0].tell(strange, msgspec.structs.replace(strange, instance_id=99))
    assert shown(cell, "web") == [None]
