"""Instances whose host was rebooted under them: nothing of them runs any more, and their owners say whether they start again."""

from __future__ import annotations

import msgspec

from tashi.manager.cluster import Transaction
from tashi.manager.lifecycle import advance
from tashi.model.host import Host
from tashi.model.instance import Instance, Residue
from tashi.model.states import Happening


def hold(tx: Transaction, instance: Instance, host: Host, *, nowhere: bool = False) -> Instance:
    """Hold an instance that ran on an earlier boot of its host; what is left of it there, and at a target, is cleared away.

    ``nowhere``: it was moving, and its target has said that it does not have it. Its disks belong to no host then.
    """
    generation = instance.generation + 1
    left = [host.id]
    if instance.migration is not None and instance.migration.received:
        left.append(instance.migration.target)
    kept = [one for one in instance.residue if one.host_id not in left]
    residue = (*kept, *(Residue(host_id=number, generation=generation) for number in left))
    unused = generation if nowhere else instance.unused_below
    before = msgspec.structs.replace(instance, migration=None, residue=residue, saved="", unused_below=unused)
    return advance(
        tx, before, Happening.HOST_REBOOTED, reason=_words(instance, host), generation=generation, decayed=False, boot=""
    )


def _words(instance: Instance, host: Host) -> str:
    words = f"its host {host.name} was rebooted"
    lost = sum(not disk.persistent for disk in instance.disks)
    if lost:
        words += "; its throw-away disk is lost" if lost == 1 else f"; its {lost} throw-away disks are lost"
    return words
