"""Instances that their host does not have and has not seen end: in doubt, Held after a reboot, ended only when that is proven."""

from __future__ import annotations

from uuid import UUID

from tashi.manager import migrations
from tashi.manager.cluster import Transaction
from tashi.manager.images import Directory
from tashi.manager.lifecycle import advance, end
from tashi.manager.reboots import hold
from tashi.model.events import vm_action
from tashi.model.host import Host
from tashi.model.instance import Instance, saved_name
from tashi.model.states import Happening, InstanceState, is_legal


def miss(tx: Transaction, instance: Instance, host: Host, *, proven: bool = False, alive: str = "") -> None:
    """Record that the instance's host does not have it. ``proven``: complete lists lack it, the first and the last ten seconds apart.
    ``alive``: that a domain in its place lives and cannot be known by its mark, in words; then it has not ended.

    A list proves an end only where the instance was last seen: on this boot of this machine.
    """
    boot = "" if host.identity is None else host.identity.boot
    rebooted = host.identity is not None and host.identity.was_rebooted_since(instance.boot)
    proven = proven and bool(boot) and instance.boot == boot
    if alive:
        if is_legal(instance.state, Happening.MISSED):
            _doubt(tx, migrations.lose_host(tx, instance, host), host, alive)
    elif migrations.is_leaving(instance):
        if proven:
            migrations.leave(tx, instance)
        else:
            reason = f"its host {host.name} was rebooted while it moved" if rebooted else _reason(host)
            migrations.lose_source(tx, instance, reason)
    elif instance.state is InstanceState.MigrateTrans:
        end(tx, instance, f"it left its host and did not arrive on {host.name}")  # the answer of its target, which was asked
    elif rebooted and is_legal(instance.state, Happening.HOST_REBOOTED):
        hold(tx, instance, host)
    elif is_legal(instance.state, Happening.MISSED):
        if proven:
            end(tx, instance, f"missing on {host.name}: two complete lists lack it, and nobody saw it end")
        else:
            _doubt(tx, migrations.lose_host(tx, instance, host), host, _reason(host))
    elif instance.state in (InstanceState.Activating, InstanceState.Resuming):
        advance(tx, instance, Happening.SEEN_GONE, reason=f"missing on {host.name} after its start")


def find_saved(tx: Transaction, instance: Instance, cell: UUID, images: Directory) -> bool:
    """Record that an instance which its host does not have is Suspended, if its memory is kept. Return whether it is.

    Its record knows of no suspension because it was restored from a backup that is older.
    """
    saved = saved_name(cell, instance.id, instance.incarnation)
    if not instance.incarnation or not is_legal(instance.state, Happening.SEEN_SAVED) or not images.is_saved(saved):
        return False
    reason = "its memory was found where suspended instances are kept; resumeVm continues it"
    advance(tx, instance, Happening.SEEN_SAVED, reason=reason, saved=saved, migration=None, decayed=False)
    tx.cluster.log.warn("{name} ({id}) is Suspended: {reason}", name=instance.name, id=instance.id, reason=reason)
    return True


def _doubt(tx: Transaction, instance: Instance, host: Host, reason: str) -> None:
    orphaned = instance.state is InstanceState.Orphaned
    if orphaned and instance.reason == reason:
        return
    after = advance(tx, instance, Happening.MISSED, reason=reason, decayed=True)
    if orphaned:
        tx.tell(vm_action("stateChanged", after, after.state.name, after.state.name, reason, host.name))
    tx.cluster.log.warn("{name} ({id}) is Orphaned: {reason}", name=after.name, id=after.id, reason=reason)


def _reason(host: Host) -> str:
    return f"missing on {host.name}, end not seen"
