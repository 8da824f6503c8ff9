"""A cell in memory, on a clock that only the test moves: a real cluster manager, a store, and hosts that do as the test says."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tashi.errors import UNKNOWN_IMAGE, YourMistake
from tashi.images.directory import ImageFile
from tashi.interfaces import IPower, IStore
from tashi.manager.planner import InThread
from tashi.manager.service import ClusterManager
from tashi.manager.settings import ManagerSettings
from tashi.model.disks import DiskRecord, is_own
from tashi.model.host import Host
from tashi.model.instance import Instance, InstanceSpec, InstanceUpdate, Resources
from tashi.model.request import Origin, Outgoing
from tashi.model.user import Principal
from tashi.scheduling.policies import POLICIES, Policy
from tashi.store.memory import MemoryStore
from tests.builders import ISM, JOIN_SECRET, USERS, a_spec, an_origin
from tests.fake_agent import FakeAgent, result_of

__all__ = ["FakeAgent", "Images", "Process", "SmallCell", "result_of"]


class Process:
    """The part of a clock that belongs to one process: killed, none of its calls happens any more."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.alive = True

    def seconds(self) -> float:
        return self._clock.seconds()

    def callLater(self, delay: float, call: Callable[..., object], *arguments: Any, **named: Any) -> Any:
        return self._clock.callLater(delay, lambda: call(*arguments, **named) if self.alive else None)

    def kill(self) -> None:
        self.alive = False


class Wall:
    """The time of day: it goes with the clock, and jumps when a test moves ``offset``."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.offset = 0.0

    def seconds(self) -> float:
        return self._clock.seconds() + self.offset


class Images:
    """Two images, called tashi and other, and every persistent disk that may be used."""

    path = "/images"

    def __init__(self, forget_saved: Callable[[str], object] = bool, may_be_saved: Callable[[str], bool] = bool) -> None:
        self._forget_saved = forget_saved
        self._may_be_saved = may_be_saved
        self.files = [ImageFile(name="other.img", size="1.00G"), ImageFile(name="tashi.img", size="1.00G")]

    def may_be_saved(self, saved: str) -> bool:
        """Whether a suspended instance's memory is kept."""
        return self._may_be_saved(saved)

    def is_saved(self, saved: str) -> bool:
        """See Directory."""
        return self._may_be_saved(saved)

    def forget_saved(self, saved: str, cell: str) -> None:
        """What a suspended instance has left is not needed any more."""
        self._forget_saved(saved)

    def resolve(self, identifier: str, may_use: Callable[[str], bool]) -> str:
        """The file name; every persistent disk is taken to be there."""
        if is_own(identifier) and may_use(identifier):
            return identifier
        name = identifier.removesuffix(".img")
        if name not in ("tashi", "other"):
            raise YourMistake(UNKNOWN_IMAGE, f"there is no image {identifier}")
        return f"{name}.img"

    def list(self) -> list[ImageFile]:
        """What the test has put there."""
        return self.files


class SmallCell:
    """One cell; `restart` ends its manager as a power cut would and starts the next on the same rows."""

    def __init__(
        self,
        store: IStore | None = None,
        *,
        hosts: Sequence[FakeAgent] = (),
        publishing: bool = True,
        power: IPower | None = None,
        policy: Policy = POLICIES["Primitive"],
        in_thread: InThread | None = None,
        first_free_uid: Callable[[int], int] = lambda least: least,
        **settings: Any,
    ) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.wall = Wall(self.clock)
        self.store = store or MemoryStore()
        self.settings = ManagerSettings(**{"trusted": frozenset({ISM.jid}), **settings})
        self.publishing = publishing
        self.power = power
        self.policy = policy
        self.in_thread = in_thread
        self.first_free_uid = first_free_uid
        self.agents = list(hosts)
        self._random = Random(0)
        self.saved: set[str] = set()
        """What is kept in the directory that the hosts share."""
        self._told: dict[int, Outgoing] = {}
        self._start()
        with self.manager.cluster.transaction("register_users") as tx:
            for user in USERS:
                tx.put_user(user)
        self.settle()

    def _start(self) -> None:
        self.process = Process(self.clock)
        self.images = Images(self.saved.discard, self.saved.__contains__)
        self.manager = ClusterManager(
            self.process,
            self.store,
            self.images,
            self.settings,
            self.policy,
            join_secret=JOIN_SECRET,
            version="1",
            publishing=self.publishing,
            make_power=self._make_power,
            in_thread=self.in_thread,
            first_free_uid=self.first_free_uid,
            wall=self.wall,
            random_bytes=self._random.randbytes,
            write_audit=self.write_audit,
        )
        result_of(self.manager.open())
        self.manager.startService()
        self.manager.outbox.subscribe(self._collect)
        self._collect()
        for agent in self.agents:
            agent.login(self)

    def write_audit(self, line: str) -> None:
        """Take a line of the audit log; a test that wants them keeps them."""

    def _make_power(self, shut_down: Callable[[Host], Awaitable[None]]) -> IPower | None:
        self.shut_down = shut_down
        return self.power

    def restart(self) -> None:
        """Everything that is not on the disk yet is lost; the hosts live on and come back."""
        self.process.kill()
        for agent in self.agents:
            agent.orders.clear()
        self._start()
        self.settle()

    def join(self, agent: FakeAgent) -> FakeAgent:
        """One more host."""
        self.agents.append(agent)
        agent.login(self)
        self.settle()
        return agent

    def settle(self, seconds: float = 0.2) -> None:
        """Let this much time pass, in which hosts do what they are told."""
        for _ in range(max(1, round(seconds / 0.02))):
            self.clock.advance(0.02)

    def work(self) -> None:
        """Let every host carry out its orders, and what follows from them, until nothing more does."""
        self.settle()
        while sum(agent.work() for agent in self.agents):
            self.settle()

    def deliver(self) -> None:
        """All that is outgoing arrives."""
        self.manager.outbox.done([row.id for row in self.manager.outbox.pending()])

    def live(self, seconds: float) -> None:
        """Let time pass in which the hosts that have a link say that they live."""
        for _ in range(max(1, round(seconds))):
            self.clock.advance(1.0)
            for agent in self.agents:
                agent.tell()
        self.settle()

    def create(self, *specs: InstanceSpec, stanza: str = "s1", who: Principal = ISM, origin: Origin | None = None) -> None:
        """The ISM's createcompute, or createmanycompute of several."""
        wanted = specs or (a_spec(),)
        verb = "createcompute" if len(wanted) == 1 else "createmanycompute"
        self.manager.commands.create(who, origin or an_origin(stanza, verb), wanted, [str(spec) for spec in wanted])

    def delete(self, reference: int | str, stanza: str = "d1", who: Principal = ISM) -> None:
        """The ISM's deletecompute."""
        self.manager.commands.delete(who, an_origin(stanza, "deletecompute"), reference)

    def update(self, resource_id: str, stanza: str = "u1", who: Principal = ISM, **fields: Any) -> None:
        """The ISM's updatecompute; the fields are those of Resources, and beside them those of InstanceUpdate."""
        resources = Resources(**{name: fields.pop(name) for name in list(fields) if name in Resources.__struct_fields__})
        update = InstanceUpdate(resource_id=resource_id, resources=resources, **fields)
        self.manager.commands.update(who, an_origin(stanza, "updatecompute"), update)

    def call(self, who: Principal, verb: str, **arguments: Any) -> Any:
        """A verb over Perspective Broker, and the moment that its answer takes."""
        call = Deferred.fromCoroutine(self.manager.verbs.call(who, verb, arguments))
        self.settle()
        return result_of(call)

    def own_disk(self, name: str, user_id: int | None = 1000) -> None:
        """Record whose this persistent disk is; None: it belongs to nobody."""
        with self.manager.cluster.transaction("own_disk") as tx:
            tx.put_disk(DiskRecord(name=name, user_id=user_id, instance_id=9))

    def instance(self, name: str = "vm1") -> Instance:
        """The newest living instance of this name."""
        return max((one for one in self.manager.cluster.instances.values() if one.name == name), key=lambda one: one.id)

    def state(self, name: str = "vm1") -> str:
        """Its state's name; "none" when no such instance lives."""
        found = [one for one in self.manager.cluster.instances.values() if one.name == name]
        return found[-1].state.name if found else "none"

    @property
    def replies(self) -> list[dict[str, Any]]:
        """The bodies of all that was ever told to somebody, oldest first, the same stanza id only once."""
        rows = {row.stanza_id: row for row in self._told.values() if row.to}
        return [json.loads(row.body) for row in rows.values()]

    @property
    def outgoing(self) -> list[Outgoing]:
        """All rows that ever left."""
        return list(self._told.values())

    @property
    def all_events(self) -> list[dict[str, Any]]:
        """All events that ever left, oldest first."""
        return [json.loads(row.body) for row in self._told.values() if not row.to]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The same without layouts."""
        return [event for event in self.all_events if event["type"] != "vmLayout"]

    def actions(self) -> list[str]:
        """What happened to instances, in their events' words."""
        return [event["action"] for event in self.events if event["type"] == "vmAction"]

    def _collect(self) -> None:
        self._told.update({row.id: row for row in self.manager.outbox.pending()})
