"""FETCH's rows: columns of many messages in few large steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import apsw

from fe_twisted.protocols.imap.search import Ranges
from fe_twisted.storage.mailbox.api import Column, Row
from fe_twisted.storage.mailbox.content import assemble, handle_of
from fe_twisted.storage.mailbox.rows import imap_date_of_iso, spans
from fe_twisted.storage.mailbox.schema import UID_MASK

#: A batch ends at this many rows, or once it holds this many octets of headers and contents.
BATCH_ROWS = 500
BATCH_OCTETS = 256 * 1024

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
    "content": "NULL",
}
_IN_MESSAGES = frozenset({"size", "envelope", "bodystructure", "body", "parts", "emailid", "threadid"})
#: A body that is read in pieces has a coding of at least 4 (content.IN_PIECES); its message has a number for a content.
_CONTENT = (
    ", e.message_id, h.data, b.coding, CASE WHEN b.coding < 4 THEN b.data END,"
    " EXISTS(SELECT 1 FROM cuts c WHERE c.message_id = e.message_id)"
)


def read_rows(
    connection: apsw.Connection, folder_id: int, uids: Ranges, columns: Sequence[Column], changed_since: int
) -> Iterator[list[Row]]:
    """Batches of rows, ascending by UID; the statement is open while a batch is made, never between two.

    :param changed_since: only messages with a larger modseq; 0 for all.
    """
    sql = _statement(columns)
    repairs = _repairs(columns)
    whole = columns.index("content") if "content" in columns else -1
    heavy = whole >= 0 or "header" in columns
    for low, high in spans(folder_id, uids):
        while low <= high:
            batch, last = _batch(connection, sql, (low, high, changed_since), len(columns), whole, heavy)
            if repairs:
                batch = [_repair(row, repairs) for row in batch]
            if batch:
                yield batch
            low = last + 1 if last else high + 1


def _statement(columns: Sequence[Column]) -> str:
    joins = " JOIN messages m ON m.id = e.message_id" if _IN_MESSAGES.intersection(columns) else ""
    if "preview" in columns:
        joins += " JOIN previews p ON p.message_id = e.message_id"
    whole = "content" in columns
    if whole or "header" in columns:
        joins += " JOIN headers h ON h.message_id = e.message_id"
    if whole:
        joins += " JOIN bodies b ON b.message_id = e.message_id"
    values = "".join(f"{_EXPRESSION[column]}, " for column in columns)
    return f"SELECT {values}e.id{_CONTENT if whole else ''} FROM entries e{joins} WHERE e.id BETWEEN ? AND ? AND e.modseq > ? ORDER BY e.id"


def _batch(
    connection: apsw.Connection, sql: str, parameters: tuple[int, int, int], width: int, whole: int, heavy: bool
) -> tuple[list[Row], int]:
    """Up to a batch of rows, and the key of the last one if there may be more (else 0)."""
    cursor = connection.cursor()
    try:
        if not heavy:
            rows: list[Any] = cursor.execute(sql + f" LIMIT {BATCH_ROWS}", parameters).fetchall()
            return [row[:width] for row in rows], rows[-1][width] if len(rows) == BATCH_ROWS else 0
        batch: list[Row] = []
        octets = 0
        for row in cursor.execute(sql, parameters):
            values = row[:width]
            if whole >= 0:
                content = assemble(connection, *row[width + 1 :]) if row[width + 4] is not None else handle_of(connection, row[width + 1])
                values = (*values[:whole], content, *values[whole + 1 :])
            batch.append(values)
            octets += sum(len(value) for value in values if isinstance(value, bytes))
            if octets >= BATCH_OCTETS or len(batch) >= BATCH_ROWS:
                return batch, row[width]
        return batch, 0
    finally:
        cursor.close()


def _repairs(columns: Sequence[Column]) -> list[tuple[int, bool]]:
    """Positions of columns that are text in the file and must be bytes in a row, and whether that text is a date."""
    return [(position, column == "savedate") for position, column in enumerate(columns) if column in ("savedate", "emailid", "preview")]


def _repair(row: Row, positions: list[tuple[int, bool]]) -> Row:
    values = list(row)
    for position, date in positions:
        text = str(values[position])
        values[position] = imap_date_of_iso(text) if date else text.encode()
    return tuple(values)
