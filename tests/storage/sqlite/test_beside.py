"""Reading a file that another process writes: every commit is seen at once, whatever becomes of that process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from fe_twisted.base import errors
from fe_twisted.storage.sqlite.connect import MissingFile, NotOpen, WrongKey, connect_beside, storage_errors
from tests.storage.sqlite.holder import KEY, Holder, prepare


@pytest.fixture
def path(tmp_path: Path) -> Path:
    # What has a meaning in the URI that the name becomes a part of.
    folder = tmp_path / "50% of #1?mode=rwc"
    folder.mkdir()
    prepare(folder / "box")
    return folder / "box"


@pytest.fixture
def writer(path: Path) -> Iterator[Holder]:
    holder = Holder(path)
    yield holder
    holder.kill()


@contextlib.contextmanager
def reading(path: Path) -> Iterator[apsw.Connection]:
    connection = connect_beside(path, key=KEY)
    try:
        yield connection
    finally:
        connection.close()


def count(connection: apsw.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM note").get)


def names(path: Path) -> set[str]:
    return {entry.name for entry in path.parent.iterdir()}


def test_each_commit_is_seen_at_once(path: Path, writer: Holder) -> None:
    with reading(path) as connection:
        for number in range(1, 20):
            assert writer.say("add text") == "ok"
            assert count(connection) == number
        assert writer.say("begin") == "ok" and writer.say("add unfinished") == "ok"
        assert count(connection) == 19


def test_it_can_change_nothing(path: Path, writer: Holder) -> None:
    with reading(path) as connection:
        for sql in ("INSERT INTO note(text) VALUES('x')", "DROP TABLE note", "PRAGMA user_version = 7", "PRAGMA wal_checkpoint(TRUNCATE)"):
            with pytest.raises(apsw.ReadOnlyError):
                connection.execute(sql).fetchall()
        assert connection.pragma("query_only") == 1 and connection.pragma("busy_timeout") == 100
        assert connection.pragma("journal_mode") == "wal"


def test_it_does_not_hold_the_wal_back(path: Path, writer: Holder) -> None:
    """Between two questions no snapshot is held, so all of the WAL can be written back and cut off."""
    with reading(path) as connection:
        writer.say("add " + "x" * 5000)
        assert count(connection) == 1
        assert writer.say("truncate") == "0 0 0"
        assert count(connection) == 1
        writer.say("add more")
        assert count(connection) == 2


def test_a_writer_that_closes_leaves_the_wal_to_the_next(path: Path, writer: Holder) -> None:
    with reading(path) as connection:
        writer.say("add one")
        assert writer.say("close") == "ok"
        assert names(path) == {"box", "box-wal", "box-shm"} and count(connection) == 1
        assert writer.say("open") == "1"
        writer.say("add two")
        assert count(connection) == 2
    assert names(path) == {"box", "box-wal", "box-shm"}, "the reader removes nothing"
    assert writer.say("close") == "ok"
    assert names(path) == {"box"}, "the last writer does"


def test_a_writer_that_is_killed_in_a_transaction(path: Path, writer: Holder) -> None:
    with reading(path) as connection:
        writer.say("add one")
        writer.say("begin")
        writer.say("add lost")
        writer.kill()
        assert count(connection) == 1
        again = Holder(path)
        assert again.say("count") == "1"
        again.say("add two")
        assert count(connection) == 2
        again.kill()
    with reading(path) as connection:
        assert count(connection) == 2, "also when the one who wrote is no more, and has not yet come back"


def test_a_file_that_nobody_has_open_is_left_alone(path: Path) -> None:
    with pytest.raises(NotOpen):
        connect_beside(path, key=KEY)
    assert names(path) == {"box"}
    with pytest.raises(MissingFile):
        connect_beside(path.with_name("other"), key=KEY)
    assert names(path) == {"box"}


def test_a_file_that_is_being_closed_is_not_opened(path: Path, writer: Holder) -> None:
    """The last to close it holds a lock that admits nobody."""
    file = apsw.VFSFile("unix", str(path), [apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_MAIN_DB, 0])
    writer.say("close")
    for level in (apsw.SQLITE_LOCK_SHARED, apsw.SQLITE_LOCK_RESERVED, apsw.SQLITE_LOCK_EXCLUSIVE):
        file.xLock(level)
    path.with_name("box-wal").touch()
    path.with_name("box-shm").touch()
    with pytest.raises(NotOpen):
        connect_beside(path, key=KEY)
    file.xClose()


def test_a_reader_that_is_killed_leaves_nothing_behind(path: Path, writer: Holder) -> None:
    reader = Holder(path, "reader")
    writer.say("add one")
    assert reader.say("count") == "1"
    reader.kill()
    writer.say("add two")
    assert writer.say("truncate") == "0 0 0" and writer.say("close") == "ok"
    assert names(path) == {"box"}


def test_only_its_own_key_and_a_whole_file(path: Path, writer: Holder) -> None:
    with pytest.raises(WrongKey):
        connect_beside(path, key=bytes(32))
    with pytest.raises(ValueError):
        connect_beside(path, key=KEY, cipher="none")
    writer.say("close")
    path.write_bytes(bytes(8192))
    path.with_name("box-wal").touch()
    path.with_name("box-shm").touch()
    with pytest.raises(errors.DamagedFile):
        connect_beside(path, key=KEY)


def test_a_writer_killed_in_the_middle_of_a_commit_leaves_what_only_a_writer_can_mend(path: Path, writer: Holder) -> None:
    """The two copies of the index's head differ then.  Nothing is wrong with the file: it can be read when somebody has it open again."""
    with reading(path) as connection:
        assert writer.say("add text") == "ok"
        assert count(connection) == 1
        writer.kill()
        with path.with_name(path.name + "-shm").open("r+b") as shm:
            shm.seek(8)
            change = shm.read(4)
            shm.seek(8)
            shm.write(bytes(octet ^ 0xFF for octet in change))
        with pytest.raises(NotOpen), storage_errors(connection):
            count(connection)
        again = Holder(path)
        assert again.say("add more") == "ok"
        assert count(connection) == 2
        again.kill()
