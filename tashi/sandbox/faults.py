"""Faults of single hosts, made on purpose: power cut and boot, link cut and heal.

A power cut is silent, as a real one is: nobody on the network is told. A cut link carries nothing between the host and the control plane
or the other hosts; the host runs on, and its guests' own network stays. `cell.json` tells the truth again when a fault has been made.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tashi.sandbox import cell, processes, qemu_host
from tashi.sandbox.layout import Layout, load_layout
from tashi.sandbox.problem import SandboxProblem


def power_cut(directory: Path, name: str) -> None:
    """End all that runs on the host of the cell at `directory` at once. Raises SandboxProblem when it is off already."""
    with cell.locked(directory):
        layout = _layout(directory, name)
        if not _is_on(layout, name):
            raise SandboxProblem(f"host {name} is off already; `tashi sandbox boot --host {name}` powers it on")
        if layout.identity.hypervisor == "test":
            processes.kill(process.pid for process in processes.processes_of(directory) if process.role == qemu_host.agent_role(name))
        else:
            qemu_host.kill(layout, name)
        cell.write_cell_file(layout, layout.host_names())


def boot(directory: Path, name: str) -> None:
    """Power the host on; returns when its daemons have started. Raises SandboxProblem when it is on already."""
    with cell.locked(directory):
        layout = _layout(directory, name)
        if _is_on(layout, name):
            raise SandboxProblem(f"host {name} is on already; `tashi sandbox` starts daemons that have ended")
        cell.start_host(layout, name, processes.processes_of(directory))
        cell.write_cell_file(layout, layout.host_names())


def cut(directory: Path, name: str) -> None:
    """Cut the host's link to the control plane and the other hosts. Raises SandboxProblem when it is off, or cut already."""
    with cell.locked(directory):
        layout = _layout_with_link(directory, name)
        if not qemu_host.has_link(layout, name):
            raise SandboxProblem(f"the link of host {name} is cut already; `tashi sandbox heal --host {name}` mends it")
        qemu_host.set_link(layout, name, up=False)


def heal(directory: Path, name: str) -> None:
    """Mend the host's link. Raises SandboxProblem when it is off, or not cut."""
    with cell.locked(directory):
        layout = _layout_with_link(directory, name)
        if qemu_host.has_link(layout, name):
            raise SandboxProblem(f"the link of host {name} is not cut; there is nothing to heal")
        qemu_host.set_link(layout, name, up=True)


def power(directory: Path, name: str) -> None:
    """Print whether the host is on or off."""
    print("on" if _is_on(_layout(directory, name), name) else "off", flush=True)


FAULTS: dict[str, Callable[[Path, str], None]] = {"kill": power_cut, "boot": boot, "cut": cut, "heal": heal, "power": power}
"""The commands of `tashi sandbox` that concern one host."""


def _layout(directory: Path, name: str) -> Layout:
    """The layout of the running cell that has this host."""
    layout = load_layout(directory)
    if layout is None or not cell.is_running(directory):
        raise SandboxProblem(f"no cell runs in {directory}; name its directory by --state-dir, or bring it up with `tashi sandbox`")
    if name not in layout.host_names():
        raise SandboxProblem(f"the cell in {directory} has no host {name}; it has {', '.join(layout.host_names())}")
    return layout


def _layout_with_link(directory: Path, name: str) -> Layout:
    layout = _layout(directory, name)
    if layout.identity.hypervisor == "test":
        raise SandboxProblem(f"host {name} is simulated and has no link of its own; only qemu hosts have, or cut its power")
    if not _is_on(layout, name):
        raise SandboxProblem(f"host {name} is off; `tashi sandbox boot --host {name}` powers it on, with its link whole")
    return layout


def _is_on(layout: Layout, name: str) -> bool:
    running = processes.processes_of(layout.directory)
    if layout.identity.hypervisor == "test":
        return processes.main_process(running, qemu_host.agent_role(name)) is not None
    return qemu_host.init_of(running, name) is not None
