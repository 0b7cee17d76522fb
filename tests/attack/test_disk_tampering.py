"""Attack: somebody can write the disk while the server is down, and waits for the owner to come back.

What is noticed is refused; what is not noticed is said in docs/security.md, and shown here.
"""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from fe_twisted.base.errors import DamagedFile, MailError
from fe_twisted.protocols.crypto.seal import SealingKey
from fe_twisted.services.deliver.merge import Merge
from fe_twisted.storage.mailbox.api import NewMessage
from fe_twisted.storage.mailbox.files import MailboxFiles
from fe_twisted.storage.mailbox.local import LocalMailbox, open_mailbox
from fe_twisted.storage.spool.item import Unreadable, Waiting, unseal
from fe_twisted.storage.spool.spool import Counts, Spool
from tests.storage.mailbox.driving import ID, KEY, at_once, collect, nothing_waits, run

SERVER_KEY = bytes(range(50, 82))
OTHER = "ba9876543210ba9876543210"
NOW = datetime.datetime(2026, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)


def contents(mailbox: LocalMailbox) -> list[bytes]:
    selected = run(mailbox.select("INBOX", claim_recent=False))
    return [content for (content,) in run(collect(mailbox.fetch(selected.folder_id, selected.uids, ["content"])))]


def opened(files: MailboxFiles) -> LocalMailbox:
    return run(open_mailbox(files, ID, KEY, at_once, Clock(), nothing_waits))


def test_a_page_of_an_older_copy_is_noticed_or_harmless(tmp_path: Path) -> None:
    """Pages are authenticated one by one; what a stale page breaks is an error, and never a message that nobody sent."""
    files = MailboxFiles(tmp_path / "mailboxes")
    files.create(ID, KEY)
    sent = [b"Subject: %d\r\n\r\n%s\r\n" % (number, b"text " * 2000) for number in range(3)]
    mailbox = opened(files)
    run(mailbox.append("INBOX", [NewMessage(sent[0])]))
    run(mailbox.close())
    old = files.path(ID).read_bytes()
    mailbox = opened(files)
    run(mailbox.append("INBOX", [NewMessage(content) for content in sent[1:]]))
    run(mailbox.close())
    new = files.path(ID).read_bytes()
    for start in range(0, min(len(old), len(new)), 8192):
        mixed = bytearray(new)
        mixed[start : start + 8192] = old[start : start + 8192]
        files.path(ID).write_bytes(mixed)
        try:
            mailbox = opened(files)
        except MailError:
            continue
        try:
            found = contents(mailbox)
        except MailError:
            continue
        finally:
            run(mailbox.close())
        assert set(found) <= set(sent)


def test_an_old_copy_of_a_whole_file_is_not_noticed(tmp_path: Path) -> None:
    """Nothing outside the file says how new it should be: a restored backup and a rollback look alike."""
    files = MailboxFiles(tmp_path / "mailboxes")
    files.create(ID, KEY)
    shutil.copy(files.path(ID), tmp_path / "old")
    mailbox = opened(files)
    run(mailbox.append("INBOX", [NewMessage(b"Subject: x\r\n\r\nx\r\n")]))
    run(mailbox.close())
    shutil.copy(tmp_path / "old", files.path(ID))
    mailbox = opened(files)
    assert contents(mailbox) == []
    run(mailbox.close())


def test_a_public_key_that_was_swapped_gives_away_what_comes_next_and_nothing_before(tmp_path: Path) -> None:
    """Whoever can write the directory can have new mail sealed to himself; the owner's merge then marks it and says so."""
    files = MailboxFiles(tmp_path / "mailboxes")
    honest, thief = files.create(ID, KEY), SealingKey.generate()
    clock = Clock()
    spool = Spool(files.temporary_path, SERVER_KEY, at_once, clock)
    before, after = Waiting(b"b" * 16, NOW, b"Subject: before\r\n\r\n"), Waiting(b"a" * 16, NOW, b"Subject: after\r\n\r\n")
    run(spool.add(ID, honest, before))
    run(spool.add(ID, thief.public(), after))
    rows = {row.delivery_id: row.sealed for row in run(spool.take(ID, 10, 1 << 20))}
    with pytest.raises(Unreadable):
        unseal(rows[before.delivery_id], thief, ID, before.delivery_id)
    assert unseal(rows[after.delivery_id], thief, ID, after.delivery_id).content == after.content
    merge = Merge(spool, at_once, clock)
    mailbox = run(open_mailbox(files, ID, KEY, at_once, clock, merge.poll))
    run(mailbox.poll())
    assert contents(mailbox) == [before.content]
    assert run(spool.counts(ID)) == Counts(waiting=0, refused=1)
    run(mailbox.close())
    run(spool.close())


def test_a_forged_row_is_taken_for_mail(tmp_path: Path) -> None:
    """The public key is public: sealing keeps mail secret and says nothing about who sent it, as port 25 does not either."""
    files = MailboxFiles(tmp_path / "mailboxes")
    public = files.create(ID, KEY)
    clock = Clock()
    spool = Spool(files.temporary_path, SERVER_KEY, at_once, clock)
    run(spool.add(ID, public, Waiting(b"f" * 16, NOW, b"Subject: forged\r\n\r\n")))
    mailbox = run(open_mailbox(files, ID, KEY, at_once, clock, Merge(spool, at_once, clock).poll))
    run(mailbox.poll())
    assert contents(mailbox) == [b"Subject: forged\r\n\r\n"]
    run(mailbox.close())
    run(spool.close())


def test_a_row_that_was_moved_to_another_mailbox_does_not_open(tmp_path: Path) -> None:
    """The seal names its mailbox and its delivery."""
    key = SealingKey.generate()
    item = Waiting(b"m" * 16, NOW, b"Subject: mine\r\n\r\n")
    sealed = item.seal(key.public(), ID)
    assert unseal(sealed, key, ID, item.delivery_id) == item
    with pytest.raises(Unreadable):
        unseal(sealed, key, OTHER, item.delivery_id)
    with pytest.raises(Unreadable):
        unseal(sealed, key, ID, b"n" * 16)


def test_a_mailbox_file_in_the_place_of_another_is_refused(tmp_path: Path) -> None:
    """Even under the same key, which no two mailboxes have."""
    files = MailboxFiles(tmp_path / "mailboxes")
    files.create(ID, KEY)
    files.create(OTHER, KEY)
    shutil.copy(files.path(OTHER), files.path(ID))
    with pytest.raises(DamagedFile):
        files.open(ID, KEY)
