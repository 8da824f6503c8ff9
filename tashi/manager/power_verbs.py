"""What administrators can do by verb with the power of hosts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tashi.errors import CONFLICT, YourMistake
from tashi.manager.arguments import Arguments, reference
from tashi.manager.cluster import Cluster, Transaction
from tashi.manager.lookup import the_host
from tashi.manager.operations import require_admin
from tashi.manager.powering import Powering
from tashi.model.events import audit_record
from tashi.model.host import Host
from tashi.model.user import Principal
from tashi.model.views import host_row


class PowerVerbs:
    """A part of the table of verbs; ``ratings`` are the priorities of hosts by id."""

    def __init__(self, cluster: Cluster, powering: Powering, ratings: Mapping[int, int]) -> None:
        self._cluster = cluster
        self._powering = powering
        self._ratings = ratings
        self.verbs: dict[str, Callable[[Principal, Arguments], Any]] = {"poweron": self._power_on, "poweroff": self._power_off}

    def _power_on(self, who: Principal, arguments: Arguments) -> Any:
        return self._begin(who, arguments, "powerOn", self._powering.refusal_on, self._powering.begin_on)

    def _power_off(self, who: Principal, arguments: Arguments) -> Any:
        return self._begin(who, arguments, "powerOff", self._powering.refusal_off, self._powering.begin_off)

    def _begin(
        self,
        who: Principal,
        arguments: Arguments,
        verb: str,
        refusal: Callable[[Host], str | None],
        begin: Callable[[Transaction, Host, str], None],
    ) -> Any:
        require_admin(who, verb)
        host = the_host(self._cluster, reference(arguments, "host"))
        why = refusal(host)
        if why is not None:
            raise YourMistake(CONFLICT, why)
        with self._cluster.transaction(verb) as tx:
            begin(tx, host, f"{verb} by {who.name}")
            tx.tell(audit_record(who.name, verb.lower(), host.name, "OK"))
        return host_row(self._cluster.hosts[host.id], self._ratings.get(host.id, 0))
