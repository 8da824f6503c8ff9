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


def write_host_certificates(authority_directory: Path, directory: Path, names: Sequence[str]) -> None:
    """Write into `directory` what a host shows and asks of others, under the names by which libvirt looks for them.

    The authority is kept in `authority_directory`, for hosts that come later. What is there stays.
    """
    if (directory / "serverkey.pem").exists():
        return
    now = datetime.datetime.now(datetime.UTC)
    authority_directory.mkdir(mode=0o700, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    certificate_file, key_file = authority_directory / "ca.pem", authority_directory / "ca.key"
    if not certificate_file.exists():
        made = Authority.new("sandbox hosts' authority", now)
        write_whole(key_file, made.key_pem)
        write_whole(certificate_file, made.pem)
    authority = Authority.load(certificate_file.read_bytes(), key_file.read_bytes())
    key, certificate = authority.issue(names, now, DAYS, peer=True)
    write_whole(directory / "cacert.pem", authority.pem)
    for role in ("client", "server"):  # the key of the server last: it says that all is there
        write_whole(directory / f"{role}cert.pem", certificate)
        write_whole(directory / f"{role}key.pem", key)
