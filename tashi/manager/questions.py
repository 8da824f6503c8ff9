"""Asking a host at once about an instance that runs there: the question goes over the host's link, the answer comes back, neither is kept.

What is asked leaves its trace in the audit trail, without what was answered: that may be a secret.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import UUID

from tashi.errors import INTERNAL, OurFault, TashiError
from tashi.interfaces import INodeLink
from tashi.manager.cluster import Cluster
from tashi.manager.wishes import wrong_state
from tashi.model.events import audit_record
from tashi.model.host import Host
from tashi.model.instance import Instance, domain_uuid
from tashi.model.questions import Answer, DescribeDomain, DomainDescription, Question, ShutDownHost
from tashi.model.states import InstanceState
from tashi.model.user import Principal

Result = TypeVar("Result")


class Questions:
    """Asks the hosts; ``link_to(host_id)`` is the link of a host that can be asked, or None."""

    def __init__(self, cluster: Cluster, cell: UUID, link_to: Callable[[int | None], INodeLink | None]) -> None:
        self._cluster = cluster
        self._cell = cell
        self._link_to = link_to

    async def ask(self, instance: Instance, kind: Callable[..., Question], **content: object) -> Answer:
        """The answer of the instance's host to a question of this kind. OurFault when the host is away, TashiError when it refuses."""
        link = self._link_to(instance.host_id)
        if link is None:
            host = self._cluster.host_name(instance.host_id)
            raise OurFault(INTERNAL, f"host {host} of {instance.name} is away; try again when `tashi getHosts` shows it up")
        domain = str(domain_uuid(self._cell, instance.id))
        return await link.ask(kind(uuid=domain, incarnation=instance.incarnation, **content))

    async def describe(self, host: Host, instance_id: int, incarnation: str) -> DomainDescription:
        """What this host says of a domain without a record. OurFault when the host is away, TashiError when it refuses."""
        link = self._link_to(host.id)
        if link is None:
            raise OurFault(INTERNAL, f"host {host.name} is away; try again when `tashi getHosts` shows it up")
        domain = str(domain_uuid(self._cell, instance_id))
        answer = await link.ask(DescribeDomain(uuid=domain, incarnation=incarnation))
        if not isinstance(answer, DomainDescription):
            raise OurFault(INTERNAL, f"host {host.name} did not describe the domain")
        return answer

    async def shut_down(self, host: Host) -> None:
        """Have the agent of this host shut its machine down. OurFault when it is away, TashiError when it refuses."""
        link = self._link_to(host.id)
        if link is None:
            raise OurFault(INTERNAL, f"the agent of {host.name} is away, and nobody else can shut that host down")
        await link.ask(ShutDownHost())

    async def audited(self, who: Principal, verb: str, target: str, work: Awaitable[Result]) -> Result:
        """What the work comes to; that it was asked for, and with what code it failed, is told."""
        outcome = "unanswered"  # if whoever asked has gone
        try:
            result = await work
            outcome = "OK"
            return result
        except TashiError as error:
            outcome = error.code
            raise
        finally:
            with self._cluster.transaction("audit_question") as tx:
                tx.tell(audit_record(who.name, verb, target, outcome))


def must_run(instance: Instance) -> None:
    """YourMistake(conflict) unless the instance is Running."""
    if instance.state is not InstanceState.Running:
        raise wrong_state(instance, InstanceState.Running)
