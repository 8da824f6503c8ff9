"""A domain taken off its host, with all that it had there and nothing that a later order has made."""

from __future__ import annotations

from typing import Any, Final

import libvirt

from tashi.node.access.logs import ConsoleLogs
from tashi.node.libvirt.connection import gone_meanwhile
from tashi.node.libvirt.domain import console_of, mark_of
from tashi.node.storage.disks import Disks

_UNDEFINE: Final = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)
"""What libvirt removes with a definition: nothing else of the domain may stay behind."""


class Removal:
    """How domains are removed from this host."""

    def __init__(self, disks: Disks, logs: ConsoleLogs) -> None:
        self._disks = disks
        self._logs = logs

    def remove(self, domain: Any, generation: int, keep_console: bool = False) -> None:
        """End the domain if need be, and remove its definition and its throw-away disks up to this generation, or to that which it
        answers to. The log of its console goes, too, unless it is kept for whoever asks why the domain has ended."""
        console, domain_uuid = console_of(domain), domain.UUIDString()
        with gone_meanwhile():
            mark = mark_of(domain)
            if mark is not None:
                generation = max(generation, mark.generation)
            if domain.isActive():
                with gone_meanwhile(libvirt.VIR_ERR_OPERATION_INVALID):  # it ended by itself just now
                    domain.destroy()
            if domain.isPersistent():
                undefine(domain)
        self._disks.discard(domain_uuid, generation)
        if not keep_console:
            self._logs.forget(console)


def undefine(domain: Any) -> None:
    """Undefine the domain with all that libvirt keeps for it; some drivers know of nothing but a managed save."""
    try:
        domain.undefineFlags(_UNDEFINE)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_INVALID_ARG:
            raise
        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE)
