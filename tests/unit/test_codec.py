"""Records to JSON and back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tashi.errors import BAD_ARGUMENT, YourMistake
from tashi.model.instance import Instance
from tashi.model.orders import Order, Report
from tashi.wire.codec import PAGE_BYTES, decode, encode, pages
from tests.strategies import instances, orders, reports


@settings(max_examples=15)
@given(instances())
def test_an_instance_survives_the_wire(instance: Instance) -> None:
    """What is decoded is what was encoded."""
    assert decode(encode(instance), Instance) == instance


@settings(max_examples=15)
@given(st.lists(orders(), max_size=3))
def test_orders_survive_the_wire(wanted: list[Any]) -> None:
    """Each order is still the kind that it was."""
    assert decode(encode(wanted), list[Order]) == wanted


@settings(max_examples=15)
@given(reports())
def test_a_report_survives_the_wire(report: Report) -> None:
    """So does a report."""
    assert decode(encode(report), Report) == report


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b'{"facts": 7}', b"\xff", b'{"facts": {"memory": NaN}}', b"[" * 100_000, 7, None, b"9" * 100_000],
)
def test_what_is_no_record_is_a_mistake(text: Any) -> None:
    """Broken, wrongly typed, deep and huge input is refused in one way."""
    with pytest.raises(YourMistake, match="not a valid message") as caught:
        decode(text, Report)
    assert caught.value.code == BAD_ARGUMENT


def test_the_mistake_names_the_field() -> None:
    """The path of the wrong field stands in the words."""
    with pytest.raises(YourMistake, match=r"\$\.facts\.cores"):
        decode(b'{"facts": {"memory": 1, "cores": "two", "cpuSpeed": 1, "version": ""}}', Report)


@pytest.mark.parametrize("length", [0, 1, PAGE_BYTES, PAGE_BYTES + 1, 5 * PAGE_BYTES - 1])
def test_pages_are_the_text(length: int) -> None:
    """Pages joined are the text, none is too long, and there is always one."""
    text = bytes(range(256)) * (length // 256) + b"x" * (length % 256)
    parts = pages(text)
    assert b"".join(parts) == text
    assert parts and all(len(part) <= PAGE_BYTES for part in parts)
