"""A thousand instances find their places on 5,000 hosts that hold 30,000: placements a second, and how long a pass takes.

A pass is all that the control plane computes: the hosts are laid out as columns, the places are found, and the plan is checked. Every pass
has a cluster of its own, made from a seed. As in the control plane, what was there before is kept out of Python's garbage collection.
Beside it stand what Kubernetes holds its own scheduler to, and Ganeti's hail, which is asked for one place on the same smaller cluster.
"""

from __future__ import annotations

import gc
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from bench.clusters import cluster, instance
from bench.figures import Figure, share
from tashi.scheduling.check import check
from tashi.scheduling.fleet import Fleet
from tashi.scheduling.placing.choosing import place
from tashi.scheduling.plan import Place, Plan
from tashi.scheduling.policies import POLICIES, RULES
from tashi.scheduling.snapshot import Snapshot
from tashi.scheduling.text import ganeti

HOSTS: Final = 5_000
INSTANCES: Final = 30_000
PENDING: Final = 1_000
PASSES: Final = 30
PLACEMENTS: Final = 10_000.0
LONGEST: Final = 150.0
KUBERNETES: Final = (680.0, 810.0)
"""Placements a second that kube-scheduler's own performance tests demand at 5,000 nodes: the thresholds of their basic scheduling
workloads (kubernetes/kubernetes, test/integration/scheduler_perf)."""
PUBLISHED: Final = "kube-scheduler, as published"

HAIL: Final = Path("/usr/lib/ganeti/iallocators/hail")
CAP: Final = 60
SMALL: Final = (100, 600)
"""Hosts and instances of the cluster that hail is asked about."""
_GROUP: Final = "00000000-0000-0000-0000-000000000001"


class Pass(NamedTuple):
    """What one took, in seconds by the clock and of the processor."""

    seconds: float
    busy: float


def run() -> list[Figure]:
    """Each policy in turn; then what is known already, what cannot be placed, and hail."""
    figures: list[Figure] = []
    for policy in RULES:
        figures += _goal(policy, [_pass(policy, cluster(seed, HOSTS, INSTANCES, pending=PENDING)) for seed in range(PASSES)])
    return [*figures, *(_whole(policy) for policy in RULES), _again(), _refused(), *_beside_hail()]


def _goal(policy: str, passes: Sequence[Pass]) -> list[Figure]:
    what, times = f"{PENDING:,} placements, {policy}", [1e3 * one.seconds for one in passes]
    rates = [PENDING / one.seconds for one in passes]
    return [
        Figure(
            name=what, unit="/s", runs=rates, goal=PLACEMENTS, more_is_better=True, floor=PUBLISHED, floor_runs=[max(KUBERNETES)]
        ),
        Figure(name=f"{what}: pass", unit="ms", runs=times),
        Figure(name=f"{what}: pass, of the processor", unit="ms", runs=[1e3 * one.busy for one in passes]),
        Figure(name=f"{what}: pass, p99", unit="ms", runs=[share(times, 0.99)], goal=LONGEST),
    ]  # fmt: skip


def _pass(policy: str, snapshot: Snapshot, earlier: Fleet | None = None, placed: int | None = None) -> Pass:
    with _frozen():
        begun, busy = time.perf_counter(), time.process_time()
        fleet = Fleet(snapshot, earlier)
        plan = Plan(actions=tuple(place(fleet, RULES[policy](snapshot.settings))))
        problems = check(plan, snapshot)
        taken = Pass(time.perf_counter() - begun, time.process_time() - busy)
    assert not problems, problems[:3]
    expected = len(snapshot.pending) if placed is None else placed
    assert sum(isinstance(action, Place) for action in plan.actions) == expected
    return taken


def _whole(policy: str) -> Figure:
    """The same with all else that a policy looks for in a round: contradictions, room to be made or given back, hosts to be switched."""
    times = []
    for seed in range(5):
        snapshot = cluster(seed, HOSTS, INSTANCES, pending=PENDING)
        with _frozen():
            begun = time.perf_counter()
            problems = check(POLICIES[policy](snapshot), snapshot)
            times.append(1e3 * (time.perf_counter() - begun))
        assert not problems, problems[:3]
    return Figure(name=f"{PENDING:,} placements, {policy}: all of a round", unit="ms", runs=times)


def _again() -> Figure:
    """The next passes on hosts that are as they were: one instance each, beginning with the columns of the pass before."""
    snapshot = cluster(1, HOSTS, INSTANCES, pending=1)
    earlier = Fleet(snapshot)
    times = [1e3 * _pass("Balanced", snapshot, earlier).seconds for _ in range(PASSES)]
    return Figure(name="one placement, on hosts known from the pass before", unit="ms", runs=times)


def _refused() -> Figure:
    """Ten thousand that no host has room for."""
    snapshot = cluster(1, HOSTS, INSTANCES)
    waiting = tuple(instance(INSTANCES + number, (65, 1024), None) for number in range(1, 10_001))
    snapshot = msgspec.structs.replace(snapshot, pending=waiting)
    return Figure(name="10,000 equal ones refused", unit="ms", runs=[1e3 * _pass("Balanced", snapshot, placed=0).seconds for _ in range(5)])


def _beside_hail() -> list[Figure]:
    """One placement on the same cluster, read from the same file; hail with and without its look at what could fail."""
    hosts, instances = SMALL
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        data, request = Path(directory) / "cluster", Path(directory) / "request"
        data.write_text(ganeti.write(cluster(1, hosts, instances)))
        request.write_text(json.dumps(_request()))
        ours = [1e3 * _from_file(data) for _ in range(PASSES)]
        name = f"one placement from a file, {hosts} hosts, {instances} instances"
        if not HAIL.exists():
            return [Figure(name=name, unit="ms", runs=ours)]
        return [
            Figure(name=name, unit="ms", runs=ours, floor=floor, floor_runs=[1e3 * _hail(data, request, *options) for _ in range(runs)])
            for floor, runs, options in (("hail", 1, ()), ("hail, no capacity checks", 5, ("--no-capacity-checks",)))
        ]


def _from_file(data: Path) -> float:
    begun = time.perf_counter()
    snapshot = msgspec.structs.replace(ganeti.read(data.read_text()), pending=(instance(SMALL[1] + 1, (1, 2048), None),))
    _pass("Balanced", snapshot)
    return time.perf_counter() - begun


def _hail(data: Path, request: Path, *options: str) -> float:
    """Seconds that it takes to say where; the cap when it has not said so by then."""
    begun = time.perf_counter()
    try:
        done = subprocess.run([HAIL, *options, "-t", data, request], capture_output=True, text=True, timeout=CAP, check=True)
    except subprocess.TimeoutExpired:
        return float(CAP)
    assert json.loads(done.stdout)["success"], done.stdout
    return time.perf_counter() - begun


def _request() -> dict[str, object]:
    """One instance of a core and 2 GiB, in hail's words; the cluster comes from the file."""
    sizes = ("memory-size", "cpu-count", "disk-size", "disk-count", "nic-count", "spindle-use")
    bounds = {"min": dict(zip(sizes, (1, 1, 0, 0, 0, 0), strict=True)), "max": dict.fromkeys(sizes, 1_048_576)}
    policy = {"std": dict.fromkeys(sizes, 1), "minmax": [bounds], "disk-templates": ["ext"], "vcpu-ratio": 1.0, "spindle-ratio": 1024.0}
    group = {"name": "default", "alloc_policy": "preferred", "networks": [], "tags": [], "ipolicy": policy}
    wish = {
        "type": "allocate", "name": "new", "memory": 2048, "vcpus": 1, "os": "any", "tags": [], "nics": [], "disk_space_total": 0,
        "disks": [{"size": 0, "mode": "w", "spindles": 0}], "disk_template": "ext", "hypervisor": "kvm", "required_nodes": 1,
        "spindle_use": 1,
    }  # fmt: skip
    return {
        "version": 2, "cluster_name": "bench", "cluster_tags": [], "enabled_hypervisors": ["kvm"], "ipolicy": {},
        "nodegroups": {_GROUP: group}, "nodes": {}, "instances": {}, "request": wish,
    }  # fmt: skip


@contextmanager
def _frozen() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
