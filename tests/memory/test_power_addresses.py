"""Which addresses a power command uses: what the join or an administrator has confirmed, never what an agent says later."""

from __future__ import annotations

from typing import Any

import msgspec

from tashi.errors import TashiError
from tashi.model.host import Reach, reach_of
from tests.builders import ADMIN, a_host, a_login, a_report, some_facts
from tests.fake_power import FakePower
from tests.small_cell import FakeAgent, SmallCell, result_of


class Link:
    """An agent's link that nothing is sent over."""

    def send(self, orders: Any) -> None:
        """See INodeLink."""

    async def answers(self) -> bool:
        """See INodeLink."""
        return False

    def close(self) -> None:
        """See INodeLink."""


def report(cell: SmallCell, name: str, **facts: Any) -> int:
    """The host of this name logs in and reports these facts."""
    link: Any = Link()
    welcome = result_of(cell.manager.hosts.login(a_login(name), link))
    cell.manager.hosts.report(welcome.host_id, link, msgspec.structs.replace(a_report(full=True), facts=some_facts(**facts)))
    cell.settle()
    return welcome.host_id


def row(cell: SmallCell, host_id: int) -> dict[str, Any]:
    """What getHosts says of the host."""
    return next(row for row in cell.call(ADMIN, "getHosts") if row["id"] == host_id)


def test_the_join_confirms_what_is_said_first() -> None:
    """A5: the first report after the join pins address and MAC; what is said later is shown as unconfirmed and not used."""
    cell = SmallCell()
    number = report(cell, "h1", fqdn="h1.example.org", mac="52:54:00:00:00:01")
    first = row(cell, number)
    assert (first["address"], first["mac"], first["unconfirmed"]) == ("h1.example.org", "52:54:00:00:00:01", "")
    report(cell, "h1", fqdn="h2.example.org", mac="52:54:00:00:00:02")
    later = row(cell, number)
    assert (later["address"], later["mac"]) == ("h1.example.org", "52:54:00:00:00:01")
    assert "h2.example.org" in later["unconfirmed"] and "52:54:00:00:00:02" in later["unconfirmed"]
    cell.restart()
    assert row(cell, number)["address"] == "h1.example.org"


def test_an_administrator_confirms_another_address() -> None:
    """A5: setHostConfig of the elements address and mac confirms what the agent says, and ends the doubt."""
    cell = SmallCell()
    number = report(cell, "h1", fqdn="h1.example.org", mac="52:54:00:00:00:01")
    report(cell, "h1", fqdn="new.example.org", mac="52:54:00:00:00:02")
    for element, value in (("address", "new.example.org"), ("mac", "52:54:00:00:00:02")):
        cell.call(ADMIN, "setHostConfig", hostId="h1", elemName=element, value=value)
    after = row(cell, number)
    assert (after["address"], after["mac"], after["unconfirmed"]) == ("new.example.org", "52:54:00:00:00:02", "")


def test_another_host_s_address_is_not_confirmed_by_a_join() -> None:
    """A5: a new host that says it is another one, by name, address or MAC, is reached by its own name only, and that is said."""
    cell = SmallCell()
    report(cell, "h1", fqdn="h1.example.org", mac="52:54:00:00:00:01")
    for number, said in enumerate(("h1.example.org", "H1.EXAMPLE.ORG", "h1", "-oProxyCommand=x", "a b"), 2):
        host_id = report(cell, f"h{number}", fqdn=said, mac="52:54:00:00:00:01")
        found = row(cell, host_id)
        assert (found["address"], found["mac"]) == (f"h{number}", "")
        assert "address" in found["unconfirmed"]


def test_a_host_that_joins_anew_is_confirmed_anew() -> None:
    """A host whose secret was forgotten joins with the join secret, and that confirms what it says then."""
    cell = SmallCell()
    number = report(cell, "h1", fqdn="h1.example.org")
    with cell.manager.cluster.transaction("forget") as tx:
        tx.put_host(msgspec.structs.replace(cell.manager.cluster.hosts[number], secret_hash=""))
    report(cell, "h1", fqdn="new.example.org")
    assert row(cell, number)["address"] == "new.example.org"


def test_two_hosts_of_one_switch_are_not_switched() -> None:
    """A5: two hosts that a driver would switch by the same address are refused in words that name both."""
    cell = SmallCell(hosts=[FakeAgent("h1"), FakeAgent("h2"), FakeAgent("h3")], power=FakePower({"h1", "h2", "h3"}))
    for name, switch in (("h1", "socket-7"), ("h2", "socket-7"), ("h3", "socket-8")):
        cell.call(ADMIN, "setHostConfig", hostId=name, elemName="switch", value=switch)
    cell.live(2)
    for name, other in (("h1", "h2"), ("h2", "h1")):
        try:
            cell.call(ADMIN, "powerOff", host=name)
        except TashiError as error:
            assert f"{name} cannot be switched: socket-7 is also the address of {other}" in error.message
        else:
            raise AssertionError(f"{name} was switched off")
    assert cell.call(ADMIN, "powerOff", host="h3")["state"] == "PoweringOff"


def test_what_a_join_confirms() -> None:
    """Only a name or address that is well formed and no other host's."""
    others = [a_host(2, "h2", reach=Reach(fqdn="h2.example.org", mac="52:54:00:00:00:02"))]
    assert reach_of(some_facts(fqdn="h1.example.org", mac="52:54:00:00:00:01"), "h1", others) == Reach(
        fqdn="h1.example.org", mac="52:54:00:00:00:01"
    )
    assert reach_of(some_facts(fqdn="h2.example.org", mac="52:54:00:00:00:02".upper()), "h1", others) == Reach()
    assert reach_of(some_facts(fqdn="", mac="x"), "h1", others) == Reach()
