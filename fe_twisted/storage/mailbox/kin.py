"""Which thread a message belongs to for ever (THREADID, RFC 8474 section 5.2).

A thread is the messages that name each other in Message-ID, References and In-Reply-To, also when some of those named are not here.  The
thread is chosen when the message is stored and never changes: a message that later turns out to join two threads goes to one of them, and
both stay what they are.  Subjects play no part, since two messages with the same one need have nothing to do with each other.

``kin`` says of every message id that was seen in a thread, as a hash, which thread that was.  It forgets a thread with its last message.
"""

from __future__ import annotations

from typing import Any

import apsw

from fe_twisted.protocols.mime.order import Order


def thread_of(connection: apsw.Connection, keys: Order, digest: bytes) -> int:
    """The number of the thread of a message that is being stored, at least 1.

    A new thread is numbered after the oldest message that is known of it, so that it has the same number whatever of it comes first.

    :param digest: SHA-256 of the content, for a message that names nobody.
    """
    own = keys.identity
    if not keys.references:
        if not own:
            return int.from_bytes(digest[:8], "big") >> 1 or 1
        found = connection.execute("SELECT thread FROM kin WHERE identity = ?", (own,)).get
        if found is None:
            connection.execute("INSERT INTO kin(identity, thread) VALUES(?1, ?1)", (own,))
            return own
        return int(found)
    # The nearest relative decides: the message that this one answers, then that one's, at last who answered this one.
    named = [identity for identity in dict.fromkeys((*reversed(keys.references), own)) if identity]
    places = ", ".join("?" * len(named))
    rows: list[Any] = connection.execute(f"SELECT identity, thread FROM kin WHERE identity IN ({places})", named).fetchall()
    known: dict[int, int] = dict(rows)
    thread = next((known[identity] for identity in named if identity in known), keys.references[0])
    fresh = [(identity, thread) for identity in named if identity not in known]
    connection.executemany("INSERT INTO kin(identity, thread) VALUES(?, ?)", fresh)
    return thread


def forget_thread(connection: apsw.Connection, thread: int) -> None:
    """After a message was removed for good: forget its thread if that was the last one of it."""
    if connection.execute("SELECT 1 FROM messages WHERE thread = ? LIMIT 1", (thread,)).get is None:
        connection.execute("DELETE FROM kin WHERE thread = ?", (thread,))
