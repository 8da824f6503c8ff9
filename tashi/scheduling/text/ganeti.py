"""Clusters in the text format of Ganeti's htools (``hbal -t FILE``), to compare on the same file what both make of it.

Conventions, where the two do not know the same:
- Hosts are in one node group. Any instance may move to any of them, since its disks are outside of all (template ``ext``, no size).
- A host that is not up and in service is offline (``Y``), and is read as one that is down.
- The speed of a node is relative to the most frequent one; its MHz stand in the tag ``tashi:mhz:2400``. Without it, 1.0 is 1000 MHz.
- The tag ``tashi:id:7`` is a host's number, without it hosts are numbered as they come. An instance is named ``tashi-12-web1``, and is
  numbered 12; with any other name as they come, too.
- Instances have the tags ``tashi:mhz:350`` (MHz that all its cores together are measured to use) and ``tashi:reserved:500`` (of each core).
- Whatever is on a host is written as running. What is down is read as running, for hbal counts it so.
- cpuCoresOverRate is the vcpu ratio of the cluster's policy; where there is none it is 4, hbal's own.
- What waits for a place, users, hints, networks, host states and settings have no word here, and are left out.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable
from typing import Final

from tashi.errors import BAD_ARGUMENT, YourMistake
from tashi.model.host import Host, HostFacts
from tashi.model.instance import Disk, Instance, domain_name
from tashi.model.states import InstanceState
from tashi.scheduling.load import HostUsage
from tashi.scheduling.snapshot import SchedulingSettings, Snapshot
from tashi.scheduling.terms import is_ready

_GROUP: Final = ("default", "00000000-0000-0000-0000-000000000001")
_DISK: Final = 1_048_576
_SPECS: Final = "128,1,1024,1,1,1|1,1,0,0,0,0;1073741824,1048576,1073741824,1024,1024,1024|ext,sharedfile,blockdev,drbd,plain"
_STANDARD: Final = 1000
_RATIO: Final = 4.0
_NAME: Final = re.compile(r"tashi-(\d{1,9})-(.+)", re.ASCII)

Line = tuple[int, list[str]]
"""Its number in the file, and its columns."""


def write(snapshot: Snapshot) -> str:
    """The cluster as a file for htools. `YourMistake` when a name cannot stand in one."""
    speeds = Counter(host.facts.cpu_speed for host in snapshot.hosts.values() if host.facts and host.facts.cpu_speed)
    standard = max(speeds, key=lambda speed: (speeds[speed], speed), default=_STANDARD)
    ratio = snapshot.settings.cpu_cores_over_rate
    sections: tuple[list[str], ...] = (
        [f"{_GROUP[0]}|{_GROUP[1]}|preferred||"],
        [_node(snapshot, host, standard) for _, host in sorted(snapshot.hosts.items())],
        [_instance(snapshot, one) for _, group in sorted(snapshot.placed.items()) for one in group if one.host_id in snapshot.hosts],
        [],
        [f"{owner}|{_SPECS}|{ratio!r}|1024.0" for owner in ("", _GROUP[0])],
    )
    return "\n".join("".join(f"{line}\n" for line in section) for section in sections)


def read(text: str) -> Snapshot:
    """The cluster in a file for htools. `YourMistake` names the line and the column that is wrong."""
    sections: list[list[Line]] = [[]]
    for number, line in enumerate(text.splitlines(), start=1):
        if line:
            sections[-1].append((number, line.split("|")))
        else:
            sections.append([])
    if len(sections) < 4:
        raise YourMistake(BAD_ARGUMENT, f"there are {len(sections)} sections, and 4 at least in a file for htools: empty lines part them")
    nodes = [_Row(number, columns, 9, "a node") for number, columns in sections[1]]
    guests = [_Row(number, columns, 10, "an instance") for number, columns in sections[2]]
    running: Counter[str] = Counter()
    for row in guests:
        running[row.text(6)] += row.number(1) if row.text(4) == "running" else 0
    own = [row.tag(10, "id") for row in nodes]
    numbers = _Numbers(own)
    hosts = {row.text(0): _host(row, numbers.take(row, its), running[row.text(0)]) for row, its in zip(nodes, own, strict=True)}
    placed: dict[int, list[Instance]] = {host.id: [] for host in hosts.values()}
    usage: dict[int, dict[int, int]] = {}
    named = [_NAME.fullmatch(row.text(0)) for row in guests]
    numbered = [int(name[1]) if name else None for name in named]
    numbers = _Numbers(numbered)
    for row, name, its in zip(guests, named, numbered, strict=True):
        if row.text(6) not in hosts:
            raise row.wrong(6, "no node of the file")
        instance = _guest(row, numbers.take(row, its), name[2] if name else row.text(0), hosts[row.text(6)].id)
        placed[instance.host_id or 0].append(instance)
        used = row.tag(9, "mhz")
        if used is not None:
            usage.setdefault(instance.host_id or 0, {})[instance.id] = used
    return Snapshot(
        hosts={host.id: host for host in hosts.values()},
        placed={host_id: tuple(group) for host_id, group in placed.items()},
        pending=(),
        settings=SchedulingSettings(cpu_cores_over_rate=_ratio(sections[4] if len(sections) > 4 else ())),
        usage={host_id: HostUsage(instances=used) for host_id, used in usage.items()},
    )


def _node(snapshot: Snapshot, host: Host, standard: int) -> str:
    facts = host.facts or HostFacts(memory=0, cores=0, cpu_speed=0, version="")
    taken = sum(one.taken_memory for one in snapshot.placed.get(host.id, ()))
    columns = (
        _checked(host.name), facts.memory, 0, facts.memory - taken, _DISK, _DISK, facts.cores, "N" if is_ready(host) else "Y", _GROUP[1],
        1, f"tashi:id:{host.id},tashi:mhz:{facts.cpu_speed}", "N", 0, 0, f"{(facts.cpu_speed or standard) / standard!r}",
    )  # fmt: skip
    return "|".join(map(str, columns))


def _instance(snapshot: Snapshot, instance: Instance) -> str:
    host = snapshot.hosts[instance.host_id or 0]
    usage = snapshot.usage.get(host.id, HostUsage()).instances.get(instance.id)
    tags = [f"tashi:mhz:{usage}"] if usage is not None else []
    tags += [f"tashi:reserved:{instance.cpu_speed}"] if instance.cpu_speed else []
    name = _checked(domain_name(instance.id, instance.name))
    columns = (name, instance.taken_memory, 0, instance.cores, "running", "Y", host.name, "", "ext", ",".join(tags), 0, "-")
    return "|".join(map(str, columns))


def _checked(name: str) -> str:
    if not name or "|" in name or len(name.splitlines()) > 1:
        raise YourMistake(BAD_ARGUMENT, f"the name {name!r} cannot stand in a file for htools: rename it")
    return name


class _Row:
    """One line of the file, asked column by column, which count from 0 here and from 1 in words."""

    def __init__(self, line: int, columns: list[str], least: int, what: str) -> None:
        self._line = line
        self._columns = columns
        self._what = what
        if len(columns) < least:
            raise YourMistake(BAD_ARGUMENT, f"line {line}: a line of {what} has {least} columns at least, and this one has {len(columns)}")

    def text(self, column: int) -> str:
        """The text of a column; nothing where the line is shorter."""
        return self._columns[column] if column < len(self._columns) else ""

    def number(self, column: int) -> int:
        """The whole number in a column; ``?``, which stands for what is not known, is 0."""
        text = self.text(column)
        if text == "?":
            return 0
        if not re.fullmatch(r"-?\d{1,12}", text, re.ASCII):
            raise self.wrong(column, "no whole number")
        return int(text)

    def share(self, column: int, missing: float) -> float:
        """The number in a column, 0 at least; ``missing`` where the line is shorter."""
        text = self.text(column)
        if not text:
            return missing
        if not re.fullmatch(r"\d{1,9}(\.\d{1,18})?", text, re.ASCII):
            raise self.wrong(column, "no number")
        return float(text)

    def tag(self, column: int, name: str) -> int | None:
        """The number in one of our tags, if it is there."""
        found = re.search(rf"(?:^|,)tashi:{name}:(\d{{1,9}})(?:,|$)", self.text(column), re.ASCII)
        return int(found[1]) if found else None

    def wrong(self, column: int, why: str) -> YourMistake:
        """What is wrong with a column."""
        text = self.text(column)[:40]
        return YourMistake(BAD_ARGUMENT, f"line {self._line}, column {column + 1} of {self._what}: {text!r} is {why}")


class _Numbers:
    """Who has which number; ``own`` are those that bring one along."""

    def __init__(self, own: Iterable[int | None]) -> None:
        theirs = frozenset(own)
        self._free = (number for number in itertools.count(1) if number not in theirs)
        self._taken: set[int | str] = set()

    def take(self, row: _Row, number: int | None) -> int:
        """The number for the next one: its own, or one that is free; its name is its alone, too."""
        if number is None:
            number = next(self._free)
        if not self._taken.isdisjoint((number, row.text(0))):
            raise row.wrong(0, "named twice, or has the number of another")
        self._taken |= {number, row.text(0)}
        return number


def _host(row: _Row, host_id: int, running: int) -> Host:
    """The node; it offers the memory that is free, and what those take that run there."""
    online = row.text(7) != "Y" and "?" not in [row.text(column) for column in range(1, 7)]
    megahertz = row.tag(10, "mhz")
    facts = HostFacts(
        memory=row.number(3) + running,
        cores=row.number(6),
        cpu_speed=round(row.share(14, 1.0) * _STANDARD) if megahertz is None else megahertz,
        version="",
    )
    return Host(id=host_id, name=row.text(0), up=online, decayed=not online, facts=facts)


def _guest(row: _Row, instance_id: int, name: str, host_id: int) -> Instance:
    return Instance(
        id=instance_id,
        name=name,
        user_id=0,
        disks=(Disk(uri="tashi.img"),),
        cores=row.number(3),
        memory=row.number(1),
        cpu_speed=row.tag(9, "reserved"),
        host_id=host_id,
        state=InstanceState.Running,
    )


def _ratio(policies: Iterable[Line]) -> float:
    """The vcpu ratio of the cluster's policy, 1 at least."""
    for number, columns in policies:
        if not columns[0]:
            return max(1.0, _Row(number, columns, 6, "a policy").share(4, _RATIO))
    return _RATIO
