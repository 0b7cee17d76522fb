"""What a session asks for the secondary; :mod:`fe_twisted.app` hands an implementation in (:mod:`fe_twisted.services.cluster`)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol

from fe_twisted.protocols.cluster.streams import Buffer

#: A whole answer, or a stream of items.
Answer = Sequence[Buffer] | AsyncGenerator[Sequence[Buffer], None]

#: ``notify(mailbox, folder, modseq, keywords)``, see :class:`fe_twisted.protocols.cluster.frames.Notify`.
Notifier = Callable[[str, int, int, tuple[str, ...] | None], None]

#: ``evict(mailbox, again)``, see :class:`fe_twisted.protocols.cluster.frames.Evict`.
Evictor = Callable[[str, bool], None]

#: ``unwrap(mailbox, wrapped)`` gives a mailbox key that was wrapped for this connection; raises ValueError.
Unwrapper = Callable[[str, bytes], bytes]


class Guest(Protocol):
    """One secondary that has proved itself, and what it has open."""

    async def call(self, method: str, mailbox: str, key: bytes, body: bytes) -> Answer:
        """Do what it asks.

        :raises fe_twisted.base.errors.MailError: what it is told.
        """

    def leave(self) -> None:
        """It is gone: let go of everything that it has open."""


class Host(Protocol):
    """Whoever has the mailboxes."""

    def welcome(self, peer: str, notify: Notifier, evict: Evictor, unwrap: Unwrapper) -> Guest:
        """A secondary has proved itself.

        :param peer: its name and address, for the log.
        """
