"""What is believed of what guests say on their wires, on one clock and wires in memory."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tashi.model.instance import Nic
from tashi.node.faults import HypervisorAway
from tashi.node.network.address_learning import (
    CALM_SECONDS,
    HINT_SECONDS,
    LOOK_SECONDS,
    MOST_FRAMES,
    STALE_SECONDS,
    AddressLearning,
    KnownAddress,
)
from tashi.node.network.cards import Card
from tashi.node.network.packets import Claim
from tests.unit.test_packets import GUEST, OTHER, arp, dhcp

MAC = GUEST.hex(":")
CARD = Card(0, MAC, "vnet0")


class Readers(Clock):
    """A clock that keeps who reads."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()
        self.addReader = self.readers.add
        self.removeReader = self.readers.discard


class Wire:
    """A tap device's socket: frames that wait to be read, each with its direction."""

    def __init__(self) -> None:
        self.frames: list[tuple[bytes, int]] = []
        self.down = False
        self.closed = False

    def fileno(self) -> int:
        return 7

    def recvfrom(self, most: int) -> tuple[bytes, tuple[str, int, int, int, bytes]]:
        if self.down:
            raise OSError(errno.ENETDOWN, "Network is down")
        if not self.frames:
            raise BlockingIOError
        frame, kind = self.frames.pop(0)
        return frame, ("vnet0", 3, kind, 1, b"")

    def close(self) -> None:
        self.closed = True


class LearningCase(SynchronousTestCase):
    """A host with one guest on one wire."""

    cell = "cell"

    def setUp(self) -> None:
        """Learning that has looked once."""
        self.clock = Readers()
        self.cards: Mapping[int, tuple[Card, ...]] = {7: (CARD,)}
        self.looks = 0
        self.wires: list[Wire] = []
        self.learnt: list[tuple[int, tuple[Nic, ...]]] = []
        self.problem: OSError | None = None
        self.run: Callable[..., Deferred[Any]] = maybeDeferred
        self.learning = AddressLearning(self.clock, lambda *call: self.run(*call), self.look, self, self.listen)  # type: ignore[arg-type]
        self.learning.startService()
        self.addCleanup(self.learning.stopService)
        self.clock.advance(LOOK_SECONDS)

    def look(self, cell: str) -> Mapping[int, tuple[Card, ...]]:
        """As the hypervisor's cards."""
        self.looks += 1
        return self.cards

    def listen(self, tap: str) -> Wire:
        """As `tashi.node.network.taps.listen`."""
        if self.problem:
            raise self.problem
        self.wires.append(Wire())
        return self.wires[-1]

    def learn(self, instance_id: int, nics: tuple[Nic, ...]) -> None:
        """As the executor."""
        self.learnt.append((instance_id, nics))

    def hear(self, *frames: bytes, kind: int = socket.PACKET_BROADCAST) -> None:
        """Let frames come over the newest wire, and read as a reactor would."""
        wire = self.wires[-1]
        wire.frames += [(frame, kind) for frame in frames]
        while wire.frames and self.clock.readers:
            for reader in list(self.clock.readers):
                reader.doRead()

    def addresses(self) -> list[str | None]:
        """The addresses that were told, in their sequence."""
        return [nic.ip for _, nics in self.learnt for nic in nics]


class LearningTests(LearningCase):
    def test_learnt_once(self) -> None:
        """What a guest says of itself is told once, with its card."""
        self.hear(arp("10.0.0.7"), arp("10.0.0.7"), b"", bytes(60))
        self.assertEqual(self.learnt, [(7, (Nic(network=0, mac=MAC, ip="10.0.0.7"),))])

    def test_lease(self) -> None:
        """A lease counts when it comes to the guest; one that a guest sends is no lease."""
        self.hear(dhcp("10.0.0.9"))
        self.assertEqual(self.learnt, [])
        self.hear(dhcp("10.0.0.9"), kind=socket.PACKET_OUTGOING)
        self.assertEqual(self.addresses(), ["10.0.0.9"])

    def test_speaking_for_others(self) -> None:
        """Neither what a guest says of another's card nor what comes to it from others is its own address."""
        self.hear(arp("10.0.0.7", sender=OTHER, source=OTHER))
        self.hear(arp("10.0.0.8"), kind=socket.PACKET_OUTGOING)
        self.hear(dhcp("10.0.0.9", client=OTHER), kind=socket.PACKET_OUTGOING)
        self.assertEqual(self.learnt, [])

    def test_flood(self) -> None:
        """A guest that floods is read so many frames a second, and then again."""
        self.hear(*[arp("10.0.0.7")] * 100)
        self.assertEqual(len(self.wires[0].frames), 100 - MOST_FRAMES)
        self.clock.advance(1)
        self.hear()
        self.assertEqual(len(self.wires[0].frames), 100 - 2 * MOST_FRAMES)

    def test_stopped_while_it_floods(self) -> None:
        """Nothing is left of a wire that was not listened to for a moment."""
        self.hear(*[arp("10.0.0.7")] * 100)
        self.cards = {}
        self.clock.advance(LOOK_SECONDS)
        self.assertEqual((self.clock.readers, self.wires[0].closed), (set(), True))

    def test_two_cards(self) -> None:
        """All of an instance's cards are told, also the one that has said nothing."""
        self.cards = {7: (CARD, Card(5, OTHER.hex(":"), "vnet1"))}
        self.clock.advance(LOOK_SECONDS)
        self.hear(arp("10.0.0.8", sender=OTHER, source=OTHER))
        self.assertEqual(self.learnt, [(7, (Nic(network=0, mac=MAC), Nic(network=5, mac=OTHER.hex(":"), ip="10.0.0.8")))])

    def test_another_guest_on_the_wire(self) -> None:
        """A tap device that has got another's name is listened to anew, and what was heard before is forgotten."""
        self.hear(arp("10.0.0.7"))
        self.cards = {8: (CARD,)}
        self.clock.advance(LOOK_SECONDS)
        self.assertTrue(self.wires[0].closed)
        self.hear(arp("10.0.0.7"))
        self.assertEqual([instance_id for instance_id, _ in self.learnt], [7, 8])

    def test_device_down(self) -> None:
        """A wire that breaks is let go, and listened to again when it is there."""
        self.wires[0].down = True
        for reader in list(self.clock.readers):
            reader.doRead()
        self.assertEqual((self.clock.readers, self.wires[0].closed), (set(), True))
        self.clock.advance(LOOK_SECONDS)
        self.hear(arp("10.0.0.7"))
        self.assertEqual(self.addresses(), ["10.0.0.7"])

    def test_hints(self) -> None:
        """However much libvirt says, it leads to one look."""
        before = self.looks
        for _ in range(10):
            self.learning.look_soon()
        self.clock.advance(HINT_SECONDS)
        self.assertEqual(self.looks, before + 1)

    def test_slow_look(self) -> None:
        """One look at a time; what is said meanwhile is looked at afterwards."""
        waiting: list[Deferred[Any]] = []
        self.run = lambda *call: waiting.append(Deferred()) or waiting[-1]  # type: ignore[func-returns-value]
        self.clock.pump([LOOK_SECONDS] * 3)
        self.learning.look_soon()
        self.assertEqual(len(waiting), 1)
        self.run = maybeDeferred
        before = self.looks
        waiting[0].errback(HypervisorAway("away"))
        self.clock.advance(HINT_SECONDS)
        self.assertEqual(self.looks, before + 1)
        self.assertEqual(len(self.wires), 1)

    def test_no_cell(self) -> None:
        """Before the agent has logged in nobody's guests are looked at."""
        self.cell = ""
        before = self.looks
        self.clock.advance(3 * LOOK_SECONDS)
        self.assertEqual(self.looks, before)

    def test_not_allowed(self) -> None:
        """An agent that may not listen goes on without."""
        self.cards, self.problem = {7: (Card(0, MAC, "vnet1"),)}, PermissionError(errno.EPERM, "Operation not permitted")
        self.clock.advance(2 * LOOK_SECONDS)
        self.assertEqual(self.clock.readers, set())
        self.problem = None
        self.clock.advance(LOOK_SECONDS)
        self.assertEqual(len(self.clock.readers), 1)


class KnownAddressTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A card that has said its address."""
        self.known = KnownAddress(MAC)
        self.assertTrue(self.says("10.0.0.7", 0))

    def says(self, ip: str, now: float, leased: bool = False) -> bool:
        """Whether what is heard is news."""
        return self.known.hear(Claim(MAC, ip, leased), leased, now)

    def test_two_addresses(self) -> None:
        """Of two addresses in use the first one stays."""
        for now in range(10, 200, 10):
            self.assertFalse(self.says("10.0.0.8", now) or self.says("10.0.0.7", now))

    def test_moved_on(self) -> None:
        """An address not heard of any more gives way."""
        self.assertFalse(self.says("10.0.0.8", STALE_SECONDS))
        self.assertTrue(self.says("10.0.0.8", STALE_SECONDS + 1))

    def test_lease(self) -> None:
        """A lease counts at once, but not again and again."""
        self.assertTrue(self.says("10.0.0.8", CALM_SECONDS, leased=True))
        self.assertFalse(self.says("10.0.0.9", CALM_SECONDS + 1, leased=True))
        self.assertTrue(self.says("10.0.0.9", 2 * CALM_SECONDS, leased=True))

    def test_link_local(self) -> None:
        """An address for want of a better one gives way to the better one."""
        self.known = KnownAddress(MAC)
        self.assertTrue(self.says("169.254.3.4", 0))
        self.assertTrue(self.says("10.0.0.7", CALM_SECONDS))
        self.assertFalse(self.says("169.254.3.4", 2 * CALM_SECONDS))
