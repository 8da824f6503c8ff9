"""vmmSpecificCall: the commands that an instance's owner may give to its hypervisor, and what each says when it is done."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

from tashi.errors import BAD_ARGUMENT, YourMistake
from tashi.manager.cluster import Cluster
from tashi.manager.images import Images
from tashi.manager.questions import Questions, must_run
from tashi.manager.wishes import add_task
from tashi.model.events import audit_record
from tashi.model.instance import Instance, Task
from tashi.model.names import shown
from tashi.model.questions import ChangeCdrom, StartVnc, StopVnc, VncOpen
from tashi.model.user import Principal

VERB: Final = "vmmspecificcall"
COMMANDS: Final = ("startVnc", "stopVnc", "changeCdrom:<iso>", "reset", "list")


class SpecificCalls:
    """The commands, by `call`."""

    def __init__(self, cluster: Cluster, images: Images, questions: Questions) -> None:
        self._cluster = cluster
        self._images = images
        self._questions = questions

    def call(self, who: Principal, instance: Instance, words: str) -> str | Awaitable[str]:
        """What the command comes to, in words; YourMistake when there is no such command or the instance does not run."""
        command, colon, content = words.partition(":")
        target = f"{command} {instance.name} ({instance.id})"
        match command.lower(), colon:
            case "list", "":
                return "\n".join(COMMANDS)
            case "reset", "":
                with self._cluster.transaction("reset_instance") as tx:
                    add_task(tx, instance, Task(who=who.name, verb=VERB))
                    tx.tell(audit_record(who.name, VERB, target, "OK"))
                return "Sent reset signal to instance"
            case "startvnc", "":
                must_run(instance)
                return self._questions.audited(who, VERB, target, self._start_vnc(instance))
            case "stopvnc", "":
                must_run(instance)
                return self._questions.audited(who, VERB, target, self._stop_vnc(instance))
            case "changecdrom", ":":
                must_run(instance)
                image = self._images.resolve_cdrom(who, content, instance.user_id) if content else ""
                return self._questions.audited(who, VERB, target, self._change_cdrom(instance, image))
        raise YourMistake(BAD_ARGUMENT, f"Unknown command {shown(words)}; there are {', '.join(COMMANDS)}")

    async def _start_vnc(self, instance: Instance) -> str:
        found = await self._questions.ask(instance, StartVnc)
        assert isinstance(found, VncOpen)
        host = f"[{found.host}]" if ":" in found.host else found.host
        return f"VNC running on {host}:{found.port}\n{found.password}"

    async def _stop_vnc(self, instance: Instance) -> str:
        await self._questions.ask(instance, StopVnc)
        return "VNC halted"

    async def _change_cdrom(self, instance: Instance, image: str) -> str:
        await self._questions.ask(instance, ChangeCdrom, image=image)
        return f"Changed ide1-cd0 to {image}" if image else "Ejected ide1-cd0"
