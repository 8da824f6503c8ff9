"""Network namespaces for the thread that runs a test: one of its own, or another process's. What it starts is there, too."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def network_namespace(of: int | None = None) -> Iterator[None]:
    """Be in the namespace of the process with this id, or in a new one, while the block runs."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if of is None:
            _check(_libc.unshare(_CLONE_NEWNET))
        else:
            other = os.open(Path("/proc", str(of), "ns", "net"), os.O_RDONLY)
            _check(_libc.setns(other, _CLONE_NEWNET))
            os.close(other)
        yield
    finally:
        _check(_libc.setns(home, _CLONE_NEWNET))
        os.close(home)


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
