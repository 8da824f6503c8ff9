"""The certificates of the sandbox's XMPP server."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

from tashi.files import write_whole
from tashi.wire.certificates import Authority

DAYS = 3650


def write_certificates(directory: Path, names: Sequence[str]) -> None:
    """Write ca.pem, server.pem and server.key for the DNS `names` into `directory`; the authority's own key is thrown away."""
    now = datetime.datetime.now(datetime.UTC)
    authority = Authority.new(f"{names[0]} sandbox authority", now)
    key, certificate = authority.issue(names, now, DAYS)
    write_whole(directory / "server.key", key)
    write_whole(directory / "server.pem", certificate, 0o644)
    write_whole(directory / "ca.pem", authority.pem, 0o644)
