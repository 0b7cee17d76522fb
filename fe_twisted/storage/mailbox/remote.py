"""The mailbox whose file is at a primary: :class:`fe_twisted.storage.mailbox.api.Mailbox` over a link.

The body of :class:`RemoteMailbox` is the table of what may be asked over the link (:mod:`fe_twisted.storage.mailbox.methods`): a method of
the interface that has its line there can be asked for, and nothing else.

What the interface gives without I/O is kept here: the primary tells of every change, on the same connection and before the answer to
whatever follows it, so that a caller sees its own change at once.  After a new connection the mailbox is opened again, and whoever watches
a folder that went on meanwhile is called, as after any other change.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from twisted.internet.defer import Deferred

from fe_twisted.base import errors, log
from fe_twisted.clients.link.conversation import Answer, Conversation, LinkLost
from fe_twisted.clients.link.link import REPEATS, Link
from fe_twisted.protocols.cluster.frames import KEY
from fe_twisted.protocols.cluster.signature import Signature
from fe_twisted.protocols.cluster.values import COLUMNS, Buffer, encode
from fe_twisted.protocols.crypto.memory import KeyInMemory
from fe_twisted.protocols.imap.search import Ranges
from fe_twisted.storage.mailbox.api import Column, Mailbox, Row, Watcher
from fe_twisted.storage.mailbox.local import LocalMailbox
from fe_twisted.storage.mailbox.methods import METHODS as METHODS
from fe_twisted.storage.mailbox.methods import OPENED, Opened, declare, read_answer

#: Rows of one batch at most.
ROWS = 500

#: Times that one question follows a mailbox that is being moved; and seconds between two of them at most.
MOVES = 8
MOVE_PAUSE = 2.0

#: ``relocate(mailbox_id)`` gives the link to the primary that has a mailbox now; None when there is none.
Relocate = Callable[[str], Awaitable[Link | None]]

P = ParamSpec("P")
R = TypeVar("R")


def _new_key() -> bytes:
    """An idempotency key, which nobody else has.

    The time comes first, so that keys lie in the order in which they were made: what remembers them changes one page again and again, and
    not a different one each time.
    """
    return time.time_ns().to_bytes(8, "big") + os.urandom(KEY - 8)


def _asked(
    method: Callable[Concatenate[Mailbox, P], Coroutine[Any, Any, R]], *, keyed: bool
) -> Callable[Concatenate[RemoteMailbox, P], Coroutine[Any, Any, R]]:
    signature = declare(method, keyed=keyed).signature

    async def ask(self: RemoteMailbox, /, *arguments: P.args, **named: P.kwargs) -> R:
        key = _new_key() if keyed else b""
        answer: R = read_answer(signature.result, await self.ask(signature.name, signature.write(arguments, named), key))
        return answer

    ask.__name__, ask.__doc__ = signature.name, "See the interface."
    return ask


def read(
    method: Callable[Concatenate[Mailbox, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[RemoteMailbox, P], Coroutine[Any, Any, R]]:
    """A method that may be asked for twice: it changes nothing, or nothing more the second time."""
    return _asked(method, keyed=False)


def write(
    method: Callable[Concatenate[Mailbox, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[RemoteMailbox, P], Coroutine[Any, Any, R]]:
    """A method that changes something in one transaction, whose value is its answer: it is done once, however often it is asked for."""
    return _asked(method, keyed=True)


class RemoteMailbox:
    """An open mailbox at a primary.  Made by :func:`open_remote`.

    :param evicted: called when the primary takes the mailbox back, or does not open it again: its sessions must end.
    :param relocate: finds it when it is being moved; without it, its sessions end then.
    """

    def __init__(
        self, link: Link, mailbox_id: str, key: bytes, evicted: Callable[[str], None], *, relocate: Relocate | None = None
    ) -> None:
        self.id = mailbox_id
        self._link = link
        self._key = KeyInMemory(key)
        self._evicted = evicted
        self._relocate = relocate
        self._reopening = False
        self._keywords: tuple[str, ...] = ()
        self._modseqs: dict[int, int] = {}
        #: What was known when it was asked to be opened on a new connection, and what has been told since.
        self._before: dict[int, int] = {}
        self._early: dict[int, int] = {}
        self._watchers: list[Watcher] = []
        self._opened_on: Conversation | None = None
        self._opening: list[Deferred[None]] | None = None
        self._closed = False
        self._detach = link.attach(mailbox_id, self)

    # -- what may be asked over the link ----------------------------------------------------------

    folders = read(Mailbox.folders)
    subscriptions = read(Mailbox.subscriptions)
    status = read(Mailbox.status)
    select = write(Mailbox.select)
    changes = write(Mailbox.changes)
    vanished = read(Mailbox.vanished)
    octets = read(Mailbox.octets)
    create = write(Mailbox.create)
    delete = write(Mailbox.delete)
    rename = write(Mailbox.rename)
    subscribe = write(Mailbox.subscribe)
    append = write(Mailbox.append)
    store = write(Mailbox.store)
    copy = write(Mailbox.copy)
    move = write(Mailbox.move)
    expunge = write(Mailbox.expunge)
    replace = write(Mailbox.replace)
    search = read(Mailbox.search)
    sort = read(Mailbox.sort)
    thread = read(Mailbox.thread)
    quota = read(Mailbox.quota)
    deleted_octets = read(Mailbox.deleted_octets)
    get_metadata = read(Mailbox.get_metadata)
    set_metadata = write(Mailbox.set_metadata)
    poll = read(Mailbox.poll)
    check_consistency = read(Mailbox.check_consistency)

    _fetch = declare(Mailbox.fetch, keyed=False)

    # -- what needs no I/O ------------------------------------------------------------------------

    def keywords(self) -> tuple[str, ...]:
        """See the interface."""
        return self._keywords

    def modseq(self, folder_id: int) -> int:
        """See the interface."""
        return self._modseqs.get(folder_id, 0)

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """See the interface."""
        self._watchers.append(watcher)

        def stop() -> None:
            if watcher in self._watchers:
                self._watchers.remove(watcher)

        return stop

    # -- what is special --------------------------------------------------------------------------

    def fetch_one(self, folder_id: int, uid: int, columns: Sequence[Column]) -> list[Row] | None:
        """See the interface: there is always the link to wait for."""
        return None

    async def fetch(
        self, folder_id: int, uids: Ranges, columns: Sequence[Column], *, changed_since: int = 0
    ) -> AsyncGenerator[list[Row], None]:
        """See the interface.  When the connection is lost on the way, it goes on behind the last UID that came."""
        wanted: list[Column] = list(columns)
        added = "uid" not in wanted
        if added:
            wanted.append("uid")
        at = wanted.index("uid")
        lost = moves = 0
        while uids:
            answer: Answer | None = None
            try:
                answer = await self._stream(self._fetch.signature, (folder_id, uids, wanted), {"changed_since": changed_since})
                async for item in answer:
                    columns_: list[list[Any]] = read_answer(COLUMNS, item)
                    came = columns_[at] if len(columns_) == len(wanted) else []
                    for start in range(0, len(came), ROWS):
                        cut = [column[start : start + ROWS] for column in columns_[: len(columns)]]
                        uids, lost, moves = above(uids, came[start : start + ROWS][-1]), 0, 0
                        yield list(zip(*cut, strict=True))
                return
            except LinkLost:
                lost += 1
                if lost > REPEATS:
                    raise errors.PrimaryAway(reason=f"the connection was lost {lost} times during fetch") from None
            except errors.Moved:
                moves += 1
                if not await self._follow(moves):
                    raise
            finally:
                if answer is not None:
                    answer.close()

    async def close(self) -> None:
        """Give it back to the primary, and forget its key; nothing may be asked afterwards."""
        if self._closed:
            return
        self._closed = True
        self._detach()
        self._watchers.clear()
        conversation, self._opened_on = self._opened_on, None
        self._key.forget()
        if conversation is not None and not conversation.over:
            try:
                await conversation.ask("release", self.id, [], timeout=10.0)
            except (LinkLost, errors.MailError) as error:
                # The primary lets go by itself when the connection ends.
                log.event("mailbox.release", mailbox=self.id, reason=type(error).__name__)

    async def opened(self) -> None:
        """Return when the primary has opened it; else it is closed.

        :raises PrimaryAway:
        :raises fe_twisted.base.errors.MailError: the primary did not open it.
        """
        moves = 0
        try:
            while True:
                try:
                    await self._ready(await self._link.conversation())
                    return
                except LinkLost:
                    continue
                except errors.Moved:
                    moves += 1
                    if not await self._follow(moves):
                        raise
        except BaseException:
            await self.close()
            raise

    # -- asking -----------------------------------------------------------------------------------

    async def ask(self, method: str, body: Sequence[Buffer], key: bytes) -> bytes:
        """Ask, as often as it takes; the mailbox is opened on each new connection first, wherever it is by then."""
        moves = 0
        while True:
            self._check()
            try:
                return await self._link.ask(method, self.id, body, key=key, prepare=self._ready)
            except errors.Moved:
                moves += 1
                if not await self._follow(moves):
                    raise

    async def _stream(self, signature: Signature, arguments: tuple[Any, ...], named: dict[str, Any]) -> Answer:
        """:raises LinkLost: to be asked again."""
        self._check()
        conversation = await self._link.conversation()
        await self._ready(conversation)
        return conversation.stream(signature.name, self.id, signature.write(arguments, named))

    def _check(self) -> None:
        if self._closed:
            raise errors.Later(reason="asked of a mailbox that was closed")

    async def _ready(self, conversation: Conversation) -> None:
        """Return when the mailbox is open on this connection.

        :raises LinkLost: it ended.
        :raises Moved: the mailbox is elsewhere.
        :raises fe_twisted.base.errors.MailError: the primary did not open it.
        """
        while self._opened_on is not conversation:
            waiting: Deferred[None] = Deferred()
            if self._opening is not None:
                self._opening.append(waiting)
            else:
                self._opening = [waiting]
                Deferred.fromCoroutine(self._open(conversation)).addBoth(self._told)
            await waiting

    async def _open(self, conversation: Conversation) -> None:
        self._check()
        with self._key.use() as key:
            wrapped = conversation.agreed.keys.wrap(self.id, key)
        self._before, self._early = dict(self._modseqs), {}
        answer = await conversation.ask("open", self.id, [wrapped], timeout=60.0)
        if self._closed:  # meanwhile, so nobody else will give it back
            await conversation.ask("release", self.id, [], timeout=10.0)
            self._check()
        self._take(conversation, read_answer(OPENED, answer))

    def _take(self, conversation: Conversation, opened: Opened) -> None:
        """Follow what went on while there was no connection."""
        self._opened_on = conversation
        if len(opened.keywords) > len(self._keywords):
            self._keywords = opened.keywords
        before, self._modseqs = self._modseqs, dict(opened.modseqs)
        older = [folder for folder, modseq in opened.modseqs if modseq < self._before.get(folder, 0)]
        # Told while the answer waited for room on the connection, so newer than the answer.
        for folder, modseq in self._early.items():
            self._note(folder, modseq)
        for folder in before.keys() | self._modseqs.keys():
            if before.get(folder, 0) != self.modseq(folder):
                self._tell(folder, self.modseq(folder))
        self._tell(0, 0)
        if older and not self._closed:
            # A backup was restored: what sessions have seen is not so, UIDs that they know will be others' (RFC 9051 section 2.3.1.1).
            log.warning("mailbox.replaced", mailbox=self.id, reason="the primary has an older state of it than it told of before")
            self._evicted(self.id)

    def _told(self, result: Any) -> None:
        """Whoever waited for the opening hears how it went."""
        waiting, self._opening = self._opening or [], None
        for each in waiting:
            each.callback(result)

    def _tell(self, folder: int, modseq: int) -> None:
        for watcher in tuple(self._watchers):
            watcher(folder, modseq)

    # -- what the link tells ----------------------------------------------------------------------

    def connected(self, conversation: Conversation) -> None:
        """Open it again at once, because sessions may be waiting for news."""
        Deferred.fromCoroutine(self._again(conversation)).addErrback(self._bug)

    async def _again(self, conversation: Conversation) -> None:
        try:
            await self._ready(conversation)
        except LinkLost:
            pass  # the next connection will be told of as well
        except errors.Moved:
            self.moved()
        except errors.Later as error:
            log.warning("mailbox.reopen", mailbox=self.id, reason=error.reason or error.public)
        except errors.MailError as error:
            # Its file was replaced, or damaged, meanwhile.
            log.warning("mailbox.reopen", mailbox=self.id, reason=error.reason or error.public)
            self.evicted()

    def _bug(self, failure: Any) -> None:
        log.failure("mailbox.reopen", failure.value, mailbox=self.id)

    def changed(self, folder: int, modseq: int, keywords: tuple[str, ...] | None) -> None:
        """The primary tells of a commit."""
        if keywords is not None and len(keywords) > len(self._keywords):
            self._keywords = keywords
        if folder:
            if self._opening is not None:
                self._early[folder] = modseq
            self._note(folder, modseq)
        self._tell(folder, modseq)

    def _note(self, folder: int, modseq: int) -> None:
        """A folder is at this modseq, or gone with 0."""
        if modseq:
            self._modseqs[folder] = max(modseq, self._modseqs.get(folder, 0))
        else:
            self._modseqs.pop(folder, None)

    def moved(self) -> None:
        """The primary has closed it to move it: open it again at once, because sessions may be waiting for news."""
        self._opened_on = None
        if self._relocate is None:
            self.evicted()
        elif not self._closed and not self._reopening:
            self._reopening = True
            Deferred.fromCoroutine(self._reopen()).addErrback(self._bug)

    async def _reopen(self) -> None:
        """Wherever it is, for as long as that takes."""
        tries = 0
        try:
            while not self._closed:
                tries += 1
                try:
                    if await self._follow(min(tries, MOVES)):
                        await self._ready(await self._link.conversation())
                    return
                except LinkLost:
                    continue
                except errors.Later as error:
                    log.event("mailbox.reopen", mailbox=self.id, reason=error.reason or error.public)
        except errors.MailError as error:
            if not self._closed:
                log.warning("mailbox.reopen", mailbox=self.id, reason=error.reason or error.public)
                self.evicted()
        finally:
            self._reopening = False

    async def _follow(self, moves: int) -> bool:
        """Turn to the primary that has the mailbox now; False when there is none, or it never comes to rest.

        :param moves: how often that was done before.
        """
        if self._relocate is None or moves > MOVES:
            return False
        if moves > 2:  # the first time it is asked where it was, which answers when the move has ended
            await self._link.pause(min(MOVE_PAUSE, 0.1 * 2 ** (moves - 3)))
        link = await self._relocate(self.id)
        self._check()
        if link is None:
            self.evicted()
            return False
        if link is not self._link:
            log.event("mailbox.followed", mailbox=self.id, link=link.name)
            self._detach()
            self._link = link
            self._detach = link.attach(self.id, self)
        return True

    def evicted(self) -> None:
        """The primary has taken it back."""
        self._opened_on = None
        if not self._closed:
            log.event("mailbox.evicted", mailbox=self.id)
            self._evicted(self.id)


async def open_remote(
    link: Link, mailbox_id: str, key: bytes, evicted: Callable[[str], None], *, relocate: Relocate | None = None
) -> RemoteMailbox:
    """Open a mailbox at a primary; an opener for :class:`~fe_twisted.storage.mailbox.registry.OpenMailboxes`.

    :param key: the mailbox key, 32 octets.
    :param evicted, relocate: see :class:`RemoteMailbox`.
    :raises PrimaryAway:
    :raises fe_twisted.base.errors.MailError: the primary did not open it.
    """
    mailbox = RemoteMailbox(link, mailbox_id, key, evicted, relocate=relocate)
    await mailbox.opened()
    return mailbox


def above(uids: Ranges, uid: int) -> Ranges:
    """The ranges without what is at or below a UID."""
    return tuple((max(first, uid + 1), last) for first, last in uids if last > uid)


def opened(mailbox: LocalMailbox) -> Sequence[Buffer]:
    """The answer to ``open``, at the primary."""
    return encode(OPENED, Opened(mailbox.keywords(), tuple(mailbox.modseqs().items()), mailbox.place()))
