"""All temporary mailboxes of this process: durable additions, and what the merge needs to empty them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import apsw
from twisted.internet.defer import Deferred, DeferredLock, gatherResults

from fe_twisted.base import errors, faults, log
from fe_twisted.base.clock import Clock
from fe_twisted.protocols.crypto.derive import spool_key
from fe_twisted.storage.spool import file as files
from fe_twisted.storage.spool.item import Waiting
from fe_twisted.storage.sqlite.writer import RunInThread, Writer

T = TypeVar("T")

#: Which messages are taken first.
Order = Literal["oldest", "newest", "smallest"]

_TAKE = "SELECT id, delivery_id, length(sealed) FROM message WHERE refused = ? AND length(sealed) < ? ORDER BY "
_IN_ORDER: dict[Order, str] = {
    "oldest": _TAKE + "id LIMIT ?",
    "newest": _TAKE + "id DESC LIMIT ?",
    "smallest": _TAKE + "length(sealed), id LIMIT ?",
}

#: Octets: more than SQLite stores in a value.
_ANY_SIZE = 2**31

#: Temporary mailboxes kept open; each holds three file descriptors.
MAX_OPEN = 128

#: Seconds without use after which one is closed.
IDLE = 60.0


class SealedRow(NamedTuple):
    """One waiting message as it lies in the file."""

    delivery_id: bytes
    sealed: bytes


class Counts(NamedTuple):
    """Messages in a temporary mailbox."""

    waiting: int
    refused: int


@dataclass(slots=True, eq=False)
class _Open:
    """An open file and how many calls are inside it; it is closed only when there are none."""

    writer: Writer
    users: int = 0


@dataclass(slots=True, eq=False)
class _Entry:
    """A mailbox's place: its lock is held while the file is being opened, closed, moved or removed."""

    lock: DeferredLock = field(default_factory=DeferredLock)
    open: _Open | None = None
    used: float = 0.0


class Spool:
    """The temporary mailboxes.

    :param path_of: where the temporary mailbox of an id lies, for example ``MailboxFiles.temporary_path``.
    :param server_key: 32 octets; the key of each file's outside comes from it.
    :param clock: for closing what is idle.
    :param max_open: files kept open at most, but for those in use.
    :param idle: seconds.
    """

    def __init__(
        self,
        path_of: Callable[[str], Path],
        server_key: bytes,
        run_in_thread: RunInThread,
        clock: Clock,
        *,
        cipher: str = "chacha20",
        max_open: int = MAX_OPEN,
        idle: float = IDLE,
    ) -> None:
        self._path_of = path_of
        self._server_key = server_key
        self._run_in_thread = run_in_thread
        self._clock = clock
        self._cipher = cipher
        self._max_open = max_open
        self._idle = idle
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._timer: Any = None  # IDelayedCall; mypy cannot read zope interfaces
        self._closed = False
        self._hearers: list[Callable[[str], None]] = []
        #: How many files are open now.
        self.open_files = 0

    # -- what delivery and merge use --------------------------------------------------------------

    def waiting(self, mailbox_id: str) -> bool:
        """Whether the mailbox has a temporary file, or one that was set aside and is still to be read: two ``stat``."""
        return files.waiting(self._path_of(mailbox_id))

    def when_added(self, hear: Callable[[str], None]) -> None:
        """Have ``hear`` called with the mailbox whenever there is something to be taken that was not there before."""
        self._hearers.append(hear)

    async def add(self, mailbox_id: str, public_key: bytes, item: Waiting) -> None:
        """Seal a message and store it; durable on return.  A delivery id that is there already is the same delivery: nothing is added.

        :raises ValueError: not a public key, or a delivery id that is not 16 octets.
        :raises fe_twisted.base.errors.MailError: nothing was stored.
        """
        if len(item.delivery_id) != 16:
            raise ValueError("a delivery id has 16 octets")

        def insert(connection: apsw.Connection) -> None:
            sealed = item.seal(public_key, mailbox_id)
            faults.reach("spool.before_insert")
            connection.execute(
                "INSERT INTO message (delivery_id, sealed) VALUES (?, ?) ON CONFLICT (delivery_id) DO NOTHING", (item.delivery_id, sealed)
            )
            faults.reach("spool.after_insert")

        try:
            await self._work(mailbox_id, insert, create=True)
        except errors.DamagedFile:
            # The broken file lies aside by now; the message goes into a new one.
            await self._work(mailbox_id, insert, create=True)
        self._tell(mailbox_id)

    async def add_sealed(self, mailbox_id: str, rows: Sequence[SealedRow]) -> None:
        """Store messages that were sealed elsewhere, in one transaction; durable on return.  Ids that are there already are passed over.

        :raises ValueError: a delivery id that is not 16 octets.
        :raises fe_twisted.base.errors.MailError: nothing was stored.
        """
        if any(len(row.delivery_id) != 16 for row in rows):
            raise ValueError("a delivery id has 16 octets")

        def insert(connection: apsw.Connection) -> None:
            sql = "INSERT INTO message (delivery_id, sealed) VALUES (?, ?) ON CONFLICT (delivery_id) DO NOTHING"
            connection.executemany(sql, [(row.delivery_id, row.sealed) for row in rows])

        try:
            await self._work(mailbox_id, insert, create=True)
        except errors.DamagedFile:
            await self._work(mailbox_id, insert, create=True)
        self._tell(mailbox_id)

    async def take(
        self,
        mailbox_id: str,
        limit: int,
        max_bytes: int,
        *,
        besides: Collection[bytes] = (),
        refused: bool = False,
        order: Order = "oldest",
        smaller: int | None = None,
    ) -> list[SealedRow]:
        """The oldest messages that were not refused, in the order in which they came; or others, the first of them first.

        At most ``limit`` of them and at most ``max_bytes`` in all, but at least one if there is any.
        They stay in the file until :meth:`remove`.

        :param besides: delivery ids to pass over.
        :param refused: those that were refused instead.
        :param order: which they are.
        :param smaller: only those that take, sealed, less than so many octets.
        """

        def select(connection: apsw.Connection) -> list[SealedRow]:
            rows: list[SealedRow] = []
            size = 0
            asked = (int(refused), _ANY_SIZE if smaller is None else smaller, limit + len(besides))
            found: list[Any] = connection.execute(_IN_ORDER[order], asked).fetchall()
            for row_id, octets in [(row_id, octets) for row_id, delivery_id, octets in found if delivery_id not in besides][:limit]:
                size += octets
                if rows and size > max_bytes:
                    break
                row: Any = connection.execute("SELECT delivery_id, sealed FROM message WHERE id = ?", (row_id,)).get
                rows.append(SealedRow(*row))
            return rows

        return await self._work_if_there(mailbox_id, select, [])

    async def remove(self, mailbox_id: str, delivery_ids: Iterable[bytes]) -> None:
        """Delete messages that are durable elsewhere.

        They are named by delivery id and not by row, because the file may have been replaced since they were taken.
        """
        await self._each(mailbox_id, "DELETE FROM message WHERE delivery_id = ?", delivery_ids)

    async def refuse(self, mailbox_id: str, delivery_ids: Iterable[bytes]) -> None:
        """Mark messages that the mailbox could not take: they stay, and :meth:`take` passes over them."""
        await self._each(mailbox_id, "UPDATE message SET refused = 1 WHERE delivery_id = ?", delivery_ids)

    async def retry(self, mailbox_id: str) -> int:
        """Take the mark of :meth:`refuse` away from all; returns how many there are."""

        def update(connection: apsw.Connection) -> int:
            connection.execute("UPDATE message SET refused = 0 WHERE refused = 1")
            return connection.changes()

        changed = await self._work_if_there(mailbox_id, update, 0)
        if changed:
            self._tell(mailbox_id)
        return changed

    async def counts(self, mailbox_id: str) -> Counts:
        """How many messages wait, and how many of them were refused."""

        def count(connection: apsw.Connection) -> Counts:
            row: Any = connection.execute("SELECT count(*), coalesce(sum(refused), 0) FROM message").get
            total, refused = row
            return Counts(total - refused, refused)

        return await self._work_if_there(mailbox_id, count, Counts(0, 0))

    async def remove_if_empty(self, mailbox_id: str) -> bool:
        """Take the file away if it holds nothing; True if there is no file now, nor one that was set aside and is still to be read.

        Additions that come meanwhile wait and get a new file.  While any call is inside the file it stays.
        """
        entry = await self._lock(mailbox_id)
        try:
            if not self.waiting(mailbox_id):
                return True
            if entry.open is not None and entry.open.users:
                return False
            opened = entry.open or await self._open(mailbox_id, entry)
            if not await opened.writer.submit(files.is_empty):
                return False
            await opened.writer.alone(files.checkpoint)
            await self._shut(entry)
            await self._run_in_thread(partial(files.unlink, self._path_of(mailbox_id)))
            log.event("spool.removed", mailbox=mailbox_id)
            return not self.waiting(mailbox_id)
        finally:
            self._unlock(mailbox_id, entry)

    async def destroy(self, mailbox_id: str) -> None:
        """Remove the file with everything in it: the mailbox is being removed."""
        entry = await self._lock(mailbox_id)
        try:
            await self._shut(entry)
            await self._run_in_thread(partial(files.destroy, self._path_of(mailbox_id)))
            log.event("spool.destroyed", mailbox=mailbox_id)
        finally:
            self._unlock(mailbox_id, entry)

    async def close(self) -> None:
        """Refuse new calls, finish those that run, and close every file."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await gatherResults([Deferred.fromCoroutine(self._close(*item)) for item in list(self._entries.items())])

    # -- inside -----------------------------------------------------------------------------------

    def _tell(self, mailbox_id: str) -> None:
        for hear in self._hearers:
            hear(mailbox_id)

    async def _each(self, mailbox_id: str, sql: str, delivery_ids: Iterable[bytes]) -> None:
        """Run a statement for each message, in one transaction."""
        ids = [(delivery_id,) for delivery_id in delivery_ids]

        def run(connection: apsw.Connection) -> None:
            connection.executemany(sql, ids)

        await self._work_if_there(mailbox_id, run, None)

    async def _work_if_there(self, mailbox_id: str, work: Callable[[apsw.Connection], T], otherwise: T) -> T:
        """Do ``work`` in the file, unless there is none; if it turns out to be damaged, in the one that has taken its place."""
        try:
            try:
                return await self._work(mailbox_id, work, create=False)
            except errors.DamagedFile:
                return await self._work(mailbox_id, work, create=False)
        except errors.NotFound:
            return otherwise

    async def _work(self, mailbox_id: str, work: Callable[[apsw.Connection], T], *, create: bool) -> T:
        """Do ``work`` in a transaction with others.

        :raises NotFound: no file, and ``create`` is False.
        :raises DamagedFile: it has been moved aside.
        """
        opened = await self._enter(mailbox_id, create)
        try:
            return await opened.writer.submit(work)
        except errors.DamagedFile as error:
            damage = error
        finally:
            opened.users -= 1
        await self._set_aside(mailbox_id, opened, damage)
        raise damage

    async def _enter(self, mailbox_id: str, create: bool) -> _Open:
        """The open file, with the caller counted as its user."""
        entry = await self._lock(mailbox_id)
        try:
            opened = entry.open
            if opened is None:
                if not create and not self.waiting(mailbox_id):
                    raise errors.NotFound
                opened = await self._open(mailbox_id, entry)
            opened.users += 1
            entry.used = self._clock.seconds()
            self._entries.move_to_end(mailbox_id)
            return opened
        finally:
            self._unlock(mailbox_id, entry)

    async def _open(self, mailbox_id: str, entry: _Entry) -> _Open:
        """Open the entry's file; its lock is held."""
        path, key = self._path_of(mailbox_id), spool_key(self._server_key, mailbox_id)
        connection: apsw.Connection = await self._run_in_thread(partial(files.open_file, path, key, self._cipher))
        entry.open = _Open(Writer(connection, self._run_in_thread))
        self.open_files += 1
        if self._timer is None and not self._closed:
            self._timer = self._clock.callLater(self._idle, self._sweep)
        return entry.open

    async def _shut(self, entry: _Entry) -> None:
        """Close the entry's file; its lock is held."""
        if entry.open is not None:
            opened, entry.open = entry.open, None
            self.open_files -= 1
            await opened.writer.close()

    async def _set_aside(self, mailbox_id: str, opened: _Open, error: errors.DamagedFile) -> None:
        """Move a file that proved damaged while in use, and save what can be read; only the first of those who noticed does it."""
        entry = await self._lock(mailbox_id)
        try:
            if entry.open is opened:
                await self._shut(entry)
                path, key = self._path_of(mailbox_id), spool_key(self._server_key, mailbox_id)
                await self._run_in_thread(partial(files.renew, path, key, self._cipher, error))
        finally:
            self._unlock(mailbox_id, entry)

    async def _lock(self, mailbox_id: str) -> _Entry:
        if self._closed:
            raise errors.Later(reason="the spool is closed")
        entry = self._entries.setdefault(mailbox_id, _Entry())
        await entry.lock.acquire()
        if self._closed:
            self._unlock(mailbox_id, entry)
            raise errors.Later(reason="the spool is closed")
        return entry

    def _unlock(self, mailbox_id: str, entry: _Entry) -> None:
        """Let go; an entry that nobody holds or waits for, and with no open file, is dropped."""
        entry.lock.release()
        if entry.open is None and not entry.lock.locked and self._entries.get(mailbox_id) is entry:
            self._entries.pop(mailbox_id, None)
        if self.open_files > self._max_open:
            self._close_oldest()

    # -- closing what is not used -----------------------------------------------------------------

    def _close_oldest(self) -> None:
        """Start closing the files that were not used for longest, until the number is right."""
        surplus = self.open_files - self._max_open
        for mailbox_id, entry in list(self._entries.items()):
            if surplus <= 0:
                return
            if entry.open is not None and not entry.open.users and not entry.lock.locked:
                surplus -= 1
                self._start_closing(mailbox_id, entry)

    def _sweep(self) -> None:
        """Close what has been idle, and look again later while anything is open."""
        self._timer = None
        before = self._clock.seconds() - self._idle
        for mailbox_id, entry in list(self._entries.items()):
            if entry.open is not None and entry.used <= before and not entry.open.users and not entry.lock.locked:
                self._start_closing(mailbox_id, entry)
        if self.open_files:
            self._timer = self._clock.callLater(self._idle, self._sweep)

    async def _close(self, mailbox_id: str, entry: _Entry, *, only_unused: bool = False) -> None:
        """Close the file in its turn, unless somebody uses it again."""
        await entry.lock.acquire()
        try:
            if not (only_unused and entry.open is not None and entry.open.users):
                await self._shut(entry)
        finally:
            self._unlock(mailbox_id, entry)

    def _start_closing(self, mailbox_id: str, entry: _Entry) -> None:
        def failed(failure: Any) -> None:
            log.failure("spool.close", failure.value, mailbox=mailbox_id)

        Deferred.fromCoroutine(self._close(mailbox_id, entry, only_unused=True)).addErrback(failed)
