"""``python -m bench.pictures``: draws what plans change, into docs/pictures: how full each host is, and how many serve, before and after.

The clusters are made from a seed, so the pictures change only when the plans do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import matplotlib
import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.clusters import cluster
from tashi.scheduling.check import check
from tashi.scheduling.fleet import Fleet
from tashi.scheduling.plan import Migrate, Place, Plan
from tashi.scheduling.policies import POLICIES
from tashi.scheduling.snapshot import Snapshot

matplotlib.use("Agg")
PICTURES: Final = Path(__file__).parents[1] / "docs" / "pictures"
MEMORY: Final = "#4878a8"
CORES: Final = "#d9822b"
ALL_AT_ONCE: Final = {"auto_migrations": True, "most_moves": 10**6, "most_moves_per_host": 10**6}
CLUSTERS: Final[dict[str, dict[str, Any]]] = {
    "Balanced": {"seed": 1, "hosts": 40, "instances": 400, "skew": 2.5, "load_expression": "memUsage + coresUsage * 2048"},
    "Consolidated": {"seed": 2, "hosts": 40, "instances": 250, "skew": 1.2},
}


def main() -> None:
    """Draw them all."""
    PICTURES.mkdir(exist_ok=True)
    for policy, how in CLUSTERS.items():
        snapshot = msgspec.structs.replace(cluster(**how, policy=policy, **ALL_AT_ONCE), rebalance=True)
        plan = POLICIES[policy](snapshot)
        problems = check(plan, snapshot)
        assert problems == (), problems[:3]
        path = PICTURES / f"{policy.lower()}.png"
        draw(policy, snapshot, plan, path)
        print(f"{path.relative_to(PICTURES.parents[1])}: {path.stat().st_size / 1024:.0f} KiB")


def draw(policy: str, snapshot: Snapshot, plan: Plan, path: Path) -> None:
    """One picture: on the left the hosts before the plan, on the right after it, each side sorted by how full its memory is."""
    from matplotlib import pyplot

    before, after = Fleet(snapshot), _after(snapshot, plan)
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout="constrained")
    moves = sum(isinstance(action, Migrate) for action in plan.actions)
    for panel, fleet, when in zip(panels, (before, after), ("before", f"after {moves} moves"), strict=True):
        memory, cores = fleet.used_memory / fleet.memory, fleet.used_cores / fleet.cores
        order = np.lexsort((np.arange(len(memory)), -cores, -memory))
        places = np.arange(len(order))
        panel.bar(places, 100 * memory[order], width=0.8, color=MEMORY, label="memory")
        panel.plot(places, np.where(fleet.count > 0, 100 * cores, np.nan)[order], "o", markersize=3.2, color=CORES, label="cores")
        panel.set_title(f"{when}: {_summary(memory, cores, fleet.count > 0)}", fontsize=9)
        panel.set_xlabel(f"{len(order)} hosts, the fullest first", fontsize=8)
        panel.set_xticks([])
        panel.set_ylim(0, 103)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("% taken", fontsize=8)
    bound = "" if plan.bound is None else f", {plan.bound} hosts at least"
    figure.suptitle(f"{policy}: {sum(map(len, snapshot.placed.values()))} instances{bound}", fontsize=10)
    panels[1].legend(*panels[0].get_legend_handles_labels(), fontsize=8, frameon=False, loc="upper right", ncols=2)
    figure.savefig(path, dpi=80, metadata={"Software": None})
    pyplot.close(figure)


def _summary(memory: NDArray[Any], cores: NDArray[Any], used: NDArray[Any]) -> str:
    """Numbers to go with the bars, of the hosts in use."""
    return f"{int(used.sum())} hosts in use, memory {_range(memory[used])}, cores {_range(cores[used])}"


def _range(shares: NDArray[Any]) -> str:
    return f"{100 * shares.min():.0f}-{100 * shares.max():.0f} %"


def _after(snapshot: Snapshot, plan: Plan) -> Fleet:
    """The fleet when the plan has been carried out."""
    fleet = Fleet(snapshot)
    instances = {one.id: one for group in (*snapshot.placed.values(), snapshot.pending) for one in group}
    where = {one.id: one.host_id for one in instances.values()}
    for action in plan.actions:
        if isinstance(action, Place):
            fleet.add(instances[action.instance_id], fleet.place_of[action.host_id])
        elif isinstance(action, Migrate):
            source = where[action.instance_id]
            assert source is not None
            fleet.move(instances[action.instance_id], fleet.place_of[source], fleet.place_of[action.host_id])
            where[action.instance_id] = action.host_id
    return fleet


if __name__ == "__main__":
    main()
