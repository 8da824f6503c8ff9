"""Domains of the cell's instances that live and have lost their mark: an administrator has removed or changed their metadata."""

from __future__ import annotations

import re
import uuid
from typing import Any, Final

from tashi.model.causes import Cause, in_words
from tashi.model.instance import domain_uuid
from tashi.model.orders import Observation, Seen
from tashi.node.libvirt.domain import ENDED, mark_of

_NAME: Final = re.compile(r"tashi-([0-9]{1,10})-")


def unmarked(domain: Any, cell: str, incarnation: str = "", generation: int = 0) -> Observation | None:
    """What is seen of a domain that lives, has name and UUID of an instance of this cell, and has lost its mark: it is in doubt, and
    no end. None for every other domain.

    libvirt renames no domain that lives. ``incarnation`` and ``generation``: those of the instance, where they are known.
    """
    found = _NAME.match(domain.name())
    if found is None or mark_of(domain) is not None or domain.state()[0] in ENDED:
        return None
    instance_id = int(found[1])
    if domain.UUIDString() != str(domain_uuid(uuid.UUID(cell), instance_id)):
        return None
    return Observation(
        instance_id=instance_id,
        generation=generation,
        incarnation=incarnation,
        seen=Seen.MISSING,
        cause=Cause.UNMARKED,
        reason=in_words(Cause.UNMARKED),
    )
