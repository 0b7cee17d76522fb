"""Tables that nobody needs any more: put aside under another name, and emptied a little at a time.

What is deleted is overwritten, so that to drop a large table takes long, and as much room in the WAL as it has.  A full-text table is four
ordinary ones to SQLite; these are put aside, and the table that they belong to is dropped without them.  One that is damaged can neither
be emptied nor dropped; it stays under a third name, and nobody asks for it again.
"""

from __future__ import annotations

import re
from typing import Any

import apsw

#: Rows that are deleted in one transaction: up to some 4 KiB each, or, in tables without a rowid, some dozens of octets.
ROWS = 250
SMALL_ROWS = 2_500

_PREFIX = "discarded_"
_DAMAGED = "damaged_"
_NAME = re.compile(_PREFIX + r"(\d+)")


def put_aside(connection: apsw.Connection, table: str) -> None:
    """Take an ordinary table away, whatever it holds; its name is free afterwards.  Its indexes stay with it, and keep theirs."""
    rows: Any = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND (name GLOB ? OR name GLOB ?)", (_PREFIX + "*", _DAMAGED + "*")
    )
    number = max((int(name.rpartition("_")[2]) for (name,) in rows), default=0) + 1
    connection.execute(f"ALTER TABLE {table} RENAME TO {_PREFIX}{number}")


def put_index_aside(connection: apsw.Connection, table: str) -> None:
    """Take a contentless full-text table away, whatever it holds; its name is free afterwards.

    What this transaction has changed in it must have been written before (``flush``): it goes nowhere later.
    """
    for part in ("data", "idx", "docsize"):
        put_aside(connection, f"{table}_{part}")
    connection.execute(f"DROP TABLE {table}")


def waiting(connection: apsw.Connection) -> list[str]:
    """Names of tables that were put aside and are still there."""
    rows: Any = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB ?", (_PREFIX + "*",))
    return [name for (name,) in rows if _NAME.fullmatch(name)]


def discard_some(connection: apsw.Connection) -> bool:
    """Delete some rows of a table that was put aside, or the table once it is empty; returns whether there was one.

    :raises apsw.CorruptError: see :func:`pass_over`.
    """
    names = waiting(connection)
    if not names:
        return False
    name = names[0]
    sql = str(connection.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (name,)).get)
    key, most = ("(segid, term)", SMALL_ROWS) if sql.endswith("WITHOUT ROWID") else ("rowid", ROWS)
    connection.execute(f"DELETE FROM {name} WHERE {key} IN (SELECT {key.strip('()')} FROM {name} LIMIT {most})")
    if not connection.changes():
        connection.execute(f"DROP TABLE {name}")
    return True


def pass_over(connection: apsw.Connection) -> bool:
    """The table that :func:`discard_some` would come to next is damaged: go on without it; returns whether there was one."""
    names = waiting(connection)
    if names:
        connection.execute(f"ALTER TABLE {names[0]} RENAME TO {_DAMAGED}{names[0].removeprefix(_PREFIX)}")
    return bool(names)
