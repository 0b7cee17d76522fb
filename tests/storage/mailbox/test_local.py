"""The mailbox interface, kept by the local mailbox."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from fe_twisted.base.errors import AlreadyExists, DamagedFile, Later
from fe_twisted.protocols.imap.ranges import iterate
from fe_twisted.protocols.imap.search import Text
from fe_twisted.storage.mailbox import words
from fe_twisted.storage.mailbox.api import FIRST_KEYWORD_BIT, Column, NewMessage, Row
from fe_twisted.storage.mailbox.files import PAGE_SIZE, MailboxFiles
from fe_twisted.storage.mailbox.local import LocalMailbox, open_mailbox
from tests.storage.mailbox.driving import ID, KEY, at_once, nothing_waits, run
from tests.storage.mailbox.samples import ALL, add, folder_id, mail, rows, with_attachment


def test_attachments_are_stored_once(mailbox: LocalMailbox) -> None:
    contents = [with_attachment(number) for number in range(5)]
    add(mailbox, *contents)
    assert [row[0] for row in rows(mailbox, "INBOX", "content")] == contents
    assert mailbox._reader.execute("SELECT count(*) FROM attachments").get == 1


def test_the_same_content_is_stored_once_and_goes_with_its_last_entry(mailbox: LocalMailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "MESSAGES", 1)
    add(mailbox, with_attachment(1), with_attachment(1))
    inbox = folder_id(mailbox)
    run(mailbox.copy(inbox, ALL, "Archive"))
    count = "SELECT (SELECT count(*) FROM messages), (SELECT count(*) FROM attachments), (SELECT count(*) FROM terms)"
    assert mailbox._reader.execute(count).fetchone() == (1, 1, 2)
    run(mailbox.store(inbox, ALL, "add", frozenset({"\\Deleted"})))
    run(mailbox.expunge(inbox, None))
    assert mailbox._reader.execute(count).fetchone() == (1, 1, 2)
    run(mailbox.store(folder_id(mailbox, "Archive"), ALL, "add", frozenset({"\\Deleted"})))
    run(mailbox.expunge(folder_id(mailbox, "Archive"), None))
    assert mailbox._reader.execute(count).fetchone() == (0, 0, 0)


def test_a_delivery_is_remembered_until_what_waits_was_moved_in(files: MailboxFiles, clock: Clock) -> None:
    """A crash between storing and removing, and the owner back after a year: the first poll must still know the delivery."""
    files.create(ID, KEY)
    again = NewMessage(mail(1), delivery_id=b"1" * 16)
    mailbox = run(open_mailbox(files, ID, KEY, at_once, clock, nothing_waits))
    run(mailbox.append("INBOX", [again]))
    run(mailbox.close())
    clock.advance(365 * 86_400)

    async def repeat(opened: LocalMailbox) -> int:
        return len([uid for uid in (await opened.append("INBOX", [again])).uids if uid])

    mailbox = run(open_mailbox(files, ID, KEY, at_once, clock, repeat))
    assert run(mailbox.poll()) == 0
    assert mailbox._reader.execute("SELECT count(*) FROM deliveries").get == 0
    run(mailbox.close())


def test_a_watcher_that_fails_takes_nothing_back(mailbox: LocalMailbox) -> None:
    """What is durable is answered as done, or the client would do it again; and the other watchers are told."""
    heard: list[tuple[int, int]] = []

    def broken(folder: int, modseq: int) -> None:
        raise RuntimeError("bug")

    mailbox.watch(broken)
    mailbox.watch(lambda folder, modseq: heard.append((folder, modseq)))
    inbox = folder_id(mailbox)
    assert run(mailbox.append("INBOX", [NewMessage(mail(1))])).uids == [1]
    assert heard == [(inbox, mailbox.modseq(inbox))]


def test_a_keyword_is_known_as_soon_as_a_message_has_it(files: MailboxFiles, clock: Clock) -> None:
    """A reader sees a commit before the reactor hears of it; flags without a name would be told as if they were not there."""
    files.create(ID, KEY)
    held: list[Deferred[None]] = []

    def slow_to_tell(work: Callable[[], Any]) -> Deferred[Any]:
        """A thread whose work is done, and whose word of it is under way."""
        done = at_once(work)
        if not holding:
            return done
        told: Deferred[None] = Deferred()
        held.append(told)
        return told.addCallback(lambda _: done)

    holding = False
    mailbox = run(open_mailbox(files, ID, KEY, slow_to_tell, clock, nothing_waits))
    add(mailbox, mail(1))
    inbox = folder_id(mailbox)
    holding = True
    storing = Deferred.fromCoroutine(mailbox.store(inbox, ALL, "add", frozenset({"$Word"})))
    ((flags,),) = rows(mailbox, "INBOX", "flags")
    assert flags >> FIRST_KEYWORD_BIT == 1
    assert mailbox.keywords() == ("$Word",)
    holding = False
    for each in held:
        each.callback(None)
    assert storing.called
    run(mailbox.close())
    assert mailbox.keywords() == ("$Word",), "a session may still be writing its last line"


def test_the_key_is_not_kept_in_the_clear(files: MailboxFiles, clock: Clock) -> None:
    """The mailbox can open further connections, and holds the key for that only wrapped."""
    files.create(ID, KEY)
    key = bytes(bytearray(KEY))
    before = sys.getrefcount(key)
    mailbox = run(open_mailbox(files, ID, key, at_once, clock, nothing_waits))
    assert sys.getrefcount(key) == before
    add(mailbox, mail(1))
    assert run(mailbox.search(folder_id(mailbox), Text("nothing"))) == []
    assert sys.getrefcount(key) == before
    run(mailbox.close())


def test_a_search_after_the_end_opens_nothing(files: MailboxFiles, clock: Clock) -> None:
    files.create(ID, KEY)
    mailbox = run(open_mailbox(files, ID, KEY, at_once, clock, nothing_waits))
    inbox = folder_id(mailbox)
    run(mailbox.close())
    with pytest.raises(Later):
        run(mailbox.search(inbox, Text("nothing")))
    assert mailbox._scanner is None


def test_a_lost_message_is_noticed_even_if_all_counters_agree(files: MailboxFiles, clock: Clock) -> None:
    files.create(ID, KEY)
    mailbox = run(open_mailbox(files, ID, KEY, at_once, clock, nothing_waits))
    add(mailbox, mail(1), mail(2))
    run(mailbox.close())
    connection = files.open(ID, KEY)
    connection.execute("INSERT INTO orphans(message_id) SELECT message_id FROM entries ORDER BY id LIMIT 1")
    octets = connection.execute("SELECT size FROM messages WHERE id IN (SELECT message_id FROM orphans)").get
    connection.execute("DELETE FROM entries WHERE message_id IN (SELECT message_id FROM orphans)")
    connection.execute("UPDATE folders SET messages = 1, unseen = 1, octets = octets - ? WHERE name = 'INBOX'", (octets,))
    connection.close()
    assert ["nobody knows what became" in problem for problem in files.check(ID, KEY)] == [True]


def test_a_failed_append_stores_nothing(mailbox: LocalMailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    from fe_twisted.storage.mailbox import messages

    real = messages.store_message
    monkeypatch.setattr(messages, "store_message", lambda c, content, ready: real(c, content, ready) if b"bad" not in content else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        add(mailbox, mail(1), b"bad", mail(2))
    monkeypatch.undo()
    assert run(mailbox.status("INBOX")).messages == 0
    assert add(mailbox, mail(3)) == [1]


def test_reopened_it_is_the_same(files: MailboxFiles, clock: Clock) -> None:
    files.create(ID, KEY)
    for expected in range(3):
        mailbox = run(open_mailbox(files, ID, KEY, at_once, clock, nothing_waits))
        assert run(mailbox.status("INBOX")).messages == expected
        add(mailbox, mail(expected), flags=frozenset({f"k{expected}"}))
        assert mailbox.keywords() == tuple(f"k{number}" for number in range(expected + 1))
        run(mailbox.close())
    assert files.check(ID, KEY) == []


def damaged_by_zeros(data: bytes) -> bytes:
    return bytes(len(data))


def cut_short(data: bytes) -> bytes:
    return data[: len(data) // 2 + 100]


def plain_database(data: bytes) -> bytes:
    return b"SQLite format 3\0" + data[16:]


@pytest.mark.parametrize("damage", [damaged_by_zeros, cut_short, plain_database, lambda data: b""])
def test_a_damaged_file_is_refused_and_left_alone(files: MailboxFiles, clock: Clock, damage: Callable[[bytes], bytes]) -> None:
    files.create(ID, KEY)
    path = files.path(ID)
    path.write_bytes(damage(path.read_bytes()))
    before = path.read_bytes()
    with pytest.raises(DamagedFile):
        problems = files.check(ID, KEY)
        raise DamagedFile(reason="; ".join(problems)) if problems else AssertionError("opened as if nothing had happened")
    assert path.read_bytes() == before


@pytest.mark.parametrize("page", [0, *range(2, 8)])
def test_a_changed_bit_is_noticed(files: MailboxFiles, page: int) -> None:
    # Page 1 is SQLite's pointer map: it holds no content and is read only when space is given back.
    files.create(ID, KEY)
    path = files.path(ID)
    data = bytearray(path.read_bytes())
    data[page * PAGE_SIZE + 100] ^= 1
    path.write_bytes(data)
    with contextlib.suppress(DamagedFile):
        assert files.check(ID, KEY) != []


def test_another_mailboxs_file_is_refused(files: MailboxFiles) -> None:
    other = "f" * 24
    files.create(ID, KEY)
    files.create(other, KEY)
    files.path(ID).write_bytes(files.path(other).read_bytes())
    with pytest.raises(DamagedFile):
        files.check(ID, KEY)


def test_a_wrong_key_opens_nothing_and_harms_nothing(files: MailboxFiles) -> None:
    files.create(ID, KEY)
    before = files.path(ID).read_bytes()
    with pytest.raises(DamagedFile):
        files.check(ID, bytes(32))
    assert files.path(ID).read_bytes() == before
    assert files.check(ID, KEY) == []


def test_nothing_readable_lies_on_the_disk(files: MailboxFiles, clock: Clock) -> None:
    files.create(ID, KEY)
    mailbox = run(open_mailbox(files, ID, KEY, at_once, clock, nothing_waits))
    add(mailbox, mail(1, b"a very secret sentence\r\n"))
    run(mailbox.create("SecretFolder"))
    for path in files.directory.iterdir():
        data = path.read_bytes()
        for secret in (b"secret", b"Secret", b"example.com", b"INBOX", b"CREATE TABLE", KEY, KEY.hex().encode(), b"SQLite format 3"):
            assert secret not in data, path.name
    run(mailbox.close())


def test_export_opens_with_the_password_alone(files: MailboxFiles, clock: Clock, tmp_path: Any) -> None:
    import apsw

    files.create(ID, KEY)
    mailbox = run(open_mailbox(files, ID, KEY, at_once, clock, nothing_waits))
    add(mailbox, mail(1))
    output = tmp_path / "copy.sqlite"
    files.export(ID, KEY, output, "correct horse")
    run(mailbox.close())
    with pytest.raises(AlreadyExists):
        files.export(ID, KEY, output, "correct horse")
    assert oct(output.stat().st_mode & 0o777) == "0o600"
    for password, opens in (("correct horse", True), ("wrong", False), (None, False)):
        connection = apsw.Connection(str(output))
        connection.pragma("cipher", "chacha20")
        if password:
            connection.pragma("key", password)
        if opens:
            assert connection.execute("SELECT count(*) FROM messages").get == 1
        else:
            with pytest.raises(apsw.NotADBError):
                list(connection.execute("SELECT count(*) FROM messages"))
        connection.close()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("gaps", [0, 1, 3, 30])
def test_select_knows_every_uid_whatever_was_expunged(mailbox: LocalMailbox, gaps: int) -> None:
    """Whether it goes by the log of what was expunged or, where that is long, by the messages."""
    add(mailbox, *(mail(number) for number in range(60)))
    inbox = folder_id(mailbox)
    gone = range(2, 2 + 2 * gaps, 2)
    for uid in reversed(gone):
        run(mailbox.store(inbox, ((uid, uid),), "add", frozenset({"\\Deleted"})))
        run(mailbox.expunge(inbox, None))
    selected = run(mailbox.select("INBOX", claim_recent=False))
    assert list(iterate(selected.uids)) == [uid for uid in range(1, 61) if uid not in gone]
    assert selected.status.messages == 60 - gaps
    run(mailbox.store(inbox, ALL, "add", frozenset({"\\Deleted"})))
    run(mailbox.expunge(inbox, None))
    assert run(mailbox.select("INBOX", claim_recent=False)).uids == ()
    assert run(mailbox.select("Archive", claim_recent=False)).uids == ()


def test_rows_of_many_ranges_come_in_few_batches(mailbox: LocalMailbox) -> None:
    add(mailbox, *(mail(number) for number in range(1_203)))
    odd = tuple((uid, uid) for uid in range(1, 1_204, 2))

    async def fetched(columns: tuple[Column, ...]) -> list[list[Row]]:
        return [batch async for batch in mailbox.fetch(folder_id(mailbox), odd, columns)]

    asked: dict[tuple[Column, ...], int] = {("uid",): 1, ("flags", "uid"): 1, ("uid", "header"): 2, ("content", "uid"): 2}
    for columns, number in asked.items():
        batches = run(fetched(columns))
        assert [row[columns.index("uid")] for batch in batches for row in batch] == list(range(1, 1_204, 2))
        assert len(batches) == number
