"""What every store keeps, run for each of them."""

from __future__ import annotations

import sqlite3
from importlib import resources
from typing import Any

import msgspec
from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from tashi.errors import OurFault
from tashi.interfaces import Change, IStore
from tashi.model.disks import DiskRecord
from tashi.model.states import InstanceState
from tashi.store.memory import MemoryStore
from tashi.store.sqlite import SCHEMA_VERSION, SQLiteStore
from tashi.store.tables import RECORDS
from tests.builders import USERS, a_host, an_instance


class StoreContract:
    """`tashi.interfaces.IStore`: a store gives `make`, and `reopened` for the same rows in another life."""

    def make(self) -> IStore:
        raise NotImplementedError

    async def reopened(self, store: IStore) -> IStore:
        """The store as the next process finds it."""
        raise NotImplementedError

    async def damage(self, store: IStore, table: str, key: int) -> None:
        """Make the text of this row another's."""
        raise NotImplementedError

    async def test_a_new_store_has_every_table_and_nothing_in_it(self) -> None:
        """All tables are there from the start, empty."""
        store = self.make()
        self.assertEqual(await store.load(), {table: {} for table in RECORDS})

    async def test_what_is_written_is_read(self) -> None:
        """Records of every kind come back as they were, under the keys they had."""
        store = self.make()
        await store.load()
        instance = an_instance(7, "wéb\U0001f427'; --", host_id=1, hints={"a": "b"}, resource_id="r")
        changes = [
            Change("instances", 7, instance),
            Change("hosts", 1, a_host()),
            Change("users", 1000, USERS[0]),
            Change("counters", "instance", 7),
            Change("settings", "cell", "some text"),
            Change("disks", "disk-7-web-0.img", DiskRecord(name="disk-7-web-0.img", user_id=1000, instance_id=7)),
        ]
        await store.commit(changes)
        for _ in range(2):
            tables = await store.load()
            self.assertEqual({table: dict(rows) for table, rows in tables.items() if rows}, {c.table: {c.key: c.record} for c in changes})
            store = await self.reopened(store)

    async def test_the_last_write_of_a_batch_wins(self) -> None:
        """Within one batch the newest word on a row is the word."""
        store = self.make()
        await store.load()
        await store.commit([Change("hosts", 1, a_host(notes="old")), Change("hosts", 2, a_host(2)), Change("hosts", 3, None)])
        await store.commit(
            [
                Change("hosts", 1, a_host(notes="older")),
                Change("hosts", 1, a_host(notes="new")),
                Change("hosts", 2, a_host(2, notes="changed")),
                Change("hosts", 2, None),
                Change("hosts", 3, None),
                Change("hosts", 3, a_host(3)),
            ]
        )
        hosts = (await (await self.reopened(store)).load())["hosts"]
        self.assertEqual({number: host.notes for number, host in hosts.items()}, {1: "new", 3: ""})

    async def test_records_come_in_the_order_of_their_ids(self) -> None:
        """The outbox, above all, is read oldest first."""
        store = self.make()
        await store.load()
        await store.commit([Change("instances", number, an_instance(number)) for number in (3, 1, 20)])
        await store.commit([Change("instances", number, an_instance(number)) for number in (10, 2)])
        self.assertEqual(list((await (await self.reopened(store)).load())["instances"]), [1, 2, 3, 10, 20])

    async def test_counters_outlive_what_they_count(self) -> None:
        """A number given out is known to be, when what it was given to is gone."""
        store = self.make()
        await store.load()
        await store.commit([Change("counters", "instance", 7), Change("instances", 7, an_instance(7))])
        await store.commit([Change("instances", 7, None)])
        tables = await (await self.reopened(store)).load()
        self.assertEqual((tables["instances"], tables["counters"]), ({}, {"instance": 7}))

    async def test_history_is_found_and_not_loaded(self) -> None:
        """The store finds a gone instance by its id, its sender's resourceId or its name, the newest of several, and never loads it."""
        store = self.make()
        await store.load()
        gone = [
            an_instance(number, name, resource_id=key, owner_jid=sender, user_id=owner, state=InstanceState.Exited)
            for number, name, key, sender, owner in (
                (1, "web", "r1", "ism@a", 1000),
                (2, "web", "r2", "ism@a", 1001),
                (12, "web", None, None, 1000),
                (3, "db", "r1", "ism@a", 1000),
                (4, "db", "r1", "bob@a", 1001),
            )
        ]
        await store.commit([Change("history", instance.id, instance) for instance in gone])
        for _ in range(2):
            self.assertEqual({table: rows for table, rows in (await store.load()).items() if rows}, {})
            self.assertEqual(await store.find_gone(instance_id=2), gone[1])
            self.assertEqual(await store.find_gone(key=("ism@a", "r1")), gone[3])
            self.assertEqual(await store.find_gone(key=("bob@a", "r1")), gone[4])
            self.assertEqual(await store.find_gone(name="web"), gone[2])
            self.assertEqual(await store.find_gone(name="web", user_id=1001), gone[1])
            for nothing in (
                {"instance_id": 9}, {"key": ("bob@a", "r2")}, {"key": ("ism@a", "web")}, {"name": "r1"}, {"name": "' OR 1=1 --"},
                {"name": "w%"}, {"name": "web", "user_id": 7}, {},
            ):  # fmt: skip
                self.assertIsNone(await store.find_gone(**nothing))
            store = await self.reopened(store)

    async def test_commits_are_carried_out_in_their_order(self) -> None:
        """Commits that are begun together end as if one had followed the other."""
        store = self.make()
        await store.load()
        for commit in [store.commit([Change("counters", "instance", number)]) for number in range(20)]:
            await commit
        self.assertEqual((await store.load())["counters"], {"instance": 19})

    async def test_a_mark_is_contained_until_its_commit_is_lost(self) -> None:
        """Every mark that was told is among the records, in this life and in the next; one of commits that were never made is not."""
        store = self.make()
        await store.load()
        marks = [store.mark()]
        for number in range(3):
            await store.commit([Change("counters", "instance", number), Change("settings", "cell", "c")])
            marks.append(store.mark())
        self.assertEqual([mark.commits - marks[0].commits for mark in marks], [0, 1, 2, 3])
        self.assertEqual((marks[-1].cell, marks[-1].numbers["instance"]), ("c", 1000))
        store = await self.reopened(store)
        await store.load()
        last = marks[-1]
        self.assertEqual([store.contains(mark) for mark in (*marks, store.mark())], [True] * 5)
        self.assertFalse(store.contains(msgspec.structs.replace(last, commits=last.commits + 1)))
        self.assertFalse(store.contains(msgspec.structs.replace(last, run="another")))

    async def test_a_record_that_cannot_be_decoded_is_named(self) -> None:
        """Damaged text in a row is one error with the table, the key and what to do."""
        store = self.make()
        await store.load()
        await store.commit([Change("instances", 7, an_instance(7)), Change("history", 8, an_instance(8, "gone"))])
        await self.damage(store, "instances", 7)
        await self.damage(store, "history", 8)
        with self.assertRaisesRegex(OurFault, "table instances, key 7: expected a record of type Instance.*tashi db restore FILE"):
            await store.load()
        with self.assertRaisesRegex(OurFault, "table history, key .*: expected a record of type Instance.*tashi db check"):
            await store.find_gone(name="gone")

    async def test_ten_thousand_rows_are_one_commit(self) -> None:
        """A large batch is written and read whole."""
        store = self.make()
        await store.load()
        await store.commit([Change("instances", number, an_instance(number)) for number in range(10_000)])
        self.assertEqual(len((await (await self.reopened(store)).load())["instances"]), 10_000)


class MemoryStoreTest(StoreContract, TestCase):
    """The store that forgets with its process; the next life of one is itself."""

    def make(self) -> IStore:
        return MemoryStore()

    async def reopened(self, store: IStore) -> IStore:
        return store

    async def damage(self, store: IStore, table: str, key: int) -> None:
        assert isinstance(store, MemoryStore)
        store.rows[table][key] = '{"id": 7, "name": 8}'


class SQLiteStoreTest(StoreContract, TestCase):
    """The embedded store, in a file."""

    timeout = 20

    def setUp(self) -> None:
        self.path = self.mktemp()

    def make(self) -> IStore:
        store = SQLiteStore(reactor, self.path)
        self.addCleanup(store.close)
        return store

    async def reopened(self, store: IStore) -> IStore:
        await store.close()
        return self.make()

    async def damage(self, store: IStore, table: str, key: int) -> None:
        self.rows(f"""UPDATE {table} SET record = '{{"id": 7, "name"' WHERE id = {key}""")

    def rows(self, statement: str) -> list[Any]:
        """What another program finds in the file."""
        connection = sqlite3.connect(self.path)
        with connection:
            found = connection.execute(statement).fetchall()
        connection.close()
        return found

    async def test_a_commit_is_on_the_disk_when_it_is_told(self) -> None:
        """Another process finds what was committed without this one having closed the file."""
        store = self.make()
        await store.load()
        await store.commit([Change("counters", "instance", 7)])
        self.assertEqual(self.rows("SELECT id, record FROM counters"), [("instance", "7")])

    async def test_a_batch_is_written_whole_or_not_at_all(self) -> None:
        """A commit that fails in its middle leaves nothing of itself, and the store works on."""
        store = self.make()
        await store.load()
        with self.assertRaises(KeyError):
            await store.commit([Change("counters", "instance", 7), Change("no such table", 1, a_host())])
        self.rows("CREATE TRIGGER full BEFORE INSERT ON hosts BEGIN SELECT RAISE(FAIL, 'disk full'); END")
        with self.assertRaises(sqlite3.Error):
            await store.commit([Change("counters", "instance", 8), Change("hosts", 1, a_host())])
        self.assertEqual((await store.load())["counters"], {})
        self.rows("DROP TRIGGER full")
        await store.commit([Change("counters", "instance", 9), Change("hosts", 1, a_host())])
        self.assertEqual((await store.load())["counters"], {"instance": 9})

    async def test_the_log_is_written_ahead_and_synchronously(self) -> None:
        """What was answered survives a power cut."""
        store = self.make()
        await store.load()
        pragmas = {}
        for name in ("journal_mode", "synchronous"):
            rows = await store._pool.runQuery(f"PRAGMA {name}")
            pragmas[name] = rows[0][0]
        self.assertEqual(pragmas, {"journal_mode": "wal", "synchronous": 2})

    async def test_a_newer_schema_is_refused_in_words(self) -> None:
        """A file of a newer program is left as it is, and the error says what to do."""
        await self.make().load()
        self.rows(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        with self.assertRaisesRegex(OurFault, f"has schema version {SCHEMA_VERSION + 1}.*a newer Tashi wrote it; start that one"):
            await self.make().load()
        self.assertEqual(self.rows("PRAGMA user_version"), [(SCHEMA_VERSION + 1,)])

    async def test_a_file_of_the_first_version_is_kept(self) -> None:
        """A database that an older program made opens with its rows, and has room for the owners of disks."""
        first = resources.files("tashi.store").joinpath("schema/0001.sql").read_text()
        connection = sqlite3.connect(self.path)
        connection.executescript(f"{first}; INSERT INTO counters VALUES ('instance', '7'); PRAGMA user_version = 1")
        connection.close()
        tables = await self.make().load()
        self.assertEqual((tables["counters"], tables["disks"]), ({"instance": 7}, {}))

    async def test_what_is_no_database_is_not_overwritten(self) -> None:
        """A file that is something else is an error, and stays what it is."""
        with open(self.path, "w") as file:
            file.write("not a database, but somebody's letter\n" * 100)
        with self.assertRaisesRegex(OurFault, "cannot be used: file is not a database"):
            await self.make().load()
        with open(self.path) as file:
            self.assertTrue(file.read().startswith("not a database"))
