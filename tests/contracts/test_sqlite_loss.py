"""A SQLite store whose records are missing, older, damaged or another cell's does not open, and says so (A9, D11).

What a killed control plane leaves is made by copying the files of an open store.
"""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from tashi.errors import OurFault
from tashi.interfaces import Change
from tashi.model.marks import CELL, LOSS, Loss
from tashi.store.marker import Marker
from tashi.store.sqlite import SQLiteStore
from tashi.store.sqlite_file import State, examine, log_of, with_companions
from tests.builders import an_instance

CELL_UUID = "11111111-1111-4111-8111-111111111111"
OTHER_UUID = "22222222-2222-4222-8222-222222222222"
COMMITS = 20


class Directory:
    """A state directory."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True)
        self.path = path
        self.database = path / "tashi.sqlite"
        self.marker = Marker(path / "tashi.mark")

    def copied_to(self, other: Path) -> Directory:
        """What another process would find here now."""
        copy = Directory(other)
        # by another process: closing a file here would end the locks that SQLite holds on it
        subprocess.run(["cp", "-a", f"{self.path}/.", str(copy.path)], check=True)
        return copy

    def files(self) -> dict[str, bytes]:
        """The content of the database files and the marker."""
        paths = (*with_companions(self.database)[:2], self.marker.path)
        return {path.name: path.read_bytes() for path in paths if path.exists()}


def delete_log(here: Directory) -> None:
    log_of(here.database).unlink()


def zero_log(here: Directory) -> None:
    log_of(here.database).write_bytes(bytes(log_of(here.database).stat().st_size))


def damage_log(here: Directory) -> None:
    with log_of(here.database).open("r+b") as file:
        file.seek(log_of(here.database).stat().st_size // 2)
        file.write(b"damage")


def cut_log(here: Directory) -> None:
    with log_of(here.database).open("r+b") as file:
        file.truncate(log_of(here.database).stat().st_size - 100)


def empty(here: Directory) -> None:
    here.database.write_bytes(b"")


def zero(here: Directory) -> None:
    here.database.write_bytes(bytes(here.database.stat().st_size))


def remove(here: Directory) -> None:
    here.database.unlink()


def replace_by_text(here: Directory) -> None:
    here.database.write_text("my notes\n" * 1000)


LOSSES: dict[str, tuple[Callable[[Directory], None], str]] = {
    "the log is deleted": (delete_log, "found 0 commits"),
    "the log is zeroed": (zero_log, "found 0 commits"),
    "the log is damaged": (damage_log, "found [0-9]+ commits"),
    "the log is cut by one frame": (cut_log, f"found {COMMITS + 1} commits"),
    "the file is empty": (empty, "found an empty file"),
    "the file is zeroed": (zero, "found no SQLite database"),
    "the file is missing": (remove, "found no file"),
    "the file is something else": (replace_by_text, "found no SQLite database"),
}


class LossTest(TestCase):
    """One store that is killed, and what the next start finds."""

    timeout = 60

    def setUp(self) -> None:
        self.top = Path(self.mktemp())
        self.warnings: list[str] = []

    def make(self, here: Directory, **options: Any) -> SQLiteStore:
        store = SQLiteStore(reactor, str(here.database), here.marker.path, **options)
        self.addCleanup(store.close)
        return store

    async def young(
        self, name: str = "young", cell: str = CELL_UUID, commits: int = COMMITS
    ) -> tuple[SQLiteStore, Directory]:
        """An open store in which everything is in the write-ahead log."""
        here = Directory(self.top / name)
        store = self.make(here)
        await store.load()
        await self.fill(store, cell, range(1, commits + 1))
        return store, here

    async def fill(self, store: SQLiteStore, cell: str, numbers: range) -> None:
        await store.commit([Change("settings", CELL, cell)]) if numbers.start == 1 else None
        for number in numbers:
            await store.commit(
                [Change("instances", number, an_instance(number)), Change("counters", "instance", number)]
            )

    async def killed(self, name: str = "killed") -> Directory:
        """The state directory of a young cell whose control plane was killed."""
        store, here = await self.young(f"{name}-original")
        copy = here.copied_to(self.top / name)
        await store.close()
        return copy

    async def refused(self, here: Directory, words: str) -> None:
        """A start fails with these words and leaves every file as it is."""
        before = here.files()
        with self.assertRaisesRegex(
            OurFault,
            f"(lost records|not this cell's): .*{words}.*tashi db restore FILE.*tashi db accept-loss",
        ):
            await self.make(here).load()
        self.assertEqual(here.files(), before)

    def loss_in(self, tables: Any) -> Loss:
        return msgspec.json.decode(tables["settings"][LOSS], type=Loss)

    async def test_a_killed_control_plane_has_lost_nothing(self) -> None:
        """With everything in the log and the files as they are, the next start finds every commit."""
        tables = await self.make(await self.killed()).load()
        self.assertEqual((len(tables["instances"]), LOSS in tables["settings"]), (COMMITS, False))

    async def test_a_loss_is_refused_until_it_is_accepted_and_that_once(self) -> None:
        """A9: each kind of loss stops the start with words; accepted, the cell begins above its old numbers with what the
        log or the file still have; a later start is as usual, and a later loss is refused."""
        for number, (title, (damage, words)) in enumerate(LOSSES.items()):
            here = await self.killed(f"killed{number}")
            damage(here)
            await self.refused(here, words)
            await self.refused(here, words)
            store = self.make(here, accept_loss=True)
            tables = await store.load()
            left = (
                COMMITS
                if damage in (zero, remove, replace_by_text, empty)
                else 0
                if damage in (delete_log, zero_log)
                else None
            )
            self.assertIn(len(tables["instances"]), range(COMMITS) if left is None else [left], title)
            self.assertEqual(tables["settings"][CELL], CELL_UUID, title)
            self.assertEqual(self.loss_in(tables).numbers, {"instance": 1000}, title)
            self.assertRegex(
                self.loss_in(tables).reason,
                f"expected at least {COMMITS + 2} commits of cell {CELL_UUID}.*{words}",
            )
            await store.commit([Change("settings", LOSS, None)])
            await store.close()
            store = self.make(here)
            self.assertNotIn(LOSS, (await store.load())["settings"], title)
            await store.close()
            zero(here)
            await self.refused(here, "found no SQLite database")

    async def test_damaged_files_are_kept(self) -> None:
        """What an operator accepted to lose is set aside, not deleted."""
        here = await self.killed()
        zero(here)
        log = log_of(here.database).read_bytes()
        await self.make(here, accept_loss=True).load()
        kept = {path.name.split(".lost-")[0]: path.read_bytes() for path in here.path.glob("*.lost-*")}
        self.assertEqual((set(kept["tashi.sqlite"]), kept["tashi.sqlite-wal"]), ({0}, log))

    async def test_an_older_copy_is_refused(self) -> None:
        """A copy that was made some commits ago, with its own log, is noticed."""
        store, here = await self.young()
        old = here.copied_to(self.top / "old")
        await self.fill(store, CELL_UUID, range(COMMITS + 1, COMMITS + 5))
        await store.close()
        for file in (here.database, log_of(here.database)):
            file.unlink(missing_ok=True)
        for file in with_companions(old.database)[:2]:
            (here.path / file.name).write_bytes(file.read_bytes())
        await self.refused(here, f"found {COMMITS + 2} commits: an older copy")

    async def test_d11_an_older_copy_beside_a_newer_log_is_refused(self) -> None:
        """D11: SQLite would apply the newer log to the older file without a word."""
        store, here = await self.young()
        await store.close()
        old = here.database.read_bytes()
        store = self.make(here)
        await store.load()
        await self.fill(store, CELL_UUID, range(30, 40))
        await store._pool.runWithConnection(store._write_back)
        await self.fill(store, CELL_UUID, range(40, 50))
        killed = here.copied_to(self.top / "killed")
        await store.close()
        killed.database.write_bytes(old)
        await self.refused(
            killed,
            f"found a database file with {COMMITS + 2} commits beside a write-ahead log that is not its own",
        )
        tables = await self.make(killed, accept_loss=True).load()
        self.assertEqual(sorted(tables["instances"]), list(range(1, COMMITS + 1)), "the log was not applied")

    async def test_d11_an_older_log_beside_a_newer_file_is_refused(self) -> None:
        """D11: the log of an earlier day, put back beside the file, would hide what is newer."""
        store, here = await self.young()
        old_log = here.copied_to(self.top / "old")
        await self.fill(store, CELL_UUID, range(COMMITS + 1, COMMITS + 10))
        await store.close()
        log_of(here.database).write_bytes(log_of(old_log.database).read_bytes())
        await self.refused(here, "write-ahead log that is not its own")
        tables = await self.make(here, accept_loss=True).load()
        self.assertEqual(len(tables["instances"]), COMMITS + 9, "nothing was lost but the foreign log")

    async def test_a_copy_that_went_another_way_is_refused(self) -> None:
        """A copy on which another control plane worked is not this database, however many commits it has."""
        store, here = await self.young()
        other = here.copied_to(self.top / "other")
        await self.fill(store, CELL_UUID, range(30, 33))
        await store.close()
        elsewhere = self.make(other)
        await elsewhere.load()
        await self.fill(elsewhere, CELL_UUID, range(30, 60))
        await elsewhere.close()
        here.database.write_bytes(other.database.read_bytes())
        await self.refused(here, "an older copy, or a lost or damaged write-ahead log")

    async def test_another_cell_s_database_is_never_accepted(self) -> None:
        """The records of another cell are refused, with and without --accept-loss."""
        store, here = await self.young()
        await store.close()
        store, other = await self.young("other", OTHER_UUID)
        await store.close()
        here.database.write_bytes(other.database.read_bytes())
        await self.refused(here, f"found the database of cell {OTHER_UUID}")
        with self.assertRaisesRegex(OurFault, "a database of another cell is never accepted"):
            await self.make(here, accept_loss=True).load()

    async def test_a_missing_or_damaged_marker_is_refused(self) -> None:
        """A database that had a marker is not believed without it: it may be a copy of any age."""
        for damage, words in (
            (Path.unlink, "is missing"),
            (lambda path: path.write_bytes(bytes(200)), "is damaged"),
        ):
            store, here = await self.young(words.split()[-1])
            await store.close()
            damage(here.marker.path)
            await self.refused(here, words)
            tables = await self.make(here, accept_loss=True).load()
            self.assertEqual(len(tables["instances"]), COMMITS)
            self.assertGreaterEqual(self.loss_in(tables).numbers["instance"], COMMITS + 1000)

    async def test_an_older_installation_gets_a_marker(self) -> None:
        """A database of the version before markers is opened without questions, and is marked from then on."""
        store, here = await self.young()
        await store.close()
        rows = here.path / "rows.sqlite"
        here.database.rename(rows)
        first = resources.files("tashi.store").joinpath("schema/0001.sql").read_text()
        with sqlite3.connect(here.database) as database:
            database.executescript(f"BEGIN; {first}; PRAGMA user_version = 1; COMMIT;")
            database.execute("ATTACH ? AS new", (str(rows),))
            for table in ("instances", "counters", "settings"):
                database.execute(f"INSERT INTO {table} SELECT * FROM new.{table}")
        database.close()
        here.marker.path.unlink()
        store = self.make(here)
        self.assertEqual(len((await store.load())["instances"]), COMMITS)
        await store.close()
        expected = here.marker.read()
        assert expected is not None
        self.assertEqual((expected.mark.cell, expected.mark.numbers), (CELL_UUID, {"instance": 1000}))
        empty(here)
        await self.refused(here, "found an empty file")

    async def test_a_first_start_that_is_cut_short_is_no_loss(self) -> None:
        """A marker that expects nothing, and no database or half of one: a new cell."""
        for name in ("nothing", "half"):
            here = Directory(self.top / name)
            store = self.make(here)
            store._examine()
            if name == "half":
                with sqlite3.connect(here.database) as database:
                    database.execute("CREATE TABLE instances (id)")
                database.close()
                here.database.write_bytes(b"")
            await store.close()
            self.assertEqual((await self.make(here).load())["instances"], {})

    async def test_what_can_be_read_of_a_damaged_file_is_kept(self) -> None:
        """With a page destroyed in the middle of a file, the records of all others are there after --accept-loss."""
        store, here = await self.young(commits=400)
        await store.close()
        content = bytearray(here.database.read_bytes())
        leaves = [page for page in range(1, len(content) // 4096) if content[page * 4096] == 13]
        middle = leaves[len(leaves) // 2]
        content[middle * 4096 : middle * 4096 + 4096] = bytes(4096)
        here.database.write_bytes(content)
        await self.refused(here, "found a damaged database: ")
        tables = await self.make(here, accept_loss=True).load()
        self.assertGreater(len(tables["instances"]), 350)
        self.assertLess(len(tables["instances"]), 400)
        self.assertEqual(
            (tables["settings"][CELL], self.loss_in(tables).numbers), (CELL_UUID, {"instance": 1000})
        )

    async def test_the_marker_is_never_ahead_and_never_far_behind(self) -> None:
        """After each commit the marker names it, and the numbers in it are reserved before."""
        store, here = await self.young(commits=3)
        await store.commit([Change("counters", "instance", 999), Change("counters", "event", 5)])
        expected = here.marker.read()
        assert expected is not None
        self.assertEqual(
            (expected.mark.commits, expected.mark.numbers),
            (store.mark().commits, {"instance": 1000, "event": 100_000}),
        )
        await store.commit([Change("counters", "instance", 1001)])
        expected = here.marker.read()
        assert expected is not None
        self.assertEqual(
            (expected.mark.commits, expected.mark.numbers["instance"]), (store.mark().commits, 2000)
        )
        self.assertEqual(examine(here.copied_to(self.top / "now").database, here.marker).state, State.WHOLE)

    async def test_a_commit_whose_numbers_cannot_be_reserved_is_not_made(self) -> None:
        """With no room for the marker nothing is told, and the next try begins anew."""
        store, here = await self.young(commits=3)
        assert store._marker is not None
        seal, store._marker.seal = store._marker.seal, _no_room  # type: ignore[method-assign]
        with self.assertRaisesRegex(OurFault, "the marker of .* cannot be written: .*No space left"):
            await store.commit([Change("counters", "instance", 5000)])
        store._marker.seal = seal  # type: ignore[method-assign]
        await store.commit([Change("counters", "instance", 5000)])
        expected = here.marker.read()
        assert expected is not None
        self.assertEqual(expected.mark.numbers["instance"], 6000)

    async def test_nothing_is_committed_to_a_file_that_was_taken_away(self) -> None:
        """The database or its log is removed or replaced in use: no commit is told until it is back."""
        store, here = await self.young(commits=3)
        for file in (here.database, log_of(here.database)):
            for replaced in (False, True):
                aside = file.with_name(f"{file.name}.aside")
                file.rename(aside)
                if replaced:
                    subprocess.run(["cp", "-a", str(aside), str(file)], check=True)
                with self.assertRaisesRegex(OurFault, f"{file.name} was replaced or removed .*; put it back"):
                    await store.commit([Change("instances", 4, an_instance(4))])
                aside.rename(file)
                await store.commit([Change("instances", 4, an_instance(4))])
        self.assertEqual(store.mark().commits, 9)

    async def test_a_checkpoint_bounds_the_log(self) -> None:
        """What was committed is in the file itself after a checkpoint, and closing leaves no log."""
        store, here = await self.young()
        await store._pool.runWithConnection(store._write_back)
        copy = here.copied_to(self.top / "copy")
        log_of(copy.database).unlink()
        expected = here.marker.read()
        assert expected is not None
        self.assertEqual(expected.checkpointed, COMMITS + 2)
        self.assertEqual(
            len((await self.make(copy).load())["instances"]), COMMITS, "nothing was lost with the log"
        )
        await store.close()
        self.assertFalse(log_of(here.database).exists())


def _no_room(*ignored: object) -> None:
    raise OSError(28, "No space left on device")
