"""Anything there may be, for hypothesis: records as the model allows them, and clusters to plan on."""

from __future__ import annotations

from random import Random

import msgspec
from hypothesis import strategies as st

from tashi.model.host import Host, HostFacts
from tashi.model.instance import Disk, Instance, Migration, Nic, Residue
from tashi.model.orders import Destroy, Observation, Order, Report, Seen, Start
from tashi.model.sla import SlaClass
from tashi.model.states import ON_A_HOST, HostState, InstanceState
from tashi.scheduling.load import HostUsage, load_of
from tashi.scheduling.room import rooms_of
from tashi.scheduling.snapshot import SchedulingSettings, Snapshot
from tests.builders import a_host, an_instance

words = st.text(max_size=8)
ids = st.integers(1, 99)
_disks = st.lists(st.builds(Disk, uri=words, persistent=st.booleans()), max_size=2).map(tuple)
_nics = st.lists(st.builds(Nic, network=st.integers(0, 3), mac=words, ip=st.none() | words), max_size=2).map(tuple)


def instances() -> st.SearchStrategy[Instance]:
    """Any record of an instance."""
    return st.builds(
        Instance, id=ids, name=words, user_id=ids, disks=_disks, nics=_nics, hints=st.dictionaries(words, words, max_size=2),
        state=st.sampled_from(InstanceState), host_id=st.none() | ids, generation=ids, cpu_speed=st.none() | ids,
        reason=words, resource_id=st.none() | words, owner_jid=st.none() | words, refused_by=st.lists(ids, max_size=2).map(tuple),
    )  # fmt: skip


def orders() -> st.SearchStrategy[Order]:
    """Any order."""
    start = st.builds(Start, instance_id=ids, generation=ids, name=words, uuid=words, cores=ids, memory=ids, disks=_disks, nics=_nics)
    return start | st.builds(Destroy, instance_id=ids, generation=ids, uuid=words)


def observations() -> st.SearchStrategy[Observation]:
    """Any sighting."""
    return st.builds(Observation, instance_id=ids, generation=ids, seen=st.sampled_from(Seen), reason=words, nics=_nics)


def reports() -> st.SearchStrategy[Report]:
    """Any page of a report."""
    facts = st.builds(HostFacts, memory=ids, cores=ids, cpu_speed=ids, version=words, networks=st.lists(st.integers(0, 9)).map(tuple))
    return st.builds(Report, facts=facts, observations=st.lists(observations(), max_size=3).map(tuple), full=st.booleans())


def snapshots(most_hosts: int = 4, most_instances: int = 8) -> st.SearchStrategy[Snapshot]:
    """A cluster with hosts of all kinds, some instances placed without regard to room, and some that wait.

    The sizes are hypothesis's own and shrink; what fills them comes from a seed, which is ten times as quick.
    """
    return st.builds(_snapshot, st.integers(0, 2**32), st.integers(0, most_hosts), st.integers(0, most_instances))


def _snapshot(seed: int, host_count: int, instance_count: int) -> Snapshot:
    chance = Random(seed)
    hosts = {number: _host(chance, number) for number in range(1, host_count + 1)}
    placed: dict[int, list[Instance]] = {number: [] for number in hosts}
    pending: list[Instance] = []
    for number in range(1, instance_count + 1):
        host_id = chance.choice([None, None, *hosts])
        (pending if host_id is None else placed[host_id]).append(_sized(chance, number, host_id, host_count))
    chance.shuffle(pending)
    groups = {number: tuple(group) for number, group in placed.items()}
    bare = Snapshot(
        hosts=hosts,
        placed=groups,
        pending=tuple(pending),
        settings=SchedulingSettings(
            dense_pack=chance.random() < 0.5,
            cpu_cores_over_rate=chance.choice([1.0, 2.5]),
            load_expression=chance.choice(["memUsage + coresUsage * 512 + cpuUsage", "coresUsage", "max(memUsage, 1024 * coresUsage)"]),
        ),
        usage={number: _usage(chance, group) for number, group in groups.items() if chance.random() < 0.3},
        priorities={1000: chance.randint(0, 3), 1001: chance.randint(0, 3)},
        sla_classes={"gold": SlaClass(name="gold", priority=10)},
        ratings={number: chance.randint(0, 2) for number in hosts} if chance.random() < 0.5 else {},
        cursor=chance.randint(0, host_count),
    )
    if chance.random() < 0.5:
        return bare
    return msgspec.structs.replace(bare, loads={number: load_of(room.residents) for number, room in rooms_of(bare).items()})


def _usage(chance: Random, group: tuple[Instance, ...]) -> HostUsage:
    return HostUsage(machine=chance.randint(0, 9000), instances={one.id: chance.randint(0, 5000) for one in group if chance.random() < 0.8})


def _host(chance: Random, number: int) -> Host:
    host = a_host(number, cores=chance.randint(1, 8), memory=chance.choice([512, 2048, 16384]), up=chance.random() < 0.8)
    return msgspec.structs.replace(
        host,
        draining=chance.random() < 0.1,
        decayed=chance.random() < 0.1,
        state=chance.choice([HostState.Normal, HostState.Normal, *HostState]),
        reserved=chance.choice([(), (), (1000,), (1001, 1002)]),
        config=chance.choice([{}, {"location": "ie"}, {"location": "de", "auditability": "True"}]),
        facts=chance.choice([host.facts, host.facts, host.facts, None]),
    )


def _sized(chance: Random, number: int, host_id: int | None, host_count: int) -> Instance:
    hints = {
        "location": chance.choice([None, None, None, "ie"]),
        "isolation": chance.choice([None, None, None, "True"]),
        "auditability": chance.choice([None, None, None, "yes"]),
        "targetHost": chance.choice([None, None, None, f"h{chance.randint(1, host_count + 1)}"]),
        "allowElsewhere": chance.choice([None, "True"]),
        "densePack": chance.choice([None, None, "True", "False"]),
        "with": chance.choice([None, None, None, "vm1", "vm2", "vm9"]),
        "apart": chance.choice([None, None, None, "vm1", "vm3", "vm9"]),
        "group": chance.choice([None, None, "web"]),
    }
    migration = residue = None
    if host_id is not None and chance.random() < 0.2:
        migration = Migration(target=chance.randint(1, host_count))
    elif host_count and chance.random() < 0.1:
        residue = (Residue(host_id=chance.randint(1, host_count), generation=1),)
    return an_instance(
        number,
        host_id=host_id,
        state=InstanceState.Pending if host_id is None else InstanceState.MigratePrep if migration else chance.choice(sorted(ON_A_HOST)),
        user_id=chance.choice([1000, 1001]),
        cores=chance.randint(1, 9),
        memory=chance.choice([1, 128, 512, 4096]),
        cpu_speed=chance.choice([None, None, 500, 2500]),
        disks=(Disk(uri=chance.choice(["a.img", "disk-1-a-0.img", "disk-2-b-0.img"]), persistent=chance.random() < 0.2),),
        nics=(Nic(network=chance.choice([0, 0, 0, 7])),),
        hints={name: value for name, value in hints.items() if value is not None},
        refused_by=chance.choice([(), (), (1,)]),
        sla=chance.choice([None, None, "gold"]),
        migration=migration,
        residue=residue or (),
    )
