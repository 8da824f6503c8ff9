"""Hosts that are to be emptied: where what runs there goes, and why it stays."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from hypothesis import given, settings

from tashi.model.instance import Instance, Migration, Residue, Task
from tashi.model.states import HostState, InstanceState
from tashi.scheduling.check import check
from tashi.scheduling.filters import FOR_A_MOVE
from tashi.scheduling.fleet import Column, Fleet
from tashi.scheduling.moving.evacuating import Pairs, evacuate
from tashi.scheduling.plan import Plan
from tashi.scheduling.snapshot import Snapshot
from tashi.scheduling.terms import can_leave
from tests.builders import a_snapshot
from tests.strategies import snapshots


class Last:
    """A rule that likes the last host best."""

    name = "Last"

    def score(self, fleet: Fleet, instance: Instance) -> Column:
        """The later the better."""
        return -np.arange(len(fleet.hosts), dtype=np.float64)

    def words(self, fleet: Fleet, instance: Instance, place: int) -> str:
        """Its name."""
        return f"{self.name}: {fleet.hosts[place].name}"


def drained(snapshot: Snapshot, *names: str, **changes: dict[str, Any]) -> Snapshot:
    """The snapshot with these hosts to be emptied, and some instances and hosts changed, by name."""
    for name in names:
        changes[name] = {"state": HostState.Drained, "draining": True, **changes.get(name, {})}

    def changed(one: Any) -> Any:
        return msgspec.structs.replace(one, **changes.get(one.name, {}))

    hosts = {number: changed(host) for number, host in snapshot.hosts.items()}
    placed = {number: tuple(map(changed, group)) for number, group in snapshot.placed.items()}
    return msgspec.structs.replace(snapshot, hosts=hosts, placed=placed)


def evacuated(snapshot: Snapshot, avoid: Pairs = frozenset(), rule: Last | None = None) -> tuple[list[str], dict[str, str]]:
    """The moves and the words by name; the plan has passed the check."""
    moves, words = evacuate(Fleet(snapshot), rule, avoid)
    assert check(Plan(actions=tuple(moves)), snapshot) == ()
    names = {one.id: one.name for group in snapshot.placed.values() for one in group}
    return (
        [f"{names[move.instance_id]} to {snapshot.hosts[move.host_id].name}" for move in moves],
        {names[number]: why for number, why in words.items()},
    )


def test_all_go_where_memory_is_used_least() -> None:
    """Big ones first, each to the host whose memory is used least by then; nobody to another host that is to be emptied."""
    snapshot = a_snapshot("h1 8c 16G | a 1c 1G, b 1c 4G, c 1c 2G", "h2 8c 16G | d 1c 1G", "h3 8c 16G | e 1c 4G", "h4 8c 16G")
    assert evacuated(drained(snapshot, "h1")) == (["b to h4", "c to h2", "a to h2"], {})
    assert evacuated(drained(snapshot, "h1", "h4")) == (["b to h2", "c to h3", "a to h2"], {})
    assert evacuated(snapshot) == ([], {})


def test_the_rule_chooses() -> None:
    """The policy's rule says which host is best, and its words are the reason."""
    snapshot = drained(a_snapshot("h1 8c 16G | a, b 8c", "h2 8c 16G", "h3 8c 16G"), "h1")
    assert evacuated(snapshot, rule=Last()) == (["b to h3", "a to h2"], {})
    moves, _ = evacuate(Fleet(snapshot), Last())
    assert [(move.evacuates, move.why) for move in moves] == [(True, "Last: h3"), (True, "Last: h2")]


def test_what_no_host_takes_says_why() -> None:
    """One reason a host that is not to be emptied itself; what does find a host goes all the same."""
    snapshot = drained(a_snapshot("h1 8c 16G | a 4c, b 1c", "h2 2c 16G", "h3 8c 64M", "h4 8c 16G"), "h1", "h4")
    assert evacuated(snapshot) == (
        ["b to h2"],
        {"a": "cannot leave h1: h2: has 2 cores, and the instance asks for 4; h3: 64 MB short of memory"},
    )
    alone = drained(a_snapshot("h1 8c 16G | a", "h2 8c 16G | b"), "h1", "h2")
    assert evacuated(alone) == ([], {"a": "cannot leave h1: there is no other host", "b": "cannot leave h2: there is no other host"})


def test_another_hypervisor() -> None:
    """What runs another hypervisor is no target, and says so."""
    snapshot = a_snapshot("h1 8c 16G | a", "h2 8c 16G")
    facts = msgspec.structs.replace(snapshot.hosts[2].facts, hypervisor="xen")  # type: ignore[type-var]
    words = "cannot leave h1: h2: runs xen, and its host an unknown one"
    assert evacuated(drained(snapshot, "h1", h2={"facts": facts})) == ([], {"a": words})


def test_what_does_not_run_stays() -> None:
    """One that is paused says so; one that is busy is waited for without a word, and so is one that is not here yet."""
    snapshot = drained(
        a_snapshot("h1 8c 16G | a, b, c, d, e, f", "h2 8c 16G | g", "h3 8c 16G"),
        "h1",
        a={"state": InstanceState.Paused},
        b={"tasks": (Task(),)},
        c={"state": InstanceState.Activating},
        d={"state": InstanceState.MigratePrep, "migration": Migration(target=2)},
        g={"state": InstanceState.MigratePrep, "migration": Migration(target=1)},
        f={"residue": (Residue(host_id=3, generation=1),)},
    )
    assert evacuated(snapshot) == (
        ["e to h3", "f to h2"],
        {"a": "cannot leave h1: it is Paused; it goes when it runs again"},
    )


def test_cooldown_and_target_hosts_do_not_keep_anybody() -> None:
    """A host that is to be emptied is left by those that have just come, and by those that have asked for it by name."""
    snapshot = drained(a_snapshot("h1 8c 16G | a, b", "h2 8c 16G"), "h1", a={"moved_at": 1.0}, b={"hints": {"targetHost": "h1"}})
    assert evacuated(snapshot) == (["a to h2", "b to h2"], {})


def test_terms_are_kept() -> None:
    """Location, reservations and isolation bind those that are sent away, too."""
    snapshot = drained(
        a_snapshot("h1 8c 16G | a, b", "h2 8c 16G", "h3 8c 16G | c", "h4 8c 16G"),
        "h1",
        a={"hints": {"location": "ie"}},
        b={"hints": {"isolation": "True"}},
        c={"user_id": 1001},
        h3={"config": {"location": "ie"}},
        h2={"reserved": (7,)},
    )
    assert evacuated(snapshot) == (["b to h4", "a to h3"], {})


def test_those_that_want_to_be_alone() -> None:
    """They go first, while there are empty hosts, and the second one of a user to where the first one went."""
    alone = {"hints": {"isolation": "True"}, "user_id": 7}
    snapshot = drained(
        a_snapshot("h1 8c 16G | a 1c 8G", "h2 8c 16G | b, c", "h3 8c 16G", "h4 8c 16G"),
        "h1",
        "h2",
        b={**alone, "user_id": 7},
        c={**alone, "user_id": 7},
    )
    assert evacuated(snapshot) == (["b to h3", "c to h3", "a to h4"], {})


def test_those_that_are_to_be_together() -> None:
    """One that has asked to be with another follows it, however big it is; one that is to be apart from another goes elsewhere."""
    snapshot = a_snapshot("h1 8c 16G | a 1c 4G, b 1c 2G, c 1c 1G", "h2 8c 16G | d 1c 1G", "h3 8c 16G")
    snapshot = drained(snapshot, "h1", a={"hints": {"with": "b"}}, c={"hints": {"apart": "b"}})
    assert evacuated(snapshot) == (["b to h3", "c to h2", "a to h3"], {})


def test_what_failed_lately_is_avoided() -> None:
    """A target that failed an instance is not tried again just now; when there is no other, nothing is said of it."""
    snapshot = drained(a_snapshot("h1 8c 16G | a, b", "h2 8c 16G", "h3 8c 16G | c 1c 8G"), "h1")
    assert evacuated(snapshot, frozenset({(1, 2), (1, 99)})) == (["a to h3", "b to h2"], {})
    assert evacuated(snapshot, frozenset({(1, 2), (1, 3)})) == (["b to h2"], {})


def test_the_fleet_is_left_as_it_is_then() -> None:
    """Whoever plans on finds everybody where they are after the moves."""
    fleet = Fleet(drained(a_snapshot("h1 8c 16G | a, b", "h2 8c 16G"), "h1"))
    evacuate(fleet)
    assert (fleet.count.tolist(), fleet.used_memory.tolist()) == ([0, 2], [0, 256])


@settings(max_examples=150)
@given(snapshots(most_hosts=5, most_instances=10))
def test_any_cluster(snapshot: Snapshot) -> None:
    """Whatever is to be emptied: the plan passes the check, is the same again, and what stays would be refused everywhere in the end."""
    names = [host.name for host in snapshot.hosts.values() if host.id % 2]
    snapshot = drained(snapshot, *names)
    fleet = Fleet(snapshot)
    moves, words = evacuate(fleet)
    assert check(Plan(actions=tuple(moves)), snapshot) == ()
    assert evacuate(Fleet(msgspec.json.decode(msgspec.json.encode(snapshot), type=Snapshot))) == (moves, words)
    moved = {move.instance_id for move in moves}
    for host_id, group in snapshot.placed.items():
        for one in group:
            if snapshot.hosts[host_id].draining and can_leave(one) and one.id not in moved:
                assert words[one.id].startswith("cannot leave h")
                source = snapshot.hosts[host_id].facts
                for place, host in enumerate(fleet.hosts):
                    like = (host.facts.hypervisor if host.facts else "") == (source.hypervisor if source else "")
                    assert not like or fleet.objection(one, place, FOR_A_MOVE) is not None
