"""The content of one file in another: shared blocks where the file system has them (a reflink), else its data in pieces.

Holes stay holes. All of this blocks and belongs into a thread; between two pieces the caller is told how far it is and may raise.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from typing import Final

PIECE_BYTES: Final = 4 * 2**20
BLOCK_BYTES: Final = 64 * 2**10
SYNC_BYTES: Final = 64 * 2**20
"""After so many bytes they are brought to the disk, so that the last of them does not keep the caller waiting."""
_FICLONE: Final = 0x40049409
_NO_REFLINK: Final = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EISDIR, errno.ETXTBSY)
_NO_COPY_RANGE: Final = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ETXTBSY, errno.EBADF)


def reflink(source: int, target: int) -> bool:
    """Let the target share the source's blocks; False where the file system cannot. Both are descriptors."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in _NO_REFLINK:
            raise
        return False
    return True


def copy_data(source: int, target: int, copied: Callable[[int], None]) -> None:
    """Make the empty target as long as the source, with the same data; ``copied`` is called with the bytes of each
    piece when it is there. OSError when that cannot be done; what is there of the target is then worth nothing."""
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    unsynced = 0
    extents = list(_extents(source, size))
    # some file systems do not say where the holes are, though there must be some
    copy_piece = _copy_what_is_not_zero if extents == [(0, size)] and data_bytes(source) < size else _copy_piece
    for start, end in extents:
        while start < end:
            done = copy_piece(source, target, start, min(PIECE_BYTES, end - start))
            if not done:
                raise OSError(errno.EIO, "it became shorter while it was copied")
            copied(done)
            start += done
            unsynced += done
            if unsynced >= SYNC_BYTES:
                os.fdatasync(target)
                unsynced = 0
    os.fsync(target)


def data_bytes(source: int) -> int:
    """About how many bytes `copy_data` copies."""
    status = os.fstat(source)
    return min(status.st_size, status.st_blocks * 512)


def _extents(source: int, size: int) -> Iterator[tuple[int, int]]:
    """Where there is data; the whole file on a file system that cannot tell."""
    position = 0
    while position < size:
        try:
            start = os.lseek(source, position, os.SEEK_DATA)
            end = min(size, os.lseek(source, start, os.SEEK_HOLE))
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                return
            start, end = position, size
        yield start, end
        position = end


def _copy_piece(source: int, target: int, start: int, length: int) -> int:
    """How many bytes were copied; none at the end of the file."""
    try:
        return os.copy_file_range(source, target, length, start, start)
    except OSError as error:
        if error.errno not in _NO_COPY_RANGE:
            raise
    data = os.pread(source, length, start)
    _write(target, data, start)
    return len(data)


def _copy_what_is_not_zero(source: int, target: int, start: int, length: int) -> int:
    """The same, but what is zero stays a hole."""
    data = os.pread(source, length, start)
    for offset in range(0, len(data), BLOCK_BYTES):
        block = data[offset : offset + BLOCK_BYTES]
        if block.count(0) < len(block):
            _write(target, block, start + offset)
    return len(data)


def _write(target: int, data: bytes, start: int) -> None:
    view = memoryview(data)
    while view:
        view = view[os.pwrite(target, view, start + len(data) - len(view)) :]
