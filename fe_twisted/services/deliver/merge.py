"""Waiting mail moves into the mailbox: seal opened, stored, and only then removed from the temporary file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from twisted.internet.defer import DeferredLock

from fe_twisted.base import errors, faults, log
from fe_twisted.base.clock import Clock
from fe_twisted.protocols.crypto.seal import SealingKey
from fe_twisted.services.deliver.turns import REST, Again, Progress, Round
from fe_twisted.storage.mailbox.api import Appended, NewMessage
from fe_twisted.storage.spool.item import Waiting, unseal
from fe_twisted.storage.spool.spool import Order, SealedRow, Spool
from fe_twisted.storage.sqlite.writer import RunInThread

#: One batch, which becomes one transaction of the mailbox: messages at most, and octets at most (a larger message makes a batch of its
#: own).
BATCH_MESSAGES = 200
BATCH_BYTES = 8 * 1024 * 1024

#: Messages in a row that may fail, each alone and by an error of ours, before it may be the mailbox and not they: then the next poll goes
#: on with others.  And how many of these are the newest, because those that cannot be stored may all have come together, and be the oldest.
PROBES = 20
NEWEST = 5

#: Messages that may fail in one poll, whatever for and whatever was stored between them; the next poll goes on after the batch.
FAILURES = 200

#: For want of what a smaller message may find enough of.
_SHORTAGE = (errors.DiskFull, errors.OverQuota, MemoryError)

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
    too_large: list[tuple[SealedRow, MemoryError]] = field(default_factory=list)
    sizes: dict[bytes, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Items:
    """Messages of one folder, how many octets each takes sealed, and the delivery ids of all that are stored, to be added to."""

    waiting: list[Waiting]
    sizes: dict[bytes, int]
    stored: list[bytes]


@dataclass(frozen=True, slots=True)
class _Work:
    """What one merge is about, see :meth:`Merge.merge`."""

    mailbox_id: str
    mailbox: Appender
    key: SealingKey
    leaving: Callable[[], bool]


class Merge:
    """Empties temporary mailboxes, each by one merge at a time."""

    def __init__(self, spool: Spool, run_in_thread: RunInThread, clock: Clock) -> None:
        self._spool = spool
        self._run_in_thread = run_in_thread
        self._clock = clock
        self._locks: dict[str, DeferredLock] = {}
        #: Of mailboxes with messages that were set aside: what refused them may have been a fault of ours that an update has mended, or one
        #: that has passed.
        self._again: dict[str, Again] = {}
        #: Of mailboxes that took nothing; and those to which mail came while they were being merged.
        self._rounds: dict[str, Round] = {}
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
        takes nothing, and not for a reason that passes by itself, is asked for :data:`PROBES` messages at each poll, until all had their
        turn; then it is not asked again for :data:`REST` seconds, and for longer the next time, unless new mail comes.

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
                if self._rounds.get(mailbox_id) == Round():
                    del self._rounds[mailbox_id]

    def _due(self, mailbox_id: str) -> bool:
        """Whether something waits, and the mailbox is not being left in peace."""
        turn = self._rounds.get(mailbox_id)
        peace = turn is not None and not turn.news and turn.resting(self._clock.seconds())
        return not peace and self._spool.waiting(mailbox_id)

    def _added(self, mailbox_id: str) -> None:
        """New mail waits; it may well be that it can be stored."""
        turn = self._rounds.get(mailbox_id)
        if turn is not None:
            turn.news = True
        if mailbox_id in self._locks:
            self._news.add(mailbox_id)

    async def _merge(self, work: _Work) -> int:
        faults.reach("merge.start")
        self._news.discard(work.mailbox_id)
        turn = self._rounds.setdefault(work.mailbox_id, Round())
        turn.begin(self._clock.seconds())
        progress = Progress(PROBES - NEWEST)
        try:
            await self._go_on(work, progress, turn)
        except errors.Ours as error:
            ours = error is progress.error
            if not ours or not await self._vouched_for(work, progress, turn):
                turn.tried.update(progress.doubtful)
                self._note(work.mailbox_id, turn, progress, over=progress.drained or not ours)
                raise
        self._note(work.mailbox_id, turn, progress, over=progress.drained and bool(turn.tried))
        came = progress.came
        if not work.leaving():
            came += await self._retry(work, progress.failures)
        if not work.leaving() and await self._spool.remove_if_empty(work.mailbox_id):
            self._again.pop(work.mailbox_id, None)
            faults.reach("merge.done")
        if came:
            log.event("merge.done", mailbox=work.mailbox_id, messages=came)
        if progress.short is not None:
            raise progress.short
        return came

    def _note(self, mailbox_id: str, turn: Round, progress: Progress, *, over: bool) -> None:
        """How the merge went, for the next one.

        :param over: there are no others that could be tried.
        """
        if progress.succeeded:
            turn.succeeded()
        elif mailbox_id in self._news:
            turn.tried.clear()
        elif over and progress.short is None:
            turn.end(self._clock.seconds())

    async def _go_on(self, work: _Work, progress: Progress, turn: Round) -> None:
        """Move in what has not been set aside, those that had their turn at earlier polls after all others.

        :raises MailError: see :meth:`_drain`.
        """
        if turn.tried:
            await self._in_order(work, progress, turn)
            if progress.succeeded and work.leaving():
                return
        await self._drain(work, progress, turn.tried)
        if progress.succeeded and turn.tried and not work.leaving():
            await self._second_turn(work, progress, turn)

    async def _in_order(self, work: _Work, progress: Progress, turn: Round) -> None:
        """It may have been the mailbox, and over by now: then all move in as they came."""
        rows = await self._spool.take(work.mailbox_id, BATCH_MESSAGES, BATCH_BYTES)
        whole = Progress(1, whole=True)
        if rows:
            await self._batch(work, rows, whole)
            progress.failures |= whole.failures
        if whole.succeeded:
            progress.stored(whole.came)
        if whole.succeeded or not rows:
            turn.tried.clear()

    async def _drain(self, work: _Work, progress: Progress, tried: set[bytes]) -> None:
        """Move in what has not been set aside.

        :param tried: delivery ids to pass over.
        :raises MailError: see :meth:`merge`; then what failed last is not marked, because it may well be the mailbox.
        """
        while rows := await self._take(work, progress, tried):
            try:
                await self._batch(work, rows, progress)
            except errors.Ours as error:
                if error is not progress.error:
                    raise
                await self._try_newest(work, progress, tried)
            if work.leaving() or len(progress.failures) >= FAILURES:
                break
        else:
            progress.drained = True
        if progress.error is not None and not progress.succeeded:
            raise progress.error  # what is certain is that nobody can be told to be at fault
        progress.settle()
        await self._mark(work, progress)

    async def _take(
        self, work: _Work, progress: Progress, tried: set[bytes], *, newest: bool = False, refused: bool = False
    ) -> list[SealedRow]:
        """The next that are to be tried: a batch of the oldest, or one of the newest; or the smallest, if there is little room.

        :param refused: of those that were set aside.
        """
        besides = progress.failures | tried
        order: Order = "smallest" if progress.cramped else "newest" if newest else "oldest"
        limit = BATCH_MESSAGES if order == "oldest" else 1
        rows = await self._spool.take(
            work.mailbox_id, limit, BATCH_BYTES, besides=besides, refused=refused, order=order, smaller=progress.room
        )
        if rows and order == "smallest":
            progress.smallest = len(rows[0].sealed)
        return rows

    async def _second_turn(self, work: _Work, progress: Progress, turn: Round) -> None:
        """It is not the mailbox: those that failed at earlier polls either move in now, or are set aside."""
        again = Progress(PROBES, failures=set(progress.failures), room=progress.room, succeeded=True)
        try:
            while rows := await self._take(work, again, set()):
                await self._batch(work, rows, again)
            turn.tried.clear()
        except errors.Ours as error:
            if error is not again.error:
                raise
        again.settle()
        await self._mark(work, again)
        turn.tried -= again.failures
        progress.failures |= again.failures
        progress.came += again.came
        progress.short = again.short or progress.short

    async def _try_newest(self, work: _Work, progress: Progress, tried: set[bytes]) -> None:
        """Many in a row have failed: if one of the last that came can be stored, it is they; and if there is no other left, who knows.

        :raises Ours: it is the mailbox; or enough for one poll.
        """
        while len(progress.doubtful) < PROBES and len(progress.failures) < FAILURES:
            rows = await self._take(work, progress, tried, newest=True)
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

    async def _vouched_for(self, work: _Work, progress: Progress, turn: Round) -> bool:
        """Nothing could be stored; whether one of those that were set aside can be, which then need not wait for better ones to come."""
        came = 0 if work.leaving() else await self._retry(work, progress.failures)
        if came:
            progress.stored(came)
            await self._mark(work, progress)
            await self._second_turn(work, progress, turn)
        return came > 0

    async def _retry(self, work: _Work, just_now: set[bytes]) -> int:
        """Try those that were set aside, now and then, and after all others; those that fail again keep their mark, and nobody is told.

        :param just_now: delivery ids of those that have failed in this merge.
        :returns: how many messages came.
        """
        again = self._again.setdefault(work.mailbox_id, Again(0.0))
        # A clock that was set back keeps nothing out.
        if 0 < again.due - self._clock.seconds() <= again.pause:
            return 0
        again.tried |= just_now
        again.due = 0.0  # the next poll goes on behind those that fail now
        progress = Progress(PROBES)
        try:
            while rows := await self._take(work, progress, again.tried, refused=True):
                try:
                    await self._batch(work, rows, progress, mark=False)
                finally:
                    again.went(progress)
                if work.leaving() or len(progress.failures) >= FAILURES:
                    break
            else:
                again.end(self._clock.seconds(), short=progress.short is not None)
        except (errors.MailError, MemoryError) as error:
            if error is not progress.error:
                again.due = self._clock.seconds() + REST
            log.warning("merge.retry", mailbox=work.mailbox_id, reason=getattr(error, "reason", "") or str(error))
        return progress.came

    async def _batch(self, work: _Work, rows: list[SealedRow], progress: Progress, *, mark: bool = True) -> None:
        """Open the seals and store: see :meth:`_store`."""
        faults.reach("merge.taken")
        opened = await self._unseal(work.mailbox_id, rows, work.key)
        faults.reach("merge.unsealed")
        await self._store(work, opened, progress, mark)

    async def _mark(self, work: _Work, progress: Progress) -> None:
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
                    opened.sizes[row.delivery_id] = len(row.sealed)
                except MemoryError as error:
                    opened.too_large.append((row, error))
                except Exception as error:  # Unreadable; or a bug in reading it, which must not keep the others out
                    opened.unreadable.append((row, error))
            return opened

        done: _Opened = await self._run_in_thread(work)
        return done

    async def _store(self, work: _Work, opened: _Opened, progress: Progress, mark: bool) -> None:
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
        trouble: errors.MailError | MemoryError | None = None
        try:
            for folder, items in _by_folder(opened.items):
                await self._append(work, folder, _Items(items, opened.sizes, stored), progress)
            for row, shortage in opened.too_large:
                if not progress.whole and progress.fits(len(row.sealed)):
                    progress.no_room(len(row.sealed), shortage)
        except (errors.MailError, MemoryError) as error:
            trouble = error
        faults.reach("merge.appended")
        if stored:
            await self._spool.remove(work.mailbox_id, stored)
        if mark:
            await self._mark(work, progress)
        faults.reach("merge.removed")
        if trouble is not None:
            raise trouble

    async def _append(self, work: _Work, folder: str, items: _Items, progress: Progress) -> None:
        """Store messages of one folder in one transaction, or each alone if one of them cannot be stored.

        :raises Later, MemoryError: nothing is wrong with the messages; the next poll tries again.
        :raises Ours: something is wrong with too many of them in a row.
        """
        batch = [item for item in items.waiting if progress.fits(items.sizes[item.delivery_id])]
        if not batch:
            return
        try:
            appended = await _append_to(work.mailbox, folder, batch)
        except Exception as error:
            if isinstance(error, errors.Later) and not isinstance(error, _SHORTAGE):
                raise
            if progress.whole:
                return
            if len(batch) == 1:
                self._failed(work, batch[0].delivery_id, items.sizes[batch[0].delivery_id], error, progress)
                return
        else:
            items.stored.extend(item.delivery_id for item in batch)
            progress.stored(sum(uid != 0 for uid in appended.uids))
            return
        for single in batch:
            await self._append(work, folder, _Items([single], items.sizes, items.stored), progress)

    def _failed(self, work: _Work, delivery_id: bytes, size: int, error: Exception, progress: Progress) -> None:
        """A message could not be stored, alone.

        :param size: its octets, sealed.
        :raises Ours, Later, MemoryError: it was one too many.
        """
        if isinstance(error, _SHORTAGE):
            progress.no_room(size, error)
            return
        log.failure("merge.refused", error, mailbox=work.mailbox_id, delivery=delivery_id.hex())
        progress.failed(delivery_id, error)


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
