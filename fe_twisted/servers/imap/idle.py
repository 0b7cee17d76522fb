"""IDLE (RFC 2177): changes are told as they happen, until the client says DONE."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from fe_twisted.base import log
from fe_twisted.base.errors import Later
from fe_twisted.protocols.imap import responses
from fe_twisted.protocols.imap.commands import Command
from fe_twisted.servers.imap.reply import Disconnected, Ended, Reply, bad
from fe_twisted.servers.imap.session import Session
from fe_twisted.servers.imap.update import synchronise

#: Seconds until it is tried again to tell what could not be told.
AGAIN = 5.0


async def idle(session: Session, command: Command) -> Reply:
    """Wait for DONE; any other line ends it with BAD."""
    await session.poll()
    pushing = Pushing(session)
    session.wire.wait_for_client(True)
    try:
        line = await session.wire.line(b"idling")
    finally:
        await pushing.stop()
        session.wire.wait_for_client(False)
    if line.strip().upper() != b"DONE":
        return bad("DONE was expected, IDLE ended")
    return Reply("IDLE completed")


class Pushing:
    """Tells the session's client what happens to its folder, from its making until :meth:`stop`."""

    __slots__ = ("_again", "_busy", "_call", "_keepalive", "_pushed", "_session", "_stopped", "_unwatch")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._busy = False
        self._again = False
        self._pushed = 0.0
        self._stopped: Deferred[None] | None = None
        self._call: Any = None
        self._unwatch: Callable[[], None] = session.mailbox.watch(self._heard)
        self._keepalive: Any = session.clock.callLater(session.limits.keepalive, self._still_here)
        view = session.view
        if view is not None:
            self._heard(view.folder_id, session.mailbox.modseq(view.folder_id))

    async def stop(self) -> None:
        """No more responses after this returns; a change that is just being told is told to its end."""
        self._unwatch()
        for call in (self._call, self._keepalive):
            if call is not None and call.active():
                call.cancel()
        self._call = None
        self._again = False
        if self._busy:
            self._stopped = Deferred()
            await self._stopped

    def _heard(self, folder_id: int, modseq: int) -> None:
        view = self._session.view
        if view is None or folder_id != view.folder_id or modseq == view.modseq or self._session.notifier is not None:
            return
        if self._busy:
            self._again = True
        elif self._call is None:
            # The first change is told at once; what follows closely, such as a hundred flags set one by one, in one go.
            clock, pause = self._session.clock, self._session.limits.push_delay
            self._call = clock.callLater(0 if clock.seconds() - self._pushed >= pause else pause, self._push)

    def _push(self) -> None:
        self._call = None
        self._busy = True
        self._pushed = self._session.clock.seconds()
        Deferred.fromCoroutine(self._tell()).addBoth(self._told)

    async def _tell(self) -> None:
        wire = self._session.wire
        try:
            await synchronise(self._session, expunges=True, uid=False)
            wire.flush()
        except Disconnected:
            pass  # whoever waits for the client's DONE hears of it, too
        except Ended as ended:
            wire.bye(str(ended))
        except Later as error:  # of a primary that is away, perhaps, which tells of this change only once
            log.warning("imap.push_failed", conn=wire.id, reason=error.reason or error.public)
            if self._stopped is None:
                self._call = self._session.clock.callLater(AGAIN, self._push)
        except Exception as error:  # the next change, or the end of IDLE, tries again
            log.failure("imap.push_failed", error, conn=wire.id)

    def _told(self, result: object) -> None:
        self._busy = False
        if self._stopped is not None:
            waiting, self._stopped = self._stopped, None
            waiting.callback(None)
            return
        view = self._session.view
        if self._again and view is not None:
            self._again = False
            self._heard(view.folder_id, self._session.mailbox.modseq(view.folder_id))

    def _still_here(self) -> None:
        wire = self._session.wire
        if not wire.amid:
            wire.write(responses.untagged("OK", "still here"))
            wire.flush()
        self._keepalive = self._session.clock.callLater(self._session.limits.keepalive, self._still_here)
