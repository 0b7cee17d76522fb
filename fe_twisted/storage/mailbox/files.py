"""Mailbox files as files: made, listed, deleted, checked and exported.  All calls block; servers run them in a thread."""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import apsw

from fe_twisted.base.errors import AlreadyExists, BadSettings, DamagedFile, NewerFile, StorageFailed
from fe_twisted.protocols.crypto.seal import SealingKey
from fe_twisted.storage.mailbox.check import Report, examine
from fe_twisted.storage.mailbox.discarded import discard_some
from fe_twisted.storage.mailbox.folders import STANDARD_FOLDERS, create_folder, set_subscribed
from fe_twisted.storage.mailbox.rescue import Rescued, rescue
from fe_twisted.storage.mailbox.rows import iso
from fe_twisted.storage.mailbox.salvage import unreadable
from fe_twisted.storage.mailbox.schema import MIGRATIONS
from fe_twisted.storage.mailbox.stats import Stats, stats
from fe_twisted.storage.sqlite.connect import PLAIN_HEADER, connect, connect_beside, header, migrate, storage_errors, sync_directory

#: Chosen by measurement (bulk delivery of 10 KB messages, ChaCha20): 4096 took 1.4 times as long, 16384 1.3 times and a third more disk.
PAGE_SIZE = 8192

#: Pages in the WAL before a commit also writes them back: 16 MiB, so that a burst of deliveries is not held up every few messages.
CHECKPOINT_PAGES = 2000

#: The oldest schema that :mod:`fe_twisted.storage.mailbox.rescue` reads, for a damaged file that cannot be brought further.
OLDEST_RESCUED = 3

_NAME = re.compile(r"\A([0-9a-f]{24})\.sqlite\Z")
_TEMPORARY = re.compile(r"\A([0-9a-f]{24})-tmp\.(?:sqlite|saving-[0-9]+)\Z")
_INCOMING = re.compile(r"\A[0-9a-f]{24}-[0-9a-f]{8}\.incoming(?:-wal)?\Z")


class MailboxFiles:
    """The folder that holds all mailbox files.

    :param directory: made, with mode 0700, when it is not there.
    :param cipher: ``chacha20`` or ``aegis``.
    """

    def __init__(self, directory: Path, cipher: str = "chacha20") -> None:
        self.directory = directory
        #: The same as a text: what is asked for every command does not go through pathlib.
        self._folder = os.fspath(directory)
        self.cipher = cipher
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, mailbox_id: str) -> Path:
        """Where the mailbox lies."""
        return self.directory / f"{mailbox_id}.sqlite"

    def temporary_path(self, mailbox_id: str) -> Path:
        """Where mail waits for its owner."""
        return self.directory / f"{mailbox_id}-tmp.sqlite"

    def incoming_path(self, mailbox_id: str) -> Path:
        """Where a mailbox lies while it is being moved here, another place each time; no mailbox has such a name."""
        return self.directory / f"{mailbox_id}-{os.urandom(4).hex()}.incoming"

    def exists(self, mailbox_id: str) -> bool:
        """Whether there is a file for it."""
        return os.path.exists(f"{self._folder}/{mailbox_id}.sqlite")

    def waits(self, mailbox_id: str) -> bool:
        """Whether there is a file with mail that waits for its owner: one ``stat``, see also :meth:`waits_aside`."""
        return os.path.exists(f"{self._folder}/{mailbox_id}-tmp.sqlite")

    def waits_aside(self, mailbox_id: str) -> bool:
        """Whether such a file was set aside, because it is damaged, and is still to be read."""
        return os.path.exists(f"{self._folder}/{mailbox_id}-tmp.saving-1")

    def ids(self) -> list[str]:
        """All mailboxes that have a file, sorted."""
        found = (_NAME.match(entry.name) for entry in os.scandir(self.directory))
        return sorted(match[1] for match in found if match)

    def waiting_ids(self) -> list[str]:
        """All mailboxes that mail waits for, sorted; they need not have a file."""
        found = (_TEMPORARY.match(entry.name) for entry in os.scandir(self.directory))
        return sorted({match[1] for match in found if match})

    def drop_incoming(self) -> None:
        """Remove what was left of moves that a crash ended; to be called when none is going on."""
        found = [entry.path for entry in os.scandir(self.directory) if _INCOMING.match(entry.name)]
        for path in found:
            os.unlink(path)
        if found:
            sync_directory(str(self.directory))

    def create(self, mailbox_id: str, key: bytes) -> bytes:
        """Make an empty mailbox, durable on return.

        :param key: 32 octets.
        :returns: the public key that waiting mail is sealed to.
        :raises AlreadyExists: there is a file of this name.
        :raises DiskFull, StorageFailed:
        """
        path = self.path(mailbox_id)
        if path.exists():
            raise AlreadyExists("mailbox file exists already")
        seal = SealingKey.generate()
        try:
            connection = connect(path, key=key, cipher=self.cipher, create=True, page_size=PAGE_SIZE)
            with contextlib.closing(connection), storage_errors(connection):
                migrate(connection, MIGRATIONS)
                with connection:
                    _furnish(connection, mailbox_id, seal)
                    while discard_some(connection):
                        pass
        except BaseException:
            _unlink(path)
            raise
        sync_directory(str(self.directory))
        return seal.public()

    def open(self, mailbox_id: str, key: bytes | bytearray, *, readonly: bool = False, cache_kib: int = 2048) -> apsw.Connection:
        """A connection to a mailbox that is there, with its schema up to date.

        :raises DamagedFile: not there, not this key's, or not this mailbox's.
        :raises NewerFile: written by a newer version of the program.
        """
        connection = connect(self.path(mailbox_id), key=key, cipher=self.cipher, readonly=readonly, cache_kib=cache_kib)
        try:
            with storage_errors(connection):
                if not readonly:
                    migrate(connection, MIGRATIONS)
                    connection.wal_autocheckpoint(CHECKPOINT_PAGES)
                _expect_id(connection, mailbox_id)
        except BaseException:
            connection.close()
            raise
        return connection

    def _open_damaged(self, mailbox_id: str, key: bytes, schema: int) -> apsw.Connection:
        """As :meth:`open`; also a file of which damage alone keeps its id from being read, or its schema from being brought up to date.

        :param schema: the oldest that will do.
        :raises DamagedFile: not there, not this key's, not this mailbox's, or its tables cannot even be listed.
        """
        try:
            return self.open(mailbox_id, key)
        except DamagedFile as error:
            if not isinstance(error.__cause__, apsw.Error):
                raise  # nothing in it is damaged: it is another mailbox's
            connection = connect(self.path(mailbox_id), key=key, cipher=self.cipher)
            if int(connection.pragma("user_version")) < schema:
                connection.close()
                raise
            return connection

    def open_beside(self, mailbox_id: str, key: bytes | bytearray) -> apsw.Connection:
        """A connection for reading to a mailbox that another process has open, see :func:`connect_beside`.

        :raises NotOpen: nobody has it open.
        :raises DamagedFile: not there, not this key's, or not this mailbox's.
        :raises NewerFile: its schema is not the one that this version of the program reads.
        """
        connection = connect_beside(self.path(mailbox_id), key=key, cipher=self.cipher)
        try:
            with storage_errors(connection):
                expect_schema(connection)
                _expect_id(connection, mailbox_id)
        except BaseException:
            connection.close()
            raise
        return connection

    def place(self, mailbox_id: str) -> bytes:
        """See :func:`place_of`."""
        return place_of(f"{self._folder}/{mailbox_id}.sqlite")

    def delete(self, mailbox_id: str) -> None:
        """Remove the mailbox and the mail that waits for it; nothing happens when they are gone already.

        What waits may also be in damaged files that are still to be read.
        """
        for path in (self.path(mailbox_id), self.temporary_path(mailbox_id)):
            _unlink(path)
        for path in sorted(self.directory.glob(f"{mailbox_id}-tmp.saving-*")):
            path.unlink(missing_ok=True)
        sync_directory(str(self.directory))

    def discard(self, mailbox_id: str) -> None:
        """Remove the mailbox alone, because it is elsewhere now; nothing happens when it is gone already."""
        _unlink(self.path(mailbox_id))
        sync_directory(str(self.directory))

    def check(self, mailbox_id: str, key: bytes) -> list[str]:
        """All that is wrong, as sentences; see :meth:`examine`."""
        return self.examine(mailbox_id, key).problems

    def examine(self, mailbox_id: str, key: bytes) -> Report:
        """All invariants that do not hold, and what of it can be read if it is damaged.

        :raises DamagedFile: it cannot even be opened.
        """
        with storage_errors():
            return examine(lambda: self._open_damaged(mailbox_id, key, len(MIGRATIONS)))

    def stats(self, mailbox_id: str, key: bytes) -> Stats:
        """What it holds, and what storing things once and compressed saves.

        :raises DamagedFile: it cannot be opened.
        """
        connection = self.open(mailbox_id, key)
        with contextlib.closing(connection), storage_errors(connection):
            return stats(connection)

    def export(self, mailbox_id: str, key: bytes, output: Path, password: str) -> Rescued | None:
        """Write a copy that any SQLite3 Multiple Ciphers program opens with the password alone (its ordinary ChaCha20 passphrase mode).

        The copy is a snapshot: the mailbox may be in use.  It is proved to open before it gets its name.  Of a damaged mailbox it has all
        that can be read; what is changed in that meanwhile may or may not be in it.

        :returns: what became of a damaged mailbox; None when all is in the copy.
        :raises AlreadyExists: ``output`` is there.
        :raises BadSettings: its folder is not.
        :raises DamagedFile: it cannot even be opened.
        """
        if output.exists():
            raise AlreadyExists(f"{output} exists already")
        if not output.parent.is_dir():
            raise BadSettings(f"{output.parent} is not a folder")
        with _beside(output) as copy:
            rescued = None
            connection = self._open_damaged(mailbox_id, key, OLDEST_RESCUED)
            with contextlib.closing(connection), storage_errors(connection):
                whole = _vacuumed(connection, copy)
            if not whole:
                _unlink(copy)
                rescued = self._rescue(mailbox_id, key, copy)
            _rekey(copy, key, self.cipher, password)
            _prove(copy, password, self.cipher)
            os.chmod(copy, 0o600)
            os.rename(copy, output)
        sync_directory(str(output.parent))
        return rescued

    def _rescue(self, mailbox_id: str, key: bytes, copy: Path) -> Rescued:
        """Write what can be read into a file of its own, encrypted under the same key."""
        path = copy.with_name("rescued.sqlite")
        damaged = self._open_damaged(mailbox_id, key, OLDEST_RESCUED)
        with contextlib.closing(damaged), storage_errors(damaged):
            connection = connect(path, key=key, cipher=self.cipher, create=True, page_size=PAGE_SIZE)
            with contextlib.closing(connection), storage_errors(connection):
                migrate(connection, MIGRATIONS)
                with connection:
                    rescued = rescue(damaged, connection, datetime.datetime.now(datetime.UTC))
                    while discard_some(connection):
                        pass
                connection.execute("VACUUM INTO ?", (str(copy),))
        return rescued


def place_of(path: str | os.PathLike[str]) -> bytes:
    """Names a file on a running machine: two processes that get the same name for it have the same file on the same machine before them.

    That is more than a path says, which may lead to a copy; and to memory that the two do not share, when the folder is one of the network.

    :returns: 32 octets, or none when the file is not there or the machine has no name (other systems than Linux).
    """
    try:
        found = os.stat(path)
    except OSError:
        return b""
    return _place(found.st_dev, found.st_ino)


@functools.lru_cache(4096)
def _place(device: int, inode: int) -> bytes:
    machine = _machine()
    return hashlib.sha256(b"%s %d %d" % (machine, device, inode)).digest() if machine else b""


@functools.cache
def _machine() -> bytes:
    """What the kernel calls itself since it was started."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    except OSError:
        return b""


def expect_schema(connection: apsw.Connection) -> None:
    """:raises NewerFile: the schema is not the one that this version of the program reads."""
    version = int(connection.execute("PRAGMA user_version").get)
    if version != len(MIGRATIONS):
        raise NewerFile(reason=f"schema {version}, this program reads {len(MIGRATIONS)}: {connection.filename}")


def _expect_id(connection: apsw.Connection, mailbox_id: str) -> None:
    """:raises DamagedFile: it is another mailbox's."""
    written = connection.execute("SELECT value FROM meta WHERE name = 'mailbox_id'").get
    if written != mailbox_id:
        raise DamagedFile(reason=f"file {mailbox_id} holds mailbox {written}")


def _furnish(connection: apsw.Connection, mailbox_id: str, seal: SealingKey) -> None:
    values = {
        "mailbox_id": mailbox_id,
        "sealing_seed": seal.seed(),
        "created_at": iso(datetime.datetime.now(datetime.UTC)),
    }
    connection.executemany("INSERT INTO meta(name, value) VALUES(?, ?)", list(values.items()))
    for name, special_use in STANDARD_FOLDERS:
        create_folder(connection, name, special_use)
        set_subscribed(connection, name, True)


def _unlink(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


@contextlib.contextmanager
def _beside(output: Path) -> Iterator[Path]:
    """A name in the same folder for the unfinished copy; whatever is there afterwards is removed."""
    with tempfile.TemporaryDirectory(prefix=".export-", dir=output.parent) as folder:
        yield Path(folder) / "mailbox.sqlite"


def _vacuumed(connection: apsw.Connection, copy: Path) -> bool:
    """Write a copy; False when a page of the mailbox cannot be read."""
    try:
        connection.execute("VACUUM INTO ?", (str(copy),))
    except apsw.Error as error:
        if not unreadable(error):
            raise
        return False
    return True


def _rekey(copy: Path, key: bytes, cipher: str, password: str) -> None:
    connection = _unlocked(copy, cipher, "raw:" + key.hex(), apsw.SQLITE_OPEN_READWRITE)
    with contextlib.closing(connection), storage_errors(connection):
        connection.pragma("rekey", password)
    descriptor = os.open(copy, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prove(copy: Path, password: str, cipher: str) -> None:
    if header(str(copy)).startswith(PLAIN_HEADER):
        raise StorageFailed(reason="the exported copy is not encrypted")
    connection = _unlocked(copy, cipher, password, apsw.SQLITE_OPEN_READONLY)
    with contextlib.closing(connection), storage_errors(connection):
        if connection.pragma("quick_check") != "ok":
            raise StorageFailed(reason="the exported copy fails its check")


def _unlocked(copy: Path, cipher: str, key: str, flags: int) -> apsw.Connection:
    """A connection to a copy that is not in WAL mode, which the copies that VACUUM makes are not.

    :param key: a passphrase, or ``raw:`` and 64 hex digits.
    """
    connection = apsw.Connection(str(copy), flags=flags)
    connection.pragma("cipher", cipher)
    connection.pragma("key", key)
    return connection
