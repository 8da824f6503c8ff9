"""A store that forgets when the process ends: for trials, and for tests that look at the cluster manager alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tashi.interfaces import Change
from tashi.model.instance import Instance
from tashi.model.marks import CELL, Mark, reserved
from tashi.model.store_status import StoreStatus
from tashi.store.tables import HISTORY, RECORDS, from_text, to_text


class MemoryStore:
    """Rows as the text a database would hold, so that what does not survive the trip shows here too."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[int | str, str]] = {table: {} for table in (*RECORDS, HISTORY)}
        self.runs: dict[str, int] = {}
        """The number of the last commit of each life."""

    async def load(self) -> Mapping[str, Mapping[int | str, Any]]:
        """See IStore."""
        self.runs[f"run-{len(self.runs)}"] = self._commits + 1
        return {table: {key: from_text(table, text, key) for key, text in sorted(self.rows[table].items())} for table in RECORDS}

    async def commit(self, changes: Sequence[Change]) -> None:
        """See IStore."""
        for change in changes:
            if change.record is None:
                self.rows[change.table].pop(change.key, None)
            else:
                self.rows[change.table][change.key] = to_text(change.record)
        if self.runs:
            self.runs[self._run] += 1

    async def find_gone(
        self,
        *,
        instance_id: int | None = None,
        key: tuple[str, str] | None = None,
        name: str | None = None,
        user_id: int | None = None,
    ) -> Instance | None:
        """See IStore."""
        for number in sorted(self.rows[HISTORY], reverse=True):
            gone: Instance = from_text(HISTORY, self.rows[HISTORY][number], number)
            named = name == gone.name and user_id in (None, gone.user_id)
            if instance_id == gone.id or key == (gone.owner_jid, gone.resource_id) or named:
                return gone
        return None

    @property
    def _run(self) -> str:
        return list(self.runs)[-1]

    @property
    def _commits(self) -> int:
        return max(self.runs.values(), default=0)

    def mark(self) -> Mark:
        """See IStore."""
        counters = {str(kind): from_text("counters", text, kind) for kind, text in self.rows["counters"].items()}
        cell = self.rows["settings"].get(CELL)
        return Mark(
            cell=from_text("settings", cell, CELL) if cell is not None else "",
            run=self._run,
            commits=self._commits,
            numbers={kind: reserved(kind, number) for kind, number in counters.items()},
        )

    def contains(self, mark: Mark) -> bool:
        """See IStore."""
        return mark.commits == 0 or self.runs.get(mark.run, 0) >= mark.commits

    def status(self) -> StoreStatus:
        """See IStore."""
        return StoreStatus(kind="memory", commits=self._commits)

    async def close(self) -> None:
        """See IStore."""
