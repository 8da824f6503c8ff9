"""The section of the power of hosts: how they are switched on and off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from tashi.config.options import Key, Keys, Section
from tashi.config.values import Count, FilePath, HostCommand, Period, Port, Seconds


class Power(Section, frozen=True, kw_only=True):
    """How hosts are switched on and off."""

    driver: Annotated[
        Literal["none", "ipmi", "wol", "command"],
        Key("What does it: ipmi, a host's BMC; wol, a magic packet on and the node's own shutdown off; command, programs of yours"),
    ] = "none"
    timeout: Annotated[Period, Key("Deadline of one step: a run of a program, or a host's answer")] = 30.0
    wake_timeout: Annotated[Period, Key("A host whose agent has not come for so long after it was switched on has failed to wake")] = 300.0
    off_timeout: Annotated[Period, Key("A host that is still on for so long after it was switched off stays in use")] = 180.0
    retry_delay: Annotated[Seconds, Key("A host that failed to go on or off is left alone for so long, unless an admin asks")] = 600.0

    user: Annotated[str, Key("ipmi: user of the BMCs, with the privilege level OPERATOR")] = ""
    password_file: Annotated[FilePath, Key("ipmi: file of that user's password, readable by its owner only")] = ""
    addresses: Annotated[
        Mapping[str, str],
        Keys(
            "ipmi: address of the BMC of each host by its name, with :port when that is not 623; the element ipmi of a host's own "
            "configuration (setHostConfig) comes first",
            prefix="ipmiAddress.",
            example="ipmiAddress.node1 = 192.0.2.101",
        ),
    ] = msgspec.field(default_factory=dict)
    cipher_suite: Annotated[Count, Key("ipmi: cipher suite of the connection; 0: the best that the BMC says it has")] = 0
    soft_timeout: Annotated[Seconds, Key("ipmi: a machine that has not shut down for so long is switched off hard; 0: at once")] = 60.0

    wol_address: Annotated[
        str, Key("wol: where magic packets are sent to, the broadcast address of the network that the hosts' cards are in")
    ] = "255.255.255.255"
    wol_port: Annotated[Port, Key("wol: the UDP port")] = 9

    on: Annotated[
        HostCommand,
        Key(
            "command: program and arguments that switch a host on, quoted as in a shell, but run without one; {name}, {id}, {address} and "
            "{config.KEY}, an element of its own configuration, stand for the host's"
        ),
    ] = HostCommand()
    off: Annotated[HostCommand, Key("command: those that switch it off")] = HostCommand()
    status: Annotated[HostCommand, Key("command: those that print on or off as their last word; empty: nothing can tell")] = HostCommand()
