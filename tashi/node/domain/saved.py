"""Whose the memory of a suspended domain is, by the mark in the file that keeps it. Pure: bytes in, mark out."""

from __future__ import annotations

from tashi.errors import OurFault
from tashi.model.saved import xml_of_saved
from tashi.node.domain.landing import mark_of_described
from tashi.node.domain.xml import Mark


def mark_of_saved(head: bytes) -> Mark | None:
    """Return the mark of the domain whose memory a file of ours keeps; None when this is the beginning of another file."""
    try:
        return mark_of_described(xml_of_saved(head))
    except OurFault:
        return None
