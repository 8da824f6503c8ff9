"""How the text of one setting becomes a typed value: numbers with their range, lists, secrets that never show themselves.

Every refusal is a ``ValueError`` whose words name no secret; the caller adds file, line and key.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
import shlex
from typing import Annotated, Any, Final, Literal, Protocol, Self, get_args, get_origin, runtime_checkable
from urllib.parse import urlsplit

import msgspec

from tashi.model import jid
from tashi.scheduling.placing import expression

MASK = "******"
# What fits a signed 32-bit column: a bound for the machine, of which people are told only when they pass it.
ENDLESS = 2**31 - 1
PLACEHOLDER: Final = re.compile(r"\{(name|id|address|config\.[A-Za-z][A-Za-z0-9_]*)\}")
"""What stands in a command for something of the host that it is about."""
BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """What a value looks like beyond its Python type: its unit and range; a ``part`` is the name of one of Tashi's own parts, a ``formula``
    is a load expression."""

    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    part: bool = False
    path: bool = False
    formula: bool = False

    @property
    def words(self) -> str:
        """Unit and range for people, such as ``s, at least 0``."""
        bounds = ""
        if self.minimum is not None and self.maximum is not None and self.maximum < ENDLESS:
            bounds = f"{self.minimum:.15g} to {self.maximum:.15g}"
        elif self.minimum is not None:
            bounds = f"at least {self.minimum:.15g}"
        return ", ".join(word for word in (self.unit, bounds) if word)


Seconds = Annotated[float, Form(unit="s", minimum=0)]
Period = Annotated[float, Form(unit="s", minimum=0.01)]
Megabytes = Annotated[int, Form(unit="MB", minimum=0, maximum=ENDLESS)]
Count = Annotated[int, Form(minimum=0, maximum=ENDLESS)]
PositiveCount = Annotated[int, Form(minimum=1, maximum=ENDLESS)]
Port = Annotated[int, Form(minimum=1, maximum=65535)]
Share = Annotated[float, Form(minimum=0, maximum=1)]
OverRate = Annotated[float, Form(minimum=1, maximum=1000)]
Part = Annotated[str, Form(part=True)]
FilePath = Annotated[str, Form(path=True)]
LoadFormula = Annotated[str, Form(formula=True)]


@runtime_checkable
class Parsed(Protocol):
    """A value with a grammar of its own."""

    @classmethod
    def parse(cls, text: str) -> Any:
        """The value that the text means; ``ValueError`` says what is wrong with it."""


@runtime_checkable
class Guarded(Protocol):
    """A value that may hold a secret."""

    def shown(self) -> str:
        """The value with its secrets masked."""

    def holds_secret(self) -> bool:
        """Whether there is a secret in it at all."""


class Secret(str):
    """A text for programs only: whatever prints it by ``repr`` prints a mask."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Secret:
        """Any text is a secret, the empty one is none."""
        return cls(text)

    def shown(self) -> str:
        """A mask of constant length, or nothing where there is no secret."""
        return MASK if self else ""

    def holds_secret(self) -> bool:
        """Whether it is set."""
        return bool(self)

    def __repr__(self) -> str:
        return repr(self.shown())


class BareJid(str):
    """An XMPP address ``user@domain``, prepared so that equal addresses are equal texts."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> BareJid:
        """Accept an address without a resource."""
        return cls(jid.prepare_bare(text))


class BareJidOrDomain(str):
    """Such an address, or a domain that stands for all addresses in it."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> BareJidOrDomain:
        """Accept an address without a resource, or a domain."""
        return cls(jid.prepare_bare_or_domain(text))


class DatabaseUri(str):
    """``sqlite:///path`` or ``mysql://user[:password]@host[:port]/database``; its password is masked when shown."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> DatabaseUri:
        """Accept the two kinds of database there are; nothing at all stands for the file in the state directory."""
        if text and urlsplit(text).scheme not in {"sqlite", "mysql"}:
            raise ValueError("expected sqlite:///path or mysql://user@host/database")
        return cls(text)

    def shown(self) -> str:
        """The address with the password masked."""
        password = urlsplit(self).password
        return self.replace(f":{password}@", f":{MASK}@", 1) if password else str(self)

    def holds_secret(self) -> bool:
        """Whether a password stands in the address."""
        return bool(urlsplit(self).password)

    def __repr__(self) -> str:
        return repr(self.shown())


class AddressRange(msgspec.Struct, frozen=True):
    """The IPv4 addresses from ``first`` to ``last``, both included."""

    first: str
    last: str

    @classmethod
    def parse(cls, text: str) -> AddressRange:
        """Read ``172.16.1.10-172.16.1.19``."""
        first, separator, last = (word.strip() for word in text.partition("-"))
        try:
            in_order = bool(separator) and ipaddress.IPv4Address(first) <= ipaddress.IPv4Address(last)
        except ipaddress.AddressValueError:
            in_order = False
        if not in_order:
            raise ValueError("expected the first and last IPv4 address, such as 172.16.1.10-172.16.1.19")
        return cls(first, last)

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


class BridgeName(str):
    """The names of bridges: ``{id}`` stands for a number of at most four digits."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> BridgeName:
        """Accept what is a different name for each number, and short enough for the kernel."""
        if text.count("{id}") != 1 or not re.fullmatch(r"[A-Za-z0-9_.:-]{4,15}", text.replace("{id}", "4094")):
            raise ValueError("expected a name with {id} in it such as vmbr.{id}, at most 15 characters when that is a number")
        return cls(text)


class CommandLine(str):
    """A program and its arguments as one writes them for a shell; but no shell ever reads it, and nothing is expanded."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Accept what can be split into words."""
        try:
            shlex.split(text)
        except ValueError as error:
            raise ValueError(f"expected a program and its arguments, quoted as in a shell ({str(error).lower()})") from None
        return cls(text)

    @property
    def words(self) -> list[str]:
        """The program and its arguments; none where nothing is set."""
        return shlex.split(self)


class HostCommand(CommandLine):
    """Such a line about a host: ``{name}``, ``{id}``, ``{address}`` and ``{config.KEY}`` in an argument stand for the host's own."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Accept no other word in braces."""
        for word in re.findall(r"\{[^}]*\}?", text):
            if not PLACEHOLDER.fullmatch(word):
                raise ValueError(f"expected {{name}}, {{id}}, {{address}} or {{config.KEY}} for the host's own, not {word}")
        return super().parse(text)


def parse(kind: Any, form: Form, text: str) -> Any:
    """The value of type ``kind`` that ``text`` means, within the range of ``form``; ``ValueError`` says what was expected."""
    if kind is bool:
        if text.lower() not in BOOLEANS:
            raise ValueError("expected True or False")
        return BOOLEANS[text.lower()]
    if kind is int or kind is float:
        return _number(kind, form, text)
    if get_origin(kind) is Literal:
        choices = {str(choice).lower(): choice for choice in get_args(kind)}
        if text.lower() not in choices:
            raise ValueError("expected " + " or ".join(choices.values()))
        return choices[text.lower()]
    if get_origin(kind) is tuple:
        words = [word for word in (word.strip() for word in text.replace("\n", ",").split(",")) if word]
        item = get_args(kind)[0]
        return tuple(dict.fromkeys(map(item.parse, words))) if issubclass(item, Parsed) else tuple(words)
    if isinstance(kind, type) and issubclass(kind, Parsed):
        return kind.parse(text)
    if form.formula:
        expression.read(text)
    return os.path.expanduser(text) if form.path else text


def text_of(value: Any) -> str:
    """The text that ``parse`` reads back as this value, with secrets masked."""
    if isinstance(value, Guarded):
        return value.shown()
    if isinstance(value, tuple):
        return ", ".join(value)
    return str(value)


def _number(kind: type[int] | type[float], form: Form, text: str) -> float:
    pattern = r"[+-]?\d{1,18}" if kind is int else r"[+-]?(\d{1,18}(\.\d*)?|\.\d+)(e[+-]?\d{1,3})?"
    value = kind(text) if re.fullmatch(pattern, text, re.ASCII | re.IGNORECASE) else math.nan
    low = -math.inf if form.minimum is None else form.minimum
    high = math.inf if form.maximum is None else form.maximum
    # Not a number and infinity fail here too: neither lies in any range.
    if not (low <= value <= high and math.isfinite(value)):
        if value > high:
            raise ValueError(f"expected at most {high:.15g}")
        noun = "a whole number" if kind is int else "a number"
        raise ValueError("expected " + ", ".join(word for word in (noun, form.words) if word))
    return value
