"""FETCH's rows: columns of many messages in few large steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import apsw

from fe_twisted.protocols.imap.search import Ranges
from fe_twisted.storage.mailbox.api import Column, Row
from fe_twisted.storage.mailbox.content import assemble, handle_of, unpack
from fe_twisted.storage.mailbox.rows import entry_id, imap_date_of_iso, spans
from fe_twisted.storage.mailbox.schema import UID_MASK

#: A batch ends at this many rows, or once it holds this many octets of headers and contents.
BATCH_ROWS = 500
#: At this many rows, where none of the columns has more than a few octets.
BATCH_LIGHT = 2_000
BATCH_OCTETS = 256 * 1024

#: A column of long values that are short as a rule: how many rows are read at once, and up to how many octets a value is short.  What they
#: can have together, and the batch before them, bounds the memory for it.
_AT_ONCE: dict[Column, tuple[int, int]] = {"summary": (BATCH_ROWS, 4096), "header": (125, 16_384)}

_EXPRESSION: dict[Column, str] = {
    "uid": f"e.id & {UID_MASK}",
    "flags": "e.flags",
    "modseq": "e.modseq",
    "size": "m.size",
    "internaldate": "e.internaldate",
    "savedate": "e.saved_at",
    "envelope": "m.envelope",
    "bodystructure": "m.structure",
    "body": "m.body",
    "parts": "m.parts",
    "emailid": "m.object_id",
    "threadid": "m.thread",
    "preview": "p.text",
    "header": "h.data",
    "summary": "s.data",
    "content": "NULL",
}
_IN_MESSAGES = frozenset({"size", "envelope", "bodystructure", "body", "parts", "emailid", "threadid"})
_LIGHT = frozenset({"uid", "flags", "modseq", "size", "internaldate", "savedate", "emailid", "threadid"})
_LONG = frozenset({"header", "summary", "content"})
#: A body that is read in pieces has a coding of at least 4 (content.IN_PIECES); its message has a number for a content.
_CONTENT = (
    ", e.message_id, h.data, b.coding, CASE WHEN b.coding < 4 THEN b.data END,"
    " EXISTS(SELECT 1 FROM cuts c WHERE c.message_id = e.message_id)"
)


class _Plan(NamedTuple):
    """How a list of columns is read; worked out once.

    :param one: the statement for one message.
    :param sql: that for those from one to another.  Both give the columns, then the UID if it is not among them, then what a whole
        message is put together from.
    :param some: that for no more than ``most`` of them, or None, without what a whole message is put together from; values that are not
        short are NULL.
    :param rows: how many make a batch.
    :param width: how many columns.
    :param uid: where the UID is.
    :param content: where the content is among them, or -1.
    :param sized: where there are columns that may be long, so that a batch must be bounded by octets.
    """

    one: str
    sql: str
    some: str | None
    most: int
    rows: int
    width: int
    uid: int
    content: int
    sized: tuple[int, ...]
    repairs: list[tuple[int, bool]]


def read_rows(
    connection: apsw.Connection, folder_id: int, uids: Ranges, columns: Sequence[Column], changed_since: int, octets: int = BATCH_OCTETS
) -> Iterator[list[Row]]:
    """Batches of rows, ascending by UID; the statement is open while a batch is made, never between two.

    :param octets: how many of headers and contents end a batch.
    :param changed_since: only messages with a larger modseq; 0 for all.
    """
    plan = _plan(tuple(columns))
    batch: list[Row] = []
    room = octets
    some, long = plan.some, False
    for low, high in spans(folder_id, uids):
        base = low & ~UID_MASK
        while low <= high:
            if some is None or long:
                following, room = _long(connection, plan, (low, high, changed_since), batch, room)
                long = False
            else:
                before = len(batch)
                following, room, long = _short(connection, plan, some, (low, high, changed_since), batch, room)
                if long and len(batch) - before < plan.most // 2:
                    some = None  # they are no exception, and what comes behind one is read in vain
            if batch and (long or room <= 0 or len(batch) >= plan.rows):
                yield [_repair(row, plan.repairs) for row in batch] if plan.repairs else batch
                batch, room = [], octets
            if not following:
                break
            low = base + following
    if batch:
        yield [_repair(row, plan.repairs) for row in batch] if plan.repairs else batch


def read_row(connection: apsw.Connection, folder_id: int, uid: int, columns: Sequence[Column]) -> list[Row]:
    """The row of one message, or none."""
    plan = _plan(tuple(columns))
    cursor = connection.execute(plan.one, (entry_id(folder_id, uid),))
    try:
        row: Any = cursor.fetchone()
        if row is None:
            return []
        values = _put_together(connection, plan, row) if plan.content >= 0 else row[: plan.width]
    finally:
        cursor.close()
    return [_repair(values, plan.repairs)] if plan.repairs else [values]


@lru_cache(maxsize=256)
def _plan(columns: tuple[Column, ...]) -> _Plan:
    joins = " JOIN messages m ON m.id = e.message_id" if _IN_MESSAGES.intersection(columns) else ""
    if "preview" in columns:
        joins += " JOIN previews p ON p.message_id = e.message_id"
    if "summary" in columns:
        joins += " JOIN summaries s ON s.message_id = e.message_id"
    whole = "content" in columns
    if whole or "header" in columns:
        joins += " JOIN headers h ON h.message_id = e.message_id"
    if whole:
        joins += " JOIN bodies b ON b.message_id = e.message_id"
    sized = tuple(position for position, column in enumerate(columns) if column in _LONG)
    uid = columns.index("uid") if "uid" in columns else len(columns)
    values = ", ".join([_EXPRESSION[column] for column in (columns if "uid" in columns else (*columns, "uid"))])
    select = f"SELECT {values}{_CONTENT if whole else ''} FROM entries e{joins} WHERE "
    sql = select + "e.id BETWEEN ? AND ? AND e.modseq > ? ORDER BY e.id"
    rows = BATCH_LIGHT if _LIGHT.issuperset(columns) else BATCH_ROWS
    most = min([rows, *(_AT_ONCE[columns[position]][0] for position in sized if columns[position] in _AT_ONCE)])
    some = None if whole else sql + f" LIMIT {most}"
    for column, (_, octets) in _AT_ONCE.items():
        if some and column in columns:
            value = _EXPRESSION[column]
            some = some.replace(value, f"CASE WHEN length({value}) <= {octets} THEN {value} END", 1)
    content = columns.index("content") if whole else -1
    return _Plan(select + "e.id = ?", sql, some, most, rows, len(columns), uid, content, sized, _repairs(columns))


def _short(
    connection: apsw.Connection, plan: _Plan, some: str, parameters: tuple[int, int, int], batch: list[Row], room: int
) -> tuple[int, int, bool]:
    """Add rows to a batch, up to one with a long value; the UID to go on with, 0 for none, the room left, and whether there was one."""
    rows: list[Any] = connection.execute(some, parameters).fetchall()
    following = int(rows[-1][plan.uid]) + 1 if len(rows) == plan.most else 0
    long = next((at for at, row in enumerate(rows) if None in row), -1) if plan.sized else -1
    if long >= 0:
        following = int(rows[long][plan.uid])
        del rows[long:]
    for position in plan.sized:
        room -= sum([len(row[position]) for row in rows])
    batch += rows if plan.uid < plan.width else [row[:-1] for row in rows]
    return following, room, long >= 0


def _long(connection: apsw.Connection, plan: _Plan, parameters: tuple[int, int, int], batch: list[Row], room: int) -> tuple[int, int]:
    """Add rows until the batch is full or has no room for more octets; the UID to go on with, 0 for none, and the room that is left."""
    width, whole = plan.width, plan.content
    cursor = connection.execute(plan.sql, parameters)
    try:
        row: Any
        for row in cursor:
            values = _put_together(connection, plan, row) if whole >= 0 else row[:width]
            batch.append(values)
            for position in plan.sized:
                value = values[position]
                room -= len(value) if isinstance(value, bytes) else 0
            if room <= 0 or len(batch) >= plan.rows:
                return int(row[plan.uid]) + 1, room
        return 0, room
    finally:
        cursor.close()


def _put_together(connection: apsw.Connection, plan: _Plan, row: Any) -> Row:
    """The columns, with the content of the message in its place."""
    message, header, coding, body, cut = row[-5:]
    if body is None:
        content: Any = handle_of(connection, message)
    else:
        content = assemble(connection, message, header, coding, body, cut) if cut else header + unpack(coding, body)
    at = plan.content
    return (*row[:at], content) if at + 1 == plan.width else (*row[:at], content, *row[at + 1 : plan.width])


def _repairs(columns: Sequence[Column]) -> list[tuple[int, bool]]:
    """Positions of columns that are text in the file and must be bytes in a row, and whether that text is a date."""
    return [(position, column == "savedate") for position, column in enumerate(columns) if column in ("savedate", "emailid", "preview")]


def _repair(row: Row, positions: list[tuple[int, bool]]) -> Row:
    values = list(row)
    for position, date in positions:
        text = str(values[position])
        values[position] = imap_date_of_iso(text) if date else text.encode()
    return tuple(values)
