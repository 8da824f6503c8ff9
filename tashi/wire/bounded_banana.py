"""Banana (the encoding below Perspective Broker), read within bounds: a message that passes one ends the connection it came over.

Twisted's own reader collects a list for as long as elements come. This one counts every token before it keeps it. Its work is linear in
the bytes received, and its verdict on a stream does not depend on how the bytes are cut.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgspec

LIST, INT, STRING, NEG, FLOAT, LONGINT, LONGNEG, VOCAB = range(0x80, 0x88)
PREFIX: Final = 10
"""Most bytes of the number before a type byte: 70 bits, more than any length, id or version takes."""


class Bounds(msgspec.Struct, frozen=True):
    """Limits of one message: bytes as encoded, elements (lists count as one, and so does what is in them), lists within lists."""

    bytes: int
    elements: int
    depth: int


BEFORE_LOGIN: Final = Bounds(bytes=8 * 1024, elements=64, depth=4)
AFTER_LOGIN: Final = Bounds(bytes=660 * 1024, elements=2000, depth=12)
"""One string of at most 640 KiB, or the description of an exception."""


class OutOfBounds(Exception):
    """The stream is not banana, or one of its messages passes a bound; the words say which."""


class Nothing:
    """No message is complete yet."""


NOTHING: Final = Nothing()


class Reader:
    """Makes messages of received bytes: `feed` them, then call `next` until it returns NOTHING. OutOfBounds ends the stream.

    ``bounds`` may be replaced between two messages; ``vocabulary`` gives the words that one-byte tokens stand for.
    """

    def __init__(self, bounds: Bounds, vocabulary: dict[int, bytes]) -> None:
        self.bounds = bounds
        self._vocabulary = vocabulary
        self._buffer = bytearray()
        self._open: list[tuple[int, list[Any]]] = []  # lists that are not complete: how many elements they have, and those so far
        self._bytes = 0  # of the message that is being read
        self._elements = 0

    @property
    def held(self) -> int:
        """Bytes received and not yet part of a complete message."""
        return self._bytes + len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take what was received."""
        self._buffer += data

    def next(self) -> Any:
        """The next complete message, or NOTHING."""
        while True:
            end, kind, number = self._token()
            if kind is None:
                return NOTHING
            if kind == LIST:
                self._open_list(end, number)
                if number:
                    continue
                value: Any = self._open.pop()[1]
            elif kind in (STRING, FLOAT):
                length = number if kind == STRING else 8
                self._check_bytes(end + length)
                if len(self._buffer) < end + length:
                    return NOTHING
                found = bytes(self._buffer[end : end + length])
                value = found if kind == STRING else struct.unpack("!d", found)[0]
                self._take(end + length)
            else:
                value = self._word(number) if kind == VOCAB else -number if kind in (NEG, LONGNEG) else number
                self._take(end)
            if self._close_lists(value):
                return self._message

    def _token(self) -> tuple[int, int | None, int]:
        """Where the next token's head ends, its type byte (None: it is not there yet) and its number."""
        buffer, number = self._buffer, 0
        for at in range(min(len(buffer), PREFIX + 1)):
            byte = buffer[at]
            if byte >= LIST:
                if byte > VOCAB:
                    raise OutOfBounds(f"there is no type byte {byte:#x}")
                return at + 1, byte, number
            number |= byte << (7 * at)
        if len(buffer) > PREFIX:
            raise OutOfBounds(f"a number of more than {PREFIX} bytes")
        return 0, None, 0

    def _open_list(self, end: int, length: int) -> None:
        if len(self._open) >= self.bounds.depth:
            raise OutOfBounds(f"lists within lists deeper than {self.bounds.depth}")
        if self._elements + 1 + length > self.bounds.elements:
            raise OutOfBounds(f"a message of more than {self.bounds.elements} elements")
        self._take(end)
        self._open.append((length, []))

    def _word(self, number: int) -> bytes:
        try:
            return self._vocabulary[number]
        except KeyError:
            raise OutOfBounds(f"there is no word {number}") from None

    def _check_bytes(self, more: int) -> None:
        if self._bytes + more > self.bounds.bytes:
            raise OutOfBounds(f"a message of more than {self.bounds.bytes} bytes")

    def _take(self, count: int) -> None:
        """One token of so many bytes is used up."""
        self._check_bytes(count)
        self._elements += 1
        if self._elements > self.bounds.elements:
            raise OutOfBounds(f"a message of more than {self.bounds.elements} elements")
        self._bytes += count
        del self._buffer[:count]

    def _close_lists(self, value: Any) -> bool:
        """Put the value where it belongs; True when a message is complete."""
        while self._open:
            length, elements = self._open[-1]
            elements.append(value)
            if len(elements) < length:
                return False
            value = self._open.pop()[1]
        self._message = value
        self._bytes = self._elements = 0
        return True
