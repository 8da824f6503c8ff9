"""What an ``ldapsearch`` command line says about a directory. The command is read, never run."""

from __future__ import annotations

import getopt
import os
import re
import shlex
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from tashi.config.values import MASK, Secret

# The options of ldapsearch(1); a colon follows those that take an argument.
OPTIONS = "Vd:nvcutT:F:ALS:b:s:a:l:z:f:MxD:Ww:y:H:h:p:P:e:E:o:O:IQNU:R:X:Y:Z"
_HOST = re.compile(r"[A-Za-z0-9_.-]{1,253}")
SCOPES: dict[str, Literal["base", "one", "sub"]] = {"base": "base", "one": "one", "sub": "sub"}


class LdapSearch(msgspec.Struct, frozen=True, kw_only=True):
    """Where the users are: ``host`` empty means that no directory is named, port 0 the usual one of the ``security`` chosen."""

    host: str = ""
    port: int = 0
    security: Literal["none", "starttls", "ldaps"] = "none"
    base: str = ""
    scope: Literal["base", "one", "sub"] = "sub"
    bind_dn: str = ""
    password: Secret = Secret()
    password_file: str = ""
    filter: str = "(objectClass=*)"

    @classmethod
    def parse(cls, text: str) -> LdapSearch:
        """Read host, port, base, scope, bind DN, password (or its file) and filter; whatever else ldapsearch offers has no meaning here."""
        try:
            words = shlex.split(text)
        except ValueError:
            raise ValueError("a quotation mark or a backslash at the end has no partner") from None
        if not words:
            return cls()
        if os.path.basename(words[0]) != "ldapsearch":
            raise ValueError("expected an ldapsearch command; no other is understood, and none is ever run")
        try:
            given, rest = getopt.gnu_getopt(words[1:], OPTIONS)
        except getopt.GetoptError as error:
            raise ValueError(f"ldapsearch has no such option: -{error.opt}, or its argument is missing") from None
        options = {name[1:]: value for name, value in given}
        for option, cure in (("W", "use -w or -y"), ("Y", "use -x with -D and -w, a simple bind")):
            if option in options:
                raise ValueError(f"-{option} needs what a service has not got: {cure}")
        address = _address(options)
        if options.get("s", "sub") not in SCOPES:
            raise ValueError("expected -s base, -s one or -s sub")
        return cls(
            host=address[0],
            port=address[1],
            security=address[2],
            base=options.get("b", ""),
            scope=SCOPES[options.get("s", "sub")],
            bind_dn=options.get("D", ""),
            password=Secret(options.get("w", "")),
            password_file=options.get("y", ""),
            filter=_filter(rest[0] if rest else "(objectClass=*)"),
        )

    def shown(self) -> str:
        """The command line that says the same, with the password masked."""
        if not self.host:
            return ""
        scheme = "ldaps" if self.security == "ldaps" else "ldap"
        words = ["ldapsearch", "-x", "-H", f"{scheme}://{self.host}" + (f":{self.port}" if self.port else "")]
        words += ["-ZZ"] if self.security == "starttls" else []
        options = (("-b", self.base), ("-s", self.scope), ("-D", self.bind_dn), ("-y", self.password_file))
        words += [word for option, value in options if value for word in (option, value)]
        hidden = ["-w", MASK] if self.password else []
        return " ".join([shlex.join(words), *hidden, shlex.quote(self.filter)])

    def holds_secret(self) -> bool:
        """Whether the password stands on the line itself."""
        return bool(self.password)


def _address(options: dict[str, str]) -> tuple[str, int, Literal["none", "starttls", "ldaps"]]:
    """Host, port and security of ``-H``, or of ``-h`` and ``-p``; this machine where the command names none, as ldapsearch does."""
    security: Literal["none", "starttls", "ldaps"] = "starttls" if "Z" in options else "none"
    if "H" in options:
        uri = urlsplit(options["H"].strip().partition(" ")[0])
        if uri.scheme not in {"ldap", "ldaps"}:
            raise ValueError("expected -H ldap://host or ldaps://host")
        return _host(uri.hostname or "localhost", "-H"), uri.port or 0, "ldaps" if uri.scheme == "ldaps" else security
    port = options.get("p", "0")
    if not (port.isascii() and port.isdigit() and len(port) < 6 and int(port) < 65536):
        raise ValueError("expected -p with a port number")
    return _host(options.get("h", "localhost").lower(), "-h"), int(port), security


def _host(text: str, option: str) -> str:
    if not _HOST.fullmatch(text):
        raise ValueError(f"expected {option} with the name or IPv4 address of a host")
    return text


def _filter(text: str) -> str:
    """A filter with its outer parentheses, which ldapsearch lets one leave out."""
    return text if text.startswith("(") else f"({text})"
