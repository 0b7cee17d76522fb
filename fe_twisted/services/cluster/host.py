"""The host of secondaries.

A mailbox is open for a secondary only while that secondary is connected and has brought its key; the key is held as every other one
(:class:`~fe_twisted.storage.mailbox.registry.OpenMailboxes`), and forgotten when the last of all sessions has gone.  What may be asked is
in tables: :data:`fe_twisted.storage.mailbox.remote.METHODS` for a mailbox that is open, ``_own`` here, and those of the desks
(:mod:`fe_twisted.services.cluster.desk`).  Anything else is refused.
"""

from __future__ import annotations

import datetime
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from fe_twisted.base import errors, faults, log
from fe_twisted.base.addresses import Address, parse_address
from fe_twisted.protocols.cluster.streams import Buffer
from fe_twisted.protocols.cluster.values import BadValue, Codec, decode, encode
from fe_twisted.services.cluster.desk import Desk
from fe_twisted.services.cluster.home import Home
from fe_twisted.services.deliver.gate import Gate
from fe_twisted.storage.directory.api import Alias
from fe_twisted.storage.mailbox.local import LocalMailbox
from fe_twisted.storage.mailbox.registry import OpenMailboxes
from fe_twisted.storage.mailbox.remote import METHODS, opened
from fe_twisted.storage.spool.spool import SealedRow

Answer = Sequence[Buffer] | AsyncGenerator[Sequence[Buffer], None]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message for one alias, see :meth:`fe_twisted.services.deliver.deliver.Deliver.deliver`."""

    address: str
    content: bytes
    delivery_id: bytes
    received_at: datetime.datetime


@dataclass(frozen=True, slots=True)
class Sealed:
    """A message that waited at a secondary, sealed to its recipient."""

    delivery_id: bytes
    octets: bytes


@dataclass(frozen=True, slots=True)
class Handover:
    """Messages that waited at a secondary for one mailbox."""

    messages: tuple[Sealed, ...]


CODEC = Codec([Delivery, Sealed, Handover])
DELIVERY = CODEC.shape(Delivery)
HANDOVER = CODEC.shape(Handover)
NOTHING = CODEC.shape(None)

#: What is told to who asks for something that this version does not know.
UNKNOWN = "no such method"


class Deliverer(Protocol):
    """What the host needs of :class:`fe_twisted.services.deliver.deliver.Deliver`."""

    async def deliver(self, alias: Alias, content: bytes, delivery_id: bytes, received_at: datetime.datetime) -> None:
        """Return when it is durable."""


class Waiters(Protocol):
    """What the host needs of :class:`fe_twisted.storage.spool.spool.Spool`."""

    async def add_sealed(self, mailbox_id: str, rows: Sequence[SealedRow]) -> None:
        """Keep sealed messages; durable on return."""


class FindRecipient(Protocol):
    """What the host needs of :class:`fe_twisted.storage.directory.lookup.Lookups`."""

    async def recipient(self, address: Address) -> Alias:
        """:raises UnknownDomain, UnknownRecipient:"""


class Host:
    """What all secondaries share.

    :param exists: whether a mailbox has its file here, such as ``MailboxFiles.exists``.
    :param desks: what may be asked beside mailboxes and mail.
    :param home: this primary among others; None where there are no others.
    :param gate: the one that ``deliver`` goes through.
    """

    def __init__(
        self,
        mailboxes: OpenMailboxes[LocalMailbox],
        deliver: Deliverer,
        lookups: FindRecipient,
        spool: Waiters,
        exists: Callable[[str], bool],
        desks: Sequence[Desk] = (),
        *,
        home: Home | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.mailboxes = mailboxes
        self.deliver = deliver
        self.lookups = lookups
        self.spool = spool
        self.exists = exists
        self.desks = tuple(desks)
        self.home = home
        self.gate = gate or Gate()

    def welcome(
        self,
        peer: str,
        notify: Callable[[str, int, int, tuple[str, ...] | None], None],
        evict: Callable[[str, bool], None],
        unwrap: Callable[[str, bytes], bytes],
    ) -> Guest:
        """See :class:`fe_twisted.servers.cluster.host.Host`."""
        return Guest(self, peer, notify, evict, unwrap)


class _Room:
    """A mailbox that is open for a secondary."""

    __slots__ = ("mailbox", "stops", "words")

    def __init__(self, mailbox: LocalMailbox) -> None:
        self.mailbox = mailbox
        self.words = len(mailbox.keywords())
        self.stops: list[Callable[[], None]] = []


class Guest:
    """One secondary."""

    def __init__(
        self,
        host: Host,
        peer: str,
        notify: Callable[[str, int, int, tuple[str, ...] | None], None],
        evict: Callable[[str, bool], None],
        unwrap: Callable[[str, bytes], bytes],
    ) -> None:
        self._host = host
        self._peer = peer
        self._notify = notify
        self._evict = evict
        self._unwrap = unwrap
        self._rooms: dict[str, _Room] = {}
        #: Mailboxes that were closed to be moved, and that this secondary has not opened here again.
        self._moving: set[str] = set()
        self._gone = False
        self._own: dict[str, Callable[[str, bytes], Awaitable[Sequence[Buffer]]]] = {
            "open": self._open,
            "release": self._release,
            "deliver": self._deliver,
            "handover": self._handover,
        }

    async def call(self, method: str, mailbox: str, key: bytes, body: bytes) -> Answer:
        """See :class:`fe_twisted.servers.cluster.host.Guest`.

        :raises Refused: no such method, or a mailbox that is not open for this secondary.
        """
        if method in METHODS:
            room = self._rooms.get(mailbox)
            if room is None and mailbox in self._moving:
                raise errors.Moved
            if room is None:
                raise self._refusal("mailbox-not-open", "mailbox is not open on this link", method, mailbox)
            try:
                answer = await METHODS[method].serve(room.mailbox, key, body)
                if METHODS[method].keyed:
                    faults.reach("host.answered")
                return self._watched(room, answer) if isinstance(answer, AsyncGenerator) else answer
            except Exception as error:
                self._explain(room, error)
                raise
            finally:
                self._tell_keywords(room)
        if method in self._own:
            return await self._own[method](mailbox, body)
        for desk in self._host.desks:
            serve = desk.methods().get(method)
            if serve is not None:
                try:
                    return await serve(self, self._peer, body)
                except BadValue as error:
                    raise self._refusal("bad-arguments", "arguments not understood", method, mailbox) from error
        raise self._refusal("unknown-method", UNKNOWN, method, mailbox)

    async def _watched(self, room: _Room, items: AsyncGenerator[Sequence[Buffer], None]) -> AsyncGenerator[Sequence[Buffer], None]:
        """The same items, each with what has to be known before it; when the mailbox is closed to be moved on the way, that is said."""
        try:
            async for item in items:
                self._tell_keywords(room)  # what the item's flags mean, before it
                yield item
        except Exception as error:
            self._explain(room, error)
            raise
        finally:
            await items.aclose()

    def _explain(self, room: _Room, error: Exception) -> None:
        """Nothing is wrong but that the mailbox was closed under the call, unless the caller asked for something that cannot be.

        :raises Moved: so it is.
        """
        if room.mailbox.id in self._moving and not isinstance(error, errors.Theirs):
            raise errors.Moved(reason=f"closed during the call: {error}") from error

    def leave(self) -> None:
        """See :class:`fe_twisted.servers.cluster.host.Guest`."""
        self._gone = True
        for mailbox_id in list(self._rooms):
            self._let_go(mailbox_id)
        for desk in self._host.desks:
            desk.left(self)

    # -- open and release -------------------------------------------------------------------------

    async def _open(self, mailbox_id: str, body: bytes) -> Sequence[Buffer]:
        if not mailbox_id:
            raise self._refusal("no-mailbox", "no mailbox named", "open", mailbox_id)
        try:
            key = self._unwrap(mailbox_id, body)
        except ValueError as error:
            raise self._refusal("wrong-key", "the key was not wrapped for this link", "open", mailbox_id) from error
        if not self._host.exists(mailbox_id):
            await self._check(mailbox_id)
            raise self._refusal("not-here", "this mailbox is not here", "open", mailbox_id)
        try:
            mailbox = await self._host.mailboxes.open(mailbox_id, key)
        except errors.DamagedFile as error:  # not its key, or not a mailbox
            log.warning("cluster.refused", peer=self._peer, reason="wrong-key", mailbox=mailbox_id, text=error.reason, by="us")
            raise
        if self._gone or mailbox_id in self._rooms:
            self._host.mailboxes.release(mailbox)
            if self._gone:
                raise errors.Later(reason="the secondary has left")
        else:
            self._moving.discard(mailbox_id)
            room = self._rooms[mailbox_id] = _Room(mailbox)
            room.stops = [
                mailbox.watch(lambda folder, modseq: self._changed(room, folder, modseq)),
                self._host.mailboxes.watch_eviction(mailbox, lambda: self._evicted(mailbox_id), lambda: self._moved(mailbox_id)),
            ]
        return opened(mailbox)

    async def _release(self, mailbox_id: str, body: bytes) -> Sequence[Buffer]:
        self._let_go(mailbox_id)
        return encode(NOTHING, None)

    def _let_go(self, mailbox_id: str) -> None:
        self._moving.discard(mailbox_id)
        room = self._rooms.pop(mailbox_id, None)
        if room is not None:
            for stop in room.stops:
                stop()
            self._host.mailboxes.release(room.mailbox)

    def _changed(self, room: _Room, folder: int, modseq: int) -> None:
        self._notify(room.mailbox.id, folder, modseq, self._new_keywords(room))

    def _tell_keywords(self, room: _Room) -> None:
        """A keyword may be new although no folder has changed."""
        words = self._new_keywords(room)
        if words is not None and room.mailbox.id in self._rooms:
            self._notify(room.mailbox.id, 0, 0, words)

    def _new_keywords(self, room: _Room) -> tuple[str, ...] | None:
        words = room.mailbox.keywords()
        if len(words) == room.words:
            return None
        room.words = len(words)
        return words

    def _evicted(self, mailbox_id: str) -> None:
        if self._rooms.pop(mailbox_id, None) is not None:
            self._evict(mailbox_id, False)

    def _moved(self, mailbox_id: str) -> None:
        if self._rooms.pop(mailbox_id, None) is not None:
            self._moving.add(mailbox_id)
            self._evict(mailbox_id, True)

    # -- mail -------------------------------------------------------------------------------------

    async def _deliver(self, mailbox_id: str, body: bytes) -> Sequence[Buffer]:
        try:
            delivery: Delivery = decode(DELIVERY, body)
        except BadValue as error:
            raise self._refusal("bad-arguments", "arguments not understood", "deliver", mailbox_id) from error
        alias = await self._host.lookups.recipient(parse_address(delivery.address))
        if self._host.home is not None and alias.location != self._host.home.location:
            raise errors.Moved(reason=f"{alias.mailbox_id} is at {alias.location}")
        await self._host.deliver.deliver(alias, delivery.content, delivery.delivery_id, delivery.received_at)
        faults.reach("host.delivered")
        return encode(NOTHING, None)

    async def _handover(self, mailbox_id: str, body: bytes) -> Sequence[Buffer]:
        """Take messages that waited at the secondary, and move them in if the mailbox is open."""
        try:
            handover: Handover = decode(HANDOVER, body)
        except BadValue as error:
            raise self._refusal("bad-arguments", "arguments not understood", "handover", mailbox_id) from error
        rows = [SealedRow(message.delivery_id, message.octets) for message in handover.messages]
        async with self._host.gate.inside(mailbox_id):
            await self._check(mailbox_id)
            if not mailbox_id or not self._host.exists(mailbox_id):
                raise self._refusal("not-here", "this mailbox is not here", "handover", mailbox_id)
            await self._host.spool.add_sealed(mailbox_id, rows)
        faults.reach("host.taken")
        log.event("cluster.handover", peer=self._peer, mailbox=mailbox_id, messages=len(rows))
        mailbox = self._host.mailboxes.get(mailbox_id)
        if mailbox is not None:
            try:
                await mailbox.poll()
            except errors.MailError as error:  # durable all the same; the next poll takes them
                log.warning("merge.failed", mailbox=mailbox_id, reason=error.reason or error.public)
        return encode(NOTHING, None)

    async def _check(self, mailbox_id: str) -> None:
        """:raises Moved: the mailbox belongs to another primary."""
        if self._host.home is not None:
            await self._host.home.check(mailbox_id)

    def _refusal(self, reason: str, public: str, method: str, mailbox_id: str) -> errors.Refused:
        log.warning("cluster.refused", peer=self._peer, reason=reason, method=method, mailbox=mailbox_id, text=public, by="us")
        return errors.Refused(public, reason=reason)
