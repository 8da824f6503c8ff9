"""Anything there may be, for hypothesis: records as the model allows them, and clusters to plan on."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from tashi.model.host import Host, HostFacts
from tashi.model.instance import Disk, Instance, Nic
from tashi.model.orders import Destroy, Observation, Order, Report, Seen, Start
from tashi.model.states import ON_A_HOST, HostState, InstanceState
from tashi.scheduling.load import load_of
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


@st.composite
def snapshots(draw: st.DrawFn, most_hosts: int = 4, most_instances: int = 8) -> Snapshot:
    """A cluster with hosts of all kinds, some instances placed without regard to room, and some that wait."""
    names = [f"h{number}" for number in range(1, draw(st.integers(0, most_hosts)) + 1)]
    hosts = {number: draw(_hosts(number, name)) for number, name in enumerate(names, start=1)}
    placed: dict[int, list[Instance]] = {number: [] for number in hosts}
    pending: list[Instance] = []
    for number in range(1, draw(st.integers(0, most_instances)) + 1):
        host_id = draw(st.sampled_from([None, *hosts]))
        instance = draw(_sized(number, host_id, names))
        (pending if host_id is None else placed[host_id]).append(instance)
    groups = {number: tuple(group) for number, group in placed.items()}
    return Snapshot(
        hosts=hosts,
        placed=groups,
        pending=tuple(draw(st.permutations(pending))),
        settings=SchedulingSettings(dense_pack=draw(st.booleans()), cpu_cores_over_rate=draw(st.sampled_from([1.0, 2.5]))),
        loads={number: load_of(group) for number, group in groups.items()} if draw(st.booleans()) else {},
        cursor=draw(st.integers(0, most_hosts)),
    )


@st.composite
def _hosts(draw: st.DrawFn, number: int, name: str) -> Host:
    facts: dict[str, Any] = {"cores": draw(st.integers(1, 8)), "memory": draw(st.sampled_from([512, 2048, 16384]))}
    host = a_host(number, name, **facts, up=draw(st.sampled_from([True, True, False])))
    return msgspec.structs.replace(
        host,
        state=draw(st.sampled_from([HostState.Normal, *HostState])),
        reserved=draw(st.sampled_from([(), (), (1000,), (1001, 1002)])),
        config=draw(st.sampled_from([{}, {"location": "ie"}, {"location": "de", "auditability": "True"}])),
        facts=draw(st.sampled_from([host.facts, host.facts, None])),
    )


@st.composite
def _sized(draw: st.DrawFn, number: int, host_id: int | None, hosts: list[str]) -> Instance:
    hints = {
        "location": draw(st.sampled_from([None, None, None, "ie"])),
        "isolation": draw(st.sampled_from([None, None, None, "True"])),
        "auditability": draw(st.sampled_from([None, None, None, "yes"])),
        "targetHost": draw(st.sampled_from([None, None, None, "nowhere", *hosts])),
        "allowElsewhere": draw(st.sampled_from([None, "True"])),
        "densePack": draw(st.sampled_from([None, None, "True", "False"])),
    }
    state = draw(st.sampled_from(sorted(ON_A_HOST))) if host_id is not None else InstanceState.Pending
    return an_instance(
        number,
        host_id=host_id,
        state=state,
        user_id=draw(st.sampled_from([1000, 1001])),
        cores=draw(st.integers(1, 9)),
        memory=draw(st.sampled_from([1, 128, 512, 4096])),
        cpu_speed=draw(st.sampled_from([None, None, 500, 2500])),
        disks=(Disk(uri=draw(st.sampled_from(["a.img", "b.img"])), persistent=draw(st.booleans())),),
        nics=(Nic(network=draw(st.sampled_from([0, 0, 0, 7]))),),
        hints={name: value for name, value in hints.items() if value is not None},
        refused_by=draw(st.sampled_from([(), (), (1,)])),
    )
