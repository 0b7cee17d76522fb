"""A mailbox file on its way: blocks that changed, in any order, and nothing with a mailbox's name that is not whole."""

from __future__ import annotations

import hashlib
import os
from collections import namedtuple
from pathlib import Path

import apsw
import pytest

from fe_twisted.base import errors
from fe_twisted.storage.mailbox.files import MailboxFiles
from fe_twisted.storage.mailbox.transfer import AT_ONCE, BLOCK, MAIN, RESERVE, WAL, Incoming, Outgoing, Piece, Whole
from tests.storage.mailbox.driving import ID, KEY


@pytest.fixture
def there(tmp_path: Path) -> MailboxFiles:
    return MailboxFiles(tmp_path / "there")


def grow(files: MailboxFiles, octets: int) -> apsw.Connection:
    """An open mailbox with so much in it that compresses badly."""
    connection = files.open(ID, KEY)
    connection.execute("CREATE TABLE IF NOT EXISTS ballast(octets BLOB)")
    connection.execute("INSERT INTO ballast VALUES(?)", (os.urandom(octets),))
    return connection


def scan(source: Outgoing, part: int = MAIN) -> list[Piece]:
    pieces: list[Piece] = []
    at: int | None = 0
    while at is not None:
        scanned = source.scan(part, at)
        pieces += scanned.pieces
        at = scanned.next
    return pieces


def piece(octets: bytes, offset: int = 0, part: int = MAIN) -> Piece:
    return Piece(part, offset, octets, hashlib.sha256(octets).digest())


def names(files: MailboxFiles) -> list[str]:
    return sorted(path.name for path in files.directory.iterdir())


def test_only_what_changed_is_given_again(files: MailboxFiles, there: MailboxFiles) -> None:
    files.create(ID, KEY)
    grow(files, 10 * BLOCK).close()
    source, target = Outgoing(files, ID), Incoming(there, ID, source_size := files.path(ID).stat().st_size)
    first = scan(source)
    assert len(first) == -(-source_size // BLOCK) > 10 and not scan(source)
    using = grow(files, 100)
    assert not source.lock(), "it is in use"
    using.close()
    again = scan(source)
    assert 0 < len(again) < 5
    assert source.lock() and not scan(source) and not scan(source, WAL)
    for each in (*first, *again):
        target.write(each)
    whole = source.whole()
    assert names(there) == [each for each in names(there) if ".incoming" in each], "no mailbox yet"
    assert target.finish(whole) == whole.digest
    source.close()
    assert names(there) == [f"{ID}.sqlite"] and there.path(ID).read_bytes() == files.path(ID).read_bytes()
    assert there.check(ID, KEY) == [] and there.path(ID).stat().st_mode & 0o777 == 0o600


def test_the_lock_keeps_other_programs_out(files: MailboxFiles) -> None:
    files.create(ID, KEY)
    source = Outgoing(files, ID)
    assert source.lock()
    with pytest.raises(errors.Later):
        files.open(ID, KEY)
    source.close()
    files.open(ID, KEY).close()


def test_blocks_come_in_any_order_but_not_anywhere(files: MailboxFiles, there: MailboxFiles) -> None:
    target = Incoming(there, ID, 3 * BLOCK)
    octets = [os.urandom(BLOCK), os.urandom(BLOCK), b"the end"]
    for number in (2, 0, 1):
        target.write(piece(octets[number], number * BLOCK))
    far = (AT_ONCE + 3) * BLOCK
    for bad in (
        piece(b"x", far),
        piece(b"x", 1),
        piece(b"x", -BLOCK),
        piece(b"x", 0, 2),
        piece(b""),
        piece(bytes(BLOCK + 1)),
        Piece(MAIN, 0, b"x", bytes(32)),
        piece(b"x", 2**62),
    ):
        with pytest.raises(errors.BadSyntax):
            target.write(bad)
    for sizes in ((-1, 0), (2**60, 0), (0, 1)):
        with pytest.raises(errors.BadSyntax):
            target.finish(Whole(sizes, bytes(32)))
    with pytest.raises(errors.StorageFailed):
        target.finish(Whole((2 * BLOCK + 7, 0), bytes(32)))
    target.drop()
    assert names(there) == []


def test_a_mailbox_for_which_there_is_no_room_is_not_begun(there: MailboxFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    room = namedtuple("room", "f_bavail f_frsize")  # as os.statvfs gives it
    monkeypatch.setattr(os, "statvfs", lambda path: room(RESERVE // 4096 + 10, 4096))
    Incoming(there, ID, 40_000).drop()
    with pytest.raises(errors.DiskFull):
        Incoming(there, ID, 50_000)
    assert names(there) == []


def test_what_a_crash_left_is_removed_and_nothing_else(files: MailboxFiles) -> None:
    files.create(ID, KEY)
    for name in (f"{ID}-00ff00ff.incoming", f"{ID}-00ff00ff.incoming-wal"):
        (files.directory / name).write_bytes(b"half")
    (files.directory / f"{ID}.incoming-of-mine").write_bytes(b"kept")
    files.drop_incoming()
    assert names(files) == [f"{ID}.incoming-of-mine", f"{ID}.sqlite"]
