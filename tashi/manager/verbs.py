"""The verbs of the command line and of programs over Perspective Broker: one method a verb, plain JSON data in and out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from tashi.errors import AMBIGUOUS, BAD_ARGUMENT, BUSY, FORBIDDEN, UNKNOWN_ID, UNKNOWN_VERB, OurFault, YourMistake
from tashi.manager.adaptations import ADAPTATIONS, wished_by
from tashi.manager.arguments import Arguments, check_bounds, reference, text
from tashi.manager.cluster import Cluster
from tashi.manager.creation import Creation
from tashi.manager.explanation import Explanation
from tashi.manager.images import Images
from tashi.manager.lifecycle import destroy
from tashi.manager.lookup import check_owner, living_instance, the_host, the_user
from tashi.manager.migrations import migrate
from tashi.manager.operations import the_user_who_asks
from tashi.manager.operator_verbs import OperatorVerbs
from tashi.manager.refused_calls import RefusedCalls
from tashi.manager.settings import ManagerSettings
from tashi.manager.specific import SpecificCalls
from tashi.manager.usage import Usage
from tashi.manager.waiting import UNTIL, Waiting
from tashi.manager.wishes import adapt, wish
from tashi.model.bounds import one_line
from tashi.model.events import audit_record
from tashi.model.instance import Disk, Instance, InstanceSpec, Nic
from tashi.model.names import shown
from tashi.model.states import Happening
from tashi.model.user import Principal
from tashi.model.views import host_row, instance_row, plain, user_row

Method = Callable[[Principal, Arguments], Any | Awaitable[Any]]
LONGEST_WAIT = 7 * 24 * 3600
MOST_IN_PLANNING_THREAD: Final = 4
"""Open calls of one user that take the scheduler's time, which plans for all; administrators have no limit."""
_IN_PLANNING_THREAD = frozenset({"plan", "explain"})
_CHANGES = frozenset(
    {
        "createvm", "createmany", "destroyvm", "destroymany", "pausevm", "unpausevm", "shutdownvm", "shutdownmany", "vmmspecificcall",
        "suspendvm", "resumevm", "migratevm", "drainhost", "sethoststate", "unregisterhost",
        "adaptcpushare", "adaptmemorylimit", "adaptdiskbandwidth", "adaptnetworkbandwidth", "sethostconfig", "registeruser",
        "unregisteruser", "openconsole", "poweron", "poweroff", "adoptvm", "destroystray",
    }
)  # fmt: skip


class WantedNic(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A network card that is asked for; without a network it is on the cell's default one."""

    network: int | None = None
    mac: str = ""
    ip: str | None = None


class Wanted(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The arguments of createVm, and of each instance of createMany."""

    name: str
    disks: tuple[Disk, ...]
    user_id: int | str | None = None  # or the user's name
    cores: int = 1
    memory: int = 128
    cpu_share: int = 1024
    disk_iops: int | None = None
    disk_bytes: int | None = None
    nics: tuple[WantedNic, ...] = ()
    hints: dict[str, str] = {}


class Part(Protocol):
    """Some of the verbs, with what they do."""

    @property
    def verbs(self) -> Mapping[str, Method]:
        """The methods by the verbs in lower case."""


class Verbs:
    """What `call(who, verb, arguments)` can do; the verb is case-insensitive."""

    def __init__(
        self,
        cluster: Cluster,
        creation: Creation,
        images: Images,
        explanation: Explanation,
        waiting: Waiting,
        settings: ManagerSettings,
        kick: Callable[[], None],
        drain: Callable[[], None],
        usage: Usage,
        specific: SpecificCalls,
        parts: Sequence[Part],
        first_free_uid: Callable[[int], int],
        refused: RefusedCalls,
    ) -> None:
        self._cluster = cluster
        self._refused = refused
        self._planning: Counter[str] = Counter()  # open calls that wait for the planning thread, by user
        self._creation = creation
        self._images = images
        self._explanation = explanation
        self._waiting = waiting
        self._settings = settings
        self._kick = kick
        self._usage = usage
        self._specific = specific
        self._table: dict[str, Method] = {
            "createvm": self._create_vm,
            "createmany": self._create_many,
            "destroyvm": self._destroy_vm,
            "destroymany": self._destroy_many,
            "pausevm": lambda who, arguments: self._wish(who, arguments, "pausevm", Happening.PAUSE_ASKED),
            "unpausevm": lambda who, arguments: self._wish(who, arguments, "unpausevm", Happening.UNPAUSE_ASKED),
            "shutdownvm": lambda who, arguments: self._wish(who, arguments, "shutdownvm", Happening.SHUTDOWN_ASKED),
            "shutdownmany": self._shutdown_many,
            "suspendvm": lambda who, arguments: self._wish(who, arguments, "suspendvm", Happening.SUSPEND_ASKED),
            "resumevm": lambda who, arguments: self._wish(who, arguments, "resumevm", Happening.RESUME_ASKED),
            "migratevm": self._migrate_vm,
            "vmmspecificcall": self._vmm_specific_call,
            **{verb: self._adaptation(verb) for verb in ADAPTATIONS},
            "getinstances": self._get_instances,
            "gethosts": self._get_hosts,
            "getusers": self._get_users,
            "getimages": self._get_images,
            "explain": self._explain,
            "whoami": self._whoami,
            "waitfor": self._wait_for,
        }
        for part in (OperatorVerbs(cluster, kick, drain, self._row, self._host_row, first_free_uid), *parts):
            self._table.update(part.verbs)

    @property
    def names(self) -> Collection[str]:
        """The verbs in lower case."""
        return self._table.keys()

    async def call(self, who: Principal, verb: str, arguments: Arguments) -> Any:
        """The verb's result, told when what it tells of is durable; YourMistake when it cannot be had."""
        verb = verb.lower()
        method = self._table.get(verb)
        if method is None:
            raise YourMistake(UNKNOWN_VERB, f"there is no verb {shown(verb)}; there are {', '.join(sorted(self._table))}")
        if verb in _CHANGES and self._cluster.journal.away:
            words = f"the store takes no changes: {self._cluster.journal.away}; nothing was changed, try again later"
            raise OurFault(BUSY, words)
        if verb not in _IN_PLANNING_THREAD or who.admin:
            return await self._call(who, verb, method, arguments)
        if self._planning[who.name] >= MOST_IN_PLANNING_THREAD:
            raise YourMistake(BUSY, f"{MOST_IN_PLANNING_THREAD} calls of yours ask the scheduler already; wait for their answers")
        self._planning[who.name] += 1
        try:
            return await self._call(who, verb, method, arguments)
        finally:
            self._planning[who.name] -= 1
            if not self._planning[who.name]:
                del self._planning[who.name]

    async def _call(self, who: Principal, verb: str, method: Method, arguments: Arguments) -> Any:
        try:
            check_bounds(arguments)
            result = method(who, arguments)
        except YourMistake as mistake:
            if verb in _CHANGES or mistake.code == FORBIDDEN:
                self._refused.note(who.name, verb, _target(arguments), mistake.code)
            raise
        if isinstance(result, Awaitable):
            result = await result
        if verb in _CHANGES or verb == "waitfor":
            await self._cluster.journal.written_in_time()
        return result

    def _create_vm(self, who: Principal, arguments: Arguments) -> Any:
        return self._row(who, self._create(who, [arguments], "createVm")[0])

    def _create_many(self, who: Principal, arguments: Arguments) -> Awaitable[Any]:
        wanted = arguments.get("instances")
        if not isinstance(wanted, list):
            raise YourMistake(BAD_ARGUMENT, "instances is missing; give a list of instances")
        return self._told(who, self._create(who, wanted, "createMany"))

    async def _told(self, who: Principal, instances: Sequence[Instance]) -> list[dict[str, Any]]:
        """The rows of what was made, when that is durable: of a thousand they take their time, and not in the same turn of the reactor."""
        await self._cluster.journal.written_in_time()
        return [self._row(who, instance) for instance in instances]

    def _create(self, who: Principal, wanted: Sequence[Any], verb: str) -> list[Instance]:
        specs = [self._spec(who, _converted(one, Wanted)) for one in wanted]
        checked = self._creation.check(who, specs)
        with self._cluster.transaction("create_instances") as tx:
            instances = [
                self._creation.make(tx, spec, group_name=_basename(spec.name) if verb == "createMany" else None) for spec in checked
            ]
            tx.tell(audit_record(who.name, verb.lower(), " ".join(instance.name for instance in instances), "OK"))
        self._kick()
        return instances

    def _spec(self, who: Principal, wanted: Wanted) -> InstanceSpec:
        if wanted.user_id is None:
            user_id = the_user_who_asks(self._cluster.users, who).id
        else:
            user_id = the_user(self._cluster, wanted.user_id).id
        default = self._settings.default_network
        nics = tuple(Nic(network=default if nic.network is None else nic.network, mac=nic.mac, ip=nic.ip) for nic in wanted.nics)
        fields = msgspec.structs.asdict(wanted) | {"user_id": user_id, "nics": nics}
        return InstanceSpec(**fields)

    def _destroy_vm(self, who: Principal, arguments: Arguments) -> Any:
        instance = self._owned(who, reference(arguments, "instance"))
        return self._destroy(who, [instance], "destroyvm")[0]

    def _destroy_many(self, who: Principal, arguments: Arguments) -> Any:
        return self._destroy(who, self._numbered(who, arguments), "destroymany")

    def _numbered(self, who: Principal, arguments: Arguments) -> list[Instance]:
        """The asker's instances that createMany made with this basename, and no others, whatever their names look like."""
        base = arguments.get("basename")
        if not isinstance(base, str) or not base:
            raise YourMistake(BAD_ARGUMENT, "basename is missing; give the name that createMany was given")
        named = [one for _, one in sorted(self._cluster.instances.items()) if _basename(one.name) == base]
        made = [one for one in named if one.group_name == base]
        own = [one for one in made if who.may_act_for(one.user_id)]
        if not made:
            others = f"; createMany did not make {named[0].name}" if named else ""
            raise YourMistake(UNKNOWN_ID, f"{shown(base)} is an unused basename{others}")
        if not own:
            check_owner(who, made[0])
        owners = sorted({one.user_id for one in own})
        if len(owners) > 1:
            users = ", ".join(map(str, owners))
            raise YourMistake(AMBIGUOUS, f"{shown(base)} names instances of the users {users}; name each instance instead")
        return own

    def _destroy(self, who: Principal, instances: Sequence[Instance], verb: str) -> list[dict[str, Any]]:
        rows = []
        with self._cluster.transaction("destroy_instances") as tx:
            for instance in instances:
                after = destroy(tx, instance.id, reason=f"destroyed by {who.name}")
                tx.tell(audit_record(who.name, verb, f"{instance.name} ({instance.id})", "OK"))
                rows.append(self._row(who, after or instance))
        self._kick()
        return rows

    def _wish(self, who: Principal, arguments: Arguments, verb: str, happening: Happening) -> Any:
        instance = self._owned(who, reference(arguments, "instance"))
        return self._wish_all(who, [instance], verb, happening)[0]

    def _shutdown_many(self, who: Principal, arguments: Arguments) -> Any:
        return self._wish_all(who, self._numbered(who, arguments), "shutdownmany", Happening.SHUTDOWN_ASKED)

    def _wish_all(self, who: Principal, instances: Sequence[Instance], verb: str, happening: Happening) -> list[dict[str, Any]]:
        rows = []
        with self._cluster.transaction(verb) as tx:
            for instance in instances:
                after = wish(tx, instance, happening, reason=f"{happening.value} by {who.name}", grace=self._settings.shutdown_grace)
                tx.tell(audit_record(who.name, verb, f"{instance.name} ({instance.id})", "OK"))
                rows.append(self._row(who, after))
        self._kick()
        return rows

    def _migrate_vm(self, who: Principal, arguments: Arguments) -> Any:
        instance = self._owned(who, reference(arguments, "instance"))
        host = the_host(self._cluster, reference(arguments, "dst"))
        with self._cluster.transaction("migrate_instance") as tx:
            after = migrate(tx, instance, host, self._settings.scheduling, who=who.name, verb="migratevm")
            tx.tell(audit_record(who.name, "migratevm", f"{instance.name} ({instance.id}) to {host.name}", "OK"))
        self._kick()
        return self._row(who, after)

    def _vmm_specific_call(self, who: Principal, arguments: Arguments) -> Any:
        return self._specific.call(who, self._owned(who, reference(arguments, "instance")), text(arguments, "arg"))

    def _adaptation(self, verb: str) -> Callable[[Principal, Arguments], Any]:
        def adapt_instance(who: Principal, arguments: Arguments) -> Any:
            instance = self._owned(who, reference(arguments, "instance"))
            wished = wished_by(verb, arguments)
            with self._cluster.transaction(verb) as tx:
                after = adapt(tx, instance, wished, self._settings.scheduling, who=who.name, verb=verb)
                tx.tell(audit_record(who.name, verb, f"{instance.name} ({instance.id})", "OK"))
            return self._row(who, after)

        return adapt_instance

    def _owned(self, who: Principal, reference: int | str) -> Instance:
        return living_instance(self._cluster, who, reference)

    def _get_instances(self, who: Principal, arguments: Arguments) -> Any:
        return [self._row(who, instance) for _, instance in sorted(self._cluster.instances.items())]

    def _get_hosts(self, who: Principal, arguments: Arguments) -> Any:
        return [self._host_row(host_id) for host_id in sorted(self._cluster.hosts)]

    def _get_users(self, who: Principal, arguments: Arguments) -> Any:
        return [user_row(user) for _, user in sorted(self._cluster.users.items())]

    def _get_images(self, who: Principal, arguments: Arguments) -> Any:
        return plain(self._images.list(who))

    def _explain(self, who: Principal, arguments: Arguments) -> Any:
        return self._explanation.of(living_instance(self._cluster, who, reference(arguments, "instance"), change=False))

    def _whoami(self, who: Principal, arguments: Arguments) -> Any:
        return {"userId": who.user_id, "name": who.name, "admin": who.admin}

    def _wait_for(self, who: Principal, arguments: Arguments) -> Awaitable[Any]:
        ids, until, timeout = arguments.get("ids"), arguments.get("until"), arguments.get("timeout", 300)
        if not isinstance(ids, list) or not all(type(one) is int for one in ids):
            raise YourMistake(BAD_ARGUMENT, "ids is not a list of instance ids")
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 <= timeout <= LONGEST_WAIT:
            raise YourMistake(BAD_ARGUMENT, f"timeout is {shown(timeout)}; use seconds from 0 to {LONGEST_WAIT}")
        if until not in UNTIL:
            raise YourMistake(BAD_ARGUMENT, f"until is {shown(until)}; use one of {', '.join(UNTIL)}")
        return self._waiting.wait(who.uid if who.user_id is None else who.user_id, ids, until, float(timeout))

    def _row(self, who: Principal, instance: Instance) -> dict[str, Any]:
        row = instance_row(instance, self._cluster.users, self._cluster.hosts, own=who.may_act_for(instance.user_id))
        return row | {"stats": self._usage.of_instance(instance)}

    def _host_row(self, host_id: int) -> dict[str, Any]:
        host = self._cluster.hosts[host_id]
        return host_row(host, self._settings.ratings.get(host_id, 0)) | {"stats": self._usage.of_host(host)}


def _converted(data: Any, kind: type[Any]) -> Any:
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise YourMistake(BAD_ARGUMENT, f"not a valid instance: {one_line(str(error))}") from None


def _basename(name: str) -> str | None:
    """The basename of a name that createMany gives, such as ``web`` of ``web-07``; None: it gives no such name."""
    base, dash, number = name.rpartition("-")
    return base if dash and number.isascii() and number.isdigit() else None


def _target(arguments: Arguments) -> str:
    named = (arguments[name] for name in ("name", "instance", "basename", "hostId", "host", "userId") if arguments.get(name) is not None)
    first = next(named, None)
    return "" if first is None else shown(first)
