"""Consolidating: few hosts serve, whole hosts are emptied, and every step fits when it is taken."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tashi.model.states import HostState, InstanceState
from tashi.scheduling.check import check
from tashi.scheduling.consolidating.emptying import rebalance
from tashi.scheduling.fleet import Fleet
from tashi.scheduling.moving.moves import Moves
from tashi.scheduling.plan import Plan
from tashi.scheduling.snapshot import Snapshot
from tests.builders import a_snapshot
from tests.strategies import snapshots

FLAVOURS = ("1c 1G", "1c 2G", "2c 3G", "2c 4G", "4c 6G", "3c 1G")


@st.composite
def clusters(draw: st.DrawFn) -> Snapshot:
    """A few hosts of three sizes, each with as much of what is drawn for it as fits."""
    hosts = []
    for number in range(1, draw(st.integers(1, 6)) + 1):
        cores, memory = size = draw(st.sampled_from([(8, 16), (8, 16), (6, 8), (16, 12)]))
        guests = []
        for flavour in draw(st.lists(st.sampled_from(FLAVOURS), max_size=6)):
            if int(flavour[0]) <= cores and int(flavour[3]) <= memory:
                cores, memory = cores - int(flavour[0]), memory - int(flavour[3])
                guests.append(f"vm {flavour}")
        hosts.append(f"h{number} {size[0]}c {size[1]}G | {', '.join(guests)}")
    return a_snapshot(*hosts)


def moved(snapshot: Snapshot) -> Moves:
    """The moves, once they have passed the check."""
    moves = rebalance(Fleet(snapshot))
    assert check(Plan(actions=moves.moves), snapshot) == ()
    return moves


def layout_after(snapshot: Snapshot, moves: Moves) -> dict[int, set[int]]:
    """Which instances each host has when the moves have been made."""
    held = {host: {one.id for one in group} for host, group in snapshot.placed.items()}
    for move in moves.moves:
        for group in held.values():
            group.discard(move.instance_id)
        held[move.host_id].add(move.instance_id)
    return held


def changed(snapshot: Snapshot, instance_id: int, **fields: object) -> Snapshot:
    """The same with one instance that is otherwise."""
    placed = {
        host: tuple(msgspec.structs.replace(one, **fields) if one.id == instance_id else one for one in group)
        for host, group in snapshot.placed.items()
    }
    return msgspec.structs.replace(snapshot, placed=placed)


@given(st.one_of(clusters(), snapshots(6, 14)))
@settings(max_examples=60, deadline=None)
def test_fewer_hosts_or_the_same(snapshot: Snapshot) -> None:
    """Whatever the cluster: the plan is sound, the same each time, never uses more hosts or an empty one, nor fewer than the bound."""
    moves = moved(snapshot)
    assert rebalance(Fleet(snapshot)) == moves
    assert moves.bound is not None
    assert moves.bound <= moves.after.hosts_in_use <= moves.before.hosts_in_use
    assert moves.after.hosts_in_use < moves.before.hosts_in_use or not moves.moves
    assert all(snapshot.placed[move.host_id] for move in moves.moves)


@given(clusters())
@settings(max_examples=40, deadline=None)
def test_the_figures_tell_the_truth(snapshot: Snapshot) -> None:
    """The hosts in use after the moves are those that hold anything then."""
    moves = moved(snapshot)
    assert moves.after.hosts_in_use == sum(bool(group) for group in layout_after(snapshot, moves).values())
    assert moves.remarks[-1].startswith(f"{moves.after.hosts_in_use} host")
    assert moves.remarks[-1].endswith(f", lower bound {moves.bound}")


def test_the_least_loaded_is_emptied_into_the_fullest() -> None:
    """Three hosts with little on one of them become two, and what moves goes where least is left."""
    snapshot = a_snapshot("h1 8c 16G | a 4c 8G, b 2c 4G", "h2 8c 16G | c 1c 2G", "h3 8c 16G | d 4c 8G")
    (move,) = moved(snapshot).moves
    assert (move.instance_id, move.host_id) == (3, 1)
    assert move.why == "Consolidated: its 2048 MB and 1 cores leave h2; h1 then has 14336 of 16384 MB and 7 of 8 cores in use"


def test_a_host_that_cannot_be_emptied_wholly_is_not_begun() -> None:
    """What is left on the other host takes the small one, but not the big one beside it: both stay."""
    snapshot = a_snapshot("h1 8c 16G | a 4c 12G", "h2 8c 16G | b 1c 6G, c 1c 1G")
    assert moved(snapshot).moves == ()


def test_a_host_that_failed_to_start_it_does_not_get_it() -> None:
    """Nor when hosts are emptied together, nor one by one: it goes to another, or stays."""
    snapshot = changed(a_snapshot("h1 8c 16G | a 4c 8G", "h2 8c 16G | b 1c 2G"), 2, refused_by=(1,))
    assert [(move.instance_id, move.host_id) for move in moved(snapshot).moves] == [(1, 2)]
    both = changed(snapshot, 1, refused_by=(2,))
    assert moved(both).moves == ()
    alone = changed(both, 2, hints={"isolation": "True"})  # not packed, but looked at by itself
    assert moved(alone).moves == ()


def test_big_ones_are_placed_first() -> None:
    """The small one does not take the only place that the big one has."""
    snapshot = a_snapshot("h1 8c 16G | a 1c 12G", "h2 8c 16G | b 1c 14G", "h3 8c 16G | c 1c 1G, d 1c 4G")
    assert {move.instance_id: move.host_id for move in moved(snapshot).moves} == {3: 2, 4: 1}


def test_packing_anew_wins_what_emptying_cannot() -> None:
    """No host can be emptied into what the others leave, yet two hosts are enough for the three."""
    snapshot = a_snapshot("h1 8c 10G | a 1c 6G", "h2 8c 10G | b 1c 4G, c 1c 3G", "h3 8c 10G | d 1c 7G")
    moves = moved(snapshot)
    assert moves.after.hosts_in_use == moves.bound == 2


@pytest.mark.parametrize(
    "fields",
    [{"state": InstanceState.Paused}, {"moved_at": 1.0}, {"hints": {"location": "ie"}}],
    ids=["it does not run", "it has moved lately", "no other host may have it"],
)
def test_what_cannot_move_keeps_its_host(fields: dict[str, object]) -> None:
    """A host with one that cannot leave is not emptied of the others either, and takes what others hold."""
    snapshot = changed(a_snapshot("h1 8c 16G | a 1c 1G, b 1c 1G", "h2 8c 16G | c 2c 4G"), 1, **fields)
    assert {move.instance_id: move.host_id for move in moved(snapshot).moves} == {3: 1}


def test_isolated_ones_are_emptied_by_themselves() -> None:
    """One that asked for isolation goes to another host of its own user, and not to a stranger's."""
    snapshot = a_snapshot("h1 8c 16G | a 1c 1G", "h2 8c 16G | b 4c 8G", "h3 8c 16G | c 6c 10G")
    snapshot = changed(changed(snapshot, 1, hints={"isolation": "True"}), 3, user_id=1001)
    assert {move.instance_id: move.host_id for move in moved(snapshot).moves} == {1: 2}


def test_only_hosts_in_service_take_part() -> None:
    """A host that is drained is neither filled nor emptied here, and another hypervisor's takes nothing."""
    snapshot = a_snapshot("h1 8c 16G | a 1c 1G", "h2 8c 16G | b 1c 2G", "h3 8c 16G | c 1c 4G")
    hosts = dict(snapshot.hosts)
    hosts[2] = msgspec.structs.replace(hosts[2], state=HostState.Drained, draining=True)
    facts = hosts[3].facts
    assert facts is not None
    hosts[3] = msgspec.structs.replace(hosts[3], facts=msgspec.structs.replace(facts, hypervisor="xen"))
    moves = moved(msgspec.structs.replace(snapshot, hosts=hosts))
    assert (moves.moves, moves.bound) == ((), 3)


@pytest.mark.parametrize("hints", [{"apart": "vm"}, {"with": "vm"}, {"group": "web"}], ids=["apart", "with", "group"])
def test_those_who_asked_for_neighbours_keep_them(hints: dict[str, str]) -> None:
    """One that is to be apart from the other, beside its neighbour, or spread within a group does not break that to free a host."""
    snapshot = a_snapshot("h1 8c 16G | a 1c 1G", "h2 8c 16G | vm 4c 8G, b 1c 1G")
    if "with" in hints:
        snapshot = a_snapshot("h1 8c 16G | a 1c 1G, vm 1c 12G", "h2 8c 16G | c 4c 8G")
    if "group" in hints:
        snapshot = changed(snapshot, 2, hints=hints)
    assert moved(changed(snapshot, 1, hints=hints)).moves == ()


def test_what_was_placed_meanwhile_stays() -> None:
    """An instance that this plan places has its place: its host is not emptied, and its room is taken."""
    snapshot = a_snapshot("h1 8c 16G | a 4c 10G", "h2 8c 16G | b 4c 8G", waiting="c 1c 4G")
    fleet = Fleet(snapshot)
    fleet.add(snapshot.pending[0], 1)
    assert rebalance(fleet).moves == ()
