"""Plans are made one at a time, and only sound ones get out: a policy that fails, or breaks a rule, costs words and nothing else.

A plan that takes longer than the reactor may be held is made in a thread, on a snapshot that nothing changes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from tashi.errors import INTERNAL, OurFault
from tashi.manager.guarded import to_its_end
from tashi.scheduling.plan import Plan
from tashi.scheduling.policies import POLICIES, Policy, ask
from tashi.scheduling.snapshot import Snapshot

InThread = Callable[[Callable[[], Any]], Awaitable[Any]]

LIGHT: Final = 2_000
"""Pairs of a host and an instance that may be looked at while the reactor waits."""
MOST_PROBLEMS: Final = 3


class Planner:
    """Asks the policy. ``in_thread`` calls a function in a thread; without it every plan is made at once, in the caller's turn."""

    log = Logger()

    def __init__(self, policy: Policy, name: str, in_thread: InThread | None = None) -> None:
        self._policy = policy
        self._name = name
        self.in_thread = in_thread
        self._turn = DeferredLock()
        self._complained = ""

    async def apart(self, work: Callable[[], Any]) -> Any:
        """What comes of work on what nothing changes, done in the thread where there is one."""
        return work() if self.in_thread is None else await self.in_thread(work)

    async def plan(self, make_snapshot: Callable[[], Snapshot]) -> tuple[Snapshot, Plan]:
        """A sound plan, and the snapshot it is made on, which is taken when no other plan is being made. OurFault with words for
        people when the policy gives none. Nobody else's turn comes before it is made, though who asked may be gone by then."""
        return await to_its_end(self._plan(make_snapshot))

    async def _plan(self, make_snapshot: Callable[[], Snapshot]) -> tuple[Snapshot, Plan]:
        await self._turn.acquire()
        try:
            snapshot = make_snapshot()
            plan = await self.apart(lambda: self._make(snapshot)) if self._is_heavy(snapshot) else self._make(snapshot)
        except OurFault as fault:
            if fault.message != self._complained:
                self._complained = fault.message
                self.log.error("{words}", words=fault.message)
            raise
        finally:
            self._turn.release()
        self._complained = ""
        return snapshot, plan

    def _make(self, snapshot: Snapshot) -> Plan:
        plan, problems = ask(self._policy, self._name, snapshot)
        if problems:
            words = "; ".join(problems[:MOST_PROBLEMS])
            more = f"; and {len(problems) - MOST_PROBLEMS} more" if len(problems) > MOST_PROBLEMS else ""
            raise OurFault(INTERNAL, f"the policy {self._name} made a plan that is not carried out: {words}{more}")
        return plan

    def _is_heavy(self, snapshot: Snapshot) -> bool:
        """Whether a plan for this may take too long for the reactor; how long another package's policy takes nobody knows."""
        instances = len(snapshot.pending)
        if snapshot.rebalance:
            instances += sum(map(len, snapshot.placed.values()))
            if snapshot.settings.optimal_consolidation:
                return True
        return len(snapshot.hosts) * (1 + instances) > LIGHT or self._policy not in POLICIES.values()
