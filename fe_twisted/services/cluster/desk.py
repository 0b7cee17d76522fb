"""What a primary does for link peers beside mailboxes and mail: counts, and telling how it goes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from fe_twisted.protocols.cluster.streams import Buffer

#: ``serve(guest, name, body)``: who asks (an object that stays the same while he is connected), his name with his address, his arguments.
#: Raises :class:`fe_twisted.protocols.cluster.values.BadValue` for arguments that are none.
Serve = Callable[[object, str, bytes], Awaitable[Sequence[Buffer]]]


class Desk(Protocol):
    """Some methods that need no mailbox."""

    def methods(self) -> Mapping[str, Serve]:
        """What may be asked, by name."""

    def left(self, guest: object) -> None:
        """A guest is gone; what he said of himself counts no more."""


class Only:
    """Some of a desk's methods."""

    def __init__(self, desk: Desk, *names: str) -> None:
        self._desk = desk
        self._names = names

    def methods(self) -> Mapping[str, Serve]:
        """See :class:`Desk`."""
        methods = self._desk.methods()
        return {name: methods[name] for name in self._names}

    def left(self, guest: object) -> None:
        """See :class:`Desk`."""
        self._desk.left(guest)
