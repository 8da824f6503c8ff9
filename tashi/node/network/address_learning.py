"""Which addresses the guests have, learnt from what they say on their wires: no agent in the guest, no address of the host needed.

Each card's tap device is listened to. A guest is believed only on its own wire, by its own MAC address; a lease only when it comes to it.
A guest that has several addresses is known by the first as long as that is heard of; one that floods is not listened to for a while.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from twisted.application.service import Service
from twisted.internet import task
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from tashi.errors import OurFault
from tashi.model.instance import Nic
from tashi.node.network.cards import Card
from tashi.node.network.packets import Claim, claim_in
from tashi.node.network.taps import LONGEST_FRAME, listen

LOOK_SECONDS: Final = 5.0
"""Time between two looks at which guests there are, if libvirt does not say that something has changed."""
HINT_SECONDS: Final = 0.2
"""Time within which what libvirt says leads to one look."""
STALE_SECONDS: Final = 30.0
"""An address not heard of for so long gives way to another that the guest uses."""
CALM_SECONDS: Final = 5.0
"""An address stays for at least so long, that nobody is kept busy by a guest that changes it again and again."""
MOST_FRAMES: Final = 32
"""Frames of one card that are looked at in a second."""


class Ears(Protocol):
    """Who is told: the executor."""

    @property
    def cell(self) -> str:
        """The UUID of the cell that is served, '' until there is one."""

    def learn(self, instance_id: int, nics: tuple[Nic, ...]) -> None:
        """These are the instance's cards, with the addresses that are known of them."""


class KnownAddress:
    """The address of one card, as far as it is known; times in seconds of one clock."""

    def __init__(self, mac: str) -> None:
        self._mac = mac
        self.ip: str | None = None
        self._learnt = 0.0
        self._heard = 0.0

    def hear(self, claim: Claim, to_guest: bool, now: float) -> bool:
        """Take the claim for what it is worth; whether the address is another now. Leases come to the guest, all else comes from it."""
        if claim.mac != self._mac or claim.leased is not to_guest:
            return False
        if claim.ip == self.ip:
            self._heard = now
            return False
        if self.ip is not None:
            outdated = claim.leased or now - self._heard > STALE_SECONDS or ipaddress.ip_address(self.ip).is_link_local
            if not outdated or now - self._learnt < CALM_SECONDS:
                return False
        self.ip, self._learnt, self._heard = claim.ip, now, now
        return True


@implementer(IReadDescriptor)
class _Wire:
    """One card's tap device, listened to."""

    def __init__(self, reactor: Any, heard: socket.socket, instance_id: int, card: Card, changed: Callable[[int], None]) -> None:
        self.instance_id = instance_id
        self.card = card
        self.address = KnownAddress(card.mac)
        self.deaf = False
        self._reactor = reactor
        self._socket = heard
        self._changed = changed
        self._second = 0.0
        self._frames = 0
        self._pause: Any = None
        reactor.addReader(self)

    def fileno(self) -> int:
        """See IFileDescriptor."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """See ILoggingContext."""
        return self.card.tap

    def doRead(self) -> None:
        """See IReadDescriptor."""
        now = self._reactor.seconds()
        try:
            frame, (_, _, kind, *_) = self._socket.recvfrom(LONGEST_FRAME)
        except BlockingIOError:
            return
        except OSError:
            self.close()  # the device went down, or away; if it is still there the next look finds it
            return
        if now - self._second >= 1:
            self._second, self._frames = now, 0
        self._frames += 1
        if self._frames >= MOST_FRAMES:
            self._reactor.removeReader(self)
            self._pause = self._reactor.callLater(1.0, self._resume)
        claim = claim_in(frame)
        if claim is not None and self.address.hear(claim, kind == socket.PACKET_OUTGOING, now):
            self._changed(self.instance_id)

    def connectionLost(self, reason: Failure) -> None:
        """See IFileDescriptor."""
        self.close()

    def close(self) -> None:
        """Listen no more."""
        if not self.deaf:
            self.deaf = True
            if self._pause is not None:
                self._pause.cancel()
            self._reactor.removeReader(self)
            self._socket.close()

    def _resume(self) -> None:
        self._pause = None
        self._reactor.addReader(self)


class AddressLearning(Service):
    """Listens to every guest of the cell on this host. ``cards`` is called in a thread by ``run``: each instance's cards now."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        run: Callable[..., Deferred[Any]],
        cards: Callable[[str], Mapping[int, tuple[Card, ...]]],
        ears: Ears,
        listen: Callable[[str], socket.socket] = listen,
    ) -> None:
        self._reactor = reactor
        self._run = run
        self._read_cards = cards
        self._ears = ears
        self._listen = listen
        self._cards: Mapping[int, tuple[Card, ...]] = {}
        self._wires: dict[str, _Wire] = {}
        self._looking: Deferred[Any] | None = None
        self._hinted: Any = None
        self._problem = ""
        self._watch = task.LoopingCall(self.look)
        self._watch.clock = reactor

    def startService(self) -> None:
        """Begin to look which guests there are."""
        super().startService()
        self._watch.start(LOOK_SECONDS, now=False)

    def stopService(self) -> None:
        """Listen to nobody any more; what is known stays with whoever was told."""
        super().stopService()
        self._watch.stop()
        if self._hinted is not None:
            self._hinted.cancel()
        self._plug({})

    def look_soon(self) -> None:
        """Something has changed: see which guests there are."""
        if self._hinted is None and self.running:
            self._hinted = self._reactor.callLater(HINT_SECONDS, self._look_as_hinted)

    def look(self) -> None:
        """See which guests there are, unless somebody is at it."""
        if self._ears.cell and self._looking is None:
            self._looking = self._run(self._read_cards, self._ears.cell)
            self._looking.addCallback(self._plug).addErrback(self._not_seen).addBoth(self._looked)

    def _look_as_hinted(self) -> None:
        self._hinted = None
        if self._looking is not None:
            self.look_soon()  # what is under way may have missed it
        else:
            self.look()

    def _looked(self, ignored: object) -> None:
        self._looking = None

    def _not_seen(self, failure: Failure) -> None:
        if not failure.check(OurFault, CancelledError):  # libvirt is away, which others say
            self.log.failure("the guests' cards were not looked at", failure)

    def _plug(self, cards: Mapping[int, tuple[Card, ...]]) -> None:
        """Listen to these cards, and to no others."""
        self._cards = cards if self.running else {}
        wanted = {card.tap: (instance_id, card) for instance_id, each in self._cards.items() for card in each}
        for tap, wire in list(self._wires.items()):
            if wire.deaf or wanted.get(tap) != (wire.instance_id, wire.card):
                wire.close()
                del self._wires[tap]
        for tap, (instance_id, card) in wanted.items():
            if tap not in self._wires:
                try:
                    heard = self._listen(tap)
                except OSError as error:
                    self._say(f"the addresses of guests are not learnt: {tap} cannot be listened to: {error.strerror}")
                    continue
                self._wires[tap] = _Wire(self._reactor, heard, instance_id, card, self._changed)

    def _changed(self, instance_id: int) -> None:
        nics = []
        for card in self._cards.get(instance_id, ()):
            wire = self._wires.get(card.tap)
            nics.append(Nic(network=card.network, mac=card.mac, ip=wire.address.ip if wire is not None else None))
        self._ears.learn(instance_id, tuple(nics))

    def _say(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            self.log.warn("{problem}", problem=problem)
