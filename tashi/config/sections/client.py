"""The section of the client."""

from __future__ import annotations

from typing import Annotated

from tashi.config.options import Key, Section
from tashi.config.values import FilePath, Period, Port


class Client(Section, frozen=True, kw_only=True):
    """How the client reaches the control plane."""

    cluster_manager_host: Annotated[str, Key("Machine of the control plane; $TASHI_CM_HOST overrides it")] = "localhost"
    cluster_manager_port: Annotated[Port, Key("Its port; $TASHI_CM_PORT overrides it")] = 9882
    cluster_manager_timeout: Annotated[Period, Key("Longest wait for the connection")] = 5.0
    socket: Annotated[FilePath, Key("Unix socket of a control plane on this machine; empty: the manager's own")] = ""
    ca_file: Annotated[FilePath, Key("Certificate that the control plane is verified with; empty: the one in its state directory")] = ""
