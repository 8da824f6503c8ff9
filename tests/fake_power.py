"""A driver in memory: it switches what the test names, fails as the test says, and keeps what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Collection

from tashi.errors import BAD_ARGUMENT, TIMEOUT, OurFault, YourMistake
from tashi.model.host import Host


class FakePower:
    """`tashi.interfaces.IPower` for hosts of these names; ``switched`` is called with the name of each and whether it goes on."""

    def __init__(self, names: Collection[str], switched: Callable[[str, bool], None] = lambda name, on: None, tells: bool = True) -> None:
        self.names = set(names)
        self._switched = switched
        self.tells = tells
        """Whether it knows what is on."""
        self.heeds = True
        """Whether machines go off when they are told to."""
        self.dark: set[str] = set()
        """The machines without power."""
        self.fails: dict[str, Exception] = {}
        self.silent: set[str] = set()
        self.asked: list[str] = []

    def objection(self, host: Host) -> str | None:
        """See IPower."""
        return None if host.name in self.names else f"host {host.name} has no switch; name it by `tashi setHostConfig`"

    def target(self, host: Host) -> str | None:
        """See IPower: the element switch, where it is set."""
        return host.config.get("switch")

    async def switch_on(self, host: Host) -> None:
        """See IPower."""
        self._ask("on", host)
        if host.name in self.dark:
            self.dark.discard(host.name)
            self._switched(host.name, True)

    async def switch_off(self, host: Host) -> None:
        """See IPower."""
        self._ask("off", host)
        if host.name not in self.dark and self.heeds:
            self.dark.add(host.name)
            self._switched(host.name, False)

    async def is_on(self, host: Host) -> bool | None:
        """See IPower."""
        return host.name not in self.dark if self.tells else None

    def _ask(self, deed: str, host: Host) -> None:
        words = self.objection(host)
        if words is not None:
            raise YourMistake(BAD_ARGUMENT, words)
        self.asked.append(f"{deed} {host.name}")
        if host.name in self.fails:
            raise self.fails[host.name]
        if host.name in self.silent:
            raise OurFault(TIMEOUT, f"the switch of {host.name} does not answer")
