"""Service classes as the cluster manager applies them: what gold, silver and bronze add to what an instance asks for."""

from __future__ import annotations

import msgspec


class SlaClass(msgspec.Struct, frozen=True, kw_only=True):
    """``priority`` is added to the user's; a 0 or None leaves what was asked; ``hints`` (location, isolation, ...) are added."""

    name: str
    priority: int = 0
    cpu_share: int | None = None
    cpu_speed: int | None = None
    disk_weight: int | None = None
    net_down: int | None = None
    net_up: int | None = None
    memory: int = 0  # MB that are never taken away from an instance of this class
    hints: dict[str, str] = {}
