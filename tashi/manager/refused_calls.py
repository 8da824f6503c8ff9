"""Audit records of the calls that are refused: the first hundred of a user in a minute one by one, the rest by their number."""

from __future__ import annotations

from typing import Final

from tashi.manager.cluster import Cluster
from tashi.model.events import audit_record

ONE_BY_ONE: Final = 100
"""Refusals of one user that have a record each, between two calls of `RefusedCalls.tell`."""
MOST_KINDS: Final = 1000
"""Different refusals that are counted apart; any further ones are counted together."""
OTHERS: Final = "others"


class RefusedCalls:
    """Keeps a user who calls at full speed what is refused from filling the store, the outbox and the audit log."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._told: dict[str, int] = {}
        self._counted: dict[tuple[str, str, str], int] = {}

    def note(self, who: str, verb: str, target: str, code: str) -> None:
        """Record this refusal, or count it when the user had `ONE_BY_ONE` of them."""
        told = self._told.get(who, 0)
        if told < ONE_BY_ONE and (who in self._told or len(self._told) < MOST_KINDS):
            self._told[who] = told + 1
            with self._cluster.transaction("audit_refusal") as tx:
                tx.tell(audit_record(who, verb, target, code))
            return
        key = (who, verb, code)
        if key not in self._counted and len(self._counted) >= MOST_KINDS:
            key = (OTHERS, "", code)
        self._counted[key] = self._counted.get(key, 0) + 1

    def tell(self) -> None:
        """Record what was counted since the last call; call it once a minute."""
        counted, self._counted = self._counted, {}
        self._told = {}
        if counted:
            with self._cluster.transaction("audit_refusals") as tx:
                for (who, verb, code), count in counted.items():
                    tx.tell(audit_record(who, verb, "", code, count))
