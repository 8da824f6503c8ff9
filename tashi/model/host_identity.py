"""Which machine an agent runs on, and which boot of it: what tells a host from a copy of its agent, and a restart from a reboot."""

from __future__ import annotations

import hashlib
from typing import Annotated

import msgspec

from tashi.model.bounds import Text

_Word = Annotated[str, msgspec.Meta(max_length=128)]


class HostIdentity(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The machine and the hypervisor that an agent speaks for, and the boot of that machine. What is unknown is empty.

    The first three never change for a host; another ``boot_id`` means that nothing of what ran there survived.
    """

    machine_id: _Word = ""  # a digest of /etc/machine-id
    host_uuid: _Word = ""  # libvirt's UUID of the host
    uri: Text = ""  # of libvirt
    boot_id: _Word = ""  # a simulated host's boot is its agent's process

    def is_same_machine(self, other: HostIdentity) -> bool:
        """Whether both name the same hypervisor of the same machine, whatever the boot."""
        return self._parts == other._parts

    @property
    def boot(self) -> str:
        """The machine and the boot in one word, as instance records keep it; '' where the boot is unknown."""
        return f"{self.machine}/{self.boot_id}" if self.boot_id else ""

    def was_rebooted_since(self, boot: str) -> bool:
        """Whether ``boot`` names an earlier boot of this machine."""
        return bool(self.boot) and boot != self.boot and boot.startswith(f"{self.machine}/")

    def describe(self) -> str:
        """Name the machine in words for an operator."""
        uri, host_uuid, machine = (
            ascii(text or "unknown")[1:-1][:200] for text in (self.uri, self.host_uuid, self.machine_id[:8])
        )
        return f"libvirt {uri} with host UUID {host_uuid} on machine {machine}"

    @property
    def _parts(self) -> tuple[str, str, str]:
        return self.machine_id, self.host_uuid, self.uri

    @property
    def machine(self) -> str:
        """The machine and its hypervisor in one word."""
        return hashlib.sha256("\n".join(self._parts).encode()).hexdigest()[:12]
