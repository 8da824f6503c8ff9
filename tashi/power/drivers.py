"""The driver that the configuration names, made ready; it knows hosts by their records alone."""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Awaitable, Callable
from typing import Any

from tashi.config.sections.power import Power
from tashi.errors import BAD_ARGUMENT, YourMistake
from tashi.interfaces import IPower
from tashi.model.host import Host
from tashi.power.command import Commands
from tashi.power.ipmi import Ipmi
from tashi.power.wol import WakeOnLan

ShutDown = Callable[[Host], Awaitable[None]]
"""Has a host's agent shut its machine down; TashiError when it cannot be asked, or refuses."""


def make_power(reactor: Any, settings: Power, shut_down: ShutDown) -> IPower | None:
    """What switches hosts on and off; None: nothing does. YourMistake when the driver lacks what it needs."""
    match settings.driver:
        case "ipmi":
            _check_password_file(settings.password_file)
            return Ipmi(reactor, settings)
        case "wol":
            _check_address(settings.wol_address)
            return WakeOnLan(reactor, settings, shut_down)
        case "command":
            if not settings.on or not settings.off:
                raise YourMistake(BAD_ARGUMENT, "[Power] driver = command needs the commands [Power] on and [Power] off")
            return Commands(reactor, settings)
    return None


def _check_password_file(path: str) -> None:
    """YourMistake unless this is a file that its owner alone, who is us or root, may read."""
    if not path:
        raise YourMistake(BAD_ARGUMENT, "[Power] driver = ipmi needs [Power] passwordFile, a file that holds the password of [Power] user")
    try:
        found = os.stat(path)
    except OSError as error:
        raise YourMistake(BAD_ARGUMENT, f"[Power] passwordFile: {path} cannot be read ({error.strerror})") from None
    if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077 or found.st_uid not in (0, os.geteuid()):
        raise YourMistake(BAD_ARGUMENT, f"[Power] passwordFile: {path} must be readable by its owner only; chmod 600 it")


def _check_address(text: str) -> None:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        raise YourMistake(BAD_ARGUMENT, f"[Power] wolAddress is {text}; use an IPv4 address, such as 192.0.2.255") from None
