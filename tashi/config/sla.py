"""The words of one SLA class: ``priority+100 cpuShare=2048 isolation=True``."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from tashi.config.options import Key, options_of
from tashi.config.values import ENDLESS, Form, Megabytes, parse, text_of

Kilobits = Annotated[int, Form(unit="kbit/s", minimum=0, maximum=ENDLESS)]


class SlaClass(msgspec.Struct, frozen=True, kw_only=True):
    """What a class grants and asks; 0 and the empty text stand for nothing granted or asked."""

    priority: Annotated[int, Form(minimum=-1000000, maximum=1000000), Key("added to the user's priority")] = 0
    cpu_share: Annotated[int, Form(minimum=2, maximum=262144), Key("weight against other VMs")] = 0
    cpu_speed: Annotated[int, Form(unit="MHz", minimum=0, maximum=1000000), Key("reserved for each core")] = 0
    memory: Annotated[Megabytes, Key("never taken away")] = 0
    disk_weight: Annotated[int, Form(minimum=100, maximum=1000), Key("weight against other VMs")] = 0
    net_down: Annotated[Kilobits, Key("to the VM")] = 0
    net_up: Annotated[Kilobits, Key("from the VM")] = 0
    location: Annotated[str, Key("location of the host")] = ""
    auditability: Annotated[bool, Key("only on hosts that can be audited")] = False
    isolation: Annotated[bool, Key("with no other user's VM beside it")] = False

    @classmethod
    def parse(cls, text: str) -> SlaClass:
        """Read the words of a class; ``ValueError`` names the word that is wrong."""
        options = {option.name.lower(): option for option in options_of(cls)}
        values = {}
        for word in text.split():
            match = re.fullmatch(r"([A-Za-z]+)(?:=|(?=[+-]))(.+)", word)
            option = options.get(match[1].lower()) if match else None
            if match is None or option is None:
                raise ValueError(f"expected words such as priority+100 or {', '.join(f'{o.name}=' for o in options.values())}: {word!r}")
            try:
                values[option.attribute] = parse(option.kind, option.form, match[2])
            except ValueError as error:
                raise ValueError(f"{option.name}: {error}") from None
        return cls(**values)

    def __str__(self) -> str:
        words = []
        for option in options_of(type(self)):
            value = getattr(self, option.attribute)
            if option.attribute == "priority":
                words.append(f"priority{value:+d}")
            elif value != option.default:
                words.append(f"{option.name}={text_of(value)}")
        return " ".join(words)


def usual_classes() -> dict[str, SlaClass]:
    """The classes of a cell that defines none of its own."""
    return {
        "gold": SlaClass(priority=100, cpu_share=2048),
        "silver": SlaClass(priority=50, cpu_share=1024),
        "bronze": SlaClass(cpu_share=512),
    }
