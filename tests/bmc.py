"""A machine with a BMC: OpenIPMI's simulator on a loopback port of its own, and a file that says whether the machine has power."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from pathlib import Path

PATIENCE = 10.0
CONFIGURATION = """\
name "bmc"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 {port}
    priv_limit admin
    allowed_auths_operator none md2 md5 straight
    allowed_auths_admin none md2 md5 straight
    guid a123456789abcdefa123456789abcdef
  endlan
  chassis_control "{control} 0x20"
  user 1 true "" "" user 10 none md2 md5 straight
  user 2 true "tashi" "{password}" operator 10 none md2 md5 straight
"""
COMMANDS = "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02\nmc_enable 0x20\n"
CONTROL = """\
#!/bin/sh
# ADDRESS get NAME... | ADDRESS set NAME VALUE...: what the simulator asks of the machine's front panel
operation=$2; shift 2
while [ $# -gt 0 ]; do
    case $operation-$1 in
        get-power) echo "power:$(cat "{machine}")";;
        set-power) test -e "{broken}" && exit 1; echo "$2" > "{machine}"; shift;;
        set-shutdown) test -e "{heedless}" || echo 0 > "{machine}"; shift;;
        set-*) shift;;
    esac
    shift
done
"""


class Bmc:
    """The simulator, once started; ``machine`` holds 0 or 1."""

    password = "open-sesame"

    def __init__(self, directory: Path) -> None:
        self.machine, self.broken, self.heedless = (directory / name for name in ("machine", "broken", "heedless"))
        self.machine.write_text("1\n")
        self.password_file = directory / "password"
        self.password_file.touch(0o600)
        self.password_file.write_text(self.password + "\n")
        control = directory / "control"
        control.write_text(CONTROL.format(machine=self.machine, broken=self.broken, heedless=self.heedless))
        control.chmod(0o755)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        configuration, commands = directory / "lan.conf", directory / "sim.emu"
        configuration.write_text(CONFIGURATION.format(port=port, control=control, password=self.password))
        commands.write_text(COMMANDS)
        state = directory / "state"
        state.mkdir()
        self._log = (directory / "log").open("wb")
        words = ["ipmi_sim", "-c", str(configuration), "-f", str(commands), "-s", str(state), "-n"]
        self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        deadline = time.monotonic() + PATIENCE
        while f":{port:04X} " not in Path("/proc/net/udp").read_text():
            assert self._process.poll() is None and time.monotonic() < deadline, (directory / "log").read_text()
            time.sleep(0.01)

    def is_on(self) -> bool:
        """Whether the machine has power."""
        return self.machine.read_text().strip() == "1"

    def hang(self) -> None:
        """Let it answer nobody."""
        self._process.send_signal(signal.SIGSTOP)

    def end(self) -> None:
        """Stop the simulator."""
        self._process.kill()
        self._process.wait()
        self._log.close()
