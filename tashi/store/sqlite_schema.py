"""The schema of a SQLite database: made in a new file, brought up to date in an older one, refused in a newer one."""

from __future__ import annotations

from importlib import resources
from typing import Any, Final

from tashi.errors import INTERNAL, OurFault

SCHEMA_VERSION: Final = 3


def migrate(connection: Any, path: str) -> None:
    """Bring the database of this connection up to the schema of this program. OurFault when a newer program wrote it."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise OurFault(
            INTERNAL,
            f"{path} has schema version {version}, and this program knows versions up to {SCHEMA_VERSION}: "
            "a newer Tashi wrote it; start that one, or choose another file with [SQL] uri",
        )
    for number in range(version + 1, SCHEMA_VERSION + 1):
        script = resources.files("tashi.store").joinpath(f"schema/{number:04}.sql").read_text()
        connection.executescript(f"BEGIN; {script}; PRAGMA user_version = {number}; COMMIT;")
