"""Group commit: work that arrives while a transaction is being written shares the next one, and its fsync.

A transaction with ``synchronous=FULL`` costs an fsync, which is most of the price of storing a small message.  The writer runs one
batch at a time in a thread; what is submitted meanwhile waits and is committed together in the next.  A work that fails takes nobody with
it: the batch is undone and done again with a SAVEPOINT for each work.  A result is handed out only after the COMMIT that holds it.

What nobody waits for has time until nothing else waits: works that were submitted :meth:`~Writer.aside`, and the checkpoint, which SQLite
would do within a COMMIT.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import apsw
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from fe_twisted.base import errors, faults, log
from fe_twisted.storage.sqlite.connect import mapped

T = TypeVar("T")

#: Runs a function in a thread and fires with its result in the reactor; in tests it may run it at once.
RunInThread = Callable[[Callable[[], Any]], "Deferred[Any]"]

#: Works in one transaction at most.
MAX_WORKS = 256

#: Seconds after which a batch takes no further work in and commits.
MAX_SECONDS = 0.1


@dataclass(slots=True, eq=False)
class _Work:
    """One piece of work, who waits for it, and how it went."""

    function: Callable[[apsw.Connection], Any]
    waiting: Deferred[Any]
    alone: bool = False
    result: Any = None
    error: Exception | None = None


@dataclass(slots=True)
class _Batch:
    """What one visit to the thread brought: works that are settled, and those that must wait for the next transaction."""

    settled: list[_Work] = field(default_factory=list)
    left: list[_Work] = field(default_factory=list)


class _Undone(Exception):
    """A work failed that has no savepoint, so all of the batch has to be undone."""

    def __init__(self, answer: Exception) -> None:
        super().__init__("batch undone")
        self.answer = answer


class _TransactionLost(Exception):
    """SQLite rolled the whole transaction back in the middle of a work (full disk, I/O error, no memory)."""

    def __init__(self, culprit: _Work) -> None:
        super().__init__("transaction lost")
        self.culprit = culprit


class Writer:
    """The one place that writes to a connection.

    Only this object may use the connection for writing, and nobody may use it in another thread while a work is running; readers
    have connections of their own.

    :param connection: opened with ``synchronous=FULL``; closed by :meth:`close`.
    :param after_commit: called in the reactor after each commit with the results of the works it holds, before their Deferreds fire, so
        that what is kept in memory is right when a waiter looks at it.
    :param max_works: works in one transaction at most.
    :param max_seconds: after this time a batch commits what it has, so that the first does not wait long for the last.
    :param checkpoint_pages: pages in the WAL from which on a checkpoint is made when nothing else is to do, and at twice as many in any
        case; 0 leaves it to the connection.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        run_in_thread: RunInThread,
        *,
        after_commit: Callable[[Sequence[Any]], None] | None = None,
        max_works: int = MAX_WORKS,
        max_seconds: float = MAX_SECONDS,
        now: Callable[[], float] = time.monotonic,
        checkpoint_pages: int = 0,
    ) -> None:
        self.connection = connection
        #: Transactions committed so far.
        self.commits = 0
        self._run_in_thread = run_in_thread
        self._after_commit = after_commit
        self._max_works = max_works
        self._max_seconds = max_seconds
        self._now = now
        self._queue: deque[_Work] = deque()
        self._aside: deque[_Work] = deque()
        self._relieved = False
        self._checkpoint_pages = checkpoint_pages
        self._wal_pages = 0
        if checkpoint_pages:
            connection.set_wal_hook(self._written)
        self._running = False
        self._closed = False
        self._closing: list[Deferred[None]] = []
        self._gone = False

    @property
    def idle(self) -> bool:
        """Whether nothing is running or waiting."""
        return not self._running

    def submit(self, work: Callable[[apsw.Connection], T]) -> Deferred[T]:
        """Have ``work(connection)`` done inside a transaction, in a thread; fires with its result after the COMMIT.

        ``work`` may be called again if its transaction was undone, so it must touch nothing but the connection.  What it raises
        undoes its own changes only, and is what the Deferred fails with (apsw's errors and OSErrors as :mod:`fe_twisted.base.errors`).
        Cancelling the Deferred does not take the work back.
        """
        return self._enqueue(work, alone=False)

    def aside(self, work: Callable[[apsw.Connection], T]) -> Deferred[T]:
        """As :meth:`submit`, in a transaction of its own, when nothing else waits."""
        return self._enqueue(work, alone=False, queue=self._aside)

    def relieve(self) -> None:
        """Let one work that was submitted aside go next, whatever else waits: whoever submits again and again is to call this at times."""
        self._relieved = bool(self._aside)

    def alone(self, work: Callable[[apsw.Connection], T]) -> Deferred[T]:
        """Have ``work(connection)`` done in its turn outside any transaction: a checkpoint, a VACUUM, a backup.  It is called once."""
        return self._enqueue(work, alone=True)

    def close(self) -> Deferred[None]:
        """Refuse new work, finish what was submitted, then close the connection (which checkpoints the WAL)."""
        self._closed = True
        waiting: Deferred[None] = Deferred()
        self._closing.append(waiting)
        self._start()
        return waiting

    def _enqueue(self, work: Callable[[apsw.Connection], T], alone: bool, queue: deque[_Work] | None = None) -> Deferred[T]:
        if self._closed:
            return fail(errors.Later(reason="submitted to a closed writer"))
        waiting: Deferred[T] = Deferred()
        (self._queue if queue is None else queue).append(_Work(work, waiting, alone))
        self._start()
        return waiting

    def _start(self) -> None:
        if not self._running:
            self._running = True
            # _run answers every failure itself; anything that gets out is a bug and must be seen.
            Deferred.fromCoroutine(self._run()).addErrback(_report)

    async def _run(self) -> None:
        """Batch after batch, until there is nothing left to do."""
        pending = self._launch() or self._launch_spare()
        while pending is not None:
            works, running = pending
            try:
                batch: _Batch = await running
            except Exception as error:  # the thread pool is gone: nothing was committed
                batch = _fail_all(works, mapped(error))
            self._queue.extendleft(reversed(batch.left))
            self._committed(batch)
            # The thread gets its next batch before the waiters are told, so that their work and its work overlap.
            pending = self._launch()
            _tell(batch)
            pending = pending or self._launch() or self._launch_spare()
        self._running = False
        if self._closing:
            await self._close()

    def _launch(self) -> tuple[list[_Work], Deferred[_Batch]] | None:
        """Send the next batch to the thread; None if there is no work."""
        if not self._queue:
            return None
        if self._checkpoint_pages and self._wal_pages >= 2 * self._checkpoint_pages:
            return self._launch_spare()
        if self._relieved:
            return self._launch_aside()
        works = [self._queue.popleft()]
        if works[0].alone:
            return works, self._run_in_thread(lambda: self._outside(works))
        while self._queue and not self._queue[0].alone and len(works) < self._max_works:
            works.append(self._queue.popleft())
        return works, self._run_in_thread(lambda: self._transact(works))

    def _launch_spare(self) -> tuple[list[_Work], Deferred[_Batch]] | None:
        """Send to the thread what has time; None if there is nothing."""
        if self._checkpoint_pages and self._wal_pages >= self._checkpoint_pages:
            self._wal_pages = 0  # asked again after the next commit, whatever a reader has kept it from doing now
            works = [_Work(_checkpoint, Deferred(), alone=True)]
            works[0].waiting.addErrback(_checkpoint_failed)
            return works, self._run_in_thread(lambda: self._outside(works))
        return self._launch_aside() if self._aside else None

    def _launch_aside(self) -> tuple[list[_Work], Deferred[_Batch]]:
        self._relieved = False
        works = [self._aside.popleft()]
        return works, self._run_in_thread(lambda: self._transact(works))

    def _written(self, connection: apsw.Connection, database: str, pages: int) -> int:
        """After each commit, in the thread, SQLite says how long the WAL is."""
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _committed(self, batch: _Batch) -> None:
        """Call the hook with the results that are durable now."""
        results = [work.result for work in batch.settled if work.error is None and not work.alone]
        if self._after_commit is None or not results:
            return
        try:
            self._after_commit(results)
        except Exception as error:
            # The works are durable all the same, and their waiters are told so.
            log.failure("sqlite.after_commit", error)

    async def _close(self) -> None:
        """Close the connection once and tell all who asked for it."""
        error: Exception | None = None
        if not self._gone:
            self._gone = True
            try:
                await self._run_in_thread(self.connection.close)
            except Exception as problem:
                error = mapped(problem)
        while self._closing:
            waiting = self._closing.pop(0)
            if error is None:
                waiting.callback(None)
            else:
                waiting.errback(error)

    # -- in the thread ----------------------------------------------------------------------------

    def _outside(self, works: list[_Work]) -> _Batch:
        """One work without a transaction."""
        for work in works:
            try:
                work.result = work.function(self.connection)
            except Exception as error:
                work.error = _answer(error, self.connection)
                self._roll_back()
        return _Batch(works)

    def _transact(self, works: list[_Work]) -> _Batch:
        """All works in one transaction; each by itself if that transaction is lost on the way.

        The first try does without savepoints: a savepoint makes FTS5 write out what it has gathered, and most batches have no failure.
        """
        try:
            return self._try(works, guarded=False)
        except _Undone as undone:
            self._roll_back()
            if len(works) == 1:
                works[0].error = undone.answer
                return _Batch(works)
        return self._try(works, guarded=True)

    def _try(self, works: list[_Work], *, guarded: bool) -> _Batch:
        """Begin, do the works, commit.

        :raises _Undone: when not ``guarded``: a work failed; the transaction may be open.
        """
        connection = self.connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            batch = self._each(works, self._guarded if guarded else self._plainly)
            faults.reach("writer.before_commit")
            connection.execute("COMMIT")
            faults.reach("writer.after_commit")
            self.commits += 1
            return batch
        except _Undone:
            raise
        except _TransactionLost as lost:
            return self._one_by_one(works, lost.culprit)
        except Exception as error:
            reason = mapped(error, connection)
            self._roll_back()
            return _fail_all(works, reason)

    def _each(self, works: list[_Work], one: Callable[[_Work], None]) -> _Batch:
        """Run the works inside the open transaction, as many as the time allows."""
        started = self._now()
        for index, work in enumerate(works):
            if index and self._now() - started > self._max_seconds:
                return _Batch(works[:index], works[index:])
            one(work)
        return _Batch(works)

    def _plainly(self, work: _Work) -> None:
        """One work; its failure is everybody's, for now."""
        try:
            work.result, work.error = work.function(self.connection), None
        except Exception as error:
            raise _Undone(_answer(error, self.connection)) from error

    def _guarded(self, work: _Work) -> None:
        """One work under a savepoint; its failure is its own."""
        connection = self.connection
        connection.execute("SAVEPOINT work")
        try:
            work.result, work.error = work.function(connection), None
        except Exception as error:
            work.result, work.error = None, _answer(error, connection)
            # ENOSPC, an I/O error or lack of memory may make SQLite roll everything back on its own.
            if not connection.in_transaction:
                raise _TransactionLost(work) from error
            connection.execute("ROLLBACK TO work")
        connection.execute("RELEASE work")

    def _one_by_one(self, works: list[_Work], culprit: _Work) -> _Batch:
        """After a lost transaction: all but the culprit again, each in a transaction of its own, so that the next loss hits one only."""
        for work in works:
            if work is culprit:
                continue
            try:
                self.connection.execute("BEGIN IMMEDIATE")
                work.result, work.error = work.function(self.connection), None
                self.connection.execute("COMMIT")
                self.commits += 1
            except Exception as error:
                work.result, work.error = None, _answer(error, self.connection)
                self._roll_back()
        return _Batch(works)

    def _roll_back(self) -> None:
        """End the transaction, if SQLite has not done so itself."""
        if self.connection.in_transaction:
            try:
                self.connection.execute("ROLLBACK")
            except apsw.Error as error:
                log.failure("sqlite.rollback", error)


def _answer(error: Exception, connection: apsw.Connection) -> Exception:
    """What the waiter is told: storage errors in our own terms, anything else as it was raised."""
    return mapped(error, connection) if isinstance(error, apsw.Error | OSError) else error


def _fail_all(works: list[_Work], error: Exception) -> _Batch:
    """The whole batch failed for one reason; a work that had failed on its own account keeps its own."""
    for work in works:
        work.result, work.error = None, work.error or error
    return _Batch(works)


def _tell(batch: _Batch) -> None:
    """Fire the Deferreds in the order of submission."""
    for work in batch.settled:
        if work.error is None:
            work.waiting.callback(work.result)
        else:
            work.waiting.errback(work.error)


def _checkpoint(connection: apsw.Connection) -> None:
    """Copy what no reader still needs from the WAL into the file."""
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)


def _checkpoint_failed(failure: Failure) -> None:
    """Nothing is lost: the WAL holds all of it, and the next commit asks again."""
    log.warning("sqlite.checkpoint", reason=str(getattr(failure.value, "reason", "") or failure.value))


def _report(failure: Failure) -> None:
    """Log what must not happen."""
    log.failure("sqlite.writer", failure.value or RuntimeError("unknown"))
