"""The rules that names and sizes keep, whoever says them: the wire, the command line and the agent use the same ones.

Each check returns its value or raises YourMistake(bad-argument) that names the field.
"""

from __future__ import annotations

import math
import re
from typing import Final

from tashi.errors import BAD_ARGUMENT, YourMistake

MAX_ID: Final = 2**63 - 1
MAX_MEMORY_MB: Final = 2**31
MAX_CORES: Final = 2**31  # what no host has is refused with a reason per host
CPU_SHARES: Final = (2, 262_144)
DISK_WEIGHTS: Final = (100, 1000)
MAX_KILOBITS: Final = 2**31 - 1
MAX_DISK_IOPS: Final = 10**9
MAX_DISK_BYTES: Final = 10**15  # beyond this qemu refuses it
MAX_HINTS: Final = 64
MAX_SCRATCH_GIB: Final = 16_384
MAX_NETWORK: Final = 4095
_HOSTNAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_IMAGE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}")
_GIBIBYTES: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", re.ASCII)
_MAC: Final = re.compile(r"[0-9a-f][02468ace](?::[0-9a-f]{2}){5}")  # an odd first octet is a group's
_NO_MAC: Final = "00:00:00:00:00:00"


def shown(value: object, limit: int = 60) -> str:
    """The value as an error may show it: escaped, and cut when it is long."""
    text = ascii(value)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


def check_hostname(field: str, value: object) -> str:
    """An instance's name: ASCII letter or digit, then letters, digits, ``_.-``, at most 63 in all."""
    if not isinstance(value, str) or not _HOSTNAME.fullmatch(value):
        raise YourMistake(
            BAD_ARGUMENT,
            f"{field} is {shown(value)}, which is no host name; use a letter or digit, then letters, digits, '_', '.' or '-', at most 63",
        )
    return value


def check_new_name(field: str, value: object) -> str:
    """The name of a new instance or host: a host name that is not digits alone, so that it never looks like an id."""
    name = check_hostname(field, value)
    if name.isdigit():
        raise YourMistake(BAD_ARGUMENT, f"{field} is {shown(name)}, which reads like an id; use a name with a letter in it")
    return name


def check_image(field: str, value: object) -> str:
    """An image's file name: no directory, no protocol, nothing hidden."""
    if not isinstance(value, str) or not _IMAGE.fullmatch(value) or ".." in value:
        raise YourMistake(
            BAD_ARGUMENT,
            f"{field} is {shown(value)}, which is no image name; use the name of a file in the image directory, without a path",
        )
    return value


def check_resource_id(field: str, value: object) -> str:
    """A requester's own key: opaque, 1 to 128 printable characters."""
    if not isinstance(value, str) or not 1 <= len(value) <= 128 or not value.isprintable():
        raise YourMistake(BAD_ARGUMENT, f"{field} is {shown(value)}; use 1 to 128 printable characters")
    return value


def check_integer(field: str, value: object, least: int, most: int, unit: str = "") -> int:
    """A whole number between the limits, both included; a boolean, a fraction and a string are none."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        unit = f" {unit}" if unit else ""
        raise YourMistake(BAD_ARGUMENT, f"{field} is {shown(value)}; use a whole number from {least} to {most}{unit}")
    return value


def check_scratch_space(field: str, value: object) -> int:
    """The MiB of scratch space that a hint of GiB asks for: a decimal number above 0, rounded up to whole MiB."""
    gibibytes = float(value) if isinstance(value, str) and _GIBIBYTES.fullmatch(value) else 0.0
    if not 0 < gibibytes <= MAX_SCRATCH_GIB:
        raise YourMistake(
            BAD_ARGUMENT, f"{field} is {shown(value)}; use a number of GiB above 0 and at most {MAX_SCRATCH_GIB}, such as 10 or 0.5"
        )
    return math.ceil(gibibytes * 1024)


def check_mac(field: str, value: object) -> str:
    """The MAC address of one card in six lower-case hexadecimal pairs; '' means one will be chosen."""
    text = value.lower() if isinstance(value, str) else value
    if text == "" or (isinstance(text, str) and _MAC.fullmatch(text) and text != _NO_MAC):
        return text
    raise YourMistake(BAD_ARGUMENT, f"{field} is {shown(value)}, which is no MAC address of a network card, such as 52:54:00:12:34:56")


def check_address(field: str, value: object) -> str | None:
    """An IP address, or None for none."""
    import ipaddress  # here, because few commands name an address and every one pays for an import

    try:
        return None if value is None else str(ipaddress.ip_address(value))  # type: ignore[arg-type]
    except ValueError:
        raise YourMistake(BAD_ARGUMENT, f"{field} is {shown(value)}, which is no IP address such as 10.0.0.7") from None


def check_hints(field: str, value: object) -> dict[str, str]:
    """Words for scheduler and hypervisor: printable, of a reasonable size, and none that begins with ``__``."""
    if not isinstance(value, dict) or len(value) > MAX_HINTS:
        raise YourMistake(BAD_ARGUMENT, f"{field} is {shown(value)}; use an object of at most {MAX_HINTS} strings")
    for key, hint in value.items():
        if not isinstance(key, str) or not 1 <= len(key) <= 64 or not key.isprintable() or key.startswith("__"):
            raise YourMistake(BAD_ARGUMENT, f"{field} has the key {shown(key)}; use 1 to 64 printable characters that do not begin with __")
        if not isinstance(hint, str) or len(hint) > 255 or not hint.isprintable():
            raise YourMistake(BAD_ARGUMENT, f"{field}.{key} is {shown(hint)}; use a string of at most 255 printable characters")
    return value
