"""From what a host says of a domain without a record to the record of an instance: everything checked as any input is."""

from __future__ import annotations

from collections.abc import Mapping

from tashi.errors import BAD_ARGUMENT, CONFLICT, YourMistake
from tashi.model.disks import DiskRecord, is_made_for
from tashi.model.instance import Disk, Instance, Nic
from tashi.model.names import (
    CPU_SHARES,
    MAX_CORES,
    MAX_MEMORY_MB,
    MAX_NETWORK,
    check_image,
    check_integer,
    check_mac,
    check_new_name,
    shown,
)
from tashi.model.questions import DomainDescription
from tashi.model.stray import Stray
from tashi.model.user import User

MOST_DEVICES = 16


def instance_of(
    stray: Stray,
    description: DomainDescription,
    users: Mapping[int, User],
    *,
    name: str | None,
    user_id: int | None,
    now: float,
) -> Instance:
    """Return the record of the domain, which waits for a host as a new one does.

    ``name`` and ``user_id`` are what the administrator chose, None for what the domain's mark says. YourMistake: conflict when the host
    described another domain, bad-argument when its description breaks a rule or names a user whom the cell does not have.
    """
    if (description.instance_id, description.incarnation) != stray.key:
        raise YourMistake(CONFLICT, "the host described another domain; look again with `tashi getStrays`")
    owner = description.user_id if user_id is None else user_id
    if owner is None or owner not in users:
        known = "none" if owner is None else str(owner)
        raise YourMistake(BAD_ARGUMENT, f"the domain's owner is {known}, who is not a user of this cell; name one with --user")
    disks, nics = description.disks, description.nics
    if not 1 <= len(disks) <= MOST_DEVICES or len(nics) > MOST_DEVICES:
        raise YourMistake(BAD_ARGUMENT, f"the domain has {len(disks)} disks and {len(nics)} network cards; expected 1 to {MOST_DEVICES}")
    memory = check_integer("memory", description.memory, 1, MAX_MEMORY_MB, "MB")
    limit = description.memory_limit
    return Instance(
        id=stray.instance_id,
        incarnation=stray.incarnation,
        generation=stray.generation,
        name=check_new_name("name", description.name if name is None else name),
        user_id=owner,
        cores=check_integer("cores", description.cores, 1, MAX_CORES),
        memory=memory,
        memory_limit=None if limit is None else check_integer("memory limit", limit, 1, memory, "MB"),
        cpu_share=check_integer("cpuShare", description.cpu_share, *CPU_SHARES),
        disks=tuple(Disk(uri=check_image("disks", disk.uri), persistent=disk.persistent) for disk in disks),
        nics=tuple(
            Nic(network=check_integer("nics", nic.network, 0, MAX_NETWORK), mac=check_mac("nics", nic.mac)) for nic in nics
        ),
        created_at=now,
    )


def copies_without_owner(instance: Instance, disks: Mapping[str, DiskRecord], now: float) -> list[DiskRecord]:
    """Return records that give the adopted instance's owner the persistent disks that were made for it.

    YourMistake(conflict) when one of its persistent disks is another user's.
    """
    for disk in instance.disks:
        record = disks.get(disk.uri)
        if record is not None and record.user_id not in (None, instance.user_id):
            owner = record.user_id
            raise YourMistake(CONFLICT, f"its disk {disk.uri} belongs to user {owner}; adopt it with --user {owner}")
    return [
        DiskRecord(name=disk.uri, user_id=instance.user_id, instance_id=instance.id, created_at=now)
        for disk in instance.disks
        if is_made_for(disk.uri, instance.id) and disk.uri not in disks
    ]


def refuse_taken(stray: Stray, taken: Instance | None, namesakes: int, name: str) -> None:
    """YourMistake(conflict) when another record has the id or the name that the adopted instance would have."""
    if taken is not None and taken.incarnation == stray.incarnation:
        raise YourMistake(CONFLICT, f"{taken.name} ({taken.id}) has a record already: it is {taken.state.name}; see `tashi explain`")
    if taken is not None:
        raise YourMistake(
            CONFLICT,
            f"id {stray.instance_id} belongs to {taken.name} of user {taken.user_id}, and an adopted instance keeps its id; destroy "
            "that instance first, or end this domain with `tashi destroyStray`",
        )
    if namesakes:
        raise YourMistake(CONFLICT, f"the name {shown(name)} is already in use; choose another one with --name")
