"""Waiting mail moves into the mailbox: seal opened, stored, and only then removed from the temporary file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from twisted.internet.defer import DeferredLock

from fe_twisted.base import errors, faults, log
from fe_twisted.base.clock import Clock
from fe_twisted.protocols.crypto.seal import SealingKey
from fe_twisted.storage.mailbox.api import Appended, NewMessage
from fe_twisted.storage.spool.item import Waiting, unseal
from fe_twisted.storage.spool.spool import SealedRow, Spool
from fe_twisted.storage.sqlite.writer import RunInThread

#: One batch, which becomes one transaction of the mailbox: messages at most, and octets at most (a larger message makes a batch of its
#: own).
BATCH_MESSAGES = 200
BATCH_BYTES = 8 * 1024 * 1024

#: Messages in a row that may fail, each alone and by an error of ours, before the mailbox is taken for broken and not they.
PROBES = 20

#: Seconds after which messages that were set aside are tried again; the first poll after a start tries them as well.
RETRY = 900.0

INBOX = "INBOX"


class Target(Protocol):
    """What the merge needs of a mailbox."""

    @property
    def id(self) -> str:
        """The 24-hex name of the file."""

    @property
    def leaving(self) -> bool:
        """It is being closed, and that waits for the batch that is being stored."""

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
    unreadable: list[tuple[SealedRow, Exception]] = field(default_factory=list)


@dataclass(slots=True)
class _Progress:
    """How one merge goes.

    :param came: messages that are new in the mailbox.
    :param succeeded: some message was stored.
    :param doubtful: delivery ids since the last success, each of which failed alone by an error of ours; they are marked as refused.
    :param error: the last of these.
    """

    came: int = 0
    succeeded: bool = False
    doubtful: list[bytes] = field(default_factory=list)
    error: errors.Ours | None = None

    def stored(self, news: int) -> None:
        """Messages were stored, so nothing is wrong with the mailbox, and what failed before them failed by itself."""
        self.came += news
        self.succeeded = True
        self.doubtful.clear()

    def failed(self, delivery_id: bytes, error: errors.Ours) -> None:
        """A message could not be stored.

        :raises Ours: it was one too many.
        """
        self.doubtful.append(delivery_id)
        self.error = error
        if len(self.doubtful) >= PROBES:
            raise error


class Merge:
    """Empties temporary mailboxes, each by one merge at a time."""

    def __init__(self, spool: Spool, run_in_thread: RunInThread, clock: Clock) -> None:
        self._spool = spool
        self._run_in_thread = run_in_thread
        self._clock = clock
        self._locks: dict[str, DeferredLock] = {}
        #: When the refused messages of a mailbox were last tried again by this process: what refused them may have been a fault of ours
        #: that an update has mended, or one that has passed.
        self._retried: dict[str, float] = {}

    async def poll(self, mailbox: Target) -> int:
        """Move waiting mail in, if there is any: one ``stat`` if not.  What :class:`~fe_twisted.storage.mailbox.local.LocalMailbox` calls.

        :returns: how many messages came.
        """
        if not self._spool.waiting(mailbox.id):
            return 0
        return await self.merge(mailbox.id, mailbox, await mailbox.sealing_key(), lambda: mailbox.leaving)

    async def merge(self, mailbox_id: str, mailbox: Appender, sealing_key: SealingKey, leaving: Callable[[], bool] = lambda: False) -> int:
        """Move everything that waits into the mailbox, then take the empty file away.

        Whoever comes while a merge is running waits for it, and then looks whether more has come since.  A failure leaves everything that
        is not yet stored for the next time; a message that was stored but not yet removed is recognised by its delivery id.

        :param leaving: whether to stop after a batch; one batch is always stored, so that each login, however short, brings some in.
        :returns: how many messages came with this call.
        :raises fe_twisted.base.errors.MailError: the mailbox or the disk refused.
        """
        lock = self._locks.setdefault(mailbox_id, DeferredLock())
        waited = bool(lock.locked)
        await lock.acquire()
        try:
            if not self._spool.waiting(mailbox_id) or (waited and leaving()):
                return 0
            return await self._merge(mailbox_id, mailbox, sealing_key, leaving)
        finally:
            lock.release()
            if not lock.locked:
                self._locks.pop(mailbox_id, None)

    async def _merge(self, mailbox_id: str, mailbox: Appender, key: SealingKey, leaving: Callable[[], bool]) -> int:
        faults.reach("merge.start")
        progress = _Progress()
        await self._retry(mailbox_id)
        try:
            while rows := await self._spool.take(mailbox_id, BATCH_MESSAGES, BATCH_BYTES):
                faults.reach("merge.taken")
                opened = await self._unseal(mailbox_id, rows, key)
                faults.reach("merge.unsealed")
                await self._store(mailbox_id, mailbox, opened, progress)
                if leaving():
                    break
        except errors.Ours as error:
            if error is progress.error:  # too many in a row
                await self._spool.restore(mailbox_id, progress.doubtful)
            raise
        if progress.error is not None and not progress.succeeded:
            # It may well be the mailbox; what is certain is that nobody can be told to be at fault.
            await self._spool.restore(mailbox_id, progress.doubtful)
            raise progress.error
        if not leaving() and await self._spool.remove_if_empty(mailbox_id):
            self._retried.pop(mailbox_id, None)
            faults.reach("merge.done")
        if progress.came:
            log.event("merge.done", mailbox=mailbox_id, messages=progress.came)
        return progress.came

    async def _retry(self, mailbox_id: str) -> None:
        """Let those that were set aside be tried again, now and then."""
        now = self._clock.seconds()
        if now - self._retried.get(mailbox_id, -RETRY) >= RETRY:
            await self._spool.retry(mailbox_id)
            self._retried[mailbox_id] = now

    async def _unseal(self, mailbox_id: str, rows: list[SealedRow], key: SealingKey) -> _Opened:
        """Open the seals, in a thread."""

        def work() -> _Opened:
            opened = _Opened()
            for row in rows:
                try:
                    opened.items.append(unseal(row.sealed, key, mailbox_id, row.delivery_id))
                except MemoryError:
                    raise
                except Exception as error:  # Unreadable; or a bug in reading it, which must not keep the others out
                    opened.unreadable.append((row, error))
            return opened

        done: _Opened = await self._run_in_thread(work)
        return done

    async def _store(self, mailbox_id: str, mailbox: Appender, opened: _Opened, progress: _Progress) -> None:
        """Store a batch, and only then remove it from the temporary mailbox; what cannot be stored is marked and stays there.

        :raises Ours: many in a row could not be stored; all of them are marked.
        """
        for row, reason in opened.unreadable:
            log.failure("merge.unreadable", reason, mailbox=mailbox_id, delivery=row.delivery_id.hex(), reason=str(reason))
        refused = [row.delivery_id for row, _ in opened.unreadable]
        stored: list[bytes] = []
        trouble: errors.Ours | None = None
        try:
            for folder, items in _by_folder(opened.items):
                await self._append(mailbox_id, mailbox, folder, items, progress, stored, refused)
        except errors.Ours as error:
            trouble = error
        faults.reach("merge.appended")
        if stored:
            await self._spool.remove(mailbox_id, stored)
        if refused:
            await self._spool.refuse(mailbox_id, refused)
        faults.reach("merge.removed")
        if trouble is not None:
            raise trouble

    async def _append(
        self,
        mailbox_id: str,
        mailbox: Appender,
        folder: str,
        items: list[Waiting],
        progress: _Progress,
        stored: list[bytes],
        refused: list[bytes],
    ) -> None:
        """Store messages of one folder in one transaction, or each alone if one of them cannot be stored.

        :param stored, refused: delivery ids that are stored, and that cannot be, are added to them.
        :raises Later, MemoryError: nothing is wrong with the messages; the next poll tries again.
        :raises Ours: something is wrong with too many of them in a row.
        """
        try:
            appended = await _append_to(mailbox, folder, items)
        except (errors.Later, MemoryError):
            raise
        except Exception as error:
            if len(items) == 1:
                log.failure("merge.refused", error, mailbox=mailbox_id, delivery=items[0].delivery_id.hex())
                refused.append(items[0].delivery_id)
                if isinstance(error, errors.Ours):
                    progress.failed(items[0].delivery_id, error)
                return
        else:
            stored += [item.delivery_id for item in items]
            progress.stored(sum(uid != 0 for uid in appended.uids))
            return
        for single in items:
            await self._append(mailbox_id, mailbox, folder, [single], progress, stored, refused)


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
