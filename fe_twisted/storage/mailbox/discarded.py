"""Tables that nobody needs any more: put aside under another name, and emptied a little at a time.

What is deleted is overwritten, so that to drop a large table takes long, and as much room in the WAL as it has.  A full-text table is four
ordinary ones to SQLite; these are put aside, and empty ones take their place.  One that is damaged can neither be emptied nor dropped; it
stays under a third name, and nobody asks for it again: its pages are lost to the file until that is written anew (a copy by ``mailbox
export`` is without them).

To put a table aside looks at none of its pages.  Nothing is dropped on that way, since SQLite moves the last root page of the file to
where the dropped one was, and so has to read it.  An empty table is made at the page after the last root page: what lies there is moved,
and that is all that has to be readable, it and the page that points to it.
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
#: Format of a full-text table as FTS5 writes it; without that it opens none.  https://www.sqlite.org/fts5.html section 8
_FORMAT = 4

_NAME = re.compile(_PREFIX + r"(\d+)")


def put_aside(connection: apsw.Connection, table: str) -> None:
    """Have an empty table in the place of an ordinary one, whatever that holds.  The indexes of the old one stay with it, and keep their
    names; the new one has none.
    """
    rows: Any = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND (name GLOB ? OR name GLOB ?)", (_PREFIX + "*", _DAMAGED + "*")
    )
    number = max((int(name.rpartition("_")[2]) for (name,) in rows), default=0) + 1
    sql = str(connection.execute("SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?", (table,)).get)
    connection.execute(f"ALTER TABLE {table} RENAME TO {_PREFIX}{number}")
    connection.execute(sql)


def put_index_aside(connection: apsw.Connection, table: str, *, damaged: bool) -> None:
    """Empty a contentless full-text table, whatever it holds.

    What this transaction has changed in it must have been written before (``flush``): it goes nowhere later.

    :param damaged: its settings, too, may be unreadable.  (It cannot be tried: SQLite ends the transaction.)
    """
    for part in ("data", "idx", "docsize"):
        put_aside(connection, f"{table}_{part}")
    if damaged:
        put_aside(connection, f"{table}_config")
        connection.execute(f"INSERT INTO {table}_config(k, v) VALUES('version', {_FORMAT})")
    # Writes what FTS5 expects in an empty one, and has it forget what it knew of the old one.
    connection.execute(f"INSERT INTO {table}({table}) VALUES('delete-all')")


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
    key, most = ("rowid", ROWS)
    if sql.endswith("WITHOUT ROWID"):
        key, most = ("segid, term" if "segid" in sql else "k"), SMALL_ROWS
    connection.execute(f"DELETE FROM {name} WHERE ({key}) IN (SELECT {key} FROM {name} LIMIT {most})")
    if not connection.changes():
        connection.execute(f"DROP TABLE {name}")
    return True


def pass_over(connection: apsw.Connection) -> bool:
    """The table that :func:`discard_some` would come to next is damaged: go on without it; returns whether there was one."""
    names = waiting(connection)
    if names:
        connection.execute(f"ALTER TABLE {names[0]} RENAME TO {_DAMAGED}{names[0].removeprefix(_PREFIX)}")
    return bool(names)
