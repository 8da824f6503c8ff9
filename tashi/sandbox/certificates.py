"""The certificates of the sandbox: of its XMPP server, and of its hosts' libvirt, which know each other by them."""

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


def prepare_authority(directory: Path) -> None:
    """Make in `directory` the authority of the hosts' certificates, and keep it for hosts that come later; when it is there, it stays."""
    directory.mkdir(mode=0o700, exist_ok=True)
    if not (directory / "ca.pem").exists():
        made = Authority.new("sandbox hosts' authority", datetime.datetime.now(datetime.UTC))
        write_whole(directory / "ca.key", made.key_pem)
        write_whole(directory / "ca.pem", made.pem)


def write_host_certificates(authority_directory: Path, directory: Path, names: Sequence[str]) -> None:
    """Write into `directory` what a host shows and asks of others, under the names by which libvirt looks for them; what is there stays."""
    if (directory / "serverkey.pem").exists():
        return
    directory.mkdir(mode=0o700, exist_ok=True)
    authority = Authority.load((authority_directory / "ca.pem").read_bytes(), (authority_directory / "ca.key").read_bytes())
    key, certificate = authority.issue(names, datetime.datetime.now(datetime.UTC), DAYS, peer=True)
    write_whole(directory / "cacert.pem", authority.pem)
    for role in ("client", "server"):  # the key of the server last: it says that all is there
        write_whole(directory / f"{role}cert.pem", certificate)
        write_whole(directory / f"{role}key.pem", key)
