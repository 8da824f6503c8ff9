"""The bounded reader of banana: Twisted's messages, one verdict however the bytes are cut, nothing kept without bound."""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.spread import banana

from tashi.wire.bounded_banana import AFTER_LOGIN, BEFORE_LOGIN, NOTHING, Bounds, OutOfBounds, Reader

VOCABULARY = banana.Banana.incomingVocabulary
SMALL = Bounds(bytes=200, elements=12, depth=3)

_values = st.recursive(
    st.integers(-(2**69), 2**69) | st.binary(max_size=40) | st.floats(allow_nan=False) | st.sampled_from(sorted(VOCABULARY.values())),
    lambda inner: st.lists(inner, max_size=6),
    max_leaves=12,
)
_tokens = st.lists(
    st.builds(
        lambda number, kind, more: number + bytes([kind]) + more,
        st.binary(max_size=11).map(lambda text: bytes(byte & 0x7F for byte in text)) | st.sampled_from([b"", b"\1", b"\2", b"\5"]),
        st.sampled_from([0x80, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0xFF]),
        st.binary(max_size=8),
    ),
    max_size=20,
).map(b"".join)


class _Outgoing:
    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


def encoded(value: Any, dialect: bytes = b"pb") -> bytes:
    """The value as Twisted encodes it."""
    sender: Any = banana.Banana(isClient=0)
    sender.transport = _Outgoing()
    sender.setPrefixLimit(64)
    sender.currentDialect = dialect
    sender.sendEncoded(value)
    return bytes(sender.transport.data)


def verdict(data: bytes, cuts: list[int], bounds: Bounds = SMALL) -> tuple[list[Any], str]:
    """The messages that come of the bytes cut at these places, and what ended the stream."""
    reader, messages = Reader(bounds, VOCABULARY), []
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in zip(edges, [*edges[1:], len(data)], strict=True):
        reader.feed(data[start:end])
        try:
            while (message := reader.next()) is not NOTHING:
                messages.append(message)
        except OutOfBounds as error:
            return messages, str(error)
    return messages, ""


@given(st.lists(_values, max_size=3))
def test_it_reads_what_twisted_writes(values: list[Any]) -> None:
    """Every value within the bounds comes out as it was sent."""
    wide = Bounds(bytes=10_000, elements=1000, depth=20)
    assert verdict(b"".join(encoded(value) for value in values), [], wide) == (values, "")


@settings(max_examples=300)
@given(st.one_of(_tokens, st.binary(max_size=300), st.lists(_values, max_size=4).map(lambda all: b"".join(map(encoded, all)))),
       st.lists(st.integers(0, 400), max_size=30))  # fmt: skip
def test_any_chunking_gives_the_same_verdict(data: bytes, cuts: list[int]) -> None:
    """A2: how the bytes are cut changes neither the messages nor what ends the stream."""
    assert verdict(data, cuts) == verdict(data, []) == verdict(data, list(range(len(data))))


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"\x00\x00\x20\x80" + b"\x01\x81" * 70, "elements"),
        (b"\x40\x80" + b"\x01\x81" * 64, "elements"),
        (b"\x01\x80" * 5, "deeper"),
        (b"\x00\x00\x01\x82", "bytes"),
        (b"\x7f\x3f\x82" + b"x" * 8191 + b"\x82", "bytes"),
        (b"\x01" * 11, "number"),
        (b"\x01" * 11 + b"\x85", "number"),
        (b"\x7f\x87", "word"),
        (b"\xff", "type byte"),
        (b"\x19\x80" * 3 + b"\x00\x81" * 100, "elements"),
    ],
)
def test_before_the_login_little_is_taken(data: bytes, word: str) -> None:
    """A2: 8 KiB, 64 elements and depth 4 at most, and the words say what was passed."""
    messages, why = verdict(data, [], BEFORE_LOGIN)
    assert messages == []
    assert word in why


def test_what_is_announced_is_not_waited_for() -> None:
    """A2: a list of a billion and a string of a gigabyte end the stream at their heads."""
    for head in (b"\x00\x28\x6b\x5c\x03\x80", b"\x00\x00\x00\x00\x04\x82"):
        assert verdict(head, [])[1]
        assert verdict(head, [], AFTER_LOGIN)[1]


def test_a_full_page_is_taken_after_the_login() -> None:
    """The longest string that Twisted sends is read, also byte by byte, in linear time."""
    text = b"x" * banana.SIZE_LIMIT
    call = [b"message", 1, 2, b"call", 1, [b"tuple", text], [b"dictionary"]]
    data = encoded(call)
    assert verdict(data, [], AFTER_LOGIN) == ([call], "")
    reader, read = Reader(AFTER_LOGIN, VOCABULARY), 0
    for start in range(0, len(data), 16):
        reader.feed(data[start : start + 16])
        read += reader.next() is not NOTHING
    assert read == 1
    assert reader.held == 0


def test_a_stream_of_small_elements_keeps_nothing() -> None:
    """A2: a never-ending list takes no more memory than its bounds, whatever its elements are."""
    tracemalloc.start()
    try:
        for element in (b"\x00\x81", b"\x80", b"\x00\x82", b"\x01\x87", b"\x84" + struct.pack("!d", 1.0)):
            reader = Reader(AFTER_LOGIN, VOCABULARY)
            reader.feed(b"\x4f\x0f\x80" + element * 1990)  # a list of 1,999
            assert reader.next() is NOTHING
            with pytest.raises(OutOfBounds):
                reader.feed(b"\x09\x80" + b"\x01\x81" * 9 + b"\x01\x81")
                while reader.next() is not NOTHING:
                    pass
        assert tracemalloc.get_traced_memory()[1] < 2 * 2**20
    finally:
        tracemalloc.stop()
