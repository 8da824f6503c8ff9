"""A process that commits to a store until it is killed: ``python -m tests.integration.killed_store DIRECTORY``.

It prints the number of each commit when that is told, and makes checkpoints, seals and new blocks of numbers far more often than usual.
"""

from __future__ import annotations

import sys
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from tashi.interfaces import Change
from tashi.model.marks import BLOCKS, CELL
from tashi.store import sqlite
from tests.builders import an_instance


async def commit_for_ever(directory: Path) -> None:
    """Load, then commit one instance after the other, numbered on from the last."""
    store = sqlite.SQLiteStore(reactor, str(directory / "tashi.sqlite"), directory / "tashi.mark")
    tables = await store.load()
    number = tables["counters"].get("instance", 0)
    await store.commit([Change("settings", CELL, "11111111-1111-4111-8111-111111111111")])
    while True:
        number += 1
        await store.commit(
            [Change("instances", number, an_instance(number)), Change("counters", "instance", number)]
        )
        print(number, flush=True)


def main() -> None:
    """Commit until somebody kills this process."""
    sqlite.CHECKPOINT_SECONDS = 0.01  # type: ignore[misc]
    BLOCKS["instance"] = 7
    loop: Deferred[None] = Deferred.fromCoroutine(commit_for_ever(Path(sys.argv[1])))
    loop.addErrback(lambda failure: (failure.printTraceback(), reactor.stop()))  # type: ignore[attr-defined]
    reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
