"""Hosts with a BMC: ipmitool asks it over IPMI 2.0 (lanplus). The password goes by a file, never among the arguments."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import urlsplit

from twisted.internet.defer import DeferredSemaphore
from twisted.internet.task import deferLater

from tashi.config.sections.power import Power
from tashi.errors import BAD_ARGUMENT, INTERNAL, OurFault, YourMistake
from tashi.model.host import Host
from tashi.power import AT_ONCE
from tashi.programs import run

POLL: Final = 1.0
"""Seconds between two looks at a machine that is to shut down."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,252}")


class Ipmi:
    """`tashi.interfaces.IPower` by ipmitool."""

    def __init__(self, reactor: Any, settings: Power) -> None:
        self._reactor = reactor
        self._settings = settings
        self._turns = DeferredSemaphore(AT_ONCE)

    def objection(self, host: Host) -> str | None:
        """See IPower."""
        try:
            self._address(host)
        except YourMistake as mistake:
            return mistake.message
        return None

    def target(self, host: Host) -> str | None:
        """See IPower: the BMC."""
        address, port = self._address(host)
        return f"{address}:{port}".lower()

    async def switch_on(self, host: Host) -> None:
        """See IPower."""
        await self._chassis(host, "on")

    async def switch_off(self, host: Host) -> None:
        """See IPower: as its power button would; a machine that does not heed that is switched off hard when its time is over."""
        deadline = self._reactor.seconds() + self._settings.soft_timeout
        if await self.is_on(host) is False:
            return
        if self._settings.soft_timeout > 0:
            await self._chassis(host, "soft")
            while self._reactor.seconds() < deadline:
                if await self.is_on(host) is False:
                    return
                await deferLater(self._reactor, POLL)
        await self._chassis(host, "off")

    async def is_on(self, host: Host) -> bool | None:
        """See IPower."""
        words = (await self._chassis(host, "status")).split()
        if not words or words[-1] not in ("on", "off"):
            raise OurFault(INTERNAL, f"the BMC of {host.name} does not say whether it is on: {' '.join(words)[:200]}")
        return words[-1] == "on"

    async def _chassis(self, host: Host, deed: str) -> str:
        settings = self._settings
        address, port = self._address(host)
        words = ["ipmitool", "-I", "lanplus", "-H", address, "-p", str(port), "-L", "OPERATOR", "-f", settings.password_file]
        words += ["-U", settings.user] if settings.user else []
        words += ["-C", str(settings.cipher_suite)] if settings.cipher_suite else []
        try:
            return await run(self._reactor, [*words, "chassis", "power", deed], settings.timeout, self._turns)
        except OurFault as fault:
            raise OurFault(fault.code, f"power {deed} by the BMC {address} of {host.name}: {fault.message}") from None

    def _address(self, host: Host) -> tuple[str, int]:
        text = host.config.get("ipmi") or self._settings.addresses.get(host.name, "")
        if not text:
            raise YourMistake(
                BAD_ARGUMENT,
                f"host {host.name} has no BMC address; set [Power] ipmiAddress.{host.name}, or the element ipmi by `tashi setHostConfig`",
            )
        try:
            parts = urlsplit(f"//{text}")
            name, port = parts.hostname or "", parts.port or 623
        except ValueError:
            name, port = "", 0
        if not _NAME.fullmatch(name) or parts.path or parts.username is not None:
            raise YourMistake(BAD_ARGUMENT, f"the BMC address {text} of host {host.name} is none; use a name or an address, and :port")
        return name, port
