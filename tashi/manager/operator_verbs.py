"""What operators can do by verb: with hosts, and with users."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tashi.manager.arguments import Arguments, optional_text, reference, text
from tashi.manager.cluster import Cluster
from tashi.manager.operations import (
    drain_host,
    register_user,
    set_host_config,
    set_host_state,
    unregister_host,
    unregister_user,
)
from tashi.model.events import audit_record
from tashi.model.instance import Instance
from tashi.model.user import Principal
from tashi.model.views import user_row

Row = dict[str, Any]


class OperatorVerbs:
    """A part of the table of verbs."""

    def __init__(
        self,
        cluster: Cluster,
        kick: Callable[[], None],
        drain: Callable[[], None],
        instance_row: Callable[[Principal, Instance], Row],
        host_row: Callable[[int], Row],
        first_free_uid: Callable[[int], int],
    ) -> None:
        """``drain`` sends away at once what can leave the hosts that are being emptied; ``first_free_uid`` see `register_user`."""
        self._cluster = cluster
        self._kick = kick
        self._drain = drain
        self._instance_row = instance_row
        self._host_row = host_row
        self._first_free_uid = first_free_uid
        self.verbs: dict[str, Callable[[Principal, Arguments], Any]] = {
            "drainhost": self._drain_host,
            "sethoststate": self._set_host_state,
            "unregisterhost": self._unregister_host,
            "sethostconfig": self._set_host_config,
            "registeruser": self._register_user,
            "unregisteruser": self._unregister_user,
        }

    def _drain_host(self, who: Principal, arguments: Arguments) -> Any:
        with self._cluster.transaction("drain_host") as tx:
            host = drain_host(tx, who, reference(arguments, "host"))
            tx.tell(audit_record(who.name, "drainhost", host.name, "OK"))
        self._drain()
        return [self._instance_row(who, self._cluster.instances[number]) for number in sorted(self._cluster.on_host.get(host.id, ()))]

    def _set_host_state(self, who: Principal, arguments: Arguments) -> Any:
        with self._cluster.transaction("set_host_state") as tx:
            host = set_host_state(tx, who, reference(arguments, "host"), text(arguments, "state"))
            tx.tell(audit_record(who.name, "sethoststate", f"{host.name} {host.state.name}", "OK"))
        self._kick()
        return self._host_row(host.id)

    def _unregister_host(self, who: Principal, arguments: Arguments) -> Any:
        with self._cluster.transaction("unregister_host") as tx:
            host, count = unregister_host(tx, who, reference(arguments, "hostId"))
            tx.tell(audit_record(who.name, "unregisterhost", host.name, "OK"))
        return {"id": host.id, "name": host.name, "instances": count}

    def _set_host_config(self, who: Principal, arguments: Arguments) -> Any:
        with self._cluster.transaction("set_host_config") as tx:
            name, value = text(arguments, "elemName"), str(arguments.get("value", ""))
            host = set_host_config(tx, who, reference(arguments, "hostId"), name, value)
            tx.tell(audit_record(who.name, "sethostconfig", f"{host.name} {name}={value}", "OK"))
        self._kick()
        return self._host_row(host.id)

    def _register_user(self, who: Principal, arguments: Arguments) -> Any:
        with self._cluster.transaction("register_user") as tx:
            user = register_user(
                tx,
                who,
                text(arguments, "name"),
                optional_text(arguments, "passwd"),
                arguments.get("priority") or 0,
                arguments.get("userId"),
                optional_text(arguments, "jid"),
                self._first_free_uid,
            )
        return user_row(user)

    def _unregister_user(self, who: Principal, arguments: Arguments) -> Any:
        with self._cluster.transaction("unregister_user") as tx:
            user = unregister_user(tx, who, reference(arguments, "userId"))
        return user_row(user)
