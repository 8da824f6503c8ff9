"""Ten real guests on three real hosts: packed on the fewest, spread again, and hosts are switched off and on as they are needed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.integration.cells import RunningCell, running_cell, until
from tests.integration.travellers import Traveller

pytestmark = pytest.mark.integration
COUNT = 10
CALM = ("Scheduler.rebalanceInterval=1", "Scheduler.cooldown=5", "Scheduler.powerOffDelay=3", "Scheduler.autoMigrations=True")
"""A hold of three rounds, as ever, but of short ones, so that the test is short."""


@pytest.fixture
def cell() -> Iterator[RunningCell]:
    """Three hosts, each of which could hold ten guests of one core."""
    with running_cell("--hypervisor", "qemu", "--hosts", "3", "--memory", "2048", *_set("NodeManagerService.registerFrequency=1")) as cell:
        yield cell


def test_guests_are_packed_hosts_switched_and_guests_spread_again(cell: RunningCell) -> None:
    """Every heart beats on while guests are moved onto one host, the others go off, one comes back for more load, and all are spread."""
    cell.cli("createMany", "--basename", "guest", "--disks", "tashi.img", "--count", str(COUNT), "--memory", "128", "--wait")
    assert len(spread(cell)) == 3
    guests = [Traveller(cell, row["name"], row["host"], row=row) for row in cell.instances()]

    restart(cell, "Scheduler.scheduler=Consolidated", "Scheduler.autoPowering=True", "Scheduler.guaranteedServers=1", *CALM)
    until(lambda: spread(cell), lambda hosts: sorted(hosts.values()) == [COUNT], 120)
    until(lambda: states(cell), lambda found: sorted(found.values()) == ["Normal", "PoweredOff", "PoweredOff"], 60)
    home = next(iter(spread(cell)))
    assert states(cell)[home] == "Normal" and len(cell.domains(home)) == COUNT

    row = json.loads(cell.cli("createVm", "--name", "more", "--disks", "tashi.img", "--memory", "128", "--wait", "-o", "json"))[0]
    assert row["host"] != home and states(cell)[row["host"]] == "Normal"
    assert sorted(states(cell).values()) == ["Normal", "Normal", "PoweredOff"]
    guests.append(Traveller(cell, "more", row["host"], row=row))

    restart(cell, "Scheduler.scheduler=Balanced", "Scheduler.guaranteedServers=3")
    until(lambda: sorted(spread(cell).values()), lambda counts: counts == [3, 4, 4], 120)
    assert set(states(cell).values()) == {"Normal"}
    for guest in guests:
        guest.wait_for_beats(1, 90)
        assert guest.boots() == 1, guest.last_words()
        assert len(guest.lost_beats()) <= 4, f"{guest.name} lost {guest.lost_beats()}"


def restart(cell: RunningCell, *settings: str) -> None:
    """End the control plane and start it with these settings changed."""
    cell.kill("manager")
    cell.options = [*cell.options, *_set(*settings)]
    cell.start()


def spread(cell: RunningCell) -> Counter[str]:
    """How many run on each host that has any."""
    rows = cell.instances()
    return Counter(row["host"] if row["state"] == "Running" else f"{row['state']} of {row['host']}" for row in rows)


def states(cell: RunningCell) -> dict[str, str]:
    """The state of each host."""
    return {name: row["state"] for name, row in cell.hosts().items()}


def _set(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]
