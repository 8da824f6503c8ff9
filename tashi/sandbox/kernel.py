"""The few system calls of Linux that Python's library lacks: mount and unshare, for a host made of namespaces."""

from __future__ import annotations

import ctypes
import os

MS_BIND = 0x1000
MS_REC = 0x4000
CLONE_NEWCGROUP = 0x02000000

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """mount(2); raises OSError naming the target."""
    _check(_libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode()), target)


def bind(source: str, target: str) -> None:
    """Show `source` at `target`, too."""
    mount(source, target, "none", MS_BIND | MS_REC)


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags), "unshare")


def _check(result: int, subject: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), subject)
