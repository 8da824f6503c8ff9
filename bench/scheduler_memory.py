"""The memory that planning takes: the peak of a process of its own that holds 10,000 hosts with 100,000 instances and plans them whole.

The snapshot itself is in it, and the check of the plan. The floor is a process that has only loaded the same modules.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from typing import Final

from bench.figures import Figure

HOSTS: Final = 10_000
INSTANCES: Final = 100_000
PENDING: Final = 1_000
GOAL_MIB: Final = 1024.0


def run() -> list[Figure]:
    """MiB at the peak, for each policy."""
    from tashi.scheduling.policies import POLICIES

    floor = _peak("")
    return [
        Figure(
            name=f"{name}: {INSTANCES:,} instances on {HOSTS:,} hosts planned", unit="MiB", runs=[_peak(name)], goal=GOAL_MIB,
            floor="the modules alone", floor_runs=[floor],
        )
        for name in POLICIES
    ]  # fmt: skip


def _peak(policy: str) -> float:
    done = subprocess.run([sys.executable, "-m", "bench.scheduler_memory", policy], check=True, capture_output=True, text=True)
    return float(done.stdout)


def _plan(policy: str) -> None:
    import msgspec

    from bench.clusters import cluster
    from tashi.scheduling.check import check
    from tashi.scheduling.policies import POLICIES

    if not policy:
        return
    snapshot = cluster(1, HOSTS, INSTANCES, pending=PENDING, policy=policy, auto_migrations=True)
    snapshot = msgspec.structs.replace(snapshot, rebalance=True)
    problems = check(POLICIES[policy](snapshot), snapshot)
    assert problems == (), problems[:3]


if __name__ == "__main__":
    _plan(sys.argv[1])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
