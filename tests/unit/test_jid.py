"""XMPP addresses: prepared, equal ones are equal texts, and what is none is refused."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.words.protocols.jabber.jid import InvalidFormat, parse

from tashi.model.jid import comparable, prepare_bare, prepare_bare_or_domain

_AWKWARD = "aZ1.-_@/\\ :&<\"'" + (
    "\u00df\u0130\u00aa\u00ad\u05d0\u0661\u3002\uff0e\u200d\u0301\ufb01\U00010400\u2126\u0378\ud800\x00\x7f"
)


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        ("alice@example.org", "alice@example.org"),
        ("Admin@Cell.Test", "admin@cell.test"),
        ("ＡＬＩＣＥ@ｅｘａｍｐｌｅ．ｏｒｇ", "alice@example.org"),
        ("strasse@Straße.example", "strasse@strasse.example"),
        ("straße@example.org.", "strasse@example.org"),
        ("BÜCHER@BÜCHER.example", "bücher@bücher.example"),
        ("a\u00adb@example.org", "ab@example.org"),
    ],
)
def test_equal_addresses_are_one_text(text: str, prepared: str) -> None:
    """Case, width and what is not seen make no difference (D8)."""
    assert prepare_bare(text) == prepared
    assert comparable(text) == prepared


@pytest.mark.parametrize(
    "text",
    [
        "", "@", "alice", "alice@", "@example.org", "alice@example.org/Gajim", "a@b@c", "a b@example.org",
        "a\u00a0b@example.org", "a@b c", "a@b#c", "a@-b", "a@b-", "a@b..c", "a@.b", "a@b_c", "a/b@c", "a:b@c",
        "<a@b>", "a@b\n", "a\n@b", "a\x00@b",
        "\ud800@b", "a@\ud800", "x" * 1024 + "@b", "a@" + ".".join(["x" * 60] * 20), "\u05d0a@b", "\u00ad@b",
    ],
)  # fmt: skip
def test_what_is_no_bare_address_is_refused(text: str) -> None:
    """The refusal says what was expected, and an old record with such a text is compared as it is."""
    with pytest.raises(ValueError, match="expected a bare JID"):
        prepare_bare(text)
    if "@" in text:
        assert comparable(text) == text


def test_a_domain_stands_for_all_its_addresses() -> None:
    """A domain is prepared as in an address."""
    assert prepare_bare_or_domain("Slas.EXAMPLE") == "slas.example"
    with pytest.raises(ValueError, match="or a domain"):
        prepare_bare_or_domain("slas example")


@given(
    st.text(st.sampled_from(_AWKWARD) | st.characters(), max_size=6),
    st.text(st.sampled_from(_AWKWARD) | st.characters(), max_size=6),
)
@example("\u0130", "example.org")
@example("\ufa70", "0")
def test_a_prepared_address_is_what_the_stream_makes_of_it(node: str, domain: str) -> None:
    """Whatever is accepted here is the form in which Twisted's streams tell senders, and preparing again
    changes nothing."""
    text = f"{node}@{domain}"
    try:
        prepared = prepare_bare(text)
    except ValueError:
        return
    assert prepare_bare(prepared) == prepared
    try:
        user, host, resource = parse(text)
    except (InvalidFormat, UnicodeError, IndexError):
        pytest.fail(f"{text!r} is prepared here as {prepared!r}, and refused by the stream")
    assert (f"{user}@{host.rstrip('.')}", resource) == (prepared, None)
