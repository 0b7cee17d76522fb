"""The mailbox of a primary on this machine: what only reads is read in its file here, everything else is asked over the link.

The file is opened beside the primary (:func:`fe_twisted.storage.sqlite.connect.connect_beside`), after the primary has opened it for this
secondary and has named it (:func:`fe_twisted.storage.mailbox.files.place_of`), so that it is known to be the same.  Whatever the primary
tells of is committed before, and every question begins a new snapshot, so it sees at least what was told; that is checked each time,
and so is that the schema is still the one that is read here, and that the files are still the ones that were opened.
Where reading fails, or may not be, the primary is asked.

While the link is away, open sessions go on reading; what changes something waits for it.
"""

from __future__ import annotations

import math
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Literal, TypeVar

import apsw
from twisted.internet.defer import Deferred, DeferredLock

from fe_twisted.base import errors, log
from fe_twisted.base.clock import Clock
from fe_twisted.clients.link.conversation import Conversation
from fe_twisted.clients.link.link import Link
from fe_twisted.protocols.imap.search import Key, Ranges
from fe_twisted.protocols.imap.sort import Algorithm, Criterion, Threads
from fe_twisted.storage.mailbox.api import Changes, Column, Folder, FolderStatus, Quota, Row, Selected
from fe_twisted.storage.mailbox.files import MailboxFiles, expect_schema
from fe_twisted.storage.mailbox.flags import load_keywords
from fe_twisted.storage.mailbox.methods import Opened
from fe_twisted.storage.mailbox.reader import Reader
from fe_twisted.storage.mailbox.remote import Relocate, RemoteMailbox, above, open_remote
from fe_twisted.storage.mailbox.words import IndexDamaged
from fe_twisted.storage.sqlite.connect import in_snapshot, storage_errors
from fe_twisted.storage.sqlite.writer import RunInThread

T = TypeVar("T")

#: ``auto``: directly where the primary's file is here, else over the link.  ``direct``: never over the link.  ``link``: always.
Mode = Literal["auto", "direct", "link"]

#: Seconds after a failure before the file is tried again.
RETRY = 5.0

#: Seconds without a question after which the file is closed: it costs some 280 KB of memory, and opening it again a millisecond.
REST = 15.0

#: Seconds for which one message after the other is read without looking whether the files still have their names, which costs a twelfth of
#: such a read.  What is read meanwhile is what was there a moment before.
MOMENT = 0.001

#: Seconds between two looks for a damaged file with waiting mail, which lies there only when the primary could not read it at once: such a
#: look costs as much as the one for waiting mail that nearly each command takes.
ASIDE = 15.0

_STATE = "SELECT (SELECT count(*) FROM keywords), (SELECT modseq FROM folders WHERE id = ? AND selectable)"


class Stale(errors.Later):
    """The file does not show what the primary said that it has committed."""


class BesideReader(Reader):
    """Reads a file that the primary writes.

    :param told: the folder and modseq of the newest commit that the primary told of, zeros for none.
    :param learn: called with all keywords when there are more than ``known()`` of them.
    """

    def __init__(
        self,
        reading: apsw.Connection,
        connect: Callable[[], apsw.Connection],
        run_in_thread: RunInThread,
        clock: Clock,
        *,
        told: Callable[[], tuple[int, int]],
        known: Callable[[], int],
        learn: Callable[[tuple[str, ...]], None],
    ) -> None:
        super().__init__(reading, connect, run_in_thread, clock)
        self._told = told
        self._known = known
        self._learn = learn
        self._paths = [reading.filename + suffix for suffix in ("", "-wal", "-shm")]
        self._files = self._look()
        self._current = True
        self._looked_at = self._clock.seconds()
        self._checked: tuple[int, tuple[int, int]] | None = None

    @property
    def current(self) -> bool:
        """Whether the files that are open are still those that have their names."""
        self._looked_at = self._clock.seconds()
        self._current = self._files == self._look()
        return self._current

    @property
    def lately_current(self) -> bool:
        """The same, as it was no more than a :data:`MOMENT` ago."""
        return (self._current and 0 <= self._clock.seconds() - self._looked_at < MOMENT) or self.current

    async def fetch(
        self, folder_id: int, uids: Ranges, columns: Sequence[Column], *, changed_since: int = 0
    ) -> AsyncGenerator[list[Row], None]:
        """See the interface.  What flags mean is known before a row with them is given."""
        async with aclosing(super().fetch(folder_id, uids, columns, changed_since=changed_since)) as batches:
            async for batch in batches:
                self._check_read()
                yield batch

    def fetch_one(self, folder_id: int, uid: int, columns: Sequence[Column]) -> list[Row] | None:
        """See the interface.  Checked after it was read, as each batch of :meth:`fetch`."""
        found = super().fetch_one(folder_id, uid, columns)
        self._check_read()
        return found

    def _read(self, question: Callable[[apsw.Connection], T]) -> T:
        def checked(connection: apsw.Connection) -> T:
            self._check(connection, self._told())
            return question(connection)

        return super()._read(checked)

    async def _scan(self, question: Callable[[apsw.Connection], T]) -> T:
        told = self._told()

        def checked(connection: apsw.Connection) -> T:
            _expect(told, _state(connection, told)[1])
            return question(connection)

        # In one snapshot with what is checked: the next one may be of a newer schema.
        return await super()._scan(lambda connection: in_snapshot(connection, lambda: checked(connection)))

    def _index_damaged(self, damage: IndexDamaged) -> None:
        """The primary is to be asked, so that it knows of it and has it made anew.

        :raises IndexDamaged:
        """
        raise damage

    def _check_read(self) -> None:
        """Check what was read; that is done already if nobody has committed since the last time, and nothing more was told.

        :raises Stale, NewerFile: see :meth:`_check`.
        """
        with storage_errors(self._reader):
            now = self._reader.data_version(), self._told()  # the version that was read, for a look at it takes no new snapshot
            if now != self._checked:
                self._check(self._reader, now[1])
                self._checked = now

    def _check(self, connection: apsw.Connection, told: tuple[int, int]) -> None:
        """:raises Stale: the connection does not see a commit that the primary told of.
        :raises NewerFile: see :func:`_state`.
        """
        keywords, modseq = _state(connection, told)
        _expect(told, modseq)
        if keywords > self._known():
            self._learn(load_keywords(connection))

    def _look(self) -> list[tuple[int, int]]:
        """Which files have the names."""
        return [_identity(path) for path in self._paths]


def _identity(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def _state(connection: apsw.Connection, told: tuple[int, int]) -> tuple[int, int]:
    """How many keywords there are, and the modseq of the folder that was told of, 0 when it is gone.

    :raises NewerFile: a newer program has brought the schema forward while the file was open here.
    """
    expect_schema(connection)
    keywords, modseq = next(connection.execute(_STATE, told[:1]))
    return int(keywords), int(modseq or 0)


def _expect(told: tuple[int, int], modseq: int) -> None:
    folder, expected = told
    if folder and modseq < expected:
        raise Stale(reason=f"folder {folder} is at {modseq} in the file, and at {expected} by what the primary said")


class DirectMailbox(RemoteMailbox):
    """A mailbox whose file is here and belongs to a primary.  Made by :func:`open_direct`.

    :param always: never ask the primary what could be read here; fail when it cannot.
    """

    def __init__(
        self,
        files: MailboxFiles,
        link: Link,
        mailbox_id: str,
        key: bytes,
        evicted: Callable[[str], None],
        run_in_thread: RunInThread,
        clock: Clock,
        *,
        always: bool = False,
        relocate: Relocate | None = None,
    ) -> None:
        super().__init__(link, mailbox_id, key, evicted, relocate=relocate)
        self._files = files
        self._run_in_thread = run_in_thread
        self._clock = clock
        self._always = always
        self._newest = (0, 0)
        self._place = b""
        self._polled = False
        self._aside_at = 0.0
        self._beside: BesideReader | None = None
        self._turn = DeferredLock()
        self._retry_at = 0.0
        self._used_at = 0.0
        self._fetches = 0
        self._resting: Any = None

    @property
    def direct(self) -> bool:
        """Whether the file is being read here."""
        return self._beside is not None

    # -- what is read here ------------------------------------------------------------------------

    async def folders(self) -> list[Folder]:
        """See the interface."""
        return await self._either(lambda here: here.folders(), super().folders)

    async def subscriptions(self) -> list[str]:
        """See the interface."""
        return await self._either(lambda here: here.subscriptions(), super().subscriptions)

    async def status(self, name: str) -> FolderStatus:
        """See the interface."""
        there = super().status
        return await self._either(lambda here: here.status(name), lambda: there(name))

    async def select(self, name: str, *, claim_recent: bool) -> Selected:
        r"""See the interface.  Only the primary can give away what is ``\Recent``."""
        found = await self._look(lambda here: here.selected(name))
        if found is None or (claim_recent and found.recent):
            return await super().select(name, claim_recent=claim_recent)
        return found

    async def changes(self, folder_id: int, since: int, uidnext: int, *, claim_recent: bool) -> Changes:
        r"""See the interface.  Only the primary can give away what is ``\Recent``."""
        found = await self._look(lambda here: here.changed(folder_id, since, uidnext))
        if found is None or (claim_recent and found.recent):
            return await super().changes(folder_id, since, uidnext, claim_recent=claim_recent)
        return found

    async def vanished(self, folder_id: int, since: int) -> Ranges:
        """See the interface."""
        there = super().vanished
        return await self._either(lambda here: here.vanished(folder_id, since), lambda: there(folder_id, since))

    async def fetch(
        self, folder_id: int, uids: Ranges, columns: Sequence[Column], *, changed_since: int = 0
    ) -> AsyncGenerator[list[Row], None]:
        """See the interface.  When the file cannot be read further, the primary is asked for what is behind the last UID that came."""
        wanted: list[Column] = list(columns)
        if "uid" not in wanted:
            wanted.append("uid")
        at, width = wanted.index("uid"), len(columns)
        here = await self._here()
        if here is not None:
            self._fetches += 1
            try:
                async with aclosing(here.fetch(folder_id, uids, wanted, changed_since=changed_since)) as batches:
                    async for batch in batches:
                        uids = above(uids, batch[-1][at])
                        yield batch if width == len(wanted) else [row[:width] for row in batch]
                return
            except (errors.Ours, errors.Later) as error:
                self._failed(here, error)
            finally:
                self._fetches -= 1
                self._used_at = self._clock.seconds()
        async with aclosing(super().fetch(folder_id, uids, columns, changed_since=changed_since)) as rest:
            async for batch in rest:
                yield batch

    def fetch_one(self, folder_id: int, uid: int, columns: Sequence[Column]) -> list[Row] | None:
        """See the interface."""
        here = self._beside
        if here is None or not here.lately_current:
            return None
        self._check()
        self._used_at = self._clock.seconds()
        try:
            return here.fetch_one(folder_id, uid, columns)
        except (errors.Ours, errors.Later) as error:
            self._failed(here, error)
            return None

    async def octets(self, message: int, start: int, end: int) -> bytes:
        """See the interface."""
        there = super().octets
        return await self._either(lambda here: here.octets(message, start, end), lambda: there(message, start, end))

    async def search(self, folder_id: int, program: Key) -> list[int]:
        """See the interface."""
        there = super().search
        return await self._either(lambda here: here.search(folder_id, program), lambda: there(folder_id, program))

    async def sort(self, folder_id: int, program: Key, criteria: Sequence[Criterion]) -> list[int]:
        """See the interface."""
        there = super().sort
        return await self._either(lambda here: here.sort(folder_id, program, criteria), lambda: there(folder_id, program, criteria))

    async def thread(self, folder_id: int, program: Key, algorithm: Algorithm) -> Threads:
        """See the interface."""
        there = super().thread
        return await self._either(lambda here: here.thread(folder_id, program, algorithm), lambda: there(folder_id, program, algorithm))

    async def quota(self) -> Quota:
        """See the interface."""
        return await self._either(lambda here: here.quota(), super().quota)

    async def deleted_octets(self, name: str) -> int:
        """See the interface."""
        there = super().deleted_octets
        return await self._either(lambda here: here.deleted_octets(name), lambda: there(name))

    async def get_metadata(self, name: str, entries: Sequence[str], depth: Literal[0, 1, -1]) -> list[tuple[str, bytes | None]]:
        """See the interface."""
        there = super().get_metadata
        return await self._either(lambda here: here.get_metadata(name, entries, depth), lambda: there(name, entries, depth))

    async def poll(self) -> int:
        """See the interface.  Waiting mail lies beside the mailbox, so it is seen here; the first time, the primary looks."""
        if self._polled and self._same_place() and not self._waits():
            self._check()
            return 0
        came = await super().poll()
        self._polled = True
        return came

    async def close(self) -> None:
        """Let go of the file, then give the mailbox back, so that the primary is the last to close it."""
        await self._let_go()
        await super().close()

    # -- what the link tells ----------------------------------------------------------------------

    def changed(self, folder: int, modseq: int, keywords: tuple[str, ...] | None) -> None:
        """The primary tells of a commit."""
        if folder:
            self._newest = (folder, modseq) if modseq else (0, 0)
        super().changed(folder, modseq, keywords)

    def moved(self) -> None:
        """The primary has closed it to move it, and waits until nobody has the file open."""
        self._place = b""
        self._drop()
        super().moved()

    def evicted(self) -> None:
        """The primary has taken it back."""
        self._drop()
        super().evicted()

    def _take(self, conversation: Conversation, opened: Opened) -> None:
        self._newest = (0, 0)
        # At another machine it is not tried, but after a new connection.
        if opened.place != self._place:
            self._place = opened.place
            self._drop()
        self._retry_at = 0.0 if self._same_place() else math.inf
        super()._take(conversation, opened)

    # -- here or there ----------------------------------------------------------------------------

    async def _either(self, here: Callable[[BesideReader], Awaitable[T]], there: Callable[[], Awaitable[T]]) -> T:
        """Read here if that can be, else ask the primary."""
        found = await self._look(here)
        return found if found is not None else await there()

    async def _look(self, here: Callable[[BesideReader], Awaitable[T]]) -> T | None:
        """What is read here, None when the primary is to be asked.

        :raises fe_twisted.base.errors.Theirs: that is the answer.
        """
        reader = await self._here()
        if reader is not None:
            try:
                return await here(reader)
            except (errors.Ours, errors.Later) as error:
                self._failed(reader, error)
        return None

    async def _here(self) -> BesideReader | None:
        """What reads the file, opened now or before; None when the primary is to be asked.

        :raises fe_twisted.base.errors.MailError: it cannot be opened, and the primary is not to be asked.
        """
        self._check()
        reader = self._beside
        self._used_at = self._clock.seconds()
        if reader is not None and reader.current:
            return reader
        if self._used_at < self._retry_at and not self._always:
            return None
        await self._turn.acquire()
        try:
            if self._beside is None or not self._beside.current:
                self._drop()
                await self._open_beside()
            return self._beside
        except (errors.Ours, errors.Later) as error:
            if self._always:
                raise
            self._retry_at = self._clock.seconds() + RETRY
            log.event("mailbox.direct", mailbox=self.id, reason=error.reason or error.public)
            return None
        finally:
            self._turn.release()

    async def _open_beside(self) -> None:
        """:raises fe_twisted.base.errors.MailError: it cannot be opened."""
        if not self._place:
            raise errors.Later(reason="the primary has not named its file, or it is being moved")
        if not self._same_place():
            raise errors.StorageFailed(reason="the primary's file of this mailbox is not here")

        def connect() -> apsw.Connection:
            try:
                with self._key.use() as key:
                    return self._files.open_beside(self.id, key)
            except ValueError as error:
                raise errors.Later(reason="closed while its file was being opened") from error

        connection = await self._run_in_thread(connect)
        try:
            self._check()
            reader = BesideReader(
                connection,
                connect,
                self._run_in_thread,
                self._clock,
                told=lambda: self._newest,
                known=lambda: len(self._keywords),
                learn=self._learn,
            )
        except BaseException:
            connection.close()
            raise
        self._beside = reader
        self._resting = self._clock.callLater(REST, self._rest)

    def _waits(self) -> bool:
        """Whether the primary is to look for waiting mail."""
        if self._files.waits(self.id):
            return True
        now = self._clock.seconds()
        if now < self._aside_at:
            return False
        self._aside_at = now + ASIDE
        return self._files.waits_aside(self.id)

    def _same_place(self) -> bool:
        """Whether the primary's file is the one that is here."""
        return bool(self._place) and self._files.place(self.id) == self._place

    def _rest(self) -> None:
        """Close the file if nobody has asked for a while, nor is in the middle of what was asked.

        Not while the link is away: the primary may let go of the file then, and it could not be opened again.
        """
        self._resting = None
        left = self._used_at + REST - self._clock.seconds()
        if left <= 0 and not self._fetches and self._link.connected:
            self._drop()
        else:
            self._resting = self._clock.callLater(left if left > 0 else REST, self._rest)

    def _learn(self, keywords: tuple[str, ...]) -> None:
        if len(keywords) > len(self._keywords):
            self._keywords = keywords

    def _failed(self, reader: BesideReader, error: errors.MailError) -> None:
        """Reading failed: do without it for a while.

        :raises fe_twisted.base.errors.MailError: the primary is not to be asked.
        """
        if self._beside is reader:
            self._drop()
            self._retry_at = self._clock.seconds() + RETRY
            log.warning("mailbox.direct", mailbox=self.id, reason=error.reason or error.public)
        self._check()
        if self._always:
            raise error

    def _drop(self) -> None:
        """Close the file in the background, when long questions have ended."""
        Deferred.fromCoroutine(self._let_go()).addErrback(self._bug)

    async def _let_go(self) -> None:
        reader, self._beside = self._beside, None
        if self._resting is not None:
            resting, self._resting = self._resting, None
            resting.cancel()
        if reader is not None:
            await reader.close()


async def open_direct(
    files: MailboxFiles,
    link: Link,
    mailbox_id: str,
    key: bytes,
    evicted: Callable[[str], None],
    run_in_thread: RunInThread,
    clock: Clock,
    *,
    mode: Mode = "auto",
    relocate: Relocate | None = None,
) -> RemoteMailbox:
    """Open a mailbox at a primary, and its file here; an opener for :class:`~fe_twisted.storage.mailbox.registry.OpenMailboxes`.

    :param files: where the primary's files are, if they are here.
    :param key: the mailbox key, 32 octets.
    :param evicted, relocate: see :class:`~fe_twisted.storage.mailbox.remote.RemoteMailbox`.
    :param mode: see :data:`Mode`.
    :raises PrimaryAway:
    :raises fe_twisted.base.errors.MailError: the primary did not open it; or ``mode`` is ``direct``, and the file cannot be read here.
    """
    if mode == "link":
        return await open_remote(link, mailbox_id, key, evicted, relocate=relocate)
    mailbox = DirectMailbox(files, link, mailbox_id, key, evicted, run_in_thread, clock, always=mode == "direct", relocate=relocate)
    await mailbox.opened()
    try:
        await mailbox._here()
    except BaseException:
        await mailbox.close()
        raise
    return mailbox
