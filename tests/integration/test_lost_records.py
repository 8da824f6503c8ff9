"""Lost and restored records in a real cell: the control plane refuses to start in words, a loss is accepted once, numbers go on."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.integration.cells import RunningCell, running_cell

COUNT = 31


def _database(cell: RunningCell) -> Path:
    return cell.state_dir / "manager" / "tashi.sqlite"


def _log(cell: RunningCell) -> Path:
    return cell.state_dir / "manager" / "tashi.sqlite-wal"


def _refusal(cell: RunningCell) -> str:
    """What a start of the control plane says, which must end with 1 and change no file of the database."""
    paths = [path for path in (_database(cell), _log(cell)) if path.exists()]
    before = [path.read_bytes() for path in paths]
    command = [str(Path(sys.executable).parent / "twistd"), "-n", "--pidfile=", "tashi"]
    environment = os.environ | {"TASHI_CONF": cell.description["conf"]}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert run.returncode == 1, run.stdout + run.stderr
    assert "Traceback" not in run.stdout + run.stderr
    assert [path.read_bytes() for path in paths] == before
    return run.stderr


def _damage(cell: RunningCell) -> None:
    with _log(cell).open("r+b") as file:
        file.seek(_log(cell).stat().st_size // 2)
        file.write(b"damage")


def _cut_database(cell: RunningCell) -> None:
    with _database(cell).open("r+b") as file:
        file.truncate(4096)
    _log(cell).unlink()


LOSSES: dict[str, tuple[Callable[[RunningCell], Any], str]] = {
    "deleted log": (lambda cell: _log(cell).unlink(), "an older copy, or a lost or damaged write-ahead log"),
    "zeroed log": (
        lambda cell: _log(cell).write_bytes(bytes(100_000)),
        "an older copy, or a lost or damaged write-ahead log",
    ),
    "damaged log": (_damage, "an older copy, or a lost or damaged write-ahead log"),
    "empty file": (lambda cell: _database(cell).write_bytes(b""), "an empty file"),
    "zeroed file": (lambda cell: _database(cell).write_bytes(bytes(40_960)), "no SQLite database"),
    "missing file": (lambda cell: _database(cell).unlink(), "no file"),
    "cut file": (_cut_database, "found"),
}


def test_a9_a_killed_control_plane_with_a_lost_log_or_file_does_not_start_empty() -> None:
    """A9: after kill -9, each kind of loss is refused in words; accepted once, the old cell goes on above its ids."""
    with running_cell("--hypervisor", "test", "--set", "XMPP.layoutInterval=3600") as cell:
        cell.cli(
            "createMany",
            "--basename",
            "web",
            "--count",
            str(COUNT),
            "--disks",
            "tashi.img",
            "--nics",
            "0",
            "--wait",
        )
        source = {event["source"] for event in _published(cell)}
        cell.kill("manager")
        state, whole = _database(cell).parent, cell.state_dir / "whole"
        shutil.copytree(state, whole, ignore=shutil.ignore_patterns("share"))
        for title, (damage, words) in LOSSES.items():
            for path in (_database(cell), _log(cell)):
                path.unlink(missing_ok=True)
                shutil.copy(whole / path.name, path)
            damage(cell)
            said = _refusal(cell)
            assert (
                "the control plane cannot start: the database" in said
                and "has lost records: expected at least" in said
            ), (title, said)
            assert words in said and "tashi db restore FILE" in said and "tashi db accept-loss" in said, (
                title,
                said,
            )
        _database(cell).write_bytes(b"")
        _log(cell).unlink(missing_ok=True)
        assert "holds what is left" in cell.cli("db", "accept-loss")
        cell.start()
        assert cell.instances() == []
        cell.cli("registerUser", "--name", "newcomer", "--userId", "1234567")
        cell.cli("createVm", "--name", "next", "--disks", "tashi.img", "--wait")
        (row,) = cell.instances()
        assert row["id"] == 1001
        events = _published(cell)
        assert [event["action"] for event in events if event["type"] == "cellAction"].count("storeLost") == 1
        assert {event["source"] for event in events} == source, "it is still the same cell"
        cell.kill("manager")
        cell.start()
        assert [row["id"] for row in cell.instances()] == [1001]
        cell.kill("manager")
        _database(cell).write_bytes(b"")
        assert "an empty file" in _refusal(cell)


def _published(cell: RunningCell) -> list[dict[str, Any]]:
    """The events that llms, who gets all of them, has not had yet."""

    async def listen() -> list[dict[str, Any]]:
        async with cell.peer("llms") as llms:
            await llms.until(lambda messages: any('"vmAction"' in message["body"] for message in messages))
            return [json.loads(message["body"]) for message in llms.messages]

    return asyncio.run(listen())


def test_o1_d11_a_backup_is_made_amid_creates_and_restored_beside_a_log() -> None:
    """O1, D11: a backup during 200 creates is whole; restored after kill -9, the next id and event are above all."""
    with running_cell("--hypervisor", "test", "--set", "XMPP.layoutInterval=3600") as cell:
        file = cell.state_dir / "monday.sqlite"
        environment = os.environ | {"TASHI_CONF": cell.description["conf"]}
        words = [
            "createMany",
            "--basename",
            "web",
            "--count",
            "200",
            "--disks",
            "tashi.img",
            "--nics",
            "0",
            "--wait",
        ]
        creating = subprocess.Popen(
            [sys.executable, "-m", "tashi.client", *words], env=environment, stdout=subprocess.DEVNULL
        )
        cell.wait_for_instances(lambda rows: len(rows) == 200)
        backups = 0
        while creating.poll() is None or not backups:
            cell.cli("db", "backup", str(file), "--force")
            backups += 1
        assert creating.returncode == 0
        assert "ok" in cell.cli("db", "check", str(file)).splitlines()
        cell.cli("createVm", "--name", "later", "--disks", "tashi.img", "--wait")
        told = max(event["seq"] for event in _published(cell))
        assert "another control plane uses" in cell.cli("db", "restore", str(file), code=1)
        cell.kill("manager")
        assert _log(cell).stat().st_size > 0
        cell.cli("db", "restore", str(file))
        assert not _log(cell).exists()
        cell.start()
        names = {row["name"] for row in cell.instances()}
        assert len(names) == 200 and "later" not in names
        cell.wait_for_instances(lambda rows: {row["state"] for row in rows} == {"Running"})
        cell.cli("createVm", "--name", "afterwards", "--disks", "tashi.img", "--wait")
        assert max(row["id"] for row in cell.instances()) == 1001
        events = _published(cell)
        (lost,) = [
            event for event in events if event["type"] == "cellAction" and event["action"] == "storeLost"
        ]
        assert lost["reason"].startswith(f"restored from {file}, made ")
        assert min(event["seq"] for event in events if event["seq"] >= lost["seq"]) > told
        cell.cli("destroyVm", "--instance", min(names), "--wait")


def test_a_whole_state_directory_of_an_earlier_hour_is_noticed_by_its_hosts() -> None:
    """Marker and database of a snapshot agree; the host that logs in was told of later commits, so numbers step above them."""
    with running_cell("--hypervisor", "test") as cell:
        cell.cli("createVm", "--name", "early", "--disks", "tashi.img", "--wait")
        cell.kill("manager")
        state, snapshot = _database(cell).parent, cell.state_dir / "snapshot"
        shutil.copytree(state, snapshot)
        cell.start()
        cell.cli(
            "createMany",
            "--basename",
            "late",
            "--count",
            "5",
            "--disks",
            "tashi.img",
            "--nics",
            "0",
            "--wait",
        )
        cell.kill("manager")
        cell.start()  # the host logs in anew, and is told how far the records have come
        cell.wait_for_instances(lambda rows: len(rows) == 6 and not any(row["decayed"] for row in rows))
        cell.kill("manager")
        shutil.rmtree(state)
        shutil.copytree(snapshot, state)
        cell.start()
        cell.wait_for_instances(lambda rows: [row["name"] for row in rows] == ["early"])
        cell.cli("createVm", "--name", "next", "--disks", "tashi.img", "--wait")
        assert max(row["id"] for row in cell.instances()) == 1001
        assert "the state directory is an older copy" in (cell.state_dir / "log" / "manager.log").read_text()
