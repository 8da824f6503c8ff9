"""Control groups for the hosts of a cell, in version 1 and version 2 alike.

Each host gets one group of its own per hierarchy, named after the cell, and sees it as the root. The memory controller of version 1
stays out of it: where version 1 still runs, a container around us usually owns that one.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from tashi.sandbox import processes

CONTROLLERS = {"cpu", "cpuacct", "cpuset", "devices", "freezer", "blkio"}


class Hierarchy(msgspec.Struct, frozen=True):
    """A mounted tree of control groups."""

    directory: Path
    controllers: str  # as the mount options of version 1 spell them; empty for version 2


def hierarchies() -> list[Hierarchy]:
    """The trees that a host takes part in, as this machine mounts them; none when it mounts none."""
    found: dict[str, Hierarchy] = {}
    unified = None
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, _, rest = line.partition(" - ")
        kind, _, options = rest.split()[:3]
        directory = Path(place.split()[4])
        if kind == "cgroup2":
            unified = Hierarchy(directory, "")
        names = [name for name in options.split(",") if name in CONTROLLERS]
        if kind == "cgroup" and names:
            found.setdefault(",".join(names), Hierarchy(directory, ",".join(names)))
    if found:
        return list(found.values())  # beside version 1 the tree of version 2 holds no controllers
    return [unified] if unified is not None else []


def create(name: str) -> list[str]:
    """Make the group `name` in every hierarchy, and return its directories."""
    directories = []
    for hierarchy in hierarchies():
        directory = hierarchy.directory / name
        directory.mkdir(exist_ok=True)
        if "cpuset" in hierarchy.controllers.split(","):  # starts empty in version 1, and then takes no process
            for item in ("cpuset.cpus", "cpuset.mems"):
                (directory / item).write_text((hierarchy.directory / item).read_text())
        directories.append(str(directory))
    return directories


def names(prefix: str) -> list[str]:
    """The groups whose names begin so, in any hierarchy."""
    return sorted({group.name for hierarchy in hierarchies() for group in hierarchy.directory.glob(f"{prefix}*") if group.is_dir()})


def remove(name: str, seconds: float = 5.0) -> None:
    """Remove the groups `name` and all below them; what ran in them must have ended."""
    for hierarchy in hierarchies():
        processes.wait_until(lambda group=hierarchy.directory / name: _removed(group), seconds)  # type: ignore[misc]


def _removed(group: Path) -> bool:
    for directory, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):  # busy while a process in it is still ending
            os.rmdir(directory)
    return not group.exists()
