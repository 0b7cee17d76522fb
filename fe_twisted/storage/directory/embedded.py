"""The embedded directory: one SQLCipher file (AES-256, authenticated pages).

A new file is made whole under another name and then linked into place, so that a crash leaves either no directory or a complete one,
and an empty or short file in its place is always damage and never mistaken for a new directory.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlcipher3
from sqlalchemy import URL, Connection, Engine, NullPool, QueuePool, create_engine, event
from sqlalchemy.exc import DBAPIError

from fe_twisted.base.errors import BadSettings, DamagedFile, DiskFull, StorageFailed
from fe_twisted.storage.directory.faults import translated

PLAINTEXT = b"SQLite format 3\0"
#: Octets; SQLCipher 4's default, and the least that a directory file can have.
PAGE = 4096
#: Milliseconds that a writer waits for another process.
BUSY_TIMEOUT = 5000

#: A wrong key is our error to report; SQLCipher would write to stderr besides.
_QUIET = "PRAGMA cipher_log_level=NONE"
#: In this order, one call each; ``journal_mode`` answers with a row that has to be read.
_PRAGMAS = (
    f"busy_timeout={BUSY_TIMEOUT}",
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "temp_store=MEMORY",
    "secure_delete=ON",
    "cache_size=-8192",
)
#: What is asserted of every connection, as the pragmas answer.
_EXPECTED = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": BUSY_TIMEOUT}


def engine_for(path: Path, key: bytes, *, pooled: bool = True) -> Engine:
    """An engine on the file; nothing is opened yet.

    :param key: 32 octets, used raw: no derivation to wait for.
    """
    # The dialect turns the password into ``PRAGMA key``, and this form of it is SQLCipher's raw key.
    url = URL.create("sqlite+pysqlcipher", password=f"x'{key.hex()}'", database=str(path))
    options: dict[str, Any] = {"pool_size": 2, "max_overflow": 8, "pool_timeout": 5} if pooled else {}
    engine = create_engine(
        url,
        module=sqlcipher3,
        poolclass=QueuePool if pooled else NullPool,
        connect_args={"check_same_thread": False},
        hide_parameters=True,
        **options,
    )
    event.listen(engine, "connect", _connected)
    event.listen(engine, "begin", _begin)
    return engine


def prepare(path: Path, key: bytes, create: Callable[[Connection], None]) -> None:
    """Make sure that there is a directory file which this key opens.

    :param create: makes the schema in a new, empty file.
    :raises BadSettings: the folder is not there; or the key does not open the file, which is not touched.
    :raises DamagedFile: what is there is no directory file.
    """
    if not path.exists():
        _make(path, key, create)
    with path.open("rb") as file:
        head = file.read(PAGE)
        size = os.fstat(file.fileno()).st_size
    if head.startswith(PLAINTEXT):
        raise DamagedFile(f"{path.name} is a database that is not encrypted, not a directory of this program")
    if len(head) < PAGE or size % PAGE or not head.strip(b"\0"):
        raise DamagedFile(f"{path.name} is damaged (empty, zeros or cut short); restore it from a backup")
    probe = sqlcipher3.connect(f"file:{_quoted(path)}?mode=ro", uri=True)
    try:
        probe.execute(_QUIET)
        probe.execute(f"PRAGMA key=\"x'{key.hex()}'\"")
        probe.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT}")
        probe.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlcipher3.DatabaseError as error:
        if "not a database" in str(error) or "malformed" in str(error):
            raise BadSettings(
                f"{path.name} does not open with this server key: use the key that it was made with, or a backup if the file is damaged"
            ) from error
        raise StorageFailed(f"{path.name} cannot be opened", reason=str(error)) from error
    finally:
        probe.close()


def _make(path: Path, key: bytes, create: Callable[[Connection], None]) -> None:
    """A new file with its schema, durable under its name; whoever makes it at the same time, one file wins and both are content."""
    new = path.with_name(f"{path.name}.new-{os.urandom(6).hex()}")
    try:
        os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise BadSettings(f"{path} cannot be made: {error.strerror}") from error
    try:
        engine = engine_for(new, key, pooled=False)
        with translated(), engine.connect().execution_options(write=True) as connection, connection.begin():
            create(connection)
        engine.dispose()
        # Closing the last connection wrote the log back and removed it.
        with new.open("rb") as file:
            if file.read(len(PLAINTEXT)) == PLAINTEXT:
                raise StorageFailed(reason="a new directory file was not encrypted")
            os.fsync(file.fileno())
        try:
            os.link(new, path)
        except FileExistsError:
            return
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise DiskFull(reason=str(error)) if error.errno == 28 else StorageFailed(reason=str(error)) from error
    finally:
        for leftover in (new, Path(f"{new}-wal"), Path(f"{new}-shm")):
            leftover.unlink(missing_ok=True)


def _quoted(path: Path) -> str:
    """For a ``file:`` URI (RFC 3986), where ``?``, ``#`` and ``%`` have a meaning."""
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _connected(connection: Any, _record: object) -> None:
    """Settle a fresh connection, and check that it is as settled.

    :raises StorageFailed: a pragma did not take.
    """
    # The driver would open transactions by its own lights; we open them in :func:`_begin`.
    connection.isolation_level = None
    connection.execute(_QUIET)
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}").fetchall()
    for name, value in _EXPECTED.items():
        answer = connection.execute(f"PRAGMA {name}").fetchone()[0]
        if answer != value:
            raise StorageFailed(reason=f"PRAGMA {name} is {answer!r} instead of {value!r}")


def _begin(connection: Connection) -> None:
    """Reads are single statements and need no BEGIN; a write takes the lock at once, since a read lock cannot wait to become one."""
    if connection.get_execution_options().get("write"):
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        except DBAPIError:
            connection.invalidate()
            raise
