"""What a cluster manager may ask a host's agent at once, nearly always about a domain that runs there, and what it is answered.

-> a Question      <- an Answer, which is of use to whoever asks just now: neither is kept, repeated or written down
What changes the record of an instance is no question: that is an order (`tashi.model.orders`).
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from tashi.model.bounds import Amount, Id, Items, Name, Port, Text
from tashi.model.instance import Disk, Nic

LOG_PAGE_BYTES: Final = 96 * 1024
"""Most bytes of a console's log in one answer."""
OUTPUT_BYTES: Final = 64 * 1024
"""Most bytes of a console's output in one answer."""
INPUT_BYTES: Final = 4 * 1024
"""Most bytes that are typed into a console at a time."""


class _Asked(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A question about the domain of this UUID and incarnation."""

    uuid: Text
    incarnation: Name = ""


class StartVnc(_Asked, frozen=True, kw_only=True, rename="camel", tag="startVnc"):
    """Let one viewer in at the domain's screen. Answered VncOpen."""


class StopVnc(_Asked, frozen=True, kw_only=True, rename="camel", tag="stopVnc"):
    """Let nobody in at the domain's screen any more, and turn out who is there. Answered Done."""


class ChangeCdrom(_Asked, frozen=True, kw_only=True, rename="camel", tag="changeCdrom"):
    """Put this image into the domain's CD-ROM drive; empty: none. Answered Done."""

    image: Text


class OpenConsole(_Asked, frozen=True, kw_only=True, rename="camel", tag="openConsole"):
    """Connect to the domain's serial console; ``force`` takes it from whoever has it. Answered ConsoleOpened."""

    force: bool = False


class ReadConsole(_Asked, frozen=True, kw_only=True, rename="camel", tag="readConsole"):
    """What the guest has said in this session since the last time, as soon as it says something. Answered ConsoleOutput."""

    session: Text


class WriteConsole(_Asked, frozen=True, kw_only=True, rename="camel", tag="writeConsole"):
    """Type this, at most INPUT_BYTES of it; answered Done at the pace of a serial line."""

    session: Text
    data: bytes


class CloseConsole(_Asked, frozen=True, kw_only=True, rename="camel", tag="closeConsole"):
    """End the session. Answered Done."""

    session: Text


class ReadLog(_Asked, frozen=True, kw_only=True, rename="camel", tag="readLog"):
    """What the console of the domain of this name has ever said, as far as it is kept, from this byte on. Answered LogPage."""

    name: Text
    offset: Amount = 0


class DescribeDomain(_Asked, frozen=True, kw_only=True, rename="camel", tag="describeDomain"):
    """Describe the domain, so that a record of it can be made. Answered DomainDescription."""


class ShutDownHost(msgspec.Struct, frozen=True, tag="shutDownHost"):
    """Shut the machine down, if nothing of the cell runs on it. Answered Done when it has begun to."""


Question = (
    StartVnc | StopVnc | ChangeCdrom | OpenConsole | ReadConsole | WriteConsole | CloseConsole | ReadLog | DescribeDomain | ShutDownHost
)


class Done(msgspec.Struct, frozen=True, tag="done"):
    """It is done."""


class VncOpen(msgspec.Struct, frozen=True, kw_only=True, tag="vncOpen"):
    """A viewer that comes to this address and port in time, with this password, is let in."""

    host: Text
    port: Port
    password: Text


class ConsoleOpened(msgspec.Struct, frozen=True, kw_only=True, tag="consoleOpened"):
    """The session's secret name."""

    session: Text


class ConsoleOutput(msgspec.Struct, frozen=True, kw_only=True, tag="consoleOutput"):
    """What the guest said; ``missed``: bytes before it that were said too fast to be kept; ``ended``: why there will be no more."""

    data: Annotated[bytes, msgspec.Meta(max_length=OUTPUT_BYTES)] = b""
    missed: Amount = 0
    ended: Text = ""


class LogPage(msgspec.Struct, frozen=True, kw_only=True, tag="logPage"):
    """Some of the log; none: there is no more."""

    data: Annotated[bytes, msgspec.Meta(max_length=LOG_PAGE_BYTES)]


class DomainDescription(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag="domainDescription"):
    """A domain by its mark and its definition, in the units of InstanceSpec. Nothing of it is believed unchecked."""

    instance_id: Id
    incarnation: Name = ""
    name: Text
    user_id: Id | None = None
    cores: Amount
    memory: Amount
    memory_limit: Amount | None = None
    cpu_share: Amount = 1024
    disks: Annotated[tuple[Disk, ...], Items] = ()
    nics: Annotated[tuple[Nic, ...], Items] = ()


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """There is no answer, and why: the code and words of an error."""

    code: Text
    message: Text


Answer = Done | DomainDescription | VncOpen | ConsoleOpened | ConsoleOutput | LogPage | Refused
