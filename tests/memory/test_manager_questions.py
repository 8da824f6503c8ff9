"""What hosts are asked at once on a user's behalf: screens, CD-ROMs, consoles; who may, what is told, and what never is."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tashi.errors import TashiError
from tashi.model.questions import (
    Answer,
    ChangeCdrom,
    CloseConsole,
    ConsoleOpened,
    ConsoleOutput,
    Done,
    LogPage,
    OpenConsole,
    Question,
    ReadConsole,
    ReadLog,
    Refused,
    StartVnc,
    StopVnc,
    VncOpen,
    WriteConsole,
)
from tashi.model.user import Principal
from tests.small_cell import FakeAgent, SmallCell, result_of

ALICE = Principal(name="alice", user_id=1000)
BOB = Principal(name="bob", user_id=1001)
SECRET = "pAssw0rd"
SESSION = "s3ss10n"


class Guest:
    """What an agent answers for a guest that says back what is typed."""

    def __init__(self) -> None:
        self.said: list[Answer | Deferred[Answer]] = []

    def answer(self, question: Question) -> Answer | Deferred[Answer]:
        match question:
            case StartVnc():
                return VncOpen(host="192.0.2.7", port=5901, password=SECRET)
            case OpenConsole():
                return ConsoleOpened(session=SESSION)
            case ReadConsole():
                return self.said.pop(0)
            case WriteConsole():
                self.said.append(ConsoleOutput(data=question.data))
            case ReadLog():
                return LogPage(data=b"boot\r\n\xff"[question.offset :])
        return Done()


def _running() -> tuple[SmallCell, FakeAgent, Guest]:
    """A cell with one host where alice's web runs."""
    cell, guest = SmallCell(hosts=[FakeAgent("h1")]), Guest()
    cell.call(ALICE, "createVm", name="web", disks=[{"uri": "tashi"}])
    cell.work()
    cell.agents[0].answers = guest.answer
    return cell, cell.agents[0], guest


def _specific(cell: SmallCell, arg: str, who: Principal = ALICE) -> str:
    found: str = cell.call(who, "vmmSpecificCall", instance="web", arg=arg)
    return found


def _refused(cell: SmallCell, who: Principal, verb: str, **arguments: Any) -> tuple[str, str]:
    with pytest.raises(TashiError) as caught:
        cell.call(who, verb, **{"instance": "web", **arguments})
    return caught.value.code, caught.value.message


def _audit(cell: SmallCell) -> list[str]:
    return [event["description"] for event in cell.events if event["type"] == "auditRecord"]


def test_vnc() -> None:
    """Where the screen is shown is told with the password for it, to the owner and nowhere else."""
    cell, agent, _ = _running()
    assert _specific(cell, "startVnc") == f"VNC running on 192.0.2.7:5901\n{SECRET}"
    assert _specific(cell, "STOPVNC") == "VNC halted"
    assert [type(question) for question in agent.questions] == [StartVnc, StopVnc]
    assert _audit(cell)[-2:] == ["alice vmmspecificcall startVnc web (1): OK", "alice vmmspecificcall STOPVNC web (1): OK"]
    assert SECRET not in json.dumps(cell.all_events)
    assert SECRET not in str(cell.store.rows)  # type: ignore[attr-defined]


def test_ipv6() -> None:
    """An address with colons is set apart from the port."""
    cell, agent, _ = _running()
    agent.answers = lambda question: VncOpen(host="2001:db8::7", port=5900, password=SECRET)
    assert _specific(cell, "startVnc").startswith("VNC running on [2001:db8::7]:5900\n")


def test_cdrom() -> None:
    """An image is put in by its name, as it is written, and taken out again; what is no image's name reaches no host."""
    cell, agent, _ = _running()
    assert _specific(cell, "changeCdrom:tashi.img") == "Changed ide1-cd0 to tashi.img"
    assert _specific(cell, "changecdrom:") == "Ejected ide1-cd0"
    assert [question.image for question in agent.questions if isinstance(question, ChangeCdrom)] == ["tashi.img", ""]
    assert _refused(cell, ALICE, "vmmSpecificCall", arg="changeCdrom:TASHI.img")[0] == "unknown-image"
    agent.answers = lambda question: Refused(code="unknown-image", message="the image tashi.img is qcow2")
    assert _refused(cell, ALICE, "vmmSpecificCall", arg="changeCdrom:tashi.img") == ("unknown-image", "the image tashi.img is qcow2")
    assert _audit(cell)[-1] == "alice vmmspecificcall changeCdrom web (1): unknown-image"


def test_host_away() -> None:
    """What cannot be asked is refused in words, and nothing is left to be done later."""
    cell, agent, _ = _running()
    agent.lose_link()
    _, words = _refused(cell, ALICE, "vmmSpecificCall", arg="startVnc")
    assert "host h1 of web is away" in words
    assert (agent.questions, cell.instance("web").tasks) == ([], ())


def test_only_what_runs() -> None:
    """An instance that stands still has no screen and no console to be let in at; its log can be read."""
    cell, agent, _ = _running()
    cell.call(ALICE, "pauseVm", instance="web")
    cell.work()
    for verb, arguments in (
        ("openConsole", {}),
        *(("vmmSpecificCall", {"arg": arg}) for arg in ("startVnc", "stopVnc", "changeCdrom:tashi.img")),
    ):
        assert _refused(cell, ALICE, verb, **arguments) == ("conflict", "VmState is not Running - it is Paused")
    assert agent.questions == []
    assert cell.call(ALICE, "readConsoleLog", instance="web")["next"] == 7


def test_console() -> None:
    """What is typed goes to the guest and what it says comes back, byte by byte as it is."""
    cell, agent, _ = _running()
    opened = cell.call(ALICE, "openConsole", instance="web")
    assert opened == {"id": 1, "name": "web", "session": SESSION}
    about = {"instance": 1, "session": SESSION}
    cell.call(ALICE, "writeConsole", **about, data=base64.b64encode(b"\x03\xff").decode())
    assert cell.call(ALICE, "readConsole", **about) == {"data": base64.b64encode(b"\x03\xff").decode(), "missed": 0, "ended": ""}
    cell.call(ALICE, "closeConsole", **about)
    assert isinstance(agent.questions[-1], CloseConsole)
    assert _audit(cell)[-1] == "alice openconsole web (1): OK"
    assert SESSION not in json.dumps(cell.all_events)


def test_console_of_somebody_else() -> None:
    """Nobody but the owner and administrators gets at a console, not even with the session's name, nor at its log."""
    cell, agent, _ = _running()
    cell.call(ALICE, "openConsole", instance="web")
    agent.questions.clear()
    about = {"session": SESSION, "data": "eA=="}
    for verb in ("openConsole", "readConsole", "writeConsole", "closeConsole", "readConsoleLog"):
        assert _refused(cell, BOB, verb, **about)[0] == "forbidden"
    assert agent.questions == []
    assert "bob openconsole 'web': forbidden" in _audit(cell)
    assert cell.call(Principal(name="root", user_id=0, admin=True), "openConsole", instance="web")["session"] == SESSION


def test_force() -> None:
    """Only who asks for it takes a console from somebody."""
    cell, agent, _ = _running()
    for force in (False, True, "yes", None):
        cell.call(ALICE, "openConsole", instance="web", force=force)
    assert [question.force for question in agent.questions if isinstance(question, OpenConsole)] == [False, True, False, False]


def test_end_of_a_console() -> None:
    """Why a console has closed is told with what has become of the instance."""
    cell, _, guest = _running()
    guest.said += [ConsoleOutput(ended="the console has closed")] * 2
    about = {"instance": 1, "session": SESSION}
    assert cell.call(ALICE, "readConsole", **about)["ended"] == "the console has closed: web is Running on host h1"
    cell.call(ALICE, "destroyVm", instance="web")
    cell.work()
    assert cell.call(ALICE, "readConsole", **about)["ended"] == "the instance has ended"


def test_reader_hangs_up() -> None:
    """A reader whose connection ends has its session ended."""
    cell, agent, guest = _running()
    guest.said.append(Deferred())
    reading = Deferred.fromCoroutine(cell.manager.verbs.call(ALICE, "readConsole", {"instance": 1, "session": SESSION}))
    reading.addErrback(lambda failure: None)
    reading.cancel()
    assert agent.questions[-1] == CloseConsole(uuid=agent.questions[0].uuid, incarnation=agent.incarnations[1], session=SESSION)


def test_asker_hangs_up() -> None:
    """What was asked for by somebody who did not wait for the answer is in the audit trail, too."""
    cell, agent, _ = _running()
    agent.answers = lambda question: Deferred()
    asking = Deferred.fromCoroutine(cell.manager.verbs.call(ALICE, "vmmSpecificCall", {"instance": 1, "arg": "startVnc"}))
    asking.addErrback(lambda failure: None)
    asking.cancel()
    cell.settle()
    assert _audit(cell)[-1] == "alice vmmspecificcall startVnc web (1): unanswered"


def test_log_of_the_gone() -> None:
    """What an instance said before it ended can be read by its owner, by id and by name."""
    cell, agent, _ = _running()
    cell.call(ALICE, "destroyVm", instance="web")
    cell.work()
    for reference in (1, "web"):
        page = cell.call(ALICE, "readConsoleLog", instance=reference, offset=4)
        assert (base64.b64decode(page["data"]), page["next"]) == (b"\r\n\xff", 7)
    asked, incarnation = agent.questions[-1], agent.incarnations[1]
    assert asked == ReadLog(uuid=asked.uuid, incarnation=incarnation, name=f"{asked.uuid}.{incarnation}", offset=4)
    assert _refused(cell, BOB, "readConsoleLog", instance=1)[0] == "forbidden"
    assert _refused(cell, ALICE, "readConsoleLog", instance="other")[0] == "unknown-id"


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("readConsole", {}),
        ("readConsole", {"session": 7}),
        ("writeConsole", {"session": "s"}),
        ("writeConsole", {"session": "s", "data": "*"}),
        ("writeConsole", {"session": "s", "data": 7}),
        ("readConsoleLog", {"offset": -1}),
        ("readConsoleLog", {"offset": "0"}),
        ("readConsoleLog", {"offset": 2**64}),
        ("openConsole", {"instance": True}),
        ("openConsole", {"instance": ""}),
    ],
)
def test_bad_arguments(verb: str, arguments: dict[str, Any]) -> None:
    """What is wrong is named, and no host is asked."""
    cell, agent, _ = _running()
    assert _refused(cell, ALICE, verb, **arguments)[0] == "bad-argument"
    assert agent.questions == []


def test_words_of_a_fault() -> None:
    """A fault of the agent is told by its code in the audit trail, not by its words."""
    cell, agent, _ = _running()
    agent.answers = lambda question: Refused(code="internal", message=f"libvirt said {SECRET}")
    assert _refused(cell, ALICE, "vmmSpecificCall", arg="startVnc")[0] == "internal"
    assert SECRET not in json.dumps(cell.all_events)
    assert result_of(cell.manager.journal.written()) is None
