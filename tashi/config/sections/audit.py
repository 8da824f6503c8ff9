"""The section of the audit log."""

from __future__ import annotations

from typing import Annotated

from tashi.config.options import Key, Section
from tashi.config.values import Count, FilePath, Megabytes


class Audit(Section, frozen=True, kw_only=True):
    """The control plane's record of who changed what and who was refused, one JSON line each, with XMPP or without."""

    file: Annotated[
        FilePath,
        Key("File of the audit log, in [ClusterManagerService] stateDir unless the path is absolute; empty: the program's own log"),
    ] = "audit.log"
    max_size: Annotated[Megabytes, Key("Size at which the file is renamed to FILE.1 and a new one begins; 0: leave that to logrotate")] = 10
    keep: Annotated[Count, Key("Number of renamed files to keep")] = 9
