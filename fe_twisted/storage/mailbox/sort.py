"""SORT: messages of a folder in the order of their keys (RFC 5256, RFC 5957).

What is compared never changes once a message is stored, and UIDs are never used again.  So the order of a whole folder stays right until
a message comes in, whatever flags change and whatever is expunged; the last few orders are kept, and a search picks from them.  When
nothing at all changed in the folder, and all of it is asked for, there is nothing to search.
"""

from __future__ import annotations

import datetime
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import apsw

from fe_twisted.protocols.imap.ranges import intersect
from fe_twisted.protocols.imap.search import All, And, Key, Ranges, Uids
from fe_twisted.protocols.imap.sort import Criterion, SortKey
from fe_twisted.storage.mailbox.rows import entry_id, runs
from fe_twisted.storage.mailbox.schema import UID_MASK
from fe_twisted.storage.mailbox.search import search

#: Orders that are kept; 4 octets for each message of the folder.
MAX_KEPT = 8

_RECEIVED = "CAST(strftime('%s', e.received_at) AS INTEGER)"
_EXPRESSIONS: dict[SortKey, str] = {
    SortKey.ARRIVAL: "e.received_at",
    SortKey.CC: "o.cc",
    # RFC 5256 section 2.2: INTERNALDATE where there is no Date: field that can be read
    SortKey.DATE: f"coalesce(o.sent, {_RECEIVED})",
    SortKey.FROM: "o.sender",
    SortKey.SIZE: "(SELECT m.size FROM messages m WHERE m.id = e.message_id)",
    SortKey.SUBJECT: "o.subject",
    SortKey.TO: "o.recipient",
    SortKey.DISPLAYFROM: "o.sender_name",
    SortKey.DISPLAYTO: "o.recipient_name",
}

_Name = tuple[int, tuple[Criterion, ...]]


@dataclass(slots=True)
class _Order:
    """UIDs in order, the same as ranges, and the state of the folder in which these were all of its messages."""

    uidnext: int
    modseq: int
    uids: array[int]
    ranges: Ranges


def state_of(connection: apsw.Connection, folder_id: int) -> tuple[int, int, int]:
    """UIDNEXT, modseq and number of messages of a folder, zeros when it is gone."""
    row = connection.execute("SELECT uidnext, modseq, messages FROM folders WHERE id = ?", (folder_id,)).fetchone()
    return (int(row[0]), int(row[1]), int(row[2])) if row else (0, 0, 0)


def covers(program: Key, uids: Ranges) -> bool:
    """Whether it needs no look at the messages to see that the program matches all of these."""
    match program:
        case All():
            return True
        case Uids(ranges):
            return intersect(ranges, uids) == uids
        case And(keys):
            return all(covers(key, uids) for key in keys)
        case _:
            return False


class Orders:
    """Orders of whole folders that were asked for lately.  May be used in several threads, each with a connection of its own."""

    def __init__(self) -> None:
        self._kept: dict[_Name, _Order] = {}

    def knows(self, folder_id: int, criteria: tuple[Criterion, ...]) -> bool:
        """Whether there was such an order; it may have to be made again."""
        return (folder_id, criteria) in self._kept

    def sort(
        self, connection: apsw.Connection, folder_id: int, program: Key, criteria: tuple[Criterion, ...], now: datetime.datetime
    ) -> list[int]:
        """The UIDs that match, in order; see :meth:`fe_twisted.storage.mailbox.api.Mailbox.sort`."""
        uidnext, modseq, messages = state_of(connection, folder_id)
        kept = self._kept.get((folder_id, criteria))
        if kept is not None and kept.modseq == modseq and covers(program, kept.ranges):
            return kept.uids.tolist()
        found = search(connection, folder_id, program, now)
        if len(found) < 2:
            return found
        if kept is None or kept.uidnext != uidnext:
            kept = self._keep((folder_id, criteria), uidnext, modseq, _sorted(connection, folder_id, criteria))
        if len(found) == len(kept.uids):
            uids = kept.uids.tolist()
        else:
            wanted = set(found)
            uids = [uid for uid in kept.uids if uid in wanted]
        if kept.modseq != modseq and len(found) == messages:
            self._keep((folder_id, criteria), uidnext, modseq, uids)
        return uids

    def _keep(self, name: _Name, uidnext: int, modseq: int, uids: list[int]) -> _Order:
        order = _Order(uidnext, modseq, array("L", uids), runs(sorted(uids)))
        if name not in self._kept and len(self._kept) >= MAX_KEPT:
            self._kept.clear()
        self._kept[name] = order
        return order


def _sorted(connection: apsw.Connection, folder_id: int, criteria: Sequence[Criterion]) -> list[int]:
    """All UIDs of the folder in order."""
    span = (entry_id(folder_id, 1), entry_id(folder_id, UID_MASK))
    values = ", ".join(_EXPRESSIONS[criterion.key] for criterion in criteria)
    joined = " JOIN orders o ON o.message_id = e.message_id" if "o." in values else ""
    sql = f"SELECT {values}, e.id & {UID_MASK} FROM entries e{joined} WHERE e.id BETWEEN ? AND ? ORDER BY e.id"
    rows: list[Any] = connection.execute(sql, span).fetchall()
    # From the last key to the first, each sort keeping what the others made; equal messages stay in the order of their UIDs, also
    # with REVERSE (RFC 5256 section 3).
    for column in reversed(range(len(criteria))):
        key: Callable[[Any], Any] = itemgetter(column)
        rows.sort(key=key, reverse=criteria[column].reverse)
    return [row[-1] for row in rows]
