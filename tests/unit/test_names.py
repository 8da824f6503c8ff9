"""The rules of names and sizes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tashi.errors import BAD_ARGUMENT, YourMistake
from tashi.model.names import check_hostname, check_image, check_integer, check_mac, check_resource_id, shown


@pytest.mark.parametrize("name", ["a", "tizzy0", "Web-1.example_x", "9lives", "x" * 63])
def test_good_host_names(name: str) -> None:
    """A letter or digit, then letters, digits, '_', '.' and '-', at most 63."""
    assert check_hostname("hostname", name) == name


@pytest.mark.parametrize(
    "name", ["", "-a", ".a", "_a", "x" * 64, "a b", "a\n", "a\0", "é", "x'/><qemu:commandline>", "٣", None, 7, ["a"], "a/b", "a;b"]
)
def test_bad_host_names(name: object) -> None:
    """Anything else is refused with the field's name."""
    with pytest.raises(YourMistake, match="hostname is ") as caught:
        check_hostname("hostname", name)
    assert caught.value.code == BAD_ARGUMENT


@pytest.mark.parametrize(
    "image",
    ["../x", "/dev/sda", "json:{}", "nbd:host", "a/b", "a\\b", ".hidden", "..", "a..b", "", "x\0.img", "http://x", "rbd:a", "é.img", 7],
)
def test_paths_and_protocols_are_no_images(image: object) -> None:
    """An image is a file of the image directory, and nothing that qemu would take for something else."""
    with pytest.raises(YourMistake, match="imageIdentifier"):
        check_image("imageIdentifier", image)


@pytest.mark.parametrize("image", ["tashi.img", "ubuntu-9.10", "a", "A+b_c.qcow2"])
def test_good_images(image: str) -> None:
    """Plain file names are."""
    assert check_image("imageIdentifier", image) == image


@pytest.mark.parametrize("value", [True, 1.0, "1", None, 0, 9, -1, 10**400])
def test_what_is_no_integer(value: object) -> None:
    """A boolean, a fraction, a string and what is beyond the limits is no whole number from 1 to 8."""
    with pytest.raises(YourMistake, match="use a whole number from 1 to 8 cores"):
        check_integer("cpu_cores", value, 1, 8, "cores")


@pytest.mark.parametrize(("mac", "expected"), [("", ""), ("52:54:00:AB:cd:01", "52:54:00:ab:cd:01")])
def test_good_macs(mac: str, expected: str) -> None:
    """A MAC address is kept in lower case; none means one is chosen."""
    assert check_mac("mac", mac) == expected


@pytest.mark.parametrize("mac", ["52:54:00:ab:cd", "52-54-00-ab-cd-01", "52:54:00:ab:cd:01\n", None, 5])
def test_bad_macs(mac: object) -> None:
    """Anything else is refused."""
    with pytest.raises(YourMistake, match="mac"):
        check_mac("mac", mac)


@settings(max_examples=40)
@given(st.text())
def test_any_text_is_a_resource_id_or_refused(text: str) -> None:
    """A resourceId is opaque, but printable and short."""
    if text.isprintable() and 1 <= len(text) <= 128:
        assert check_resource_id("resourceId", text) == text
    else:
        with pytest.raises(YourMistake):
            check_resource_id("resourceId", text)


@settings(max_examples=40)
@given(st.text())
def test_what_is_shown_is_one_short_line(text: str) -> None:
    """An error shows whatever it was given without control characters and without length."""
    words = shown(text)
    assert words.isprintable() and words.isascii() and len(words) < 100
