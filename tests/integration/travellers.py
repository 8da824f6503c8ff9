"""A real virtual machine that moves between hosts: what its console has said on each of them is one story."""

from __future__ import annotations

import functools
import json
import re
import subprocess
from typing import Any

from tests.integration.cells import RunningCell, until

BOOT_SECONDS = 240
"""A guest boots in seven seconds; ten of them at once, on two busy cores, have been seen to take more than a minute."""
_BEAT = re.compile(r"^HB (\d+) up=([\d.]+) ", re.MULTILINE)


class Traveller:
    """A guest of 128 MB whose heartbeat is numbered; it is up when this returns. It is created unless its row of getInstances is given."""

    def __init__(self, cell: RunningCell, name: str, host: str, *words: str, row: dict[str, Any] | None = None) -> None:
        self.cell = cell
        self.name = name
        if row is None:
            hints = f"targetHost={host},allowElsewhere=True"
            size = ("--name", name, "--disks", "tashi.img", "--memory", "128", "--hints", hints)
            row = json.loads(cell.cli("createVm", *size, "--wait", "-o", "json", *words))[0]
        self.id: int = row["id"]
        self.wait_for_beats(4, BOOT_SECONDS)  # an emulated guest that is moved while it boots may panic
        self._panics_of_its_first_boot = self.panics()

    def do(self, verb: str, *words: str, code: int = 0) -> str:
        """A verb of the client on this instance; what is printed."""
        return self.cell.cli(verb, "--instance", self.name, *words, code=code)

    def row(self) -> dict[str, Any]:
        """Its row of getInstances."""
        return next(row for row in self.cell.instances() if row["id"] == self.id)

    def beats(self) -> list[int]:
        """The numbers of the beats that stand whole in the consoles of all hosts, in their order."""
        return sorted(int(number) for text in self._consoles() for number, _ in _BEAT.findall(text))

    def wait_for_beats(self, more: int, seconds: float = 30.0) -> None:
        """Return when its heart has beaten so many times more."""
        last = max(self.beats(), default=0)
        until(lambda: max(self.beats(), default=0), lambda now: now >= last + more, seconds)

    def homes(self) -> list[str]:
        """The hosts that have its domain, as plain virsh sees them."""
        names = [host["name"] for host in self.cell.description["hosts"]]
        return [name for name in names if f"tashi-{self.id}-{self.name}" in self._domains(name)]

    def settles(self, host: str) -> None:
        """Return when only this host has its domain: it runs there a moment before its former host has let go of what is left."""
        until(self.homes, lambda homes: homes == [host], 10)

    def virsh(self, verb: str, *words: str) -> str:
        """What plain virsh on its host says of the domain."""
        return self._virsh(self.row()["host"], verb, f"tashi-{self.id}-{self.name}", *words)

    def boots(self) -> int:
        """How often it has come up, but for what its own kernel did: under QEMU's emulator one panics after a move now and then."""
        texts = self._consoles()
        return sum(text.count("GUEST-UP") for text in texts) - (self.panics() - self._panics_of_its_first_boot)

    def panics(self) -> int:
        """How often its kernel has panicked, and with that booted anew."""
        return sum(text.count("Kernel panic") for text in self._consoles())

    def last_words(self) -> str:
        """The ends of its consoles."""
        return "\n".join(text[-2000:] for text in self._consoles())

    def lost_beats(self) -> set[int]:
        """Beats that no console has whole. One line for each move may be torn: begun on one host and ended on the next."""
        beats = self.beats()
        return set(range(beats[0], beats[-1] + 1)) - set(beats)

    def _consoles(self) -> list[str]:
        logs = self.cell.state_dir.glob(f"nodes/*/state/console/{self._uuid}.*.log")
        return [log.read_bytes().decode(errors="replace").replace("\r", "") for log in logs]

    @functools.cached_property
    def _uuid(self) -> str:
        name = f"tashi-{self.id}-{self.name}"
        host = next(one["name"] for one in self.cell.description["hosts"] if name in self._domains(one["name"]))
        return self._virsh(host, "domuuid", name).strip()

    def _domains(self, host: str) -> str:
        try:
            return self._virsh(host, "list", "--name")
        except subprocess.CalledProcessError:  # it is off
            return ""

    def _virsh(self, host: str, *words: str) -> str:
        uri = next(one["uri"] for one in self.cell.description["hosts"] if one["name"] == host)
        return subprocess.run(["virsh", "-c", uri, *words], capture_output=True, text=True, timeout=30, check=True).stdout
