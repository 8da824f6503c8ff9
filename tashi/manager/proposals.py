"""What the scheduler would do now, for those who ask before they let it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tashi.errors import BAD_ARGUMENT, YourMistake
from tashi.manager.arguments import Arguments
from tashi.manager.cluster import Cluster
from tashi.manager.convergence import Convergence
from tashi.manager.operations import require_admin
from tashi.manager.planner import Planner
from tashi.manager.rebalancing import moves_of
from tashi.model.events import audit_record
from tashi.model.names import shown
from tashi.model.user import Principal
from tashi.scheduling.words import plan_as_rows, plan_in_words


class Proposals:
    """A part of the table of verbs: `plan`."""

    def __init__(self, cluster: Cluster, convergence: Convergence, planner: Planner, kick: Callable[[], None]) -> None:
        self._cluster = cluster
        self._convergence = convergence
        self._planner = planner
        self._kick = kick
        self.verbs: dict[str, Callable[[Principal, Arguments], Any]] = {"plan": self._plan}

    async def _plan(self, who: Principal, arguments: Arguments) -> dict[str, Any]:
        """``lines`` for people and ``actions`` for programs, moves included whether they are ever made by themselves or not. With
        ``apply`` all of it is carried out, without a hold; the moves begin at once and go on as they fit."""
        apply = arguments.get("apply", False)
        if not isinstance(apply, bool):
            raise YourMistake(BAD_ARGUMENT, f"apply is {shown(apply)}; use true or false")
        if apply:
            self._require_admin(who)
        snapshot, plan, version = await self._convergence.propose()
        if apply:
            self._convergence.rebalancing.require_rest()
            moves = moves_of(plan)
            with self._cluster.transaction("apply_plan") as tx:
                tx.tell(audit_record(who.name, "plan", f"apply, {len(moves)} moves", "OK"))
            await self._convergence.carry_out(plan, version)
            self._convergence.rebalancing.begin(moves)
            self._kick()
            await self._cluster.journal.written()
        told: dict[str, Any] = await self._planner.apart(
            lambda: {"lines": plan_in_words(plan, snapshot), "actions": plan_as_rows(plan, snapshot)}
        )
        return told

    def _require_admin(self, who: Principal) -> None:
        try:
            require_admin(who, "plan --apply")
        except YourMistake as mistake:
            with self._cluster.transaction("audit_refusal") as tx:
                tx.tell(audit_record(who.name, "plan", "apply", mistake.code))
            raise
