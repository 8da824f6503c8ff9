"""What the scheduler would do now, for those who ask before they let it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tashi.errors import BAD_ARGUMENT, YourMistake
from tashi.manager.arguments import Arguments
from tashi.manager.cluster import Cluster
from tashi.manager.convergence import Convergence
from tashi.manager.guarded import to_its_end
from tashi.manager.operations import require_admin
from tashi.manager.planner import Planner
from tashi.manager.rebalancing import moves_of
from tashi.model.events import audit_record
from tashi.model.names import shown
from tashi.model.user import Principal
from tashi.scheduling.plan import Migrate
from tashi.scheduling.text.words import plan_as_rows, plan_in_words


class Proposals:
    """A part of the table of verbs: `plan`."""

    def __init__(self, cluster: Cluster, convergence: Convergence, planner: Planner, kick: Callable[[], None]) -> None:
        self._cluster = cluster
        self._convergence = convergence
        self._planner = planner
        self._kick = kick
        self.verbs: dict[str, Callable[[Principal, Arguments], Any]] = {"plan": self._plan}

    def _plan(self, who: Principal, arguments: Arguments) -> Awaitable[dict[str, Any]]:
        """``lines`` for people and ``actions`` for programs, moves included whether they are ever made by themselves or not. With
        ``apply`` all of it is carried out, without a hold; the moves begin at once and go on as they fit."""
        apply = arguments.get("apply", False)
        if not isinstance(apply, bool):
            raise YourMistake(BAD_ARGUMENT, f"apply is {shown(apply)}; use true or false")
        if apply:
            require_admin(who, "plan --apply")
        return self._propose(who, apply)

    async def _propose(self, who: Principal, apply: bool) -> dict[str, Any]:
        snapshot, plan, version = await self._convergence.propose()
        if apply:
            self._begin(who, moves_of(plan))
            await to_its_end(self._convergence.carry_out(plan, version))
            self._kick()
            await self._cluster.journal.written()
        told: dict[str, Any] = await self._planner.apart(
            lambda: {"lines": plan_in_words(plan, snapshot), "actions": plan_as_rows(plan, snapshot)}
        )
        return told

    def _begin(self, who: Principal, moves: Sequence[Migrate]) -> None:
        """Begin the moves, before anything else is done: nothing is when those of an earlier plan are not at their end."""
        try:
            self._convergence.rebalancing.begin(moves)
        except YourMistake as mistake:
            self._note(who, moves, mistake.code)
            raise
        self._note(who, moves, "OK")

    def _note(self, who: Principal, moves: Sequence[Migrate], result: str) -> None:
        with self._cluster.transaction("apply_plan") as tx:
            tx.tell(audit_record(who.name, "plan", f"apply, {len(moves)} moves", result))
