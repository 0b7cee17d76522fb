"""What a mailbox holds, and what storing things once and compressed saves."""

from __future__ import annotations

import os
from dataclasses import dataclass

import apsw

from fe_twisted.storage.mailbox.rows import aggregate


@dataclass(frozen=True, slots=True)
class Stats:
    """All sizes in octets.

    :param messages: in all folders, each copy counted.
    :param distinct: different contents among them.
    :param logical: what the messages come to, each copy counted: the sum of RFC822.SIZE.
    :param on_disk: the file and its write-ahead log.
    :param saved_by_copies: messages in more than one place, stored once.
    :param saved_by_attachments: attachments of more than one message, stored once.
    :param saved_by_compression: bodies and attachments, compressed.
    :param index: the searchable texts and the full-text index, before encryption.
    """

    messages: int
    distinct: int
    logical: int
    on_disk: int
    saved_by_copies: int
    saved_by_attachments: int
    saved_by_compression: int
    index: int


def stats(connection: apsw.Connection) -> Stats:
    """Count; reads every row of a mailbox once, though not the contents."""
    messages, logical = aggregate(
        connection, "SELECT count(*), coalesce(sum(m.size), 0) FROM entries e JOIN messages m ON m.id = e.message_id"
    )
    present = "FROM messages m WHERE EXISTS (SELECT 1 FROM entries e WHERE e.message_id = m.id)"
    distinct, once = aggregate(connection, f"SELECT count(*), coalesce(sum(m.size), 0) {present}")
    whole, cut = aggregate(
        connection,
        "SELECT (SELECT coalesce(sum(size), 0) FROM messages),"
        " (SELECT coalesce(sum(a.size), 0) FROM cuts c JOIN attachments a ON a.id = c.attachment_id)",
    )
    attachments, packed_attachments = aggregate(
        connection, "SELECT coalesce(sum(size), 0), coalesce(sum(length(data)), 0) FROM attachments"
    )
    headers, bodies = aggregate(
        connection, "SELECT (SELECT coalesce(sum(length(data)), 0) FROM headers), (SELECT coalesce(sum(length(data)), 0) FROM bodies)"
    )
    texts, *index = aggregate(
        connection,
        "SELECT (SELECT coalesce(sum(length(CAST(header AS BLOB)) + length(CAST(body AS BLOB))), 0) FROM texts),"
        " (SELECT coalesce(sum(length(words)), 0) FROM vocabulary),"
        " (SELECT coalesce(sum(length(block)), 0) FROM terms_data),"
        " (SELECT coalesce(sum(length(block)), 0) FROM grams_data)",
    )
    return Stats(
        messages=messages,
        distinct=distinct,
        logical=logical,
        on_disk=_on_disk(connection.filename),
        saved_by_copies=logical - once,
        saved_by_attachments=cut - attachments,
        saved_by_compression=(whole - cut - headers - bodies) + (attachments - packed_attachments),
        index=texts + sum(index),
    )


def _on_disk(path: str) -> int:
    return sum(os.stat(path + suffix).st_size for suffix in ("", "-wal") if os.path.exists(path + suffix))
