"""What looking for moves that better things comes to: the moves in their order, and how good the layout is before and after them."""

from __future__ import annotations

import msgspec

from tashi.scheduling.plan import Figures, Migrate


class Moves(msgspec.Struct, frozen=True, kw_only=True):
    """``moves``: every one fits when those before it have been made. ``bound`` and ``remarks`` are as in a Plan."""

    moves: tuple[Migrate, ...] = ()
    before: Figures
    after: Figures
    bound: int | None = None
    remarks: tuple[str, ...] = ()
