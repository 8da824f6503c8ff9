"""A body is a verb, a space and an argument."""

from __future__ import annotations

import pytest

from tashi.errors import BAD_SYNTAX, YourMistake
from tashi.xmpp.grammar import MAX_BODY, is_silent, parse_body


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        ("deletecompute 10", ("deletecompute", "10")),
        ("DeleteCompute 10", ("deletecompute", "10")),
        ("  help \n", ("help", "")),
        ("createcompute\n[{}, []]\n", ("createcompute", "[{}, []]")),
        ("createcompute\t{}", ("createcompute", "{}")),
        ("help", ("help", "")),
    ],
)
def test_parts(body: str, parts: tuple[str, str]) -> None:
    """Case and space around the parts do not matter."""
    assert parse_body(body) == parts


def test_length() -> None:
    """A body may have 200 KiB, counted in bytes, and no more."""
    assert parse_body("x " + "y" * (MAX_BODY - 2))[0] == "x"
    for body in ("x " + "y" * (MAX_BODY - 1), "x " + "é" * (MAX_BODY // 2)):
        with pytest.raises(YourMistake) as caught:
            parse_body(body)
        assert caught.value.code == BAD_SYNTAX


@pytest.mark.parametrize("body", ["", "  \n", '{"status":"ERROR","message":"x"}', ' {"status":"OK"}'])
def test_silent(body: str) -> None:
    """Nothing, and what another sink might have answered, is not answered."""
    assert is_silent(body)


def test_not_silent() -> None:
    """Everything else is, even when it makes no sense."""
    assert not any(is_silent(body) for body in ("help", "{", "createcompute", "[]"))
