"""How hosts are switched on and off: one driver a module, each an `tashi.interfaces.IPower`."""

from typing import Final

AT_ONCE: Final = 16
"""Programs that a driver runs at once: a hundred hosts may go on or off together, and be looked at each second."""
