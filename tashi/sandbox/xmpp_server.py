"""The cell's XMPP server: a private Prosody on loopback, with its own certificates, accounts and random passwords.

It offers PLAIN beside SCRAM inside verified TLS (some clients know no SCRAM), keeps messages for those who are offline, and has no
rate limits, no links to other servers and no open registration.
"""

from __future__ import annotations

import secrets
import shutil
import socket

import msgspec

from tashi.files import write_whole
from tashi.sandbox import processes
from tashi.sandbox.certificates import write_certificates
from tashi.sandbox.layout import DOMAIN, Layout
from tashi.sandbox.problem import SandboxProblem

ACCOUNTS = ("tashi", "ism", "admin", "llms", "alice")
ROLE = "xmpp"

CONFIGURATION = """\
-- The XMPP server of one sandbox cell, written by `tashi sandbox` once and kept: edit it and restart the cell.
run_as_root = true
data_path = "{directory}/data"
log = {{ {{ levels = {{ min = "info" }}, to = "file", filename = "{log}" }} }}
interfaces = {{ "127.0.0.1" }}
local_interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {port} }}
network_backend = "epoll"
-- by default it waits a millisecond for each 8 KiB of TLS, and for its peer's acknowledgements
network_settings = {{ tcp_backlog = 512, min_wait = 0, nagle = false }}
-- by default it collects anew at 5 % growth, which takes half of its time
gc = {{ mode = "incremental", threshold = 300, speed = 500 }}

modules_enabled = {{
    "roster", "saslauth", "tls", "disco", "posix", "ping", "version", "time", "uptime",
    "private", "vcard4", "pep", "blocklist", "carbons", "smacks",
}}
modules_disabled = {{ "s2s", "s2s_auth_certs", "register", "limits" }}

authentication = "internal_hashed"
c2s_require_encryption = true
allow_unencrypted_plain_auth = false
ssl = {{ key = "{directory}/server.key", certificate = "{directory}/server.pem" }}

c2s_stanza_size_limit = 262144
storage = "internal"
storage_archive_item_limit = 1000000
smacks_max_unacked_stanzas = 0
smacks_max_queue_size = 1000000
smacks_hibernation_time = 60

VirtualHost "{domain}"

Component "pubsub.{domain}" "pubsub"
    admins = {{ "tashi@{domain}" }}
    pubsub_max_items = 10000
"""


def passwords(layout: Layout) -> dict[str, str]:
    """The password of each account; drawn at the first call, and kept in a file that only its owner may read."""
    path = layout.xmpp / "passwords.json"
    if not path.exists():
        write_whole(path, msgspec.json.format(msgspec.json.encode({name: secrets.token_urlsafe(18) for name in ACCOUNTS})))
    return msgspec.json.decode(path.read_bytes(), type=dict[str, str])


def prepare(layout: Layout) -> None:
    """Write what is missing of the server's configuration, certificates and accounts."""
    layout.xmpp.mkdir(mode=0o700, exist_ok=True)
    if not (layout.xmpp / "ca.pem").exists():
        write_certificates(layout.xmpp, [DOMAIN, f"pubsub.{DOMAIN}"])
    accounts = layout.xmpp / "data" / _encode(DOMAIN) / "accounts"
    accounts.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, password in passwords(layout).items():
        record = accounts / f"{_encode(name)}.dat"
        if not record.exists():  # the server replaces the password by its salted hash at the first login
            write_whole(record, f'return {{ ["password"] = "{password}" }};\n')
    configuration = layout.xmpp / "prosody.cfg.lua"
    if not configuration.exists():
        text = CONFIGURATION.format(directory=layout.xmpp, log=layout.log / "prosody.log", port=layout.identity.xmpp_port, domain=DOMAIN)
        write_whole(configuration, text)


def start(layout: Layout) -> None:
    """Start the server, and return when it listens."""
    program = shutil.which("prosody")
    if program is None:
        raise SandboxProblem("prosody is not installed; run `make deps`, or `apt-get install prosody`")
    if _listens(layout.identity.xmpp_port):
        raise SandboxProblem(
            f"port {layout.identity.xmpp_port} of this cell is taken by another program (`ss -ltnp` names it); stop that one first"
        )
    command = [program, "--config", str(layout.xmpp / "prosody.cfg.lua"), "-F"]
    log = layout.log / "prosody.log"
    started = processes.start(command, directory=layout.directory, role=ROLE, log=log)
    processes.await_start(started, lambda: _listens(layout.identity.xmpp_port), "The XMPP server", log)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _encode(name: str) -> str:
    """A name as the server's file store spells it."""
    return "".join(character if character.isalnum() else f"%{ord(character):02x}" for character in name)
