"""The Primitive policy: the host with the fewest instances first, or with the most when packing densely.

The hosts are walked in a cycle from the one after the last used, so that equals take turns. A target host that can take the
instance takes it; with allowElsewhere any other does when it cannot.
"""

from __future__ import annotations

from typing import Any

from tashi.model.instance import Instance
from tashi.scheduling.fleet import EVERYWHERE, Column, Fleet
from tashi.scheduling.placing.choosing import Rule, place
from tashi.scheduling.plan import Plan
from tashi.scheduling.snapshot import SchedulingSettings, Snapshot
from tashi.scheduling.terms import is_true


class Primitive(Rule):
    """The number of instances there; counted the other way round for dense packing, which an instance may ask for or refuse itself."""

    name = "Primitive"
    in_turn = True

    def __init__(self, settings: SchedulingSettings) -> None:
        self._dense = settings.dense_pack

    def score(self, fleet: Fleet, instance: Instance, places: Any = EVERYWHERE) -> Column:
        """How many are there already."""
        count: Column = fleet.count[places].astype(float)
        return -count if self._is_dense(instance) else count

    def number(self, score: float) -> str:
        """``3``."""
        return f"{abs(score):.0f}"

    def figure(self, score: float) -> str:
        """``3 instances``."""
        return f"{abs(score):.0f} instances"

    def because(self, instance: Instance, score: float) -> str:
        """The policy and how many were there before."""
        return f"Primitive{' densePack' if self._is_dense(instance) else ''}: {self.figure(score)} there before"

    def _is_dense(self, instance: Instance) -> bool:
        hint = instance.hints.get("densePack")
        return is_true(hint) if hint is not None else self._dense


def plan(snapshot: Snapshot) -> Plan:
    """Place what fits, in the order of the queue; postpone the rest with a reason per host."""
    return Plan(actions=tuple(place(Fleet(snapshot), Primitive(snapshot.settings))))
