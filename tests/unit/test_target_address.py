"""What a target may say about where its libvirt is (A6)."""

from __future__ import annotations

import pytest

from tashi.errors import OurFault
from tashi.node.domain.target_address import check_target_address

TLS = "qemu+tls://node1.example.org/system"
SANDBOX = "qemu+tls://10.0.0.1/system?pkipath=/etc/pki/cell"
SSH = "qemu+ssh://tashi@node1/system"


@pytest.mark.parametrize(
    ("own", "address"),
    [
        (TLS, "qemu+tls://node2.example.org/system"),
        (TLS, "qemu+tls://192.0.2.7:16515/system"),
        (TLS, "qemu+tls://[2001:db8::7]:16514/system"),
        ("", "qemu+tls://node2/system"),
        (SANDBOX, "qemu+tls://10.0.0.2/system?pkipath=/etc/pki/cell"),
        (SSH, "qemu+ssh://tashi@node2/system"),
    ],
)
def test_another_host_and_port_are_taken(own: str, address: str) -> None:
    """The usual addresses of one cell's hosts pass."""
    check_target_address(address, own)


@pytest.mark.parametrize(
    ("own", "address"),
    [
        (TLS, ""),
        (TLS, "qemu+ext:///system?command=/srv/tashi/images/evil"),
        (TLS, "qemu+ssh://node2/system?command=/srv/tashi/images/evil"),
        (TLS, "qemu+ssh://node2/system"),
        (TLS, "qemu+tcp://node2/system"),
        (TLS, "qemu+unix:///system?socket=/run/other"),
        (TLS, "test:///default"),
        (TLS, "qemu+tls://node2/system?no_verify=1"),
        (TLS, "qemu+tls://node2/system?pkipath=/srv/tashi"),
        (TLS, "qemu+tls://node2/system?"),
        (TLS, "qemu+tls://node2/system#x"),
        (TLS, "qemu+tls://node2/session"),
        (TLS, "qemu+tls:///system"),
        (TLS, "qemu+tls://root@node2/system"),
        (TLS, "qemu+tls://node2\n/system"),
        (TLS, "qemu+tls://node2/system\n"),
        (TLS, "qemu+tls://no%20de2/system"),
        (TLS, "qemu+tls://node2:port/system"),
        (TLS, "qemu+tls://[::1/system"),
        (TLS, "QEMU+tls://node2/system"),
        (SSH, "qemu+ssh://root@node2/system"),
        (SSH, "qemu+ssh://node2/system"),
        (SSH, "qemu+ssh://tashi@-oProxyCommand=evil/system"),
        (SSH, "qemu+ssh://tashi@root@node2/system"),
        (SANDBOX, "qemu+tls://10.0.0.2/system?pkipath=/etc/pki/cell&command=/bin/sh"),
        ("", "qemu+ext:///system?command=/bin/sh"),
    ],
)
def test_nothing_else_is_taken(own: str, address: str) -> None:
    """A6: an address that would make the source's libvirt run a program, trust anybody or use another way is refused in words."""
    with pytest.raises(OurFault, match="expected qemu"):
        check_target_address(address, own)
