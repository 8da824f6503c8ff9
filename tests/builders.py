"""Small things for tests to begin with: `a_host()`, `an_instance(memory=512)`, `a_snapshot("h1 8c 16G | vm1 2c 4G")`.

Everything has a sensible value; a test names only what it is about.
"""

from __future__ import annotations

import re
from typing import Any

from tashi.model.host import Host, HostFacts
from tashi.model.host_identity import HostIdentity
from tashi.model.instance import Disk, Instance, InstanceSpec
from tashi.model.orders import NodeLogin, Observation, Report, Seen
from tashi.model.request import Origin
from tashi.model.states import InstanceState
from tashi.model.user import Principal, User
from tashi.scheduling.snapshot import SchedulingSettings, Snapshot

IMAGE = "tashi.img"
JOIN_SECRET = "join".ljust(32, "!")
ISM = Principal(name="ism@example.org", trusted=True, jid="ism@example.org")
ADMIN = Principal(name="root", user_id=0, admin=True)
ALICE = Principal(name="alice@example.org", user_id=1000, jid="alice@example.org")
BOB = Principal(name="bob", user_id=1001)
USERS = (User(id=1000, name="alice", jid="alice@example.org"), User(id=1001, name="bob"))

_SIZE = re.compile(r"(\d+)([cMG])")


def some_facts(*, cores: int = 8, memory: int = 16384, **fields: Any) -> HostFacts:
    """What a machine offers."""
    return HostFacts(**{"cores": cores, "memory": memory, "cpu_speed": 2000, "version": "1", **fields})


def a_host(host_id: int = 1, name: str = "", *, cores: int = 8, memory: int = 16384, **fields: Any) -> Host:
    """A host that is up and takes anything that fits."""
    facts = some_facts(cores=cores, memory=memory)
    return Host(**{"id": host_id, "name": name or f"h{host_id}", "up": True, "decayed": False, "facts": facts, **fields})


def a_spec(name: str = "vm1", **fields: Any) -> InstanceSpec:
    """What alice may ask for: one core, 128 MB, the cell's image."""
    return InstanceSpec(**{"name": name, "user_id": 1000, "disks": (Disk(uri="tashi"),), **fields})


def an_instance(instance_id: int = 1, name: str = "", **fields: Any) -> Instance:
    """An instance that waits for its place; one with a host runs there."""
    state = InstanceState.Pending if fields.get("host_id") is None else InstanceState.Running
    return Instance(
        **{"id": instance_id, "name": name or f"vm{instance_id}", "user_id": 1000, "disks": (Disk(uri=IMAGE),), "state": state, **fields}
    )


def a_snapshot(*hosts: str, waiting: str = "", **settings: Any) -> Snapshot:
    """A cluster in words, one text a host: ``"h1 8c 16G | vm1 2c 4G, vm2 1c"``; ``waiting`` are those that have no place."""
    found: dict[int, Host] = {}
    placed: dict[int, tuple[Instance, ...]] = {}
    number = 0
    for host_id, text in enumerate(hosts, start=1):
        machine, _, guests = text.partition("|")
        name, sizes = _sizes(machine)
        found[host_id] = a_host(host_id, name, **sizes)
        group = []
        for guest in _listed(guests):
            number += 1
            group.append(_guest(number, guest, host_id))
        placed[host_id] = tuple(group)
    pending = tuple(_guest(number + place, guest, None) for place, guest in enumerate(_listed(waiting), start=1))
    return Snapshot(hosts=found, placed=placed, pending=pending, settings=SchedulingSettings(**settings))


def an_origin(stanza: str | None = "s1", verb: str = "createcompute", **fields: Any) -> Origin:
    """Where the ISM's command came from; each ``stanza`` is another one."""
    return Origin(**{"sender": ISM.jid, "reply_to": f"{ISM.jid}/laptop", "stanza_id": stanza, "verb": verb, "fingerprint": "f", **fields})


def a_login(name: str = "h1", **fields: Any) -> NodeLogin:
    """How the agent of a new host names itself."""
    login = {"name": name, "secret": f"{name}'s secret".ljust(32, "!"), "join": JOIN_SECRET, "version": "1"}
    return NodeLogin(**{**login, "identity": an_identity(name), **fields})


def an_identity(name: str = "h1", boot: int = 1, **fields: Any) -> HostIdentity:
    """The machine of the host of this name, and one of its boots."""
    machine = {"machine_id": f"machine of {name}", "host_uuid": f"uuid of {name}", "uri": "qemu:///system", "boot_id": f"boot {boot}"}
    return HostIdentity(**{**machine, **fields})


def seen(instance: Instance, what: Seen = Seen.RUNNING, **fields: Any) -> Observation:
    """What a host says of an instance, in answer to its last order."""
    return Observation(**{"instance_id": instance.id, "generation": instance.generation, "seen": what, **fields})


def a_report(*observations: Observation, full: bool = False, **fields: Any) -> Report:
    """One page of what a host has to say."""
    return Report(**{"facts": some_facts(), "observations": observations, "full": full, **fields})


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _guest(instance_id: int, text: str, host_id: int | None) -> Instance:
    name, sizes = _sizes(text)
    return an_instance(instance_id, name, host_id=host_id, **sizes)


def _sizes(text: str) -> tuple[str, dict[str, int]]:
    name, *words = text.split()
    sizes: dict[str, int] = {}
    for word in words:
        match = _SIZE.fullmatch(word)
        assert match is not None, f"{word!r} is no size such as 8c, 512M or 16G"
        amount = int(match[1])
        sizes |= {"c": {"cores": amount}, "M": {"memory": amount}, "G": {"memory": amount * 1024}}[match[2]]
    return name, sizes
