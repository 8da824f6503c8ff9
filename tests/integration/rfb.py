"""The beginning of a VNC viewer: as much of RFB as it takes to be let in, or not."""

from __future__ import annotations

import socket
import struct

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes

PATIENCE = 10.0


def log_in(connection: socket.socket, password: str) -> str:
    """The name of the screen; PermissionError with the server's words when the password does not open it."""
    connection.settimeout(PATIENCE)
    version = _read(connection, 12)
    assert version == b"RFB 003.008\n", version
    connection.sendall(version)
    kinds = _read(connection, _read(connection, 1)[0])
    assert kinds == b"\x02", f"{kinds!r} is not VNC's password alone"
    connection.sendall(kinds)
    connection.sendall(_response(password, _read(connection, 16)))
    if _read(connection, 4) != bytes(4):
        raise PermissionError(_read(connection, struct.unpack(">I", _read(connection, 4))[0]).rstrip(b"\0").decode())
    connection.sendall(b"\x01")
    (length,) = struct.unpack(">I", _read(connection, 24)[20:])
    return _read(connection, length).decode()


def _response(password: str, challenge: bytes) -> bytes:
    """The challenge under DES, whose key is the password with the bits of each byte the other way round."""
    key = bytes(int(f"{byte:08b}"[::-1], 2) for byte in password.encode()[:8].ljust(8, b"\0"))
    encryptor = Cipher(TripleDES(key * 3), modes.ECB()).encryptor()
    return encryptor.update(challenge) + encryptor.finalize()


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionError("the server hung up")
        data += part
    return data
