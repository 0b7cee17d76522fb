"""The mailbox interface, kept by every implementation.

The file is here; or it is at a primary and asked over a link; or both, so that it is read here and written by the primary.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import get_args

import pytest
from twisted.internet.task import Clock

from fe_twisted.base.errors import AlreadyExists, LimitReached, NoSuchFolder, NoSuchMessage, Refused, TryCreate
from fe_twisted.clients.link.link import Link
from fe_twisted.protocols.imap.search import All, And, Body, Compare, Date, DateOf, Flag, Header, Key, Not, Or, Size, Uids
from fe_twisted.protocols.imap.sort import Algorithm, Criterion, SortKey
from fe_twisted.protocols.mime import parse
from fe_twisted.protocols.mime.section import summary
from fe_twisted.storage.mailbox.api import DELETED, FLAGGED, LARGE, MAX_KEYWORD, SEEN, Column, Mailbox, NewMessage
from fe_twisted.storage.mailbox.direct import DirectMailbox, open_direct
from fe_twisted.storage.mailbox.files import MailboxFiles
from fe_twisted.storage.mailbox.local import LocalMailbox, open_mailbox
from fe_twisted.storage.mailbox.registry import OpenMailboxes
from fe_twisted.storage.mailbox.remote import RemoteMailbox, open_remote
from tests.storage.mailbox.driving import ID, KEY, at_once, collect, nothing_waits, run
from tests.storage.mailbox.linked import Network, hosting
from tests.storage.mailbox.samples import ALL, add, folder_id, mail, rows, with_attachment


@pytest.fixture(params=["local", "remote", "direct"])
def mailbox(request: pytest.FixtureRequest, files: MailboxFiles, clock: Clock) -> Iterator[Mailbox]:
    """An open mailbox; its consistency is checked when the test is over."""
    files.create(ID, KEY)
    mailboxes: OpenMailboxes[LocalMailbox] = OpenMailboxes(
        lambda mailbox_id, key: open_mailbox(files, mailbox_id, key, at_once, clock, nothing_waits), clock
    )
    if request.param == "local":
        local = run(mailboxes.open(ID, KEY))
        yield local
        assert run(local.check_consistency()) == []
    else:
        link = Network(hosting(mailboxes, files), clock).link()
        remote = run(opened(request.param, files, link, clock))
        yield remote
        assert isinstance(remote, DirectMailbox) == (request.param == "direct")
        assert not isinstance(remote, DirectMailbox) or remote.direct, "the file was not read here"
        assert run(remote.check_consistency()) == []
        run(remote.close())
        link.stop()
    run(mailboxes.close_all())
    assert files.check(ID, KEY) == []
    assert not clock.getDelayedCalls(), "a timer was left"


async def opened(kind: str, files: MailboxFiles, link: Link, clock: Clock) -> RemoteMailbox:
    """A mailbox at a primary; read directly, it must never have to be asked for what can be read."""
    if kind == "remote":
        return await open_remote(link, ID, KEY, lambda mailbox_id: None)
    return await open_direct(files, link, ID, KEY, lambda mailbox_id: None, at_once, clock, mode="direct")


def test_a_new_mailbox_has_the_standard_folders(mailbox: Mailbox) -> None:
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
def test_content_comes_out_byte_for_byte(mailbox: Mailbox, content: bytes) -> None:
    add(mailbox, content)
    assert rows(mailbox, "INBOX", "content", "size") == [(content, len(content))]
    header = content[: parse(content).header_size]
    assert rows(mailbox, "INBOX", "header", "summary") == [(header, summary(header))]


def test_append_counts_and_uids_grow(mailbox: Mailbox) -> None:
    assert add(mailbox, mail(1), mail(2)) == [1, 2]
    assert add(mailbox, mail(3), flags=frozenset({"\\Seen", "$Forwarded"})) == [3]
    status = run(mailbox.status("inbox"))
    assert (status.messages, status.unseen, status.uidnext, status.deleted) == (3, 2, 4, 0)
    assert status.size == sum(len(mail(number)) for number in (1, 2, 3))
    assert mailbox.keywords() == ("$Forwarded",)
    assert rows(mailbox, "INBOX", "uid", "flags") == [(1, 0), (2, 0), (3, SEEN | 1 << 5)]


def test_a_missing_target_asks_to_be_created(mailbox: Mailbox) -> None:
    with pytest.raises(TryCreate):
        add(mailbox, mail(), folder="Nowhere")
    add(mailbox, mail())
    with pytest.raises(TryCreate):
        run(mailbox.copy(folder_id(mailbox), ALL, "Nowhere"))
    with pytest.raises(TryCreate):
        run(mailbox.move(folder_id(mailbox), ALL, "Nowhere"))
    with pytest.raises(NoSuchFolder):
        run(mailbox.status("Nowhere"))


def test_internaldate_keeps_its_zone(mailbox: Mailbox) -> None:
    moment = datetime.datetime(1996, 7, 17, 2, 44, 25, tzinfo=datetime.timezone(datetime.timedelta(hours=-7)))
    run(mailbox.append("INBOX", [NewMessage(mail(), internaldate=moment)]))
    assert rows(mailbox, "INBOX", "internaldate") == [(b"17-Jul-1996 02:44:25 -0700",)]


def test_store_changes_only_what_changes(mailbox: Mailbox) -> None:
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


def test_unchangedsince_leaves_newer_messages_alone(mailbox: Mailbox) -> None:
    add(mailbox, mail(1), mail(2))
    inbox = folder_id(mailbox)
    edge = mailbox.modseq(inbox)
    run(mailbox.store(inbox, ((2, 2),), "add", frozenset({"\\Seen"})))
    stored = run(mailbox.store(inbox, ((1, 2),), "add", frozenset({"\\Flagged"}), unchanged_since=edge))
    assert stored.modified == ((2, 2),)
    assert [(uid, flags) for uid, flags, _ in stored.changed] == [(1, FLAGGED)]


def test_keywords_have_a_limit_and_a_refused_one_changes_nothing(mailbox: Mailbox) -> None:
    add(mailbox, mail())
    inbox = folder_id(mailbox)
    run(mailbox.store(inbox, ALL, "add", frozenset(f"k{number:02d}" for number in range(58))))
    with pytest.raises(LimitReached):
        run(mailbox.store(inbox, ALL, "add", frozenset({"one-too-many", "\\Seen"})))
    assert len(mailbox.keywords()) == 58
    assert not rows(mailbox, "INBOX", "flags")[0][0] & SEEN


def test_copy_and_move_report_where_messages_went(mailbox: Mailbox) -> None:
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


def test_expunge_removes_only_deleted_ones(mailbox: Mailbox) -> None:
    add(mailbox, *(mail(number) for number in range(5)))
    inbox = folder_id(mailbox)
    run(mailbox.store(inbox, ((1, 2), (5, 5)), "add", frozenset({"\\Deleted"})))
    assert run(mailbox.status("INBOX")).deleted == 3
    assert run(mailbox.expunge(inbox, ((2, 4),))).uids == ((2, 2),)
    gone = run(mailbox.expunge(inbox, None))
    assert gone.uids == ((1, 1), (5, 5))
    assert gone.modseq == mailbox.modseq(inbox)
    assert [row[0] for row in rows(mailbox, "INBOX", "uid")] == [3, 4]


def test_changes_are_exact(mailbox: Mailbox) -> None:
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


def test_recent_goes_to_one_session(mailbox: Mailbox) -> None:
    add(mailbox, mail(1))
    assert run(mailbox.select("INBOX", claim_recent=False)).recent == ((1, 1),)
    assert run(mailbox.status("INBOX")).recent == 1
    assert run(mailbox.select("INBOX", claim_recent=True)).recent == ((1, 1),)
    assert run(mailbox.select("INBOX", claim_recent=True)).recent == ()


def test_watchers_hear_of_commits(mailbox: Mailbox) -> None:
    heard: list[tuple[int, int]] = []
    stop = mailbox.watch(lambda folder, modseq: heard.append((folder, modseq)))
    add(mailbox, mail())
    assert heard == [(folder_id(mailbox), mailbox.modseq(folder_id(mailbox)))]
    stop()
    add(mailbox, mail())
    assert len(heard) == 1


def test_watchers_hear_of_names_subscriptions_and_annotations(mailbox: Mailbox) -> None:
    run(mailbox.create("a"))
    heard: list[tuple[int, int]] = []
    mailbox.watch(lambda folder, modseq: heard.append((folder, modseq)))
    run(mailbox.rename("a", "b"))
    assert (0, 0) in heard
    for change in (
        lambda: mailbox.subscribe("b", True),
        lambda: mailbox.subscribe("b", False),
        lambda: mailbox.set_metadata("", [("/private/comment", b"x")]),
        lambda: mailbox.delete("b"),
    ):
        heard.clear()
        run(change())
        assert (0, 0) in heard


def test_long_keywords(mailbox: Mailbox) -> None:
    add(mailbox, mail(1))
    inbox = folder_id(mailbox)
    longest = "k" * MAX_KEYWORD
    run(mailbox.store(inbox, ((1, 1),), "add", frozenset({longest})))
    with pytest.raises(LimitReached):
        run(mailbox.store(inbox, ((1, 1),), "add", frozenset({longest + "k"})))
    with pytest.raises(LimitReached):
        run(mailbox.append("INBOX", [NewMessage(mail(2), frozenset({"x" * 60_000}))]))
    run(mailbox.store(inbox, ((1, 1),), "add", frozenset({"short"})))
    assert mailbox.keywords() == (longest, "short")


def test_folder_tree(mailbox: Mailbox) -> None:
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


def test_a_parent_without_children_is_forgotten(mailbox: Mailbox) -> None:
    run(mailbox.create("a/b"))
    run(mailbox.delete("a"))
    run(mailbox.delete("a/b"))
    assert "a" not in {folder.name for folder in run(mailbox.folders())}


def test_rename_of_inbox_moves_its_messages(mailbox: Mailbox) -> None:
    add(mailbox, mail(1), mail(2))
    run(mailbox.create("INBOX/child"))
    run(mailbox.rename("INBOX", "Old mail"))
    assert run(mailbox.status("INBOX")).messages == 0
    assert run(mailbox.status("Old mail")).messages == 2
    assert "INBOX/child" in {folder.name for folder in run(mailbox.folders())}


@pytest.mark.parametrize("name", ["", "/a", "a//b", "a\tb", "x" * 256, "/".join("a" * 51), "100%", "a*"])
def test_bad_names_are_refused(mailbox: Mailbox, name: str) -> None:
    with pytest.raises(Refused):
        run(mailbox.create(name))


def test_inbox_cannot_be_deleted_nor_folders_moved_below_themselves(mailbox: Mailbox) -> None:
    with pytest.raises(Refused):
        run(mailbox.delete("inbox"))
    run(mailbox.create("a"))
    with pytest.raises(Refused):
        run(mailbox.rename("a", "a/b"))
    with pytest.raises(AlreadyExists):
        run(mailbox.rename("a", "Sent"))
    with pytest.raises(NoSuchFolder):
        run(mailbox.rename("b", "c"))


def test_a_deleted_folder_is_gone_for_those_who_have_it_open(mailbox: Mailbox) -> None:
    run(mailbox.create("a"))
    add(mailbox, mail(), folder="a")
    selected = run(mailbox.select("a", claim_recent=False))
    run(mailbox.delete("a"))
    assert mailbox.modseq(selected.folder_id) == 0
    assert not run(mailbox.changes(selected.folder_id, 1, 1, claim_recent=False)).exists
    with pytest.raises(NoSuchFolder):
        run(mailbox.expunge(selected.folder_id, None))


def test_subscriptions_outlive_folders(mailbox: Mailbox) -> None:
    run(mailbox.create("a"))
    run(mailbox.subscribe("a", True))
    run(mailbox.subscribe("never/made", True))
    run(mailbox.delete("a"))
    assert {"a", "never/made"} <= set(run(mailbox.subscriptions()))
    run(mailbox.subscribe("a", False))
    assert "a" not in run(mailbox.subscriptions())


def test_a_delivery_is_stored_once(mailbox: Mailbox) -> None:
    first = run(mailbox.append("INBOX", [NewMessage(mail(1), delivery_id=b"1" * 16)]))
    again = run(mailbox.append("INBOX", [NewMessage(mail(1), delivery_id=b"1" * 16), NewMessage(mail(1), delivery_id=b"2" * 16)]))
    assert list(first.uids) == [1] and list(again.uids) == [0, 2]


def test_fetch_in_batches_is_complete(mailbox: Mailbox) -> None:
    add(mailbox, *(mail(number) for number in range(1203)))
    assert [row[0] for row in rows(mailbox, "INBOX", "uid")] == list(range(1, 1204))
    assert [row[0] for row in rows(mailbox, "INBOX", "uid", "content")] == list(range(1, 1204))
    picked = run(collect(mailbox.fetch(folder_id(mailbox), ((3, 4), (1200, 5000)), ["uid", "size"])))
    assert [row[0] for row in picked] == [3, 4, 1200, 1201, 1202, 1203]


def test_long_headers_among_others(mailbox: Mailbox) -> None:
    """What is read at once ends before each of them."""
    long = {1, 2, 127, 300, *range(520, 560, 3)}
    contents = [b"Subject: %b\r\n" % (b"x" * 20_000 if uid in long else b"") + mail(uid) for uid in range(1, 561)]
    headers = [content[: content.index(b"\r\n\r\n") + 4] for content in contents]
    add(mailbox, *contents)
    columns: tuple[tuple[Column, ...], ...] = (("uid", "summary"), ("header", "uid"), ("flags", "summary", "header"), ("summary", "size"))
    ranges = (((1, 560),), ((2, 2), (4, 130), (299, 300), (302, 600)), ((301, 301),), ((3, 126), (520, 520)))
    for wanted in columns:
        for uids in ranges:
            values = {"flags": [0] * 560, "size": list(map(len, contents)), "uid": list(range(1, 561)), "header": headers}
            values["summary"] = list(map(summary, headers))
            expected = [
                tuple([values[column][uid - 1] for column in wanted]) for low, high in uids for uid in range(low, min(high, 560) + 1)
            ]
            assert run(collect(mailbox.fetch(folder_id(mailbox), uids, wanted))) == expected


def test_one_message_is_read_like_many(mailbox: Mailbox) -> None:
    add(mailbox, mail(1, b"alpha\r\n"), with_attachment(2), mail(3, b"x" * (LARGE + 1)))
    every: tuple[Column, ...] = get_args(Column)
    for columns in (("uid",), ("content",), ("flags", "savedate"), ("header", "content", "parts", "uid"), every):
        for uid in range(5):
            found = mailbox.fetch_one(folder_id(mailbox), uid, columns)
            if found is not None:  # where there is something to wait for
                assert found == [
                    row for rows_ in [run(collect(mailbox.fetch(folder_id(mailbox), ((uid, uid),), columns)))] for row in rows_
                ]


def test_questions_of_every_kind(mailbox: Mailbox) -> None:
    add(mailbox, mail(1, b"alpha\r\n"), mail(2, b"beta\r\n"), mail(3, b"alpha beta\r\n"))
    inbox = folder_id(mailbox)
    day = datetime.date(2026, 1, 1)
    program = And(
        (
            Or(Body("alpha"), Not(Uids(((1, 2),)))),
            Date(DateOf.INTERNAL, Compare.SINCE, day),
            Header("subject", "number"),
            Size(Compare.LARGER, 1),
            Not(Flag("\\Deleted")),
        )
    )
    assert run(mailbox.search(inbox, program)) == [1, 3]
    deep: Key = All()
    for _ in range(100):
        deep = Not(Not(deep))
    assert run(mailbox.search(inbox, deep)) == [1, 2, 3]
    order = [Criterion(SortKey.SUBJECT, reverse=True), Criterion(SortKey.ARRIVAL)]
    assert run(mailbox.sort(inbox, All(), order)) == [3, 2, 1]
    assert sorted(run(mailbox.thread(inbox, All(), Algorithm.ORDEREDSUBJECT)).uids) == [1, 2, 3]
    assert run(mailbox.quota()).messages == 3
    run(mailbox.store(inbox, ((2, 2),), "add", frozenset({"\\Deleted"})))
    assert run(mailbox.deleted_octets("INBOX")) == len(mail(2, b"beta\r\n"))
    before = run(mailbox.changes(inbox, 0, 1, claim_recent=False)).modseq
    run(mailbox.expunge(inbox, None))
    assert run(mailbox.vanished(inbox, before)) == ((2, 2),)


def test_annotations(mailbox: Mailbox) -> None:
    values = [("/private/comment", b"a note"), ("/private/long", bytes(range(256)) * 20), ("/private/none", None)]
    run(mailbox.set_metadata("INBOX", values))
    found = dict(run(mailbox.get_metadata("INBOX", ["/private"], -1)))
    assert found == {"/private/comment": b"a note", "/private/long": bytes(range(256)) * 20}
    assert dict(run(mailbox.get_metadata("INBOX", ["/private/none"], 0))) == {"/private/none": None}


def test_a_message_takes_the_place_of_another(mailbox: Mailbox) -> None:
    add(mailbox, mail(1), mail(2))
    replaced = run(mailbox.replace(folder_id(mailbox), 1, "INBOX", NewMessage(mail(3), frozenset({"\\Draft"}))))
    assert list(replaced.uids) == [3]
    assert rows(mailbox, "INBOX", "uid", "content") == [(2, mail(2)), (3, mail(3))]


def test_large_messages_are_read_in_stretches(mailbox: Mailbox) -> None:
    """Small and large ones in one answer; a large one is a number, by which its octets can be had."""
    large = b"Subject: large\r\n\r\n" + b"".join(b"line %d\r\n" % number for number in range(LARGE // 10))
    assert len(large) > LARGE
    add(mailbox, mail(1), large, mail(2), large + b"more\r\n")
    (first,), (second,), (third,), (fourth,) = rows(mailbox, "INBOX", "content")
    assert (first, third) == (mail(1), mail(2))
    assert [number & 0xFFFFFFFF for number in (second, fourth)] == [len(large), len(large) + 6]
    assert run(mailbox.octets(second, 0, len(large))) == large
    assert run(mailbox.octets(second, 1000, 300_000)) == large[1000:300_000]
    assert run(mailbox.octets(fourth, len(large) - 1, 1 << 31)) == b"\nmore\r\n"
    with pytest.raises(NoSuchMessage):
        run(mailbox.octets(99 << 32 | 5, 0, 5))
