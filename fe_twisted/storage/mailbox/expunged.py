"""Which UIDs were expunged, and when: what QRESYNC tells (RFC 7162), and what SELECT takes the messages from that are there.

The last expunges are in ``expunged``, one row for each range, exactly as they were.  Older ones are moved to ``gaps``, a few at a time:
there, ranges that touch are one, with the highest modseq of them.  So there are never more gaps than messages that are still there, and
ranges in ``expunged``, to lie between them; and a client that was away for long may be told of UIDs that it knows to be gone, but never of
too few: a server that has forgotten when something was expunged errs on that side (RFC 7162 section 3.2.6).

Every UID below UIDNEXT is there, or in exactly one range of one of the two.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import apsw

from fe_twisted.protocols.imap.search import Ranges

#: Ranges of a file that are kept as they were, and so many more before some of them are moved.
KEPT = 4096
LOOK = 1024

#: Ranges that are moved in one transaction.
STEP = 1000

_ALL = (
    "SELECT first, last, modseq FROM gaps WHERE folder_id = ?1 AND modseq > ?2"
    " UNION ALL SELECT first, last, modseq FROM expunged WHERE folder_id = ?1 AND modseq > ?2 LIMIT ?3"
)


def log_expunged(connection: apsw.Connection, folder_id: int, modseq: int, uids: Ranges) -> None:
    """These were there, and are gone at this modseq, the folder's latest."""
    connection.executemany(
        "INSERT INTO expunged(folder_id, modseq, first, last) VALUES(?, ?, ?, ?)",
        [(folder_id, modseq, first, last) for first, last in uids],
    )


def logged(connection: apsw.Connection, folder_id: int, since: int = 0, limit: int = -1) -> list[tuple[int, int, int]]:
    """``(first, last, modseq)`` of ranges with a later modseq than ``since``, in no order; they do not overlap.

    :param limit: ranges at most; negative for all.
    """
    rows: list[Any] = connection.execute(_ALL, (folder_id, since, limit)).fetchall()
    return rows


def overlong(connection: apsw.Connection) -> bool:
    """Whether it is time for :func:`settle_some`; found quickly."""
    return _surplus(connection) >= LOOK


def settle_some(connection: apsw.Connection) -> bool:
    """Move the oldest ranges that need not be kept as they were, if it is time for that; returns whether it still is."""
    surplus = _surplus(connection)
    if surplus <= 0:
        return False
    rows: list[Any] = connection.execute(
        "SELECT folder_id, first, last, modseq, id FROM expunged ORDER BY id LIMIT ?", (min(surplus, STEP),)
    ).fetchall()
    for folder_id, first, last, modseq in _joined(sorted(row[:4] for row in rows)):
        _widen(connection, folder_id, first, last, modseq)
    connection.execute("DELETE FROM expunged WHERE id <= ?", (rows[-1][4],))
    return surplus > STEP


def _surplus(connection: apsw.Connection) -> int:
    """How many rows there may be that need not be kept as they were: ids ascend."""
    spread = connection.execute("SELECT (SELECT max(id) FROM expunged) - (SELECT min(id) FROM expunged)").get
    return 0 if spread is None else int(spread) + 1 - KEPT


def _joined(rows: Iterable[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """``(folder, first, last, modseq)``, ascending, as one where they touch."""
    out: list[tuple[int, int, int, int]] = []
    for folder_id, first, last, modseq in rows:
        if out and out[-1][0] == folder_id and out[-1][2] + 1 == first:
            out[-1] = (folder_id, out[-1][1], last, max(out[-1][3], modseq))
        else:
            out.append((folder_id, first, last, modseq))
    return out


def _widen(connection: apsw.Connection, folder_id: int, first: int, last: int, modseq: int) -> None:
    """Add a range to the gaps, and make it one with those that it touches."""
    before: Any = connection.execute(
        "SELECT first, last, modseq FROM gaps WHERE folder_id = ? AND first < ? ORDER BY first DESC LIMIT 1", (folder_id, first)
    ).fetchone()
    after: Any = connection.execute(
        "DELETE FROM gaps WHERE folder_id = ? AND first = ? RETURNING last, modseq", (folder_id, last + 1)
    ).fetchone()
    if after is not None:
        last, modseq = after[0], max(modseq, after[1])
    if before is not None and before[1] + 1 == first:
        connection.execute(
            "UPDATE gaps SET last = ?, modseq = ? WHERE folder_id = ? AND first = ?", (last, max(modseq, before[2]), folder_id, before[0])
        )
    else:
        connection.execute("INSERT INTO gaps(folder_id, first, last, modseq) VALUES(?, ?, ?, ?)", (folder_id, first, last, modseq))
