"""The texts a user types behind an option, turned into values; what cannot be turned raises YourMistake(bad-argument).

    disks   uri[:persistent],...            nics    network[:ip[:mac]],...            hints   name=value,...
Each converter leaves a value that is no text as it is, so that the Python API takes texts and values alike.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tashi.errors import BAD_ARGUMENT, YourMistake
from tashi.model.names import MAX_ID, check_integer, check_mac, shown

Converter = Callable[[Any], Any]

_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,18})", re.ASCII)
_ID = re.compile(r"0|[1-9][0-9]*", re.ASCII)
_NAME = "name:"
_BOOLEANS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


def text(value: str) -> str:
    """The text itself."""
    return value


def typed_reference(value: str) -> str | int:
    """An id where the text is canonical digits, else the text as it was typed, which `reference` reads later."""
    found = reference(value)
    return found if isinstance(found, int) else value


def reference(value: str | int) -> str | int:
    """What goes over the wire for a reference: an id where the text is canonical digits (0, or no leading zero), else a name.

    ``name:9`` is the name 9, which an older version allowed; so read every text once and no more.
    """
    if not isinstance(value, str):
        return value
    if not _ID.fullmatch(value):
        return value.removeprefix(_NAME)
    if int(value[:20]) > MAX_ID:
        raise YourMistake(BAD_ARGUMENT, f"{shown(value)} is no id; an id is from 0 to {MAX_ID}")
    return int(value)


def boolean(value: str | bool | int) -> bool:
    """yes, true, 1, no, false or 0, in capitals or not."""
    try:
        return _BOOLEANS[str(value).lower()]
    except KeyError:
        raise YourMistake(BAD_ARGUMENT, f"{shown(value)} is neither yes nor no; use True or False") from None


def _integer(text: str) -> int:
    """The number of canonical digits, with a sign or not; ValueError for anything else that Python takes for one."""
    if not _WHOLE.fullmatch(text):
        raise ValueError(text)
    return int(text)


def whole(name: str, least: int, most: int = 2**31, refusal: str = "") -> Converter:
    """A converter to a whole number within the limits; ``refusal`` are its words when there are words of old."""

    def convert(value: str | int) -> int:
        try:
            number = _integer(value) if isinstance(value, str) and len(value) < 20 else value
            return check_integer(f"--{name}", number, least, most)
        except (ValueError, YourMistake) as error:
            words = error.message if isinstance(error, YourMistake) else f"--{name} is {shown(value)}, which is no whole number"
            raise YourMistake(BAD_ARGUMENT, refusal or words) from None

    return convert


def limit(name: str, most: int) -> Converter:
    """A converter to a whole number up to the limit; 0 and ``none`` are no limit, which is 0."""
    number = whole(name, 0, most)
    return lambda value: 0 if isinstance(value, str) and value.lower() == "none" else number(value)


def seconds(value: str | float) -> float:
    """A time in seconds, above zero and at most a year."""
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number <= 31_536_000:
        raise YourMistake(BAD_ARGUMENT, f"{shown(value)} is no time; use a number of seconds above 0")
    return number


def disks(value: str | Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The disks of ``uri[:persistent],...``; a disk that does not say is not persistent."""
    if not isinstance(value, str):
        return [dict(disk) for disk in value]
    found = []
    for part in value.split(","):
        uri, colon, persistent = part.partition(":")
        if not uri:
            raise _incorrect("disks", value, "uri[:persistent],uri[:persistent]...")
        try:
            found.append({"uri": uri, "persistent": boolean(persistent) if colon else False})
        except YourMistake:
            raise _incorrect("disks", value, "uri[:persistent],uri[:persistent]... with True or False") from None
    return found


def nics(value: str | Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The network cards of ``network[:ip[:mac]],...``; left blank, the network is the default one and the mac a random one."""
    if not isinstance(value, str):
        return [dict(nic) for nic in value]
    found = []
    for part in value.split(","):
        network, ip, mac = (*part.split(":", 2), "", "")[:3]
        try:
            nic = {"ip": _address(ip) if ip else None, "mac": check_mac("--nics", mac) or random_mac()}
            found.append({"network": check_integer("--nics", _integer(network), 0, 4095), **nic} if network else nic)
        except (ValueError, YourMistake):
            raise _incorrect("nics", value, "network[:ip[:mac]],... such as :1.2.3.4,1::52:54:00:00:56:78") from None
    return found


def hints(value: str | Mapping[str, str]) -> dict[str, str]:
    """The hints of ``name=value,...``; all values are texts."""
    if not isinstance(value, str):
        return dict(value)
    found = {}
    for part in value.split(","):
        name, equals, hint = part.partition("=")
        if not name or not equals:
            raise _incorrect("hints", value, "name=value,name=value...")
        found[name] = hint
    return found


def random_mac() -> str:
    """A MAC address 52:54:00:xx:xx:xx, the range that QEMU and KVM use."""
    return "52:54:00:" + secrets.token_bytes(3).hex(":")


def adds_up(value: Any) -> bool:
    """Whether an option with such a value may be given more than once."""
    return isinstance(value, dict | list)


def combine(earlier: Any, later: Any) -> Any:
    """Return the value of an option that was given twice: hints merge, and lists grow."""
    return {**earlier, **later} if isinstance(earlier, dict) else [*earlier, *later]


def _address(ip: str) -> str:
    import ipaddress  # here, because few commands name an address and every one pays for an import

    return str(ipaddress.ip_address(ip))


def _incorrect(name: str, value: str, syntax: str) -> YourMistake:
    return YourMistake(BAD_ARGUMENT, f"Incorrect format for {name} argument: {shown(value)}; use {syntax}")
