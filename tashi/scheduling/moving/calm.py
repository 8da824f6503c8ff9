"""Moves are made for what lasts: only when so many rounds in a row have found that they pay. A spike moves nothing."""

from __future__ import annotations

import msgspec


class Calm(msgspec.Struct, frozen=True):
    """How many rounds in a row have found moves that pay, and when the last one was counted, in seconds."""

    rounds: int = 0
    counted_at: float = float("-inf")

    def after(self, pays: bool, now: float, interval: float) -> Calm:
        """When one more round has or has not found any. A round is ``interval`` seconds: one that comes sooner after the last counted one
        does not count, though one that finds nothing ends the row at any time."""
        if not pays:
            return Calm(0, now)
        if now < self.counted_at + interval and self.rounds:
            return self
        return Calm(self.rounds + 1, now)

    def lasts(self, hold_rounds: int) -> bool:
        """Whether the row is so long that moves may be made."""
        return self.rounds >= hold_rounds
