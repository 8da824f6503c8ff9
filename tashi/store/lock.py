"""One process a state directory: two control planes would give the same numbers twice."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from tashi.errors import INTERNAL, OurFault
from tashi.files import hold


def lock(state_dir: Path) -> IO[str]:
    """Return the locked file, which holds the state directory until it is closed. OurFault when another process holds it."""
    file = hold(state_dir / "lock")
    if file is None:
        raise OurFault(
            INTERNAL,
            f"another control plane uses {state_dir}; stop it, or choose another [ClusterManagerService] stateDir",
        )
    return file
