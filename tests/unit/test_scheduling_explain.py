"""Why an instance could go elsewhere or could not, host by host."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings

from tashi.model.instance import Disk
from tashi.scheduling.check import check
from tashi.scheduling.explain import explain
from tashi.scheduling.plan import Place, Plan
from tashi.scheduling.policies import RULES
from tashi.scheduling.snapshot import SchedulingSettings, Snapshot
from tests.builders import a_snapshot
from tests.strategies import snapshots

RULE = {name: rule(SchedulingSettings(load_expression="memUsage")) for name, rule in RULES.items()}


@pytest.mark.parametrize(
    ("policy", "there"),
    [
        ("Balanced", "load 0.38 there, 0.25 here"),
        ("Consolidated", "44 % full there, 31 % here"),
        ("Primitive", "1 instances there, 0 here"),
    ],
)
def test_one_that_has_a_place_is_compared(policy: str, there: str) -> None:
    """Another host's figure stands beside its own host's, as if the instance were to be placed now."""
    snapshot = a_snapshot("h1 8c 16G | vm1 3c 4G", "h2 8c 16G | vm2 1c 2G", "h3 2c 16G")
    (instance,) = snapshot.placed[1]
    assert explain(snapshot, instance, RULE[policy]) == [f"h2: would take it: {there}", "h3: has 2 cores, and the instance asks for 3"]


def test_one_that_waits_is_told_the_figure() -> None:
    """What has no host yet has nothing to compare with."""
    snapshot = a_snapshot("h1 8c 16G | vm1 4c 8G", "h2 8c 2G", waiting="vm2 1c 4G")
    assert explain(snapshot, snapshot.pending[0], RULE["Balanced"]) == [
        "h1: would take it: load 0.75",
        "h2: 2048 MB short of memory",
    ]


def test_a_policy_without_a_rule_says_how_many_are_there() -> None:
    """What another package decides by is not known here."""
    snapshot = a_snapshot("h1 8c 16G | vm1", waiting="vm2")
    assert explain(snapshot, snapshot.pending[0]) == ["h1: would take it, beside 1 instances"]


def test_a_disk_in_use_is_in_the_way_everywhere() -> None:
    """A persistent disk that another has is the reason on every host; its own is none."""
    mine = (Disk(uri="disk-1-a-0.img", persistent=True),)
    snapshot = a_snapshot("h1 8c 16G | vm1", "h2 8c 16G", waiting="vm2")
    first, second = (msgspec.structs.replace(one, disks=mine) for one in (*snapshot.placed[1], *snapshot.pending))
    snapshot = msgspec.structs.replace(snapshot, placed={1: (first,), 2: ()}, pending=(second,))
    assert explain(snapshot, second) == [
        f"{host}: the persistent disk disk-1-a-0.img is in use by another instance" for host in ("h1", "h2")
    ]
    assert explain(snapshot, first) == ["h2: would take it, beside 0 instances"]


@settings(max_examples=60)
@given(snapshots())
def test_what_is_explained_is_what_would_be(snapshot: Snapshot) -> None:
    """A host that would take one that waits is one on which a plan may put it, and no other; there is a line for each."""
    for instance in snapshot.pending:
        for rule in (*RULE.values(), None):
            lines = explain(snapshot, instance, rule)
            assert len(lines) == len(snapshot.hosts)
            for host_id, line in zip(sorted(snapshot.hosts), lines, strict=True):
                forced = Plan(actions=(Place(instance_id=instance.id, host_id=host_id),))
                assert (": would take it" in line) == (check(forced, snapshot) == ())
    for group in snapshot.placed.values():
        for instance in group:
            assert len(explain(snapshot, instance, RULE["Balanced"])) == len(snapshot.hosts) - 1


def test_a_load_next_to_nothing_is_a_number_all_the_same() -> None:
    """On hosts that are hardly used two loads can be told apart."""
    rule = RULE["Balanced"]
    assert [rule.number(score) for score in (0.62, 0.6, 0.0, 0.000488, 0.00147)] == ["0.62", "0.60", "0.00", "0.00049", "0.0015"]
