"""Hosts that a magic packet wakes: six bytes of ones, then the card's address sixteen times. They shut themselves down when asked."""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError

from tashi.config.sections.power import Power
from tashi.errors import BAD_ARGUMENT, INTERNAL, TIMEOUT, OurFault, YourMistake
from tashi.model.host import MAC, Host


class WakeOnLan:
    """`tashi.interfaces.IPower` by magic packets; nothing tells whether a machine is on but its agent."""

    def __init__(self, reactor: Any, settings: Power, shut_down: Callable[[Host], Awaitable[None]]) -> None:
        self._reactor = reactor
        self._settings = settings
        self._shut_down = shut_down

    def objection(self, host: Host) -> str | None:
        """See IPower."""
        try:
            _card(host)
        except YourMistake as mistake:
            return mistake.message
        return None

    def target(self, host: Host) -> str | None:
        """See IPower: the card."""
        return host.mac.lower().replace("-", ":") or None

    async def switch_on(self, host: Host) -> None:
        """See IPower."""
        card = _card(host)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            try:
                sender.sendto(b"\xff" * 6 + card * 16, (self._settings.wol_address, self._settings.wol_port))
            except OSError as error:
                raise OurFault(
                    INTERNAL, f"a magic packet for {host.name} cannot be sent to {self._settings.wol_address}: {error.strerror or error}"
                ) from None

    async def switch_off(self, host: Host) -> None:
        """See IPower: its agent does it. A host that could not be woken again stays on."""
        _card(host)
        asked = Deferred.fromCoroutine(_awaited(self._shut_down(host)))
        try:
            await asked.addTimeout(self._settings.timeout, self._reactor)
        except TimeoutError:
            raise OurFault(TIMEOUT, f"{host.name} has not answered within {self._settings.timeout:g} s that it shuts down") from None

    async def is_on(self, host: Host) -> bool | None:
        """See IPower."""
        return None


async def _awaited(work: Awaitable[None]) -> None:
    await work


def _card(host: Host) -> bytes:
    """The address of the card that hears the packet; YourMistake when it is not known."""
    text = host.mac
    if not text:
        raise YourMistake(BAD_ARGUMENT, f"the MAC address of host {host.name} is not known; set the element mac by `tashi setHostConfig`")
    if not MAC.fullmatch(text):
        raise YourMistake(BAD_ARGUMENT, f"the element mac of host {host.name} is {text}; use six bytes such as 52:54:00:12:34:56")
    return bytes.fromhex(re.sub("[:-]", "", text))
