"""`tashi db`: backups made and restored as an operator does it, on real files (O1, D11)."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from tashi import db_command
from tashi.interfaces import Change
from tashi.model.marks import CELL, LOSS, Loss, Mark
from tashi.store import backups
from tashi.store.lock import lock
from tashi.store.marker import Marker
from tashi.store.sqlite import SQLiteStore
from tashi.store.sqlite_file import log_of
from tests.builders import an_instance

CELL_UUID = "11111111-1111-4111-8111-111111111111"
OTHER_UUID = "22222222-2222-4222-8222-222222222222"
SECRETS = {"ca.pem": b"a certificate", "ca.key": b"a key", "manager.pem": b"both", "join.secret": b"j" * 32}


class DatabaseCommandTest(TestCase):
    """One state directory, and the words that the command says about it."""

    timeout = 60

    @pytest.fixture(autouse=True)
    def _surroundings(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def setUp(self) -> None:
        self.top = Path(self.mktemp()).absolute()
        self.use("state")

    def use(self, name: str) -> Path:
        """Make a state directory and the configuration that names it."""
        self.state = self.top / name
        self.database, self.marker = self.state / "tashi.sqlite", Marker(self.state / "tashi.mark")
        conf = self.top / f"{name}.conf"
        conf.mkdir(parents=True)
        (conf / "Tashi.cfg").write_text(f"[ClusterManagerService]\nstateDir = {self.state}\n")
        self.monkeypatch.setenv("TASHI_CONF", str(conf))
        return self.state

    def db(self, *words: object, code: int = 0) -> str:
        """What `tashi db` says; it must end with ``code``."""
        self.capsys.readouterr()
        ended = db_command.main([str(word) for word in words])
        said = "".join(self.capsys.readouterr())
        self.assertEqual(ended, code, said)
        return said

    async def open(self, **options: Any) -> tuple[SQLiteStore, Any]:
        """The store of the state directory, and what it loaded."""
        store = SQLiteStore(reactor, str(self.database), self.marker.path, **options)
        self.addCleanup(store.close)
        return store, await store.load()

    async def young(self, cell: str = CELL_UUID, instances: int = 14) -> SQLiteStore:
        """A running cell with some instances, everything in the log."""
        self.state.mkdir(exist_ok=True)
        store, _ = await self.open()
        await store.commit([Change("settings", CELL, cell)])
        await self.fill(store, 1, instances)
        return store

    async def fill(self, store: SQLiteStore, first: int, last: int) -> None:
        for number in range(first, last + 1):
            await store.commit(
                [Change("instances", number, an_instance(number)), Change("counters", "instance", number)]
            )

    def loss_in(self, tables: Any) -> Loss:
        return msgspec.json.decode(tables["settings"][LOSS], type=Loss)

    async def test_o1_a_backup_is_made_while_the_control_plane_writes_and_restored(self) -> None:
        """O1: what was committed before the backup comes back, what was committed later is kept aside, and the next id is above both."""
        store = await self.young()
        file = self.top / "monday.sqlite"
        said = self.db("backup", file)
        self.assertIn(f"{file}: cell {CELL_UUID}, 16 commits", said)
        self.assertEqual(file.stat().st_mode & 0o777, 0o600)
        self.assertFalse(log_of(file).exists())
        self.assertEqual(backups.last(self.state).file, str(file))  # type: ignore[union-attr]
        self.assertEqual(store.status().last_backup_file, str(file))
        await self.fill(store, 15, 20)
        await store.close()
        said = self.db("restore", file)
        self.assertIn("The replaced file is kept as", said)
        (kept,) = self.state.glob("tashi.sqlite.replaced-*")
        with sqlite3.connect(kept) as database:
            self.assertEqual(database.execute("SELECT count(*) FROM instances").fetchone(), (20,))
        database.close()
        store, tables = await self.open()
        self.assertEqual((len(tables["instances"]), tables["settings"][CELL]), (14, CELL_UUID))
        self.assertEqual(self.loss_in(tables).numbers, {"instance": 1000})
        self.assertRegex(
            self.loss_in(tables).reason, f"restored from {file}, made 20..-..-.. ..:.. UTC by Tashi"
        )

    async def test_d11_a_restore_takes_the_log_away(self) -> None:
        """D11: with the log of a killed control plane beside the database, the restore is what the next start finds."""
        store = await self.young()
        self.db("backup", self.top / "file")
        await self.fill(store, 15, 20)
        killed = self.use("killed")
        subprocess.run(["cp", "-a", f"{self.top}/state", str(killed)], check=True)
        self.assertGreater(log_of(self.database).stat().st_size, 0)
        self.db("restore", self.top / "file")
        self.assertFalse(log_of(self.database).exists())
        self.assertEqual(len(list(killed.glob("tashi.sqlite-wal.replaced-*"))), 1)
        _, tables = await self.open()
        self.assertEqual(len(tables["instances"]), 14)

    async def test_a_backup_of_a_killed_control_plane_has_what_is_in_the_log(self) -> None:
        """The log is read, and stays."""
        await self.young()
        killed = self.use("killed")
        subprocess.run(["cp", "-a", f"{self.top}/state", str(killed)], check=True)
        before = log_of(self.database).read_bytes()
        self.assertIn("16 commits", self.db("backup", self.top / "file"))
        self.assertEqual(log_of(self.database).read_bytes(), before)

    async def test_a_plain_copy_is_restored_too(self) -> None:
        """A copy with its log, made by cp, is as good as a backup, when it is given to `tashi db restore`."""
        store = await self.young()
        subprocess.run(["cp", "-a", f"{self.state}/.", str(self.top / "copy")], check=True)
        await self.fill(store, 15, 20)
        await store.close()
        self.db("restore", self.top / "copy" / "tashi.sqlite")
        _, tables = await self.open()
        self.assertEqual(len(tables["instances"]), 14)
        self.assertEqual(self.loss_in(tables).numbers, {"instance": 1000})

    async def test_a_restore_onto_a_new_machine(self) -> None:
        """With nothing but the backup, numbers jump by a thousand, and the secrets are back when they are asked for."""
        store = await self.young()
        for name, content in SECRETS.items():
            (self.state / name).write_bytes(content)
        said = self.db("backup", self.top / "file", "--with-secrets")
        self.assertIn("It holds secrets (ca.key, ca.pem, join.secret, manager.pem)", said)
        await store.close()
        new = self.use("new")
        self.assertIn(
            "`tashi db restore --with-secrets` puts them back", self.db("restore", self.top / "file")
        )
        (new / "ca.key").write_bytes(b"another key")
        self.db("restore", self.top / "file", "--with-secrets")
        self.assertEqual({name: (new / name).read_bytes() for name in SECRETS}, SECRETS)
        modes = {name: (new / name).stat().st_mode & 0o777 for name in SECRETS}
        self.assertEqual(modes, {name: 0o644 if name == "ca.pem" else 0o600 for name in SECRETS})
        (kept,) = new.glob("ca.key.replaced-*")
        self.assertEqual(kept.read_bytes(), b"another key")
        with sqlite3.connect(self.database) as database:
            self.assertEqual(
                database.execute("SELECT 1 FROM sqlite_master WHERE name = 'backup'").fetchall(), []
            )
        database.close()
        _, tables = await self.open()
        self.assertGreaterEqual(self.loss_in(tables).numbers["instance"], 1014)

    async def test_a_backup_replaces_nothing_unasked(self) -> None:
        """A file that exists is refused, and replaced whole with --force; a failure leaves no half."""
        await self.young()
        file = self.top / "file"
        file.write_text("precious")
        self.assertIn(
            "exists; choose another name, or replace it with --force", self.db("backup", file, code=1)
        )
        self.assertEqual(file.read_text(), "precious")
        self.db("backup", file, "--force")
        self.db("backup", self.top / os.fsdecode(b"not-utf-8-\xff"))
        self.assertIn("not-utf-8-", backups.last(self.state).file)  # type: ignore[union-attr]
        self.assertIn("ok", self.db("check", file))
        self.assertIn("No such file or directory", self.db("backup", self.top / "nowhere" / "file", code=1))
        self.assertEqual([path.name for path in self.top.iterdir() if path.name.startswith(".")], [])

    async def test_a_backup_never_replaces_what_the_control_plane_uses(self) -> None:
        """--force replaces plain files only, and none of the state directory."""
        store = await self.young()
        (self.state / "ca.key").write_bytes(b"a key")
        (self.top / "link").symlink_to(self.top / "elsewhere")
        (self.top / "dangling").mkdir()
        os.mkfifo(self.top / "pipe")
        (self.top / "also").symlink_to(self.state)
        before = {path.name: path.stat().st_ino for path in self.state.iterdir()}
        ours = ("tashi.sqlite", "tashi.sqlite-wal", "tashi.sqlite-shm", "tashi.sqlite-journal")
        names = (*ours, "tashi.mark", "ca.key", "lock", "new")
        for directory in (self.state, self.top / "also", self.top / "dangling" / ".." / "state"):
            for name in names:
                said = self.db("backup", directory / name, "--force", code=1)
                self.assertIn("holds the control plane's own files", said)
        for name in ("link", "dangling", "pipe"):
            said = self.db("backup", self.top / name, "--force", code=1)
            self.assertIn("expected a new or a regular file", said)
        self.assertEqual({path.name: path.stat().st_ino for path in self.state.iterdir()}, before)
        await self.fill(store, 15, 15)

    async def test_a_backup_beside_a_database_elsewhere_never_replaces_it(self) -> None:
        """Where [SQL] uri names a file outside the state directory, that file and its log are safe, too."""
        conf = self.top / "state.conf" / "Tashi.cfg"
        conf.write_text(conf.read_text() + f"[SQL]\nuri = sqlite://{self.top}/records\n")
        self.state.mkdir()
        self.database = self.top / "records"
        await self.young()
        for name in ("records", "records-wal", "records-shm", "records-journal"):
            said = self.db("backup", self.top / name, "--force", code=1)
            self.assertIn("is a file of the database itself", said)
        self.assertIn("16 commits", self.db("backup", self.top / "records.monday"))

    async def test_a_backup_copied_by_hand_is_backed_up_again(self) -> None:
        """A backup that somebody put in place with cp is a database like any other; its old manifest and secrets go."""
        store = await self.young()
        (self.state / "ca.key").write_bytes(b"a key")
        self.db("backup", self.top / "file", "--with-secrets")
        await store.close()
        (self.top / "file").replace(self.database)
        self.assertIn("16 commits", self.db("backup", self.top / "again"))
        self.assertIn("secrets: none", self.db("check", self.top / "again"))

    async def test_a_restore_is_refused_while_a_control_plane_runs(self) -> None:
        """Two may not write; nothing is changed."""
        store = await self.young()
        self.db("backup", self.top / "file")
        held = lock(self.state)
        before = self.database.stat()
        self.assertIn(
            f"another control plane uses {self.state}; stop it", self.db("restore", self.top / "file", code=1)
        )
        self.assertIn(f"another control plane uses {self.state}; stop it", self.db("accept-loss", code=1))
        self.assertEqual(self.database.stat().st_ino, before.st_ino)
        held.close()
        await store.close()

    async def test_what_must_not_be_restored_is_refused(self) -> None:
        """A damaged file, text, another cell's backup, another program's database: words, and the database stays."""
        store = await self.young(OTHER_UUID)
        self.db("backup", self.top / "other")
        await store.close()
        self.use("mine")
        store = await self.young()
        self.db("backup", self.top / "good")
        await store.close()
        before = self.database.read_bytes(), self.marker.path.read_bytes()
        damaged = bytearray((self.top / "good").read_bytes())
        damaged[4096 * 2 : 4096 * 4] = bytes(4096 * 2)
        (self.top / "damaged").write_bytes(damaged)
        (self.top / "text").write_text("my notes\n" * 100)
        with sqlite3.connect(self.top / "foreign") as database:
            database.execute("CREATE TABLE music (id)")
        database.close()
        with sqlite3.connect(self.top / "rows") as database:
            (self.top / "rows").write_bytes((self.top / "good").read_bytes())
            database.execute("""UPDATE instances SET record = '{"id": 3' WHERE id = 3""")
        database.close()
        for name, words in (
            ("damaged", "is damaged, and nothing was restored"),
            ("text", "file is not a database"),
            ("foreign", "expected a database of Tashi, got another one"),
            ("rows", "table instances, key 3: expected a record of type Instance"),
            ("other", f"is of cell {OTHER_UUID}, and this state directory is of cell {CELL_UUID}"),
            ("nothing", "no such file"),
        ):
            self.assertIn(words, self.db("restore", self.top / name, code=1))
            self.assertEqual((self.database.read_bytes(), self.marker.path.read_bytes()), before, name)
        self.assertEqual(
            sorted(path.name for path in self.state.iterdir()),
            ["last-backup.json", "lock", "tashi.mark", "tashi.sqlite"],
        )

    async def test_a_restore_may_be_cut_short_anywhere(self) -> None:
        """After a crash in the middle the control plane refuses to start, and the same restore ends well."""
        from tashi.store import sqlite_backup

        store = await self.young()
        self.db("backup", self.top / "file")
        await self.fill(store, 15, 20)
        await store.close()
        for step in ("set_aside", "_settle", "seal_what_is_there"):
            real: Callable[..., Any] = getattr(sqlite_backup, step)

            def cut_short(*arguments: Any, real: Callable[..., Any] = real, step: str = step) -> Any:
                if step == "set_aside":
                    real(*arguments)
                raise OSError(5, "the power is cut", "disk")

            with self.monkeypatch.context() as patched:
                patched.setattr(sqlite_backup, step, cut_short)
                self.db("restore", self.top / "file", code=1)
            with self.assertRaisesRegex(Exception, "has lost records"):
                await self.open()
        self.db("restore", self.top / "file")
        _, tables = await self.open()
        self.assertEqual((len(tables["instances"]), self.loss_in(tables).numbers), (14, {"instance": 1000}))

    async def test_check_names_what_is_wrong(self) -> None:
        """Whole: ok and exit code 0. An older copy, a damaged row, a damaged page: named, and exit code 1."""
        store = await self.young()
        said = self.db("check")
        self.assertRegex(
            said, f"tashi.sqlite: cell {CELL_UUID}, 16 commits, schema [0-9]+, .* in the write-ahead log\nok\n"
        )
        await store.close()
        with sqlite3.connect(self.database) as database:
            database.execute("UPDATE instances SET record = 'x' WHERE id IN (3, 5)")
        database.close()
        said = self.db("check", code=1)
        self.assertIn("problem: table instances, key 3: expected a record of type Instance", said)
        self.assertIn("problem: table instances, key 5", said)
        self.assertIn("2 problems found", said)
        self.assertIn(
            "no backup was made: table instances, key 3", self.db("backup", self.top / "file", code=1)
        )
        self.marker.seal(Mark(cell=CELL_UUID, run="later", commits=99), 0)
        self.marker.close()
        self.assertIn("problem: expected at least 99 commits", self.db("check", code=1))

    async def test_accept_loss_makes_a_database_of_what_is_left(self) -> None:
        """Without a loss it is refused; with one the next start goes on with what is left; the next loss is refused."""
        store = await self.young()
        await store.close()
        self.assertIn("nothing is lost, just start", self.db("accept-loss", code=1))
        self.database.write_bytes(b"")
        said = self.db("accept-loss")
        self.assertIn(f"found an empty file {self.database}.\nKept for you to look at: ", said)
        store, tables = await self.open()
        self.assertEqual((tables["instances"], tables["settings"][CELL]), ({}, CELL_UUID))
        self.assertEqual(self.loss_in(tables).numbers, {"instance": 1000})
        await store.close()
        self.assertIn("nothing is lost, just start", self.db("accept-loss", code=1))
        self.database.write_bytes(b"")
        with self.assertRaisesRegex(Exception, "has lost records"):
            await self.open()

    async def test_accept_loss_drops_damaged_records(self) -> None:
        """A record that does not decode stops the start in words; accepted, all others are there."""
        store = await self.young()
        await store.close()
        with sqlite3.connect(self.database) as database:
            database.execute("UPDATE instances SET record = 'x' WHERE id IN (3, 5)")
        database.close()
        with self.assertRaisesRegex(Exception, "table instances, key 3: .*`tashi db accept-loss`, which drops them"):
            await self.open()
        self.assertIn("Accepted: damaged records: table instances, key 3", self.db("accept-loss"))
        _, tables = await self.open()
        self.assertEqual(sorted(set(range(1, 15)) - set(tables["instances"])), [3, 5])

    async def test_the_page_on_backups_works_to_the_letter(self) -> None:
        """D11: the commands of docs/backup.md, in their order, on a cell that loses its database; systemd is played by this test."""
        page = (Path(__file__).parents[2] / "docs/backup.md").read_text()
        blocks = re.findall(r"^```\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
        making, restoring, accepting = [
            block.strip().replace("/var/backups", str(self.top)).splitlines() for block in blocks
        ]
        store: SQLiteStore | None = await self.young()
        for line in (*making, *restoring, "lose the database", *accepting):
            program, *words = line.split()
            if line == "lose the database":
                await store.close()  # type: ignore[union-attr]
                self.database.write_bytes(b"")
            elif line == "systemctl stop tashi":
                await store.close()  # type: ignore[union-attr]
            elif line == "systemctl start tashi":
                store, tables = await self.open()
                self.assertEqual(self.loss_in(tables).numbers, {"instance": 1000})
                await store.commit([Change("settings", LOSS, None)])
            else:
                self.assertEqual((program, words[0]), ("tashi", "db"))
                self.db(*words[1:], code=1 if words[1:] == ["check"] else 0)
        self.assertEqual(len(accepting), 3)

    def test_the_help_names_every_verb(self) -> None:
        """`tashi db --help` ends with 0; without a verb it is wrong usage."""
        with pytest.raises(SystemExit) as ended:
            db_command.main(["--help"])
        self.assertEqual(ended.value.code, 0)
        said = self.capsys.readouterr().out
        self.assertTrue(all(verb in said for verb in ("backup", "restore", "check", "accept-loss")))
        with pytest.raises(SystemExit) as ended:
            db_command.main([])
        self.assertEqual(ended.value.code, 2)
