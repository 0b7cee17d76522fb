"""What SELECT and the untagged updates need: a folder's state, and what changed since a modseq."""

from __future__ import annotations

from typing import Any

import apsw

from fe_twisted.protocols.imap.ranges import count, intersect, subtract
from fe_twisted.protocols.imap.search import Ranges
from fe_twisted.storage.mailbox.api import Changes, Selected
from fe_twisted.storage.mailbox.expunged import logged
from fe_twisted.storage.mailbox.folders import status_of
from fe_twisted.storage.mailbox.rows import FolderRow, entry_id, folder_of, runs, selectable, spans, uid_of
from fe_twisted.storage.mailbox.schema import UID_MASK
from fe_twisted.storage.mailbox.touched import joined, touched_since

#: Messages that may be passed over, and rows of each log that may be read, where others wait for it: some milliseconds.
FEW = 16_000
FEW_LOGGED = 4_000


def select_folder(connection: apsw.Connection, name: str) -> Selected:
    r"""The folder as it is now; ``\Recent`` is what nobody claimed yet.  Of a large folder with many gaps that may take a while.

    :raises NoSuchFolder:
    """
    found = _select(connection, name, -1, -1)
    assert found is not None, "without limits there is always an answer"
    return found


def quickly_select(connection: apsw.Connection, name: str) -> Selected | None:
    """The same, or None, quickly, when it would take long to find out.

    :raises NoSuchFolder:
    """
    return _select(connection, name, FEW, FEW_LOGGED)


def _select(connection: apsw.Connection, name: str, few: int, few_logged: int) -> Selected | None:
    """:param few, few_logged: see :data:`FEW`; negative for no limit."""
    row = selectable(connection, name)
    span = (entry_id(row.id, 1), entry_id(row.id, UID_MASK))
    uids = _present(connection, row, few, few_logged)
    if uids is None:
        return None
    unseen = connection.execute("SELECT min(id) FROM entries WHERE flags & 1 = 0 AND id BETWEEN ? AND ?", span).get
    return Selected(
        folder_id=row.id,
        name=row.name,
        status=status_of(row),
        uids=uids,
        recent=_from(uids, row.first_recent),
        first_unseen=uid_of(unseen) if unseen is not None else 0,
    )


def _present(connection: apsw.Connection, folder: FolderRow, few: int, few_logged: int) -> Ranges | None:
    """The UIDs of all messages; None when neither is short.

    Every UID below UIDNEXT is there or logged as expunged (:mod:`fe_twisted.storage.mailbox.check` proves it), and the log, which has
    ranges, is as a rule far shorter.  Where it is not, the messages are gone through.
    """
    most = folder.messages // 8 + 16
    most = min(most, few_logged) if few_logged >= 0 else most
    gone = logged(connection, folder.id, limit=most)
    if len(gone) < most:
        return subtract(((1, folder.uidnext - 1),), _together(gone)) if folder.uidnext > 1 else ()
    if 0 <= few < folder.messages:
        return None
    span = (entry_id(folder.id, 1), entry_id(folder.id, UID_MASK))
    return runs(uid_of(entry) for (entry,) in connection.execute("SELECT id FROM entries WHERE id BETWEEN ? AND ? ORDER BY id", span))


def claim_recent(connection: apsw.Connection, folder_id: int, upto: int) -> None:
    r"""Make all UIDs below ``upto`` no longer ``\Recent`` for others."""
    connection.execute("UPDATE folders SET first_recent = ?1 WHERE id = ?2 AND first_recent < ?1", (upto, folder_id))


def changes_since(connection: apsw.Connection, folder_id: int, since: int, uidnext: int) -> Changes:
    """See :meth:`fe_twisted.storage.mailbox.api.Mailbox.changes`; of a large folder that may take a while.  To be asked in one snapshot."""
    found = _changes_since(connection, folder_id, since, uidnext, -1, -1)
    assert found is not None, "without limits there is always an answer"
    return found


def few_changes_since(connection: apsw.Connection, folder_id: int, since: int, uidnext: int) -> Changes | None:
    """The same, or None, quickly, when it would take long to find out."""
    return _changes_since(connection, folder_id, since, uidnext, FEW, FEW_LOGGED)


def _changes_since(connection: apsw.Connection, folder_id: int, since: int, uidnext: int, few: int, few_logged: int) -> Changes | None:
    """:param few, few_logged: see :data:`FEW`; negative for no limit."""
    row = folder_of(connection, folder_id)
    if row is None:
        return Changes(0, 0, (), (), (), (), exists=False)
    touched = touched_since(connection, row, since, few_logged)
    gone = _expunged_since(connection, folder_id, since, few_logged)
    if touched is None or gone is None:
        return None
    below = ((1, max(1, min(uidnext, row.uidnext) - 1)),)
    if touched and few >= 0 and count(intersect(touched, below)) + max(0, row.uidnext - uidnext) > few:
        return None
    changed: list[Any] = []
    for low, high in spans(folder_id, touched):
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
        vanished=gone,
        recent=_recent(row, [uid for uid, _, _ in added]),
    )


def vanished_since(connection: apsw.Connection, folder_id: int, since: int) -> Ranges:
    """All UIDs that were expunged after the modseq, and some that were expunged before, if it is long ago.  That may take a while."""
    return _expunged_since(connection, folder_id, since, -1) or ()


def few_vanished_since(connection: apsw.Connection, folder_id: int, since: int) -> Ranges | None:
    """The same, or None, quickly, when there are many."""
    return _expunged_since(connection, folder_id, since, FEW_LOGGED)


def _expunged_since(connection: apsw.Connection, folder_id: int, since: int, most: int) -> Ranges | None:
    """:param most: None is returned when there are more ranges, if not negative."""
    gone = logged(connection, folder_id, since, most + 1 if most >= 0 else -1)
    return None if 0 <= most < len(gone) else _together(gone)


def _together(gone: list[tuple[int, int, int]]) -> Ranges:
    """The UIDs of ranges that were expunged."""
    return joined(sorted((first, last) for first, last, _ in gone))


def _recent(row: FolderRow, added: list[int]) -> Ranges:
    return runs(uid for uid in added if uid >= row.first_recent)


def _from(uids: Ranges, first: int) -> Ranges:
    return tuple((max(low, first), high) for low, high in uids if high >= first)
