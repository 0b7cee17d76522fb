"""The mailbox whose file is here: :class:`fe_twisted.storage.mailbox.api.Mailbox` over SQLite."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Literal, TypeVar

import apsw
from twisted.internet.defer import Deferred

from fe_twisted.base import log
from fe_twisted.base.clock import Clock
from fe_twisted.base.errors import Later, MailError, NoSuchFolder
from fe_twisted.protocols.crypto.memory import KeyInMemory
from fe_twisted.protocols.crypto.seal import SealingKey
from fe_twisted.protocols.imap.search import Key, Ranges
from fe_twisted.protocols.imap.sort import Algorithm, Criterion, Threads
from fe_twisted.storage.mailbox import answers, folders, messages, metadata, quota, view
from fe_twisted.storage.mailbox.api import (
    Appended,
    Changes,
    Column,
    Copied,
    Expunged,
    Folder,
    FolderStatus,
    NewMessage,
    Quota,
    Row,
    Selected,
    Stored,
    Watcher,
)
from fe_twisted.storage.mailbox.check import problems
from fe_twisted.storage.mailbox.files import MailboxFiles
from fe_twisted.storage.mailbox.flags import load_keywords
from fe_twisted.storage.mailbox.read import read_rows
from fe_twisted.storage.mailbox.rows import Outcome, folder_rows, iso, selectable
from fe_twisted.storage.mailbox.search import needs_text, search
from fe_twisted.storage.mailbox.sort import Orders
from fe_twisted.storage.mailbox.thread import Threading
from fe_twisted.storage.sqlite.connect import storage_errors
from fe_twisted.storage.sqlite.writer import RunInThread, Writer

T = TypeVar("T")

#: Messages whose content is removed in one transaction after an EXPUNGE, and seconds between two such transactions.
COLLECT_MESSAGES = 50
COLLECT_PAUSE = 0.5

#: How long a delivery is remembered, in days: far longer than a crash can keep one waiting to be repeated.
REMEMBER_DAYS = 30

#: Seconds of uninterrupted reading after which others in the reactor get their turn.
FAIR_SECONDS = 0.01

Poll = Callable[["LocalMailbox"], Awaitable[int]]


class LocalMailbox:
    """An open mailbox file.  Made by :func:`open_mailbox`; every method is explained in the interface.

    :param writing, reading: connections, the second one query-only.
    :param connect: opens a further query-only connection, in a thread, when the first long scan needs it.
    :param poll: moves waiting mail in.
    """

    def __init__(
        self,
        mailbox_id: str,
        writing: apsw.Connection,
        reading: apsw.Connection,
        connect: Callable[[], apsw.Connection],
        run_in_thread: RunInThread,
        clock: Clock,
        poll: Poll,
    ) -> None:
        self.id = mailbox_id
        self._reader = reading
        self._connect = connect
        self._scanner: apsw.Connection | None = None
        self._writer = Writer(writing, run_in_thread)
        self._run_in_thread = run_in_thread
        self._clock = clock
        self._poll = poll
        self._watchers: list[Watcher] = []
        self._keywords = load_keywords(self._reader)
        self._modseqs = {row.id: row.modseq for row in folder_rows(self._reader) if row.selectable}
        self._orders = Orders()
        self._threading = Threading()
        self._scan_queue: Deferred[None] | None = None
        self._collecting = False
        self._closed = False
        self._pruned = False
        self._forget_at = 0.0

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

    # -- folders ----------------------------------------------------------------------------------

    async def folders(self) -> list[Folder]:
        """See the interface."""
        return self._read(folders.list_folders)

    async def subscriptions(self) -> list[str]:
        """See the interface."""
        return self._read(lambda c: [str(name) for (name,) in c.execute("SELECT name FROM subscriptions ORDER BY name")])

    async def status(self, name: str) -> FolderStatus:
        """See the interface."""
        return self._read(lambda c: folders.status_of(selectable(c, name)))

    async def select(self, name: str, *, claim_recent: bool) -> Selected:
        """See the interface."""
        selected = self._read(lambda c: view.select_folder(c, name))
        if not claim_recent or not (selected.recent or self._answered()):
            return selected

        def claim(connection: apsw.Connection) -> Outcome[Selected]:
            now = view.select_folder(connection, name)
            view.claim_recent(connection, now.folder_id, now.status.uidnext)
            return Outcome(now)

        return await self._write(claim)

    async def changes(self, folder_id: int, since: int, uidnext: int, *, claim_recent: bool) -> Changes:
        """See the interface."""
        found = self._read(lambda c: view.changes_since(c, folder_id, since, uidnext))
        if not claim_recent or not (found.recent or self._answered()):
            return found

        def claim(connection: apsw.Connection) -> Outcome[Changes]:
            now = view.changes_since(connection, folder_id, since, uidnext)
            view.claim_recent(connection, folder_id, now.uidnext)
            return Outcome(now)

        return await self._write(claim)

    async def vanished(self, folder_id: int, since: int) -> Ranges:
        """See the interface."""
        return self._read(lambda c: view.vanished_since(c, folder_id, since))

    async def create(self, name: str, special_use: str = "") -> str:
        """See the interface."""
        return await self._write(lambda c: folders.create_folder(c, name, special_use))

    async def delete(self, name: str) -> None:
        """See the interface."""
        await self._write(lambda c: folders.delete_folder(c, name))
        self.collect()

    async def rename(self, old: str, new: str) -> None:
        """See the interface."""
        await self._write(lambda c: folders.rename_folder(c, old, new))

    async def subscribe(self, name: str, subscribed: bool) -> None:
        """See the interface."""
        await self._write(lambda c: folders.set_subscribed(c, name, subscribed))

    # -- messages ---------------------------------------------------------------------------------

    async def fetch(self, folder_id: int, uids: Ranges, columns: Sequence[Column], *, changed_since: int = 0) -> AsyncIterator[list[Row]]:
        """See the interface."""
        rows = read_rows(self._reader, folder_id, uids, columns, changed_since)
        began = self._clock.seconds()
        while True:
            with storage_errors(self._reader):
                batch = next(rows, None)
            if batch is None:
                return
            yield batch
            if self._clock.seconds() - began > FAIR_SECONDS:
                await self._turn()
                began = self._clock.seconds()

    async def append(self, name: str, messages_: Sequence[NewMessage]) -> Appended:
        """See the interface."""
        batch = tuple(messages_)
        return await self._write(lambda c: messages.append_messages(c, name, batch, self._now()))

    async def replace(self, folder_id: int, uid: int, name: str, message: NewMessage) -> Appended:
        """See the interface."""
        done = await self._write(lambda c: messages.replace_message(c, folder_id, uid, name, message, self._now()))
        self.collect()
        return done

    async def store(
        self,
        folder_id: int,
        uids: Ranges,
        action: Literal["add", "remove", "replace"],
        flags: frozenset[str],
        *,
        unchanged_since: int | None = None,
    ) -> Stored:
        """See the interface."""
        return await self._write(lambda c: messages.store_flags(c, folder_id, uids, action, flags, unchanged_since))

    async def copy(self, folder_id: int, uids: Ranges, target: str) -> Copied:
        """See the interface."""
        return await self._write(lambda c: messages.copy_messages(c, folder_id, uids, target, self._now()))

    async def move(self, folder_id: int, uids: Ranges, target: str) -> Copied:
        """See the interface."""
        return await self._write(lambda c: messages.move_messages(c, folder_id, uids, target, self._now()))

    async def expunge(self, folder_id: int, uids: Ranges | None) -> Expunged:
        """See the interface."""
        gone = await self._write(lambda c: messages.expunge_messages(c, folder_id, uids))
        self.collect()
        return gone

    async def search(self, folder_id: int, program: Key) -> list[int]:
        """See the interface; what looks into texts runs in a thread, one at a time."""
        now = self._now()
        if self.modseq(folder_id) == 0:
            raise NoSuchFolder("the mailbox was deleted")
        if not needs_text(program):
            return self._read(lambda c: search(c, folder_id, program, now))
        return await self._scan(lambda c: search(c, folder_id, program, now))

    async def sort(self, folder_id: int, program: Key, criteria: Sequence[Criterion]) -> list[int]:
        """See the interface; the first time in a thread."""
        now, wanted = self._now(), tuple(criteria)
        if self.modseq(folder_id) == 0:
            raise NoSuchFolder("the mailbox was deleted")

        def sort(connection: apsw.Connection) -> list[int]:
            return self._orders.sort(connection, folder_id, program, wanted, now)

        if needs_text(program) or not self._orders.knows(folder_id, wanted):
            return await self._scan(sort)
        return self._read(sort)

    async def thread(self, folder_id: int, program: Key, algorithm: Algorithm) -> Threads:
        """See the interface; in a thread."""
        now = self._now()
        if self.modseq(folder_id) == 0:
            raise NoSuchFolder("the mailbox was deleted")
        return await self._scan(lambda c: self._threading.thread(c, folder_id, program, algorithm, now))

    async def quota(self) -> Quota:
        """See the interface."""
        return self._read(quota.quota)

    async def deleted_octets(self, name: str) -> int:
        """See the interface."""
        return self._read(lambda c: quota.deleted_octets(c, name))

    async def get_metadata(self, name: str, entries: Sequence[str], depth: Literal[0, 1, -1]) -> list[tuple[str, bytes | None]]:
        """See the interface."""
        return self._read(lambda c: metadata.get_metadata(c, name, entries, depth))

    async def set_metadata(self, name: str, values: Sequence[tuple[str, bytes | None]]) -> None:
        """See the interface."""
        await self._write(lambda c: metadata.set_metadata(c, name, values))

    async def poll(self) -> int:
        """See the interface."""
        moved = await self._poll(self)
        if not self._pruned and not self._closed:
            # Only now: what a crash left in the temporary mailbox after it was stored here has been recognised and removed.
            self._pruned = True
            edge = iso(self._now() - datetime.timedelta(days=REMEMBER_DAYS))
            await self._writer.submit(lambda c: messages.forget_deliveries(c, edge))
        return moved

    async def check_consistency(self) -> list[str]:
        """See the interface."""
        found: list[str] = await self._write(lambda c: Outcome(problems(c)))
        kept = {row.id: row.modseq for row in self._read(folder_rows) if row.selectable}
        if kept != self._modseqs:
            found.append(f"modseqs in memory {self._modseqs} are not those in the file {kept}")
        return found

    # -- for the cluster link ---------------------------------------------------------------------

    def modseqs(self) -> dict[int, int]:
        """The modseq of every folder that can be selected, by its id."""
        return dict(self._modseqs)

    async def idempotent(
        self, key: bytes, change: Callable[[], Awaitable[T]], encode: Callable[[T], bytes], decode: Callable[[bytes], T]
    ) -> T:
        """Await ``change()``, a call of one method of this mailbox, unless that was done with the same key within the last day.

        Then the answer is the one of that time.  The answer is remembered in the transaction of the change; a call that changes nothing is
        not remembered, and one that fails is not either.

        :param key: 16 random octets.
        :param encode, decode: the answer as octets and back.
        """
        if self._clock.seconds() >= self._forget_at:
            self._forget_at = self._clock.seconds() + answers.PRUNE
            edge = iso(self._now() - datetime.timedelta(seconds=answers.REMEMBER))
            await self._writer.submit(lambda c: answers.forget_answers(c, edge))
        token = answers.current.set(answers.Once(key, encode, decode))
        try:
            return await change()
        finally:
            answers.current.reset(token)

    def _answered(self) -> bool:
        """Whether the call that is going on was answered before."""
        once = answers.current.get()
        return once is not None and self._read(lambda c: answers.answered(c, once.key)) is not None

    # -- for the merge and the registry -----------------------------------------------------------

    async def sealing_key(self) -> SealingKey:
        """The private key that waiting mail opens with."""
        seed = self._read(lambda c: c.execute("SELECT value FROM meta WHERE name = 'sealing_seed'").get)
        return SealingKey.from_seed(bytes(seed))

    async def close(self) -> None:
        """Finish what was begun and let go of the file; nothing may be asked afterwards."""
        if self._closed:
            return
        self._closed = True
        self._watchers.clear()
        await self._writer.close()
        while self._scan_queue is not None:
            await self._turn()
        self._connect = _gone
        for connection in (self._reader, self._scanner):
            if connection is not None:
                connection.close()

    # -- how it is done ---------------------------------------------------------------------------

    def _now(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(self._clock.seconds(), datetime.UTC)

    def _read(self, question: Callable[[apsw.Connection], T]) -> T:
        """Ask in the reactor, all in one snapshot: point queries, microseconds each."""
        with storage_errors(self._reader):
            self._reader.execute("BEGIN")
            try:
                return question(self._reader)
            finally:
                self._reader.execute("COMMIT")

    async def _write(self, change: Callable[[apsw.Connection], Outcome[T]]) -> T:
        """Change in the writer's thread; what is kept in memory follows before the caller goes on."""
        once = answers.take()
        change = change if once is None else once.wrap(change, iso(self._now()))

        def work(connection: apsw.Connection) -> tuple[Outcome[T], tuple[str, ...]]:
            return change(connection), load_keywords(connection)

        done = await self._writer.submit(work).addCallback(self._committed)
        return done[0].value

    def _committed(self, done: tuple[Outcome[T], tuple[str, ...]]) -> tuple[Outcome[T], tuple[str, ...]]:
        outcome, keywords = done
        if len(keywords) > len(self._keywords):
            self._keywords = keywords
        for folder_id, modseq in outcome.modseqs.items():
            if modseq:
                self._modseqs[folder_id] = max(modseq, self._modseqs.get(folder_id, 0))
            else:
                self._modseqs.pop(folder_id, None)
            for watcher in tuple(self._watchers):
                self._tell(watcher, folder_id, modseq)
        return done

    def _tell(self, watcher: Watcher, folder_id: int, modseq: int) -> None:
        """The change is durable: a watcher that fails must not make it look as if it were not."""
        try:
            watcher(folder_id, modseq)
        except Exception as error:
            log.failure("mailbox.watcher", error, mailbox=self.id)

    async def _scan(self, question: Callable[[apsw.Connection], T]) -> T:
        """Ask in a thread, one question at a time on the scanning connection."""
        while self._scan_queue is not None:
            waiting: Deferred[None] = Deferred()
            self._scan_queue.addCallback(_wake, waiting)
            await waiting
        self._scan_queue = Deferred()
        try:
            return await self._run_in_thread(lambda: self._in_scanner(question))  # type: ignore[no-any-return]
        finally:
            done, self._scan_queue = self._scan_queue, None
            done.callback(None)

    def _in_scanner(self, question: Callable[[apsw.Connection], T]) -> T:
        """Ask the scanning connection, in a thread."""
        if self._scanner is None:
            self._scanner = self._connect()
        with storage_errors(self._scanner):
            return question(self._scanner)

    def _turn(self) -> Deferred[None]:
        """Fires after everybody else in the reactor had a turn."""
        turn: Deferred[None] = Deferred()
        self._clock.callLater(0, turn.callback, None)
        return turn

    def collect(self) -> None:
        """Start removing what no folder refers to any more, a little at a time, unless that goes on already."""
        if not self._collecting and not self._closed:
            self._collecting = True
            Deferred.fromCoroutine(self._collect_all()).addErrback(self._collect_failed)

    async def _collect_all(self) -> None:
        while not self._closed:
            looked_at = await self._writer.submit(_collect_some)
            if looked_at < COLLECT_MESSAGES:
                break
            pause: Deferred[None] = Deferred()
            self._clock.callLater(COLLECT_PAUSE, pause.callback, None)
            await pause
        self._collecting = False

    def _collect_failed(self, failure: Any) -> None:
        self._collecting = False
        if not failure.check(MailError):
            log.failure("mailbox.collect", failure.value, mailbox=self.id)
        elif not self._closed:
            log.warning("mailbox.collect", mailbox=self.id, reason=failure.value.reason or failure.value.public)


def _gone() -> apsw.Connection:
    """What opens a connection, of a mailbox that is closed."""
    raise Later(reason="asked of a mailbox that was closed")


def _wake(result: None, waiting: Deferred[None]) -> None:
    waiting.callback(None)


def _collect_some(connection: apsw.Connection) -> int:
    return messages.collect_orphans(connection, COLLECT_MESSAGES)


async def open_mailbox(
    files: MailboxFiles, mailbox_id: str, key: bytes, run_in_thread: RunInThread, clock: Clock, poll: Poll
) -> LocalMailbox:
    """Open a mailbox file in a thread.

    :param key: the mailbox key, 32 octets.
    :param poll: moves waiting mail into the mailbox it is called with and returns how many messages came.
    :raises DamagedFile, NewerFile, StorageFailed:
    """
    # The mailbox keeps what opens further connections, and the key is not to lie in memory in the clear for so long.
    held = KeyInMemory(key)

    def reading() -> apsw.Connection:
        with held.use() as clear:
            connection = files.open(mailbox_id, clear)
        connection.pragma("query_only", True)
        return connection

    def both() -> tuple[apsw.Connection, apsw.Connection]:
        writing = files.open(mailbox_id, key)
        try:
            return writing, reading()
        except BaseException:
            writing.close()
            raise

    writer, reader = await run_in_thread(both)
    with storage_errors(reader):
        mailbox = LocalMailbox(mailbox_id, writer, reader, reading, run_in_thread, clock, poll)
    mailbox.collect()
    return mailbox
