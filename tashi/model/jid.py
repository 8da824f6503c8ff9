"""XMPP addresses, prepared so that equal addresses are equal texts: nodeprep and nameprep (RFC 6122, A and B).

Every door prepares an address before it stores or compares it. This is pure; the streams themselves use
Twisted's own JID class,
and a test keeps both alike.
"""

from __future__ import annotations

import re
import stringprep
from encodings import idna
from typing import Final
from unicodedata import ucd_3_2_0 as unicode_3_2  # the version that stringprep is defined for

MAX_PART: Final = 1023
"""Most bytes of either part of an address (RFC 6122)."""
_NOT_IN_A_NODE: Final = frozenset("\"&'/:<>@")
_HOST_NAME: Final = re.compile(r"[a-z0-9-]*")
_PROHIBITED: Final = (
    stringprep.in_table_c11_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def prepare_bare(text: str) -> str:
    """Return ``user@domain`` prepared; ValueError says what was expected."""
    node, at, domain = text.partition("@")
    if not node or not at or "/" in domain:
        raise ValueError("expected a bare JID such as alice@example.org, without a resource")
    try:
        return f"{_prepare_node(node)}@{_prepare_domain(domain)}"
    except UnicodeError:
        raise ValueError("expected a bare JID such as alice@example.org") from None


def prepare_bare_or_domain(text: str) -> str:
    """Return ``user@domain`` or ``domain`` prepared; ValueError says what was expected."""
    if "@" in text:
        return prepare_bare(text)
    try:
        return _prepare_domain(text)
    except UnicodeError:
        raise ValueError(
            "expected a bare JID such as alice@example.org, or a domain such as example.org"
        ) from None


def comparable(text: str) -> str:
    """Return the address prepared, or as it is when it is none: what an older version may have stored."""
    try:
        return prepare_bare_or_domain(text)
    except ValueError:
        return text


def _prepare_node(text: str) -> str:
    mapped = "".join(stringprep.map_table_b2(one) for one in text if not stringprep.in_table_b1(one))
    node = unicode_3_2.normalize("NFKC", mapped)
    if any(one in _NOT_IN_A_NODE or any(table(one) for table in _PROHIBITED) for one in node):
        raise UnicodeError("a character that is not allowed before the @")
    _check_bidirectional(node)
    return _checked(node)


def _prepare_domain(text: str) -> str:
    labels = idna.dots.split(text)
    if len(labels) > 1 and not labels[-1]:
        labels.pop()  # a final dot says nothing
    return _checked(".".join(map(_prepare_label, labels)))


def _prepare_label(text: str) -> str:
    label = idna.nameprep(text)
    ascii_part = "".join(one for one in label if one.isascii())
    if not label or not _HOST_NAME.fullmatch(ascii_part) or label.startswith("-") or label.endswith("-"):
        raise UnicodeError("not a part of a host name")
    return label


def _check_bidirectional(text: str) -> None:
    """RFC 3454, section 6: text from right to left does not mix with the other kind, and begins and ends as
    such."""
    if any(map(stringprep.in_table_d1, text)) and (
        any(map(stringprep.in_table_d2, text))
        or not (stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1]))
    ):
        raise UnicodeError("text of both directions")


def _checked(part: str) -> str:
    if (
        not part
        or len(part.encode("utf-8", "surrogatepass")) > MAX_PART
        or any(map(stringprep.in_table_a1, part))
    ):
        raise UnicodeError("empty, too long, or with an unassigned character")
    return part
