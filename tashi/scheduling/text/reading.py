"""A snapshot as text that a person can write: hosts and instances, one a line. This half reads it; `writing` writes it.

Whatever planning depends on is in it; what no plan depends on (images, MAC addresses, secrets, generations, ...) is not.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, Final

import msgspec

from tashi.model.host import Host, HostFacts
from tashi.model.instance import Becoming, Disk, Instance, Migration, Nic, Residue, Resources, Task
from tashi.model.sla import SlaClass
from tashi.model.states import HostState, InstanceState
from tashi.scheduling.load import HostUsage
from tashi.scheduling.snapshot import SchedulingSettings, Snapshot
from tashi.scheduling.text.entries import CONFIG, HINTS, KINDS, Entry, Fields, converted
from tashi.scheduling.text.grammar import SETTING_NAMES, Line, Malformed, Sizes, did_you_mean, lines_of, number, setting, whole

DEFAULT_USER: Final = 1000
DEFAULT_SPEED: Final = 2000
"""MHz of each core of a host whose line says none."""
_OTHERS: Final = ("time", "set", "kept-disk", "queue", "cursor", "rebalance")


def read(text: str) -> Snapshot:
    """The snapshot in this text; YourMistake names the line and the character of the first mistake, and what is accepted."""
    return _Reader(text).snapshot()


class _Reader:
    """Lines are read one by one; names are looked up when all of them are known."""

    def __init__(self, text: str) -> None:
        self._entries: dict[str, list[Entry]] = {"host": [], "vm": [], "user": [], "sla": []}
        self._later: list[Line] = []
        self._settings: Fields = {}
        self._time = 0.0
        self._rebalance = False
        sizes = Sizes()
        for line in lines_of(text):
            if line.kind in KINDS:
                self._entries[line.kind].append(Entry(line, sizes))
            else:
                self._take(line)
        self._hosts = _Names("host", self._entries["host"], 1)
        self._vms = _Names("vm", self._entries["vm"], 1)
        self._users = _Names("user", self._entries["user"], DEFAULT_USER)

    def snapshot(self) -> Snapshot:
        """All of it put together."""
        sla_classes: dict[str, SlaClass] = {}
        for entry in self._entries["sla"]:
            if entry.name in sla_classes:
                entry.line.refuse(0, f"the class {entry.name} stands on an earlier line, too")
            sla_classes[entry.name] = SlaClass(name=entry.name, **entry.fields)
        priorities = {entry.number or 0: entry.fields.get("priority", 0) for entry in self._entries["user"]}
        hosts = {entry.number: self._host(entry) for entry in self._entries["host"] if entry.number is not None}
        placed: dict[int, list[Instance]] = {host_id: [] for host_id in hosts}
        pending: list[Instance] = []
        usage: dict[int, dict[int, int]] = {
            host_id: {}
            for host_id, entry in zip(hosts, self._entries["host"], strict=True)
            if "measured" in entry.fields or "usage" in entry.fields
        }
        for entry in self._entries["vm"]:
            instance = self._instance(entry, sla_classes)
            (pending if instance.host_id is None else placed.setdefault(instance.host_id, [])).append(instance)
            if "usage" in entry.fields:
                if instance.host_id is None:
                    entry.refuse("usage", "what waits for a place uses nothing yet; say on which host it is with `on NAME`")
                usage.setdefault(instance.host_id, {})[instance.id] = entry.fields["usage"]
        machines = {entry.number: entry.fields.get("usage") for entry in self._entries["host"]}
        snapshot = Snapshot(
            hosts=hosts,
            placed={host_id: tuple(group) for host_id, group in placed.items()},
            pending=(),
            settings=SchedulingSettings(**self._settings),
            usage={host_id: HostUsage(machine=machines.get(host_id), instances=used) for host_id, used in usage.items()},
            priorities=priorities,
            sla_classes=sla_classes,
            ratings=self._by_host("rating"),
            empty_since=self._by_host("empty-since"),
            time=self._time,
            rebalance=self._rebalance,
        )
        return self._last_words(snapshot, pending)

    def _last_words(self, snapshot: Snapshot, pending: list[Instance]) -> Snapshot:
        """The lines that speak of hosts and instances by name."""
        kept: dict[str, int] = {}
        cursor, queue = 0, {}
        for line in self._later:
            words = [name for name, sign, _ in line.words if not sign]
            if line.kind == "kept-disk" and len(words) == len(line.words) == 2:
                kept[words[0]] = self._vms.number(words[1], line, 1)
            elif line.kind == "kept-disk":
                line.refuse(None, "write `kept-disk NAME VM`, such as `kept-disk disk-7-db-0.img 7`")
            elif line.kind == "cursor" and len(words) == len(line.words) == 1:
                cursor = self._hosts.number(words[0], line, 0)
            elif line.kind == "cursor":
                line.refuse(None, "write `cursor HOST`: the host that got the last instance")
            else:
                queue = {self._vms.number(word, line, place): place for place, word in enumerate(words)}
        pending.sort(key=lambda one: (queue.get(one.id, len(queue)), -snapshot.priority(one), one.id))
        return msgspec.structs.replace(snapshot, pending=tuple(pending), kept_disks=kept, cursor=cursor)

    def _take(self, line: Line) -> None:
        match line.kind:
            case "set":
                self._set(line)
            case "time":
                if len(line.words) != 1 or line.words[0][1]:
                    line.refuse(None, "write `time SECONDS`, such as `time 1000000`")
                self._time = converted(line, 0, number, line.words[0][0])
            case "rebalance":
                if line.words:
                    line.refuse(0, "`rebalance` stands alone on its line")
                self._rebalance = True
            case "cursor" | "queue" | "kept-disk":
                self._later.append(line)
            case kind:
                word = kind or f"{line.words[0][0]}="
                line.refuse(-1, f"no line begins with {word}{did_you_mean(word, (*KINDS, *_OTHERS))}")

    def _set(self, line: Line) -> None:
        for place, (name, sign, value) in enumerate(line.words):
            if not sign:
                line.refuse(place, f"{name} has no value; write NAME=VALUE, such as scheduler=Balanced")
            try:
                field, converted = setting(name, value)
            except KeyError:
                line.refuse(place, f"there is no setting {name}{did_you_mean(name, SETTING_NAMES.values())}")
            except Malformed as error:
                line.refuse(place, f"{name} is {value}, which {error}")
            self._settings[field] = converted

    def _by_host(self, field: str) -> dict[int, Any]:
        return {entry.number or 0: entry.fields[field] for entry in self._entries["host"] if field in entry.fields}

    def _host(self, entry: Entry) -> Host:
        fields = entry.fields
        facts = None
        if fields.keys() & {"cores", "memory", "speed", "networks", "vlans", "hypervisor"}:
            missing = [name for name in ("cores", "memory") if name not in fields]
            if missing:
                entry.line.refuse(
                    None, f"host {entry.name} says no {missing[0]}; write for example `8c 16G`, or no size if nothing is known"
                )
            facts = HostFacts(
                cores=fields["cores"],
                memory=fields["memory"],
                cpu_speed=fields.get("speed", DEFAULT_SPEED),
                version="",
                hypervisor=fields.get("hypervisor", ""),
                networks=fields.get("networks", (0,)),
                vlans="vlans" in fields,
            )
        reserved = fields.get("reserved", "")
        return Host(
            id=entry.number or 0,
            name=entry.name,
            up="down" not in fields,
            decayed="decayed" in fields,
            state=fields.get("state", HostState.Normal),
            facts=facts,
            draining="draining" in fields,
            reserved=self._users.numbers(reserved, entry, "reserved"),
            config=_prefixed(fields, CONFIG, "config."),
        )

    def _instance(self, entry: Entry, sla_classes: Mapping[str, SlaClass]) -> Instance:
        fields = entry.fields
        host, target, user, sla = fields.get("on"), fields.get("moving-to"), fields.get("user"), fields.get("sla")
        if sla is not None and sla not in sla_classes:
            entry.refuse("sla", f"there is no class {sla}{did_you_mean(sla, sla_classes)}; declare it with `sla {sla}`")
        if target is not None and host is None:
            entry.refuse("moving-to", "only what is on a host moves; say on which with `on NAME`")
        usual = InstanceState.Pending if host is None else InstanceState.Running if target is None else InstanceState.MigrateTrans
        rare: Fields = {}
        if fields.keys() & _RARE:
            rare = self._rare(entry)
        return Instance(
            id=entry.number or 0,
            name=entry.name,
            cores=fields.get("cores", 1),
            memory=fields.get("memory", 128),
            cpu_speed=fields.get("speed"),
            host_id=None if host is None else self._hosts.of(host, entry, "on"),
            user_id=DEFAULT_USER if user is None else self._users.of(user, entry, "user"),
            sla=sla,
            state=fields.get("state", usual),
            hints=_prefixed(fields, HINTS, "hint."),
            nics=tuple(Nic(network=one) for one in fields.get("networks", ())),
            disks=tuple(Disk(uri=uri, persistent=True) for uri in fields.get("disks", ())),
            **rare,
        )

    def _rare(self, entry: Entry) -> Fields:
        """What most instances have nothing of."""
        fields = entry.fields
        found: Fields = {
            "memory_limit": fields.get("limit"),
            "shrunk_from": fields.get("shrunk-from"),
            "moved_at": fields.get("moved-at", 0.0),
            "reason": fields.get("reason", ""),
            "refused_by": self._hosts.numbers(fields.get("refused-by", ""), entry, "refused-by"),
        }
        left = self._hosts.numbers(fields.get("left-on", ""), entry, "left-on")
        found["residue"] = tuple(Residue(host_id=host_id, generation=0) for host_id in left)
        if "moving-to" in fields:
            found["migration"] = Migration(target=self._hosts.of(fields["moving-to"], entry, "moving-to"))
        if "adapting-to" in fields:
            adapt = fields["adapting-to"]
            found["tasks"] = (Task(adapt=Resources(memory=adapt.get("memory"), cpu_speed=adapt.get("speed"))),)
        elif "busy" in fields:
            found["tasks"] = (Task(),)
        if "becomes" in fields:
            becomes = fields["becomes"]
            if not {"cores", "memory"} <= becomes.keys():
                entry.refuse("becomes", "becomes= needs cores and memory, such as becomes=4c/8G")
            resources = Resources(cpu_speed=becomes.get("speed"))
            found["becoming"] = Becoming(cores=becomes["cores"], memory=becomes["memory"], disks=(), resources=resources)
        return found


_RARE: Final = frozenset(
    {"limit", "shrunk-from", "moved-at", "reason", "refused-by", "left-on", "moving-to", "adapting-to", "busy", "becomes"}
)


class _Names:
    """Hosts, instances or users by number and by name. Those without a number get the lowest that are free, from ``first`` on."""

    def __init__(self, kind: str, entries: list[Entry], first: int) -> None:
        self._kind = kind
        self._by_number: dict[int, Entry] = {}
        self._by_name: dict[str, int] = {}
        for entry in entries:
            if entry.number is not None:
                other = self._by_number.setdefault(entry.number, entry)
                if other is not entry:
                    entry.line.refuse(0, f"{kind} {entry.number} is {other.name} already, in line {other.line.number}")
        free = first
        for entry in entries:
            if entry.number is None:
                while free in self._by_number:
                    free += 1
                entry.number = free
                self._by_number[free] = entry
            self._by_name.setdefault(entry.name, entry.number)

    def of(self, word: str, entry: Entry, field: str) -> int:
        """Whom a field of a line names."""
        found = self._by_name.get(word) if not word.isdecimal() else None
        return found if found is not None else self.number(word, entry.line, entry.places.get(field))

    def numbers(self, words: str, entry: Entry, field: str) -> tuple[int, ...]:
        """Whom a field names, with commas between them."""
        return tuple(self.of(word, entry, field) for word in words.split(",")) if words else ()

    def number(self, word: str, line: Line, place: int | None) -> int:
        """Whom a word names: a number need not be anybody's, for a cluster may speak of what it has lost."""
        if word.isdecimal():
            return converted(line, place or 0, whole, word)
        if word not in self._by_name:
            line.refuse(place, f"there is no {self._kind} {word}{did_you_mean(word, self._by_name)}")
        return self._by_name[word]


def _prefixed(fields: Fields, names: Container[str], prefix: str) -> dict[str, str]:
    """The hints, or the host's configuration, among the fields."""
    return {name.removeprefix(prefix): value for name, value in fields.items() if name in names or name.startswith(prefix)}
