"""Policies by name: Tashi's own, and those of other packages, which name theirs in the group `tashi.policies` of their entry points.

A package's policy is a function from `tashi.scheduling.snapshot.Snapshot` to `tashi.scheduling.plan.Plan`. What it plans is checked and
carried out like any other plan.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Final

from tashi.errors import BAD_ARGUMENT, YourMistake
from tashi.scheduling.policies import POLICIES, Policy

GROUP: Final = "tashi.policies"


def policy_named(name: str) -> Policy:
    """The policy of this name; YourMistake names those there are when there is none, or says why it cannot be used."""
    if name in POLICIES:
        return POLICIES[name]
    found = tuple(entry_points(group=GROUP, name=name))
    if not found:
        raise YourMistake(BAD_ARGUMENT, f"[Scheduler] scheduler = {name} is no policy; installed are {', '.join(installed())}")
    if len(found) > 1:
        packages = sorted(point.dist.name if point.dist else point.value for point in found)
        raise YourMistake(BAD_ARGUMENT, f"[Scheduler] scheduler = {name} is a policy of {' and of '.join(packages)}; uninstall all but one")
    try:
        policy = found[0].load()
    except Exception as error:  # whatever a stranger's module does when it is imported
        words = f"{type(error).__name__}: {error}"
        raise YourMistake(BAD_ARGUMENT, f"[Scheduler] scheduler = {name} cannot be loaded from {found[0].value}: {words}") from error
    if not callable(policy):
        raise YourMistake(BAD_ARGUMENT, f"[Scheduler] scheduler = {name} names {found[0].value}, which is no function")
    return policy  # type: ignore[no-any-return]


def installed() -> list[str]:
    """The names of all policies there are."""
    return sorted({*POLICIES, *(point.name for point in entry_points(group=GROUP))})
