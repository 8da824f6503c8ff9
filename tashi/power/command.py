"""Hosts that programs of the operator's switch on and off: each run as a list of words, with what is said of the host put in."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.defer import DeferredSemaphore

from tashi.config.sections.power import Power
from tashi.config.values import PLACEHOLDER, HostCommand
from tashi.errors import BAD_ARGUMENT, INTERNAL, OurFault, YourMistake
from tashi.model.host import ADDRESS, Host
from tashi.model.names import shown
from tashi.power import AT_ONCE
from tashi.programs import run


class Commands:
    """`tashi.interfaces.IPower` by the commands of the configuration; whatever ends with another code than 0 has failed."""

    def __init__(self, reactor: Any, settings: Power) -> None:
        self._reactor = reactor
        self._settings = settings
        self._turns = DeferredSemaphore(AT_ONCE)

    def objection(self, host: Host) -> str | None:
        """See IPower."""
        try:
            for command in (self._settings.on, self._settings.off, self._settings.status):
                words_for(host, command)
        except YourMistake as mistake:
            return mistake.message
        return None

    def target(self, host: Host) -> str | None:
        """See IPower: the address, where the commands name it."""
        commands = (self._settings.on, self._settings.off, self._settings.status)
        named = any(found[1] == "address" for one in commands for word in one.words for found in PLACEHOLDER.finditer(word))
        return _address(host).lower() if named else None

    async def switch_on(self, host: Host) -> None:
        """See IPower."""
        await self._run("on", host, self._settings.on)

    async def switch_off(self, host: Host) -> None:
        """See IPower. A host that could not be switched on again stays on."""
        words_for(host, self._settings.on)
        await self._run("off", host, self._settings.off)

    async def is_on(self, host: Host) -> bool | None:
        """See IPower."""
        if not self._settings.status:
            return None
        words = (await self._run("status", host, self._settings.status)).lower().split()
        if not words or words[-1] not in ("on", "off"):
            raise OurFault(INTERNAL, f"[Power] status for {host.name} printed neither on nor off: {' '.join(words)[-200:]}")
        return words[-1] == "on"

    async def _run(self, what: str, host: Host, command: HostCommand) -> str:
        try:
            return await run(self._reactor, words_for(host, command), self._settings.timeout, self._turns)
        except OurFault as fault:
            raise OurFault(fault.code, f"[Power] {what} for {host.name}: {fault.message}") from None


def _address(host: Host) -> str:
    """The address of the host's machine that is confirmed; YourMistake when it is not one."""
    if not ADDRESS.fullmatch(host.address):
        raise YourMistake(BAD_ARGUMENT, f"the element address of host {host.name} is {shown(host.address)}; use a name or an address")
    return host.address


def words_for(host: Host, command: HostCommand) -> list[str]:
    """The command about this host: each argument stays one. YourMistake when the host's configuration lacks what it names."""

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if not name.startswith("config."):
            return {"name": host.name, "id": str(host.id), "address": _address(host)}[name]
        element = name.removeprefix("config.")
        if element not in host.config:
            raise YourMistake(
                BAD_ARGUMENT, f"host {host.name} has no element {element}, which [Power] names; set it by `tashi setHostConfig`"
            )
        return host.config[element]

    return [PLACEHOLDER.sub(value, word) for word in command.words]
