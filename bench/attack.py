"""Attackers on both ports at full speed: what the control plane grows by, and whether it serves others meanwhile.

``python -m bench.attack [SECONDS]``: 60 s for each kind of attack by default.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.integration.attackers import NOBODY, Target, agent_login, attack, target_of, user_call
from tests.integration.cells import RunningCell, running_cell

ATTACKS = (
    ("lists", NOBODY, "127.0.0.2"), ("lists", 0, "127.0.0.1"), ("idle", NOBODY, "127.0.0.2"), ("idle", 0, "127.0.0.1"),
    ("slow", NOBODY, "127.0.0.2"), ("slow", 0, "127.0.0.1"), ("calls", NOBODY, "127.0.0.2"),
)  # fmt: skip
"""Each kind of `tests.integration.attackers`, by another user and address than the honest peers', and by the same. Calls at full speed
only by another user: those of root are not slowed down."""


def resident(cell: RunningCell) -> float:
    """MB that the control plane holds."""
    for line in Path(f"/proc/{cell.pid('manager')}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def measure(cell: RunningCell, target: Target, kind: str, seconds: float) -> str:
    """One attack: the growth, the slowest answers and logins, and the lines in the log."""
    log = cell.state_dir / "log" / "manager.log"
    before, size = resident(cell), log.stat().st_size
    most, answers, logins, missed = before, [], [], 0
    with attack((kind,), target):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.5)
            for call, times in ((user_call, answers), (agent_login, logins)):
                try:
                    times.append(call(target))
                except AssertionError:
                    missed += 1
            most = max(most, resident(cell))
    where = "same" if target.uid == 0 else "other"
    return (
        f"{kind:6} {where:5} RSS {before:6.1f} -> {most:6.1f} MB (+{most - before:.1f})  "
        f"getInstances n={len(answers)} median {sorted(answers)[len(answers) // 2]:.3f} max {max(answers):.3f} s  "
        f"agent login n={len(logins)} median {sorted(logins)[len(logins) // 2]:.3f} max {max(logins):.3f} s  "
        f"missed {missed}  log +{(log.stat().st_size - size) / 1024:.0f} KiB"
    )


def main(arguments: Sequence[str]) -> None:
    """Run each attack in a cell of its own."""
    seconds = float(arguments[0]) if arguments else 60.0
    for kind, uid, address in ATTACKS:
        with running_cell("--hypervisor", "test") as cell:
            cell.cli("createVm", "--name", "web", "--disks", "tashi", "--wait")
            target = target_of(cell.state_dir, uid=uid, address=address)
            user_call(target)
            agent_login(target)
            print(measure(cell, target, kind, seconds), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
