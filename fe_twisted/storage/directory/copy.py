"""A whole directory into an empty one, the embedded file into PostgreSQL above all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, func, insert, select, text, update

from fe_twisted.base.errors import Refused, StorageFailed
from fe_twisted.storage.directory.faults import translated
from fe_twisted.storage.directory.schema import accounts, aliases, domains, key_slots, meta
from fe_twisted.storage.directory.sql import SqlDirectory

#: In an order in which each row finds what it refers to.
TABLES: tuple[Table, ...] = (accounts, domains, aliases, key_slots)

#: Rows in one INSERT.
BATCH = 500


@dataclass(frozen=True, slots=True)
class Copied:
    """What was copied.

    :param rows: by table.
    :param digest: SHA-256 of everything, the same in both directories.
    """

    rows: dict[str, int]
    digest: str


def copy_directory(source: SqlDirectory, target: SqlDirectory) -> Copied:
    """Copy everything, ids included, in one transaction, and compare by count and digest before and after the commit.

    Nobody changes the source meanwhile: others wait, and are told that it is busy if that takes long.

    :param target: as :func:`~fe_twisted.storage.directory.sql.open_directory` makes it, with nothing in it.
    :raises Refused: there is something in the target.
    :raises StorageFailed: what arrived is not what was sent; unless that shows after the commit only, nothing was changed.
    :raises fe_twisted.base.errors.MailError: one of them cannot be used.
    """
    with translated(), source.writing() as origin:
        # Every change begins with this row.
        origin.execute(update(meta).values(generation=meta.c.generation))
        with target.writing() as there:
            there.execute(update(meta).values(generation=meta.c.generation))
            if any(_count(there, table) for table in TABLES):
                raise Refused("there is a directory already, with something in it; nothing was changed. Name an empty database")
            for table in TABLES:
                for rows in origin.execute(select(table).order_by(table.c.id)).mappings().partitions(BATCH):
                    there.execute(insert(table), [dict(row) for row in rows])
            _count_on(there)
            there.execute(update(meta).values(**origin.execute(select(meta.c.generation, meta.c.shared_secret)).mappings().one()))
            sent = digest(origin)
            _compare(sent, digest(there))
        with target.writing() as there:
            _compare(sent, digest(there))
        return sent


def digest(connection: Connection) -> Copied:
    """Of everything that a directory holds."""
    found = hashlib.sha256()
    rows: dict[str, int] = {}
    for table in (meta, *TABLES):
        columns = sorted(column.name for column in table.columns)
        _add(found, [table.name, *columns])
        number = 0
        for row in connection.execute(select(*(table.c[name] for name in columns)).order_by(table.c.id)):
            _add(found, row)
            number += 1
        rows[table.name] = number
    del rows[meta.name]
    return Copied(rows, found.hexdigest())


def _add(found: Any, values: Iterable[Any]) -> None:
    """Each value with its type and length, so that no two rows look alike."""
    for value in values:
        octets = value if isinstance(value, bytes) else b"" if value is None else str(value).encode()
        kind = b"n" if value is None else b"b" if isinstance(value, bytes) else b"i" if isinstance(value, int) else b"t"
        found.update(kind + len(octets).to_bytes(8, "big") + octets)


def _count(connection: Connection, table: Table) -> int:
    return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def _count_on(connection: Connection) -> None:
    """PostgreSQL gives out ids from sequences, which do not notice ids that were brought along."""
    if connection.dialect.name == "postgresql":
        for table in TABLES:
            last = f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), (SELECT max(id) FROM {table.name}))"
            connection.execute(text(last))


def _compare(sent: Copied, arrived: Copied) -> None:
    """:raises StorageFailed: they differ."""
    if sent != arrived:
        raise StorageFailed("the copy is not what was copied; it must not be used", reason=f"{sent} became {arrived}")
