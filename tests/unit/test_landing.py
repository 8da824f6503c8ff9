"""What a description of a domain says of its screen when the domain moves; test_arrival.py has what comes of it."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from tashi.errors import OurFault
from tashi.node.domain.landing import check_identity, without_secrets
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


@pytest.mark.parametrize("other", [{"incarnation": "f" * 32}, {"instance_id": 99}, {"cell": "0c9a0f0e-1111-4222-8333-444455556666"}])
def test_a_domain_of_another_incarnation_does_not_land(other: dict[str, Any]) -> None:
    """O1: a description, or a saved image, of another cell, instance or incarnation is refused in words."""
    check_identity(a_description(""), MARK)
    expected = msgspec.structs.replace(MARK, **other)
    with pytest.raises(OurFault, match="left alone"):
        check_identity(a_description(""), expected)
