"""Opening an encrypted file: the pragmas are really in force, and nothing but the right key and a whole file is let in or touched."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path
from typing import Any

import apsw
import pytest

from fe_twisted.base import errors
from fe_twisted.storage.sqlite.connect import (
    PLAIN_HEADER,
    MissingFile,
    WrongKey,
    connect,
    header,
    in_snapshot,
    mapped,
    migrate,
    storage_errors,
)

KEY = bytes(range(32))
OTHER = bytes(32)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file that holds data: the -shm does not, nor does an empty WAL."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.name[-4:] != "-shm" and (path.name == "box" or path.stat().st_size)
    }


def filled(path: Path, rows: int = 200) -> None:
    connection = connect(path, key=KEY, create=True)
    connection.execute("CREATE TABLE note (text TEXT)")
    connection.executemany("INSERT INTO note VALUES (?)", [("needle in a haystack " * 50,)] * rows)
    connection.close()


@pytest.mark.parametrize("cipher", ["chacha20", "aegis"])
def test_pragmas_are_in_force(tmp_path: Path, cipher: str) -> None:
    """Each is asked of the file by a second connection, or of the connection itself."""
    connect(tmp_path / "box", key=KEY, cipher=cipher, create=True, page_size=8192).close()
    connection = connect(tmp_path / "box", key=KEY, cipher=cipher, cache_kib=1000)
    expected = {
        "cipher": cipher,
        "page_size": 8192,
        "auto_vacuum": 2,
        "journal_mode": "wal",
        "busy_timeout": 5000,
        "foreign_keys": 1,
        "encoding": "UTF-8",
        "secure_delete": 1,
        "cache_size": -1000,
        "temp_store": 2,
        "trusted_schema": 0,
        "synchronous": 2,
        "wal_autocheckpoint": 1000,
    }
    assert {name: connection.pragma(name) for name in expected} == expected
    assert connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, -1) == 1


def test_joins_are_planned_once(tmp_path: Path) -> None:
    """And not anew for every value that they are asked with."""
    connect(tmp_path / "box", key=KEY, create=True).close()
    connection = connect(tmp_path / "box", key=KEY)
    connection.execute("CREATE TABLE one(id INTEGER PRIMARY KEY, two); CREATE TABLE two(id INTEGER PRIMARY KEY, value)").fetchall()
    plans: list[str] = []
    connection.authorizer = lambda *about: plans.append(str(about)) or apsw.SQLITE_OK  # asked while a statement is planned
    for value in range(5):
        connection.execute("SELECT value FROM one JOIN two ON two.id = one.two WHERE one.id = ?", (value,)).fetchall()
        if value == 0:
            asked = len(plans)
    assert asked and len(plans) == asked


def test_incremental_vacuum_gives_space_back(tmp_path: Path) -> None:
    """auto_vacuum came before the first page was written, or this would do nothing."""
    filled(tmp_path / "box")
    connection = connect(tmp_path / "box", key=KEY)
    before = connection.pragma("page_count")
    connection.execute("DELETE FROM note")
    for _ in connection.execute("PRAGMA incremental_vacuum"):
        pass
    assert connection.pragma("page_count") < before / 4


def test_nothing_readable_on_disk(tmp_path: Path) -> None:
    filled(tmp_path / "box")
    connection = connect(tmp_path / "box", key=KEY)
    connection.execute("INSERT INTO note VALUES ('needle again')")  # so that there is a WAL too
    files = contents(tmp_path)
    assert set(files) == {"box", "box-wal"}
    for data in files.values():
        assert not data.startswith(PLAIN_HEADER)
        assert b"needle" not in data and b"CREATE TABLE" not in data


def test_files_are_for_the_owner_only(tmp_path: Path) -> None:
    connection = connect(tmp_path / "box", key=KEY, create=True)
    connection.execute("CREATE TABLE note (text TEXT)")
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "box": 0o600,
        "box-wal": 0o600,
        "box-shm": 0o600,
    }


def test_missing_file_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        connect(tmp_path / "box", key=KEY)
    with pytest.raises(MissingFile):
        connect(tmp_path / "box", key=KEY, readonly=True)
    assert not list(tmp_path.iterdir())


def test_wrong_key_changes_nothing(tmp_path: Path) -> None:
    filled(tmp_path / "box")
    before = contents(tmp_path)
    for key in (OTHER, KEY[::-1]):
        with pytest.raises(WrongKey):
            connect(tmp_path / "box", key=key)
    with pytest.raises(WrongKey):
        connect(tmp_path / "box", key=KEY, cipher="aegis")
    assert contents(tmp_path) == before
    assert connect(tmp_path / "box", key=KEY).execute("SELECT count(*) FROM note").get == 200


def test_wrong_key_leaves_the_wal_of_a_crash(tmp_path: Path) -> None:
    """A WAL that a crash left holds acknowledged mail: opening with a wrong key must neither apply nor drop it."""
    filled(tmp_path / "box")
    connection = connect(tmp_path / "box", key=KEY)
    connection.execute("INSERT INTO note VALUES ('last')")
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(tmp_path / f"box{suffix}", crashed / f"box{suffix}")
    connection.close()
    before = contents(crashed)
    with pytest.raises(WrongKey):
        connect(crashed / "box", key=OTHER)
    assert contents(crashed) == before
    assert connect(crashed / "box", key=KEY).execute("SELECT count(*) FROM note").get == 201


def damaged(kind: str, data: bytes) -> bytes:
    return {
        "zeros": bytes(len(data)),
        "empty": b"",
        "cut within a page": data[:6000],
        "cut to one page": data[:4096],
        "cut within the header": data[:50],
        "text": b"From: somebody\r\n\r\nhello\r\n" * 1000,
    }[kind]


@pytest.mark.parametrize("kind", ["zeros", "empty", "cut within a page", "cut to one page", "cut within the header", "text"])
def test_damaged_file_is_refused_and_left_as_it_is(tmp_path: Path, kind: str) -> None:
    filled(tmp_path / "box")
    (tmp_path / "box").write_bytes(damaged(kind, (tmp_path / "box").read_bytes()))
    before = contents(tmp_path)
    with pytest.raises(errors.DamagedFile) as caught:
        connect(tmp_path / "box", key=KEY)
    assert not isinstance(caught.value, WrongKey)
    assert str(tmp_path) not in str(caught.value), "the public text names no path"
    assert contents(tmp_path) == before


def test_plaintext_database_is_refused(tmp_path: Path) -> None:
    plain = apsw.Connection(str(tmp_path / "box"))
    plain.execute("CREATE TABLE note (text TEXT)")
    plain.close()
    before = contents(tmp_path)
    with pytest.raises(errors.DamagedFile):
        connect(tmp_path / "box", key=KEY)
    assert contents(tmp_path) == before


def test_an_altered_page_is_noticed(tmp_path: Path) -> None:
    """Each page has a MAC: one changed bit in the middle is an error, not other text."""
    filled(tmp_path / "box")
    data = bytearray((tmp_path / "box").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "box").write_bytes(data)
    connection = connect(tmp_path / "box", key=KEY)
    with pytest.raises(errors.DamagedFile), storage_errors(connection):
        connection.execute("SELECT max(text) FROM note").fetchall()


def test_header_can_be_read_without_losing_locks(tmp_path: Path) -> None:
    """Another process must not be able to take the WAL away after :func:`header` looked at an open file."""
    filled(tmp_path / "box")
    connection = connect(tmp_path / "box", key=KEY)
    connection.execute("INSERT INTO note VALUES ('held')")
    assert header(str(tmp_path / "box"))[16:18] == b"\x10\x00"  # page size 4096
    child = os.fork()
    if not child:  # a process of its own, for POSIX locks belong to processes
        status = 1
        try:
            other = apsw.Connection(str(tmp_path / "box"), flags=apsw.SQLITE_OPEN_READWRITE)
            other.execute("PRAGMA cipher = 'chacha20'").fetchall()
            other.execute(f"PRAGMA key = 'raw:{KEY.hex()}'").fetchall()
            other.execute("SELECT count(*) FROM note").fetchall()
            other.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert (tmp_path / "box-wal").exists()
    assert connection.execute("SELECT count(*) FROM note").get == 201


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33)])
def test_key_size(tmp_path: Path, key: bytes) -> None:
    with pytest.raises(ValueError, match="32 octets"):
        connect(tmp_path / "box", key=key, create=True)
    assert not list(tmp_path.iterdir())


def test_cipher_without_a_mac_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cipher"):
        connect(tmp_path / "box", key=KEY, cipher="aes256cbc", create=True)


def test_readonly_cannot_write(tmp_path: Path) -> None:
    filled(tmp_path / "box")
    connection = connect(tmp_path / "box", key=KEY, readonly=True)
    assert connection.execute("SELECT count(*) FROM note").get == 200
    with pytest.raises(errors.StorageFailed), storage_errors(connection):
        connection.execute("DELETE FROM note")


# -- migrations -----------------------------------------------------------------------------------


def more(connection: apsw.Connection) -> None:
    connection.execute("INSERT INTO b SELECT x + 10 FROM b")


def test_migrations_go_forward_one_by_one(tmp_path: Path) -> None:
    connection = connect(tmp_path / "box", key=KEY, create=True)
    first = "CREATE TABLE a (x); CREATE TABLE b (x); INSERT INTO a VALUES (1); SELECT * FROM a; INSERT INTO b VALUES (2)"
    assert migrate(connection, [first]) == 1
    assert migrate(connection, [first, more]) == 1
    assert migrate(connection, [first, "never run again"]) == 0
    assert connection.execute("SELECT x FROM b ORDER BY x").fetchall() == [(2,), (12,)]
    assert connection.pragma("user_version") == 2


def test_failed_migration_leaves_the_version_before(tmp_path: Path) -> None:
    connection = connect(tmp_path / "box", key=KEY, create=True)
    with pytest.raises(errors.StorageFailed):
        migrate(connection, ["CREATE TABLE a (x)", "CREATE TABLE b (x); CREATE TABLE a (x)"])
    assert connection.pragma("user_version") == 1
    assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("a",)]
    assert not connection.in_transaction


def test_newer_file_is_refused(tmp_path: Path) -> None:
    connection = connect(tmp_path / "box", key=KEY, create=True)
    migrate(connection, ["CREATE TABLE a (x)", "CREATE TABLE b (x)"])
    with pytest.raises(errors.NewerFile):
        migrate(connection, ["CREATE TABLE a (x)"])


def test_two_connections_migrate_at_once(tmp_path: Path) -> None:
    """The step is done once: who comes second finds it done."""
    one = connect(tmp_path / "box", key=KEY, create=True)
    two = connect(tmp_path / "box", key=KEY)
    done = []

    def step(connection: apsw.Connection) -> None:
        connection.execute("CREATE TABLE a (x)")
        done.append(connection)

    assert migrate(one, [step]) == 1
    assert migrate(two, [step]) == 0
    assert done == [one]


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (apsw.FullError("full"), errors.DiskFull),
        (apsw.BusyError("busy"), errors.Busy),
        (apsw.LockedError("locked"), errors.Busy),
        (apsw.ProtocolError("locking protocol"), errors.Busy),
        (apsw.CorruptError("corrupt"), errors.DamagedFile),
        (apsw.NotADBError("not"), errors.DamagedFile),
        (apsw.ConnectionClosedError("closed"), errors.Later),
        (apsw.SQLError("no such table: secret"), errors.StorageFailed),
        (OSError(errno.ENOSPC, "full"), errors.DiskFull),
        (OSError(errno.EIO, "broken"), errors.StorageFailed),
    ],
)
def test_errors_are_mapped(error: Exception, ours: type[errors.MailError]) -> None:
    found = mapped(error)
    assert type(found) is ours
    assert str(found) == ours.default, "the public text tells no detail"
    assert str(error) in found.reason


def test_other_exceptions_pass() -> None:
    with pytest.raises(KeyError), storage_errors():
        raise KeyError("x")


def test_a_snapshot_ends_whatever_happens(tmp_path: Path) -> None:
    """Else every later question would be answered from it."""
    with contextlib.closing(connect(tmp_path / "box", key=KEY, create=True)) as connection:
        with pytest.raises(ZeroDivisionError):
            in_snapshot(connection, lambda: 1 / 0)
        assert not connection.in_transaction

        def trace(cursor: apsw.Cursor, sql: str, bindings: Any) -> bool:
            if sql == "COMMIT":
                raise apsw.CorruptError
            return True

        connection.exec_trace = trace
        with pytest.raises(apsw.CorruptError):
            in_snapshot(connection, lambda: connection.execute("SELECT 1").get)
        assert not connection.in_transaction
