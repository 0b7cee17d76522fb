"""How much waits, asked by somebody who is not the process that owns the folder: for the command line.

Nothing on the disk is made, changed or removed, and nobody is kept from anything.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from fe_twisted.base import errors
from fe_twisted.protocols.crypto.derive import spool_key
from fe_twisted.storage.sqlite.connect import connect_beside, connect_still, storage_errors

_COUNT = "SELECT count(*), coalesce(sum(refused), 0) FROM message"


class Peeked(NamedTuple):
    """What one temporary mailbox holds.

    :param waiting: messages that move in at the next login.
    :param refused: messages that were set aside.
    :param since: seconds since the epoch when the first message came to the empty mailbox; None in a file of an older version.
    """

    waiting: int
    refused: int
    since: int | None


def peek(path: Path, mailbox_id: str, server_key: bytes, *, cipher: str = "chacha20") -> Peeked | None:
    """Look into a temporary mailbox; None when that cannot be done just now, or there is none.

    :param server_key: 32 octets, of this box.
    """
    key = spool_key(server_key, mailbox_id)
    try:
        wal = path.with_name(path.name + "-wal")
        beside = wal.exists() and wal.stat().st_size > 0
        connection = connect_beside(path, key=key, cipher=cipher) if beside else connect_still(path, key=key, cipher=cipher)
        with contextlib.closing(connection), storage_errors(connection):
            return _look(connection)
    except (errors.MailError, OSError):  # it has gone, or is just being written, closed or made
        return None


def _look(connection: apsw.Connection) -> Peeked:
    total, refused = _row(connection, _COUNT)
    known = int(connection.pragma("user_version")) > 1
    since = _row(connection, "SELECT max(at) FROM began")[0] if known else None
    return Peeked(total - refused, refused, since)


def _row(connection: apsw.Connection, sql: str) -> Any:
    return next(connection.execute(sql))
