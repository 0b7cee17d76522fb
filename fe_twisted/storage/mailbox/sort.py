"""SORT: messages of a folder in the order of their keys (RFC 5256, RFC 5957).

What is compared never changes once a message is stored, and UIDs are never used again.  So the order of a whole folder stays right until
a message comes in, whatever flags change and whatever is expunged; the last few orders are kept, and a search picks from them.
"""

from __future__ import annotations

import datetime
from array import array
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import apsw

from fe_twisted.protocols.imap.search import Key
from fe_twisted.protocols.imap.sort import Criterion, SortKey
from fe_twisted.storage.mailbox.rows import entry_id
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


class Orders:
    """Orders of whole folders that were asked for lately.  May be used in several threads, each with a connection of its own."""

    def __init__(self) -> None:
        self._kept: dict[_Name, tuple[int, array[int]]] = {}

    def knows(self, folder_id: int, criteria: tuple[Criterion, ...]) -> bool:
        """Whether there was such an order; it may have to be made again."""
        return (folder_id, criteria) in self._kept

    def sort(
        self, connection: apsw.Connection, folder_id: int, program: Key, criteria: tuple[Criterion, ...], now: datetime.datetime
    ) -> list[int]:
        """The UIDs that match, in order; see :meth:`fe_twisted.storage.mailbox.api.Mailbox.sort`."""
        found = search(connection, folder_id, program, now)
        if len(found) < 2:
            return found
        order = self._order(connection, folder_id, criteria)
        if len(found) == len(order):
            return order.tolist()
        wanted = set(found)
        return [uid for uid in order if uid in wanted]

    def _order(self, connection: apsw.Connection, folder_id: int, criteria: tuple[Criterion, ...]) -> array[int]:
        name = folder_id, criteria
        uidnext = int(connection.execute("SELECT uidnext FROM folders WHERE id = ?", (folder_id,)).get or 0)
        kept = self._kept.get(name)
        if kept is not None and kept[0] == uidnext:
            return kept[1]
        order = array("L", _sorted(connection, folder_id, criteria))
        if name not in self._kept and len(self._kept) >= MAX_KEPT:
            self._kept.clear()
        self._kept[name] = uidnext, order
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
