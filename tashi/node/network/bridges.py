"""Which bridge each network is on this host: those that the operator has made and named, and those of VLANs, made when one is needed.

A network whose bridge is not there is not offered, and no guest that needs it is begun. On a simulated host a name is as good as a bridge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from twisted.logger import Logger

from tashi.errors import BAD_ARGUMENT, OurFault
from tashi.node.domain.xml import UNPLUGGED
from tashi.node.network.cards import cards_of
from tashi.node.network.ifup import check_script, run_script
from tashi.node.network.vlans import VLAN_IDS, Vlans, device_exists

_NO_CARD: Final = (UNPLUGGED,)


class Bridges:
    """The networks of this host. ``configured``: bridges by network id; ``ifup``: path of a script for each network's guests, with the
    id in place of ``{id}``, or ''."""

    log = Logger()

    def __init__(self, configured: Mapping[int, str], vlans: Vlans | None = None, ifup: str = "") -> None:
        self._configured = configured
        self._vlans = vlans
        self._ifup = ifup
        self._said: tuple[str, ...] = ()

    def check(self) -> None:
        """OurFault when a script that a configured network needs is not there or not to be trusted."""
        if self._ifup:
            for network in self._configured:
                check_script(self._script(network))

    def offered(self, simulated: bool = False) -> tuple[tuple[int, ...], bool]:
        """The networks that guests can have here now, and whether any VLAN beside them; what is missing is logged once."""
        if not self._configured and self._vlans is None:
            return _NO_CARD, False
        missing = {} if simulated else {key: name for key, name in self._configured.items() if not device_exists(name)}
        why_not = self._vlans.why_not() if self._vlans is not None and not simulated else ""
        said = [f"network {key} is not offered: there is no bridge {name}" for key, name in sorted(missing.items())]
        if self._vlans is not None and why_not:
            said.append(f"no VLANs of {self._vlans.device} are offered: {why_not}; name a ready bridge for each network in [Networks]")
        for words in said:
            if words not in self._said:
                self.log.warn("{words}", words=words)
        self._said = tuple(said)
        return tuple(sorted(set(self._configured) - set(missing))), self._vlans is not None and not why_not

    def ready(self, networks: Iterable[int], simulated: bool = False) -> dict[int, str]:
        """The bridges of these networks, which are there; OurFault with the reason when one cannot be had. A host that was told of no
        network at all has none for network 0 either, and nobody needs one."""
        bridges = {}
        for network in sorted(set(networks)):
            bridge = self._configured.get(network, "")
            if bridge and not simulated and not device_exists(bridge):
                raise OurFault(
                    BAD_ARGUMENT, f"the bridge {bridge} of network {network} is not there; make it, or correct [Networks] {network}"
                )
            if not bridge and self._vlans is not None and network in VLAN_IDS:
                bridge = self._vlans.bridge_of(network) if simulated else self._vlans.make(network)
            if bridge:
                bridges[network] = bridge
            elif (network,) != _NO_CARD or self._configured or self._vlans is not None:
                raise OurFault(BAD_ARGUMENT, f"this host has no bridge for network {network}; name one in its [Networks] section")
        return bridges

    def plugged(self, describe: Callable[[], str]) -> None:
        """A domain has just been started and has its cards: run the scripts of its networks; OurFault when one fails.

        ``describe`` gives the domain's live XML.
        """
        if self._ifup:
            for card in cards_of(ElementTree.fromstring(describe())):
                run_script(self._script(card.network), card.tap)

    def arrived(self, describe: Callable[[], str]) -> None:
        """The same for a domain that has come here, or may have been started by an agent that was killed: its guest is at work, so that a
        script that fails is only told of in the log."""
        try:
            self.plugged(describe)
        except OurFault as fault:
            self.log.error("a guest goes on without what a script should have done: {fault}", fault=fault.message)

    def _script(self, network: int) -> Path:
        return Path(self._ifup.replace("{id}", str(network)))
