"""Whether KVM runs ordinary guests here, found out by running one: a device node or a created virtual machine proves nothing.

Where KVM itself has no hardware beneath it, its instruction emulator may carry a guest for a while, and then a common kernel hangs. So the
guest is a boot sector that enters long mode, mends a page fault, counts to sixteen million and leaves by the debug port (its source is
kvm_probe.S): a real processor is through in an instant. The answer holds until the machine is booted again, and is kept for that long.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import msgspec

PROBE_SECONDS: Final = 2.5
_EXIT_STATUS: Final = 0x08 << 1 | 1  # what isa-debug-exit makes of the byte that the sector writes
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
SECTOR: Final = (
    bytes.fromhex(
        "fa31c08ed88ec08ed0bc007cea117c0000e4920c02e69266bf001000000f22df6631c066b9000c0000fc66f3ab66c70600100320000066c706002003"
        "30000066c7060030830000000f20e06683c8200f22e066b9800000c00f32660d000100000f300f0116087d0f20c0660d010000800f22c0ea787c0800"
        "66b810008ed88ec08ed0bc007c0000bfe0500000b8dd7c000066890766c74702080066c74704008ec1e8106689470648c74708000000000f011c250e"
        "7d0000bb00002000c70378563412813b785634127510b900000001ffc975fcb00866baf400eef4ebfdc7042508300000830020004883c40848cf6690"
        "0000000000000000ffff0000009aaf00ffff00000092cf001700f07c0000ef000050"
    ).ljust(510, b"\0")
    + b"\x55\xaa"
)


class _Answer(msgspec.Struct, frozen=True):
    """What was found, and during which boot of the machine with which emulator."""

    boot: str
    emulator: str
    works: bool


def kvm_works(state_directory: Path, emulator: str = "qemu-system-x86_64") -> bool:
    """Whether a guest runs under KVM; blocks for at most PROBE_SECONDS, and hardly at all when the answer is known.

    ``kvm.json`` in the directory keeps the answer. Agents that are one machine may share one, by links; then one asks and the others wait.
    """
    kept = (state_directory / "kvm.json").resolve()
    kept.parent.mkdir(parents=True, exist_ok=True)
    with kept.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        boot = _BOOT_ID.read_text().strip()
        try:
            answer = msgspec.json.decode(kept.read_bytes(), type=_Answer)
            if (answer.boot, answer.emulator) == (boot, emulator):
                return answer.works
        except (OSError, msgspec.MsgspecError):
            pass  # not known yet, or not readable: ask again
        answer = _Answer(boot=boot, emulator=emulator, works=boots("kvm", emulator))
        kept.write_bytes(msgspec.json.encode(answer))
        return answer.works


def boots(accelerator: str, emulator: str, seconds: float = PROBE_SECONDS) -> bool:
    """Whether the boot sector comes through under this accelerator within the time."""
    if accelerator == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    with tempfile.NamedTemporaryFile(prefix="tashi-probe-", suffix=".img") as disk:
        disk.write(SECTOR)
        disk.flush()
        command = [
            "timeout", "--signal=KILL", f"{seconds}",  # so that it ends even when we are killed meanwhile
            emulator, "-accel", accelerator, "-m", "16", "-nodefaults", "-display", "none", "-no-reboot",
            "-device", "isa-debug-exit,iobase=0xf4,iosize=1",
            "-drive", f"file={disk.name},format=raw,if=ide",
        ]  # fmt: skip
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        except OSError:
            return False
    return done.returncode == _EXIT_STATUS
