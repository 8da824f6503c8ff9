"""``python -m bench [NAME...]``: run the benchmarks (all of them by default), print a table, write bench/results/NAME.json."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

from bench.figures import table, write

BENCHMARKS: Final = (
    "idle", "flood", "thousands", "statistics", "agent_overhead", "adapt", "migrate",
    "placing", "balancing", "consolidating", "repairing", "scheduler_memory", "planning_holds",
)  # fmt: skip


def main(names: Sequence[str]) -> int:
    """Run these benchmarks; the exit code is 2 for a name that is none, else 0: figures are no verdict."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"there is no benchmark {unknown[0]}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    figures = []
    for name in names or BENCHMARKS:
        print(f"{name} ...", file=sys.stderr)
        measured = importlib.import_module(f"bench.{name}").run()
        write(name, measured)
        figures += measured
    print(table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
