"""The consistency check of a mailbox file: every invariant, as sentences about what does not hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import apsw

from fe_twisted.base.errors import DamagedFile
from fe_twisted.storage.mailbox import words
from fe_twisted.storage.mailbox.content import load_content, unpack
from fe_twisted.storage.mailbox.rows import aggregate, folder_rows
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
    ("page {0} of the vocabulary is not in the trigram index", "SELECT id FROM vocabulary WHERE id NOT IN (SELECT rowid FROM grams)"),
    ("the trigram index has page {0} of no vocabulary", "SELECT rowid FROM grams WHERE rowid NOT IN (SELECT id FROM vocabulary)"),
    ("attachment {0} belongs to no message", "SELECT id FROM attachments WHERE id NOT IN (SELECT attachment_id FROM cuts)"),
    ("cut of message {0} has no attachment", "SELECT message_id FROM cuts WHERE attachment_id NOT IN (SELECT id FROM attachments)"),
)


def problems(connection: apsw.Connection, *, contents: bool = True) -> list[str]:
    """All that is wrong; empty when all is well.

    :param contents: also put every message together and compare its SHA-256.
    """
    found = [str(text) for (text,) in connection.execute("PRAGMA integrity_check") if text != "ok"]
    found += [f"foreign key broken in {row[0]}" for row in connection.execute("PRAGMA foreign_key_check")]
    for sentence, query in _QUERIES:
        found += [sentence.format(*row) for row in connection.execute(query)]
    found += _folders(connection)
    found += words.problems(connection)
    if contents:
        found += _contents(connection)
    return found


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
    logged: list[Any] = connection.execute("SELECT first, last, modseq FROM expunged WHERE folder_id = ?", (folder_id,)).fetchall()
    lost = uidnext - 1 - present - sum(last - first + 1 for first, last, _ in logged)
    if lost:
        yield f"folder {folder_id}: of {lost} UIDs nobody knows what became: they are neither there nor logged as expunged"
    for first, last, modseq in logged:
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
