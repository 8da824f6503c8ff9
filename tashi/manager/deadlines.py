"""What time alone brings about: requests that were not carried out in time, and answered ones that may be forgotten."""

from __future__ import annotations

from tashi.errors import NO_SUITABLE_HOST, TIMEOUT, YourMistake
from tashi.manager import requests
from tashi.manager.cluster import Cluster, Transaction
from tashi.manager.lifecycle import destroy
from tashi.manager.settings import ManagerSettings
from tashi.manager.wishes import end_grace
from tashi.model.request import Request
from tashi.model.states import InstanceState


class Deadlines:
    """Looks at all open requests when told to, about once a second."""

    def __init__(self, cluster: Cluster, settings: ManagerSettings) -> None:
        self._cluster = cluster
        self._settings = settings
        self._remembered = 2 * settings.max_command_age

    def check(self) -> None:
        """Answer what is overdue, and say of which guests there is no more to be hoped for."""
        now, grace = self._cluster.awake.seconds(), self._settings.shutdown_grace
        grown_old = [number for number, since in sorted(self._cluster.in_grace.items()) if since + grace <= now]
        if grown_old:
            with self._cluster.transaction("end_grace") as tx:
                for number in grown_old:
                    end_grace(tx, self._cluster.instances[number], grace)
        open_ids = {number for group in self._cluster.open_requests.values() for number in group}
        overdue = [
            request
            for request in (self._cluster.requests[number] for number in sorted(open_ids))
            if request.deadline is not None and self._cluster.request_since[request.id] + request.deadline - request.accepted_at <= now
        ]
        if overdue:
            with self._cluster.transaction("time_out_requests") as tx:
                for request in overdue:
                    self._time_out(tx, request)

    def forget(self) -> None:
        """Drop requests whose stanza can no longer come again; call it about once a minute."""
        before, since = self._cluster.awake.seconds() - self._remembered, self._cluster.request_since
        old = [request.id for request in self._cluster.requests.values() if request.done_at is not None and since[request.id] < before]
        if old:
            with self._cluster.transaction("forget_requests") as tx:
                for number in old:
                    tx.remove_request(number)

    def _time_out(self, tx: Transaction, request: Request) -> None:
        current = tx.request(request.id)
        if current is None or current.done_at is not None:
            return
        seconds = self._settings.provision_timeout
        if request.origin.verb not in requests.CREATES:
            reason = f"not finished within {seconds:g} s; it will be carried out when its host answers"
            requests.fail(tx, request, YourMistake(TIMEOUT, reason))
            return
        waiting = [instance for instance in map(tx.instance, request.instance_ids) if instance and not requests.has_started(instance)]
        first = waiting[0] if waiting else None
        if first is not None and first.state in (InstanceState.Pending, InstanceState.Held):
            why = first.reason or "no host has joined the cell yet"
            error = YourMistake(NO_SUITABLE_HOST, f"no host took {first.name} within {seconds:g} s: {why}")
        else:
            name = first.name if first else "it"
            error = YourMistake(TIMEOUT, f"{name} was not running within {seconds:g} s and is destroyed; ask again")
        requests.fail(tx, request, error)
        for number in request.made:
            destroy(tx, number, reason=error.message, failed=error)
