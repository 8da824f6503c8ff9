"""Snapshots as text: what is written is read again as it was, and every mistake is told where it is."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tashi.config.options import options_of
from tashi.config.sections.scheduling import Scheduler
from tashi.config.values import ENDLESS
from tashi.errors import YourMistake
from tashi.model.host import Host
from tashi.model.instance import Becoming, Instance, Migration, Nic, Residue, Resources, Task
from tashi.model.sla import SlaClass
from tashi.model.states import HostState, InstanceState
from tashi.scheduling.load import HostUsage
from tashi.scheduling.plan import Figures, Grow, Migrate, Place, Plan, Postpone, PowerOff, PowerOn, Refusal, Shrink
from tashi.scheduling.policies import POLICIES
from tashi.scheduling.room import guests_of
from tashi.scheduling.snapshot import SchedulingSettings, Snapshot
from tashi.scheduling.terms import persistent_disks
from tashi.scheduling.text.entries import KINDS
from tashi.scheduling.text.grammar import RANGES, SETTING_NAMES, Line, quoted
from tashi.scheduling.text.reading import read
from tashi.scheduling.text.words import plan_as_rows, plan_in_words
from tashi.scheduling.text.writing import write
from tests.builders import a_snapshot
from tests.strategies import snapshots

WHOLE = """\
# tashi snapshot 1
time 1000000
set scheduler=Balanced autoMigrations=True loadExpression="memUsage + coresUsage * 512"
user 1000 alice priority=5
user bob
sla gold priority=100 memory=256M
host 1 node1 8c 16G 2400MHz rating=3 location=ie auditability=True networks=0,1 reserved=1000,bob state=Drained draining hypervisor=qemu
host node2 4c 8G empty-since=999000     # has the next number
host node3 down
vm 12 web 2c 2G on node1 user=alice sla=gold location=ie with=db usage=300MHz moved-at=999000.5
  vm mail 1c 512M 300MHz on node1 moving-to=node2 user=bob limit=256M shrunk-from=512M hint."far away"="a \\"b\\""
vm 13 db 4c 8G user=bob disk=disk-13-db-0.img refused-by=node2,1 reason="no such image"   # no "on": it waits
vm big 64c 1T isolation
cursor node2
kept-disk disk-9-old-0.img 9
rebalance
"""


def test_everything_that_can_be_said() -> None:
    """A text that a person wrote becomes the snapshot it means."""
    snapshot = read(WHOLE)
    assert snapshot.settings == SchedulingSettings(policy="Balanced", auto_migrations=True, load_expression="memUsage + coresUsage * 512")
    first, second, third = snapshot.hosts.values()
    assert (first.facts and first.facts.networks, first.reserved, first.state, first.draining) == (
        (0, 1),
        (1000, 1001),
        HostState.Drained,
        True,
    )
    assert first.config == {"location": "ie", "auditability": "True"}
    assert (second.id, second.up, third.id, third.up, third.facts) == (2, True, 3, False, None)
    web, mail = snapshot.placed[1]
    assert (web.id, web.state, web.hints, web.sla) == (12, InstanceState.Running, {"location": "ie", "with": "db"}, "gold")
    assert (mail.id, mail.state, mail.migration, mail.taken_memory) == (1, InstanceState.MigrateTrans, Migration(target=2), 256)
    assert (mail.cpu_speed, mail.hints) == (300, {"far away": 'a "b"'})
    assert [(one.name, one.state, one.user_id) for one in snapshot.pending] == [
        ("big", InstanceState.Pending, 1000),
        ("db", InstanceState.Pending, 1001),
    ]
    assert persistent_disks(snapshot.pending[1]) == {"disk-13-db-0.img"}
    assert (snapshot.pending[1].refused_by, snapshot.pending[1].reason) == ((2, 1), "no such image")
    assert (snapshot.pending[0].memory, snapshot.pending[0].hints) == (1024 * 1024, {"isolation": "True"})
    assert (snapshot.priorities, snapshot.sla_classes) == ({1000: 5, 1001: 0}, {"gold": SlaClass(name="gold", priority=100, memory=256)})
    assert (snapshot.ratings, snapshot.empty_since, snapshot.usage) == ({1: 3}, {2: 999000.0}, {1: HostUsage(instances={12: 300})})
    assert (snapshot.cursor, snapshot.kept_disks, snapshot.rebalance, snapshot.time) == (2, {"disk-9-old-0.img": 9}, True, 1e6)
    assert read(write(snapshot)) == snapshot


def test_the_queue_is_by_priority_unless_it_is_said() -> None:
    """Who waits is served by priority, then by number; a line may say otherwise."""
    text = "user 5 vip priority=9\nvm a\nvm b user=vip\nvm c\n"
    assert [one.name for one in read(text).pending] == ["b", "a", "c"]
    assert [one.name for one in read(f"{text}queue c 1\n").pending] == ["c", "a", "b"]


def test_what_is_lost_is_carried_along() -> None:
    """An instance on a host that there is not, and sizes below nothing, are for the scheduler to report."""
    snapshot = read("host a -2c 1G\nvm b 1c -512M on 7\n")
    assert snapshot.placed == {1: (), 7: snapshot.placed[7]}
    assert (snapshot.placed[7][0].memory, snapshot.hosts[1].facts and snapshot.hosts[1].facts.cores) == (-512, -2)
    assert read(write(snapshot)) == snapshot


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hsot a", "line 1, character 1: no line begins with hsot; did you mean host?"),
        ("\n  host", "line 2, character 7: the name of the host is missing here"),
        ("vm a 2x", "line 1, character 6: 2x is no size such as 8c, 16G, 512M or 2400MHz, and no word of a vm"),
        ("vm a 1.0001G", "line 1, character 6: 1.0001G is no size"),
        ("vm a 2c on", "line 1, character 11: the name of a host is missing after `on`"),
        ("host node1 1c 1G\nvm a on node2", "line 2, character 9: there is no host node2; did you mean node1?"),
        ("host a 2c", "line 1: host a says no memory; write for example `8c 16G`"),
        ("set mingian=1", "line 1, character 5: there is no setting mingian; did you mean minGain?"),
        ("set minGain=x", "line 1, character 5: minGain is x, which is no number"),
        ("set minGain=inf", "line 1, character 5: minGain is inf, which is no number"),
        ("set minGain=7", "line 1, character 5: minGain is 7, which is not from 0 to 1"),
        ("set maxMoves=0", "line 1, character 5: maxMoves is 0, which is not at least 1"),
        ("set cooldown=-1", "line 1, character 5: cooldown is -1, which is not at least 0"),
        ("set maxMoves=1.5", "line 1, character 5: maxMoves is 1.5, which is no whole number"),
        ("set autoMigrations=maybe", "line 1, character 5: autoMigrations is maybe, which is neither True nor False"),
        ("set scheduler", "line 1, character 5: scheduler has no value"),
        ("user bob\nvm a user=bo", "line 2, character 6: there is no user bo; did you mean bob?"),
        ("vm 1 a\nvm 1 b", "line 2, character 4: vm 1 is a already, in line 1"),
        ('vm a reason="x', "line 1, character 6: a quotation mark is not closed"),
        ('vm a "b\\x"', "line 1, character 6: between quotation marks only the escapes of JSON are known"),
        ('vm a disk="x y" colour=red', "line 1, character 17: a vm has no colour=; there are busy, "),
        ("vm 1 2c 2G", "line 1, character 6: the name of the vm is missing here"),
        ("host a 1c 1G networks=a", "line 1, character 14: networks is a, which are no whole numbers with commas between them"),
        ("host a 1c 1G usage=3", "line 1, character 14: usage is 3, which is no speed, such as 300MHz"),
        ("time soon", "line 1, character 6: soon is no number"),
        ("sla gold\nvm a sla=gld", "line 2, character 6: there is no class gld; did you mean gold?"),
        ("host a state=norml", "line 1, character 8: there is no state norml; did you mean Normal?"),
        ("=3", "line 1, character 1: "),
        ("a=3", "line 1, character 1: no line begins with a=; there are host, vm, "),
        ("vm a 1c 2c", "line 1, character 9: cores is said twice"),
        ("vm a location=x hint.location=y", "line 1, character 17: location is said twice"),
        ("vm a becomes=3c", "line 1, character 6: becomes= needs cores and memory"),
        ("vm a becomes=3", "line 1, character 6: becomes is 3, which are no sizes with slashes between them"),
        ("vm a usage=3MHz", "line 1, character 6: what waits for a place uses nothing yet"),
        ("vm a moving-to=3", "line 1, character 6: only what is on a host moves"),
        ("cursor", "line 1: write `cursor HOST`"),
        ("host h 8c 9999999T", "line 1, character 11: 9999999T is no size such as 8c, 16G"),
        ("vm a becomes=2c/9999999T", "line 1, character 6: becomes is 2c/9999999T, which are no sizes"),
        ("kept-disk x", "line 1: write `kept-disk NAME VM`"),
        ("rebalance now", "line 1, character 11: `rebalance` stands alone on its line"),
        ("# tashi snapshot 2", "line 1: this is version 2 of the format"),
    ],
)  # fmt: skip
def test_mistakes(text: str, words: str) -> None:
    """Each says the line, the character, and what is accepted there."""
    with pytest.raises(YourMistake) as told:
        read(text)
    assert told.value.message.startswith(words)


def test_a_long_word_is_soon_refused() -> None:
    """A quotation mark that is not closed is told, however long the word is that it stands in."""
    for text in ("host " + "a" * 200_000 + '"', "host " + '"a"' * 60_000 + '"', "host h1 # " + "a" * 200_000 + '" b'):
        try:
            read(text)
        except YourMistake as told:
            assert told.message.startswith("line 1, character 6: a quotation mark is not closed")
        else:
            assert "#" in text


@settings(max_examples=200)
@given(st.text(max_size=30))
def test_any_text_is_understood_or_refused(text: str) -> None:
    """Whatever is read is a snapshot or a mistake that names its line."""
    for line in (text, f"vm a {text}", f"host a 1c 1G {text}"):
        try:
            snapshot = read(line)
        except YourMistake as told:
            assert told.message.startswith("line ")
        else:
            assert read(write(snapshot)) == snapshot


@settings(max_examples=200)
@given(st.text())
def test_any_word_can_be_quoted(word: str) -> None:
    """A word is read as it was written, alone or as a value, whatever is in it."""
    assert Line(1, f"x {quoted(word)} {quoted(word)}={quoted(word)} # more").words == [(word, "", ""), (word, "=", word)]


@settings(max_examples=100)
@given(snapshots(), st.integers(0, 2**32))
def test_what_is_read_is_what_was_written(plain: Snapshot, seed: int) -> None:
    """A snapshot that was written and read is equal to the first, but for what no plan depends on."""
    snapshot = _with_everything(plain, Random(seed))
    again = read(write(snapshot))
    assert again == _what_matters(snapshot)
    assert read(write(again)) == again


@settings(max_examples=20)
@given(snapshots(), st.integers(0, 2**32))
def test_what_is_read_is_planned_alike(plain: Snapshot, seed: int) -> None:
    """What a text leaves out is nothing that any plan depends on."""
    snapshot = _with_everything(plain, Random(seed))
    again = read(write(snapshot))
    for policy in POLICIES.values():
        assert policy(again) == policy(snapshot)


def test_each_step_in_words() -> None:
    """A plan is one line a step, then what is gained, then the remarks; a second move begins where the first one ended."""
    snapshot = a_snapshot("node1 8c 16G | web 2c 4G, db", "node2 8c 16G | web 1c 512M", "node3 8c 1G", waiting="a, big 9c")
    refusals = (Refusal(host="node1", reason="has 8 cores, and the instance asks for 9"),)
    plan = Plan(
        actions=(
            Place(instance_id=4, host_id=2, why="Balanced: load 0.41"),
            Migrate(instance_id=2, host_id=3),
            Migrate(instance_id=2, host_id=2),
            Shrink(instance_id=1, memory=256),
            Grow(instance_id=3, memory=1024, why="there is room"),
            PowerOn(host_id=3),
            PowerOff(host_id=1),
            Postpone(instance_id=5, refusals=refusals),
        ),
        before=Figures(hosts_in_use=5, imbalance=0.213),
        after=Figures(hosts_in_use=3, imbalance=0.051),
        bound=3,
        remarks=("all is well",),
    )
    assert plan_in_words(plan, snapshot) == [
        "place a on node2: Balanced: load 0.41",
        "move db node1 -> node3",
        "move db node3 -> node2",
        "shrink web (1) 4096 -> 256 MB",
        "grow web (3) 512 -> 1024 MB: there is room",
        "power-on node3",
        "power-off node1",
        "wait big: node1: has 8 cores, and the instance asks for 9",
        "hosts in use 5 -> 3, lower bound 3",
        "imbalance 0.213 -> 0.051 (-76 %)",
        "note: all is well",
    ]
    assert plan_as_rows(plan, snapshot)[1] == {
        "action": "move", "instance": "db", "instanceId": 2, "from": "node1", "host": "node3", "hostId": 3, "why": "", "evacuates": False,
    }  # fmt: skip
    assert plan_in_words(Plan(), snapshot) == ["nothing to do"]


def test_the_example_of_the_reference_is_planned_as_it_says() -> None:
    """docs/reference/snapshot-format.md shows a snapshot that can be read, and the plan that comes of it."""
    page = (Path(__file__).parents[2] / "docs/reference/snapshot-format.md").read_text()
    example, answer = (re.findall(rf"^```{name}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[0] for name in ("snapshot", "plan"))
    snapshot = read(example)
    assert plan_in_words(POLICIES[snapshot.settings.policy](snapshot), snapshot) == answer.splitlines()


def test_the_reference_names_every_word() -> None:
    """Whatever may stand on a line is in docs/reference/snapshot-format.md, and so is every state of a host."""
    page = (Path(__file__).parents[2] / "docs/reference/snapshot-format.md").read_text()
    words = {word for kind in KINDS.values() for word in (*kind.values, *kind.flags)} | {state.name for state in HostState}
    assert {word for word in words if not re.search(rf"`[^`]*\b{word}\b", page)} == set()


def _with_everything(snapshot: Snapshot, chance: Random) -> Snapshot:
    """The snapshot with what else there may be in one."""

    def some(names: Iterable[Any], value: Callable[[], Any]) -> dict[Any, Any]:
        return {name: value() for name in names if chance.random() < 0.5}

    hosts = {host_id: _any_host(host, chance) for host_id, host in snapshot.hosts.items()}
    placed = {host_id: tuple(_any_instance(one, chance, hosts) for one in group) for host_id, group in snapshot.placed.items()}
    ours = {host_id: [one.id for one in group] for host_id, group in placed.items()}
    own = msgspec.structs.replace(snapshot.settings, min_gain=chance.random(), most_moves=chance.randint(1, 9))
    return msgspec.structs.replace(
        snapshot,
        hosts=hosts,
        placed=placed,
        pending=tuple(msgspec.structs.replace(_any_instance(one, chance, hosts), migration=None) for one in snapshot.pending),
        loads={},
        settings=msgspec.structs.replace(own, policy=chance.choice(["Primitive", "a policy"])),
        usage={
            host_id: HostUsage(machine=chance.choice([None, 700]), instances=some(ours[host_id], lambda: chance.randint(0, 900)))
            for host_id in some(hosts, bool)
        },
        priorities=some((1000, 1001), lambda: chance.randint(-5, 5)),
        sla_classes={name: SlaClass(name=name, priority=chance.randint(0, 9), memory=chance.choice([0, 100])) for name in ("gold", "a b")},
        ratings=some(hosts, lambda: chance.randint(-2, 2)),
        empty_since=some(hosts, lambda: chance.random() * 1e9),
        kept_disks=some(("disk-1-a-0.img", "disk 2"), lambda: chance.randint(1, 99)),
        time=chance.random() * 1e9,
        rebalance=chance.random() < 0.5,
    )


def _any_host(host: Host, chance: Random) -> Host:
    facts = host.facts and msgspec.structs.replace(
        host.facts, networks=chance.choice([(), (0,), (0, 7)]), vlans=chance.random() < 0.3, hypervisor=chance.choice(["", "qemu (tcg)"])
    )
    name = chance.choice([host.name, f"{host.id}", f"{host.id}c", f"a {host.id}", f"x={host.id}"])
    config = host.config | chance.choice([{}, {"rack": "3 b", "": "", "a=b": "#"}])
    return msgspec.structs.replace(host, name=name, facts=facts, config=config, draining=chance.random() < 0.3)


def _any_instance(one: Instance, chance: Random, hosts: dict[int, Host]) -> Instance:
    def some_host() -> int:
        return chance.choice([*hosts, 99])

    adapts = (Task(adapt=Resources(memory=300, cpu_speed=100)), Task(adapt=Resources(memory=200, cpu_speed=0)))
    becoming = Becoming(cores=2, memory=300, disks=one.disks, resources=Resources(cpu_speed=chance.choice([None, 50])))
    return msgspec.structs.replace(
        one,
        name=chance.choice([one.name, "5", "2c", "on", "", 'a "b"']),
        sla=chance.choice([None, "gold", "a b", "lost"]),
        hints=one.hints | chance.choice([{}, {"with": "a b", "user": "x", "": "\n"}]),
        nics=chance.choice([(), (Nic(network=7, mac="52:54:00:00:00:01"), Nic(network=0))]),
        tasks=chance.choice([(), (Task(),), adapts]),
        memory_limit=chance.choice([None, 100]),
        shrunk_from=chance.choice([None, 100, 2048]),
        migration=chance.choice([None, None, Migration(target=some_host(), who="me")]),
        becoming=chance.choice([None, None, becoming]),
        residue=chance.choice([(), (Residue(host_id=some_host(), generation=4),)]),
        moved_at=chance.choice([0.0, 1234.5]),
        reason=chance.choice(["", "no such image"]),
        generation=chance.randint(0, 9),
        resource_id="secret",
    )


def _what_matters(snapshot: Snapshot) -> Snapshot:
    """The snapshot without what no plan depends on."""
    asked = {one.sla for group in (*snapshot.placed.values(), snapshot.pending) for one in group if one.sla}
    return msgspec.structs.replace(
        snapshot,
        hosts={host_id: _host_that_matters(host) for host_id, host in snapshot.hosts.items()},
        placed={host_id: tuple(map(_instance_that_matters, group)) for host_id, group in snapshot.placed.items()},
        pending=tuple(map(_instance_that_matters, snapshot.pending)),
        sla_classes={name: SlaClass(name=name) for name in asked} | dict(snapshot.sla_classes),
    )


def _host_that_matters(host: Host) -> Host:
    return msgspec.structs.replace(host, facts=host.facts and msgspec.structs.replace(host.facts, version=""))


def _instance_that_matters(one: Instance) -> Instance:
    adapts = [task.adapt for task in one.tasks if task.adapt]
    own = persistent_disks(one)
    return msgspec.structs.replace(
        one,
        disks=tuple(msgspec.structs.replace(disk, persistent=True) for disk in one.disks if disk.uri in own),
        nics=tuple(Nic(network=nic.network) for nic in one.nics),
        tasks=(Task(adapt=Resources(memory=300, cpu_speed=100)),) if adapts else one.tasks,
        migration=one.migration and Migration(target=one.migration.target),
        becoming=one.becoming and msgspec.structs.replace(one.becoming, disks=()),
        residue=tuple(msgspec.structs.replace(left, generation=0) for left in one.residue),
        reason=one.reason if one.refused_by else "",
        generation=0,
        resource_id=None,
    )


def test_a_person_s_snapshot_and_a_program_s_take_the_same_room() -> None:
    """One that migrates is among the guests of both hosts when it is read."""
    snapshot = read("host a 8c 8G\nhost b 8c 8G\nvm x 2c 1G on a moving-to=b\n")
    assert {host_id: [one.name for one in guests] for host_id, guests in guests_of(snapshot).items()} == {1: ["x"], 2: ["x"]}


def test_settings_have_the_ranges_of_the_configuration() -> None:
    """What a number of [Scheduler] may be, it may be in a file, too, and nothing else."""
    forms = {option.name: option.form for option in options_of(Scheduler)}
    for field, name in SETTING_NAMES.items():
        if name in forms and type(getattr(SchedulingSettings(), field)) in (int, float):
            most = forms[name].maximum
            assert RANGES.get(field, (0, math.inf)) == (forms[name].minimum, math.inf if most in (None, ENDLESS) else most), name
