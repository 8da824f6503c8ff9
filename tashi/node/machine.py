"""Which machine this is, and which boot of it, as the kernel and its installation say."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from tashi.errors import INTERNAL, OurFault

MACHINE_ID: Final = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_SALT: Final = "tashi host identity "


def machine_id(paths: tuple[Path, ...] = MACHINE_ID) -> str:
    """Return a digest of the installation's machine id, which is itself confidential; '' where there is none."""
    for path in paths:
        try:
            text = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if text and text != "uninitialized":
            return hashlib.sha256((_SALT + text).encode()).hexdigest()[:32]
    return ""


def boot_id(path: Path = BOOT_ID) -> str:
    """Return the kernel's id of this boot. OurFault when the kernel has none."""
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise OurFault(INTERNAL, f"the boot id in {path} cannot be read ({error}); mount /proc") from None
