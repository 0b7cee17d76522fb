"""A whole mailbox file made of what can still be read of a damaged one.

Messages keep their octets, folders, UIDs, flags, dates and EMAILIDs; all else that is made of a message is made of it again.  The UIDs of
what is lost are logged as expunged, so that the new file fits together.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import apsw

from fe_twisted.base.errors import DamagedFile
from fe_twisted.base.ids import object_id
from fe_twisted.storage.mailbox.api import FIRST_KEYWORD_BIT
from fe_twisted.storage.mailbox.expunged import log_expunged
from fe_twisted.storage.mailbox.messages import store_message
from fe_twisted.storage.mailbox.prepared import prepare
from fe_twisted.storage.mailbox.rows import FolderRow, aggregate, imap_date, iso, runs, uid_of
from fe_twisted.storage.mailbox.salvage import Place, Salvage, content_of, damaged_trees, made_up, salvage, table_of
from fe_twisted.storage.mailbox.schema import FOLDER_SHIFT, UID_MASK

#: Where messages go of which nothing says any more in which folder they were.
STRAYS = "Rescued"

#: Tables that are copied as they are, and what their rows are called.
_COPIED = (
    ("meta", "name, value", "the settings of the mailbox"),
    ("keywords", "number, name", "the names of keywords"),
    ("subscriptions", "name", "the subscriptions"),
    ("annotations", "folder_id, entry, value", "the annotations"),
)


@dataclass(frozen=True, slots=True)
class Rescued:
    """What became of a damaged mailbox.

    :param messages: how many are in the copy, each place counted.
    :param lost: places whose message cannot be read.
    :param bare: places whose message is in the copy without its flags and with another date of arrival.
    :param strays: where messages are in the copy whose folder nobody knows.
    :param uncounted: by folder, how many messages more there should be, of which nothing says which.
    :param missing: what else could not be copied, in words.
    :param damaged: tables and indexes with pages that cannot be read.
    """

    messages: int
    lost: tuple[Place, ...]
    bare: tuple[Place, ...]
    strays: tuple[Place, ...]
    uncounted: dict[str, int]
    missing: tuple[str, ...]
    damaged: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether all mail is in the copy, as it was."""
        return not (self.lost or self.bare or self.strays or any(self.uncounted.values()) or self.missing)


def rescue(source: apsw.Connection, target: apsw.Connection, now: datetime.datetime) -> Rescued:
    """Copy what can be read.

    :param source: outside of a transaction.
    :param target: a new file with its schema and nothing else, in a transaction.
    :param now: aware; the date of arrival of messages that have none any more.
    :raises apsw.Error: something else than damage.
    """
    found = salvage(source)
    missing = _copy_tables(source, target, found)
    numbers: list[Any] = target.execute("SELECT number FROM keywords").fetchall()
    keywords = sum(1 << (number + FIRST_KEYWORD_BIT) for (number,) in numbers)
    flags = keywords | (1 << FIRST_KEYWORD_BIT) - 1
    rows: dict[int, int | None] = {}
    lost: list[Place] = []
    bare: list[Place] = []
    for entry in found.entries:
        row_id = _copy_message(source, target, found, entry.message_id, rows)
        if row_id is None:
            lost.append(found.place(entry.id))
            continue
        if entry.row is None:
            bare.append(found.place(entry.id))
        _enter(target, entry.id, row_id, entry.row or _unknown(now), flags)
    strays = _strays(source, target, found, rows, now)
    if unread := sum(rows.get(each) is None for each in found.strays):
        missing.append(f"{unread} messages that cannot be read and whose folder nobody knows")
    _fit(target)
    return Rescued(
        messages=int(target.execute("SELECT count(*) FROM entries").get),
        lost=tuple(lost),
        bare=tuple(bare),
        strays=strays,
        uncounted={name: number for name, number in found.uncounted.items() if number},
        missing=tuple(missing),
        damaged=tuple(name for _, name in damaged_trees(source)),
    )


def _copy_tables(source: apsw.Connection, target: apsw.Connection, found: Salvage) -> list[str]:
    """Folders, and what belongs to the mailbox as a whole; returns what is not there."""
    missing: list[str] = []
    for folder in found.folders.values():
        if not folder.uidvalidity:  # it is made up
            missing.append(f"the properties of folder {folder.name}")
        _make_folder(target, folder)
    if found.nameless:
        missing.append("folders of which nothing can be read, if there were any")
    for table, columns, words in _COPIED:
        rows = table_of(source, f"SELECT {columns} FROM {table}")
        # Of a folder that is not in the copy there can be no annotation.
        kept = [row for row in rows or () if table != "annotations" or row[0] is None or row[0] in found.folders]
        if rows is None or len(kept) < len(rows):
            missing.append(words)
        places = ", ".join("?" * len(columns.split(",")))
        target.executemany(f"INSERT OR REPLACE INTO {table}({columns}) VALUES({places})", kept)
    target.execute("DELETE FROM meta WHERE name IN ('indexed', 'forgotten')")
    return missing


def _make_folder(target: apsw.Connection, folder: FolderRow) -> None:
    target.execute(
        "INSERT INTO folders(id, name, object_id, selectable, special_use, uidvalidity, uidnext, modseq, first_recent)"
        " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            folder.id,
            folder.name,
            folder.object_id or object_id(),
            folder.selectable,
            folder.special_use,
            folder.uidvalidity or 1,
            folder.uidnext,
            folder.modseq,
            folder.first_recent,
        ),
    )


def _copy_message(
    source: apsw.Connection, target: apsw.Connection, found: Salvage, message_id: int, rows: dict[int, int | None]
) -> int | None:
    """Its row in the copy, or None if it cannot be read.

    :param rows: the answers of before.
    """
    if message_id not in rows:
        try:
            content = content_of(source, found, message_id)
        except DamagedFile:
            rows[message_id] = None
            return None
        row_id, _ = store_message(target, content, prepare(content))
        if message_id in found.known:
            target.execute("UPDATE messages SET object_id = ? WHERE id = ?", (found.known[message_id][1], row_id))
        rows[message_id] = row_id
    return rows[message_id]


def _unknown(now: datetime.datetime) -> tuple[Any, ...]:
    """The columns of an entry that are lost."""
    return (0, 1, now.toordinal(), iso(now), imap_date(now), iso(now))


def _enter(target: apsw.Connection, entry: int, row_id: int, row: tuple[Any, ...], known: int) -> None:
    flags, *rest = row
    target.execute(
        "INSERT INTO entries(id, message_id, flags, modseq, day, received_at, internaldate, saved_at) VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
        (entry, row_id, flags & known, *rest),
    )


def _strays(
    source: apsw.Connection, target: apsw.Connection, found: Salvage, rows: dict[int, int | None], now: datetime.datetime
) -> tuple[Place, ...]:
    """Messages without a folder get one."""
    copied = [row_id for each in found.strays if (row_id := _copy_message(source, target, found, each, rows)) is not None]
    if not copied:
        return ()
    names = {folder.name for folder in found.folders.values()}
    name = next(name for name in (STRAYS, *(f"{STRAYS} {number}" for number in range(2, len(names) + 3))) if name not in names)
    folder = max(found.folders, default=0) + 1
    _make_folder(target, made_up(folder, name))
    for uid, row_id in enumerate(dict.fromkeys(copied), 1):
        _enter(target, folder << FOLDER_SHIFT | uid, row_id, _unknown(now), 0)
    return tuple(Place(name, uid) for uid in range(1, len(set(copied)) + 1))


def _fit(target: apsw.Connection) -> None:
    """Have counters and logs say what the messages say."""
    # What FETCH CHANGEDSINCE and VANISHED knew of the time before is not kept: a copy is not synchronised with.
    folders: list[Any] = target.execute("SELECT id FROM folders").fetchall()
    for (folder,) in folders:
        base = folder << FOLDER_SHIFT
        span = (base | 1, base | UID_MASK)
        uids = [uid_of(entry) for (entry,) in target.execute("SELECT id FROM entries WHERE id BETWEEN ? AND ? ORDER BY id", span)]
        counted = aggregate(
            target,
            "SELECT coalesce(max(e.modseq), 1), count(*), count(*) FILTER (WHERE flags & 1 = 0), count(*) FILTER (WHERE flags & 8 != 0),"
            " coalesce(sum(m.size), 0) FROM entries e JOIN messages m ON m.id = e.message_id WHERE e.id BETWEEN ? AND ?",
            span,
        )
        target.execute(
            "UPDATE folders SET uidnext = max(uidnext, ?2), modseq = max(modseq, ?3), logged_since = max(modseq, ?3), messages = ?4,"
            " unseen = ?5, deleted = ?6, octets = ?7 WHERE id = ?1",
            (folder, max(uids, default=0) + 1, *counted),
        )
        uidnext, modseq = aggregate(target, "SELECT uidnext, modseq FROM folders WHERE id = ?", (folder,))
        present = [(0, 0), *runs(uids), (uidnext, uidnext)]
        gone = tuple((before[1] + 1, after[0] - 1) for before, after in pairwise(present) if before[1] + 1 < after[0])
        log_expunged(target, folder, modseq, gone)
