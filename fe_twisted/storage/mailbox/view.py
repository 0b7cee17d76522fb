"""What SELECT and the untagged updates need: a folder's state, and what changed since a modseq."""

from __future__ import annotations

from typing import Any

import apsw

from fe_twisted.protocols.imap.ranges import subtract
from fe_twisted.protocols.imap.search import Ranges
from fe_twisted.storage.mailbox.api import Changes, Selected
from fe_twisted.storage.mailbox.folders import status_of
from fe_twisted.storage.mailbox.rows import FolderRow, entry_id, folder_of, runs, selectable, spans, uid_of
from fe_twisted.storage.mailbox.schema import UID_MASK
from fe_twisted.storage.mailbox.touched import joined, touched_since


def select_folder(connection: apsw.Connection, name: str) -> Selected:
    r"""The folder as it is now; ``\Recent`` is what nobody claimed yet.

    :raises NoSuchFolder:
    """
    row = selectable(connection, name)
    span = (entry_id(row.id, 1), entry_id(row.id, UID_MASK))
    uids = _present(connection, row)
    unseen = connection.execute("SELECT min(id) FROM entries WHERE flags & 1 = 0 AND id BETWEEN ? AND ?", span).get
    return Selected(
        folder_id=row.id,
        name=row.name,
        status=status_of(row),
        uids=uids,
        recent=_from(uids, row.first_recent),
        first_unseen=uid_of(unseen) if unseen is not None else 0,
    )


def _present(connection: apsw.Connection, folder: FolderRow) -> Ranges:
    """The UIDs of all messages.

    Every UID below UIDNEXT is there or logged as expunged (:mod:`fe_twisted.storage.mailbox.check` proves it), and the log, which has
    ranges, is as a rule far shorter.  Where it is not, the messages are gone through.
    """
    few = folder.messages // 8 + 16
    logged: list[Any] = connection.execute("SELECT first, last FROM expunged WHERE folder_id = ? LIMIT ?", (folder.id, few)).fetchall()
    if len(logged) < few:
        return subtract(((1, folder.uidnext - 1),), joined(sorted(logged))) if folder.uidnext > 1 else ()
    span = (entry_id(folder.id, 1), entry_id(folder.id, UID_MASK))
    return runs(uid_of(entry) for (entry,) in connection.execute("SELECT id FROM entries WHERE id BETWEEN ? AND ? ORDER BY id", span))


def claim_recent(connection: apsw.Connection, folder_id: int, upto: int) -> None:
    r"""Make all UIDs below ``upto`` no longer ``\Recent`` for others."""
    connection.execute("UPDATE folders SET first_recent = ?1 WHERE id = ?2 AND first_recent < ?1", (upto, folder_id))


def changes_since(connection: apsw.Connection, folder_id: int, since: int, uidnext: int) -> Changes:
    """See :meth:`fe_twisted.storage.mailbox.api.Mailbox.changes`."""
    row = folder_of(connection, folder_id)
    if row is None:
        return Changes(0, 0, (), (), (), (), exists=False)
    changed: list[Any] = []
    for low, high in spans(folder_id, touched_since(connection, row, since)):
        changed += connection.execute(
            f"SELECT id & {UID_MASK}, flags, modseq FROM entries WHERE id BETWEEN ? AND ? AND modseq > ? ORDER BY id",
            (low, min(high, entry_id(folder_id, uidnext) - 1), since),
        )
    added: list[Any] = connection.execute(
        f"SELECT id & {UID_MASK}, flags, modseq FROM entries WHERE id BETWEEN ? AND ? ORDER BY id",
        (entry_id(folder_id, uidnext), entry_id(folder_id, UID_MASK)),
    ).fetchall()
    return Changes(
        modseq=row.modseq,
        uidnext=row.uidnext,
        added=added,
        changed=changed,
        vanished=vanished_since(connection, folder_id, since),
        recent=_recent(row, [uid for uid, _, _ in added]),
    )


def vanished_since(connection: apsw.Connection, folder_id: int, since: int) -> Ranges:
    """UIDs that were expunged after the modseq.  The log is kept as long as the folder, so the answer is exact for any modseq."""
    logged = connection.execute("SELECT first, last FROM expunged WHERE folder_id = ? AND modseq > ? ORDER BY first", (folder_id, since))
    return joined(logged.fetchall())


def _recent(row: FolderRow, added: list[int]) -> Ranges:
    return runs(uid for uid in added if uid >= row.first_recent)


def _from(uids: Ranges, first: int) -> Ranges:
    return tuple((max(low, first), high) for low, high in uids if high >= first)
