"""The operator's own script for a network: run with the name of a guest's tap device, as `qemu-ifup` is. Never by a shell."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tashi.errors import BAD_ARGUMENT, INTERNAL, OurFault

SECONDS: Final = 10.0
"""How long a script may take."""
_LONGEST_WORDS: Final = 4096
_ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


def check_script(path: Path) -> None:
    """OurFault unless the script can be run, and only root or the agent's own user could have written it."""
    if not path.is_absolute():
        raise _refused(path, "is not absolute")
    try:
        target = path.resolve(strict=True)
        mode = target.stat().st_mode
    except OSError as error:
        raise _refused(path, f"cannot be found ({error.strerror})") from None
    if not stat.S_ISREG(mode) or not os.access(target, os.X_OK):
        raise _refused(path, "is no program: make it executable (chmod 755)")
    for place in {target, *path.parents, *target.parents}:
        status = place.stat()
        shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not (place.is_dir() and status.st_mode & stat.S_ISVTX)
        if shared or status.st_uid not in (0, os.geteuid()):
            raise _refused(path, f"could be changed by others through {place}: chown root and chmod 755 that")


def run_script(path: Path, tap: str) -> None:
    """Let the script do what it does for a tap device; OurFault with its last words when it fails or takes too long."""
    check_script(path)
    with tempfile.TemporaryFile() as words:  # no pipe: what the script leaves running in the background may hold its end open
        try:
            script = subprocess.Popen(
                [str(path), tap],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=words,
                env=_ENVIRONMENT,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise OurFault(INTERNAL, f"{path} was not run: {error.strerror}; its first line must name its interpreter") from error
        try:
            code = script.wait(SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(script.pid, signal.SIGKILL)
            script.wait()
            raise OurFault(INTERNAL, f"{path} {tap} was not through within {SECONDS:g} s") from None
        if code != 0:
            size = words.seek(0, os.SEEK_END)
            words.seek(max(0, size - _LONGEST_WORDS))
            lines = words.read().decode(errors="replace").strip().splitlines()
            raise OurFault(INTERNAL, f"{path} {tap} ended with {code}: {lines[-1] if lines else 'it said nothing'}")


def _refused(path: Path, why: str) -> OurFault:
    return OurFault(BAD_ARGUMENT, f"[Networks] ifup names {path}, which {why}; correct it, or leave ifup empty")
