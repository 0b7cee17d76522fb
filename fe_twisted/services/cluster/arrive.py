"""Mailboxes that are being moved to this primary, from where they arrive.

A link peer that wants to bring one must name a mailbox that the directory has at another primary, so nothing that is in use here is ever
touched.  It is told a token, which nobody else has; until it is done, leaves or falls silent, nobody else brings the same mailbox.  That a
file has arrived means nothing by itself: whose it is, the directory says.
"""

from __future__ import annotations

import hmac
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from twisted.internet.defer import DeferredLock

from fe_twisted.base import errors, log
from fe_twisted.base.clock import Clock
from fe_twisted.protocols.cluster.streams import Buffer
from fe_twisted.protocols.cluster.values import BadValue, Codec, decode, encode
from fe_twisted.services.cluster.desk import Serve
from fe_twisted.services.cluster.home import Home
from fe_twisted.services.deliver.gate import Gate
from fe_twisted.storage.mailbox.files import MailboxFiles
from fe_twisted.storage.mailbox.transfer import Incoming, Piece, Whole
from fe_twisted.storage.sqlite.writer import RunInThread

#: Seconds without a word after which a mailbox is not expected any more.
SILENCE = 600.0

#: Mailboxes that may be arriving at once.
MOST = 8

_ID = re.compile(r"\A[0-9a-f]{24}\Z")


@dataclass(frozen=True, slots=True)
class Begin:
    """A mailbox is to come.

    :param octets: how many, or so.
    """

    mailbox: str
    octets: int


@dataclass(frozen=True, slots=True)
class Block:
    """A part of it; see :class:`fe_twisted.storage.mailbox.transfer.Piece`."""

    mailbox: str
    token: bytes
    part: int
    offset: int
    octets: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class End:
    """It has come; see :class:`fe_twisted.storage.mailbox.transfer.Whole`."""

    mailbox: str
    token: bytes
    file: int
    wal: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Named:
    """A mailbox that has been brought, or is not to be brought after all.

    :param token: empty from who does not know it any more.
    """

    mailbox: str
    token: bytes


CODEC = Codec([Begin, Block, End, Named])
BEGIN, BLOCK, END, NAMED = (CODEC.shape(each) for each in (Begin, Block, End, Named))
OCTETS, BOOL, NOTHING = CODEC.shape(bytes), CODEC.shape(bool), CODEC.shape(None)


@dataclass(slots=True, eq=False)
class _Arrival:
    """One mailbox; the lock is held while something is done to its files."""

    guest: object
    token: bytes
    file: Incoming
    timer: Any  # IDelayedCall; mypy cannot read zope interfaces
    named: bool = False
    over: bool = False
    lock: DeferredLock = field(default_factory=DeferredLock)


class Arrivals:
    """What is being brought; a desk of :class:`fe_twisted.services.cluster.host.Host`.

    :param gate: the one that deliveries go through.
    """

    def __init__(self, home: Home, files: MailboxFiles, gate: Gate, run_in_thread: RunInThread, clock: Clock) -> None:
        self._home = home
        self._gate = gate
        self._files = files
        self._run_in_thread = run_in_thread
        self._clock = clock
        self._arrivals: dict[str, _Arrival] = {}
        #: The token of what has the mailbox's name since this process was started.
        self._named: dict[str, bytes] = {}

    def methods(self) -> Mapping[str, Serve]:
        """See :class:`fe_twisted.services.cluster.desk.Desk`."""
        return {
            "arrive": self._begin,
            "arrive_block": self._block,
            "arrive_end": self._end,
            "arrive_stop": self._stop,
            "holds": self._holds,
        }

    def left(self, guest: object) -> None:
        """Whoever brought something is gone."""
        for mailbox_id, arrival in list(self._arrivals.items()):
            if arrival.guest is guest:
                self._drop(mailbox_id, arrival, "its bringer has left")

    # -- what is asked ----------------------------------------------------------------------------

    async def _begin(self, guest: object, name: str, body: bytes) -> Sequence[Buffer]:
        """Expect a mailbox; answers its token.

        :raises Refused: it is not one that could come.
        :raises Busy: it is coming already, or too many are.
        """
        asked: Begin = _read(BEGIN, body)
        mailbox_id = asked.mailbox
        await self._expect(mailbox_id)
        if mailbox_id in self._home.busy:
            raise errors.Busy("this mailbox is being moved already")
        if len(self._arrivals) >= MOST:
            raise errors.Busy("too many mailboxes are being moved")
        self._home.busy.add(mailbox_id)
        try:
            file: Incoming = await self._run_in_thread(partial(Incoming, self._files, mailbox_id, max(asked.octets, 0)))
        except BaseException:
            self._home.busy.discard(mailbox_id)
            raise
        timer: Any = self._clock.callLater(SILENCE, self._silent, mailbox_id)
        arrival = self._arrivals[mailbox_id] = _Arrival(guest, os.urandom(16), file, timer)
        log.event("arrive.begun", mailbox=mailbox_id, octets=asked.octets, peer=name)
        return encode(OCTETS, arrival.token)

    async def _block(self, guest: object, name: str, body: bytes) -> Sequence[Buffer]:
        """Take a block."""
        asked: Block = _read(BLOCK, body)
        arrival = self._find(guest, asked.mailbox, asked.token)
        await self._in_turn(arrival, partial(arrival.file.write, Piece(asked.part, asked.offset, asked.octets, asked.digest)))
        return encode(NOTHING, None)

    async def _end(self, guest: object, name: str, body: bytes) -> Sequence[Buffer]:
        """Give it the mailbox's name, if it is whole; answers the digest of what is on the disk here."""
        asked: End = _read(END, body)
        arrival = self._find(guest, asked.mailbox, asked.token)
        # Again: while it came, it may have come to belong here by another way, and then there is a file that is in use.
        await self._expect(asked.mailbox)
        whole = Whole((asked.file, asked.wal), asked.digest)
        digest: bytes = await self._in_turn(arrival, partial(arrival.file.finish, whole))
        arrival.named = True
        self._gate.forget(asked.mailbox)
        self._named[asked.mailbox] = asked.token
        log.event("arrive.named", mailbox=asked.mailbox, octets=asked.file + asked.wal, peer=name)
        return encode(OCTETS, digest)

    async def _stop(self, guest: object, name: str, body: bytes) -> Sequence[Buffer]:
        """It does not come, or it has come and that is all."""
        asked: Named = _read(NAMED, body)
        arrival = self._find(guest, asked.mailbox, asked.token)
        self._drop(asked.mailbox, arrival, "its bringer is done")
        return encode(NOTHING, None)

    async def _holds(self, guest: object, name: str, body: bytes) -> Sequence[Buffer]:
        """Whether a mailbox belongs here and its file is here, and is the one that was brought with the token."""
        asked: Named = _read(NAMED, body)
        here = await self._home.places.location_of(asked.mailbox) == self._home.location and self._files.exists(asked.mailbox)
        known = self._named.get(asked.mailbox, asked.token)
        return encode(BOOL, here and (not asked.token or hmac.compare_digest(known, asked.token)))

    # -- inside -----------------------------------------------------------------------------------

    async def _expect(self, mailbox_id: str) -> None:
        """:raises Refused: nobody has such a mailbox, or it is here already."""
        location = await self._home.places.location_of(mailbox_id)
        if location is None:
            raise errors.Refused("there is no such mailbox")
        if location == self._home.location:
            raise errors.Refused("this mailbox is here already")

    def _find(self, guest: object, mailbox_id: str, token: bytes) -> _Arrival:
        """:raises Refused: it is not being brought, or by somebody else."""
        arrival = self._arrivals.get(mailbox_id)
        if arrival is None or arrival.guest is not guest or not hmac.compare_digest(arrival.token, token):
            raise errors.Refused("this mailbox is not being brought by you")
        arrival.timer.reset(SILENCE)
        return arrival

    async def _in_turn(self, arrival: _Arrival, work: Any) -> Any:
        """Do something to its files, in a thread."""
        await arrival.lock.acquire()
        try:
            if arrival.over or arrival.named:
                raise errors.Refused("this mailbox is not being brought any more")
            return await self._run_in_thread(work)
        finally:
            arrival.lock.release()
            if arrival.over:
                arrival.file.drop()

    def _silent(self, mailbox_id: str) -> None:
        arrival = self._arrivals.get(mailbox_id)
        if arrival is not None:
            self._drop(mailbox_id, arrival, f"nothing came for {SILENCE} seconds")

    def _drop(self, mailbox_id: str, arrival: _Arrival, reason: str) -> None:
        """Expect it no more.  What has no mailbox's name is removed, at once or by whoever is working on it now."""
        del self._arrivals[mailbox_id]
        self._home.busy.discard(mailbox_id)
        arrival.over = True
        if arrival.timer.active():
            arrival.timer.cancel()
        if not arrival.lock.locked:
            arrival.file.drop()
        if not arrival.named:
            log.event("arrive.dropped", mailbox=mailbox_id, reason=reason)


def _read(shape: Any, body: bytes) -> Any:
    """The arguments of a call.

    :raises BadValue: they are none, or name no mailbox.
    """
    asked = decode(shape, body)
    if not _ID.match(asked.mailbox):
        raise BadValue("not the id of a mailbox")
    return asked
