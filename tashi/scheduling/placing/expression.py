"""The load expression: arithmetic over what a host is used for, read by a grammar and never run as a program.

    sum     = product { ("+" | "-") product }
    product = factor { ("*" | "/") factor }
    factor  = { "-" | "+" } ( number | variable | ("min" | "max") "(" sum { "," sum } ")" | "(" sum ")" )

The variables are memUsage (MB), coresUsage (cores) and cpuUsage (MHz). What divides by zero counts as endless, which is 1e15.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from tashi.errors import BAD_ARGUMENT, YourMistake

VARIABLES: Final = ("memUsage", "coresUsage", "cpuUsage")
FUNCTIONS: Final = ("max", "min")
LONGEST: Final = 1000
DEEPEST: Final = 50
ENDLESS: Final = 1e15
_WORDS: Final = re.compile(r"\s*(?:((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|([A-Za-z_][A-Za-z_0-9.]*)|(\S))", re.ASCII)
_USES: Final = ((1.0, 1.0, 1.0), (1e7, 1e4, 1e7), (0.0, 0.0, 0.0))
"""A host with hardly any load, one with more than there is, an empty one: the expression is finite for all."""


class Number(msgspec.Struct, frozen=True, tag=True):
    """A constant."""

    value: float


class Variable(msgspec.Struct, frozen=True, tag=True):
    """One of the three, by its place in `VARIABLES`."""

    place: int


class Negative(msgspec.Struct, frozen=True, tag=True):
    """The same with the other sign."""

    of: Node


class Sum(msgspec.Struct, frozen=True, tag=True):
    """The first part, and those that are added to it or taken from it one after another."""

    first: Node
    rest: tuple[tuple[bool, Node], ...]
    """Whether it is taken away, and what."""


class Product(msgspec.Struct, frozen=True, tag=True):
    """The first part, and those by which it is multiplied or divided one after another."""

    first: Node
    rest: tuple[tuple[bool, Node], ...]
    """Whether it divides, and what."""


class Extreme(msgspec.Struct, frozen=True, tag=True):
    """The greatest or the least of some."""

    greatest: bool
    of: tuple[Node, ...]


Node = Number | Variable | Negative | Sum | Product | Extreme


class LoadExpression(msgspec.Struct, frozen=True):
    """What counts as load, ready to be worked out.

    ``addends`` are the parts whose sum it is, those of sums in brackets among them and constants left out; an expression of another
    shape is its only part.
    """

    root: Node
    addends: tuple[Node, ...]

    def value(self, memory: Any, cores: Any, cpu: Any) -> Any:
        """The load of a host that is used so far: MB, cores and MHz, as numbers or as columns of many hosts; always finite."""
        return _finite((self.root,), (memory, cores, cpu))[0]

    def parts(self, memory: Any, cores: Any, cpu: Any) -> Any:
        """The values of the addends, one row each."""
        return _finite(self.addends, (memory, cores, cpu))


def parse(text: str) -> LoadExpression:
    """The expression that the text means. `YourMistake` names the character at which it means nothing."""
    try:
        return read(text)
    except ValueError as error:
        raise YourMistake(BAD_ARGUMENT, f"[Scheduler] loadExpression: {error}") from None


def read(text: str) -> LoadExpression:
    """The same, but its ``ValueError`` does not say which option it is about."""
    if len(text) > LONGEST:
        raise ValueError(f"has {len(text)} characters; at most {LONGEST} are read")
    root = _Reader(text).all()
    if _is_constant(root):
        raise ValueError(f"is the same for every host: use {', '.join(VARIABLES)}")
    for uses in _USES:
        try:
            finite = math.isfinite(_value(root, uses, _extreme_of_numbers))
        except (ZeroDivisionError, OverflowError):
            finite = False
        if not finite:
            host = f"a host with {uses[0]:.15g} MB, {uses[1]:.15g} cores and {uses[2]:.15g} MHz in use" if any(uses) else "an empty host"
            raise ValueError(f"is not a finite number for {host}: use smaller numbers, and divide by nothing that can be 0")
    return LoadExpression(root, tuple(part for part in _parts(root, False) if not _is_constant(part)))


class _Word(NamedTuple):
    text: str
    kind: int
    """1: a number, 2: a name, 3: a sign, 0: the end."""
    at: int
    """The number of its first character, from 1."""


class _Reader:
    """One reading of a text, word by word."""

    def __init__(self, text: str) -> None:
        found = [_Word(one[one.lastindex or 0], one.lastindex or 0, one.start(one.lastindex or 0) + 1) for one in _WORDS.finditer(text)]
        self._words = [*found, _Word("the end", 0, len(text) + 1)]
        self._next = 0
        self._depth = 0

    def all(self) -> Node:
        """The whole text as one sum."""
        if len(self._words) == 1:
            raise ValueError(f"is empty: write such as {' + '.join(VARIABLES)}")
        root = self._sum()
        if self._word.kind:
            raise self._wrong("expected + - * / or the end")
        return root

    @property
    def _word(self) -> _Word:
        return self._words[self._next]

    def _takes(self, *signs: str) -> str:
        """The sign that comes next, when it is one of these; then it is read."""
        text, kind, _ = self._word
        if kind != 3 or text not in signs:
            return ""
        self._next += 1
        return text

    def _sum(self) -> Node:
        first = self._product()
        rest: list[tuple[bool, Node]] = []
        while sign := self._takes("+", "-"):
            rest.append((sign == "-", self._product()))
        return Sum(first, tuple(rest)) if rest else first

    def _product(self) -> Node:
        first = self._factor()
        rest: list[tuple[bool, Node]] = []
        while sign := self._takes("*", "/"):
            divisor = self._next
            factor = self._factor()
            if sign == "/" and _is_zero(factor):
                self._next = divisor
                raise self._wrong("divides by zero")
            rest.append((sign == "/", factor))
        return Product(first, tuple(rest)) if rest else first

    def _factor(self) -> Node:
        negative = False
        while sign := self._takes("-", "+"):
            negative ^= sign == "-"
        atom = self._atom()
        return Negative(atom) if negative else atom

    def _atom(self) -> Node:
        text, kind, _ = self._word
        if kind == 1:
            if not math.isfinite(float(text)):
                raise self._wrong("is too large a number")
            self._next += 1
            return Number(float(text))
        if kind == 2:
            if text in FUNCTIONS:
                self._next += 1
                return Extreme(text == "max", tuple(self._in_brackets("(")))
            if text not in VARIABLES:
                raise self._wrong(f"there is no {text[:40]}{_nearest(text)}")
            self._next += 1
            return Variable(VARIABLES.index(text))
        (inner,) = self._in_brackets("a number, a variable or (", most=1)
        return inner

    def _in_brackets(self, expected: str, most: int = LONGEST) -> list[Node]:
        """What stands in brackets: sums with commas between them, ``most`` at most."""
        if self._depth == DEEPEST:
            raise self._wrong(f"there are more than {DEEPEST} brackets within each other")
        if not self._takes("("):
            raise self._wrong(f"expected {expected}")
        self._depth += 1
        found = [self._sum()]
        while len(found) < most and self._takes(","):
            found.append(self._sum())
        if not self._takes(")"):
            raise self._wrong("expected + - * / or )")
        self._depth -= 1
        return found

    def _wrong(self, what: str) -> ValueError:
        """What is wrong with the next word, and where it is."""
        text, kind, at = self._word
        return ValueError(f"character {at}, {text[:40]!r}: {what}" if kind else f"character {at}, the end: {what}")


def _nearest(name: str) -> str:
    by_lower = {known.lower(): known for known in (*VARIABLES, *FUNCTIONS)}
    near = difflib.get_close_matches(name.lower(), by_lower, 1, 0.6)
    return f"; did you mean {by_lower[near[0]]}?" if near else f": there are {', '.join(VARIABLES)}"


def _is_constant(node: Node) -> bool:
    match node:
        case Number():
            return True
        case Variable():
            return False
        case Negative():
            return _is_constant(node.of)
        case Extreme():
            return all(_is_constant(one) for one in node.of)
        case Sum() | Product():
            return _is_constant(node.first) and all(_is_constant(one) for _, one in node.rest)


def _is_zero(node: Node) -> bool:
    return _is_constant(node) and _value(node, (0.0, 0.0, 0.0), _extreme_of_numbers) == 0


def _parts(node: Node, negative: bool) -> Iterator[Node]:
    match node:
        case Sum():
            yield from _parts(node.first, negative)
            for taken_away, part in node.rest:
                yield from _parts(part, negative ^ taken_away)
        case Negative():
            yield from _parts(node.of, not negative)
        case _:
            yield Negative(node) if negative else node


def _value(node: Node, uses: Sequence[Any], extreme: Callable[[bool, Sequence[Any]], Any]) -> Any:
    match node:
        case Number():
            return node.value
        case Variable():
            return uses[node.place]
        case Negative():
            return -_value(node.of, uses, extreme)
        case Extreme():
            return extreme(node.greatest, [_value(one, uses, extreme) for one in node.of])
        case Sum():
            value = _value(node.first, uses, extreme)
            for taken_away, part in node.rest:
                other = _value(part, uses, extreme)
                value = value - other if taken_away else value + other
            return value
        case Product():
            value = _value(node.first, uses, extreme)
            for divides, part in node.rest:
                other = _value(part, uses, extreme)
                value = value / other if divides else value * other
            return value


def _extreme_of_numbers(greatest: bool, values: Sequence[float]) -> float:
    return max(values) if greatest else min(values)


def _finite(nodes: Sequence[Node], uses: Sequence[Any]) -> Any:
    """The values of these, one row each, with nothing in them that comparisons and sums go astray on."""
    import numpy as np  # here, since whoever reads a configuration reads expressions and needs none of it

    def extreme(greatest: bool, values: Sequence[Any]) -> Any:
        found = values[0]
        for value in values[1:]:
            found = np.maximum(found, value) if greatest else np.minimum(found, value)
        return found

    columns = [np.asarray(one, dtype=np.float64)[()] for one in uses]
    rows = np.empty((len(nodes), *np.broadcast(*columns).shape))
    with np.errstate(all="ignore"):
        for row, node in enumerate(nodes):
            rows[row] = _value(node, columns, extreme)
        if not np.abs(rows).max(initial=0.0) <= ENDLESS:
            rows = np.clip(np.nan_to_num(rows, nan=0.0, posinf=ENDLESS, neginf=-ENDLESS), -ENDLESS, ENDLESS)
    return rows
