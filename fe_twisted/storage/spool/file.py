"""One temporary mailbox on disk: opening it whatever state a crash or a broken disk left it in, and taking it away.

Everything here blocks and runs in a thread, for one mailbox by one caller at a time.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import apsw

from fe_twisted.base import errors, faults, log
from fe_twisted.storage.sqlite.connect import Migration, connect, migrate, storage_errors, sync_directory

#: ``refused`` is 1 for a row that the mailbox could not take: it stays and is not tried again until somebody says so.  The big column is
#: the last, so that the others are read without it.
MIGRATIONS: Sequence[Migration] = (
    """
    CREATE TABLE message (
        id INTEGER PRIMARY KEY,
        delivery_id BLOB NOT NULL UNIQUE CHECK (length(delivery_id) = 16),
        refused INTEGER NOT NULL DEFAULT 0,
        sealed BLOB NOT NULL
    ) STRICT;
    """,
    # When the file was made, which is when the first message came: a file goes when it is empty.  Of a file from before this step it is the
    # time of the first opening afterwards.
    """
    CREATE TABLE began (at INTEGER NOT NULL) STRICT;
    INSERT INTO began VALUES (unixepoch());
    """,
)

#: Octets.  By measurement, a 10 KB message costs 10 % less than with 4096 and 16384 is no better.
PAGE_SIZE = 8192

#: Errors of SQLite that say nothing about the file: what meets one while a damaged file is being read is not lost.
_PASSING = (apsw.NoMemError, apsw.BusyError, apsw.LockedError, apsw.ProtocolError, apsw.CantOpenError)

#: KiB of page cache; messages pass through once.
_CACHE = 512


def open_file(path: Path, key: bytes, cipher: str) -> apsw.Connection:
    """The temporary mailbox at ``path``, made if it is not there; a damaged one is first moved aside, and what can be read of it saved.

    :raises fe_twisted.base.errors.MailError: the disk refused, or a newer version of the program wrote it.
    """
    if not path.exists():
        _clear(path)
    try:
        connection = _open(path, key, cipher)
    except errors.DamagedFile as error:
        # Not as done with: it may be that only the step to a new version failed, and every message can be read.
        set_aside(path, error, "saving")
        connection = _open(path, key, cipher)
    try:
        for aside in reversed(_unsaved(path)):  # so that the lowest number is the last to go, see there
            if not _save(aside, path, connection, key, cipher):
                break
    except BaseException:
        connection.close()
        raise
    return connection


def waiting(path: Path) -> bool:
    """Whether mail may wait at ``path``: in the file itself, or in one that was set aside and not yet read (two ``stat``)."""
    return path.exists() or _saving(path, 1).exists()


def _open(path: Path, key: bytes, cipher: str) -> apsw.Connection:
    connection = connect(path, key=key, cipher=cipher, create=True, page_size=PAGE_SIZE, cache_kib=_CACHE, secure_delete="FAST")
    try:
        migrate(connection, MIGRATIONS)
    except BaseException:
        connection.close()
        raise
    return connection


def set_aside(path: Path, error: errors.MailError, kind: str = "damaged") -> Path:
    """Rename a file that cannot be used, with its WAL, so that new mail can be stored and somebody can look at it.

    :param kind: ``damaged``, or ``saving`` while there is something to be read in it.
    :returns: its new name, ``<id>-tmp.<kind>-<n>``.
    """
    with storage_errors():
        aside = _free_name(path, kind)
        # The file before its WAL: a crash in between leaves a WAL without a file, see _clear.
        for suffix in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                os.rename(_with(path, suffix), _with(aside, suffix))
        _with(path, "-shm").unlink(missing_ok=True)
    sync_directory(str(path.parent))
    log.failure("spool.damaged", error, file=path.name, moved_to=aside.name, reason=error.reason)
    return aside


def renew(path: Path, key: bytes, cipher: str, error: errors.MailError) -> None:
    """Move a file aside that proved damaged in use, and copy every row that can still be read to a new one.

    The name says until that is done that it is not, so that after a crash whoever opens the file does it.
    """
    set_aside(path, error, "saving")
    open_file(path, key, cipher).close()


def _save(aside: Path, path: Path, new: apsw.Connection, key: bytes, cipher: str) -> bool:
    """Copy what can be read of a file that was set aside, and name it as done with; False if that could not be done now.

    A row that is in the new file already is passed over, and one that has moved in meanwhile is recognised by the mailbox.  What cannot be
    done now, for lack of room for example, is left for the next time, and keeps nobody from the new file.
    """
    try:
        try:
            old = connect(aside, key=key, cipher=cipher, cache_kib=_CACHE)
        except errors.DamagedFile as problem:
            log.failure("spool.unreadable", problem, file=aside.name, reason=problem.reason)
        else:
            with contextlib.closing(old), storage_errors(new):
                _copy_all(aside, old, new)
        _finish(aside, path)
    except errors.MailError as problem:
        log.failure("spool.unsaved", problem, file=aside.name, reason=problem.reason)
        return False
    return True


def _copy_all(aside: Path, old: apsw.Connection, new: apsw.Connection) -> None:
    saved = 0
    new.execute("BEGIN IMMEDIATE")
    try:
        for row_id in _ids(old):
            saved += _copy(old, new, row_id)
        new.execute("COMMIT")
    except BaseException:
        if new.in_transaction:
            new.execute("ROLLBACK")
        raise
    log.warning("spool.saved", file=aside.name, rows=saved)


def _finish(aside: Path, path: Path) -> None:
    """Name it as done with, durably after what was copied."""
    with storage_errors():
        done = _free_name(path, "damaged")
        # The WAL before its file: as long as the file has the name, this is not done.
        for suffix in ("-wal", ""):
            with contextlib.suppress(FileNotFoundError):
                os.rename(_with(aside, suffix), _with(done, suffix))
        _with(aside, "-shm").unlink(missing_ok=True)
    sync_directory(str(path.parent))


def _unsaved(path: Path) -> list[Path]:
    """Files that were set aside to be read, in the order in which that was done.

    They have the numbers from 1 on without a gap, because the highest is always done with first, and no other before it is.
    """
    found: list[Path] = []
    while (aside := _saving(path, len(found) + 1)).exists():
        found.append(aside)
    return found


def _saving(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.saving-{number}")


def _ids(connection: apsw.Connection) -> list[int]:
    """The row ids that can still be found, by the table and by the index, each as far as it can be read."""
    found: set[int] = set()
    for sql in ("SELECT id FROM message NOT INDEXED", "SELECT id FROM message INDEXED BY sqlite_autoindex_message_1"):
        try:
            for (row_id,) in connection.execute(sql):
                found.add(row_id)
        except _PASSING:
            raise
        except apsw.Error:
            continue
    return sorted(found)


def _copy(old: apsw.Connection, new: apsw.Connection, row_id: int) -> int:
    """Copy a row if it can be read; 1 or 0.

    :raises apsw.Error: it may well be that it can be read another time; or the new file could not take it.
    """
    try:
        rows = old.execute("SELECT delivery_id, refused, sealed FROM message WHERE id = ?", (row_id,)).fetchall()
    except _PASSING:
        raise
    except apsw.Error:
        return 0
    sql = "INSERT INTO message (delivery_id, refused, sealed) VALUES (?, ?, ?) ON CONFLICT (delivery_id) DO NOTHING"
    new.executemany(sql, rows)
    return len(rows)


def is_empty(connection: apsw.Connection) -> bool:
    """Whether it holds no row at all, refused ones included."""
    return not connection.execute("SELECT 1 FROM message LIMIT 1").fetchall()


def checkpoint(connection: apsw.Connection) -> None:
    """Bring every committed change into the main file and empty the WAL.

    :raises fe_twisted.base.errors.Busy: somebody else reads the file.
    """
    faults.reach("spool.before_checkpoint")
    if connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()[0][0]:
        raise errors.Busy(reason=f"{connection.filename} is being read by another connection")
    faults.reach("spool.after_checkpoint")


def unlink(path: Path) -> None:
    """Take an empty, checkpointed and closed temporary mailbox away.

    The WAL goes first, durably: a WAL that outlives its file would be applied to the next file of that name.

    :raises fe_twisted.base.errors.MailError: the disk refused; what is left is empty and goes the next time.
    """
    with storage_errors():
        wal = _with(path, "-wal")
        if wal.exists() and wal.stat().st_size:
            raise errors.StorageFailed(reason=f"{wal.name} still holds something")
        wal.unlink(missing_ok=True)
        _with(path, "-shm").unlink(missing_ok=True)
        sync_directory(str(path.parent))
        faults.reach("spool.unlinked_wal")
        path.unlink(missing_ok=True)
        faults.reach("spool.unlinked_main")
        sync_directory(str(path.parent))
        faults.reach("spool.unlinked_all")


def destroy(path: Path) -> None:
    """Remove the temporary mailbox with all that is in it and in those still to be read, because its mailbox is being removed."""
    with storage_errors():
        unread = sorted(path.parent.glob(f"{path.stem}.saving-*"))
        for each in [*(_with(path, suffix) for suffix in ("", "-wal", "-shm")), *unread]:
            each.unlink(missing_ok=True)
    sync_directory(str(path.parent))


def _clear(path: Path) -> None:
    """Before a new file is made: nothing of an old one may lie beside it."""
    wal = _with(path, "-wal")
    unsaved = _unsaved(path)
    with storage_errors():
        orphan = wal.exists() and wal.stat().st_size > 0
        if orphan and unsaved and not _with(unsaved[-1], "-wal").exists():
            # A crash came while both were being renamed.
            os.rename(wal, _with(unsaved[-1], "-wal"))
            orphan = False
        if not orphan:
            wal.unlink(missing_ok=True)
        _with(path, "-shm").unlink(missing_ok=True)
    if orphan:
        set_aside(path, errors.DamagedFile(reason="a WAL without its file"))


def _free_name(path: Path, kind: str) -> Path:
    """The first ``<id>-tmp.<kind>-<n>`` that is not taken, neither by a file nor by a WAL."""
    number = 1
    while True:
        aside = path.with_name(f"{path.stem}.{kind}-{number}")
        if not aside.exists() and not _with(aside, "-wal").exists():
            return aside
        number += 1


def _with(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
