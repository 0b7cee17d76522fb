"""Waiting mail moves into the mailbox: seal opened, stored, and only then removed from the temporary file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from twisted.internet.defer import DeferredLock

from fe_twisted.base import errors, faults, log
from fe_twisted.protocols.crypto.seal import SealingKey
from fe_twisted.storage.mailbox.api import Appended, NewMessage
from fe_twisted.storage.spool.item import Unreadable, Waiting, unseal
from fe_twisted.storage.spool.spool import SealedRow, Spool
from fe_twisted.storage.sqlite.writer import RunInThread

#: One batch, which becomes one transaction of the mailbox: messages at most, and octets at most (a larger message makes a batch of its
#: own).
BATCH_MESSAGES = 200
BATCH_BYTES = 8 * 1024 * 1024

INBOX = "INBOX"


class Target(Protocol):
    """What the merge needs of a mailbox."""

    @property
    def id(self) -> str:
        """The 24-hex name of the file."""

    async def append(self, name: str, messages: Sequence[NewMessage], /) -> Appended:
        """As :meth:`fe_twisted.storage.mailbox.api.Mailbox.append`."""

    async def sealing_key(self) -> SealingKey:
        """The private key that waiting mail opens with."""


class Appender(Protocol):
    """The half of :class:`Target` that takes the messages."""

    async def append(self, name: str, messages: Sequence[NewMessage], /) -> Appended:
        """As :meth:`fe_twisted.storage.mailbox.api.Mailbox.append`."""


@dataclass(slots=True)
class _Opened:
    """A batch after its seals were opened."""

    items: list[Waiting] = field(default_factory=list)
    unreadable: list[tuple[SealedRow, Unreadable]] = field(default_factory=list)


class Merge:
    """Empties temporary mailboxes, each by one merge at a time."""

    def __init__(self, spool: Spool, run_in_thread: RunInThread) -> None:
        self._spool = spool
        self._run_in_thread = run_in_thread
        self._locks: dict[str, DeferredLock] = {}
        #: Mailboxes whose refused messages were tried again since the start of the process: what refused them may have been a fault of ours
        #: that an update has mended.
        self._retried: set[str] = set()

    async def poll(self, mailbox: Target) -> int:
        """Move waiting mail in, if there is any: one ``stat`` if not.  What :class:`~fe_twisted.storage.mailbox.local.LocalMailbox` calls.

        :returns: how many messages came.
        """
        if not self._spool.waiting(mailbox.id):
            return 0
        return await self.merge(mailbox.id, mailbox, await mailbox.sealing_key())

    async def merge(self, mailbox_id: str, mailbox: Appender, sealing_key: SealingKey) -> int:
        """Move everything that waits into the mailbox, then take the empty file away.

        Whoever comes while a merge is running waits for it, and then looks whether more has come since.  A failure leaves everything that
        is not yet stored for the next time; a message that was stored but not yet removed is recognised by its delivery id.

        :returns: how many messages came with this call.
        :raises fe_twisted.base.errors.MailError: the mailbox or the disk refused.
        """
        lock = self._locks.setdefault(mailbox_id, DeferredLock())
        await lock.acquire()
        try:
            if not self._spool.waiting(mailbox_id):
                return 0
            return await self._merge(mailbox_id, mailbox, sealing_key)
        finally:
            lock.release()
            if not lock.locked:
                self._locks.pop(mailbox_id, None)

    async def _merge(self, mailbox_id: str, mailbox: Appender, key: SealingKey) -> int:
        faults.reach("merge.start")
        came = 0
        if mailbox_id not in self._retried:
            await self._spool.retry(mailbox_id)
            self._retried.add(mailbox_id)
        while rows := await self._spool.take(mailbox_id, BATCH_MESSAGES, BATCH_BYTES):
            faults.reach("merge.taken")
            opened = await self._unseal(mailbox_id, rows, key)
            faults.reach("merge.unsealed")
            came += await self._store(mailbox_id, mailbox, opened)
        if await self._spool.remove_if_empty(mailbox_id):
            faults.reach("merge.done")
        if came:
            log.event("merge.done", mailbox=mailbox_id, messages=came)
        return came

    async def _unseal(self, mailbox_id: str, rows: list[SealedRow], key: SealingKey) -> _Opened:
        """Open the seals, in a thread."""

        def work() -> _Opened:
            opened = _Opened()
            for row in rows:
                try:
                    opened.items.append(unseal(row.sealed, key, mailbox_id, row.delivery_id))
                except Unreadable as error:
                    opened.unreadable.append((row, error))
            return opened

        done: _Opened = await self._run_in_thread(work)
        return done

    async def _store(self, mailbox_id: str, mailbox: Appender, opened: _Opened) -> int:
        """Store a batch, and only then remove it from the temporary mailbox; what can never be stored is marked and stays there."""
        for row, reason in opened.unreadable:
            log.failure("merge.unreadable", reason, mailbox=mailbox_id, delivery=row.delivery_id.hex(), reason=str(reason))
        refused = [row.delivery_id for row, _ in opened.unreadable]
        stored: list[bytes] = []
        came = 0
        for folder, items in _by_folder(opened.items):
            done, news, failed = await self._append(mailbox_id, mailbox, folder, items)
            stored += done
            came += news
            refused += failed
        faults.reach("merge.appended")
        if stored:
            await self._spool.remove(mailbox_id, stored)
        if refused:
            await self._spool.refuse(mailbox_id, refused)
        faults.reach("merge.removed")
        return came

    async def _append(self, mailbox_id: str, mailbox: Appender, folder: str, items: list[Waiting]) -> tuple[list[bytes], int, list[bytes]]:
        """Store messages of one folder in one transaction, or each alone if one of them cannot be stored.

        :returns: delivery ids that are stored, how many of them are new, delivery ids that cannot be stored.
        :raises Later, Ours, MemoryError: nothing is wrong with the messages; the next poll tries again.
        """
        try:
            appended = await _append_to(mailbox, folder, items)
        except (errors.Later, errors.Ours, MemoryError):
            raise
        except Exception as error:
            if len(items) == 1:
                log.failure("merge.refused", error, mailbox=mailbox_id, delivery=items[0].delivery_id.hex())
                return [], 0, [items[0].delivery_id]
        else:
            return [item.delivery_id for item in items], sum(uid != 0 for uid in appended.uids), []
        stored: list[bytes] = []
        refused: list[bytes] = []
        came = 0
        for single in items:
            done, news, failed = await self._append(mailbox_id, mailbox, folder, [single])
            stored += done
            came += news
            refused += failed
        return stored, came, refused


async def _append_to(mailbox: Appender, folder: str, items: Sequence[Waiting]) -> Appended:
    """Append; to INBOX, which is always there, if the folder is gone."""
    messages = [NewMessage(item.content, flags=item.flags, internaldate=item.received_at, delivery_id=item.delivery_id) for item in items]
    try:
        return await mailbox.append(folder, messages)
    except errors.TryCreate:
        if folder == INBOX:
            raise
        return await mailbox.append(INBOX, messages)


def _by_folder(items: list[Waiting]) -> list[tuple[str, list[Waiting]]]:
    """Messages by folder, in the order in which they came."""
    folders: dict[str, list[Waiting]] = {}
    for item in items:
        folders.setdefault(item.folder, []).append(item)
    return list(folders.items())
