"""What is read of an open mailbox file, whoever writes it: point queries in the reactor, long questions in a thread."""

from __future__ import annotations

import datetime
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Literal, TypeVar

import apsw
from twisted.internet.defer import Deferred

from fe_twisted.base.clock import Clock, now
from fe_twisted.base.errors import Later, NoSuchFolder
from fe_twisted.protocols.imap.search import Key, Ranges
from fe_twisted.protocols.imap.sort import Algorithm, Criterion, Threads
from fe_twisted.storage.mailbox import folders, metadata, quota, view, words
from fe_twisted.storage.mailbox.api import Changes, Column, Folder, FolderStatus, Quota, Row, Selected
from fe_twisted.storage.mailbox.content import read_octets
from fe_twisted.storage.mailbox.read import read_row, read_rows
from fe_twisted.storage.mailbox.rows import folder_of, selectable
from fe_twisted.storage.mailbox.search import needs_text, search
from fe_twisted.storage.mailbox.sort import Orders
from fe_twisted.storage.mailbox.thread import Threading
from fe_twisted.storage.sqlite.connect import in_snapshot, mapped, storage_errors
from fe_twisted.storage.sqlite.writer import RunInThread

T = TypeVar("T")

#: Seconds of uninterrupted reading after which others in the reactor get their turn.
FAIR_SECONDS = 0.01


class Reader:
    """The part of :class:`~fe_twisted.storage.mailbox.api.Mailbox` that changes nothing; its methods are explained there.

    No snapshot is held from one question to the next, so a new question sees every commit before it, and the WAL can be reset.

    :param reading: a query-only connection.
    :param connect: opens a further one, in a thread, when the first long question needs it.
    """

    def __init__(self, reading: apsw.Connection, connect: Callable[[], apsw.Connection], run_in_thread: RunInThread, clock: Clock) -> None:
        self._reader = reading
        self._connect = connect
        self._scanner: apsw.Connection | None = None
        self._run_in_thread = run_in_thread
        self._clock = clock
        self._orders = Orders()
        self._threading = Threading()
        self._scan_queue: Deferred[None] | None = None

    def modseq(self, folder_id: int) -> int:
        """The folder's modseq, 0 when it is gone."""
        row = self._read(lambda c: folder_of(c, folder_id))
        return row.modseq if row is not None else 0

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

    async def selected(self, name: str) -> Selected:
        r"""What SELECT needs; no ``\Recent`` is claimed.  In a thread if it takes long to find out.

        :raises NoSuchFolder:
        """
        found = self._read(lambda c: view.quickly_select(c, name))
        if found is None:
            found = await self._scan(lambda c: in_snapshot(c, lambda: view.select_folder(c, name)))
        return found

    async def changed(self, folder_id: int, since: int, uidnext: int) -> Changes:
        r"""What has changed; no ``\Recent`` is claimed.  In a thread if it takes long to find out."""
        found = self._read(lambda c: view.few_changes_since(c, folder_id, since, uidnext))
        if found is None:
            found = await self._scan(lambda c: in_snapshot(c, lambda: view.changes_since(c, folder_id, since, uidnext)))
            self._read(lambda c: None)  # what the flags in the answer mean is known afterwards, as after every question that is asked here
        return found

    async def vanished(self, folder_id: int, since: int) -> Ranges:
        """See the interface."""
        found = self._read(lambda c: view.few_vanished_since(c, folder_id, since))
        return await self._scan(lambda c: view.vanished_since(c, folder_id, since)) if found is None else found

    # -- messages ---------------------------------------------------------------------------------

    async def fetch(
        self, folder_id: int, uids: Ranges, columns: Sequence[Column], *, changed_since: int = 0
    ) -> AsyncGenerator[list[Row], None]:
        """See the interface."""
        rows = read_rows(self._reader, folder_id, uids, columns, changed_since)
        began = self._clock.seconds()
        while True:
            try:
                batch = next(rows, None)
            except (apsw.Error, OSError) as error:
                raise mapped(error, self._reader) from error
            if batch is None:
                return
            yield batch
            if self._clock.seconds() - began > FAIR_SECONDS:
                await self._turn()
                began = self._clock.seconds()

    def fetch_one(self, folder_id: int, uid: int, columns: Sequence[Column]) -> list[Row] | None:
        """See the interface."""
        try:
            return read_row(self._reader, folder_id, uid, columns)
        except (apsw.Error, OSError) as error:
            raise mapped(error, self._reader) from error

    async def octets(self, message: int, start: int, end: int) -> bytes:
        """See the interface."""
        return self._read(lambda c: read_octets(c, message, start, end))

    async def search(self, folder_id: int, program: Key) -> list[int]:
        """See the interface; what looks into texts runs in a thread, one at a time."""
        now = self._now()
        self._expect(folder_id)
        if not needs_text(program):
            return self._read(lambda c: search(c, folder_id, program, now))
        return await self._scan(lambda c: search(c, folder_id, program, now))

    async def sort(self, folder_id: int, program: Key, criteria: Sequence[Criterion]) -> list[int]:
        """See the interface; the first time in a thread."""
        now, wanted = self._now(), tuple(criteria)
        self._expect(folder_id)

        def sort(connection: apsw.Connection) -> list[int]:
            return self._orders.sort(connection, folder_id, program, wanted, now)

        if needs_text(program) or not self._orders.knows(folder_id, wanted):
            return await self._scan(sort)
        return self._read(sort)

    async def thread(self, folder_id: int, program: Key, algorithm: Algorithm) -> Threads:
        """See the interface; in a thread."""
        now = self._now()
        self._expect(folder_id)
        return await self._scan(lambda c: self._threading.thread(c, folder_id, program, algorithm, now))

    # -- the mailbox as a whole -------------------------------------------------------------------

    async def quota(self) -> Quota:
        """See the interface."""
        return self._read(quota.quota)

    async def deleted_octets(self, name: str) -> int:
        """See the interface."""
        return self._read(lambda c: quota.deleted_octets(c, name))

    async def get_metadata(self, name: str, entries: Sequence[str], depth: Literal[0, 1, -1]) -> list[tuple[str, bytes | None]]:
        """See the interface."""
        return self._read(lambda c: metadata.get_metadata(c, name, entries, depth))

    async def close(self) -> None:
        """Let long questions end, and let go of the file; nothing may be asked afterwards."""
        while self._scan_queue is not None:
            await self._turn()
        self._connect = _gone
        for connection in (self._reader, self._scanner):
            if connection is not None:
                connection.close()

    # -- how it is done ---------------------------------------------------------------------------

    def _now(self) -> datetime.datetime:
        return now(self._clock)

    def _expect(self, folder_id: int) -> None:
        """:raises NoSuchFolder: it is gone."""
        if self.modseq(folder_id) == 0:
            raise NoSuchFolder("the mailbox was deleted")

    def _read(self, question: Callable[[apsw.Connection], T]) -> T:
        """Ask in the reactor, all in one snapshot: point queries, microseconds each."""
        with storage_errors(self._reader):
            return in_snapshot(self._reader, lambda: question(self._reader))

    async def _scan(self, question: Callable[[apsw.Connection], T]) -> T:
        """Ask in a thread, one question at a time on the scanning connection."""
        while self._scan_queue is not None:
            waiting: Deferred[None] = Deferred()
            self._scan_queue.addCallback(_wake, waiting)
            await waiting
        self._scan_queue = Deferred()
        try:
            found, damage = await self._run_in_thread(lambda: self._in_scanner(question))
        finally:
            done, self._scan_queue = self._scan_queue, None
            done.callback(None)
        if damage is not None:
            self._index_damaged(damage)
        return found  # type: ignore[no-any-return]

    def _index_damaged(self, damage: words.IndexDamaged) -> None:
        """An answer was found without the full-text index."""
        raise NotImplementedError

    def _in_scanner(self, question: Callable[[apsw.Connection], T]) -> tuple[T, words.IndexDamaged | None]:
        """Ask the scanning connection, in a thread; also returns what is wrong with the full-text index."""
        if self._scanner is None:
            self._scanner = self._connect()
        try:
            with storage_errors(self._scanner):
                return question(self._scanner), None
        except words.IndexDamaged as error:
            damage = error
        # FTS5 still holds on to what it was reading, and with that SQLite to the error.
        self._scanner.close()
        self._scanner = None
        self._scanner = self._connect()
        with storage_errors(self._scanner), words.unused():
            return question(self._scanner), damage

    def _turn(self) -> Deferred[None]:
        """Fires after everybody else in the reactor had a turn."""
        turn: Deferred[None] = Deferred()
        self._clock.callLater(0, turn.callback, None)
        return turn


def _gone() -> apsw.Connection:
    """What opens a connection, of a mailbox that is closed."""
    raise Later(reason="asked of a mailbox that was closed")


def _wake(result: None, waiting: Deferred[None]) -> None:
    waiting.callback(None)
