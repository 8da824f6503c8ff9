"""The load expression: read as arithmetic and as nothing else, and refused with the character that is wrong."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tashi.config import ConfigError, load
from tashi.errors import BAD_ARGUMENT, YourMistake
from tashi.scheduling.placing.expression import ENDLESS, VARIABLES, parse

USES = (3.0, 5.0, 7.0)

Written = tuple[str, float]
"""An expression as a text, and what Python makes of the same."""


def _sum(parts: list[tuple[str, Written]]) -> Written:
    text, value = parts[0][1]
    for sign, (other, amount) in parts[1:]:
        text, value = f"{text} {sign} {other}", value + amount if sign == "+" else value - amount
    return f"({text})", value


def _product(parts: list[tuple[str, Written]]) -> Written:
    text, value = parts[0][1]
    for sign, (other, amount) in parts[1:]:
        assume(sign == "*" or amount != 0)
        text, value = f"{text}{sign}{other}", value * amount if sign == "*" else value / amount
    return f"({text})", value


def _extreme(name: str, parts: list[Written]) -> Written:
    return f"{name}({', '.join(text for text, _ in parts)})", (max if name == "max" else min)(value for _, value in parts)


def _several(signs: str, inner: st.SearchStrategy[Written]) -> st.SearchStrategy[list[tuple[str, Written]]]:
    return st.lists(st.tuples(st.sampled_from(signs), inner), min_size=2, max_size=3)


numbers = st.integers(0, 999).map(lambda number: (f"{number / 8}", number / 8))
variables = st.sampled_from(list(zip(VARIABLES, USES, strict=True)))
expressions = st.recursive(
    numbers | variables,
    lambda inner: st.one_of(
        _several("+-", inner).map(_sum),
        _several("*/", inner).map(_product),
        inner.map(lambda one: (f"-{one[0]}", -one[1])),
        st.builds(_extreme, st.sampled_from(["min", "max"]), st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=8,
)


def complaint(text: str) -> str:
    with pytest.raises(YourMistake) as caught:
        parse(text)
    assert caught.value.code == BAD_ARGUMENT
    return caught.value.message.removeprefix("[Scheduler] loadExpression: ")


@given(expressions)
def test_it_is_python_s_own_arithmetic(written: Written) -> None:
    """What is read comes to what Python makes of the same numbers; what is not read is not finite for all hosts, or the same for all."""
    text, expected = written
    try:
        read = parse(f"1e12 * memUsage + {text}")
    except YourMistake as error:
        assert "finite" in error.message or "divides by zero" in error.message or "at most" in error.message
        return
    assert read.value(*USES) == max(-ENDLESS, min(ENDLESS, 3e12 + expected))


def test_columns_are_worked_out_at_once() -> None:
    """Columns of hosts give a column, and numbers a number."""
    read = parse("max(memUsage, coresUsage * 512) - -cpuUsage / 2")
    assert read.value(np.array([100, 9000]), np.array([1, 2]), np.array([0, 50])).tolist() == [512, 9025]
    assert read.value(100, 1, 0) == 512


def test_addends_are_the_parts_of_the_sum() -> None:
    """Brackets and signs do not hide a part of a sum, constants are left out, and anything else is one part."""
    assert parse("memUsage - (coresUsage - 2*cpuUsage + 7)").parts(1, 10, 100).tolist() == [1, -10, 200]
    assert parse("(memUsage + coresUsage) * 2").parts(1, 10, 100).tolist() == [22]
    assert parse("memUsage + coresUsage").parts([1, 2], [3, 4], [0, 0]).tolist() == [[1, 2], [3, 4]]


def test_no_host_has_an_endless_load() -> None:
    """A division by what happens to be zero counts as the greatest load, and what is no number as none."""
    read = parse("memUsage / (memUsage - 512)")
    assert read.value(np.array([512.0, 1024.0]), 0, 0).tolist() == [ENDLESS, 2]
    assert parse("(memUsage - 512) / (memUsage - 512)").value(512, 0, 0) == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("memUsage + coresUsag", "character 12, 'coresUsag': there is no coresUsag; did you mean coresUsage?"),
        ("memusage", "character 1, 'memusage': there is no memusage; did you mean memUsage?"),
        ("memUsage +", "character 11, the end: expected a number"),
        ("memUsage ** 2", "character 11, '*': expected a number"),
        ("2 memUsage", "character 3, 'memUsage': expected + - * / or the end"),
        ("(memUsage", "character 10, the end: expected + - * / or )"),
        ("memUsage)", "character 9, ')'"),
        ("max memUsage", "character 5, 'memUsage': expected ("),
        ("memUsage / (2 - 2)", "character 12, '(': divides by zero"),
        ("memUsage / coresUsage", "not a finite number for an empty host"),
        ("memUsage * 1e302 * 9", "not a finite number for a host with 10000000 MB"),
        ("1e999 + memUsage", "character 1, '1e999': is too large"),
        ("1 + 2", "is the same for every host"),
        ("(" * 51 + "memUsage" + ")" * 51, "character 51, '(': there are more than 50 brackets"),
        ("+" * 993 + "memUsage", "has 1001 characters; at most 1000"),
    ],
)  # fmt: skip
def test_what_is_malformed_is_refused_with_its_place(text: str, words: str) -> None:
    """The character, counted from 1, what stands there, and what was expected."""
    assert words in complaint(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('id')", "memUsage.__class__", "memUsage if 1 else 2", "(lambda: 1)()", "[memUsage][0]",
        "memUsage; cpuUsage", "memUsage == 1", "memUsage or 1", "memUsage % 2", "max(memUsage, key=1)", "memUsage\\x",
        "f'{memUsage}'", "memUsage²", "m\u0435mUsage", "exec(1)",
    ],
)  # fmt: skip
def test_it_is_no_program(text: str) -> None:
    """Whatever is more than arithmetic is refused by its first character that is."""
    assert complaint(text).startswith("character ")


@given(st.text(alphabet="memUsagcorp0123.eE+-*/(), \n'_", max_size=40))
def test_no_text_breaks_it(text: str) -> None:
    """Any text is read or refused in words."""
    try:
        assert math.isfinite(parse(text).value(*USES))
    except YourMistake as error:
        assert error.code == BAD_ARGUMENT


def test_the_longest_chains_are_worked_out() -> None:
    """Neither many parts nor many signs nor many brackets exhaust anything."""
    assert parse("+".join(["cpuUsage"] * 111)).value(*USES) == 777
    assert parse("-" * 992 + "memUsage").value(*USES) == 3
    assert parse("-(" * 50 + "memUsage" + ")" * 50).value(*USES) == 3


def test_the_configuration_refuses_it(tmp_path: Path) -> None:
    """The file, the line, the key and the character are named when the configuration is read."""
    file = tmp_path / "Tashi.cfg"
    file.write_text("[Scheduler]\nloadExpression = memUsage + 512 x coresUsage\n")
    file.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        load(("ClusterManager",), environ={"HOME": str(tmp_path)}, directories=[tmp_path])
    assert caught.value.message == f"{file}:2: [Scheduler] loadExpression: character 16, 'x': expected + - * / or the end"
