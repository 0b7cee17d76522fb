"""The trigram index (``grams``), which follows the messages at a short distance.

FTS5 is slow with one message in a transaction and much faster with some dozens, and whoever waits for a message to be stored need not wait
for its index.  So a message is stored without, and soon after, some dozens of messages together go into the index.  ``meta.indexed`` is the
last message that is in it; SEARCH takes every later one for a candidate and compares the text itself, so that its answers are the same at
any time (:mod:`fe_twisted.storage.mailbox.search`).
"""

from __future__ import annotations

from itertools import accumulate, takewhile
from typing import Any

import apsw

#: The last message in the index, as an SQL expression; 0 in a file that has never seen one.
INDEXED = "coalesce((SELECT value FROM meta WHERE name = 'indexed'), 0)"

#: Messages, and octets of their texts, that go into the index in one transaction; a longer text goes alone.
MESSAGES = 32
OCTETS = 512 * 1024


def index_some(connection: apsw.Connection) -> int:
    """Bring the next messages into the index; returns how many, 0 when there are no more."""
    rows: list[Any] = connection.execute(
        "SELECT message_id, octet_length(header) + octet_length(body) FROM texts"
        f" WHERE message_id > {INDEXED} ORDER BY message_id LIMIT {MESSAGES}"
    ).fetchall()
    if not rows:
        return 0
    within = sum(1 for _ in takewhile(lambda octets: octets <= OCTETS, accumulate(octets for _, octets in rows)))
    count = max(1, within)
    last = rows[count - 1][0]
    connection.execute(
        f"INSERT INTO grams(rowid, text) SELECT message_id, header || body FROM texts WHERE message_id > {INDEXED} AND message_id <= ?",
        (last,),
    )
    connection.execute("INSERT OR REPLACE INTO meta(name, value) VALUES('indexed', ?)", (last,))
    return count


def unindexed(connection: apsw.Connection) -> int:
    """How many messages are not yet in the index."""
    return int(connection.execute(f"SELECT count(*) FROM texts WHERE message_id > {INDEXED}").get)
