"""The commands of the message sink: accepted, answered once, audited. What changes something is answered through the outbox.

One command is one stanza: the same stanza again (sender, id and body) while its command is under way is the same command; after
its answer it is a question for that answer. A resourceId makes a create safe to repeat at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from twisted.logger import Logger
from twisted.python.failure import Failure

from tashi.errors import CONFLICT, INTERNAL, NOT_SUPPORTED_LIVE, OurFault, TashiError, YourMistake
from tashi.limited_log import LimitedLog
from tashi.manager import requests
from tashi.manager.cluster import Cluster
from tashi.manager.creation import Creation
from tashi.manager.explanation import Explanation
from tashi.manager.lifecycle import destroy
from tashi.manager.lookup import Lookup
from tashi.manager.operations import set_host_config
from tashi.manager.records import stanza_key
from tashi.manager.restarts import restart
from tashi.manager.settings import ManagerSettings
from tashi.manager.turns import Turns, Work
from tashi.manager.wishes import adapt
from tashi.model.events import audit_record
from tashi.model.instance import Instance, InstanceSpec, InstanceUpdate, Resources
from tashi.model.names import shown
from tashi.model.request import Origin
from tashi.model.states import InstanceState
from tashi.model.user import Principal
from tashi.model.views import instance_row

PAGE_BYTES = 90 * 1024
"""Most bytes of one page of a list: no stanza of ours passes 100 KiB."""


class Commands:
    """`tashi.interfaces.ICommands`."""

    log = Logger()

    def __init__(
        self,
        cluster: Cluster,
        lookup: Lookup,
        creation: Creation,
        explanation: Explanation,
        settings: ManagerSettings,
        kick: Callable[[], None],
        limited: LimitedLog,
    ) -> None:
        self._cluster = cluster
        self._lookup = lookup
        self._creation = creation
        self._explanation = explanation
        self._settings = settings
        self._kick = kick
        self._turns = Turns()
        self._limited = limited
        self._strangers: dict[str, tuple[str, int]] = {}

    def identify(self, jid: str) -> Principal | None:
        """See ICommands."""
        user = self._cluster.by_jid.get(jid)
        domain = jid.partition("@")[2] or jid
        trusted = jid in self._settings.trusted or domain in self._settings.trusted
        admin = jid in self._settings.admins or (user is not None and user.id == 0)
        if user is None and not trusted and not admin:
            return None
        return Principal(name=jid, user_id=user.id if user else None, admin=admin, trusted=trusted, jid=jid)

    def queued(self, jid: str) -> int:
        """See ICommands."""
        return self._cluster.queued.get(jid, 0) + self._turns.waiting(jid)

    def create(self, who: Principal, origin: Origin, specs: Sequence[InstanceSpec], content: Sequence[str]) -> None:
        """See ICommands."""
        self._in_turn(who, origin, lambda: self._create(who, origin, specs, content))

    async def _create(self, who: Principal, origin: Origin, specs: Sequence[InstanceSpec], content: Sequence[str]) -> None:
        if self._told_again(origin, repeatable=all(spec.resource_id is not None for spec in specs)):
            return
        resource_id = specs[0].resource_id if specs else None
        try:
            wanted = [(spec, digest, self._existing(who, spec, digest)) for spec, digest in zip(specs, content, strict=True)]
            fresh = [spec for spec, _, existing in wanted if existing is None]
            checked = iter(self._creation.check(who, fresh) if fresh or not wanted else ())
        except YourMistake as mistake:
            target = shown(specs[0].name) if specs and resource_id is None else ""
            self._refuse(who, origin, mistake, resource_id, target)
            return
        self._kick()  # first of all: the plan is made in time to be written with what it is for
        with self._cluster.transaction("create_instances") as tx:
            instances = [
                existing or self._creation.make(tx, next(checked), owner_jid=who.jid, content=digest) for _, digest, existing in wanted
            ]
            request = requests.accept(
                tx,
                origin,
                tuple(instance.id for instance in instances),
                made=tuple(instance.id for instance, (_, _, existing) in zip(instances, wanted, strict=True) if existing is None),
                resource_id=resource_id,
                deadline=tx.now + self._settings.provision_timeout,
                notify=specs[0].notification_uri,
            )
            if all(map(requests.has_started, instances)):
                requests.succeed(tx, request, tuple(instances))

    def delete(self, who: Principal, origin: Origin, reference: int | str) -> None:
        """See ICommands."""
        self._in_turn(who, origin, lambda: self._delete(who, origin, reference))

    async def _delete(self, who: Principal, origin: Origin, reference: int | str) -> None:
        if self._told_again(origin, repeatable=True):
            return
        try:
            instance = await self._lookup.instance(who, reference)
        except YourMistake as mistake:
            self._refuse(who, origin, mistake, target=shown(reference))
            return
        with self._cluster.transaction("delete_instance") as tx:
            deadline = tx.now + self._settings.provision_timeout
            request = requests.accept(tx, origin, (instance.id,), resource_id=instance.resource_id, deadline=deadline)
            if tx.instance(instance.id) is None:
                requests.succeed(tx, request, (instance,))
            else:
                destroy(tx, instance.id, reason=f"deleted by {who.name}")

    def update(self, who: Principal, origin: Origin, update: InstanceUpdate) -> None:
        """See ICommands."""
        self._in_turn(who, origin, lambda: self._update(who, origin, update))

    async def _update(self, who: Principal, origin: Origin, update: InstanceUpdate) -> None:
        if self._told_again(origin, repeatable=True):
            return
        try:
            instance = await self._lookup.living(who, update.resource_id)
            changes = _beyond_resources(instance, update)
            wished = _wished(instance, update)
            with self._cluster.transaction("update_instance") as tx:
                deadline = tx.now + self._settings.provision_timeout
                request = requests.accept(tx, origin, (instance.id,), resource_id=instance.resource_id, deadline=deadline)
                if changes:
                    cores, image = changes.get("cores"), changes.get("image")
                    restart(tx, self._creation, instance, wished, self._settings.scheduling, who=who, cores=cores, image=image)
                elif wished == Resources():
                    requests.succeed(tx, request, (instance,))
                else:
                    adapt(tx, instance, wished, self._settings.scheduling, who=who.name, verb=origin.verb, request=request.id)
        except YourMistake as mistake:
            self.refuse(who, origin, mistake, update.resource_id)

    def _in_turn(self, who: Principal, origin: Origin, work: Work) -> None:
        def failed(failure: Failure) -> None:
            self.log.failure("{verb} of {sender} failed", failure=failure, verb=origin.verb, sender=origin.sender)
            self._refuse(who, origin, OurFault(INTERNAL, "internal error; the command may not have taken effect, tell the operator"))

        self._turns.take(origin.sender, work, failed)

    def refuse(self, who: Principal, origin: Origin, error: TashiError, resource_id: str | None = None) -> None:
        """See ICommands. A stanza that was a command before has its outcome already: that is told, not this."""
        self._in_turn(who, origin, lambda: self._refuse_in_turn(who, origin, error, resource_id))

    async def _refuse_in_turn(
        self, who: Principal, origin: Origin, error: TashiError, resource_id: str | None
    ) -> None:
        if not self._told_again(origin, repeatable=False):
            self._refuse(who, origin, error, resource_id)

    def _refuse(
        self, who: Principal, origin: Origin, error: TashiError, resource_id: str | None = None, target: str = ""
    ) -> None:
        with self._cluster.transaction("refuse_command") as tx:
            request = requests.accept(tx, origin, (), resource_id=resource_id)
            requests.fail(tx, request, error, target)

    def refuse_stranger(self, jid: str, verb: str) -> None:
        """See ICommands."""
        if len(self._strangers) < 1000 or jid in self._strangers:
            self._strangers[jid] = (verb, self._strangers.get(jid, ("", 0))[1] + 1)

    def tell_strangers(self) -> None:
        """One audit record for each unknown sender since the last call; call it once a minute."""
        strangers, self._strangers = self._strangers, {}
        if strangers:
            with self._cluster.transaction("audit_strangers") as tx:
                for jid, (verb, count) in strangers.items():
                    tx.tell(audit_record(jid, verb, "", "ignored: unknown sender", count, door="xmpp"))
                    self._limited.warn(
                        "unknown senders",
                        "ignored commands",
                        "{count} commands of unknown sender {jid} were ignored, the last {verb}",
                        count=count,
                        jid=jid,
                        verb=verb,
                    )

    def set_host_config(self, who: Principal, origin: Origin, host: int | str, name: str, value: str) -> None:
        """See ICommands."""
        self._in_turn(who, origin, lambda: self._set_host_config(who, origin, host, name, value))

    async def _set_host_config(
        self, who: Principal, origin: Origin, host: int | str, name: str, value: str
    ) -> None:
        if self._told_again(origin, repeatable=True):
            return
        try:
            with self._cluster.transaction("set_host_config") as tx:
                after = set_host_config(tx, who, host, name, value)
                requests.succeed(tx, requests.accept(tx, origin, ()), (), target=f"{after.name} {name}={value}")
        except YourMistake as mistake:
            self._refuse(who, origin, mistake, target=f"{shown(host)} {shown(name)}")
        self._kick()

    async def get(self, who: Principal, reference: int | str) -> dict[str, Any]:
        """See ICommands."""
        instance = await self._lookup.instance(who, reference, change=False)
        return instance_row(instance, self._cluster.users, self._cluster.hosts, own=who.may_act_for(instance.user_id))

    def list(self, who: Principal, after: int) -> dict[str, Any]:
        """See ICommands."""
        rows: list[dict[str, Any]] = []
        size = 0
        following = sorted(instance_id for instance_id in self._cluster.instances if instance_id > after)
        for instance_id in following:
            instance = self._cluster.instances[instance_id]
            row = instance_row(instance, self._cluster.users, self._cluster.hosts, own=who.may_act_for(instance.user_id))
            size += len(msgspec.json.encode(row)) + 1
            if size > PAGE_BYTES and rows:
                return {"instances": rows, "next": rows[-1]["id"]}
            rows.append(row)
        return {"instances": rows, "next": None}

    async def explain(self, who: Principal, reference: int | str) -> str:
        """See ICommands."""
        return await self._explanation.of(await self._lookup.living(who, reference, change=False))

    def _existing(self, who: Principal, spec: InstanceSpec, digest: str) -> Instance | None:
        """The instance this sender has under this resourceId; YourMistake(conflict) when that is another one."""
        if spec.resource_id is None or who.jid is None:
            return None
        number = self._cluster.by_key.get((who.jid, spec.resource_id))
        if number is None:
            return None
        existing = self._cluster.instances[number]
        if existing.content != digest:
            raise YourMistake(
                CONFLICT,
                f"resourceId {shown(spec.resource_id)} already names instance {number}, asked for with other content; use a new one, "
                "or delete that instance first",
            )
        if existing.state is InstanceState.Destroying:
            raise YourMistake(CONFLICT, f"instance {number} of this resourceId is being destroyed; ask again when it is gone")
        return existing

    def _told_again(self, origin: Origin, *, repeatable: bool) -> bool:
        """Whether the stanza was here before and needs nothing more: it is under way, its outcome is, or is told once more."""
        known = self._cluster.requests.get(self._cluster.stanzas.get(stanza_key(origin), -1)) if origin.stanza_id else None
        if known is None:
            return False
        if known.done_at is None or self._cluster.is_outgoing(known.id):
            return True
        if repeatable:
            return False
        if known.outcome is not None:
            with self._cluster.transaction("repeat_outcome") as tx:
                tx.send(origin, known.outcome, known.id)
        return True


def _beyond_resources(instance: Instance, update: InstanceUpdate) -> dict[str, Any]:
    """What is to be another and can only be after a restart; YourMistake(not-supported-live) where none is allowed, or none helps."""
    image, memory = instance.disks[0].uri, update.resources.memory
    changes: dict[str, Any] = {}
    for field, said, now, name in (
        ("hostname", update.name, (instance.name,), ""),
        ("sla category", update.sla, (instance.sla,), ""),
        ("cpu_cores", update.cores, (instance.cores,), "cores"),
        ("imageIdentifier", update.image, (image, image.removesuffix(".img")), "image"),
        ("memory_size", memory if memory is not None and memory > instance.memory else None, (instance.memory,), "memory"),
    ):
        if said is not None and said not in now:
            if not (name and update.restart):
                way = 'send "restart": true with it to have it restarted' if name else "delete it and create another"
                words = f"{field} is {shown(now[0])} and cannot become {shown(said)} while {instance.name} runs; {way}"
                raise YourMistake(NOT_SUPPORTED_LIVE, words)
            changes[name] = said
    return changes


def _wished(instance: Instance, update: InstanceUpdate) -> Resources:
    """The resources that are to be others than they are."""
    present = msgspec.structs.asdict(instance.resources)
    wished = {name: value for name, value in msgspec.structs.asdict(update.resources).items() if value is not None}
    return Resources(**{name: value for name, value in wished.items() if instance.tasks or value != (present[name] or 0)})
