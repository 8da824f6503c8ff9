"""Hosts switched off and on again: begun by a transaction, carried out by the driver, ended by what is seen of the machine.

What is to become of a host is its state, which survives us: what is under way when the control plane ends is taken up again when it
is back. A host that is on its way off takes nothing from the first moment; none that holds anything is ever switched off.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from tashi.errors import INTERNAL, TIMEOUT, OurFault, TashiError
from tashi.interfaces import IPower
from tashi.manager.cluster import Cluster, Transaction
from tashi.manager.settings import ManagerSettings
from tashi.model.events import host_action
from tashi.model.host import Host
from tashi.model.states import HostState

POLL: Final = 1.0
"""Seconds between two looks at a host that is on its way."""
REPEAT: Final = 30.0
"""Seconds after which a host that has not come is switched on once more: the first time it may not have been quite off yet."""
_OFF: Final = frozenset({HostState.PoweredOff, HostState.PoweringOn, HostState.WakeFailed})


def arrived(tx: Transaction, host: Host) -> Host:
    """The host, whose agent has just logged in, as it is when it is on. One that is on its way off stays on it."""
    if host.state not in _OFF:
        return host
    reason = "" if host.state is HostState.PoweringOn else f"it came by itself, and was {host.state.name}"
    after = msgspec.structs.replace(host, state=host.state_when_on, state_when_on=HostState.Normal, notes="")
    tx.tell(host_action("poweredOn", after, reason))
    return after


class Powering:
    """Switches hosts on and off. ``let_go`` drops the link of a host that is off; ``kick`` makes the planner look again."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        cluster: Cluster,
        settings: ManagerSettings,
        power: IPower | None,
        let_go: Callable[[int], None],
        kick: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._cluster = cluster
        self._settings = settings
        self._power = power
        self._let_go = let_go
        self._kick = kick
        self._under_way: dict[int, Deferred[None]] = {}
        self._left_alone: dict[int, float] = {}  # until when hosts that failed are not tried again

    def begin(self) -> None:
        """After a restart: take up what was under way. Call it when the leases of all hosts have begun anew."""
        if self._power is None and self._settings.scheduling.auto_powering:
            self.log.warn("[Scheduler] autoPowering is on, and no host can be switched: set [Power] driver")
        for host in self._cluster.hosts.values():
            if host.state is HostState.PoweringOn:
                self._carry_out(host.id, self._come_on(host.id))
            elif host.state is HostState.PoweringOff:
                self._carry_out(host.id, self._go_off(host.id))

    def refusal_on(self, host: Host) -> str | None:
        """Why this host is not to be switched on now, in words; None: it may be."""
        if host.state not in (HostState.PoweredOff, HostState.WakeFailed):
            return f"{host.name} is {host.state.name}; only a host that was powered off is powered on"
        return self._objection(host)

    def refusal_off(self, host: Host) -> str | None:
        """Why this host is not to be switched off now, in words; None: it may be."""
        if host.state not in (HostState.Normal, HostState.Drained):
            return f"{host.name} is {host.state.name}; only a host that is Normal or Drained is powered off"
        held = len(self._cluster.errands.get(host.id, ()))
        if held:
            things = "an instance, or what one has left there" if held == 1 else f"{held} instances, or what they have left there"
            return f"{host.name} holds {things}; `tashi drainHost --host {host.name}` empties it"
        if not host.up or host.decayed:
            return f"{host.name} does not answer just now, and may hold what is not known of; try again when `tashi getHosts` shows it up"
        return self._objection(host)

    def switch_on(self, host_id: int, why: str) -> None:
        """Begin to switch this host on; ``why`` is noted. Not one that failed a short while ago; one that cannot be fails to wake."""
        host = self._willing(host_id)
        if host is not None and host.state in (HostState.PoweredOff, HostState.WakeFailed):
            with self._cluster.transaction("power_on_host") as tx:
                self.begin_on(tx, host, why)

    def switch_off(self, host_id: int, why: str) -> None:
        """Begin to switch this host off; ``why`` is noted. Not where that is refused, or failed a short while ago."""
        host = self._willing(host_id)
        if host is None:
            return
        objection = self._objection(host)
        if objection is not None:
            self._leave_alone(host, f"not powered off: {objection}")
        elif self.refusal_off(host) is None:
            with self._cluster.transaction("power_off_host") as tx:
                self.begin_off(tx, host, why)

    def _objection(self, host: Host) -> str | None:
        if self._power is None:
            return f"{host.name} cannot be switched: set [Power] driver"
        objection = self._power.objection(host)
        if objection is not None:
            return objection
        target = self._power.target(host)
        for other in self._cluster.hosts.values():
            if target is not None and other.id != host.id and self._power.objection(other) is None and self._power.target(other) == target:
                return (
                    f"{host.name} cannot be switched: {target} is also the address of {other.name}, and which of them it is is not known; "
                    "correct the wrong one by `tashi setHostConfig`"
                )
        return None

    def begin_on(self, tx: Transaction, host: Host, why: str) -> None:
        """Let this host, of which nothing speaks against it, be switched on when the transaction is durable."""
        self._left_alone.pop(host.id, None)
        self.log.info("host {name} is switched on: {why}", name=host.name, why=why)
        tx.put_host(msgspec.structs.replace(host, state=HostState.PoweringOn, notes=why))
        tx.after_commit(lambda: self._carry_out(host.id, self._come_on(host.id)))

    def begin_off(self, tx: Transaction, host: Host, why: str) -> None:
        """Let this host, of which nothing speaks against it, take nothing more, and be switched off when that is durable."""
        self._left_alone.pop(host.id, None)
        self.log.info("host {name} is switched off: {why}", name=host.name, why=why)
        after = msgspec.structs.replace(host, state=HostState.PoweringOff, state_when_on=host.state, draining=False, notes=why)
        tx.put_host(after)
        tx.after_commit(lambda: self._carry_out(host.id, self._go_off(host.id)))

    def _willing(self, host_id: int) -> Host | None:
        if self._cluster.clock.seconds() < self._left_alone.get(host_id, 0.0):
            return None
        return self._cluster.hosts.get(host_id)

    def _carry_out(self, host_id: int, work: Coroutine[Any, Any, None]) -> None:
        former = self._under_way.pop(host_id, None)
        if former is not None:
            former.cancel()
        under_way = self._under_way[host_id] = Deferred.fromCoroutine(work)
        under_way.addErrback(self._not_carried_out, host_id)

    def _not_carried_out(self, failure: Failure, host_id: int) -> None:
        """Whatever has broken, the host is not left on its way for ever."""
        if failure.check(CancelledError):
            return
        self.log.failure("the power of host {host} is looked after no more", failure, host=host_id)
        host = self._cluster.hosts.get(host_id)
        if host is not None:
            why = f"the power driver failed: {type(failure.value).__name__}: {failure.value}"
            self._failed_on(host, why)
            self._failed_off(host, why)

    async def _come_on(self, host_id: int) -> None:
        clock, wake_timeout = self._cluster.awake, self._settings.wake_timeout
        deadline, next_try = clock.seconds() + wake_timeout, clock.seconds()
        while host := self._still(host_id, HostState.PoweringOn):
            now = clock.seconds()
            if now >= deadline:
                return self._failed_on(host, f"its agent has not come within {wake_timeout:g} s of its being switched on")
            if now >= next_try:
                next_try = now + REPEAT
                try:
                    if await self._is_on(host) is not True:
                        await self._driver.switch_on(host)
                except TashiError as error:
                    return self._failed_on(host, error.message)
            await deferLater(self._reactor, POLL)

    async def _go_off(self, host_id: int) -> None:
        clock, settings = self._cluster.awake, self._settings
        begun, asked = clock.seconds(), False
        while host := self._still(host_id, HostState.PoweringOff):
            on, now = await self._is_on(host), clock.seconds()
            host = self._still(host_id, HostState.PoweringOff) or host
            silent = not host.up and now - begun >= settings.expire_host_time  # after a restart nobody is up until he has come back
            if on is False and host.up and not asked:
                return self._failed_off(host, "[Power] says that it is off, and its agent answers; is that another machine's power?")
            if on is False or (on is None and silent):
                return self._gone_off(host)
            if now - begun >= settings.off_timeout + settings.expire_host_time:
                return self._failed_off(host, f"it is still on {now - begun:.0f} s after it was switched off")
            if not asked and (on or host.up):
                asked = True
                try:
                    await self._driver.switch_off(host)
                except TashiError as error:
                    # who has not answered may be on the way off: it is waited for, as if it had
                    if error.code != TIMEOUT and await self._is_on(host) is not False:
                        return self._failed_off(host, error.message)
                    self.log.info("{error}", error=error.message)
            else:
                await deferLater(self._reactor, POLL)

    @property
    def _driver(self) -> IPower:
        if self._power is None:
            raise OurFault(INTERNAL, "no host can be switched: set [Power] driver")
        return self._power

    async def _is_on(self, host: Host) -> bool | None:
        """As far as anybody can tell."""
        try:
            return await self._driver.is_on(host)
        except TashiError as error:
            self.log.debug("{error}", error=error.message)
            return None

    def _still(self, host_id: int, state: HostState) -> Host | None:
        host = self._cluster.hosts.get(host_id)
        return host if host is not None and host.state is state else None

    def _gone_off(self, host: Host) -> None:
        with self._cluster.transaction("host_powered_off") as tx:
            after = msgspec.structs.replace(host, state=HostState.PoweredOff, up=False, decayed=True)
            tx.put_host(after)
            tx.tell(host_action("poweredOff", after, host.notes))
        self._let_go(host.id)
        self._kick()

    def _failed_off(self, host: Host, why: str) -> None:
        if self._still(host.id, HostState.PoweringOff):
            self._leave_alone(host, f"not powered off: {why}")
            with self._cluster.transaction("host_stays_on") as tx:
                after = self._cluster.hosts[host.id]
                state, notes = after.state_when_on, f"not powered off: {why}"
                after = msgspec.structs.replace(after, state=state, state_when_on=HostState.Normal, notes=notes)
                tx.put_host(after)
                if not after.up:
                    tx.tell(host_action("decayed", after, notes))
            self._kick()

    def _failed_on(self, host: Host, why: str) -> None:
        if self._still(host.id, HostState.PoweringOn):
            self._leave_alone(host, f"not powered on: {why}")
            with self._cluster.transaction("host_did_not_wake") as tx:
                after = msgspec.structs.replace(self._cluster.hosts[host.id], state=HostState.WakeFailed, notes=why)
                tx.put_host(after)
                tx.tell(host_action("wakeFailed", after, why))
            self._kick()

    def _leave_alone(self, host: Host, why: str) -> None:
        self._left_alone[host.id] = self._cluster.clock.seconds() + self._settings.power_retry_delay
        self.log.warn("host {name} is {why}", name=host.name, why=why)
