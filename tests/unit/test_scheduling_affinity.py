"""Instances that are to be beside others, apart from them, or spread."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from tashi.model.instance import Instance, Migration
from tashi.scheduling.check import check
from tashi.scheduling.filters import FOR_A_MOVE, objection
from tashi.scheduling.plan import Migrate, Place, Plan, Postpone
from tashi.scheduling.policies import POLICIES, never_fits
from tashi.scheduling.room import Rooms
from tashi.scheduling.snapshot import Snapshot
from tests.builders import a_snapshot, an_instance
from tests.strategies import snapshots


def _cluster(waiting: tuple[Instance, ...] = (), /, **hints: dict[str, str]) -> Snapshot:
    """Three hosts: h1 holds db and web, h2 holds cache, h3 nothing; each with these hints."""
    snapshot = a_snapshot("h1 8c 16G | db, web", "h2 8c 16G | cache", "h3 8c 16G")
    placed = {
        host_id: tuple(msgspec.structs.replace(one, hints=hints.get(one.name, {})) for one in group)
        for host_id, group in snapshot.placed.items()
    }
    return msgspec.structs.replace(snapshot, placed=placed, pending=waiting)


def _waiting(number: int = 9, name: str = "new", **hints: str) -> Instance:
    return an_instance(number, name, hints=hints)


def _hosts(snapshot: Snapshot) -> dict[str, list[str | None]]:
    """Where each policy puts those that wait, in the order of their ids."""
    found: dict[str, list[str | None]] = {}
    for name, policy in POLICIES.items():
        made = policy(snapshot)
        assert check(made, snapshot) == ()
        actions = [one for one in made.actions if isinstance(one, Place | Postpone)]
        ordered = sorted(actions, key=lambda one: one.instance_id)
        found[name] = [snapshot.hosts[one.host_id].name if isinstance(one, Place) else None for one in ordered]
    return found


def _reasons(snapshot: Snapshot, name: str) -> list[str | None]:
    """Why one that runs may not move to each of the hosts."""
    instance = next(one for group in snapshot.placed.values() for one in group if one.name == name)
    rooms = Rooms(snapshot)
    return [objection(instance, room, FOR_A_MOVE) for host_id in snapshot.hosts if (room := rooms.of(host_id)) is not None]


@pytest.mark.parametrize("policy", POLICIES)
def test_with_goes_to_the_host_of_the_other(policy: str) -> None:
    """with=cache leaves only the host that has cache; of a name that nobody has there is nothing to ask."""
    assert _hosts(_cluster((_waiting(**{"with": "cache"}),)))[policy] == ["h2"]
    alone = _hosts(_cluster((_waiting(),)))[policy]
    assert _hosts(_cluster((_waiting(**{"with": "nobody"}),)))[policy] == alone


def test_with_waits_when_there_is_no_room_beside_the_other() -> None:
    """The reasons name the host that it is to be on."""
    (action,) = POLICIES["Balanced"](_cluster((an_instance(9, "new", memory=16384, hints={"with": "db"}),))).actions
    assert isinstance(action, Postpone)
    assert [str(one) for one in action.refusals] == [
        "h1: 256 MB short of memory",
        "h2: is not the host of db, which is h1",
        "h3: is not the host of db, which is h1",
    ]


@pytest.mark.parametrize("policy", POLICIES)
def test_one_follows_another_of_the_same_plan(policy: str) -> None:
    """What was placed a moment ago counts as well, in both ways."""
    first = _waiting(9, "first")
    together = _hosts(_cluster((first, _waiting(10, "second", **{"with": "first"}))))[policy]
    assert together[0] == together[1]
    apart = _hosts(_cluster((first, _waiting(10, "second", apart="first"))))[policy]
    assert apart[0] != apart[1] and None not in apart


def test_apart_binds_both() -> None:
    """The one that asks keeps away, and the other is kept away from it."""
    assert _hosts(_cluster((_waiting(apart="db"),)))["Consolidated"] == ["h2"]
    kept = _cluster((_waiting(9, "db2"),), db={"apart": "db2"}, cache={"apart": "db2"})
    assert set(map(tuple, _hosts(kept).values())) == {("h3",)}
    (action,) = POLICIES["Balanced"](msgspec.structs.replace(kept, hosts={1: kept.hosts[1]}, placed={1: kept.placed[1]})).actions
    assert isinstance(action, Postpone)
    assert str(action.refusals[0]) == "h1: holds db, for which apart=db2 is asked"


@pytest.mark.parametrize("policy", POLICIES)
def test_a_group_spreads(policy: str) -> None:
    """Fewest members first, before anything else that a policy looks at; when every host has one, they share."""
    spread = tuple(_waiting(9 + number, f"w{number}", group="w") for number in range(4))
    hosts = _hosts(_cluster(spread))[policy]
    assert set(hosts[:3]) == {"h1", "h2", "h3"}
    assert hosts[3] is not None


@pytest.mark.parametrize(
    ("name", "hints", "reasons"),
    [
        ("cache", {"cache": {"with": "db"}}, [None, "is not the host of db, which is h1", "is not the host of db, which is h1"]),
        ("cache", {"cache": {"apart": "db"}}, ["holds db, and apart=db is asked", None, None]),
        ("cache", {"db": {"apart": "cache"}}, ["holds db, for which apart=cache is asked", None, None]),
        ("web", {"web": {"with": "db"}}, [None, "is not the host of db, which is h1", "is not the host of db, which is h1"]),
        ("db", {"web": {"with": "db"}}, [None, *["is not the host of web, for which with=db is asked"] * 2]),
        ("cache", {name: {"group": "w"} for name in ("db", "cache")}, ["holds 1 of group w, and its host 0 beside it", None, None]),
        ("web", {name: {"group": "w"} for name in ("db", "web", "cache")}, [None, None, None]),
    ],
)
def test_what_binds_a_move(name: str, hints: dict[str, Any], reasons: list[str | None]) -> None:
    """A move tears nobody from the one it is to be with, brings nobody together, and makes no spread worse."""
    assert _reasons(_cluster(**hints), name) == reasons


def test_the_check_knows_the_same() -> None:
    """A plan that tears two apart is refused, whoever made it."""
    snapshot = _cluster(web={"with": "db"})
    (problem,) = check(Plan(actions=(Migrate(instance_id=1, host_id=2),)), snapshot)
    assert problem == "instance 1 is moved to h2, which is not the host of web, for which with=db is asked"
    both = msgspec.structs.replace(_cluster((_waiting(apart="cache"), _waiting(10, "more", **{"with": "new"}))))
    plan = Plan(actions=(Place(instance_id=9, host_id=1), Place(instance_id=10, host_id=3)))
    assert check(plan, both) == ("instance 10 is sent to h3, which is not the host of new, which is h1",)


@pytest.mark.parametrize(
    ("hints", "order"),
    [
        ({"web": {"with": "db"}}, ("db", "web")),
        ({"web": {"with": "db"}, "db": {"with": "web"}}, ("db", "web")),
        ({"web": {"with": "db"}, "db": {"with": "web"}}, ("web", "db")),
    ],
)
def test_a_host_that_is_emptied_lets_both_go(hints: dict[str, Any], order: tuple[str, str]) -> None:
    """The one that is asked for goes where it likes; the other follows it, and may go neither before it nor anywhere else."""
    snapshot = _cluster(**hints)
    emptied = msgspec.structs.replace(snapshot, hosts={**snapshot.hosts, 1: msgspec.structs.replace(snapshot.hosts[1], draining=True)})
    numbers = {one.name: one.id for one in snapshot.placed[1]}
    first, second = (Migrate(instance_id=numbers[name], host_id=2, evacuates=True) for name in order)
    assert check(Plan(actions=(first, second)), emptied) == ()
    assert len(check(Plan(actions=(first, msgspec.structs.replace(second, host_id=3))), emptied)) == 1
    if len(hints) == 1:
        assert len(check(Plan(actions=(second,)), emptied)) == 1


def test_the_place_of_one_that_moves_is_where_it_goes() -> None:
    """Who is to be with one that is on its way is sent to where that will be; who is to be apart keeps away from both ends."""
    snapshot = _cluster((_waiting(**{"with": "cache"}), _waiting(10, "other", apart="cache")))
    moving = msgspec.structs.replace(snapshot.placed[2][0], migration=Migration(target=3))
    snapshot = msgspec.structs.replace(snapshot, placed={**snapshot.placed, 2: (moving,)})
    assert set(map(tuple, _hosts(snapshot).values())) == {("h3", "h1")}


def test_names_do_not_matter_to_what_never_fits() -> None:
    """That a neighbour is in the way today refuses nothing for ever."""
    assert never_fits(_waiting(apart="db", **{"with": "db"}), _cluster().hosts, _cluster().settings) == ()


@settings(max_examples=80)
@given(snapshots())
def test_nobody_is_placed_beside_whom_it_is_to_be_apart_from(snapshot: Snapshot) -> None:
    """Seen without any filter: after any plan no new pair that asks to be apart shares a host, and who asks to be with another is."""
    for policy in POLICIES.values():
        where = {number: [*Rooms(snapshot).guests(number)] for number in snapshot.hosts}
        waiting = {one.id: one for one in snapshot.pending}
        for action in policy(snapshot).actions:
            if not isinstance(action, Place):
                continue
            new, beside = waiting[action.instance_id], where[action.host_id]
            assert all(new.hints.get("apart") != one.name and one.hints.get("apart") != new.name for one in beside)
            homes = [number for number, group in where.items() if any(one.name == new.hints.get("with") for one in group)]
            assert not homes or action.host_id in homes or any(one.migration or one.residue for group in where.values() for one in group)
            beside.append(new)
