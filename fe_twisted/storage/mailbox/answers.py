"""Answers of changes, remembered with the changes, so that a change that is asked for again is answered again and not made again.

A peer that lost the connection while it waited does not know whether its change was made.  It asks again with the same key; the key and the
answer were written in the transaction of the change, so both are there or neither is.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import apsw

from fe_twisted.storage.mailbox.rows import Outcome

T = TypeVar("T")

#: How long an answer is remembered, in seconds; and how often, in seconds, the older ones are removed.
REMEMBER = 86_400
PRUNE = 3_600


@dataclass(frozen=True, slots=True)
class Once:
    """A call that has a key.  It changes the mailbox in one transaction, and what that returns is what is remembered.

    :param key: 16 octets.
    :param encode, decode: the answer as octets and back.
    """

    key: bytes
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]

    def wrap(self, change: Callable[[apsw.Connection], Outcome[T]], now: str) -> Callable[[apsw.Connection], Outcome[T]]:
        """The change, or what it answered before.

        A call that changed nothing is not remembered, nor is anything written: asked again, it is as if it had been made only then.

        :param now: ISO 8601.
        """

        def work(connection: apsw.Connection) -> Outcome[T]:
            before = answered(connection, self.key)
            if before is not None:
                return Outcome(self.decode(before))
            rows = connection.total_changes()
            outcome = change(connection)
            if not outcome.modseqs and connection.total_changes() == rows:
                return outcome
            connection.execute("INSERT INTO answers(id, stored_at, answer) VALUES(?, ?, ?)", (self.key, now, self.encode(outcome.value)))
            return outcome

        return work


#: The call that is going on, if it has a key and has not yet begun its transaction.
current: ContextVar[Once | None] = ContextVar("current", default=None)


def take() -> Once | None:
    """The key of the call that is going on, for the transaction that it begins now.

    From here on there is none: what the transaction sets going, such as sessions that hear of the change, runs in a copy of this context.
    """
    once = current.get()
    if once is not None:
        current.set(None)
    return once


def answered(connection: apsw.Connection, key: bytes) -> bytes | None:
    """What a call with this key was answered."""
    row: Any = connection.execute("SELECT answer FROM answers WHERE id = ?", (key,)).fetchone()
    return None if row is None else bytes(row[0])


def forget_answers(connection: apsw.Connection, before: str) -> None:
    """Forget answers from before this ISO 8601 moment."""
    connection.execute("DELETE FROM answers WHERE stored_at < ?", (before,))
