"""The one failure that says nothing about an order: whoever should carry it out does not answer just now."""

from __future__ import annotations

from tashi.errors import INTERNAL, OurFault


class HypervisorAway(OurFault):
    """Libvirt cannot be reached: what was asked may have happened or not, and is to be asked again when it is back."""

    def __init__(self, message: str) -> None:
        super().__init__(INTERNAL, message)
