"""Which messages got a new modseq, and when: so that what changed since a modseq is found without an index of all messages by modseq.

Such an index costs as much as all else that a change of flags writes.  A row of the log says that messages of a range of UIDs got the
modseq; others of the range may have another, so it is asked of each.  Only the last changes of a folder are kept; ``folders.logged_since``
is the modseq from which on the log is whole, and for an earlier one all messages of the folder are looked at.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import apsw

from fe_twisted.protocols.imap.search import Ranges
from fe_twisted.storage.mailbox.rows import FolderRow
from fe_twisted.storage.mailbox.schema import UID_MASK

#: Ranges of one change; more become one that holds them all.
MAX_RANGES = 16

#: Changes of a folder that are kept at least, and so many more before it is looked again for those that need not be.
KEPT = 4096
LOOK = 1024


def log_touched(connection: apsw.Connection, folder_id: int, modseq: int, uids: Ranges) -> None:
    """These messages got this modseq, the folder's latest.

    :param uids: ascending, not empty.
    """
    if len(uids) > MAX_RANGES:
        uids = ((uids[0][0], uids[-1][1]),)
    connection.executemany(
        "INSERT INTO touched(folder_id, modseq, first, last) VALUES(?, ?, ?, ?)", [(folder_id, modseq, first, last) for first, last in uids]
    )
    if modseq % LOOK == 0 and modseq > KEPT:
        connection.execute("DELETE FROM touched WHERE folder_id = ? AND modseq <= ?", (folder_id, modseq - KEPT))
        connection.execute("UPDATE folders SET logged_since = max(logged_since, ?) WHERE id = ?", (modseq - KEPT, folder_id))


def touched_since(connection: apsw.Connection, folder: FolderRow, since: int) -> Ranges:
    """Ranges of UIDs, ascending, with all messages of a later modseq than ``since`` in them, and others."""
    if since >= folder.modseq:
        return ()
    if since < folder.logged_since:
        return ((1, UID_MASK),)
    logged: list[Any] = connection.execute(
        "SELECT first, last FROM touched WHERE folder_id = ? AND modseq > ?", (folder.id, since)
    ).fetchall()
    return joined(sorted(logged))


def joined(ranges: Iterable[Any]) -> Ranges:
    """Ranges sorted by their first UID, as one where they touch or overlap."""
    out: list[tuple[int, int]] = []
    for first, last in ranges:
        if out and first <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(out[-1][1], last))
        else:
            out.append((first, last))
    return tuple(out)
