"""Single deeds on one domain that need nothing but the domain: pause it, continue it, press its buttons."""

from __future__ import annotations

from typing import Any

from tashi.errors import CONFLICT, OurFault
from tashi.model.causes import OFF
from tashi.model.orders import Deed, Pause, Reset, Shutdown, Unpause
from tashi.node.domain.xml import Mark
from tashi.node.libvirt.domain import seen_of
from tashi.node.libvirt.pauses import go_on, pause


def do_live(domain: Any, mark: Mark, deed: Deed) -> None:
    """Do this to a domain with a process; one that is as it should be already is left so."""
    match deed:
        case Pause():
            pause(domain, mark)
        case Unpause():
            go_on(domain, mark)
        case Shutdown():
            domain.shutdown()
        case Reset():
            domain.reset()


def do_while_off(domain: Any, mark: Mark, deed: Deed) -> bool:
    """Do this to a domain without a process, and say whether it has one now. Nothing can be done to one that has ended; OurFault when
    it has not and only this cannot be done."""
    observation = seen_of(domain, mark)
    if observation.cause not in OFF or isinstance(deed, Pause):
        return False
    if not isinstance(deed, Unpause):
        raise OurFault(CONFLICT, f"the domain does not run: {observation.reason}")
    go_on(domain, mark)
    return True
