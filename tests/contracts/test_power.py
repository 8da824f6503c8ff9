"""The contract of `IPower`, kept by each driver: a real ipmitool and a BMC, programs, magic packets; and by the one in memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
from twisted.internet import reactor
from twisted.internet.defer import execute
from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import TestCase

from tashi.config.sections.power import Power
from tashi.config.values import HostCommand
from tashi.errors import INTERNAL, OurFault, YourMistake
from tashi.interfaces import IPower
from tashi.model.host import Host, Reach
from tashi.node.fake import FakeHypervisor
from tashi.node.shutting_down import ShuttingDown
from tashi.power.drivers import make_power
from tests.bmc import Bmc
from tests.builders import a_host, some_facts
from tests.contracts.hypervisor_contract import CELL, an_order
from tests.contracts.power_contract import PowerContract
from tests.fake_power import FakePower

SECONDS = 1.0
SCRIPT = """\
#!/bin/sh
# on|off|status DIRECTORY: a machine whose power is a file
case $1 in
    on) touch "$2/on";;
    off)
        test -e "$2/hangs" && exec sleep 60
        test -e "$2/stuck" && { echo "working on it"; echo "the button of $3 is stuck" >&2; exit 3; }
        rm -f "$2/on";;
    status) if test -e "$2/on"; then echo "Chassis Power is ON"; else echo off; fi;;
esac
"""


def a_driver(settings: Power) -> IPower:
    """The driver; it has nobody to ask."""

    async def shut_down(host: Host) -> None:
        raise AssertionError(f"{host.name} was asked")

    power = make_power(reactor, settings, shut_down)
    assert power is not None
    return power


class WithDirectory(TestCase):
    """A test that has a directory of its own."""

    def setUp(self) -> None:
        """Make it."""
        temporary = tempfile.TemporaryDirectory(prefix="tashi-power-")
        self.addCleanup(temporary.cleanup)
        self.directory = Path(temporary.name)


class IpmiTests(PowerContract, WithDirectory):
    """ipmitool and OpenIPMI's simulator of a BMC."""

    def setUp(self) -> None:
        """A machine whose BMC answers."""
        super().setUp()
        self.bmc = Bmc(self.directory)
        self.addCleanup(self.bmc.end)
        self.settings = Power(
            driver="ipmi", user="tashi", password_file=str(self.bmc.password_file), addresses={"h1": "127.0.0.1:1"},
            cipher_suite=3, timeout=2.0, soft_timeout=0.5,
        )  # fmt: skip
        self.power = a_driver(self.settings)
        self.host = a_host(config={"ipmi": self.bmc.address})

    def machine_is_on(self) -> bool:
        """See PowerContract."""
        return self.bmc.is_on()

    def break_it(self) -> str:
        """See PowerContract."""
        self.bmc.heedless.touch()
        self.bmc.broken.touch()
        return "Set Chassis Power Control to Down/Off failed"

    def silence_it(self) -> None:
        """See PowerContract."""
        self.bmc.hang()

    async def test_a_machine_that_does_not_heed_its_button(self) -> None:
        """What does not shut down in time is switched off hard."""
        self.bmc.heedless.touch()
        await self.power.switch_off(self.host)
        assert not self.machine_is_on()

    async def test_a_wrong_password(self) -> None:
        """Whom the BMC does not know cannot do anything, and learns so."""
        self.bmc.password_file.write_text("wrong\n")
        error = await self.error(self.power.switch_off(self.host))
        assert "Unable to establish IPMI v2" in error.message and self.bmc.password not in error.message
        assert self.machine_is_on()

    def test_addresses(self) -> None:
        """The host's own element comes first; what is no address is none."""
        assert self.power.objection(a_host(config={})) is None
        for address in ("-H", "one two", "host:port", "user@host", "host/path", "host:70000"):
            assert f"the BMC address {address} of host h1 is none" in (self.power.objection(a_host(config={"ipmi": address})) or "")

    def test_the_password_s_file(self) -> None:
        """It must be there, and nobody else's."""
        self.bmc.password_file.chmod(0o644)
        for path, words in (("", "needs"), ("/no/such/file", "cannot be read"), (str(self.bmc.password_file), "chmod 600")):
            with self.assertRaisesRegex(YourMistake, words):
                a_driver(msgspec.structs.replace(self.settings, password_file=path))


class CommandTests(PowerContract, WithDirectory):
    """A script that keeps the machine's power in a file."""

    def setUp(self) -> None:
        """A machine that is on, in a directory whose name has a space."""
        super().setUp()
        self.machine = self.directory / "a machine"
        self.machine.mkdir()
        (self.machine / "on").touch()
        script = self.directory / "script"
        script.write_text(SCRIPT)
        script.chmod(0o755)
        on, off, status = (HostCommand.parse(f"{script} {deed} {{config.directory}} {{name}}") for deed in ("on", "off", "status"))
        self.settings = Power(driver="command", timeout=SECONDS, on=on, off=off, status=status)
        self.power = a_driver(self.settings)
        self.host = a_host(config={"directory": str(self.machine)})

    def machine_is_on(self) -> bool:
        """See PowerContract."""
        return (self.machine / "on").exists()

    def break_it(self) -> str:
        """See PowerContract."""
        (self.machine / "stuck").touch()
        return "[Power] off for h1: " + str(self.directory / "script") + " ended with code 3: the button of h1 is stuck"

    def silence_it(self) -> None:
        """See PowerContract."""
        (self.machine / "hangs").touch()

    async def test_nobody_can_tell(self) -> None:
        """Without a status command it is not known; one that says neither on nor off is in error."""
        without = a_driver(msgspec.structs.replace(self.settings, status=HostCommand()))
        assert await without.is_on(self.host) is None
        wrong = a_driver(msgspec.structs.replace(self.settings, status=HostCommand("echo maybe")))
        assert "printed neither on nor off: maybe" in (await self.error(wrong.is_on(self.host))).message

    async def test_words(self) -> None:
        """What is put in stays in its argument, whatever characters it has; a program that is not there is said to be so."""
        odd = a_host(7, "h7", config={"note": "$(reboot); `x` {name} 'on"}, reach=Reach(fqdn="h7.example.org"))
        power = a_driver(msgspec.structs.replace(self.settings, status=HostCommand("echo {id}:{name}:{address} '{config.note}'")))
        assert "7:h7:h7.example.org $(reboot); `x` {name} 'on" in (await self.error(power.is_on(odd))).message
        missing = a_driver(msgspec.structs.replace(self.settings, status=HostCommand("no-such-program")))
        assert "there is no program no-such-program" in (await self.error(missing.is_on(self.host))).message

    async def test_an_address_that_an_agent_says_is_not_used(self) -> None:
        """A5: a command gets the address that the join or an administrator has confirmed, never one that an agent reports later."""
        power = a_driver(msgspec.structs.replace(self.settings, status=HostCommand("echo {address}")))
        said = some_facts(fqdn="h2.example.org")
        for host, address in (
            (a_host(1, facts=said), "h1"),
            (a_host(1, facts=said, reach=Reach(fqdn="h1.example.org")), "h1.example.org"),
            (a_host(1, facts=said, reach=Reach(fqdn="h1.example.org"), config={"address": "192.0.2.1"}), "192.0.2.1"),
        ):
            assert (await self.error(power.is_on(host))).message.endswith(f": {address}")
            assert power.target(host) == address
        assert a_driver(self.settings).target(self.host) is None
        for wrong in ("-oProxyCommand=reboot", "root@h2", "a b", "x/../y"):
            assert "the element address of host h1 is" in (power.objection(a_host(1, config={"directory": "d", "address": wrong})) or "")

    async def test_a_child_that_stays(self) -> None:
        """A command that leaves something running, which keeps its output open, has ended all the same."""
        lasting = f"sh -c 'sleep 2 & touch {self.directory}/done'"
        await a_driver(msgspec.structs.replace(self.settings, timeout=5.0, on=HostCommand(lasting))).switch_on(self.host)
        assert (self.directory / "done").exists()

    def test_commands_that_are_needed(self) -> None:
        """Without commands for both there is no driver."""
        for lacking in ({"on": HostCommand()}, {"off": HostCommand()}):
            with self.assertRaisesRegex(YourMistake, "needs the commands"):
                a_driver(msgspec.structs.replace(self.settings, **lacking))


class Card(DatagramProtocol):
    """A card that listens, and the packets that it has heard."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def datagramReceived(self, datagram: bytes, addr: object) -> None:
        """See DatagramProtocol."""
        self.heard.append(datagram)


class WakeOnLanTests(PowerContract, WithDirectory):
    """A card that hears magic packets on this machine's loopback network, and a node that shuts its machine down by its own command."""

    def setUp(self) -> None:
        """A machine that is on."""
        super().setUp()
        self.card = Card()
        self.machine = self.directory / "on"
        self.machine.touch()
        self.hypervisor = FakeHypervisor(["boot.img"])
        self.command = ["rm", "-f", str(self.machine)]
        port = reactor.listenUDP(0, self.card, interface="127.255.255.255")
        self.addCleanup(port.stopListening)
        settings = Power(driver="wol", wol_address="127.255.255.255", wol_port=port.getHost().port, timeout=SECONDS)
        power = make_power(reactor, settings, self.shut_down)
        assert power is not None
        self.power = power
        self.host = a_host(reach=Reach(mac="52:54:00:12:34:56"))

    async def shut_down(self, host: Host) -> None:
        """What the agent does."""
        await ShuttingDown(reactor, self.command, self.hypervisor, execute).shut_down(CELL)

    def machine_is_on(self) -> bool:
        """See PowerContract."""
        if self.card.heard:
            assert set(self.card.heard) == {b"\xff" * 6 + bytes.fromhex("525400123456") * 16}
            self.card.heard.clear()
            self.machine.touch()
        return self.machine.exists()

    def break_it(self) -> str:
        """See PowerContract."""
        self.hypervisor.start(CELL, an_order(7))
        return "this host stays on: 1 domains of the cell run on it"

    def silence_it(self) -> None:
        """See PowerContract."""
        self.command = ["sleep", "5"]

    async def test_its_own_command(self) -> None:
        """A command that fails, or is not there, is said; the machine stays on."""
        for command, words in ((["false"], "false ended with code 1"), ([], "powerOffCommand is empty")):
            self.command = command
            assert words in (await self.error(self.power.switch_off(self.host))).message
        assert self.machine_is_on()

    async def test_the_card_s_address(self) -> None:
        """The host's own element comes before what its agent says; what is no address is none."""
        confirmed = a_host(config={"mac": "52-54-00-12-34-56"}, reach=Reach(mac="00:00:00:00:00:01"))
        await self.power.switch_on(confirmed)
        assert self.power.target(confirmed) == self.power.target(self.host) == "52:54:00:12:34:56"
        await self.until(lambda: bool(self.card.heard))
        assert self.machine_is_on()
        for wrong in ("52:54:00", "eth0", "52:54:00:12:34:56:78"):
            assert f"the element mac of host h1 is {wrong}" in (self.power.objection(a_host(config={"mac": wrong})) or "")

    def test_where_to(self) -> None:
        """Magic packets go to an address, not to a name that would have to be looked up first."""
        with self.assertRaisesRegex(YourMistake, "wolAddress is hosts.example.org"):
            a_driver(Power(driver="wol", wol_address="hosts.example.org"))


class FakePowerTests(PowerContract, TestCase):
    """The driver of the tests in memory."""

    def setUp(self) -> None:
        """A machine that is on."""
        self.host = a_host()
        self.power = self.fake = FakePower({"h1"})

    def machine_is_on(self) -> bool:
        """See PowerContract."""
        return "h1" not in self.fake.dark

    def break_it(self) -> str:
        """See PowerContract."""
        self.fake.fails["h1"] = OurFault(INTERNAL, "the BMC of h1 is on fire")
        return "the BMC of h1 is on fire"

    def silence_it(self) -> None:
        """See PowerContract."""
        self.fake.silent.add("h1")
