"""The syntaxes a user types behind an option."""

from __future__ import annotations

import re

import pytest

from tashi.client import arguments
from tashi.errors import YourMistake


def test_disks_are_not_persistent_unless_they_say_so() -> None:
    """`uri[:persistent]` in a comma list becomes one disk a part."""
    assert arguments.disks("mpi-hardy.qcow2:True,scratch.qcow2:no,plain") == [
        {"uri": "mpi-hardy.qcow2", "persistent": True},
        {"uri": "scratch.qcow2", "persistent": False},
        {"uri": "plain", "persistent": False},
    ]


def test_blank_parts_of_a_nic_are_filled() -> None:
    """A blank network is left to the cell, a blank address is none, a blank MAC is random in the range of QEMU."""
    first, second, third = arguments.nics(":1.2.3.4,1::52:54:00:00:56:78,7")
    assert "network" not in first
    assert first["ip"] == "1.2.3.4"
    assert re.fullmatch("52:54:00(:[0-9a-f]{2}){3}", first["mac"])
    assert second == {"network": 1, "ip": None, "mac": "52:54:00:00:56:78"}
    assert third["network"] == 7
    assert third["mac"] != first["mac"]


def test_hints_are_texts_and_may_hold_equals_signs() -> None:
    """Only the first equals sign of a hint ends its name."""
    assert arguments.hints("a=1,b=x=y,c=") == {"a": "1", "b": "x=y", "c": ""}


@pytest.mark.parametrize("text", ["yes", "TRUE", "1"])
def test_yes_has_three_spellings(text: str) -> None:
    """yes, true and 1 mean yes in capitals or not."""
    assert arguments.boolean(text) is True


@pytest.mark.parametrize(
    ("converter", "text", "words"),
    [
        (arguments.disks, "", "Incorrect format for disks argument"),
        (arguments.disks, "a,,b", "Incorrect format for disks argument"),
        (arguments.disks, "a:maybe", "Incorrect format for disks argument"),
        (arguments.nics, "one", "Incorrect format for nics argument"),
        (arguments.nics, "1:1.2.3", "Incorrect format for nics argument"),
        (arguments.nics, "1::52:54", "Incorrect format for nics argument"),
        (arguments.hints, "a", "Incorrect format for hints argument"),
        (arguments.hints, "=a", "Incorrect format for hints argument"),
        (arguments.boolean, "perhaps", "neither yes nor no"),
        (arguments.whole("cores", 1), "eight", "no whole number"),
        *((arguments.whole("userId", 0), text, "no whole number") for text in ("01000", "1_0", "١", " 5", "+5", "5\n")),
        (arguments.nics, "1_0", "Incorrect format"),
        (arguments.whole("cores", 1), "0", "whole number from 1"),
        (arguments.whole("cores", 1), "9" * 5000, "whole number from 1"),
        (arguments.seconds, "-1", "number of seconds"),
        (arguments.seconds, "nan", "number of seconds"),
    ],
)
def test_what_cannot_be_understood_is_refused_in_words(converter: arguments.Converter, text: str, words: str) -> None:
    """A wrong text is refused with the name of its option and the syntax it should have."""
    with pytest.raises(YourMistake, match=words):
        converter(text)
