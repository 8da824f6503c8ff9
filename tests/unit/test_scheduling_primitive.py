"""The Primitive policy, and what every plan must stand."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings

from tashi.model.instance import Disk
from tashi.scheduling.check import check
from tashi.scheduling.placing.primitive import plan
from tashi.scheduling.plan import Place, Plan, Postpone, Refusal, in_words
from tashi.scheduling.policies import POLICIES
from tashi.scheduling.snapshot import Snapshot
from tests.builders import a_snapshot, an_instance
from tests.strategies import snapshots


def _placed(snapshot: Snapshot) -> dict[str, str | None]:
    """Which instance goes to which host, by name."""
    names = {instance.id: instance.name for instance in snapshot.pending}
    return {
        names[action.instance_id]: snapshot.hosts[action.host_id].name if isinstance(action, Place) else None
        for action in plan(snapshot).actions
    }


def test_the_host_with_the_fewest_instances_is_first() -> None:
    """An instance goes where the fewest are, whatever their size."""
    assert _placed(a_snapshot("h1 8c 16G | vm1, vm2", "h2 8c 16G | vm3 6c 12G", waiting="vm4")) == {"vm4": "h2"}


def test_dense_packing_is_the_other_way_round() -> None:
    """With densePack it goes where the most are, as long as it fits."""
    snapshot = a_snapshot("h1 4c 16G | vm1, vm2", "h2 8c 16G | vm3", waiting="vm4 2c, vm5 2c", dense_pack=True)
    assert _placed(snapshot) == {"vm4": "h1", "vm5": "h2"}


def test_an_instance_may_ask_for_dense_packing_itself() -> None:
    """The hint densePack wins over the setting."""
    snapshot = a_snapshot("h1 8c 16G | vm1", "h2 8c 16G")
    dense = msgspec.structs.replace(snapshot, pending=(an_instance(9, "vm9", hints={"densePack": "True"}),))
    assert _placed(dense) == {"vm9": "h1"}


def test_equals_take_turns() -> None:
    """Hosts are walked in a cycle that goes on after the last one used."""
    snapshot = a_snapshot("h1 8c 16G", "h2 8c 16G", "h3 8c 16G", waiting="a, b, c, d")
    assert _placed(snapshot) == {"a": "h1", "b": "h2", "c": "h3", "d": "h1"}
    assert _placed(msgspec.structs.replace(snapshot, cursor=1))["a"] == "h2"
    assert _placed(msgspec.structs.replace(snapshot, cursor=3))["a"] == "h1"


def test_what_is_promised_counts() -> None:
    """Within one plan each instance finds less room than the one before."""
    assert _placed(a_snapshot("h1 4c 4G", waiting="a 2c, b 1c 3G, c 1c 1G, d 1c 128M")) == {"a": "h1", "b": "h1", "c": None, "d": "h1"}


def test_a_target_that_fits_is_taken() -> None:
    """A target host is taken though another is emptier."""
    snapshot = a_snapshot("h1 8c 16G", "h2 8c 16G | vm1, vm2")
    target = an_instance(9, "vm9", hints={"targetHost": "h2"})
    assert _placed(msgspec.structs.replace(snapshot, pending=(target,))) == {"vm9": "h2"}


@pytest.mark.parametrize(("elsewhere", "expected"), [("True", "h1"), ("False", None)])
def test_a_full_target_and_elsewhere(elsewhere: str, expected: str | None) -> None:
    """When the target is full, allowElsewhere decides."""
    snapshot = a_snapshot("h1 8c 16G", "h2 1c 16G | vm1")
    target = an_instance(9, "vm9", hints={"targetHost": "h2", "allowElsewhere": elsewhere})
    assert _placed(msgspec.structs.replace(snapshot, pending=(target,))) == {"vm9": expected}


def test_a_persistent_disk_has_one_user() -> None:
    """Two instances never share a persistent disk, neither with what runs nor within one plan."""
    mine = (Disk(uri="disk-1-a-0.img", persistent=True),)
    snapshot = a_snapshot("h1 8c 16G", "h2 8c 16G")
    both = msgspec.structs.replace(snapshot, pending=(an_instance(8, "a", disks=mine), an_instance(9, "b", disks=mine)))
    assert _placed(both) == {"a": "h1", "b": None}
    taken = msgspec.structs.replace(both, placed={2: (an_instance(1, host_id=2, disks=mine),)})
    assert _placed(taken) == {"a": None, "b": None}
    (_, postponed) = plan(taken).actions
    assert isinstance(postponed, Postpone)
    assert "persistent disk disk-1-a-0.img is in use" in in_words(postponed.refusals)


def test_a_postponed_instance_has_one_reason_a_host() -> None:
    """What fits nowhere is told why, host by host, in the order of their names."""
    (action,) = plan(a_snapshot("h2 8c 1G", "h1 1c 16G", waiting="vm1 2c 2G")).actions
    assert isinstance(action, Postpone)
    assert in_words(action.refusals) == "h1: has 1 cores, and the instance asks for 2; h2: 1024 MB short of memory"


def test_without_hosts_nothing_can_be_placed() -> None:
    """A cell without hosts says so."""
    (action,) = plan(a_snapshot(waiting="vm1")).actions
    assert action == Postpone(instance_id=1)
    assert in_words(()) == "no host has joined the cell yet"


def test_many_refusals_stay_short() -> None:
    """At most 20 hosts are named, and the rest is counted by reason, however many different numbers there are."""
    refusals = [Refusal(host=f"n{number:03}", reason=f"{number} MB short of memory") for number in range(500)]
    refusals += [Refusal(host=f"x{number}", reason="is down") for number in range(7)]
    words = in_words(tuple(refusals))
    assert words.startswith("n000: 0 MB short of memory; n001: 1 MB short of memory; ")
    assert words.endswith("n019: 19 MB short of memory; 480 more: ... MB short of memory; 7 more: is down")


@settings(max_examples=100)
@given(snapshots())
def test_any_plan_passes_the_check(snapshot: Snapshot) -> None:
    """Whatever the cluster looks like, the plan of every policy is sound, and speaks of each waiting instance once."""
    for policy in POLICIES.values():
        made = policy(snapshot)
        assert check(made, snapshot) == ()
        told = sorted(action.instance_id for action in made.actions if isinstance(action, Place | Postpone))
        assert told == sorted(instance.id for instance in snapshot.pending)


@settings(max_examples=40)
@given(snapshots())
def test_the_same_snapshot_gives_the_same_plan(snapshot: Snapshot) -> None:
    """A plan depends on the snapshot alone, also after the snapshot was written down and read again; planning does not change it."""
    text = msgspec.json.encode(snapshot)
    for policy in POLICIES.values():
        made = policy(snapshot)
        assert policy(snapshot) == made
        assert policy(msgspec.json.decode(text, type=Snapshot)) == made
    assert msgspec.json.encode(snapshot) == text


@settings(max_examples=50)
@given(snapshots())
def test_what_is_postponed_fits_nowhere(snapshot: Snapshot) -> None:
    """An instance waits only when, after all that was placed before it, the check would refuse it everywhere."""
    made = plan(snapshot)
    for place, action in enumerate(made.actions):
        if isinstance(action, Postpone):
            before = made.actions[:place]
            for host_id in snapshot.hosts:
                forced = Plan(actions=(*before, Place(instance_id=action.instance_id, host_id=host_id)))
                assert check(forced, snapshot)


@pytest.mark.parametrize(
    ("actions", "problem"),
    [
        ((Place(instance_id=3, host_id=1),), "instance 3 is sent to h1, which 2048 MB short of memory"),
        ((Place(instance_id=2, host_id=9),), "instance 2 is sent to host 9, which there is not"),
        ((Place(instance_id=7, host_id=1),), "instance 7 does not wait for a place, or is named twice"),
        ((Place(instance_id=2, host_id=1), Place(instance_id=2, host_id=1)), "instance 2 does not wait for a place, or is named twice"),
        ((Place(instance_id=1, host_id=1),), "instance 1 does not wait for a place, or is named twice"),
    ],
)
def test_the_check_finds_what_is_wrong(actions: tuple[Place, ...], problem: str) -> None:
    """A bad plan is told step by step, whoever made it."""
    snapshot = a_snapshot("h1 8c 4G | vm1 1c 2G", waiting="vm2 1c 1G, vm3 1c 4G")
    assert check(Plan(actions=actions), snapshot) == (problem,)


def test_the_check_guards_persistent_disks() -> None:
    """No plan lets two instances share a persistent disk."""
    mine = (Disk(uri="disk-1-a-0.img", persistent=True),)
    snapshot = msgspec.structs.replace(
        a_snapshot("h1 8c 16G", "h2 8c 16G"), pending=(an_instance(8, disks=mine), an_instance(9, disks=mine))
    )
    both = Plan(actions=(Place(instance_id=8, host_id=1), Place(instance_id=9, host_id=2)))
    assert check(both, snapshot) == ("instance 9 would share the persistent disk disk-1-a-0.img with another",)
