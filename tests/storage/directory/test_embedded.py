"""The encrypted file: never readable without the key, never harmed by a wrong one, never mistaken for a new one."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import sqlcipher3
from sqlalchemy import text

from fe_twisted.base.errors import BadSettings, Busy, DamagedFile, MailError, NewerFile
from fe_twisted.storage.directory import embedded
from fe_twisted.storage.directory.api import KeySlot
from fe_twisted.storage.directory.sql import SqlDirectory, open_directory

KEY = bytes(range(32))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "directory.sqlite"


def filled(path: Path) -> SqlDirectory:
    """A directory with some content, open."""
    directory = open_directory(path, KEY)
    directory.add_domain("example.com", directory.add_account("default").id)
    alias = directory.add_alias("needle@example.com")
    directory.set_mailbox(alias.id, "a" * 24, b"public", [KeySlot(0, "password", "", "hkdf-sha256", b"s", b"w", "now")])
    return directory


def everything(folder: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in folder.iterdir()}


def test_nothing_is_in_the_clear_in_any_file(path: Path) -> None:
    """Also while it is open, with its write-ahead log beside it."""
    directory = filled(path)
    files = everything(path.parent)
    assert {"directory.sqlite", "directory.sqlite-wal"} <= files.keys()
    directory.close()
    for content in [*files.values(), *everything(path.parent).values()]:
        assert b"needle" not in content
        assert b"example" not in content
        assert b"CREATE TABLE" not in content
    assert not path.read_bytes().startswith(b"SQLite format 3")


def test_only_the_owner_may_read_it(path: Path) -> None:
    old = os.umask(0)
    try:
        directory = filled(path)
    finally:
        os.umask(old)
    assert all(stat.S_IMODE(entry.stat().st_mode) == 0o600 for entry in path.parent.iterdir())
    directory.close()


def test_the_cipher_is_authenticated_aes_256(path: Path) -> None:
    directory = filled(path)
    with directory._engine.connect() as connection:
        assert connection.execute(text("PRAGMA cipher_provider_version")).scalar()
        assert connection.execute(text("PRAGMA cipher_settings")).fetchall()[0][0] == "PRAGMA kdf_iter = 256000;"
        assert connection.execute(text("PRAGMA cipher_use_hmac")).scalar() == "1"
        assert connection.execute(text("PRAGMA cipher_integrity_check")).fetchall() == []
    directory.close()


def test_durability_settings_hold_on_every_connection(path: Path) -> None:
    directory = filled(path)
    with directory._engine.connect() as one, directory._engine.connect() as two:
        for connection in (one, two):
            assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
            assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
            assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
    directory.close()


@pytest.mark.parametrize("while_open", [False, True])
def test_a_wrong_key_is_told_and_changes_nothing(path: Path, while_open: bool, capfd: pytest.CaptureFixture[str]) -> None:
    directory = filled(path)
    if not while_open:
        directory.close()
    before = everything(path.parent)
    with pytest.raises(BadSettings, match="server key"):
        open_directory(path, bytes(32))
    after = everything(path.parent)
    assert {name: after[name] for name in before if not name.endswith("-shm")} == {
        name: before[name] for name in before if not name.endswith("-shm")
    }
    assert capfd.readouterr() == ("", "")
    directory.close()
    again = open_directory(path, KEY)
    assert again.alias("needle@example.com") is not None
    again.close()


@pytest.mark.parametrize("content", [b"", b"x", bytes(4096), bytes(40960), b"SQLite format 3\0" + bytes(4080), b"\x07" * 5000])
def test_what_is_no_directory_is_never_overwritten(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(DamagedFile):
        open_directory(path, KEY)
    assert everything(path.parent) == {path.name: content}


def test_a_file_of_noise_is_refused(path: Path) -> None:
    content = os.urandom(40960)
    path.write_bytes(content)
    with pytest.raises(BadSettings):
        open_directory(path, KEY)
    assert everything(path.parent) == {path.name: content}


@pytest.mark.parametrize("keep", [100, 4096 * 2, 4096 * 3 + 17])
def test_a_truncated_file_is_refused_and_left_alone(path: Path, keep: int) -> None:
    filled(path).close()
    content = path.read_bytes()[:keep]
    path.write_bytes(content)
    with pytest.raises(MailError) as caught:
        open_directory(path, KEY).alias("needle@example.com")
    assert isinstance(caught.value, DamagedFile | BadSettings)
    assert path.read_bytes() == content


def test_a_plain_database_in_its_place_is_refused(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as plain:
        plain.execute("CREATE TABLE aliases (id)")
        plain.commit()
    before = path.read_bytes()
    with pytest.raises(DamagedFile, match="not encrypted"):
        open_directory(path, KEY)
    assert path.read_bytes() == before


def test_another_programs_database_under_the_same_key_is_refused(path: Path) -> None:
    with contextlib.closing(sqlcipher3.connect(str(path))) as foreign:
        foreign.execute(f"PRAGMA key=\"x'{KEY.hex()}'\"")
        foreign.execute("CREATE TABLE something (id)")
        foreign.commit()
    with pytest.raises(DamagedFile):
        open_directory(path, KEY)


def test_every_changed_page_is_noticed(path: Path) -> None:
    """Authenticated pages: a flipped bit is an error, not another value."""
    filled(path).close()
    content = path.read_bytes()
    for page in range(len(content) // 4096):
        broken = bytearray(content)
        broken[page * 4096 + 2000] ^= 1
        path.write_bytes(broken)
        with contextlib.closing(sqlcipher3.connect(str(path))) as connection:
            connection.execute("PRAGMA cipher_log_level=NONE")
            connection.execute(f"PRAGMA key=\"x'{KEY.hex()}'\"")
            assert connection.execute("PRAGMA cipher_integrity_check").fetchall() != []
        if page == 0:
            with pytest.raises(BadSettings):
                open_directory(path, KEY)


def test_damage_that_is_met_later_is_told_as_damage(path: Path) -> None:
    filled(path).close()
    content = bytearray(path.read_bytes())
    for page in range(1, len(content) // 4096):
        content[page * 4096 + 2000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedFile):
        open_directory(path, KEY).alias("needle@example.com")


def test_it_is_not_made_unless_asked(path: Path) -> None:
    with pytest.raises(BadSettings, match="no directory"):
        open_directory(path, KEY, create=False)
    assert list(path.parent.iterdir()) == []
    with pytest.raises(BadSettings):
        open_directory(path.parent / "missing" / "directory.sqlite", KEY)


def test_a_crash_while_it_is_made_leaves_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file gets its name only when it is whole."""

    def crash(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", crash)
    with pytest.raises(KeyboardInterrupt):
        open_directory(path, KEY)
    assert list(path.parent.iterdir()) == []


def test_a_newer_file_is_refused_and_left_alone(path: Path) -> None:
    directory = filled(path)
    with directory._writer.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    directory.close()
    before = path.read_bytes()
    with pytest.raises(NewerFile):
        open_directory(path, KEY)
    assert path.read_bytes() == before


def test_a_lock_that_is_held_too_long_is_busy_and_reading_goes_on(path: Path) -> None:
    directory, other = filled(path), open_directory(path, KEY)
    with directory._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=50")
    with other._writer.begin():
        with pytest.raises(Busy):
            directory.add_alias("late@example.com")
        assert directory.alias("needle@example.com") is not None
    directory.add_alias("late@example.com")
    directory.close()
    other.close()


_KILLED = """
import os, signal, sys
from fe_twisted.storage.directory.sql import open_directory
directory = open_directory(sys.argv[1], bytes(range(32)))
for number in range(20):
    directory.add_alias(f"{number}@example.com")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_answered_survives_a_kill(path: Path) -> None:
    """The log is left behind by the dead process, and read by the next."""
    filled(path).close()
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(path)], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert Path(f"{path}-wal").stat().st_size > 0
    directory = open_directory(path, KEY)
    assert len(directory.aliases()) == 21
    directory.close()


def test_odd_paths(tmp_path: Path) -> None:
    """A path is a path, whatever it would mean in a URL."""
    folder = tmp_path / "a b?c=d#e%20ü@x:y"
    folder.mkdir()
    directory = filled(folder / "directory.sqlite")
    directory.close()
    directory = open_directory(str(folder / "directory.sqlite"), KEY)
    assert directory.alias("needle@example.com") is not None
    directory.close()
    assert [entry.name for entry in folder.iterdir()] == ["directory.sqlite"]


def test_the_key_is_in_no_description(path: Path) -> None:
    engine = embedded.engine_for(path, KEY)
    assert KEY.hex() not in f"{engine!r} {engine.url}"
