"""What a description of a domain says of its screen when the domain moves."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from tashi.errors import OurFault
from tashi.node.domain.landing import landed, mark_of_described, without_secrets
from tashi.node.domain.xml import mark_for
from tests.unit.test_domain_xml import CELL, a_domain, an_order

MARK = msgspec.structs.replace(mark_for(an_order(), CELL), generation=4)


def a_description(password: str) -> str:
    """A domain whose screen somebody may be let in at."""
    domain = a_domain(an_order())
    screen = domain.find("devices/graphics")
    assert screen is not None
    screen.set("passwd", password)
    screen.set("passwdValidTo", "2100-01-01T00:00:00")
    return ElementTree.tostring(domain, encoding="unicode")


def test_secrets_stay() -> None:
    """A description for another host says nothing of the password."""
    described = without_secrets(a_description("s3cret"))
    assert "s3cret" not in described and "passwd" not in described
    assert 'type="vnc"' in described


def test_screen_is_shut() -> None:
    """A domain arrives with a password that has expired, whether its description names one or not."""
    for described in (a_description("s3cret"), without_secrets(a_description("s3cret"))):
        text = landed(described, mark=MARK, files={}, bridge_of=lambda mac: "", console="/c", secret="other")
        screen = ElementTree.fromstring(text).find("devices/graphics")
        assert screen is not None
        assert (screen.get("passwd"), screen.get("passwdValidTo")) == ("other", "1970-01-01T00:00:01")


@pytest.mark.parametrize("other", [{"incarnation": "f" * 32}, {"instance_id": 99}, {"cell": "0c9a0f0e-1111-4222-8333-444455556666"}])
def test_a_domain_of_another_incarnation_does_not_land(other: dict[str, Any]) -> None:
    """O1: a description, or a saved image, of another cell, instance or incarnation is refused in words."""
    expected = msgspec.structs.replace(MARK, **other)
    with pytest.raises(OurFault, match="left alone"):
        landed(a_description(""), mark=expected, files={}, bridge_of=lambda mac: "", console="/c", secret="other")


def test_the_mark_of_a_landed_domain() -> None:
    """A domain that lands keeps its incarnation and owner, and answers to the order by which it is here."""
    order = an_order(incarnation="a" * 32, user_id=1000)
    described = ElementTree.tostring(a_domain(order), encoding="unicode")
    mark = msgspec.structs.replace(mark_for(order, CELL), generation=9, user_id=None)
    text = landed(described, mark=mark, files={}, bridge_of=lambda mac: "", console="/c", secret="other")
    assert mark_of_described(text) == msgspec.structs.replace(mark, user_id=1000)
