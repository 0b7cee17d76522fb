"""Tables that nobody needs any more: put aside under another name, and emptied a little at a time.

What is deleted is overwritten, so that to drop a large table takes long, and as much room in the WAL as it has.  A full-text table is four
ordinary ones to SQLite; these are put aside, and the table that they belong to is dropped without them.
"""

from __future__ import annotations

import re
from typing import Any

import apsw

#: Rows that are deleted in one transaction: up to some 4 KiB each, or, in tables without a rowid, some dozens of octets.
ROWS = 250
SMALL_ROWS = 2_500

_PREFIX = "discarded_"
_NAME = re.compile(_PREFIX + r"(\d+)")


def put_aside(connection: apsw.Connection, table: str) -> None:
    """Take an ordinary table away, whatever it holds; its name is free afterwards.  Its indexes stay, and should be dropped before."""
    numbers = [int(name.removeprefix(_PREFIX)) for name in waiting(connection)]
    connection.execute(f"ALTER TABLE {table} RENAME TO {_PREFIX}{max(numbers, default=0) + 1}")


def put_index_aside(connection: apsw.Connection, table: str) -> None:
    """Take a contentless full-text table away, whatever it holds; its name is free afterwards."""
    connection.execute(
        f"INSERT INTO {table}({table}) VALUES('flush')"
    )  # what this transaction has changed is in memory, and goes nowhere later
    for part in ("data", "idx", "docsize"):
        put_aside(connection, f"{table}_{part}")
    connection.execute(f"DROP TABLE {table}")


def waiting(connection: apsw.Connection) -> list[str]:
    """Names of tables that were put aside and are still there."""
    rows: Any = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB ?", (_PREFIX + "*",))
    return [name for (name,) in rows if _NAME.fullmatch(name)]


def discard_some(connection: apsw.Connection) -> bool:
    """Delete some rows of a table that was put aside, or the table once it is empty; returns whether there was one."""
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
