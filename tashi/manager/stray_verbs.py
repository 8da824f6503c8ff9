"""The verbs about strays, for administrators: list them, make a record of one, end one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from tashi.errors import INTERNAL, UNKNOWN_ID, OurFault, YourMistake
from tashi.manager import adoption
from tashi.manager.arguments import Arguments, optional_text, reference
from tashi.manager.cluster import Cluster
from tashi.manager.dispatch import Dispatch
from tashi.manager.lookup import the_host, the_user
from tashi.manager.operations import require_admin
from tashi.manager.questions import Questions
from tashi.manager.strays import Strays, generation_after_strays, why_stray
from tashi.model.events import audit_record, timestamp, vm_action
from tashi.model.host import Host
from tashi.model.instance import domain_uuid
from tashi.model.orders import Destroy
from tashi.model.states import InstanceState
from tashi.model.stray import Stray
from tashi.model.user import Principal
from tashi.model.views import instance_row

Row = dict[str, Any]


class StrayVerbs:
    """A part of the table of verbs."""

    def __init__(
        self,
        cluster: Cluster,
        strays: Strays,
        questions: Questions,
        dispatch: Dispatch,
        cell: UUID,
        kick: Callable[[], None],
        *,
        allow_duplicate_names: bool,
    ) -> None:
        self._cluster = cluster
        self._strays = strays
        self._questions = questions
        self._dispatch = dispatch
        self._cell = cell
        self._kick = kick
        self._allow_duplicate_names = allow_duplicate_names
        self.verbs: dict[str, Callable[[Principal, Arguments], Any]] = {
            "getstrays": self._get_strays,
            "adoptvm": self._adopt,
            "destroystray": self._destroy,
        }

    def _get_strays(self, who: Principal, arguments: Arguments) -> Any:
        require_admin(who, "getStrays")
        found = [(host, stray) for _, host in sorted(self._cluster.hosts.items()) for stray in host.strays]
        return [self._row(host, stray) for host, stray in sorted(found, key=lambda one: (one[1].instance_id, one[0].id))]

    def _row(self, host: Host, stray: Stray) -> Row:
        user = self._cluster.users.get(stray.user_id) if stray.user_id is not None else None
        return {
            "id": stray.instance_id,
            "name": stray.name,
            "hostId": host.id,
            "host": host.name,
            "state": (InstanceState.Paused if stray.paused else InstanceState.Running).name,
            "cores": stray.cores,
            "memory": stray.memory,
            "userId": stray.user_id,
            "user": user.name if user else None,
            "since": timestamp(stray.since),
            "incarnation": stray.incarnation,
            "reason": stray.note or why_stray(self._cluster, stray),
        }

    def _adopt(self, who: Principal, arguments: Arguments) -> Awaitable[Any]:
        require_admin(who, "adoptVm")
        host, stray = self._named(arguments)
        work = self._adopt_one(who, host, stray, arguments)
        return self._questions.audited(who, "adoptvm", f"{stray.name} ({stray.instance_id}) on {host.name}", work)

    async def _adopt_one(self, who: Principal, host: Host, stray: Stray, arguments: Arguments) -> Any:
        user = the_user(self._cluster, reference(arguments, "user")) if arguments.get("user") is not None else None
        name = optional_text(arguments, "name")
        self._refuse_taken(stray, name or stray.name)
        description = await self._questions.describe(host, stray.instance_id, stray.incarnation)
        _, stray = self._named(arguments)  # it may have ended, or been adopted, meanwhile
        self._refuse_taken(stray, name or description.name)
        users, now = self._cluster.users, self._cluster.wall.seconds()
        instance = adoption.instance_of(stray, description, users, name=name, user_id=user.id if user else None, now=now)
        with self._cluster.transaction("adopt_stray") as tx:
            tx.reserve("instance", instance.id)
            tx.put_instance(instance)
            for disk in adoption.copies_without_owner(instance, self._cluster.disks, now):
                tx.put_disk(disk)
            tx.tell(vm_action("created", instance, None, instance.state.name, f"adopted by {who.name}", host.name))
            self._strays.follow(tx, instance, why=f"adopted by {who.name}")
        self._kick()
        await self._cluster.journal.written()
        return instance_row(self._cluster.instances[instance.id], users, self._cluster.hosts)

    def _refuse_taken(self, stray: Stray, name: str) -> None:
        namesakes = 0 if self._allow_duplicate_names else len(self._cluster.by_name.get(name, ()))
        adoption.refuse_taken(stray, self._cluster.instances.get(stray.instance_id), namesakes, name)

    def _destroy(self, who: Principal, arguments: Arguments) -> Any:
        require_admin(who, "destroyStray")
        host, stray = self._named(arguments)
        link = self._dispatch.link_to(host.id)
        if link is None:
            raise OurFault(INTERNAL, f"host {host.name} is away; try again when `tashi getHosts` shows it up")
        order = Destroy(
            instance_id=stray.instance_id,
            generation=generation_after_strays(self._cluster, stray.instance_id),
            incarnation=stray.incarnation,
            uuid=str(domain_uuid(self._cell, stray.instance_id)),
        )
        with self._cluster.transaction("destroy_stray") as tx:
            self._strays.note(tx, host.id, stray.key, f"being destroyed by {who.name}")
            tx.tell(audit_record(who.name, "destroystray", f"{stray.name} ({stray.instance_id}) on {host.name}", "OK"))
            tx.after_commit(lambda: link.send([order]))
        return self._row(*self._named(arguments))

    def _named(self, arguments: Arguments) -> tuple[Host, Stray]:
        """The stray that the arguments name by host and instance id."""
        host, number = the_host(self._cluster, reference(arguments, "host")), reference(arguments, "instance")
        for stray in host.strays:
            if number in (stray.instance_id, str(stray.instance_id)):
                return host, stray
        raise YourMistake(UNKNOWN_ID, f"host {host.name} has no stray with id {number}; see `tashi getStrays`")
