"""Sections of the node agent: how it reaches its manager and its hypervisor."""

from __future__ import annotations

from typing import Annotated

from tashi.config.options import Key, Section
from tashi.config.values import CommandLine, Count, FilePath, Megabytes, Part, Period, Port, PositiveCount, Seconds


class NodeManager(Section, frozen=True, kw_only=True):
    """The parts that the node agent is made of."""

    vmm: Annotated[Part, Key("What runs the VMs: Libvirt")] = "Libvirt"
    dfs: Annotated[Part, Key("What keeps the images: Vfs, a directory that all hosts share")] = "Vfs"


class NodeManagerService(Section, frozen=True, kw_only=True):
    """The node agent's side of the connection to the control plane."""

    name: Annotated[str, Key("Name of this host; empty: the machine's own")] = ""
    cluster_manager_host: Annotated[str, Key("Machine of the control plane")] = "localhost"
    cluster_manager_port: Annotated[Port, Key("Its port")] = 9882
    tls: Annotated[bool, Key("Whether that port is encrypted; False only on loopback")] = True
    ca_file: Annotated[FilePath, Key("Certificate that the control plane is verified with; empty: the one in its state directory")] = ""
    join_secret_file: Annotated[
        FilePath, Key("File of the secret for the first login of a new host; empty: the one in the control plane's state directory")
    ] = ""
    state_dir: Annotated[
        FilePath, Key("Directory of the node's own key and files; empty: node in the directory that is the control plane's by default")
    ] = ""
    register_frequency: Annotated[Period, Key("The node tells that it lives at least this often")] = 10.0
    stats_interval: Annotated[Seconds, Key("Time between two reports of use; 0: none", aliases=("Qemu.statsInterval",))] = 0.0
    offer_cores: Annotated[Count, Key("Cores offered to VMs; 0: all of the machine's")] = 0
    offer_memory: Annotated[Megabytes, Key("Memory offered to VMs; 0: all of the machine's but [Qemu] reservedMem")] = 0
    power_off_command: Annotated[
        CommandLine, Key("Program and arguments that shut this machine down when the control plane, with [Power] driver = wol, asks it to")
    ] = CommandLine("systemctl poweroff")
    call_timeout: Annotated[Period, Key("Deadline of one call of the hypervisor", aliases=("Qemu.monitorTimeout",))] = 60.0


class Libvirt(Section, frozen=True, kw_only=True):
    """The hypervisor."""

    uri: Annotated[str, Key("libvirt's address of it, such as qemu:///system or test:///path/of/node.xml")] = "qemu:///system"
    threads: Annotated[PositiveCount, Key("Calls of it at once")] = 4
    migration_uri: Annotated[str, Key("How other hosts' libvirt reaches this one for a migration; {fqdn} stands for this host's name")] = (
        "qemu+tls://{fqdn}/system"
    )
    migration_bandwidth: Annotated[Count, Key("Most megabytes a second of one migration; 0: no limit")] = 0
    vnc_address: Annotated[
        str, Key("Address of this host that startVnc lets a viewer come to; empty: the one at which it reaches the control plane")
    ] = ""


class Qemu(Section, frozen=True, kw_only=True):
    """What a host keeps for itself, and how its VMs move."""

    reserved_mem: Annotated[Megabytes, Key("Memory of the machine that no VM gets")] = 512
    migrate_timeout: Annotated[Period, Key("Deadline of one migration")] = 300.0
    max_parallel_migrations: Annotated[PositiveCount, Key("Migrations out of this host at once")] = 10
    scratch_dir: Annotated[
        FilePath, Key("Directory of what a VM writes to disks that are not persistent; empty: scratch in the node's stateDir")
    ] = ""
    scratch_vg: Annotated[str, Key("LVM volume group for the hint scratchSpace; empty: a sparse file in scratchDir")] = ""
