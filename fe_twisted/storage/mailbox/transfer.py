"""A mailbox file on its way to another primary: octets that nobody on either side can read.

The file goes in blocks, while it is in use, and again those that changed meanwhile; in the end it is closed, locked, and compared as a
whole.  A WAL that holds something (of a crash, or because another process reads) goes along, so nothing depends on a checkpoint.

On the other side it grows under names that are not those of a mailbox::

    <id>-<random>.incoming, <id>-<random>.incoming-wal

and gets the mailbox's names when it is whole and on the disk.  Whether it is the mailbox then, the directory says.  All calls block;
servers run them in a thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from fe_twisted.base import errors, faults
from fe_twisted.storage.mailbox.files import MailboxFiles
from fe_twisted.storage.sqlite.connect import storage_errors, sync_directory

#: Octets of one block.
BLOCK = 1024 * 1024

#: Blocks that are given at once, and octets that are looked at for them.
AT_ONCE = 4
SCAN = 64 * BLOCK

#: Octets that must stay free on the disk of the target.
RESERVE = 64 * 1024 * 1024

#: Octets that a part may grow by while it comes, beside its own length.
GROWTH = 256 * 1024 * 1024

#: The file itself, and its WAL.
MAIN, WAL = 0, 1
PARTS = ("", "-wal")


class Whole(NamedTuple):
    """Both parts of a copy.

    :param sizes: octets of each.
    :param digest: see :func:`_digest`.
    """

    sizes: tuple[int, int]
    digest: bytes


class Piece(NamedTuple):
    """A block."""

    part: int
    offset: int
    octets: bytes
    digest: bytes


class Scanned(NamedTuple):
    """What a look at some blocks brought.

    :param pieces: those that are not as they were.
    :param next: where to look next; None at the end of the part.
    """

    pieces: list[Piece]
    next: int | None


class Outgoing:
    """A mailbox file that is being read.

    It is read through SQLite's own file layer: to close a file of one's own would end the locks that SQLite has on it in this process.

    :raises fe_twisted.base.errors.MailError: it cannot be opened.
    """

    def __init__(self, files: MailboxFiles, mailbox_id: str) -> None:
        self._path = files.path(mailbox_id)
        flags = [apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_MAIN_DB, 0]
        with storage_errors():
            self._file: apsw.VFSFile = apsw.VFSFile("unix", str(self._path), flags)
        self._locked = False
        self._known: tuple[list[bytes], list[bytes]] = ([], [])

    def size(self) -> int:
        """Octets of both parts."""
        return sum(self._size(part) for part in (MAIN, WAL))

    def lock(self) -> bool:
        """Keep everybody out, in this process and in others, until :meth:`close`; False while somebody has it open."""
        with storage_errors():
            try:
                self._file.xLock(apsw.SQLITE_LOCK_SHARED)
                self._file.xLock(apsw.SQLITE_LOCK_EXCLUSIVE)
            except apsw.BusyError:
                self._file.xUnlock(apsw.SQLITE_LOCK_NONE)
                return False
        self._locked = True
        return True

    def scan(self, part: int, offset: int) -> Scanned:
        """The next blocks that are not as they were when they were last looked at, a few at most."""
        known = self._known[part]
        pieces: list[Piece] = []
        size, end = self._size(part), offset + SCAN
        while offset < min(size, end) and len(pieces) < AT_ONCE:
            octets = self._read(part, offset, min(BLOCK, size - offset))
            digest = hashlib.sha256(octets).digest()
            number = offset // BLOCK
            if known[number : number + 1] != [digest]:
                pieces.append(Piece(part, offset, octets, digest))
                known[number : number + 1] = [digest]
            offset += BLOCK
        if offset < size:
            return Scanned(pieces, offset)
        del known[-(-size // BLOCK) :]
        return Scanned(pieces, None)

    def whole(self) -> Whole:
        """Of what was seen by the last scans; only when it was locked before them."""
        assert self._locked
        sizes = self._size(MAIN), self._size(WAL)
        return Whole(sizes, _digest(sizes, self._known))

    def close(self) -> None:
        """Let go of it, and of the lock."""
        with storage_errors():
            if self._locked:
                self._locked = False
                self._file.xUnlock(apsw.SQLITE_LOCK_NONE)
            self._file.xClose()

    def _size(self, part: int) -> int:
        with storage_errors():
            if part == MAIN:
                return int(self._file.xFileSize())
            try:
                return os.stat(_wal(self._path)).st_size
            except FileNotFoundError:
                return 0

    def _read(self, part: int, offset: int, length: int) -> bytes:
        """A block; what is beyond the end of a file that was cut meanwhile is zeros."""
        with storage_errors():
            if part == MAIN:
                octets = bytes(self._file.xRead(length, offset))
            else:
                with open(_wal(self._path), "rb", buffering=0) as file:
                    octets = os.pread(file.fileno(), length, offset)
        return octets.ljust(length, b"\0")


class Incoming:
    """A mailbox file that is being written.

    :param size: octets that are to come, or so; there must be room for them.
    :raises DiskFull: there is no room.
    :raises fe_twisted.base.errors.MailError: it cannot be made.
    """

    def __init__(self, files: MailboxFiles, mailbox_id: str, size: int) -> None:
        self._path = files.path(mailbox_id)
        path = files.incoming_path(mailbox_id)
        self._paths = [_named(path, part) for part in PARTS]
        self._descriptors: list[int] = []
        # It may grow while it comes.
        self._most = 2 * size + GROWTH
        with storage_errors():
            room = os.statvfs(files.directory)
            if room.f_bavail * room.f_frsize < size + RESERVE:
                raise errors.DiskFull(reason=f"no room for a mailbox of {size} octets")
            try:
                for path in self._paths:
                    self._descriptors.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            except BaseException:
                self.drop()
                raise
        faults.reach("arrive.begun")

    def write(self, piece: Piece) -> None:
        """Put a block in its place.

        Blocks that are sent together may come in any order, a short one before a long one.

        :raises BadSyntax: not a block, or one far behind all that has come, or more than was to be expected.
        :raises fe_twisted.base.errors.MailError: the disk refused.
        """
        if piece.part not in (MAIN, WAL) or piece.offset < 0 or piece.offset % BLOCK or not 0 < len(piece.octets) <= BLOCK:
            raise errors.BadSyntax("not a block")
        if not hmac.compare_digest(hashlib.sha256(piece.octets).digest(), piece.digest):
            raise errors.BadSyntax("a block that is not of its digest")
        with storage_errors():
            size = os.fstat(self._descriptors[piece.part]).st_size
            if piece.offset > min(size + AT_ONCE * BLOCK, self._most):
                raise errors.BadSyntax("a block that is not to be expected there")
            written = 0
            while written < len(piece.octets):
                written += os.pwrite(self._descriptors[piece.part], piece.octets[written:], piece.offset + written)
        faults.reach("arrive.written")

    def finish(self, whole: Whole) -> bytes:
        """Make it durable, read it again, and give it the mailbox's name if it is what it should be; returns its digest.

        :raises StorageFailed: it is not; nothing has got a name.
        :raises BadSyntax: there never came so much.
        :raises fe_twisted.base.errors.MailError: the disk refused.
        """
        with storage_errors():
            parts = list(zip(self._descriptors, whole.sizes, strict=True))
            if not all(0 <= size <= os.fstat(descriptor).st_size for descriptor, size in parts):
                raise errors.BadSyntax("a size that did not come")
            for descriptor, size in parts:
                os.ftruncate(descriptor, size)
                os.fsync(descriptor)
            faults.reach("arrive.synced")
            digests = tuple(list(_digests(each)) for each in self._descriptors)
        found = _digest(whole.sizes, digests)
        if not hmac.compare_digest(found, whole.digest):
            raise errors.StorageFailed("what arrived is not what was sent", reason=f"{self._path.name}: the digests differ")
        # Before it gets its name: to close it later would end SQLite's locks on it.
        self._close()
        with storage_errors():
            for suffix in ("", "-wal", "-shm"):
                _named(self._path, suffix).unlink(missing_ok=True)
            if whole.sizes[WAL]:
                os.rename(self._paths[WAL], _wal(self._path))
            else:
                self._paths[WAL].unlink()
            faults.reach("arrive.named_wal")
            os.rename(self._paths[MAIN], self._path)
        sync_directory(str(self._path.parent))
        faults.reach("arrive.named")
        return found

    def drop(self) -> None:
        """Remove what has no mailbox's name yet."""
        self._close()
        for path in self._paths:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _close(self) -> None:
        descriptors, self._descriptors = self._descriptors, []
        for each in descriptors:
            os.close(each)


def _named(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _wal(path: Path) -> Path:
    return _named(path, PARTS[WAL])


def _digests(descriptor: int) -> Iterator[bytes]:
    """Of each block of a file."""
    offset = 0
    while octets := os.pread(descriptor, BLOCK, offset):
        yield hashlib.sha256(octets).digest()
        offset += len(octets)


def _digest(sizes: tuple[int, int], digests: Any) -> bytes:
    """Of both parts: SHA-256 over their sizes and the SHA-256 of each block, so that no octet is digested twice."""
    whole = hashlib.sha256(b"%d %d " % sizes)
    for part in digests:
        for each in part:
            whole.update(each)
    return whole.digest()
