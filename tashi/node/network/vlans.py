"""VLANs of a network device, each with a bridge, made when they are needed: what `vconfig` and `brctl` did by hand.

Making is idempotent, one at a time, and takes nothing from anybody: what has the name but is something else is refused in words. What
was made stays; it does no harm, and the next guest of that network finds it.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
from typing import Any, Final

from tashi.errors import INTERNAL, OurFault

VLAN_IDS: Final = range(1, 4095)
LONGEST_NAME: Final = 15
IP_SECONDS: Final = 10.0
_TRIAL: Final = "tashi-vlan-try"
_TRIAL_ID: Final = 4094
_HERE_ALREADY: Final = "File exists"
_ENVIRONMENT: Final = {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin", "LC_ALL": "C"}


def device_exists(name: str) -> bool:
    """Whether this host has such a network device."""
    try:
        return socket.if_nametoindex(name) > 0
    except OSError:
        return False


class Vlans:
    """The VLANs on one device of this host; ``bridge`` names the bridge of each, with its id in place of ``{id}``."""

    def __init__(self, device: str, bridge: str) -> None:
        self.device = device
        self._bridge = bridge
        self._making = threading.Lock()
        self._verdict: str | None = None

    def bridge_of(self, network: int) -> str:
        """How the bridge of this VLAN is called."""
        return self._bridge.replace("{id}", str(network))

    def why_not(self) -> str:
        """Why there can be no VLANs here, '' where there can: found out once, by making one and removing it."""
        if not device_exists(self.device):
            return f"there is no network device {self.device}"
        with self._making:
            if self._verdict is None:
                self._verdict = self._try()
            return self._verdict

    def make(self, network: int) -> str:
        """The name of this VLAN's bridge, which is there and up; OurFault with the kernel's reason when it cannot be."""
        bridge, card = self.bridge_of(network), f"{self.device}.{network}"
        if len(card) > LONGEST_NAME:
            card = f"vlan{network}"
        with self._making:
            try:
                self._make(network, bridge, card)
            except _Refused as refused:
                raise OurFault(
                    INTERNAL,
                    f"network {network} cannot be made as a VLAN of {self.device}: {refused}; "
                    f"make a bridge for it by hand, and name that in [Networks] of this host ({network} = BRIDGE)",
                ) from None
        return bridge

    def _make(self, network: int, bridge: str, card: str) -> None:
        if _look(card) is None:  # first, as it is what fails where there are no VLANs
            _add(card, "link", self.device, "name", card, "type", "vlan", "id", str(network))
        found = _look(card) or {}
        kind = found.get("linkinfo", {})
        if (found.get("link"), kind.get("info_kind"), kind.get("info_data", {}).get("id")) != (self.device, "vlan", network):
            raise _Refused(f"{card} is something else")
        if found.get("master") not in (None, bridge):
            raise _Refused(f"{card} belongs to {found['master']}")
        if _look(bridge) is None:
            _add(bridge, "name", bridge, "type", "bridge")
            with contextlib.suppress(_Refused):  # where there is no IPv6
                _ip("link", "set", "dev", bridge, "addrgenmode", "none")  # the host itself has no address there
        if (_look(bridge) or {}).get("linkinfo", {}).get("info_kind") != "bridge":
            raise _Refused(f"{bridge} is no bridge")
        _ip("link", "set", "dev", self.device, "up")
        _ip("link", "set", "dev", card, "master", bridge, "up")
        _ip("link", "set", "dev", bridge, "up")

    def _try(self) -> str:
        with contextlib.suppress(_Refused):  # left by an agent that was killed in the middle of this
            _ip("link", "delete", "dev", _TRIAL)
        try:
            _ip("link", "add", "link", self.device, "name", _TRIAL, "type", "vlan", "id", str(_TRIAL_ID))
            _ip("link", "delete", "dev", _TRIAL)
        except _Refused as refused:
            return "" if _HERE_ALREADY in str(refused) else str(refused)
        return ""


class _Refused(Exception):
    """What `ip` or the kernel says."""


def _add(name: str, *words: str) -> None:
    try:
        _ip("link", "add", *words)
    except _Refused:
        if not device_exists(name):  # else somebody else was faster
            raise


def _look(name: str) -> dict[str, Any] | None:
    """What `ip` tells of a device; None when there is none."""
    if not device_exists(name):
        return None
    found = json.loads(_ip("-json", "-details", "link", "show", "dev", name))
    return found[0] if found else None


def _ip(*words: str) -> str:
    try:
        done = subprocess.run(
            ["ip", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=IP_SECONDS, env=_ENVIRONMENT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _Refused(f"ip does not work here: {error}") from None
    if done.returncode != 0:
        why = done.stderr.strip() or f"ip ended with {done.returncode}"
        raise _Refused(why.removeprefix("Error: ").removeprefix("RTNETLINK answers: ").rstrip("."))
    return done.stdout
