"""Memory for the more important: who is shrunk for whom, by how much and where; and who is grown back."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tashi.model.instance import Disk, Instance, Resources, Task
from tashi.model.sla import SlaClass
from tashi.model.states import HostState, InstanceState
from tashi.scheduling.check import check
from tashi.scheduling.fleet import Fleet
from tashi.scheduling.load import demand
from tashi.scheduling.placing.primitive import plan
from tashi.scheduling.plan import Grow, Place, Plan, Postpone, Shrink
from tashi.scheduling.snapshot import SchedulingSettings, Snapshot
from tashi.scheduling.squeezing import RETRY_AFTER, grow, squeeze
from tests.builders import a_host, an_instance

GOLD, SILVER, BRONZE = 1002, 1001, 1000
PRIORITIES = {GOLD: 20, SILVER: 10, BRONZE: 0}
CLASSES = {"kept": SlaClass(name="kept", memory=1500)}


def _guest(number: int, host_id: int | None = 1, memory: int = 1024, user_id: int = BRONZE, **fields: Any) -> Instance:
    return an_instance(number, host_id=host_id, memory=memory, user_id=user_id, **fields)


def _cluster(*instances: Instance, count: int = 1, **fields: Any) -> Snapshot:
    """Hosts of 8 cores and 4 GB, with these instances on them or waiting."""
    return Snapshot(
        **{
            "hosts": {number: a_host(number, memory=4096) for number in range(1, count + 1)},
            "placed": {number: tuple(one for one in instances if one.host_id == number) for number in range(1, count + 1)},
            "pending": tuple(sorted((one for one in instances if one.host_id is None), key=lambda one: (-PRIORITIES[one.user_id], one.id))),
            "settings": SchedulingSettings(minimal_vm_memory=256),
            "priorities": PRIORITIES,
            "sla_classes": CLASSES,
            "time": 10_000.0,
            **fields,
        }
    )


def _squeezed(snapshot: Snapshot) -> list[tuple[int, int]]:
    """Who is to have how many MB, in a plan that is sound."""
    postponed = [action for action in plan(snapshot).actions if isinstance(action, Postpone)]
    shrinks = squeeze(Fleet(snapshot), postponed)
    assert check(Plan(actions=tuple(shrinks)), snapshot) == ()
    return [(action.instance_id, action.memory) for action in shrinks]


def _grown(snapshot: Snapshot) -> list[tuple[int, int]]:
    postponed = [action for action in plan(snapshot).actions if isinstance(action, Postpone)]
    fleet = Fleet(snapshot)
    squeeze(fleet, postponed)
    grown = grow(fleet)
    assert check(Plan(actions=tuple(grown)), snapshot) == ()
    return [(action.instance_id, action.memory) for action in grown]


def _under_way(instance: Instance, memory: int) -> Instance:
    """As it is while its host shrinks it."""
    shrunk_from = instance.shrunk_from or instance.resources.memory
    return msgspec.structs.replace(instance, shrunk_from=shrunk_from, tasks=(Task(adapt=Resources(memory=memory)),))


def _done(instance: Instance) -> Instance:
    """As it is when its host has done what it was asked."""
    (task,) = instance.tasks
    assert task.adapt is not None
    return msgspec.structs.replace(instance, tasks=(), memory_limit=task.adapt.memory)


def _with(snapshot: Snapshot, *changed: Instance) -> Snapshot:
    """The same with these in place of those of the same id."""
    news = {one.id: one for one in changed}
    placed = {host_id: tuple(news.get(one.id, one) for one in group) for host_id, group in snapshot.placed.items()}
    return msgspec.structs.replace(snapshot, placed=placed, loads={})


def test_just_enough_is_given() -> None:
    """What is free already is used first, and one that has enough to give is enough."""
    snapshot = _cluster(_guest(1, memory=1024), _guest(2, memory=2048), _guest(3, None, user_id=GOLD, memory=1536))
    assert _squeezed(snapshot) == [(2, 1536)]


def test_the_least_important_give_first() -> None:
    """Bronze goes to its floor before silver gives anything, and who asks as much as it has does not give."""
    guests = (_guest(1, user_id=GOLD), _guest(2, user_id=SILVER), _guest(3, memory=2048), _guest(4, None, user_id=GOLD, memory=2048))
    assert _squeezed(_cluster(*guests)) == [(3, 256), (2, 768)]


def test_nobody_gives_to_an_equal() -> None:
    """Equal and higher priorities give nothing, and the instance waits."""
    assert _squeezed(_cluster(_guest(1, memory=4096), _guest(2, None))) == []
    assert _squeezed(_cluster(_guest(1, memory=4096, user_id=GOLD), _guest(2, None, user_id=SILVER))) == []


def test_who_is_asked_for_by_name_is_no_measure_for_others() -> None:
    """One that another wants to be apart from has no room made for it there; its like has."""
    guests = (_guest(1, memory=3072), _guest(2, memory=1024, user_id=GOLD, hints={"apart": "vm3"}))
    alike = (_guest(3, None, user_id=GOLD), _guest(4, None, user_id=GOLD))
    assert _squeezed(_cluster(*guests, alike[0])) == []
    assert _squeezed(_cluster(*guests, alike[1])) == _squeezed(_cluster(*guests, *alike)) == [(1, 2048)]


def test_the_floors() -> None:
    """Nobody has less than minimalVmMemory, nor than its class of service guarantees."""
    snapshot = _cluster(_guest(1, memory=2048, sla="kept"), _guest(2, memory=2048), _guest(3, None, user_id=GOLD, memory=2341))
    assert _squeezed(snapshot) == []
    assert _squeezed(_with(snapshot, _guest(1, memory=2048))) == [(1, 256), (2, 1499)]
    less = msgspec.structs.replace(snapshot, pending=(_guest(3, None, user_id=GOLD, memory=2340),))
    assert _squeezed(less) == [(2, 256), (1, 1500)]


def test_the_host_that_loses_least() -> None:
    """The smallest total wins; of equal ones the fewest guests, then the better rating, then the lower id."""
    wide = (_guest(1, 1, 3000), _guest(2, 2, 3500), _guest(3, 3, 3600), _guest(4, None, 2000, GOLD))
    assert _squeezed(_cluster(*wide, count=3)) == [(1, 2096)]
    one, several = _guest(1, 2, 3000), [_guest(number, 1, 300) for number in range(2, 12)]
    crowd = _cluster(one, *several, _guest(12, None, 1300, GOLD), count=2, settings=SchedulingSettings(minimal_vm_memory=200))
    assert _squeezed(crowd) == [(1, 2796)]
    even = _cluster(_guest(1, 1, 4000), _guest(2, 2, 4000), _guest(3, None, 96 + 100, GOLD), count=2)
    assert _squeezed(even) == [(1, 3900)]
    assert _squeezed(msgspec.structs.replace(even, ratings={2: 1})) == [(2, 3900)]


def test_other_reasons_to_wait() -> None:
    """Nobody is shrunk for one that the host would not take with all the memory there is."""
    give = _guest(1, memory=4096)
    wishes: tuple[dict[str, Any], ...] = (
        {"cores": 9},
        {"cpu_speed": 2001},
        {"refused_by": (1,)},
        {"hints": {"location": "ie"}},
        {"hints": {"isolation": "True"}},
        {"hints": {"targetHost": "h7"}},
    )
    for wish in wishes:
        assert _squeezed(_cluster(give, _guest(2, None, user_id=GOLD, **wish))) == [], wish
    disk = (Disk(uri="disk-1-a-0.img", persistent=True),)
    elsewhere = _guest(3, 2, user_id=GOLD, memory=4096, disks=disk)
    assert _squeezed(_cluster(give, elsewhere, _guest(2, None, user_id=GOLD, disks=disk), count=2)) == []
    kept = _cluster(give, _guest(2, None, user_id=GOLD, disks=disk), kept_disks={disk[0].uri: 9})
    assert _squeezed(kept) == []
    drained = {1: a_host(1, memory=4096, state=HostState.Drained)}
    assert _squeezed(_cluster(give, _guest(2, None, user_id=GOLD), hosts=drained)) == []


def test_who_has_something_else_to_do() -> None:
    """One that is adapted, paused, moving or does not answer gives nothing, nor does one that would not give a while ago."""
    states: tuple[dict[str, Any], ...] = (
        {"tasks": (Task(adapt=Resources(cpu_share=5)),)},
        {"state": InstanceState.Paused},
        {"decayed": True},
        {"resize_failed_at": 9_999.0},
    )
    for fields in states:
        assert _squeezed(_cluster(_guest(1, memory=4096, **fields), _guest(2, None, user_id=GOLD))) == [], fields
    late = _guest(1, memory=4096, resize_failed_at=10_000.0 - RETRY_AFTER)
    assert _squeezed(_cluster(late, _guest(2, None, user_id=GOLD))) == [(1, 3072)]


def test_one_room_for_one() -> None:
    """What is freed for the first that waits is not counted for the second, which frees its own."""
    snapshot = _cluster(_guest(1, memory=4096), _guest(2, None, user_id=SILVER), _guest(3, None, user_id=GOLD))
    assert _squeezed(snapshot) == [(1, 3072)]  # it is being shrunk then, and can give again when that is done
    two = _cluster(_guest(1, memory=2048), _guest(4, memory=2048), _guest(2, None, user_id=SILVER), _guest(3, None, user_id=GOLD))
    assert _squeezed(two) == [(1, 1024), (4, 1024)]


def test_a_second_pass_frees_nothing_more() -> None:
    """While the first shrinks are under way the same ones wait, and nobody gives more; when they are done, they are placed."""
    first = _cluster(_guest(1, 1, 4096), _guest(2, 2, 4096), _guest(3, None, 512, GOLD), _guest(4, None, 2048, GOLD), count=2)
    limits = dict(_squeezed(first))
    assert limits == {1: 3584, 2: 2048}
    second = _with(first, *(_under_way(one, limits[one.id]) for group in first.placed.values() for one in group))
    assert (_squeezed(second), _grown(second)) == ([], [])
    third = _with(second, *(_done(one) for group in second.placed.values() for one in group))
    assert {(action.instance_id, action.host_id) for action in plan(third).actions} == {(3, 1), (4, 2)}


def test_a_limit_of_ones_own() -> None:
    """A guest that does without memory already loses one step, and its host wins all that was kept for it."""
    limited = _guest(1, memory=4096, memory_limit=1024)
    snapshot = _cluster(limited, _guest(2, None, user_id=GOLD, memory=2048))
    assert _squeezed(snapshot) == [(1, 1008)]
    under_way = _with(snapshot, _under_way(limited, 1008))
    assert (Fleet(under_way).used_memory.tolist(), _squeezed(under_way)) == ([4096], [])
    done = _with(under_way, _done(_under_way(limited, 1008)))
    assert Fleet(done).used_memory.tolist() == [1008]


def _shrunk(number: int, now: int, memory: int = 1024, host_id: int = 1, **fields: Any) -> Instance:
    return _guest(number, host_id, memory, **{"memory_limit": now, "shrunk_from": memory, **fields})


def test_grown_back() -> None:
    """With room for all everybody has again what it had; the most important first, and the last as much as there is."""
    assert _grown(_cluster(_shrunk(1, 256), _shrunk(2, 512, user_id=SILVER))) == [(2, 1024), (1, 1024)]
    assert _grown(_cluster(_shrunk(1, 256), _shrunk(2, 512, user_id=SILVER), _guest(3, memory=2600))) == [(2, 1024), (1, 472)]
    assert _grown(_cluster(_shrunk(1, 256), _guest(3, memory=4096 - 256 - 15))) == []


def test_a_limit_of_ones_own_is_grown_back() -> None:
    """To have its limit back a guest needs room for all of its memory; till then it has almost that."""
    own = _guest(1, memory=3000, memory_limit=900, shrunk_from=1000)
    assert _grown(_cluster(own)) == [(1, 1000)]
    assert _grown(_cluster(own, _guest(2, memory=2000))) == [(1, 999)]


def test_not_grown_before_the_more_important() -> None:
    """Who waits with a higher priority for the memory comes first, be it that more has to be freed for it; who waits for others does not
    count."""
    little = _cluster(_shrunk(1, 400), _guest(2, memory=3600), _guest(3, None, user_id=GOLD, memory=512))
    assert (_squeezed(little), _grown(little)) == ([(2, 3184)], [])
    hopeless = _cluster(_shrunk(1, 400), _guest(3, None, user_id=GOLD, memory=9000))
    assert _grown(hopeless) == [(1, 1024)]
    lower = _cluster(_shrunk(1, 400, user_id=SILVER), _guest(2, memory=3600, user_id=SILVER), _guest(3, None, memory=500))
    assert _grown(lower) == [(1, 496)]


def test_room_of_those_who_leave() -> None:
    """Who moves away in this plan is still there: the room is not given to anybody before it has left."""
    snapshot = _cluster(_shrunk(1, 400), _guest(2, memory=3690), count=2)
    fleet = Fleet(snapshot)
    fleet.move(snapshot.placed[1][1], 0, 1)
    assert grow(fleet) == []
    assert [action.memory for action in grow(Fleet(_with(snapshot, _guest(2, memory=3000))))] == [1024]


def test_the_story_of_the_documentation() -> None:
    """docs/scheduling.md, "Competing for too little room", step by step."""
    kept = {"silver": SlaClass(name="silver", memory=512)}
    guests = [_guest(1, 1, 2048), _guest(2, 1, 1024), _guest(3, 1, 1024, SILVER, sla="silver")]
    told: list[dict[int, int]] = []

    def step(arrives: Instance | None = None, leaves: int | None = None) -> list[int]:
        """Plan until nothing changes; who waits then."""
        waiting = [] if arrives is None else [arrives]
        guests[:] = [one for one in guests if one.id != leaves]
        for _ in range(4):
            snapshot = _cluster(*guests, *waiting, sla_classes=kept)
            changes = dict(_squeezed(snapshot)) | dict(_grown(snapshot))
            guests[:] = [_done(_under_way(one, changes[one.id])) if one.id in changes else one for one in guests]
            guests[:] = [msgspec.structs.replace(one, shrunk_from=None) if one.memory_limit == one.memory else one for one in guests]
            placed = [
                action.instance_id for action in plan(_cluster(*guests, *waiting, sla_classes=kept)).actions if isinstance(action, Place)
            ]
            guests.extend(_guest(one.id, 1, one.memory, one.user_id) for one in waiting if one.id in placed)
            waiting = [one for one in waiting if one.id not in placed]
        told.append({one.id: one.resources.memory or 0 for one in guests})
        return [one.id for one in waiting]

    assert step(_guest(11, None, 1536, GOLD)) == []
    assert step(_guest(12, None, 1024, GOLD)) == []
    assert step(_guest(13, None, 512, GOLD)) == []
    assert step(_guest(14, None, 256, GOLD)) == [14]
    assert told == [
        {1: 512, 2: 1024, 3: 1024, 11: 1536},
        {1: 256, 2: 256, 3: 1024, 11: 1536, 12: 1024},
        {1: 256, 2: 256, 3: 512, 11: 1536, 12: 1024, 13: 512},
        {1: 256, 2: 256, 3: 512, 11: 1536, 12: 1024, 13: 512},
    ]
    told.clear()
    for gone in (11, 12, 13):
        assert step(leaves=gone) == []
    assert told == [
        {1: 1280, 2: 256, 3: 1024, 12: 1024, 13: 512},
        {1: 2048, 2: 512, 3: 1024, 13: 512},
        {1: 2048, 2: 1024, 3: 1024},
    ]


@st.composite
def _crowded(draw: st.DrawFn) -> Snapshot:
    """Full hosts, with guests of all priorities, some shrunk already, and some that wait."""
    chance = Random(draw(st.integers(0, 2**32)))
    hosts, instances = draw(st.integers(1, 3)), []
    number = 0
    for host_id in range(1, hosts + 1):
        free = 4096
        while number < 12 * hosts and free >= 64:
            number += 1
            memory = chance.choice([64, 300, 700, 1024, 2048])
            now = chance.choice([None, None, memory // 2])
            taken = memory if now is None else now
            if taken > free:
                break
            free -= taken
            sla = chance.choice([None, None, "kept"])
            shrunk_from = None if now is None else memory - chance.choice([0, 10])
            fields = {"memory_limit": now, "shrunk_from": shrunk_from, "sla": sla, "user_id": chance.choice([*PRIORITIES])}
            guest = _guest(number, host_id, memory, **fields)
            instances.append(_under_way(guest, max(1, taken // 2)) if chance.random() < 0.1 else guest)
    waiting = draw(st.integers(0, 4))
    for number in range(101, 101 + waiting):
        hints = chance.choice([{}, {}, {}, {"isolation": "True"}, {"targetHost": "h1"}])
        instances.append(_guest(number, None, chance.choice([64, 500, 1500, 4000]), chance.choice([*PRIORITIES]), hints=hints))
    return _cluster(*instances, count=hosts)


def _after(snapshot: Snapshot, actions: list[Shrink] | list[Grow]) -> tuple[Snapshot, Snapshot]:
    """While these are carried out, and when they are."""
    found = {one.id: one for group in snapshot.placed.values() for one in group}
    asked = [_under_way(found[action.instance_id], action.memory) for action in actions]
    return _with(snapshot, *asked), _with(snapshot, *map(_done, asked))


@settings(max_examples=150, deadline=None)
@given(_crowded())
def test_any_squeeze(snapshot: Snapshot) -> None:
    """Nobody gives to an equal nor below its floor; meanwhile nothing more is freed; when it is done, the first it was for fits."""
    made = plan(snapshot)
    fleet = Fleet(snapshot)
    for action in made.actions:
        if not isinstance(action, Postpone):
            waiting = next(one for one in snapshot.pending if one.id == action.instance_id)
            fleet.add(waiting, fleet.place_of[action.host_id])
    postponed = [action for action in made.actions if isinstance(action, Postpone)]
    shrinks = squeeze(fleet, postponed)
    grown = grow(fleet)
    assert check(Plan(actions=(*made.actions, *shrinks, *grown)), snapshot) == ()
    found = {one.id: one for group in snapshot.placed.values() for one in group}
    names = {one.name: one for one in snapshot.pending}
    promised = {one.id: place for place in range(len(fleet.hosts)) for one in fleet.room(place).residents}
    for shrink in shrinks:
        giver, taker = found[shrink.instance_id], names[shrink.why.removeprefix("to make room for ").split(" (")[0]]
        assert snapshot.priority(giver) < snapshot.priority(taker)
        assert fleet.hosts[promised[taker.id]].id == giver.host_id
        assert snapshot.floor(giver) <= shrink.memory < giver.resources.memory
    if len(postponed) == len(made.actions):  # nothing else changes meanwhile
        during, after = _after(snapshot, shrinks)
        assert _squeezed(during) == []
        placed = {action.instance_id for action in plan(after).actions if not isinstance(action, Postpone)}
        if not any(one.tasks for one in found.values()):  # it may get the room that was made for the others, who then wait for more
            assert placed.issuperset([one.id for one in snapshot.pending if one.id in promised][:1])


@settings(max_examples=150, deadline=None)
@given(_crowded())
def test_any_growth(snapshot: Snapshot) -> None:
    """Nobody has more than it had, no host gives more than it has, and nobody is shrunk again for those who waited."""
    fleet = Fleet(snapshot)
    shrinks = squeeze(fleet, [Postpone(instance_id=one.id) for one in snapshot.pending])
    grown = grow(fleet)
    found = {one.id: one for group in snapshot.placed.values() for one in group}
    for action in grown:
        before = found[action.instance_id]
        assert (before.resources.memory or 0) < action.memory <= (before.shrunk_from or 0)
    for changed in _after(snapshot, grown):
        for host_id, group in changed.placed.items():
            assert sum(demand(one)[0] for one in group) <= changed.hosts[host_id].facts.memory
    waiting = [Postpone(instance_id=one.id) for one in snapshot.pending]
    next_time = squeeze(Fleet(_after(_after(snapshot, shrinks)[0], grown)[1]), waiting)
    assert not {action.instance_id for action in next_time} & {action.instance_id for action in grown}
