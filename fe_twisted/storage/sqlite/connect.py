"""Opening an encrypted SQLite file, with every pragma asserted, and bringing its schema up to date."""

from __future__ import annotations

import contextlib
import errno
import os
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TypeVar

import apsw

from fe_twisted.base import errors

#: Names of the ciphers of SQLite3 Multiple Ciphers that authenticate every page and take a raw key.  ``aes256cbc`` is left out: it has no
#: MAC and takes ``raw:`` for a passphrase.
CIPHERS = frozenset({"chacha20", "aegis", "ascon128"})

#: Octets of a raw key.
KEY_SIZE = 32

#: How long to wait for another process's lock, in milliseconds.
BUSY_TIMEOUT = 5000

#: The same for a reader beside the process that writes: it waits only while the WAL is begun anew, and can be answered elsewhere.
BESIDE_TIMEOUT = 100

#: Octets that the ``-wal`` file is cut down to after a checkpoint.
JOURNAL_SIZE_LIMIT = 16 * 1024 * 1024

T = TypeVar("T")

PLAIN_HEADER = b"SQLite format 3\0"

#: A step of a schema: SQL (any number of statements), or a function that does it inside the open transaction.
Migration = str | Callable[[apsw.Connection], None]

_OUT_OF_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})

#: What a reader beside a writer is told when that was killed in the middle of a commit, until somebody writes again: the index of the WAL
#: has to be mended, and may not be by a reader.  https://www.sqlite.org/rescode.html
_WRITER_DIED = frozenset({apsw.SQLITE_READONLY_RECOVERY, apsw.SQLITE_READONLY_CANTLOCK, apsw.SQLITE_READONLY_CANTINIT})


class WrongKey(errors.DamagedFile):
    """The file has the form of an encrypted database, and this key does not open it: another mailbox's file, or page 1 was altered."""


class MissingFile(errors.DamagedFile):
    """The file should be there and is not."""


class NotOpen(errors.Later):
    """No other process has the file open, or it is being closed just now."""


def connect(
    path: str | os.PathLike[str],
    *,
    key: bytes | bytearray,
    cipher: str = "chacha20",
    create: bool = False,
    readonly: bool = False,
    page_size: int | None = None,
    cache_kib: int = 2048,
    synchronous: Literal["FULL", "NORMAL"] = "FULL",
    secure_delete: Literal["ON", "FAST"] = "ON",
) -> apsw.Connection:
    """Open an encrypted SQLite file and prove that the key opens it.

    :param key: 32 octets, used as they are, without a KDF.
    :param create: make the file if it is not there (or is empty); without it a missing file is an error and nothing is made.
    :param page_size: in octets, for a new file only; None is SQLite's own 4096.
    :param cache_kib: the page cache, in KiB.
    :param secure_delete: ``FAST`` overwrites deleted content only where that costs no further write.
    :returns: a connection that may be used from any thread, by one at a time.
    :raises WrongKey: the key does not open it.
    :raises MissingFile, fe_twisted.base.errors.DamagedFile: not there, empty, zeros, cut off, or some other file.  It is left exactly as
        it was.
    :raises fe_twisted.base.errors.MailError: whatever else :func:`storage_errors` makes of a refusal.
    """
    path = os.fspath(path)
    if len(key) != KEY_SIZE:
        raise ValueError("the key must have 32 octets")
    if cipher not in CIPHERS:
        raise ValueError(f"cipher must be one of {', '.join(sorted(CIPHERS))}")
    if create and readonly:
        raise ValueError("a file cannot be created read-only")
    size = _size(path)
    if create and not size:
        _create(path, key, cipher, page_size)
    elif size is None:
        raise MissingFile(reason=f"{path} is not there")
    elif size == 0:
        raise errors.DamagedFile(reason=f"{path} is empty")
    connection = _unlock(path, key, cipher, readonly)
    try:
        with storage_errors(connection):
            _tune(connection, readonly, cache_kib, synchronous, secure_delete)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_beside(
    path: str | os.PathLike[str], *, key: bytes | bytearray, cipher: str = "chacha20", cache_kib: int = 2048
) -> apsw.Connection:
    """Open a file for reading that another process has open and writes.  Nothing on the disk is made, changed or removed, now or later.

    By itself SQLite would make ``-wal`` and ``-shm`` for a reader too, and remove them after it when it is the last.  So they have to be
    there, and while this is looked at there is a lock on the file by which nobody else can be the last to close it; the connection then
    takes the same lock and keeps it.  It sees ``-shm`` through a mapping that cannot be written, and never writes the WAL back.

    :param key, cipher, cache_kib: see :func:`connect`.
    :raises NotOpen: nobody has it open.
    :raises MissingFile: there is no such file.
    :raises WrongKey, fe_twisted.base.errors.DamagedFile, fe_twisted.base.errors.MailError: see :func:`connect`.
    """
    path = os.fspath(path)
    if len(key) != KEY_SIZE or cipher not in CIPHERS:
        raise ValueError("a key of 32 octets and a known cipher, please")
    if not _size(path):
        raise MissingFile(reason=f"{path} is not there")
    with _shared(path):
        if _size(path + "-wal") is None or _size(path + "-shm") is None:
            raise NotOpen(reason=f"{path} is not open in another process")
        connection = _unlock(path, key, cipher, readonly=True, beside=True)
    try:
        with storage_errors(connection):
            _tune(connection, True, cache_kib, "FULL", "ON")
            _pragma(connection, "query_only", "ON", 1)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_still(path: str | os.PathLike[str], *, key: bytes | bytearray, cipher: str = "chacha20") -> apsw.Connection:
    """Open a file for reading that has no WAL, as it lies: no lock is taken, and nothing is made.

    Who writes it meanwhile does not know of this reader, which may then see a mixture; so it is for what need not be right.

    :param key, cipher: see :func:`connect`.
    :raises MissingFile: there is no such file.
    :raises fe_twisted.base.errors.MailError: it cannot be read.
    """
    path = os.fspath(path)
    if len(key) != KEY_SIZE or cipher not in CIPHERS:
        raise ValueError("a key of 32 octets and a known cipher, please")
    if not _size(path):
        raise MissingFile(reason=f"{path} is not there")
    with storage_errors():
        name = f"file:{urllib.parse.quote(os.path.abspath(path))}?immutable=1"
        connection = apsw.Connection(name, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    try:
        with storage_errors(connection):
            _key(connection, key, cipher)
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
            _pragma(connection, "temp_store", "MEMORY", 2)
            _pragma(connection, "trusted_schema", "OFF", 0)
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def _shared(path: str) -> Iterator[None]:
    """Hold the lock that every connection to a file in WAL mode holds for as long as it is open.

    :raises NotOpen: the last process that had it open is closing it.
    """
    with storage_errors():
        file = apsw.VFSFile("unix", path, [apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_MAIN_DB, 0])
        try:
            try:
                file.xLock(apsw.SQLITE_LOCK_SHARED)
            except apsw.BusyError as error:
                raise NotOpen(reason=f"{path} is being closed") from error
            yield
            file.xUnlock(apsw.SQLITE_LOCK_NONE)
        finally:
            file.xClose()


def header(path: str) -> bytes:
    r"""The first 24 octets of a file, read through SQLite's own file layer, which keeps the locks that this process has on it.

    Octets 0-15 are the salt (or ``SQLite format 3\0`` in a file without encryption), 16-23 are readable in an encrypted file too: page
    size, format versions, reserved octets, payload fractions (https://www.sqlite.org/fileformat.html section 1.3).
    """
    with storage_errors():
        file = apsw.VFSFile("unix", path, [apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_MAIN_DB, 0])
        try:
            return bytes(file.xRead(24, 0))
        finally:
            file.xClose()


def sync_directory(path: str) -> None:
    """Make the creation, removal or renaming of files in this directory durable.

    :raises fe_twisted.base.errors.MailError: the disk refused.
    """
    with storage_errors():
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def migrate(connection: apsw.Connection, migrations: Sequence[Migration]) -> int:
    """Bring the schema forward, one transaction for each step; ``user_version`` counts the steps that are done.

    A step may be interrupted at any point, and another process may try the same at the same time: each is done once, wholly.

    :returns: the number of steps that were done.
    :raises fe_twisted.base.errors.NewerFile: the file has seen more steps than this program knows; it is not touched.
    """
    done = 0
    with storage_errors(connection):
        while (version := int(connection.pragma("user_version"))) != len(migrations):
            if version > len(migrations):
                raise errors.NewerFile(reason=f"schema {version}, this program knows {len(migrations)}: {connection.filename}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                # Asked again under the lock: another process may have done this step meanwhile.
                if int(connection.pragma("user_version")) == version:
                    _step(connection, migrations[version])
                    connection.execute(f"PRAGMA user_version = {version + 1}")
                    done += 1
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
    return done


def in_snapshot(connection: apsw.Connection, question: Callable[[], T]) -> T:
    """Ask a question in a read transaction; in the one that is open already, if there is one."""
    if connection.in_transaction:
        return question()
    connection.execute("BEGIN")
    try:
        found = question()
        connection.execute("COMMIT")
    except BaseException:
        # Not COMMIT, which fails once a damaged page was met: who asks next would be answered from this snapshot, and so on for ever.
        with contextlib.suppress(apsw.Error):
            connection.execute("ROLLBACK")
        raise
    return found


@contextlib.contextmanager
def storage_errors(connection: apsw.Connection | None = None) -> Iterator[None]:
    """Turn what SQLite or the operating system says into :mod:`fe_twisted.base.errors`; other exceptions pass.

    :param connection: where known, it tells a full disk from a broken one.
    """
    try:
        yield
    except (apsw.Error, OSError) as error:
        raise mapped(error, connection) from error


def mapped(error: Exception, connection: apsw.Connection | None = None) -> errors.MailError:
    """The :mod:`fe_twisted.base.errors` error that stands for an apsw error or an :class:`OSError`; the details go into ``reason`` only."""
    if isinstance(error, errors.MailError):
        return error
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, OSError):
        return errors.DiskFull(reason=reason) if error.errno in _OUT_OF_SPACE else errors.StorageFailed(reason=reason)
    if not isinstance(error, apsw.Error):
        return errors.StorageFailed(reason=reason)
    if isinstance(error, apsw.IOError | apsw.CantOpenError):
        number = _system_errno(connection)
        reason = f"{reason} (extended {getattr(error, 'extendedresult', 0)}, errno {number})"
        # On a full disk SQLite says FULL for most writes, but «I/O error» for the -shm file and for syncs, and «can't open» for new files.
        return errors.DiskFull(reason=reason) if number in _OUT_OF_SPACE else errors.StorageFailed(reason=reason)
    if isinstance(error, apsw.ReadOnlyError) and getattr(error, "extendedresult", 0) in _WRITER_DIED:
        return NotOpen(reason=reason)
    for kind, ours in _MAPPED:
        if isinstance(error, kind):
            return ours(reason=reason)
    return errors.StorageFailed(reason=reason)


_MAPPED: tuple[tuple[type[apsw.Error], type[errors.MailError]], ...] = (
    (apsw.FullError, errors.DiskFull),
    (apsw.BusyError, errors.Busy),
    (apsw.LockedError, errors.Busy),
    # Another process stands still in the middle of beginning a transaction, for some ten seconds (SQLITE_PROTOCOL).
    (apsw.ProtocolError, errors.Busy),
    (apsw.CorruptError, errors.DamagedFile),
    (apsw.NotADBError, errors.DamagedFile),
    # Evicted, or the server stops: nothing is wrong with the file.
    (apsw.ConnectionClosedError, errors.Later),
)


def _system_errno(connection: apsw.Connection | None) -> int:
    """The ``errno`` of the connection's last I/O error, 0 where there is none to ask."""
    if connection is None:
        return 0
    try:
        return connection.system_errno
    except apsw.ConnectionClosedError:
        return 0


def _size(path: str) -> int | None:
    """Octets in the file; None if it is not there."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return None
    except OSError as error:
        raise mapped(error) from error


def _step(connection: apsw.Connection, migration: Migration) -> None:
    """Do one step of the schema."""
    if isinstance(migration, str):
        for _ in connection.execute(migration):  # Execution is lazy: it goes on to the next statement only when rows are asked for.
            pass
    else:
        migration(connection)


def _pragma(connection: apsw.Connection, name: str, value: str, expect: object, *, setter: str | None = None) -> None:
    """Set a pragma, read it back and insist.

    A pragma that SQLite does not like is ignored without a word, and of several in one call only those up to the first row are run: once
    that left a file without encryption.  So there is one call for each, and each is asked for its value.
    """
    for _ in connection.execute(f"PRAGMA {setter or name} = {value}", can_cache=False):
        pass
    found = connection.pragma(name)
    if isinstance(found, str) and isinstance(expect, str):
        found, expect = found.lower(), expect.lower()
    if found != expect:
        raise errors.StorageFailed(reason=f"PRAGMA {name} is {found!r}, not {expect!r}")


def _key(connection: apsw.Connection, key: bytes | bytearray, cipher: str) -> None:
    """Choose the cipher, then give the key: the other way round the key would be for the default cipher."""
    _pragma(connection, "cipher", f"'{cipher}'", cipher)
    # can_cache=False: the statement holds the key and must not stay in the statement cache.
    answer = list(connection.execute(f"PRAGMA key = 'raw:{key.hex()}'", can_cache=False))
    if answer != [("ok",)]:
        raise errors.StorageFailed(reason="the library took no key: it is not SQLite3 Multiple Ciphers")


def _create(path: str, key: bytes | bytearray, cipher: str, page_size: int | None) -> None:
    """Make a new, empty, encrypted database in WAL mode, durable with its directory entry.

    It is made under another name and gets its own when it is complete, so that a crash in between never leaves half a database, which
    would look like a damaged one.  It's closed again before the header is looked at, and :func:`connect` opens it like any other.
    """
    new = path + ".new"
    with storage_errors():
        _clear(new)
        # SQLite would make it readable for the group; -wal and -shm take their mode from this one.
        os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with storage_errors():
            connection = apsw.Connection(new, flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            with storage_errors(connection):
                _key(connection, key, cipher)
                if page_size is not None:
                    _pragma(connection, "page_size", str(page_size), page_size)
                _pragma(connection, "encoding", "'UTF-8'", "UTF-8")
                # Only before the first page is written, and journal_mode writes it.
                _pragma(connection, "auto_vacuum", "INCREMENTAL", 2)
                _pragma(connection, "journal_mode", "WAL", "wal")
        finally:
            connection.close()
        if header(new).startswith(PLAIN_HEADER):
            raise errors.StorageFailed(reason=f"{path} was made without encryption")
        with storage_errors():
            os.rename(new, path)
    except BaseException:
        _clear(new)
        raise
    sync_directory(os.path.dirname(os.path.abspath(path)))


def _clear(path: str) -> None:
    """Remove a database that was never finished, and what belongs to it."""
    for suffix in ("-wal", "-shm", "-journal", ""):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + suffix)


def _unlock(path: str, key: bytes | bytearray, cipher: str, readonly: bool, *, beside: bool = False) -> apsw.Connection:
    """Open an existing file, give the key and read the schema, which proves both.

    :param beside: leave ``-shm`` and the WAL to the process that writes.
    """
    flags = apsw.SQLITE_OPEN_READONLY if readonly else apsw.SQLITE_OPEN_READWRITE  # without CREATE: a missing file stays missing
    name = f"file:{urllib.parse.quote(os.path.abspath(path))}?readonly_shm=1" if beside else path
    with storage_errors():
        connection = apsw.Connection(name, flags=flags | apsw.SQLITE_OPEN_URI if beside else flags)
    try:
        with storage_errors(connection):
            timeout = BESIDE_TIMEOUT if beside else BUSY_TIMEOUT
            _pragma(connection, "busy_timeout", str(timeout), timeout)
            # Until the key has proved right, closing must not write a left-over WAL into the file.
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            _key(connection, key, cipher)
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
            _expect(connection, "journal_mode", "wal")
            _expect(connection, "auto_vacuum", 2)
            _expect(connection, "encoding", "UTF-8")
            if not beside:
                connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
    except BaseException as error:
        connection.close()
        if isinstance(error.__cause__, apsw.NotADBError) and _looks_encrypted(path):
            raise WrongKey(reason=f"the key does not open {path}") from error
        if isinstance(error, errors.DamagedFile):
            raise errors.DamagedFile(reason=f"{path}: {error.reason}") from error
        raise
    return connection


def _expect(connection: apsw.Connection, name: str, expect: object) -> None:
    """Refuse a file that was not made by :func:`_create`."""
    if (found := connection.pragma(name)) != expect:
        raise errors.DamagedFile(reason=f"PRAGMA {name} is {found!r}, not {expect!r}")


def _looks_encrypted(path: str) -> bool:
    """Whether the readable octets of the header are those of an encrypted database: so it's the key that is wrong, and not the file."""
    start = header(path)
    page_size = int.from_bytes(start[16:18], "big")  # 1 stands for 65536
    if (_size(path) or 0) < (65536 if page_size == 1 else page_size):
        return False
    # Payload fractions are 64, 32, 32 in every database; the versions are 2, 2 in WAL mode.
    return len(start) == 24 and not start.startswith(PLAIN_HEADER) and start[18:20] == b"\x02\x02" and start[21:24] == b"\x40\x20\x20"


def _tune(connection: apsw.Connection, readonly: bool, cache_kib: int, synchronous: str, secure_delete: str) -> None:
    """The pragmas that belong to the connection and not to the file."""
    _pragma(connection, "foreign_keys", "ON", 1)
    _pragma(connection, "trusted_schema", "OFF", 0)
    _pragma(connection, "cache_size", str(-cache_kib), -cache_kib)
    _pragma(connection, "temp_store", "MEMORY", 2)
    # Without it a join that is asked with other values than before is planned anew each time, which takes longer than to carry it out.
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    _pragma(connection, "synchronous", synchronous, {"NORMAL": 1, "FULL": 2}[synchronous])
    if not readonly:
        _pragma(connection, "secure_delete", secure_delete, {"ON": 1, "FAST": 2}[secure_delete])
        _pragma(connection, "journal_size_limit", str(JOURNAL_SIZE_LIMIT), JOURNAL_SIZE_LIMIT)
        _pragma(connection, "wal_autocheckpoint", "1000", 1000)
