"""What every `IPower` keeps: mixed into a TestCase that has a machine which the driver switches."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet import reactor
from twisted.internet.task import deferLater

from tashi.errors import TIMEOUT, TashiError
from tashi.interfaces import IPower
from tashi.model.host import Host
from tests.builders import a_host

PATIENCE = 10.0


class PowerContract:
    """The promises of `tashi.interfaces.IPower`."""

    power: IPower
    host: Host
    """The machine's record, as it is when all is configured; the machine is on."""

    def machine_is_on(self) -> bool:
        """Whether the machine itself has power."""
        raise NotImplementedError

    def break_it(self) -> str:
        """From now on switching the machine off fails; the words of whoever refuses, as far as there are any."""
        raise NotImplementedError

    def silence_it(self) -> None:
        """From now on whoever is to switch the machine off does not answer any more."""
        raise NotImplementedError

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition comes true."""
        deadline = reactor.seconds() + PATIENCE
        while not condition():
            assert reactor.seconds() < deadline, "it did not come true"
            await deferLater(reactor, 0.02)

    async def error(self, call: Awaitable[object]) -> TashiError:
        """What the call fails with."""
        try:
            await call
        except TashiError as error:
            return error
        raise AssertionError("it did not fail")

    async def test_off_and_on(self) -> None:
        """A machine goes off and comes on as told, and whoever can tell says so; told again it stays as it is."""
        assert self.power.objection(self.host) is None
        assert await self.power.is_on(self.host) in (True, None)
        for _ in range(2):
            await self.power.switch_off(self.host)
            await self.until(lambda: not self.machine_is_on())
        assert await self.power.is_on(self.host) in (False, None)
        for _ in range(2):
            await self.power.switch_on(self.host)
            await self.until(self.machine_is_on)
        assert await self.power.is_on(self.host) in (True, None)

    async def test_a_host_that_is_not_configured(self) -> None:
        """A host that could not be switched on again is not switched off, and what lacks is said."""
        stranger = a_host(9, "stranger")
        words = self.power.objection(stranger) or ""
        assert "stranger" in words and "setHostConfig" in words
        for call in (self.power.switch_off(stranger), self.power.switch_on(stranger)):
            assert (await self.error(call)).message == words
        assert self.machine_is_on()

    async def test_a_refusal(self) -> None:
        """What fails is said in words that name the host, or in those of whoever refused; the machine stays on."""
        words = self.break_it()
        error = await self.error(self.power.switch_off(self.host))
        assert (words or self.host.name) in error.message
        assert self.machine_is_on()

    async def test_silence(self) -> None:
        """Who does not answer is not waited for longer than the timeout."""
        self.silence_it()
        error = await self.error(self.power.switch_off(self.host))
        assert error.code == TIMEOUT and self.host.name in error.message
