"""Attack: a front end that was taken over, on the machine that has the mailbox files, may read with a key and can do no more than that.

Reading beside the primary needs no right to write: neither the files nor their folder change by it, in any of their times, and a front end
that the file system lets read only can do it just as well.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from fe_twisted.base import errors
from fe_twisted.storage.mailbox.direct import open_direct
from fe_twisted.storage.mailbox.files import MailboxFiles
from fe_twisted.storage.mailbox.local import LocalMailbox, open_mailbox
from fe_twisted.storage.mailbox.registry import OpenMailboxes
from fe_twisted.storage.sqlite.connect import WrongKey, connect_beside
from tests.storage.mailbox.driving import ID, at_once, nothing_waits, run
from tests.storage.mailbox.linked import Network, hosting
from tests.storage.sqlite.holder import KEY, Holder, prepare

NOBODY = 65534


def look(folder: Path) -> dict[str, tuple[int, ...]]:
    """What the file system says of a folder and of all that is in it.

    The superuser's SQLite gives -wal and -shm to the owner of the file whenever it opens them: that changes their ctime, and nothing else.
    """
    found = {".": os.stat(folder)} | {entry.name: entry.stat() for entry in os.scandir(folder)}
    known: dict[str, tuple[int, ...]] = {
        name: (now.st_ino, now.st_size, now.st_mode, now.st_uid, now.st_mtime_ns) for name, now in found.items()
    }
    return known if os.getuid() == 0 else {name: (*known[name], now.st_ctime_ns) for name, now in found.items()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "mailboxes"
    folder.mkdir()
    prepare(folder / "box")
    return folder / "box"


def test_a_reader_changes_nothing_on_the_disk(path: Path) -> None:
    writer = Holder(path)
    writer.say("add one")
    before = look(path.parent)
    readers = [Holder(path, "reader") for _ in range(2)]
    assert [reader.say("count") for reader in readers] == ["1", "1"]
    assert look(path.parent) == before
    readers[0].say("close")
    readers[1].kill()
    readers[0].kill()
    assert look(path.parent) == before
    writer.kill()
    reader = Holder(path, "reader")
    assert reader.say("count") == "1" and reader.say("close") == "ok"
    assert look(path.parent) == before, "nor when there is nobody else, after a crash"
    reader.kill()


def test_a_reader_needs_no_right_to_write(path: Path) -> None:
    """As a user who may only read, the superuser being one whom modes do not stop."""
    writer = Holder(path)
    writer.say("add one")
    for entry in path.parent.iterdir():
        entry.chmod(0o444)
    path.parent.chmod(0o555)
    for above in path.parent.parents:
        if above.stat().st_uid == os.getuid() and not above.stat().st_mode & stat.S_IXOTH:
            above.chmod(0o755)
    before = look(path.parent)
    reader = Holder(path, "reader", user=NOBODY if os.getuid() == 0 else None)
    assert reader.say("count") == "1"
    assert look(path.parent) == before
    writer.say("add two")
    assert reader.say("count") == "2" and reader.say("close") == "ok"
    reader.kill()
    path.parent.chmod(0o755)
    assert writer.say("close") == "ok"
    writer.kill()
    assert [entry.name for entry in path.parent.iterdir()] == ["box"]


def test_a_wrong_key_reads_nothing(path: Path) -> None:
    writer = Holder(path)
    writer.say("add one")
    before = look(path.parent)
    with pytest.raises(WrongKey):
        connect_beside(path, key=bytes(32))
    assert look(path.parent) == before
    writer.kill()


def test_a_wrong_key_opens_no_mailbox(tmp_path: Path) -> None:
    """Neither at the primary, which is asked first, nor here, also while somebody else has it open with the right one."""
    clock, files = Clock(), MailboxFiles(tmp_path / "mailboxes")
    files.create(ID, KEY)
    mailboxes: OpenMailboxes[LocalMailbox] = OpenMailboxes(
        lambda mailbox_id, key: open_mailbox(files, mailbox_id, key, at_once, clock, nothing_waits), clock
    )
    link = Network(hosting(mailboxes, files), clock).link()
    with pytest.raises(errors.DamagedFile):
        run(open_direct(files, link, ID, bytes(32), print, at_once, clock))
    mailbox = run(open_direct(files, link, ID, KEY, print, at_once, clock))
    with pytest.raises(errors.DamagedFile):
        run(open_direct(files, link, ID, bytes(32), print, at_once, clock))
    with pytest.raises(WrongKey):
        files.open_beside(ID, bytes(32))
    assert run(mailbox.status("INBOX")).messages == 0
    run(mailbox.close())
    link.stop()
    run(mailboxes.close_all())
    assert {entry.name for entry in files.directory.iterdir()} == {files.path(ID).name}
