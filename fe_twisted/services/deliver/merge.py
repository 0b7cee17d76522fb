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

#: Messages in a row that may fail, each alone and by an error of ours, before the mailbox is taken for broken and not they; and how many of
#: these are the newest, because those that cannot be stored may all have come together, and be the oldest.
PROBES = 20
NEWEST = 5

#: Seconds after which messages that were set aside are tried again; the first poll after a start tries them as well.
RETRY = 900.0

#: Seconds for which a mailbox that took nothing is left in peace, unless new mail comes: each command of each session polls.
REST = 60.0

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


@dataclass(frozen=True, slots=True)
class _Work:
    """What one merge is about, see :meth:`Merge.merge`."""

    mailbox_id: str
    mailbox: Appender
    key: SealingKey
    leaving: Callable[[], bool]


@dataclass(slots=True)
class _Progress:
    """How a merge goes.

    :param limit: messages in a row that may fail by an error of ours.
    :param came: messages that are new in the mailbox.
    :param succeeded: some message was stored.
    :param failures: delivery ids of all that could not be stored.
    :param doubtful: those since the last success, each of which failed alone by an error of ours: it may be the mailbox.
    :param refused: those that are certainly at fault themselves, and are not marked yet.
    :param error: the last of ours.
    """

    limit: int
    came: int = 0
    succeeded: bool = False
    failures: set[bytes] = field(default_factory=set)
    doubtful: list[bytes] = field(default_factory=list)
    refused: list[bytes] = field(default_factory=list)
    error: errors.Ours | None = None

    def stored(self, news: int) -> None:
        """Messages were stored, so nothing is wrong with the mailbox, and what failed before them failed by itself."""
        self.came += news
        self.succeeded = True
        self.settle()

    def settle(self) -> None:
        """It is not the mailbox."""
        self.refused += self.doubtful
        self.doubtful.clear()

    def failed(self, delivery_id: bytes, error: Exception) -> None:
        """A message could not be stored, or not even read.

        :raises Ours: it was one too many.
        """
        self.failures.add(delivery_id)
        if not isinstance(error, errors.Ours):
            self.refused.append(delivery_id)
            return
        self.doubtful.append(delivery_id)
        self.error = error
        if len(self.doubtful) >= self.limit:
            raise error


@dataclass(slots=True)
class _Again:
    """When messages that were set aside are tried again.

    :param due: seconds of the clock.
    :param tried: delivery ids of those that had their turn and failed: when one attempt does not come to all, the next goes on behind them.
    """

    due: float
    tried: set[bytes] = field(default_factory=set)


class Merge:
    """Empties temporary mailboxes, each by one merge at a time."""

    def __init__(self, spool: Spool, run_in_thread: RunInThread, clock: Clock) -> None:
        self._spool = spool
        self._run_in_thread = run_in_thread
        self._clock = clock
        self._locks: dict[str, DeferredLock] = {}
        #: Of mailboxes with messages that were set aside: what refused them may have been a fault of ours that an update has mended, or one
        #: that has passed.
        self._again: dict[str, _Again] = {}
        #: When a mailbox took nothing, so that it is left in peace now; and those to which mail came while they were being merged.
        self._resting: dict[str, float] = {}
        self._news: set[str] = set()
        spool.when_added(self._added)

    async def poll(self, mailbox: Target) -> int:
        """Move waiting mail in, if there is any: one ``stat`` if not.  What :class:`~fe_twisted.storage.mailbox.local.LocalMailbox` calls.

        :returns: how many messages came.
        """
        if not self._due(mailbox.id):
            return 0
        return await self.merge(mailbox.id, mailbox, await mailbox.sealing_key(), lambda: mailbox.leaving)

    async def merge(self, mailbox_id: str, mailbox: Appender, sealing_key: SealingKey, leaving: Callable[[], bool] = lambda: False) -> int:
        """Move everything that waits into the mailbox, then take the empty file away.

        Whoever comes while a merge is running waits for it, and then looks whether more has come since.  A failure leaves everything that
        is not yet stored for the next time; a message that was stored but not yet removed is recognised by its delivery id.  A mailbox that
        took nothing, and not for a reason that passes by itself, is not asked again for :data:`REST` seconds, unless new mail comes.

        :param leaving: whether to stop after a batch; one batch is always stored, so that each login, however short, brings some in.
        :returns: how many messages came with this call.
        :raises fe_twisted.base.errors.MailError: the mailbox or the disk refused.
        """
        lock = self._locks.setdefault(mailbox_id, DeferredLock())
        waited = bool(lock.locked)
        await lock.acquire()
        try:
            if not self._due(mailbox_id) or (waited and leaving()):
                return 0
            return await self._merge(_Work(mailbox_id, mailbox, sealing_key, leaving))
        finally:
            lock.release()
            if not lock.locked:
                self._locks.pop(mailbox_id, None)
                self._news.discard(mailbox_id)

    def _due(self, mailbox_id: str) -> bool:
        """Whether something waits, and the mailbox is not being left in peace."""
        failed = self._resting.get(mailbox_id)
        # A clock that was set back keeps nothing out.
        resting = failed is not None and 0 <= self._clock.seconds() - failed < REST
        return not resting and self._spool.waiting(mailbox_id)

    def _added(self, mailbox_id: str) -> None:
        """New mail waits; it may well be that it can be stored."""
        self._resting.pop(mailbox_id, None)
        if mailbox_id in self._locks:
            self._news.add(mailbox_id)

    async def _merge(self, work: _Work) -> int:
        faults.reach("merge.start")
        self._news.discard(work.mailbox_id)
        progress = _Progress(PROBES - NEWEST)
        try:
            await self._drain(work, progress)
        except errors.Ours as error:
            if error is not progress.error or not await self._vouched_for(work, progress):
                if not progress.succeeded and work.mailbox_id not in self._news:
                    self._resting[work.mailbox_id] = self._clock.seconds()
                raise
        self._resting.pop(work.mailbox_id, None)
        came = progress.came
        if not work.leaving():
            came += await self._retry(work, progress.failures)
        if not work.leaving() and await self._spool.remove_if_empty(work.mailbox_id):
            self._again.pop(work.mailbox_id, None)
            faults.reach("merge.done")
        if came:
            log.event("merge.done", mailbox=work.mailbox_id, messages=came)
        return came

    async def _drain(self, work: _Work, progress: _Progress) -> None:
        """Move in what has not been set aside.

        :raises MailError: see :meth:`merge`; then what failed last is not marked, because it may well be the mailbox.
        """
        while rows := await self._spool.take(work.mailbox_id, BATCH_MESSAGES, BATCH_BYTES, besides=progress.failures):
            try:
                await self._batch(work, rows, progress)
            except errors.Ours as error:
                if error is not progress.error:
                    raise
                await self._try_newest(work, progress)
            if work.leaving():
                break
        if progress.error is not None and not progress.succeeded:
            raise progress.error  # what is certain is that nobody can be told to be at fault
        progress.settle()
        await self._mark(work, progress)

    async def _try_newest(self, work: _Work, progress: _Progress) -> None:
        """Many in a row have failed: if one of the last that came can be stored, it is they; and if there is no other left, who knows.

        :raises Ours: it is the mailbox.
        """
        while len(progress.doubtful) < PROBES:
            rows = await self._spool.take(work.mailbox_id, 1, BATCH_BYTES, besides=progress.failures, newest=True)
            if not rows:
                return
            try:
                await self._batch(work, rows, progress)
            except errors.Ours as error:
                if error is not progress.error:
                    raise
            if not progress.doubtful:
                return
        if progress.error is not None:
            raise progress.error

    async def _vouched_for(self, work: _Work, progress: _Progress) -> bool:
        """Nothing could be stored; whether one of those that were set aside can be, which then need not wait for better ones to come."""
        came = 0 if work.leaving() else await self._retry(work, progress.failures)
        if came:
            progress.stored(came)
            await self._mark(work, progress)
        return came > 0

    async def _retry(self, work: _Work, just_now: set[bytes]) -> int:
        """Try those that were set aside, now and then, and after all others; those that fail again keep their mark, and nobody is told.

        :param just_now: delivery ids of those that have failed in this merge.
        :returns: how many messages came.
        """
        again = self._again.setdefault(work.mailbox_id, _Again(0.0))
        # A clock that was set back keeps nothing out.
        if 0 < again.due - self._clock.seconds() <= RETRY:
            return 0
        again.tried |= just_now
        again.due = self._clock.seconds() + RETRY
        progress = _Progress(PROBES)
        try:
            while rows := await self._spool.take(work.mailbox_id, BATCH_MESSAGES, BATCH_BYTES, besides=again.tried, refused=True):
                try:
                    await self._batch(work, rows, progress, mark=False)
                finally:
                    again.tried |= progress.failures
                if work.leaving():
                    again.due = 0.0
                    break
            else:
                again.tried.clear()
        except errors.MailError as error:
            if isinstance(error, errors.Later):
                again.due = self._clock.seconds() + REST
            log.warning("merge.retry", mailbox=work.mailbox_id, reason=error.reason or error.public)
        return progress.came

    async def _batch(self, work: _Work, rows: list[SealedRow], progress: _Progress, *, mark: bool = True) -> None:
        """Open the seals and store: see :meth:`_store`."""
        faults.reach("merge.taken")
        opened = await self._unseal(work.mailbox_id, rows, work.key)
        faults.reach("merge.unsealed")
        await self._store(work, opened, progress, mark)

    async def _mark(self, work: _Work, progress: _Progress) -> None:
        """Set aside what is certainly at fault itself."""
        if progress.refused:
            refused, progress.refused = progress.refused, []
            await self._spool.refuse(work.mailbox_id, refused)

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

    async def _store(self, work: _Work, opened: _Opened, progress: _Progress, mark: bool) -> None:
        """Store a batch, and only then remove it from the temporary mailbox; what cannot be stored stays there.

        :param mark: whether what is certainly at fault itself is not marked yet.
        :raises Later, MemoryError: nothing is wrong with the messages; the next poll tries again.
        :raises Ours: many in a row could not be stored.
        """
        for row, reason in opened.unreadable:
            log.failure("merge.unreadable", reason, mailbox=work.mailbox_id, delivery=row.delivery_id.hex(), reason=str(reason))
            progress.failures.add(row.delivery_id)
            progress.refused.append(row.delivery_id)
        stored: list[bytes] = []
        trouble: errors.Ours | None = None
        try:
            for folder, items in _by_folder(opened.items):
                await self._append(work, folder, items, progress, stored)
        except errors.Ours as error:
            trouble = error
        faults.reach("merge.appended")
        if stored:
            await self._spool.remove(work.mailbox_id, stored)
        if mark:
            await self._mark(work, progress)
        faults.reach("merge.removed")
        if trouble is not None:
            raise trouble

    async def _append(self, work: _Work, folder: str, items: list[Waiting], progress: _Progress, stored: list[bytes]) -> None:
        """Store messages of one folder in one transaction, or each alone if one of them cannot be stored.

        :param stored: the delivery ids that are stored are added to it.
        :raises Later, MemoryError: nothing is wrong with the messages; the next poll tries again.
        :raises Ours: something is wrong with too many of them in a row.
        """
        try:
            appended = await _append_to(work.mailbox, folder, items)
        except (errors.Later, MemoryError):
            raise
        except Exception as error:
            if len(items) == 1:
                log.failure("merge.refused", error, mailbox=work.mailbox_id, delivery=items[0].delivery_id.hex())
                progress.failed(items[0].delivery_id, error)
                return
        else:
            stored += [item.delivery_id for item in items]
            progress.stored(sum(uid != 0 for uid in appended.uids))
            return
        for single in items:
            await self._append(work, folder, [single], progress, stored)


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
