"""Files of before: opened, brought forward, and the same to whoever asks."""

from __future__ import annotations

import contextlib

import apsw
import pytest
from twisted.internet.task import Clock

from fe_twisted.protocols.imap.search import Body, Header
from fe_twisted.storage.mailbox import discarded, words
from fe_twisted.storage.mailbox.check import problems
from fe_twisted.storage.mailbox.files import PAGE_SIZE, MailboxFiles
from fe_twisted.storage.mailbox.local import open_mailbox
from fe_twisted.storage.mailbox.messages import store_message
from fe_twisted.storage.mailbox.rows import entry_id
from fe_twisted.storage.mailbox.schema import MIGRATIONS
from fe_twisted.storage.sqlite.connect import connect, migrate
from tests.storage.mailbox.driving import ID, KEY, at_once, nothing_waits, run
from tests.storage.mailbox.samples import ALL, add, mail, rows

UIDS = range(1, 10)


def test_the_old_index_is_emptied_in_pieces(files: MailboxFiles, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by the migration, which somebody waits for, and not again when it was ended in the middle."""
    first_version(files)
    monkeypatch.setattr(discarded, "ROWS", 1)
    with contextlib.closing(files.open(ID, KEY)) as connection:
        assert discarded.waiting(connection) == ["discarded_1", "discarded_2", "discarded_3"]
        assert connection.execute("SELECT count(*) FROM discarded_1").get > 1
        assert discarded.discard_some(connection)
        assert problems(connection) == []
    mailbox = run(open_mailbox(files, ID, KEY, at_once, clock, nothing_waits))
    assert discarded.waiting(mailbox._reader) == []
    assert run(mailbox.check_consistency()) == []
    run(mailbox.close())


def test_a_new_file_has_nothing_to_discard(files: MailboxFiles) -> None:
    files.create(ID, KEY)
    with contextlib.closing(files.open(ID, KEY)) as connection:
        assert discarded.waiting(connection) == []


def first_version(files: MailboxFiles) -> None:
    """A mailbox as the first version made it: nine messages in INBOX, the first six of them in the index of that time."""
    with contextlib.closing(connect(files.path(ID), key=KEY, create=True, page_size=PAGE_SIZE)) as connection:
        migrate(connection, MIGRATIONS[:1])
        with connection:
            connection.executemany(
                "INSERT INTO meta(name, value) VALUES(?, ?)", [("mailbox_id", ID), ("last_uidvalidity", 7), ("indexed", 6)]
            )
            connection.execute("INSERT INTO folders(name, object_id, selectable, uidvalidity) VALUES('INBOX', ?, 1, 7)", ("f" * 24,))
            octets = sum(_first_message(connection, uid, mail(uid, b"body%d of all\r\n" % uid)) for uid in UIDS)
            connection.execute("UPDATE folders SET uidnext = 10, modseq = 10, messages = 9, unseen = 9, octets = ?", (octets,))
            connection.execute("INSERT INTO grams(rowid, text) SELECT message_id, header || body FROM texts WHERE message_id < 7")


def _first_message(connection: apsw.Connection, uid: int, content: bytes) -> int:
    message_id, size = store_message(connection, content)
    connection.execute(
        "INSERT INTO entries(id, message_id, flags, modseq, day, received_at, internaldate, saved_at)"
        " VALUES(?, ?, 0, ?, 739000, '2024-04-22T10:00:00Z', CAST('22-Apr-2024 10:00:00 +0000' AS BLOB), '2024-04-22T10:00:00Z')",
        (entry_id(1, uid), message_id, uid + 1),
    )
    return size


@pytest.mark.parametrize(("at_once_", "indexed"), [(4, 8), (100, 0)])
def test_a_file_of_the_first_version_answers_the_same(
    files: MailboxFiles, clock: Clock, monkeypatch: pytest.MonkeyPatch, at_once_: int, indexed: int
) -> None:
    monkeypatch.setattr(words, "MESSAGES", at_once_)
    first_version(files)
    mailbox = run(open_mailbox(files, ID, KEY, at_once, clock, nothing_waits))
    assert mailbox._reader.execute("SELECT count(*) FROM terms").get == 2 * indexed
    assert rows(mailbox, "INBOX", "uid", "modseq") == [(uid, uid + 1) for uid in UIDS]
    assert run(mailbox.search(1, Body("body7"))) == [7]
    assert run(mailbox.search(1, Body("ODY"))) == list(UIDS)
    assert run(mailbox.search(1, Header("subject", "number 9"))) == [9]
    for since in (0, 1, 4, 10):
        assert [uid for uid, _, _ in run(mailbox.changes(1, since, 10, claim_recent=False)).changed] == [
            uid for uid in UIDS if uid + 1 > since
        ]
    add(mailbox, mail(10))
    run(mailbox.store(1, ((2, 3), (5, 5)), "add", frozenset({"\\Seen"})))
    assert [uid for uid, _, _ in run(mailbox.changes(1, 11, 11, claim_recent=False)).changed] == [2, 3, 5]
    assert [uid for uid, _, _ in run(mailbox.changes(1, 8, 11, claim_recent=False)).changed] == [2, 3, 5, 8, 9, 10]
    assert len(run(mailbox.store(1, ALL, "add", frozenset({"Work"}))).changed) == 10
    assert run(mailbox.check_consistency()) == []
    run(mailbox.close())
    assert files.check(ID, KEY) == []
