"""What a description of a domain says of its screen when the domain moves."""

from __future__ import annotations

from xml.etree import ElementTree

from tashi.node.domain.landing import landed, without_secrets
from tests.unit.test_domain_xml import a_domain, an_order


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
        text = landed(described, generation=4, files={}, bridge_of=lambda mac: "", console="/c", secret="other")
        screen = ElementTree.fromstring(text).find("devices/graphics")
        assert screen is not None
        assert (screen.get("passwd"), screen.get("passwdValidTo")) == ("other", "1970-01-01T00:00:01")
