"""Who delivers to a mailbox that is being moved away: nobody may store anything here once nobody looks here any more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from twisted.internet.defer import Deferred

from fe_twisted.base.errors import Moved


@dataclass(slots=True, eq=False)
class _Door:
    """One mailbox: how many are inside, who waits, and whether it has been moved (None: that is being decided)."""

    inside: int = 0
    shut: bool = False
    moved: bool | None = False
    leaving: list[Deferred[None]] = field(default_factory=list)
    waiting: list[Deferred[None]] = field(default_factory=list)


class Gate:
    """All mailboxes of this primary.  Those that nobody moves cost a look into a dict."""

    def __init__(self) -> None:
        self._doors: dict[str, _Door] = {}

    @asynccontextmanager
    async def inside(self, mailbox_id: str) -> AsyncIterator[None]:
        """For as long as something is being stored for a mailbox.  Waits while it is being decided where that belongs.

        :raises Moved: not here.
        """
        door = self._doors.setdefault(mailbox_id, _Door())
        while door.shut and door.moved is None:
            waiting: Deferred[None] = Deferred()
            door.waiting.append(waiting)
            await waiting
            door = self._doors.setdefault(mailbox_id, _Door())  # the one that was waited at may be gone
        if door.shut:
            raise Moved(reason=f"{mailbox_id} is elsewhere now")
        door.inside += 1
        try:
            yield
        finally:
            door.inside -= 1
            if not door.inside:
                leaving, door.leaving = door.leaving, []
                for each in leaving:
                    each.callback(None)
                if not door.shut:
                    self._doors.pop(mailbox_id, None)

    async def shut(self, mailbox_id: str) -> None:
        """Let nobody in until :meth:`decide`; returns when nobody is inside any more."""
        door = self._doors.setdefault(mailbox_id, _Door())
        door.shut, door.moved = True, None
        while door.inside:
            leaving: Deferred[None] = Deferred()
            door.leaving.append(leaving)
            await leaving

    def decide(self, mailbox_id: str, *, moved: bool) -> None:
        """After :meth:`shut`: everybody who waits, and who comes, is told that it is elsewhere, or goes on."""
        door = self._doors[mailbox_id]
        door.moved = moved
        if not moved:
            self.forget(mailbox_id)
        waiting, door.waiting = door.waiting, []
        for each in waiting:
            each.callback(None)

    def forget(self, mailbox_id: str) -> None:
        """Whether a mailbox is here can be told without the gate from now on."""
        door = self._doors.get(mailbox_id)
        if door is not None:
            door.shut = False
            if not door.inside:
                del self._doors[mailbox_id]
