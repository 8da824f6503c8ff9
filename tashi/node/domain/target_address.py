"""The libvirt address of a host to which a domain is to move, as that host says it. Pure.

The source's libvirtd, which is root, opens a connection to it, and libvirt's addresses can do more than name a
host: `qemu+ext://` and `?command=` run a program, `?no_verify=` turns the check of certificates off. So a target
may choose its host and its port, and nothing else.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from tashi.errors import INTERNAL, OurFault
from tashi.model.names import shown

USUAL: Final = "qemu+tls://localhost/system"
"""What addresses look like to a host that has none itself."""
_HOST_AND_PORT: Final = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
)


def check_target_address(address: str, own: str) -> None:
    """Raise OurFault unless the address differs from this host's ``own`` ('': it has none) in host and port only."""
    expected = urlsplit(own or USUAL)
    user, at, _ = expected.netloc.rpartition("@")
    try:
        netloc = urlsplit(address).netloc.removeprefix(f"{user}{at}")
    except ValueError:
        netloc = ""
    like_own = urlunsplit(expected._replace(netloc=f"{user}{at}{netloc}"))
    if address != like_own or not _HOST_AND_PORT.fullmatch(netloc):
        pattern = urlunsplit(expected._replace(netloc=f"{user}{at}HOST"))
        raise OurFault(
            INTERNAL,
            f"the target says that its libvirt is at {shown(address)}; expected {pattern}, as [Libvirt] "
            "migrationUri of this host says; give all hosts the same migrationUri but for host and port",
        )
