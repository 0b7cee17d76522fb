"""Changes of messages: APPEND, COPY, MOVE, STORE, EXPUNGE.  Each function is one piece of work inside a transaction."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import apsw

from fe_twisted.base.errors import LimitReached, NoSuchFolder, NoSuchMessage, TryCreate
from fe_twisted.protocols.imap.search import Ranges
from fe_twisted.storage.mailbox import words
from fe_twisted.storage.mailbox.api import DELETED, SEEN, Appended, Copied, Expunged, NewMessage, Stored
from fe_twisted.storage.mailbox.content import store_content
from fe_twisted.storage.mailbox.expunged import log_expunged
from fe_twisted.storage.mailbox.flags import make_mask
from fe_twisted.storage.mailbox.kin import forget_thread, thread_of
from fe_twisted.storage.mailbox.prepared import Prepared, prepare
from fe_twisted.storage.mailbox.rows import (
    FolderRow,
    Outcome,
    aggregate,
    count_again,
    entry_id,
    folder_of,
    imap_date,
    iso,
    next_modseq,
    runs,
    selectable,
    spans,
    uid_of,
)
from fe_twisted.storage.mailbox.schema import UID_MASK
from fe_twisted.storage.mailbox.touched import log_touched, prune_log

Now = Callable[[], datetime.datetime]

_NO_UIDS = "the mailbox has used up all its UIDs; move its messages to a new one"


# -- APPEND ---------------------------------------------------------------------------------------


def append_messages(
    connection: apsw.Connection,
    name: str,
    messages: Sequence[NewMessage],
    now: datetime.datetime,
    ready: Sequence[Prepared | None] | None = None,
) -> Outcome[Appended]:
    """Store messages in a folder.

    :param now: aware; SAVEDATE, and INTERNALDATE where the message has none.
    :param ready: for each message what was prepared of it; None is done here.
    :raises TryCreate: no such folder.
    """
    folder = selectable(connection, name, TryCreate)
    both = zip(messages, ready or [None] * len(messages), strict=True)
    fresh = [(message, prepared) for message, prepared in both if not _delivered_before(connection, message.delivery_id, now)]
    if not fresh:
        return Outcome(Appended(folder.uidvalidity, [0] * len(messages)))
    if folder.uidnext + len(fresh) > UID_MASK:
        raise LimitReached(_NO_UIDS)
    modseq = folder.modseq + 1
    uids: dict[int, int] = {}
    octets = unseen = deleted = 0
    for uid, (message, prepared) in enumerate(fresh, folder.uidnext):
        row_id, size = store_message(connection, message.content, prepared)
        flags = _enter(connection, entry_id(folder.id, uid), row_id, modseq, message, now)
        octets += size
        unseen += not flags & SEEN
        deleted += bool(flags & DELETED)
        uids[id(message)] = uid
    connection.execute(
        "UPDATE folders SET uidnext = ?, modseq = ?, messages = messages + ?, octets = octets + ?, unseen = unseen + ?,"
        " deleted = deleted + ? WHERE id = ?",
        (folder.uidnext + len(fresh), modseq, len(fresh), octets, unseen, deleted, folder.id),
    )
    log_touched(connection, folder.id, modseq, ((folder.uidnext, folder.uidnext + len(fresh) - 1),))
    return Outcome(Appended(folder.uidvalidity, [uids.get(id(message), 0) for message in messages]), {folder.id: modseq})


def replace_message(
    connection: apsw.Connection,
    folder_id: int,
    uid: int,
    name: str,
    message: NewMessage,
    now: datetime.datetime,
    ready: Sequence[Prepared | None] | None = None,
) -> Outcome[Appended]:
    """Store a message and remove another (RFC 8508).

    :param ready: see :func:`append_messages`.

    :raises TryCreate: no such folder.
    :raises NoSuchFolder: that of the old message was deleted.
    :raises NoSuchMessage: the old message is not there.
    """
    source = _folder(connection, folder_id)
    if not _present(connection, source.id, ((uid, uid),)):
        raise NoSuchMessage
    stored = append_messages(connection, name, (message,), now, ready)
    removed = remove_entries(connection, source.id, ((uid, uid),))
    return Outcome(stored.value, stored.modseqs | {source.id: removed})


def _delivered_before(connection: apsw.Connection, delivery_id: bytes | None, now: datetime.datetime) -> bool:
    if delivery_id is None:
        return False
    connection.execute("INSERT OR IGNORE INTO deliveries(id, stored_at) VALUES(?, ?)", (delivery_id, iso(now)))
    return connection.changes() == 0


def forget_deliveries(connection: apsw.Connection, before: str) -> None:
    """Forget the ids of deliveries stored before this ISO 8601 moment; one that is repeated later is stored again."""
    connection.execute("DELETE FROM deliveries WHERE stored_at < ?", (before,))


def _take_uids(connection: apsw.Connection, folder: FolderRow, count: int) -> int:
    """Reserve UIDs; returns the first.

    :raises LimitReached: the folder has used up 32 bits (RFC 9051 section 2.3.1.1).
    """
    after = connection.execute("UPDATE folders SET uidnext = uidnext + ? WHERE id = ? RETURNING uidnext", (count, folder.id)).get
    if int(after) > UID_MASK:
        raise LimitReached(_NO_UIDS)
    return int(after) - count


def _enter(connection: apsw.Connection, entry: int, row_id: int, modseq: int, message: NewMessage, now: datetime.datetime) -> int:
    """Put a stored message into a folder; returns its flags."""
    flags = make_mask(connection, message.flags)
    received = message.internaldate or now
    connection.execute(
        "INSERT INTO entries(id, message_id, flags, modseq, day, received_at, internaldate, saved_at) VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
        (entry, row_id, flags, modseq, received.toordinal(), iso(received), imap_date(received), iso(now)),
    )
    return flags


def store_message(connection: apsw.Connection, content: bytes, ready: Prepared | None = None) -> tuple[int, int]:
    """Store a message's content if the mailbox does not have it yet; returns its row id and its size in octets."""
    digest = ready.digest if ready is not None else hashlib.sha256(content).digest()
    found = connection.execute("SELECT id, size FROM messages WHERE digest = ?", (digest,)).fetchone()
    if found is not None:
        return int(found[0]), int(found[1])
    ready = ready or prepare(content)
    connection.execute(
        "INSERT INTO messages(digest, object_id, size, header_size, sent_at, sent_day, message_id, thread, envelope, body, structure,"
        " parts)"
        " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (digest, *ready.row, thread_of(connection, ready.keys, digest), *ready.rendered),
    )
    row_id = connection.last_insert_rowid()
    store_content(connection, row_id, ready.pieces)
    connection.execute(
        "INSERT INTO fields(message_id, subject, sender, recipient, cc, bcc) VALUES(?, ?, ?, ?, ?, ?)", (row_id, *ready.fields)
    )
    connection.execute(
        "INSERT INTO orders(message_id, sent, subject, reply, sender, recipient, cc, sender_name, recipient_name, identity, refs)"
        " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (row_id, *ready.orders),
    )
    connection.execute("INSERT INTO previews(message_id, text) VALUES(?, ?)", (row_id, ready.preview))
    connection.execute("INSERT INTO texts(message_id, header, body) VALUES(?, ?, ?)", (row_id, *ready.texts))
    return row_id, len(content)


# -- STORE ----------------------------------------------------------------------------------------


def store_flags(
    connection: apsw.Connection,
    folder_id: int,
    uids: Ranges,
    action: Literal["add", "remove", "replace"],
    names: frozenset[str],
    unchanged_since: int | None,
) -> Outcome[Stored]:
    r"""Change flags (RFC 3501 section 6.4.6); messages that have them already keep their modseq.

    :raises NoSuchFolder: the folder was deleted.
    :raises LimitReached: too many keywords.
    """
    folder = _folder(connection, folder_id)
    mask = make_mask(connection, names)
    change = {"add": "flags | ?1", "remove": "flags & ~?1", "replace": "?1"}[action]
    untouched = "modseq <= ?4" if unchanged_since is not None else "?4 IS NULL"
    modseq = folder.modseq + 1
    modified: list[int] = []
    touched = 0
    counted = action == "replace" or mask & (SEEN | DELETED)
    before = _flag_counts(connection, folder_id, uids) if counted else (0, 0)
    for low, high in spans(folder_id, uids):
        if unchanged_since is not None:
            failed = connection.execute(
                "SELECT id FROM entries WHERE id BETWEEN ? AND ? AND modseq > ? ORDER BY id", (low, high, unchanged_since)
            )
            modified.extend(uid_of(entry) for (entry,) in failed)
        connection.execute(
            f"UPDATE entries SET flags = {change}, modseq = ?5 WHERE id BETWEEN ?2 AND ?3 AND {untouched} AND flags != {change}",
            (mask, low, high, unchanged_since, modseq),
        )
        touched += connection.changes()
    modseqs: dict[int, int] = {}
    rows = _flag_rows(connection, folder_id, uids)
    if touched:
        modseqs[folder_id] = next_modseq(connection, folder_id)
        log_touched(connection, folder_id, modseq, runs(uid for uid, _, changed in rows if changed == modseq))
        if counted:
            after = _flag_counts(connection, folder_id, uids)
            count_again(connection, folder_id, messages=0, octets=0, unseen=after[0] - before[0], deleted=after[1] - before[1])
    failed_uids = set(modified)
    changed = [row for row in rows if row[0] not in failed_uids] if failed_uids else rows
    return Outcome(Stored(modseqs.get(folder_id, folder.modseq), changed, runs(modified), modseqs.get(folder_id, 0)), modseqs)


def _flag_counts(connection: apsw.Connection, folder_id: int, uids: Ranges) -> tuple[int, int]:
    r"""How many of the messages lack ``\Seen``, and how many have ``\Deleted``."""
    unseen = deleted = 0
    for span in spans(folder_id, uids):
        row = aggregate(
            connection,
            "SELECT count(*) FILTER (WHERE flags & 1 = 0), count(*) FILTER (WHERE flags & 8 != 0) FROM entries WHERE id BETWEEN ? AND ?",
            span,
        )
        unseen += row[0]
        deleted += row[1]
    return unseen, deleted


def _flag_rows(connection: apsw.Connection, folder_id: int, uids: Ranges) -> list[tuple[int, int, int]]:
    rows: list[Any] = []
    for span in spans(folder_id, uids):
        rows.extend(connection.execute(f"SELECT id & {UID_MASK}, flags, modseq FROM entries WHERE id BETWEEN ? AND ? ORDER BY id", span))
    return rows


# -- COPY, MOVE, EXPUNGE --------------------------------------------------------------------------


def copy_messages(connection: apsw.Connection, folder_id: int, uids: Ranges, target: str, now: datetime.datetime) -> Outcome[Copied]:
    """Copy with flags and INTERNALDATE (RFC 9051 section 6.4.7).

    :raises TryCreate: no such target.
    :raises NoSuchFolder: the source was deleted.
    """
    source = _folder(connection, folder_id)
    destination = selectable(connection, target, TryCreate)
    return copy_entries(connection, source, uids, destination, iso(now))


def copy_entries(connection: apsw.Connection, source: FolderRow, uids: Ranges, target: FolderRow, saved_at: str | None) -> Outcome[Copied]:
    """The rows of a COPY.

    :param saved_at: the SAVEDATE of the copies; None keeps the old one.
    """
    old = _present(connection, source.id, uids)
    if not old:
        return Outcome(Copied(target.uidvalidity, [], []))
    first = _take_uids(connection, target, len(old))
    modseq = next_modseq(connection, target.id)
    new = list(range(first, first + len(old)))
    connection.executemany(
        "INSERT INTO entries(id, message_id, flags, modseq, day, received_at, internaldate, saved_at)"
        " SELECT ?, message_id, flags, ?, day, received_at, internaldate, coalesce(?, saved_at) FROM entries WHERE id = ?",
        [(entry_id(target.id, to), modseq, saved_at, entry_id(source.id, uid)) for uid, to in zip(old, new, strict=True)],
    )
    log_touched(connection, target.id, modseq, ((first, first + len(old) - 1),))
    messages, octets, unseen, deleted = _totals(connection, target.id, ((first, first + len(old) - 1),))
    count_again(connection, target.id, messages=messages, octets=octets, unseen=unseen, deleted=deleted)
    return Outcome(Copied(target.uidvalidity, old, new), {target.id: modseq})


def move_messages(connection: apsw.Connection, folder_id: int, uids: Ranges, target: str, now: datetime.datetime) -> Outcome[Copied]:
    """MOVE (RFC 6851): copy and remove at once.  SAVEDATE becomes ``now`` (RFC 8514 section 3).

    :raises TryCreate: no such target.
    :raises NoSuchFolder: the source was deleted.
    """
    source = _folder(connection, folder_id)
    return move_entries(connection, source, uids, selectable(connection, target, TryCreate), iso(now))


def move_entries(
    connection: apsw.Connection, source: FolderRow, uids: Ranges, target: FolderRow, saved_at: str | None = None
) -> Outcome[Copied]:
    """The rows of a MOVE; source and target may be the same folder, then the messages get new UIDs.

    :param saved_at: the new SAVEDATE; None keeps the old one.
    """
    copied = copy_entries(connection, source, uids, target, saved_at)
    if not copied.value.source:
        return copied
    modseq = remove_entries(connection, source.id, runs(copied.value.source), orphan=False)
    value = Copied(copied.value.uidvalidity, copied.value.source, copied.value.target, modseq)
    return Outcome(value, copied.modseqs | {source.id: modseq})


def expunge_messages(connection: apsw.Connection, folder_id: int, uids: Ranges | None) -> Outcome[Expunged]:
    r"""Remove the messages with ``\Deleted``, of ``uids`` only if given (RFC 4315 section 2.1).

    :raises NoSuchFolder: the folder was deleted.
    """
    folder = _folder(connection, folder_id)
    doomed: list[int] = []
    for span in spans(folder_id, uids if uids is not None else ((1, UID_MASK),)):
        rows = connection.execute("SELECT id FROM entries WHERE flags & 8 != 0 AND id BETWEEN ? AND ? ORDER BY id", span)
        doomed.extend(uid_of(entry) for (entry,) in rows)
    gone = runs(doomed)
    if not gone:
        return Outcome(Expunged(folder.modseq, ()))
    modseq = remove_entries(connection, folder_id, gone)
    return Outcome(Expunged(modseq, gone), {folder_id: modseq})


def remove_entries(connection: apsw.Connection, folder_id: int, uids: Ranges, *, orphan: bool = True) -> int:
    """Take messages out of a folder and log it; returns the folder's new modseq.

    :param orphan: their content may have lost its last folder.
    """
    messages, octets, unseen, deleted = _totals(connection, folder_id, uids)
    modseq = next_modseq(connection, folder_id)
    for low, high in spans(folder_id, uids):
        if orphan:
            connection.execute(
                "INSERT OR IGNORE INTO orphans(message_id) SELECT message_id FROM entries WHERE id BETWEEN ? AND ?", (low, high)
            )
        present = runs(
            uid_of(entry) for (entry,) in connection.execute("SELECT id FROM entries WHERE id BETWEEN ? AND ? ORDER BY id", (low, high))
        )
        log_expunged(connection, folder_id, modseq, present)
        connection.execute("DELETE FROM entries WHERE id BETWEEN ? AND ?", (low, high))
    prune_log(connection, folder_id, modseq)
    count_again(connection, folder_id, messages=-messages, octets=-octets, unseen=-unseen, deleted=-deleted)
    return modseq


def collect_orphans(connection: apsw.Connection, limit: int) -> int:
    """Remove the content of up to ``limit`` messages that no folder refers to; returns how many candidates were looked at."""
    ids = [int(message_id) for (message_id,) in connection.execute("SELECT message_id FROM orphans LIMIT ?", (limit,))]
    for message_id in ids:
        if connection.execute("SELECT 1 FROM entries WHERE message_id = ?", (message_id,)).get is None:
            _forget(connection, message_id)
        connection.execute("DELETE FROM orphans WHERE message_id = ?", (message_id,))
    if ids:
        words.settle(connection)
    return len(ids)


def _forget(connection: apsw.Connection, message_id: int) -> None:
    attachments = [row[0] for row in connection.execute("SELECT attachment_id FROM cuts WHERE message_id = ?", (message_id,))]
    thread = connection.execute("SELECT thread FROM messages WHERE id = ?", (message_id,)).get
    connection.execute("DELETE FROM messages WHERE id = ?", (message_id,))  # headers, bodies, cuts, fields, texts go with it
    words.forget(connection, message_id)
    forget_thread(connection, int(thread or 0))
    for attachment in attachments:
        connection.execute(
            "DELETE FROM attachments WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM cuts WHERE attachment_id = ?1)", (attachment,)
        )


def _folder(connection: apsw.Connection, folder_id: int) -> FolderRow:
    row = folder_of(connection, folder_id)
    if row is None:
        raise NoSuchFolder("the mailbox was deleted")
    return row


def _present(connection: apsw.Connection, folder_id: int, uids: Ranges) -> list[int]:
    found: list[int] = []
    for span in spans(folder_id, uids):
        found.extend(uid_of(entry) for (entry,) in connection.execute("SELECT id FROM entries WHERE id BETWEEN ? AND ? ORDER BY id", span))
    return found


def _totals(connection: apsw.Connection, folder_id: int, uids: Iterable[tuple[int, int]]) -> tuple[int, int, int, int]:
    r"""``(messages, octets, without \Seen, with \Deleted)`` of the messages."""
    totals = [0, 0, 0, 0]
    for span in spans(folder_id, tuple(uids)):
        row = aggregate(
            connection,
            "SELECT count(*), coalesce(sum(m.size), 0), count(*) FILTER (WHERE flags & 1 = 0), count(*) FILTER (WHERE flags & 8 != 0)"
            " FROM entries e JOIN messages m ON m.id = e.message_id WHERE e.id BETWEEN ? AND ?",
            span,
        )
        totals = [total + value for total, value in zip(totals, row, strict=True)]
    return totals[0], totals[1], totals[2], totals[3]
