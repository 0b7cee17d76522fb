"""The mailbox whose file is here: :class:`fe_twisted.storage.mailbox.api.Mailbox` over SQLite."""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Literal, TypeVar

import apsw
from twisted.internet.defer import Deferred

from fe_twisted.base import log
from fe_twisted.base.clock import Clock
from fe_twisted.base.errors import DamagedFile, Later, MailError
from fe_twisted.protocols.crypto.memory import KeyInMemory
from fe_twisted.protocols.crypto.seal import SealingKey
from fe_twisted.protocols.imap.search import Ranges
from fe_twisted.storage.mailbox import answers, discarded, expunged, folders, messages, metadata, words
from fe_twisted.storage.mailbox.api import (
    Appended,
    Changes,
    Copied,
    Expunged,
    FolderStatus,
    NewMessage,
    Selected,
    Stored,
    Watcher,
)
from fe_twisted.storage.mailbox.check import problems
from fe_twisted.storage.mailbox.files import CHECKPOINT_PAGES, MailboxFiles, place_of
from fe_twisted.storage.mailbox.flags import load_keywords
from fe_twisted.storage.mailbox.prepared import Prepared, prepare
from fe_twisted.storage.mailbox.reader import Reader
from fe_twisted.storage.mailbox.recent import Claims
from fe_twisted.storage.mailbox.rows import Outcome, folder_rows, iso, selectable
from fe_twisted.storage.sqlite.connect import storage_errors
from fe_twisted.storage.sqlite.writer import RunInThread, Writer

T = TypeVar("T")

#: Messages whose content is removed in one transaction after an EXPUNGE, and seconds between two such transactions.
COLLECT_MESSAGES = 50
COLLECT_PAUSE = 0.5

#: How long a delivery is remembered, in days: far longer than a crash can keep one waiting to be repeated.
REMEMBER_DAYS = 30

#: Octets of messages that are prepared for storing in the reactor, which takes a few milliseconds; more go to a thread.
PREPARE_AT_ONCE = 64 * 1024
#: Octets from which on a message is prepared only when its turn to be stored has come, so that one of them is in memory twice and not many.
PREPARE_LATE = 1024 * 1024

#: Messages that may be missing in the full-text index before others have to wait for it.
INDEX_BEHIND = 4 * words.MESSAGES

#: Batches after which one work gets its turn that has time until nothing else waits: a whole index takes minutes.
INDEX_RELIEF = 4

Poll = Callable[["LocalMailbox"], Awaitable[int]]


class LocalMailbox(Reader):
    """An open mailbox file, read and written here.  Made by :func:`open_mailbox`; every method is explained in the interface.

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
        super().__init__(reading, connect, run_in_thread, clock)
        self.id = mailbox_id
        self._writer = Writer(writing, run_in_thread, checkpoint_pages=CHECKPOINT_PAGES)
        self._claims = Claims(self._writer)
        self._poll = poll
        self._watchers: list[Watcher] = []
        self._keywords = load_keywords(self._reader)
        #: The version of the file, as the reader knows it, in which these are all keywords.
        self._seen = self._reader.data_version()
        self._modseqs = {row.id: row.modseq for row in folder_rows(self._reader) if row.selectable}
        #: What goes on in the background.
        self._chores: set[str] = set()
        self._renewed = False
        #: Messages that are not in the full-text index, or may be, and octets of those that came since it was last brought forward.
        self._unindexed = words.unindexed(self._reader)
        self._unindexed_octets = 0
        self._closed = False
        #: It is being closed: who moves waiting mail in stops after a batch, and is waited for.
        self.leaving = False
        self._polls = 0
        self._rested: list[Deferred[None]] = []
        self._pruned = False
        self._forget_at = 0.0

    # -- what needs no I/O ------------------------------------------------------------------------

    def keywords(self) -> tuple[str, ...]:
        """See the interface.

        A reader sees a commit before the reactor hears of it, and flags whose names are not known would be told as if they were not there.
        """
        if not self._closed:
            seen = self._reader.data_version()
            if seen != self._seen:
                self._keywords, self._seen = load_keywords(self._reader), seen
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

    async def status(self, name: str) -> FolderStatus:
        """See the interface."""
        return self._read(lambda c: folders.status_of(self._claims.row(selectable(c, name))))

    async def selected(self, name: str) -> Selected:
        """See :class:`Reader`."""
        found = await super().selected(name)
        return self._claims.left(found, found.folder_id)

    async def changed(self, folder_id: int, since: int, uidnext: int) -> Changes:
        """See :class:`Reader`."""
        return self._claims.left(await super().changed(folder_id, since, uidnext), folder_id)

    async def select(self, name: str, *, claim_recent: bool) -> Selected:
        """See the interface."""
        if not claim_recent:
            return await self.selected(name)
        once = answers.take()
        key = once.key if once is not None else None
        found: Selected = self._claims.answered(key) or await self.selected(name)
        found = self._claims.answered(key) or found  # see changes()
        self._claims.claim(found, found.folder_id, found.status.uidnext, key)
        return found

    async def changes(self, folder_id: int, since: int, uidnext: int, *, claim_recent: bool) -> Changes:
        """See the interface."""
        if not claim_recent:
            return await self.changed(folder_id, since, uidnext)
        once = answers.take()
        key = once.key if once is not None else None
        found: Changes = self._claims.answered(key) or await self.changed(folder_id, since, uidnext)
        found = self._claims.answered(key) or found  # that may have taken a while, and the same may have been asked again
        self._claims.claim(found, folder_id, found.uidnext, key)
        return found

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

    async def append(self, name: str, messages_: Sequence[NewMessage]) -> Appended:
        """See the interface."""
        batch = tuple(messages_)
        ready = await self._prepare(batch)
        appended = await self._write(lambda c: messages.append_messages(c, name, batch, self._now(), ready))
        self._index_later(batch)
        return appended

    async def replace(self, folder_id: int, uid: int, name: str, message: NewMessage) -> Appended:
        """See the interface."""
        ready = await self._prepare((message,))
        done = await self._write(lambda c: messages.replace_message(c, folder_id, uid, name, message, self._now(), ready))
        self._index_later((message,))
        self.collect()
        self.settle()
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
        moved = await self._write(lambda c: messages.move_messages(c, folder_id, uids, target, self._now()))
        self.settle()
        return moved

    async def expunge(self, folder_id: int, uids: Ranges | None) -> Expunged:
        """See the interface."""
        gone = await self._write(lambda c: messages.expunge_messages(c, folder_id, uids))
        self.collect()
        self.settle()
        return gone

    async def set_metadata(self, name: str, values: Sequence[tuple[str, bytes | None]]) -> None:
        """See the interface."""
        await self._write(lambda c: metadata.set_metadata(c, name, values))

    async def poll(self) -> int:
        """See the interface."""
        if self.leaving:
            raise Later(reason="the mailbox is being closed")
        self._polls += 1
        try:
            return await self._move_in()
        finally:
            self._polls -= 1
            if not self._polls:
                rested, self._rested = self._rested, []
                for each in rested:
                    each.callback(None)

    async def _move_in(self) -> int:
        moved = await self._poll(self)
        if not self._pruned:
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

    def place(self) -> bytes:
        """See :func:`fe_twisted.storage.mailbox.files.place_of`."""
        return place_of(self._reader.filename)

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

    # -- for the merge and the registry -----------------------------------------------------------

    async def sealing_key(self) -> SealingKey:
        """The private key that waiting mail opens with."""
        seed = self._read(lambda c: c.execute("SELECT value FROM meta WHERE name = 'sealing_seed'").get)
        return SealingKey.from_seed(bytes(seed))

    async def close(self) -> None:
        """Finish what was begun and let go of the file; nothing may be asked afterwards.

        Waiting mail that is moving in is waited for, as far as the batch that has begun: else it would never come in for a client that
        leaves at once, each time.
        """
        if self.leaving:
            return
        self.leaving = True
        self._watchers.clear()
        if self._polls:
            rested: Deferred[None] = Deferred()
            self._rested.append(rested)
            await rested
        self._closed = True
        await self._writer.close()
        await super().close()

    # -- how it is done ---------------------------------------------------------------------------

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

    async def _prepare(self, batch: Sequence[NewMessage]) -> list[Prepared | None]:
        """What can be done before the transaction: in the reactor if it is little, since a thread would hold the interpreter as long."""

        def work() -> list[Prepared | None]:
            return [prepare(message.content) if len(message.content) < PREPARE_LATE else None for message in batch]

        if sum(len(message.content) for message in batch) <= PREPARE_AT_ONCE:
            return work()
        return await self._run_in_thread(work)  # type: ignore[no-any-return]

    def _index_later(self, batch: Sequence[NewMessage]) -> None:
        """These are to go into the full-text index: at once when it pays, else with later ones."""
        self._unindexed += len(batch)
        self._unindexed_octets += sum(len(message.content) for message in batch)
        if self._unindexed >= words.MESSAGES or self._unindexed_octets >= words.OCTETS:
            self.index()

    def index(self) -> None:
        """Start bringing messages into the full-text index, unless that goes on already."""
        self._begin("mailbox.index", self._index_all)

    async def _index_all(self) -> None:
        """All, but for a few for which it pays to wait for more."""
        batches = 0
        while not self._closed:
            submit = self._writer.aside if self._unindexed < INDEX_BEHIND else self._writer.submit
            self._unindexed_octets = 0
            batches += 1
            if batches % INDEX_RELIEF == 0:
                self._writer.relieve()
            done, left = await submit(_index_some)
            self._unindexed = max(0, self._unindexed - done) if done else left
            if not done and self._unindexed < words.MESSAGES:
                break

    def _index_damaged(self, damage: words.IndexDamaged) -> None:
        """Have the full-text index made anew, once while the file is open."""
        if self._renewed or self._closed:
            return
        self._renewed = True
        log.failure("mailbox.index_damaged", damage, mailbox=self.id, reason=damage.reason)
        Deferred.fromCoroutine(self._renew_index()).addErrback(self._chore_failed, "mailbox.index")

    async def _renew_index(self) -> None:
        self._unindexed = await self._writer.submit(words.renew)
        self.discard()
        self.index()
        self.collect()  # which the damage may have stopped

    def collect(self) -> None:
        """Start removing what no folder refers to any more, a little at a time, unless that goes on already."""
        self._begin("mailbox.collect", self._collect_all)

    async def _collect_all(self) -> None:
        while not self._closed:
            looked_at = await self._writer.submit(_collect_some)
            if looked_at < COLLECT_MESSAGES:
                break
            pause: Deferred[None] = Deferred()
            self._clock.callLater(COLLECT_PAUSE, pause.callback, None)
            await pause
        # So much may be gone that the index is to be made anew.
        self.discard()
        self.index()

    def discard(self) -> None:
        """Start emptying tables that were put aside, a little at a time, unless that goes on already."""
        if not self._closed and self._read(discarded.waiting):
            self._begin("mailbox.discard", self._discard_all)

    async def _discard_all(self) -> None:
        more = True
        while more and not self._closed:
            try:
                more = await self._writer.aside(discarded.discard_some)
            except DamagedFile as error:
                log.warning("mailbox.discard", mailbox=self.id, reason=error.reason)
                more = await self._writer.aside(discarded.pass_over)

    def settle(self) -> None:
        """Start bringing the log of what was expunged in bounds, a little at a time, unless that goes on already."""
        self._begin("mailbox.settle", self._settle_all)

    async def _settle_all(self) -> None:
        # Looked at here, where a damaged page is the log's trouble alone: what was expunged is durable, and the mailbox is to open.
        more = self._read(expunged.overlong)
        while more and not self._closed:
            more = await self._writer.aside(expunged.settle_some)

    def _begin(self, event: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin a chore in the background, unless it goes on already.  After a failure, whoever asks for it next tries again.

        :param event: its name in the log.
        """
        if event not in self._chores and not self._closed:
            self._chores.add(event)
            Deferred.fromCoroutine(work()).addBoth(self._over, event).addErrback(self._chore_failed, event)

    def _over(self, result: Any, event: str) -> Any:
        self._chores.remove(event)
        return result

    def _chore_failed(self, failure: Any, event: str) -> None:
        if not failure.check(MailError):
            log.failure(event, failure.value, mailbox=self.id)
        elif not self._closed:
            log.warning(event, mailbox=self.id, reason=failure.value.reason or failure.value.public)
        if failure.check(words.IndexDamaged):
            self._index_damaged(failure.value)


def _collect_some(connection: apsw.Connection) -> int:
    return messages.collect_orphans(connection, COLLECT_MESSAGES)


def _index_some(connection: apsw.Connection) -> tuple[int, int]:
    """How many messages came into the index, and when none did, how many are not there."""
    done = words.index_some(connection)
    return done, 0 if done else words.unindexed(connection)


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
    mailbox.discard()
    mailbox.settle()
    mailbox.collect()
    mailbox.index()
    return mailbox
