"""A store that forgets when the process ends: for trials, and for tests that look at the cluster manager alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tashi.interfaces import Change
from tashi.model.instance import Instance
from tashi.store.tables import HISTORY, RECORDS, from_text, to_text


class MemoryStore:
    """Rows as the text a database would hold, so that what does not survive the trip shows here too."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[int | str, str]] = {table: {} for table in (*RECORDS, HISTORY)}

    async def load(self) -> Mapping[str, Mapping[int | str, Any]]:
        """See IStore."""
        return {table: {key: from_text(table, text) for key, text in sorted(self.rows[table].items())} for table in RECORDS}

    async def commit(self, changes: Sequence[Change]) -> None:
        """See IStore."""
        for change in changes:
            if change.record is None:
                self.rows[change.table].pop(change.key, None)
            else:
                self.rows[change.table][change.key] = to_text(change.record)

    async def find_gone(
        self, *, instance_id: int | None = None, resource_id: str | None = None, name: str | None = None
    ) -> Instance | None:
        """See IStore."""
        for key in sorted(self.rows[HISTORY], reverse=True):
            gone: Instance = from_text(HISTORY, self.rows[HISTORY][key])
            if instance_id == gone.id or (resource_id is not None and resource_id == gone.resource_id) or name == gone.name:
                return gone
        return None

    async def close(self) -> None:
        """See IStore."""
