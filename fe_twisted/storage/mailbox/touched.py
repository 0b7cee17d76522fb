"""Which messages got a new modseq, and when: so that what changed since a modseq is found without an index of all messages by modseq.

Such an index costs as much as all else that a change of flags writes.  A row of the log says that messages of a range of UIDs got the
modseq; others of the range may have another, so it is asked of each.  Only the last changes of a folder are kept; ``folders.logged_since``
is the modseq from which on the log is whole, and for an earlier one all messages of the folder are looked at.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import nlargest
from itertools import pairwise
from typing import Any

import apsw

from fe_twisted.protocols.imap.search import Ranges
from fe_twisted.storage.mailbox.rows import FolderRow
from fe_twisted.storage.mailbox.schema import UID_MASK

#: Ranges of one change that are logged; of more, those with the least between them become one.
MAX_RANGES = 1024

#: Ranges that are looked at for one question: each costs as much as to pass over some dozens of messages.
MAX_SPANS = 512

#: Changes of a folder that are kept at least, and so many more before it is looked again for those that need not be.
KEPT = 4096
LOOK = 1024

#: Rows of one folder that are read at most for one question, and about as many are kept: of a change that logs more than SCATTERED ranges
#: it is asked whether there are more.  To look at all messages takes less then.
MAX_ROWS = 65_536
SCATTERED = 64


def log_touched(connection: apsw.Connection, folder_id: int, modseq: int, uids: Ranges) -> None:
    """These messages got this modseq, the folder's latest.

    :param uids: ascending, not empty.
    """
    uids = coarse(uids, MAX_RANGES)
    connection.executemany(
        "INSERT INTO touched(folder_id, modseq, first, last) VALUES(?, ?, ?, ?)", [(folder_id, modseq, first, last) for first, last in uids]
    )
    prune_log(connection, folder_id, modseq)
    if len(uids) > SCATTERED:
        oldest = connection.execute(
            "SELECT modseq FROM touched WHERE folder_id = ? ORDER BY modseq DESC LIMIT 1 OFFSET ?", (folder_id, MAX_ROWS)
        ).get
        if oldest is not None:
            _forget(connection, folder_id, oldest)


def prune_log(connection: apsw.Connection, folder_id: int, modseq: int) -> None:
    """Forget changes that are so old that they need not be kept; to be called whenever the folder took a modseq.

    :param modseq: the folder's latest.
    """
    if modseq < KEPT + LOOK:
        return
    logged_since = int(connection.execute("SELECT logged_since FROM folders WHERE id = ?", (folder_id,)).get)
    if modseq - logged_since >= KEPT + LOOK:
        _forget(connection, folder_id, modseq - KEPT)


def _forget(connection: apsw.Connection, folder_id: int, upto: int) -> None:
    connection.execute("DELETE FROM touched WHERE folder_id = ? AND modseq <= ?", (folder_id, upto))
    connection.execute("UPDATE folders SET logged_since = ? WHERE id = ?", (upto, folder_id))


def touched_since(connection: apsw.Connection, folder: FolderRow, since: int, most: int = -1) -> Ranges | None:
    """Ranges of UIDs, ascending, with all messages of a later modseq than ``since`` in them, and others.

    :param most: so many rows of the log may be read, if not negative; None is returned when there are more.
    """
    if since >= folder.modseq:
        return ()
    if since < folder.logged_since:
        return ((1, UID_MASK),)
    limit = most if most >= 0 else MAX_ROWS
    logged: list[Any] = connection.execute(
        "SELECT first, last FROM touched WHERE folder_id = ? AND modseq > ? LIMIT ?", (folder.id, since, limit + 1)
    ).fetchall()
    if len(logged) > limit:
        return None if most >= 0 else ((1, UID_MASK),)
    return coarse(joined(sorted(logged)), MAX_SPANS)


def joined(ranges: Iterable[Any]) -> Ranges:
    """Ranges sorted by their first UID, as one where they touch or overlap."""
    out: list[tuple[int, int]] = []
    for first, last in ranges:
        if out and first <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(out[-1][1], last))
        else:
            out.append((first, last))
    return tuple(out)


def coarse(ranges: Ranges, most: int) -> Ranges:
    """At most so many ranges that hold all of these, ascending ones: the widest gaps stay."""
    if len(ranges) <= most:
        return ranges
    gaps = [(after - before, number) for number, ((_, before), (after, _)) in enumerate(pairwise(ranges))]
    cuts = sorted(number for _, number in nlargest(most - 1, gaps))
    firsts = [0, *(number + 1 for number in cuts)]
    return tuple((ranges[first][0], ranges[last][1]) for first, last in zip(firsts, [*cuts, len(ranges) - 1], strict=True))
