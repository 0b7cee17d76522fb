"""What a mailbox uses and how much it can hold (RFC 9208)."""

from __future__ import annotations

import apsw

from fe_twisted.storage.mailbox.api import Quota
from fe_twisted.storage.mailbox.rows import aggregate, entry_id, folder_named
from fe_twisted.storage.mailbox.schema import UID_MASK


def quota(connection: apsw.Connection) -> Quota:
    """Usage from the folders' counters.  Nobody has set a limit, so the limits are those of the file and of the UIDs."""
    octets, messages = aggregate(connection, "SELECT coalesce(sum(octets), 0), coalesce(sum(messages), 0) FROM folders")
    pages = int(connection.pragma("max_page_count"))
    return Quota(octets, pages * int(connection.pragma("page_size")), messages, UID_MASK)


def deleted_octets(connection: apsw.Connection, name: str) -> int:
    r"""Octets of the messages with ``\Deleted`` in a folder, 0 when there is no such folder."""
    row = folder_named(connection, name)
    if row is None or not row.deleted:
        return 0
    span = (entry_id(row.id, 1), entry_id(row.id, UID_MASK))
    sql = (
        "SELECT coalesce(sum(m.size), 0) FROM entries e JOIN messages m ON m.id = e.message_id"
        " WHERE e.flags & 8 != 0 AND e.id BETWEEN ? AND ?"
    )
    return int(aggregate(connection, sql, span)[0])
