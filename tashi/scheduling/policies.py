"""The policies by the names they have in `[Scheduler] scheduler =`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from tashi.errors import INTERNAL, OurFault, TashiError
from tashi.model.host import Host
from tashi.model.instance import Instance
from tashi.scheduling.check import check
from tashi.scheduling.consolidating import emptying as consolidating
from tashi.scheduling.filters import EVER, objection
from tashi.scheduling.moving import balancing
from tashi.scheduling.placing.choosing import Rule
from tashi.scheduling.placing.primitive import Primitive
from tashi.scheduling.placing.rules import Balanced, Consolidated
from tashi.scheduling.plan import Plan, Refusal
from tashi.scheduling.planning import Betterment, planned
from tashi.scheduling.room import Room
from tashi.scheduling.snapshot import SchedulingSettings, Snapshot

Policy = Callable[[Snapshot], Plan]

RULES: Final[Mapping[str, Callable[[SchedulingSettings], Rule]]] = {
    "Primitive": Primitive,
    "Balanced": Balanced,
    "Consolidated": lambda settings: Consolidated(),
}
"""How those that are built in choose a host for an instance."""


BETTERMENTS: Final[Mapping[str, Betterment]] = {"Balanced": balancing.rebalance, "Consolidated": consolidating.rebalance}
"""How they find moves that better things; Primitive moves nothing."""


def _policy(name: str) -> Policy:
    return lambda snapshot: planned(snapshot, RULES[name](snapshot.settings), BETTERMENTS.get(name))


POLICIES: Final[Mapping[str, Policy]] = {name: _policy(name) for name in RULES}


def ask(policy: Policy, name: str, snapshot: Snapshot) -> tuple[Plan, Sequence[str]]:
    """The plan of the policy of this name, and in words each rule that it breaks. OurFault when the policy fails."""
    try:
        plan = policy(snapshot)
        if not isinstance(plan, Plan):
            raise TypeError(f"it made a {type(plan).__name__} instead of a plan")
        return plan, check(plan, snapshot)
    except TashiError as error:
        raise OurFault(INTERNAL, f"the policy {name} failed: {error.message}") from error
    except Exception as error:  # a policy may be anybody's
        raise OurFault(INTERNAL, f"the policy {name} failed: {type(error).__name__}: {error}") from error


def never_fits(instance: Instance, hosts: Mapping[int, Host], settings: SchedulingSettings) -> tuple[Refusal, ...]:
    """One refusal per host when no host could hold the instance even if it were empty; nothing when one could, or none has joined."""
    refusals: list[Refusal] = []
    for host in hosts.values():
        if host.facts is None:
            return ()
        reason = objection(instance, Room(host, settings), EVER)
        if reason is None:
            return ()
        refusals.append(Refusal(host=host.name, reason=reason))
    return tuple(refusals)
