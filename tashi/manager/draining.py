"""Hosts that are being emptied: each of their running instances moves to the host that the policy finds best of those that take it.

One that no host takes stays, and its reason says why; it is tried again when anything has changed. A target that failed it is left alone
for a while.
Where there are many hosts a thread finds the targets, and few instances are sent at a time: nobody waits long for the reactor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from tashi.errors import YourMistake
from tashi.manager.cluster import Cluster, Transaction
from tashi.manager.migrations import migrate
from tashi.manager.settings import ManagerSettings
from tashi.model.events import host_action
from tashi.model.host import Host
from tashi.model.instance import Instance
from tashi.model.states import WITHOUT_POWER, HostState, InstanceState
from tashi.scheduling.fleet import Fleet
from tashi.scheduling.moving.evacuating import evacuate
from tashi.scheduling.plan import Migrate
from tashi.scheduling.policies import RULES
from tashi.scheduling.snapshot import Snapshot
from tashi.scheduling.terms import can_leave

PAUSE: Final = 30.0
"""Seconds before a target is tried again that an instance was sent to in vain."""
AT_ONCE: Final = 200
"""Instances that are sent away in one turn of the reactor."""
LIGHT: Final = 2_000
"""Pairs of a host and an instance that may be looked at while the reactor waits."""
Found = tuple[list[Migrate], dict[int, str]]
InThread = Callable[[Callable[[], Any]], Awaitable[Any]]


def begin(tx: Transaction, host: Host) -> Host:
    """Let this host take nothing new, and have it emptied. One that is off holds nothing, and takes nothing when it is on again."""
    if host.state in WITHOUT_POWER:
        after = msgspec.structs.replace(host, state_when_on=HostState.Drained)
    else:
        after = msgspec.structs.replace(host, state=HostState.Drained, draining=True)
    tx.put_host(after)
    return after


class Draining:
    """Moves instances off the hosts that are being emptied. ``look`` makes a snapshot; ``in_thread`` calls a function in a thread, without
    it targets are found at once however many there are."""

    log = Logger()

    def __init__(
        self, cluster: Cluster, settings: ManagerSettings, look: Callable[[], Snapshot], in_thread: InThread | None = None
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._look = look
        self._in_thread = in_thread
        self._sent: dict[tuple[int, int], float] = {}  # instance and target, and when
        self._said: dict[int, str] = {}  # why instances stay
        self._moves: deque[Migrate] = deque()  # that have been found, and are still to be asked for
        self._looking = False
        self._news = True
        """Whether anything has changed since targets were looked for."""
        cluster.watchers.append(self._note)

    def run(self) -> None:
        """One pass: send away what can go, and say which hosts are empty."""
        now = self._cluster.clock.seconds()
        lately = {sent: then for sent, then in self._sent.items() if now - then < PAUSE}
        self._news |= len(lately) < len(self._sent)
        self._sent = lately
        there = [instance for host in list(self._cluster.hosts.values()) if host.draining for instance in self._left_on(host)]
        for number in self._said.keys() - {instance.id for instance in there}:
            self._unsay(number)
        if self._moves:
            self._send()
        elif self._news and not self._looking and any(can_leave(one) or one.state is InstanceState.Paused for one in there):
            self._find(len(there))

    def _left_on(self, host: Host) -> list[Instance]:
        """What the host still has; a host that has nothing is done."""
        numbers = sorted(self._cluster.on_host.get(host.id, ()))
        if not numbers:
            with self._cluster.transaction("end_draining") as tx:
                after = msgspec.structs.replace(host, draining=False)
                tx.put_host(after)
                tx.tell(host_action("drained", after))
        return [self._cluster.instances[number] for number in numbers]

    def _find(self, count: int) -> None:
        """Look for targets, in a thread when that may take its time."""
        snapshot, avoid, self._news = self._look(), frozenset(self._sent), False
        rule = RULES.get(snapshot.settings.policy)

        def found() -> Found:
            return evacuate(Fleet(snapshot), rule and rule(snapshot.settings), avoid)

        if self._in_thread is None or len(snapshot.hosts) * count <= LIGHT:
            self._take(*found())
        else:
            self._looking = True
            Deferred.fromCoroutine(self._find_in_thread(self._in_thread, found))

    async def _find_in_thread(self, in_thread: InThread, found: Callable[[], Found]) -> None:
        try:
            self._take(*await in_thread(found))
        except Exception:
            self._news = True
            self.log.failure("targets for what is on drained hosts were not found")
        finally:
            self._looking = False

    def _take(self, moves: list[Migrate], stay: Mapping[int, str]) -> None:
        for number, reason in stay.items():
            if self._is_leaving(number):
                self._say(self._cluster.instances[number], reason)
        self._moves.extend(moves)
        self._send()

    def _send(self) -> None:
        """Ask for some of the moves that were found, as far as they are still possible; the next pass looks after the others."""
        for _ in range(min(AT_ONCE, len(self._moves))):
            move = self._moves.popleft()
            target = self._cluster.hosts.get(move.host_id)
            if target is None or not self._is_leaving(move.instance_id):
                continue
            instance = self._cluster.instances[move.instance_id]
            host = self._cluster.host_name(instance.host_id)
            try:
                with self._cluster.transaction("drain_instance") as tx:
                    migrate(tx, instance, target, self._settings.scheduling, who=f"the draining of {host}", verb="drainhost")
            except YourMistake as mistake:
                self.log.debug("{words}", words=mistake)  # what has changed meanwhile; it is looked at again
            else:
                self._sent[instance.id, target.id] = self._cluster.clock.seconds()

    def _is_leaving(self, number: int) -> bool:
        """Whether there still is such an instance on a host that is being emptied, and not on its way."""
        instance = self._cluster.instances.get(number)
        if instance is None or instance.migration is not None:
            return False
        host = self._cluster.hosts.get(instance.host_id or 0)
        return host is not None and host.draining

    def _note(self, record: Instance | Host) -> None:
        self._news = True

    def _say(self, instance: Instance, reason: str) -> None:
        self._said[instance.id] = reason
        if reason != instance.reason:
            self._cluster.remark(instance.id, reason)
            for watcher in self._cluster.watchers:  # somebody may wait for it to leave
                watcher(self._cluster.instances[instance.id])

    def _unsay(self, number: int) -> None:
        said, instance = self._said.pop(number), self._cluster.instances.get(number)
        if instance is not None and instance.reason == said:
            self._cluster.remark(number, "")
