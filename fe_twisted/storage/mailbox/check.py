"""The consistency check of a mailbox file: every invariant, as sentences about what does not hold."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import apsw

from fe_twisted.base.errors import DamagedFile
from fe_twisted.storage.mailbox import words
from fe_twisted.storage.mailbox.content import load_content, unpack
from fe_twisted.storage.mailbox.expunged import logged
from fe_twisted.storage.mailbox.rows import aggregate, folder_rows
from fe_twisted.storage.mailbox.salvage import (
    CONTENT,
    DERIVED,
    Place,
    content_of,
    damaged_trees,
    salvage,
    sentence,
    table_of,
    unreadable,
    unreadable_rows,
)
from fe_twisted.storage.mailbox.schema import FOLDER_SHIFT, UID_MASK

_QUERIES: tuple[tuple[str, str], ...] = (
    (
        "message {0} has no entry and is not listed as an orphan",
        "SELECT id FROM messages WHERE id NOT IN (SELECT message_id FROM entries) AND id NOT IN (SELECT message_id FROM orphans)",
    ),
    ("entry {0} has no message", "SELECT id FROM entries WHERE message_id NOT IN (SELECT id FROM messages)"),
    (
        "entry {0} belongs to no folder",
        f"SELECT id FROM entries WHERE (id >> {FOLDER_SHIFT}) NOT IN (SELECT id FROM folders WHERE selectable)",
    ),
    ("message {0} has no header", "SELECT id FROM messages WHERE id NOT IN (SELECT message_id FROM headers)"),
    ("message {0} has no summary", "SELECT id FROM messages WHERE id NOT IN (SELECT message_id FROM summaries)"),
    ("message {0} has no body", "SELECT id FROM messages WHERE id NOT IN (SELECT message_id FROM bodies)"),
    ("message {0} has no search fields", "SELECT id FROM messages WHERE id NOT IN (SELECT message_id FROM fields)"),
    ("message {0} has no search text", "SELECT id FROM messages WHERE id NOT IN (SELECT message_id FROM texts)"),
    ("message {0} has no sort keys", "SELECT id FROM messages WHERE id NOT IN (SELECT message_id FROM orders)"),
    ("message {0} has no preview", "SELECT id FROM messages WHERE id NOT IN (SELECT message_id FROM previews)"),
    ("message {0} belongs to no thread", "SELECT id FROM messages WHERE thread < 1"),
    (
        "the Message-ID of message {0} leads to no thread",
        "SELECT message_id FROM orders WHERE identity != 0 AND identity NOT IN (SELECT identity FROM kin)",
    ),
    ("thread {0} has no message left", "SELECT DISTINCT thread FROM kin WHERE thread NOT IN (SELECT thread FROM messages)"),
    (
        "entry {0} has a modseq that the log of changes does not know",
        f"SELECT e.id FROM entries e JOIN folders f ON f.id = e.id >> {FOLDER_SHIFT} WHERE e.modseq > f.logged_since AND NOT EXISTS"
        " (SELECT 1 FROM touched t WHERE t.folder_id = f.id AND t.modseq = e.modseq"
        f" AND e.id & {UID_MASK} BETWEEN t.first AND t.last)",
    ),
    (
        "the gap that ends before UID {1} of folder {0} touches the next one",
        "SELECT a.folder_id, b.first FROM gaps a JOIN gaps b ON b.folder_id = a.folder_id AND b.first = a.last + 1",
    ),
    ("page {0} of the vocabulary is not in the trigram index", "SELECT id FROM vocabulary WHERE id NOT IN (SELECT rowid FROM grams)"),
    ("the trigram index has page {0} of no vocabulary", "SELECT rowid FROM grams WHERE rowid NOT IN (SELECT id FROM vocabulary)"),
    ("attachment {0} belongs to no message", "SELECT id FROM attachments WHERE id NOT IN (SELECT attachment_id FROM cuts)"),
    ("cut of message {0} has no attachment", "SELECT message_id FROM cuts WHERE attachment_id NOT IN (SELECT id FROM attachments)"),
)


@dataclass(frozen=True, slots=True)
class Report:
    """What a look at a whole mailbox file brought.

    :param problems: all that is wrong, as sentences.
    :param notes: what it does not touch, and what need not be done, as sentences.
    :param damaged: tables and indexes with pages that cannot be read.
    :param lost: places of messages that cannot be read.
    :param hit: places of messages that can be read, and of which something else cannot: flags, or what lists, SORT and SEARCH go by.
    """

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    lost: list[Place] = field(default_factory=list)
    hit: list[Place] = field(default_factory=list)


def problems(connection: apsw.Connection, *, contents: bool = True) -> list[str]:
    """All that is wrong; empty when all is well.

    :param contents: also put every message together and compare its SHA-256.
    :raises apsw.Error: the file is damaged; see :func:`examine`.
    """
    found = [sentence for _, step in _STEPS for sentence in step(connection)]
    if contents:
        found += _contents(connection)
    return found


def examine(connect: Callable[[], apsw.Connection]) -> Report:
    """The same for a file that may be damaged: one check that cannot be made keeps none of the others from being made.

    :param connect: opens it, again after each check that met damage: what FTS5 was reading it holds on to, and with that to the error.
    :raises apsw.Error: something else than damage.
    """
    report = Report()
    stopped: list[str] = []
    connection = connect()
    try:
        for name, step in (*_STEPS, ("contents", _contents)):
            try:
                found = list(step(connection))
                # It names pages that cannot be read by their numbers; they are told in other words.
                if name == _INTEGRITY and found and damaged_trees(connection):
                    stopped.append(name)
                else:
                    report.problems.extend(found)
            except (apsw.Error, DamagedFile) as error:
                if not unreadable(error):
                    raise
                stopped.append(name)
                connection.close()
                connection = connect()
        if stopped:
            _tell(connection, report, stopped)
    finally:
        connection.close()
    return report


def _tell(connection: apsw.Connection, report: Report, stopped: list[str]) -> None:
    """Of a file of which pages cannot be read: which tables, which messages, and what is whole."""
    trees = damaged_trees(connection)
    report.damaged.extend(name for _, name in trees)
    tables = {table for table, _ in trees}
    areas = {_area(table) for table in tables}
    for area in (area for area in _AREAS if area in areas):
        those = ", ".join(name for table, name in trees if _area(table) == area)
        (report.notes if area is _ASIDE else report.problems).append(area.format(those))
    names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage").fetchall()
    for (name,) in names if _INTEGRITY in stopped else ():
        if name not in tables:  # None when the map of pages, too, is damaged
            rows = table_of(connection, f"PRAGMA integrity_check('{name}')") or ()
            report.problems.extend(str(text) for (text,) in rows if text != "ok")
    found = salvage(connection)
    bad: set[int] = set()
    for message_id in {*(entry.message_id for entry in found.entries), *found.strays}:
        try:
            content_of(connection, found, message_id)
        except DamagedFile:
            bad.add(message_id)
    ids = sorted({entry.message_id for entry in found.entries} - bad)
    hit = {message_id for table in DERIVED if table in tables for message_id in unreadable_rows(connection, table, ids)}
    report.lost.extend(found.place(entry.id) for entry in found.entries if entry.message_id in bad)
    report.hit.extend(
        found.place(entry.id) for entry in found.entries if entry.message_id not in bad and (entry.row is None or entry.message_id in hit)
    )
    if report.lost:
        report.problems.append(f"messages that cannot be read: {sentence(report.lost)}")
    if report.hit:
        report.problems.append(f"messages that can be read, but not all that is kept of them: {sentence(report.hit)}")
    if found.strays:
        report.problems.append(f"of {len(found.strays)} messages nothing says in which folder they are")
    for folder, number in found.uncounted.items():
        if number:
            report.problems.append(f"folder {folder}: of {number} messages nothing says any more that they are in it")
    unread = len(report.lost) + len(bad.intersection(found.strays))
    if not trees and not unread:
        report.problems.append(f"no table is damaged, and yet these checks could not be made: {', '.join(stopped)}")
    total = len(found.entries) + len(found.strays)
    if not unread and not found.strays and not any(found.uncounted.values()):
        report.notes.append(f"the mail is whole: each of {total} messages was put together and is as it came in")
    else:
        report.notes.append(f"of {total} messages {total - unread} are whole; mailbox export writes them")
    if not areas - {_INDEX, _ASIDE}:
        report.notes.append("folders, flags and lists are whole, too")
    if _INDEX in areas:
        report.notes.append("the search index holds no mail; it is made anew when the next SEARCH after a login meets the damage")
    checks = [name for name in stopped if name not in (_INTEGRITY, "contents")]
    if checks:
        report.notes.append(f"not checked, since it reads what is damaged: {', '.join(checks)}")


def _folders(connection: apsw.Connection) -> Iterator[str]:
    for row in folder_rows(connection):
        span = (row.id << FOLDER_SHIFT | 1, row.id << FOLDER_SHIFT | UID_MASK)
        counted = aggregate(
            connection,
            "SELECT count(*), count(*) FILTER (WHERE flags & 1 = 0), count(*) FILTER (WHERE flags & 8 != 0),"
            f" coalesce(sum(m.size), 0), coalesce(max(e.id & {UID_MASK}), 0), coalesce(max(e.modseq), 0)"
            " FROM entries e JOIN messages m ON m.id = e.message_id WHERE e.id BETWEEN ? AND ?",
            span,
        )
        kept = (row.messages, row.unseen, row.deleted, row.octets)
        if kept != counted[:4]:
            yield f"folder {row.id}: counters say {kept}, the messages say {counted[:4]}"
        if counted[4] >= row.uidnext:
            yield f"folder {row.id}: UID {counted[4]} is not below UIDNEXT {row.uidnext}"
        if counted[5] > row.modseq:
            yield f"folder {row.id}: modseq {counted[5]} is above HIGHESTMODSEQ {row.modseq}"
        yield from _expunged(connection, row.id, row.uidnext, row.modseq, counted[0])


def _expunged(connection: apsw.Connection, folder_id: int, uidnext: int, highest: int, present: int) -> Iterator[str]:
    base = folder_id << FOLDER_SHIFT
    ranges = logged(connection, folder_id)
    lost = uidnext - 1 - present - sum(last - first + 1 for first, last, _ in ranges)
    if lost:
        yield f"folder {folder_id}: of {lost} UIDs nobody knows what became: they are neither there nor logged as expunged"
    for first, last, modseq in ranges:
        if not 0 < first <= last < uidnext or modseq > highest:
            yield f"folder {folder_id}: expunge log has UIDs {first}-{last} at modseq {modseq}"
        if connection.execute("SELECT 1 FROM entries WHERE id BETWEEN ? AND ?", (base | first, base | last)).get is not None:
            yield f"folder {folder_id}: a UID between {first} and {last} was expunged and is there"


def _contents(connection: apsw.Connection) -> Iterator[str]:
    messages: list[Any] = connection.execute("SELECT id, digest, size FROM messages").fetchall()
    for message_id, digest, size in messages:
        try:
            content = load_content(connection, message_id)
        except DamagedFile as error:
            yield error.reason
            continue
        if len(content) != size or hashlib.sha256(content).digest() != digest:
            yield f"message {message_id} does not come out as it went in"
    rows: Iterator[Any] = connection.execute("SELECT id, digest, size, coding, data FROM attachments")
    for attachment_id, digest, size, coding, data in rows:
        stored = unpack(coding, data)
        if len(stored) != size or hashlib.sha256(stored).digest() != digest:
            yield f"attachment {attachment_id} does not come out as it went in"


def _integrity(connection: apsw.Connection) -> Iterator[str]:
    yield from (str(text) for (text,) in connection.execute("PRAGMA integrity_check") if text != "ok")


def _foreign_keys(connection: apsw.Connection) -> Iterator[str]:
    yield from (f"foreign key broken in {row[0]}" for row in connection.execute("PRAGMA foreign_key_check"))


def _query(what: str, query: str, connection: apsw.Connection) -> Iterator[str]:
    yield from (what.format(*row) for row in connection.execute(query))


_INTEGRITY = "integrity"

#: What is checked besides the contents, each by itself, and what a check is called that cannot be made.
_STEPS: tuple[tuple[str, Callable[[apsw.Connection], Iterable[str]]], ...] = (
    (_INTEGRITY, _integrity),
    ("foreign keys", _foreign_keys),
    *((f"whether {what.replace('{0}', '…')}", partial(_query, what, query)) for what, query in _QUERIES),
    ("counters and logs of folders", _folders),
    ("search index", words.problems),
)

_INDEX = "the search index is damaged ({})"
_ASIDE = "an old search index that nobody reads any more is damaged ({}); nothing has to be done about it"
_CONTENT = "contents of messages are damaged ({})"
_DERIVED = "what lists, SORT and SEARCH go by is damaged ({}); export makes it anew of the messages"
_ENTRIES = "what says which message is in which folder, with its flags, is damaged ({})"
_OTHER = "folders and settings of the mailbox are damaged ({})"
_AREAS = (_CONTENT, _ENTRIES, _OTHER, _DERIVED, _INDEX, _ASIDE)


def _area(table: str) -> str:
    """The sentence about damage to a table."""
    if table.startswith(("discarded_", "damaged_")):
        return _ASIDE
    if table == "vocabulary" or table.startswith(("terms_", "grams_")):
        return _INDEX
    if table in CONTENT:
        return _CONTENT
    if table in (*DERIVED, "kin"):
        return _DERIVED
    return _ENTRIES if table == "entries" else _OTHER
