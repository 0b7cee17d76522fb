"""Which mailboxes are open in this process, and for how many sessions.

All sessions of an alias share one object, so that a change by one is known to the others without asking the disk.  When the last
session is gone the mailbox stays open for a short grace, because clients reconnect; then it is closed and its key overwritten.
"""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred, DeferredLock, gatherResults

from fe_twisted.base import errors, log
from fe_twisted.base.clock import Clock
from fe_twisted.protocols.crypto.memory import KeyInMemory
from fe_twisted.storage.sqlite.connect import WrongKey

#: Seconds that a mailbox stays open after its last session.
GRACE = 30.0


class Closable(Protocol):
    """What the registry itself needs of a mailbox."""

    id: str

    async def close(self) -> None:
        """Finish what was begun and let go of the file."""


M = TypeVar("M", bound=Closable)


@dataclass(slots=True, eq=False)
class _Watcher:
    """Who is told when the mailbox is taken away, and when it is taken away only to be moved."""

    evicted: Callable[[], None]
    moved: Callable[[], None]


@dataclass(slots=True, eq=False)
class _Entry(Generic[M]):
    """A mailbox's place; the lock is held while it is being opened or closed."""

    lock: DeferredLock = field(default_factory=DeferredLock)
    mailbox: M | None = None
    key: KeyInMemory | None = None
    users: int = 0
    timer: Any = None  # IDelayedCall; mypy cannot read zope interfaces
    watchers: list[_Watcher] = field(default_factory=list)


class OpenMailboxes(Generic[M]):
    """The open mailboxes.

    :param opener: opens a file with its key; raises :mod:`fe_twisted.base.errors`.
    :param grace: seconds that a mailbox stays open without a session.
    """

    def __init__(self, opener: Callable[[str, bytes], Awaitable[M]], clock: Clock, *, grace: float = GRACE) -> None:
        self._opener = opener
        self._clock = clock
        self._grace = grace
        self._entries: dict[str, _Entry[M]] = {}
        self._farewells: list[Callable[[str], None]] = []
        self._closed = False

    def __len__(self) -> int:
        """How many are open, those in their grace included."""
        return sum(entry.mailbox is not None for entry in self._entries.values())

    def ids(self) -> list[str]:
        """Those that are open."""
        return [mailbox_id for mailbox_id, entry in self._entries.items() if entry.mailbox is not None]

    def get(self, mailbox_id: str) -> M | None:
        """The mailbox if it is open now; not counted as a use."""
        entry = self._entries.get(mailbox_id)
        return entry.mailbox if entry is not None else None

    async def open(self, mailbox_id: str, key: bytes) -> M:
        """The mailbox, opened now or before, for one session more; to be given back once with :meth:`release`.

        :param key: the mailbox key, 32 octets, from a key slot.
        :raises WrongKey: it is open with another key; nobody who uses it notices.
        :raises fe_twisted.base.errors.MailError: it cannot be opened, or the server is stopping.
        """
        entry = await self._lock(mailbox_id)
        try:
            if entry.mailbox is None:
                entry.mailbox = await self._opener(mailbox_id, key)
                entry.key = KeyInMemory(key)
                log.event("mailbox.opened", mailbox=mailbox_id)
            elif not _same(entry.key, key):
                raise WrongKey(reason=f"{mailbox_id} is open with another key")
            entry.users += 1
            self._stop_timer(entry)
            return entry.mailbox
        finally:
            self._unlock(mailbox_id, entry)

    def release(self, mailbox: M) -> None:
        """A session is done with it.  Of a mailbox that was evicted meanwhile, this does nothing."""
        entry = self._entries.get(mailbox.id)
        if entry is None or entry.mailbox is not mailbox or not entry.users:
            return
        entry.users -= 1
        if not entry.users:
            entry.timer = self._clock.callLater(self._grace, self._expire, mailbox.id, entry)

    def watch_eviction(self, mailbox: M, watcher: Callable[[], None], moved: Callable[[], None] | None = None) -> Callable[[], None]:
        """Call ``watcher()`` when the mailbox is taken from its sessions; returns a function that stops it.

        A session should then say goodbye (IMAP: ``BYE``) and hang up.

        :param moved: to be called instead when it is closed to be moved (:meth:`frozen`), by who can open it again elsewhere.
        """
        entry = self._entries.get(mailbox.id)
        watchers = entry.watchers if entry is not None and entry.mailbox is mailbox else []
        watching = _Watcher(watcher, watcher if moved is None else moved)
        watchers.append(watching)

        def stop() -> None:
            if watching in watchers:
                watchers.remove(watching)

        return stop

    async def evict(self, mailbox_id: str) -> bool:
        """Take a mailbox from all its sessions, because its alias was removed, disabled or given a new mailbox; True if it was open.

        Watchers are told before it is closed.  Returns when the file is closed.
        """
        entry = await self._lock(mailbox_id)
        try:
            return await self._shut(mailbox_id, entry)
        finally:
            self._unlock(mailbox_id, entry)

    def when_frozen(self, farewell: Callable[[str], None]) -> None:
        """Call ``farewell(mailbox_id)`` when an open mailbox is closed to be moved: for sessions that must end then."""
        self._farewells.append(farewell)

    @asynccontextmanager
    async def frozen(self, mailbox_id: str) -> AsyncIterator[None]:
        """Close a mailbox and keep it closed for as long as the block lasts: whoever opens it waits.

        Watchers are told before it is closed.

        :raises Later: the server is stopping.
        """
        entry = await self._lock(mailbox_id)
        try:
            if entry.mailbox is not None:
                for farewell in self._farewells:
                    farewell(mailbox_id)
            await self._shut(mailbox_id, entry, moving=True)
            yield
        finally:
            self._unlock(mailbox_id, entry)

    async def close_all(self) -> None:
        """Open nothing more, and close all: the server stops.  Watchers are told."""
        self._closed = True
        await gatherResults([Deferred.fromCoroutine(self._close(*item)) for item in list(self._entries.items())])

    # -- inside -----------------------------------------------------------------------------------

    async def _lock(self, mailbox_id: str) -> _Entry[M]:
        entry = self._entries.setdefault(mailbox_id, _Entry())
        await entry.lock.acquire()
        if self._closed:
            self._unlock(mailbox_id, entry)
            raise errors.Later("server is shutting down", reason="the registry is closed")
        return entry

    def _unlock(self, mailbox_id: str, entry: _Entry[M]) -> None:
        """Let go; a place that is empty and that nobody waits for is dropped."""
        entry.lock.release()
        if entry.mailbox is None and not entry.lock.locked and self._entries.get(mailbox_id) is entry:
            self._entries.pop(mailbox_id, None)

    async def _close(self, mailbox_id: str, entry: _Entry[M], *, only_unused: bool = False) -> None:
        """Close the mailbox in its turn, unless somebody has come back to it."""
        await entry.lock.acquire()
        try:
            if not (only_unused and entry.users):
                await self._shut(mailbox_id, entry)
        finally:
            self._unlock(mailbox_id, entry)

    async def _shut(self, mailbox_id: str, entry: _Entry[M], *, moving: bool = False) -> bool:
        """Close the mailbox and overwrite its key; the lock is held.  From its first moment :meth:`get` finds nothing."""
        mailbox, entry.mailbox = entry.mailbox, None
        watchers, entry.watchers = entry.watchers, []
        entry.users = 0
        self._stop_timer(entry)
        if entry.key is not None:
            entry.key.forget()
            entry.key = None
        if mailbox is None:
            return False
        for watcher in list(watchers):
            try:
                (watcher.moved if moving else watcher.evicted)()
            except Exception as error:
                log.failure("mailbox.evict", error, mailbox=mailbox_id)
        try:
            await mailbox.close()
        except Exception as error:
            log.failure("mailbox.close", error, mailbox=mailbox_id)
        log.event("mailbox.closed", mailbox=mailbox_id)
        return True

    def _stop_timer(self, entry: _Entry[M]) -> None:
        if entry.timer is not None:
            timer, entry.timer = entry.timer, None
            if timer.active():
                timer.cancel()

    def _expire(self, mailbox_id: str, entry: _Entry[M]) -> None:
        """The grace is over."""
        entry.timer = None

        def failed(failure: Any) -> None:
            log.failure("mailbox.close", failure.value, mailbox=mailbox_id)

        Deferred.fromCoroutine(self._close(mailbox_id, entry, only_unused=True)).addErrback(failed)


def _same(held: KeyInMemory | None, key: bytes) -> bool:
    """Whether it is the same key, in a time that does not depend on where they differ."""
    if held is None:
        return False
    with held.use() as clear:
        return hmac.compare_digest(clear, key)
