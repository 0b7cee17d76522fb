"""The mailbox interface, kept by the local mailbox."""

from __future__ import annotations

import base64
import contextlib
import datetime
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock

from fe_twisted.base.errors import AlreadyExists, DamagedFile, LimitReached, NoSuchFolder, Refused, TryCreate
from fe_twisted.storage.mailbox.api import DELETED, FLAGGED, SEEN, NewMessage
from fe_twisted.storage.mailbox.files import PAGE_SIZE, MailboxFiles
from fe_twisted.storage.mailbox.local import LocalMailbox, open_mailbox
from tests.storage.mailbox.driving import ID, KEY, at_once, collect, nothing_waits, run

ALL = ((1, 0xFFFFFFFF),)


def mail(number: int = 1, body: bytes = b"hello\r\n") -> bytes:
    return b"From: a@example.com\r\nSubject: number %d\r\nMessage-ID: <%d@example.com>\r\n\r\n" % (number, number) + body


def with_attachment(number: int, size: int = 20_000) -> bytes:
    data = base64.encodebytes(bytes(range(256)) * (size // 256)).replace(b"\n", b"\r\n")
    return (
        (
            b"From: a@example.com\r\nSubject: file %d\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
            b"--b\r\nContent-Type: text/plain\r\n\r\nnumber %d\r\n"
            b"--b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n" % (number, number)
        )
        + data
        + b"\r\n--b--\r\nepilogue\r\n"
    )


def add(mailbox: LocalMailbox, *contents: bytes, folder: str = "INBOX", flags: frozenset[str] = frozenset()) -> list[int]:
    return list(run(mailbox.append(folder, [NewMessage(content, flags) for content in contents])).uids)


def rows(mailbox: LocalMailbox, folder: str, *columns: Any) -> list[Any]:
    selected = run(mailbox.select(folder, claim_recent=False))
    return run(collect(mailbox.fetch(selected.folder_id, ALL, columns)))


def folder_id(mailbox: LocalMailbox, name: str = "INBOX") -> int:
    return run(mailbox.select(name, claim_recent=False)).folder_id


def test_a_new_mailbox_has_the_standard_folders(mailbox: LocalMailbox) -> None:
    found = {folder.name: folder.special_use for folder in run(mailbox.folders())}
    assert found == {
        "INBOX": "",
        "Archive": "\\Archive",
        "Drafts": "\\Drafts",
        "Junk": "\\Junk",
        "Sent": "\\Sent",
        "Trash": "\\Trash",
    }
    assert run(mailbox.folders())[0].name == "INBOX"
    assert all(folder.subscribed and folder.selectable for folder in run(mailbox.folders()))


@pytest.mark.parametrize("content", [b"", b"\0", b"no header at all", mail(), with_attachment(1), b"a\nb\rc\r\n\r\n\xff" * 1000])
def test_content_comes_out_byte_for_byte(mailbox: LocalMailbox, content: bytes) -> None:
    add(mailbox, content)
    assert rows(mailbox, "INBOX", "content", "size") == [(content, len(content))]


def test_append_counts_and_uids_grow(mailbox: LocalMailbox) -> None:
    assert add(mailbox, mail(1), mail(2)) == [1, 2]
    assert add(mailbox, mail(3), flags=frozenset({"\\Seen", "$Forwarded"})) == [3]
    status = run(mailbox.status("inbox"))
    assert (status.messages, status.unseen, status.uidnext, status.deleted) == (3, 2, 4, 0)
    assert status.size == sum(len(mail(number)) for number in (1, 2, 3))
    assert mailbox.keywords() == ("$Forwarded",)
    assert rows(mailbox, "INBOX", "uid", "flags") == [(1, 0), (2, 0), (3, SEEN | 1 << 5)]


def test_a_missing_target_asks_to_be_created(mailbox: LocalMailbox) -> None:
    with pytest.raises(TryCreate):
        add(mailbox, mail(), folder="Nowhere")
    add(mailbox, mail())
    with pytest.raises(TryCreate):
        run(mailbox.copy(folder_id(mailbox), ALL, "Nowhere"))
    with pytest.raises(TryCreate):
        run(mailbox.move(folder_id(mailbox), ALL, "Nowhere"))
    with pytest.raises(NoSuchFolder):
        run(mailbox.status("Nowhere"))


def test_internaldate_keeps_its_zone(mailbox: LocalMailbox) -> None:
    moment = datetime.datetime(1996, 7, 17, 2, 44, 25, tzinfo=datetime.timezone(datetime.timedelta(hours=-7)))
    run(mailbox.append("INBOX", [NewMessage(mail(), internaldate=moment)]))
    assert rows(mailbox, "INBOX", "internaldate") == [(b"17-Jul-1996 02:44:25 -0700",)]


def test_attachments_are_stored_once(mailbox: LocalMailbox) -> None:
    contents = [with_attachment(number) for number in range(5)]
    add(mailbox, *contents)
    assert [row[0] for row in rows(mailbox, "INBOX", "content")] == contents
    assert mailbox._reader.execute("SELECT count(*) FROM attachments").get == 1


def test_the_same_content_is_stored_once_and_goes_with_its_last_entry(mailbox: LocalMailbox) -> None:
    add(mailbox, with_attachment(1), with_attachment(1))
    inbox = folder_id(mailbox)
    run(mailbox.copy(inbox, ALL, "Archive"))
    count = "SELECT (SELECT count(*) FROM messages), (SELECT count(*) FROM attachments), (SELECT count(*) FROM grams)"
    assert mailbox._reader.execute(count).fetchone() == (1, 1, 1)
    run(mailbox.store(inbox, ALL, "add", frozenset({"\\Deleted"})))
    run(mailbox.expunge(inbox, None))
    assert mailbox._reader.execute(count).fetchone() == (1, 1, 1)
    run(mailbox.store(folder_id(mailbox, "Archive"), ALL, "add", frozenset({"\\Deleted"})))
    run(mailbox.expunge(folder_id(mailbox, "Archive"), None))
    assert mailbox._reader.execute(count).fetchone() == (0, 0, 0)


def test_store_changes_only_what_changes(mailbox: LocalMailbox) -> None:
    add(mailbox, mail(1), mail(2), mail(3))
    inbox = folder_id(mailbox)
    first = run(mailbox.store(inbox, ((2, 2),), "add", frozenset({"\\Flagged"})))
    assert [(uid, flags) for uid, flags, _ in first.changed] == [(2, FLAGGED)]
    second = run(mailbox.store(inbox, ((1, 3),), "add", frozenset({"\\flagged"})))
    modseqs = {uid: modseq for uid, _, modseq in second.changed}
    assert modseqs[2] == first.modseq < second.modseq == modseqs[1] == modseqs[3]
    again = run(mailbox.store(inbox, ((1, 3),), "add", frozenset({"\\Flagged"})))
    assert again.modseq == second.modseq == mailbox.modseq(inbox)
    removed = run(mailbox.store(inbox, ((1, 1), (3, 9)), "remove", frozenset({"\\Flagged"})))
    assert [uid for uid, _, _ in removed.changed] == [1, 3]
    replaced = run(mailbox.store(inbox, ((1, 3),), "replace", frozenset({"\\Seen", "Work"})))
    assert {flags for _, flags, _ in replaced.changed} == {SEEN | 1 << 5}


def test_unchangedsince_leaves_newer_messages_alone(mailbox: LocalMailbox) -> None:
    add(mailbox, mail(1), mail(2))
    inbox = folder_id(mailbox)
    edge = mailbox.modseq(inbox)
    run(mailbox.store(inbox, ((2, 2),), "add", frozenset({"\\Seen"})))
    stored = run(mailbox.store(inbox, ((1, 2),), "add", frozenset({"\\Flagged"}), unchanged_since=edge))
    assert stored.modified == ((2, 2),)
    assert [(uid, flags) for uid, flags, _ in stored.changed] == [(1, FLAGGED)]


def test_keywords_have_a_limit_and_a_refused_one_changes_nothing(mailbox: LocalMailbox) -> None:
    add(mailbox, mail())
    inbox = folder_id(mailbox)
    run(mailbox.store(inbox, ALL, "add", frozenset(f"k{number:02d}" for number in range(58))))
    with pytest.raises(LimitReached):
        run(mailbox.store(inbox, ALL, "add", frozenset({"one-too-many", "\\Seen"})))
    assert len(mailbox.keywords()) == 58
    assert not rows(mailbox, "INBOX", "flags")[0][0] & SEEN


def test_copy_and_move_report_where_messages_went(mailbox: LocalMailbox) -> None:
    add(mailbox, *(mail(number) for number in range(5)))
    add(mailbox, mail(9), folder="Archive")
    inbox = folder_id(mailbox)
    run(mailbox.store(inbox, ((2, 2),), "add", frozenset({"\\Flagged"})))
    copied = run(mailbox.copy(inbox, ((2, 3), (7, 9)), "Archive"))
    assert (list(copied.source), list(copied.target)) == ([2, 3], [2, 3])
    assert rows(mailbox, "Archive", "uid", "flags") == [(1, 0), (2, FLAGGED), (3, 0)]
    moved = run(mailbox.move(inbox, ((1, 1), (5, 5)), "Archive"))
    assert (list(moved.source), list(moved.target)) == ([1, 5], [4, 5])
    assert [row[0] for row in rows(mailbox, "INBOX", "uid")] == [2, 3, 4]
    again = run(mailbox.move(inbox, ((2, 2),), "INBOX"))
    assert list(again.target) == [6]
    assert [row[0] for row in rows(mailbox, "INBOX", "uid")] == [3, 4, 6]


def test_expunge_removes_only_deleted_ones(mailbox: LocalMailbox) -> None:
    add(mailbox, *(mail(number) for number in range(5)))
    inbox = folder_id(mailbox)
    run(mailbox.store(inbox, ((1, 2), (5, 5)), "add", frozenset({"\\Deleted"})))
    assert run(mailbox.status("INBOX")).deleted == 3
    assert run(mailbox.expunge(inbox, ((2, 4),))).uids == ((2, 2),)
    gone = run(mailbox.expunge(inbox, None))
    assert gone.uids == ((1, 1), (5, 5))
    assert gone.modseq == mailbox.modseq(inbox)
    assert [row[0] for row in rows(mailbox, "INBOX", "uid")] == [3, 4]


def test_changes_are_exact(mailbox: LocalMailbox) -> None:
    add(mailbox, *(mail(number) for number in range(5)))
    before = run(mailbox.select("INBOX", claim_recent=True))
    assert before.recent == ((1, 5),) and before.first_unseen == 1
    inbox, since = before.folder_id, before.status.highestmodseq
    run(mailbox.store(inbox, ((2, 3),), "add", frozenset({"\\Seen", "\\Deleted"})))
    run(mailbox.expunge(inbox, ((3, 3),)))
    add(mailbox, mail(7))
    changes = run(mailbox.changes(inbox, since, before.status.uidnext, claim_recent=True))
    assert [(uid, flags) for uid, flags, _ in changes.changed] == [(2, SEEN | DELETED)]
    assert [(uid, flags) for uid, flags, _ in changes.added] == [(6, 0)]
    assert changes.vanished == ((3, 3),)
    assert changes.recent == ((6, 6),)
    assert changes.modseq == mailbox.modseq(inbox)
    nothing = run(mailbox.changes(inbox, changes.modseq, changes.uidnext, claim_recent=True))
    assert (nothing.added, nothing.changed, nothing.vanished) == ([], [], ())


def test_recent_goes_to_one_session(mailbox: LocalMailbox) -> None:
    add(mailbox, mail(1))
    assert run(mailbox.select("INBOX", claim_recent=False)).recent == ((1, 1),)
    assert run(mailbox.status("INBOX")).recent == 1
    assert run(mailbox.select("INBOX", claim_recent=True)).recent == ((1, 1),)
    assert run(mailbox.select("INBOX", claim_recent=True)).recent == ()


def test_watchers_hear_of_commits(mailbox: LocalMailbox) -> None:
    heard: list[tuple[int, int]] = []
    stop = mailbox.watch(lambda folder, modseq: heard.append((folder, modseq)))
    add(mailbox, mail())
    assert heard == [(folder_id(mailbox), mailbox.modseq(folder_id(mailbox)))]
    stop()
    add(mailbox, mail())
    assert len(heard) == 1


def test_folder_tree(mailbox: LocalMailbox) -> None:
    run(mailbox.create("a/b/c"))
    assert {"a", "a/b", "a/b/c"} <= {folder.name for folder in run(mailbox.folders())}
    with pytest.raises(AlreadyExists):
        run(mailbox.create("a/b"))
    old = run(mailbox.status("a/b"))
    run(mailbox.delete("a/b"))
    names = {folder.name: folder.selectable for folder in run(mailbox.folders())}
    assert names["a/b"] is False
    with pytest.raises(Refused):
        run(mailbox.delete("a/b"))
    run(mailbox.create("a/b"))
    assert run(mailbox.status("a/b")).uidvalidity > old.uidvalidity
    run(mailbox.rename("a", "x/y"))
    names = {folder.name for folder in run(mailbox.folders())}
    assert {"x", "x/y", "x/y/b", "x/y/b/c"} <= names and not {name for name in names if name.startswith("a")}


def test_a_parent_without_children_is_forgotten(mailbox: LocalMailbox) -> None:
    run(mailbox.create("a/b"))
    run(mailbox.delete("a"))
    run(mailbox.delete("a/b"))
    assert "a" not in {folder.name for folder in run(mailbox.folders())}


def test_rename_of_inbox_moves_its_messages(mailbox: LocalMailbox) -> None:
    add(mailbox, mail(1), mail(2))
    run(mailbox.create("INBOX/child"))
    run(mailbox.rename("INBOX", "Old mail"))
    assert run(mailbox.status("INBOX")).messages == 0
    assert run(mailbox.status("Old mail")).messages == 2
    assert "INBOX/child" in {folder.name for folder in run(mailbox.folders())}


@pytest.mark.parametrize("name", ["", "/a", "a//b", "a\tb", "x" * 256, "/".join("a" * 51), "100%", "a*"])
def test_bad_names_are_refused(mailbox: LocalMailbox, name: str) -> None:
    with pytest.raises(Refused):
        run(mailbox.create(name))


def test_inbox_cannot_be_deleted_nor_folders_moved_below_themselves(mailbox: LocalMailbox) -> None:
    with pytest.raises(Refused):
        run(mailbox.delete("inbox"))
    run(mailbox.create("a"))
    with pytest.raises(Refused):
        run(mailbox.rename("a", "a/b"))
    with pytest.raises(AlreadyExists):
        run(mailbox.rename("a", "Sent"))
    with pytest.raises(NoSuchFolder):
        run(mailbox.rename("b", "c"))


def test_a_deleted_folder_is_gone_for_those_who_have_it_open(mailbox: LocalMailbox) -> None:
    run(mailbox.create("a"))
    add(mailbox, mail(), folder="a")
    selected = run(mailbox.select("a", claim_recent=False))
    run(mailbox.delete("a"))
    assert mailbox.modseq(selected.folder_id) == 0
    assert not run(mailbox.changes(selected.folder_id, 1, 1, claim_recent=False)).exists
    with pytest.raises(NoSuchFolder):
        run(mailbox.expunge(selected.folder_id, None))


def test_subscriptions_outlive_folders(mailbox: LocalMailbox) -> None:
    run(mailbox.create("a"))
    run(mailbox.subscribe("a", True))
    run(mailbox.subscribe("never/made", True))
    run(mailbox.delete("a"))
    assert {"a", "never/made"} <= set(run(mailbox.subscriptions()))
    run(mailbox.subscribe("a", False))
    assert "a" not in run(mailbox.subscriptions())


def test_a_delivery_is_stored_once(mailbox: LocalMailbox) -> None:
    first = run(mailbox.append("INBOX", [NewMessage(mail(1), delivery_id=b"1" * 16)]))
    again = run(mailbox.append("INBOX", [NewMessage(mail(1), delivery_id=b"1" * 16), NewMessage(mail(1), delivery_id=b"2" * 16)]))
    assert list(first.uids) == [1] and list(again.uids) == [0, 2]


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


def test_a_failed_append_stores_nothing(mailbox: LocalMailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    from fe_twisted.storage.mailbox import messages

    real = messages.store_message
    monkeypatch.setattr(messages, "store_message", lambda c, content: real(c, content) if b"bad" not in content else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        add(mailbox, mail(1), b"bad", mail(2))
    monkeypatch.undo()
    assert run(mailbox.status("INBOX")).messages == 0
    assert add(mailbox, mail(3)) == [1]


def test_fetch_in_batches_is_complete(mailbox: LocalMailbox) -> None:
    add(mailbox, *(mail(number) for number in range(1203)))
    assert [row[0] for row in rows(mailbox, "INBOX", "uid")] == list(range(1, 1204))
    assert [row[0] for row in rows(mailbox, "INBOX", "uid", "content")] == list(range(1, 1204))
    picked = run(collect(mailbox.fetch(folder_id(mailbox), ((3, 4), (1200, 5000)), ["uid", "size"])))
    assert [row[0] for row in picked] == [3, 4, 1200, 1201, 1202, 1203]


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
