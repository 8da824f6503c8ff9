"""What real guests use: measured by libvirt, also while one of them hangs, and shown by the client."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tashi.model.statistics import InstanceUse, Sample, Statistics
from tashi.node.statistics import Sampling
from tashi.node.threads import Threads
from tests.contracts.hypervisor_contract import CELL, an_order
from tests.integration.cells import RunningCell, until
from tests.integration.test_node_libvirt import QemuCase

pytestmark = pytest.mark.integration
INTERVAL = 0.3


class RealGuestsTests(QemuCase):
    """Two guests on one machine."""

    def setUp(self) -> None:
        """An agent's look at them, more often than any agent's."""
        super().setUp()
        self.told: list[Statistics] = []
        self.threads = Threads(reactor, 4, 60.0)
        self.threads.start()
        self.addCleanup(self.threads.stop)
        self.sampling = Sampling(reactor, INTERVAL, self.ask, self.told.append)
        self.addCleanup(self.sampling.stop)
        self.addCleanup(self.hypervisor.close)

    def ask(self) -> Deferred[Sample]:
        """As the agent does."""
        return self.threads.run(self.hypervisor.statistics, CELL)

    async def told_that(self, condition: Callable[[dict[int, InstanceUse]], bool]) -> dict[int, InstanceUse]:
        """The first uses from now on, by instance, that meet the condition."""
        seen = len(self.told)
        for _ in range(2000):
            for statistics in self.told[seen:]:
                uses = {use.instance_id: use for use in statistics.instances}
                if condition(uses):
                    return uses
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]
        raise AssertionError(f"it was not told: {self.told[-3:]}")

    async def test_counters(self) -> None:
        """Processor, memory and disks are counted from the start; nobody made up what such a guest cannot tell."""
        await self.threads.run(self.hypervisor.start, CELL, an_order(1))
        sample = await self.ask()
        counters = sample.domains[1]
        self.assertGreater(counters.cpu or 0, 0)
        self.assertGreater(counters.resident or 0, 2**20)
        self.assertIsNotNone(counters.read)
        self.assertEqual((counters.written, counters.writes), (0, 0))
        self.assertEqual((counters.memory, counters.received), (None, None))  # no balloon driver, no network card
        self.assertGreater(sample.machine.cpu or 0, counters.cpu or 0)
        self.assertGreater(sample.machine.memory or 0, 2**20)

    async def test_hung_guests(self) -> None:
        """While guests hang there is everything of the other, of them the processor time; when they go on, everything of all."""
        for number in (1, 2, 3):
            await self.threads.run(self.hypervisor.start, CELL, an_order(number))
        self.sampling.start()
        await self.told_that(lambda uses: len(uses) == 3 and all(use.read is not None for use in uses.values()))
        guests = self.machine.guests()[:2]
        for guest in guests:
            os.kill(guest, signal.SIGSTOP)
            self.addCleanup(os.kill, guest, signal.SIGCONT)
        uses = await self.told_that(lambda uses: [use.read for use in uses.values()].count(None) == 2)
        for use in uses.values():
            self.assertEqual(use.resident is None, use.read is None)
            self.assertIsNotNone(use.cpu)
        await self.threads.run(self.hypervisor.start, CELL, an_order(4))
        await self.told_that(lambda uses: len(uses) == 4 and uses[4].read is not None)
        for guest in guests:
            os.kill(guest, signal.SIGCONT)
        await self.told_that(lambda uses: len(uses) == 4 and all(use.read is not None for use in uses.values()))

    async def test_libvirtd_crashes(self) -> None:
        """While libvirtd is away nothing is told; afterwards the guest's counters go on."""
        await self.threads.run(self.hypervisor.start, CELL, an_order(1))
        self.sampling.start()
        await self.told_that(lambda uses: 1 in uses)
        self.machine.kill()
        self.machine.start()
        await self.told_that(lambda uses: 1 in uses and uses[1].cpu is not None and uses[1].read is not None)


def test_the_client_shows_what_a_guest_uses(qemu_cell: RunningCell) -> None:
    """A guest with a system that runs: all of its use, and of its host, stands in the lists."""
    qemu_cell.cli("createVm", "--name", "measured", "--disks", "tashi.img", "--memory", "128", "--wait")
    try:
        (row,) = qemu_cell.wait_for_instances(lambda rows: None not in (rows[0]["stats"] or {"": None}).values())
        stats = row["stats"]
        assert 0 <= stats["cpu"] < 400
        assert 8 <= stats["memory"] <= 128 <= stats["resident"]
        (host,) = json.loads(qemu_cell.cli("getVmLayout", "-o", "json"))
        assert host["usedCpu"] > 0 and host["stats"]["cpu"] > 0 and host["stats"]["memory"] > 0
        assert "cpuUsage=" in qemu_cell.cli("getInstances", "--show-stats")
    finally:
        qemu_cell.cli("destroyVm", "--instance", "measured", "--wait")
    assert until(lambda: json.loads(qemu_cell.cli("getVmLayout", "-o", "json"))[0]["usedCpu"], lambda used: used == 0, 10) == 0
