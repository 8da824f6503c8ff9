"""Finding what somebody named: instances, hosts and users by id or by name."""

from __future__ import annotations

from tashi.errors import FORBIDDEN, UNKNOWN_ID, UNKNOWN_USER, YourMistake
from tashi.manager.cluster import Cluster
from tashi.model.host import Host
from tashi.model.instance import Instance
from tashi.model.names import shown
from tashi.model.user import Principal, User

Reference = int | str


def find_instance(cluster: Cluster, reference: Reference) -> Instance | None:
    """The living instance with this id, resourceId or name (the newest of equals), or None."""
    if isinstance(reference, int):
        return cluster.instances.get(reference)
    for index in (cluster.by_resource, cluster.by_name):
        found = index.get(reference)
        if found:
            return cluster.instances[max(found)]
    if reference.isascii() and reference.isdigit() and len(reference) < 19:
        return cluster.instances.get(int(reference))
    return None


def the_instance(cluster: Cluster, reference: Reference) -> Instance:
    """The living instance; YourMistake(unknown-id) when there is none."""
    found = find_instance(cluster, reference)
    if found is None:
        raise YourMistake(UNKNOWN_ID, f"there is no instance {shown(reference)}; see `tashi getInstances` or listcompute")
    return found


def check_owner(who: Principal, instance: Instance) -> None:
    """YourMistake(forbidden) unless the instance is this principal's, or any instance may be."""
    if not who.may_act_for(instance.user_id):
        raise YourMistake(FORBIDDEN, f"You don't have permissions on VM {instance.name}: it belongs to user {instance.user_id}")


def owned_instance(cluster: Cluster, who: Principal, reference: Reference) -> Instance:
    """The living instance, which this principal may change; YourMistake when there is none, or when it may not."""
    instance = the_instance(cluster, reference)
    check_owner(who, instance)
    return instance


def the_host(cluster: Cluster, reference: Reference) -> Host:
    """The host with this id or name; YourMistake(unknown-id) when there is none."""
    for host in cluster.hosts.values():
        if reference == host.name or str(reference) == str(host.id):
            return host
    raise YourMistake(UNKNOWN_ID, f"there is no host {shown(reference)}; see `tashi getHosts`")


def the_user(cluster: Cluster, reference: Reference) -> User:
    """The user with this id or name; YourMistake(unknown-user) when there is none."""
    for user in cluster.users.values():
        if reference == user.name or str(reference) == str(user.id):
            return user
    raise YourMistake(UNKNOWN_USER, f"there is no user {shown(reference)}; see `tashi getUsers`")
