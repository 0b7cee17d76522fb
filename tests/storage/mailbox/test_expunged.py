"""What was expunged is known for ever, in bounded room: against a plain model, and with files of before."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from fe_twisted.protocols.imap.ranges import iterate
from fe_twisted.storage.mailbox import expunged, view
from fe_twisted.storage.mailbox.api import NewMessage
from fe_twisted.storage.mailbox.check import problems
from fe_twisted.storage.mailbox.files import PAGE_SIZE, MailboxFiles
from fe_twisted.storage.mailbox.local import LocalMailbox, open_mailbox
from fe_twisted.storage.mailbox.rows import runs
from fe_twisted.storage.mailbox.schema import MIGRATIONS
from fe_twisted.storage.sqlite.connect import connect, migrate
from tests.storage.mailbox.driving import ID, KEY, at_once, nothing_waits, run
from tests.storage.mailbox.samples import add, folder_id, mail, rows

DELETED = frozenset({"\\Deleted"})


def counts(mailbox: LocalMailbox) -> tuple[int, int]:
    """Rows that are kept as they were, and gaps."""
    return tuple(int(mailbox._reader.execute(f"SELECT count(*) FROM {table}").get) for table in ("expunged", "gaps"))  # type: ignore[return-value]


def present(mailbox: LocalMailbox) -> set[int]:
    return {uid for (uid,) in rows(mailbox, "INBOX", "uid")}


uid_sets = st.sets(st.integers(1, 30), min_size=1, max_size=10).map(lambda uids: runs(sorted(uids)))
steps = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 5)),
    st.tuples(st.just("expunge"), uid_sets),
    st.tuples(st.just("expunge"), uid_sets),
    st.tuples(st.just("move"), uid_sets, st.sampled_from(["INBOX", "Archive"])),
    st.tuples(st.just("elsewhere"), st.integers(1, 3)),
    st.tuples(st.just("reopen")),
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(steps, min_size=4, max_size=25),
    st.sampled_from([0, 1, 3, 1000]),
    st.sampled_from([0, 1, 4]),
    st.sampled_from([1, 2, 1000]),
    st.sampled_from([0, 2, 1000]),
)
def test_what_vanished_is_never_too_little_and_never_there(history: list[Any], kept: int, look: int, step: int, few: int) -> None:
    """For every modseq that a client may know, after any history, however little of it is kept as it was."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        for name, value in {"KEPT": kept, "LOOK": look, "STEP": step}.items():
            patch.setattr(expunged, name, value)
        for name in ("FEW", "FEW_LOGGED"):
            patch.setattr(view, name, few)
        files = MailboxFiles(Path(folder))
        files.create(ID, KEY)
        mailbox = run(open_mailbox(files, ID, KEY, at_once, Clock(), nothing_waits))
        inbox = folder_id(mailbox)
        known: dict[int, set[int]] = {}
        for taken in [("append", 12), *history]:
            match taken:
                case "append", count:
                    add(mailbox, *map(mail, range(count)), flags=DELETED)
                case "expunge", uids:
                    run(mailbox.expunge(inbox, uids))
                case "move", uids, target:
                    run(mailbox.move(inbox, uids, target))
                case "elsewhere", count:
                    add(mailbox, *map(mail, range(count)), folder="Archive", flags=DELETED)
                    run(mailbox.expunge(folder_id(mailbox, "Archive"), None))
                case _:
                    run(mailbox.close())
                    mailbox = run(open_mailbox(files, ID, KEY, at_once, Clock(), nothing_waits))
            known[mailbox.modseq(inbox)] = present(mailbox)
            recent, gaps = counts(mailbox)
            assert recent < kept + max(look, 1) + 1
            messages = sum(int(run(mailbox.status(name)).messages) for name in ("INBOX", "Archive"))
            assert gaps <= messages + recent + 2
        now, uidnext = known[mailbox.modseq(inbox)], run(mailbox.status("INBOX")).uidnext
        for since in range(mailbox.modseq(inbox) + 1):
            found = run(mailbox.vanished(inbox, since))
            assert found == run(mailbox.changes(inbox, since, uidnext, claim_recent=False)).vanished
            told = set(iterate(found))
            assert told <= set(range(1, uidnext)) - now
            if since in known:
                assert known[since] - now <= told
        assert set(iterate(run(mailbox.vanished(inbox, 0)))) == set(range(1, uidnext)) - now
        assert set(iterate(run(mailbox.select("INBOX", claim_recent=False)).uids)) == now
        assert run(mailbox.check_consistency()) == []
        run(mailbox.close())


def test_what_was_expunged_lately_is_told_exactly(mailbox: LocalMailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is older in few words, which may name more that is gone."""
    monkeypatch.setattr(expunged, "KEPT", 2)
    monkeypatch.setattr(expunged, "LOOK", 1)
    add(mailbox, *map(mail, range(9)), flags=DELETED)
    inbox = folder_id(mailbox)
    modseqs = []
    for uid in (3, 1, 8, 2, 5, 6):
        modseqs.append(mailbox.modseq(inbox))
        run(mailbox.expunge(inbox, ((uid, uid),)))
    assert counts(mailbox) == (2, 2)
    told = [run(mailbox.vanished(inbox, since)) for since in modseqs]
    assert told[-2:] == [((5, 6),), ((6, 6),)]
    assert told[:-2] == [((1, 3), (5, 6), (8, 8)), ((1, 3), (5, 6), (8, 8)), ((1, 3), (5, 6), (8, 8)), ((1, 3), (5, 6))]
    assert run(mailbox.check_consistency()) == []


def test_who_reads_and_deletes_fills_nothing(mailbox: LocalMailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages come and go for years."""
    monkeypatch.setattr(expunged, "KEPT", 4)
    monkeypatch.setattr(expunged, "LOOK", 2)
    kept = add(mailbox, mail(0))
    inbox = folder_id(mailbox)
    for turn in range(40):
        (uid,) = add(mailbox, mail(turn), flags=DELETED)
        if turn % 2:
            run(mailbox.expunge(inbox, None))
        else:
            run(mailbox.move(inbox, ((uid, uid),), "Trash"))
        assert sum(counts(mailbox)) <= 6 + 1
    assert present(mailbox) == set(kept)
    assert run(mailbox.vanished(inbox, 5)) == ((2, 41),)


def version_three(files: MailboxFiles, deleted: int) -> None:
    """A file from before there were gaps: INBOX had twice as many messages, and each second one was expunged by itself, the last first."""
    with contextlib.closing(connect(files.path(ID), key=KEY, create=True, page_size=PAGE_SIZE)) as connection:
        migrate(connection, MIGRATIONS[:3])
        with connection:
            connection.executemany("INSERT INTO meta(name, value) VALUES(?, ?)", [("mailbox_id", ID), ("last_uidvalidity", 7)])
            connection.execute(
                "INSERT INTO folders(name, object_id, selectable, uidvalidity, uidnext, modseq, logged_since)"
                " VALUES('INBOX', ?, 1, 7, ?, ?, ?)",
                ("f" * 24, deleted + 1, deleted + 1, deleted + 1),
            )
            connection.executemany(
                "INSERT INTO expunged(folder_id, modseq, first, last) VALUES(1, ?, ?, ?)",
                [(2 + number, deleted - number, deleted - number) for number in range(deleted)],
            )


def test_an_overlong_log_of_before_is_brought_in_bounds_on_opening(
    files: MailboxFiles, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In short transactions, each of which leaves the same to whoever asks."""
    version_three(files, 6_000)
    with contextlib.closing(files.open(ID, KEY)) as connection:
        told = set(iterate(view.vanished_since(connection, 1, 3_001)))
        assert told == set(range(1, 3_001))
        before = {since: view.vanished_since(connection, 1, since) for since in (0, 1, 2, 3_001, 5_999, 6_001)}
        assert problems(connection) == []
        monkeypatch.setattr(expunged, "KEPT", 3_000)
        monkeypatch.setattr(expunged, "STEP", 700)
        moved = 0
        while expunged.overlong(connection):
            with connection:
                assert expunged.settle_some(connection)
            moved += 1
            assert connection.execute("SELECT count(*) FROM expunged").get == 6_000 - 700 * moved
            for since, ranges in before.items():
                assert view.vanished_since(connection, 1, since) == (ranges if since >= 3_001 or since < 2 else ((1, 6_000),))
            assert problems(connection) == []
            if moved == 2:
                break
    mailbox = run(open_mailbox(files, ID, KEY, at_once, clock, nothing_waits))
    assert counts(mailbox) == (3_000, 1)
    for since, ranges in before.items():
        assert run(mailbox.vanished(1, since)) == (ranges if since >= 3_001 or since < 2 else ((1, 6_000),))
    add(mailbox, mail(1), mail(2))
    assert run(mailbox.select("INBOX", claim_recent=False)).uids == ((6_001, 6_002),)
    assert run(mailbox.check_consistency()) == []
    run(mailbox.close())
    assert files.check(ID, KEY) == []


def test_the_next_expunge_goes_on_with_what_was_not_done(files: MailboxFiles, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """For want of room, for example."""
    version_three(files, 6_000)

    def full(connection: apsw.Connection) -> bool:
        raise apsw.FullError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(expunged, "settle_some", full)
        mailbox = run(open_mailbox(files, ID, KEY, at_once, clock, nothing_waits))
    assert counts(mailbox) == (6_000, 0)
    add(mailbox, mail(1), flags=DELETED)
    run(mailbox.expunge(1, None))
    assert counts(mailbox) == (4_096, 1)
    run(mailbox.close())


def test_a_log_that_cannot_be_read_keeps_no_mailbox_shut(files: MailboxFiles, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it make what was moved and expunged look as if it were not."""
    files.create(ID, KEY)

    def damaged(connection: apsw.Connection) -> bool:
        raise apsw.CorruptError("database disk image is malformed")

    monkeypatch.setattr(expunged, "overlong", damaged)
    mailbox = run(open_mailbox(files, ID, KEY, at_once, clock, nothing_waits))
    add(mailbox, *map(mail, range(3)), flags=DELETED)
    inbox = folder_id(mailbox)
    assert run(mailbox.move(inbox, ((2, 2),), "Archive")).source == [2]
    assert run(mailbox.expunge(inbox, None)).uids == ((1, 1), (3, 3))
    monkeypatch.undo()
    monkeypatch.setattr(expunged, "KEPT", 0)
    monkeypatch.setattr(expunged, "LOOK", 1)
    add(mailbox, mail(4), flags=DELETED)
    run(mailbox.expunge(inbox, None))
    assert counts(mailbox) == (0, 1)
    run(mailbox.close())


def test_long_logs_are_read_in_a_thread(mailbox: LocalMailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so are the messages where there are many gaps between them; what is short is read at once."""
    add(mailbox, *map(mail, range(40)), flags=DELETED)
    inbox = folder_id(mailbox)
    run(mailbox.expunge(inbox, tuple((uid, uid) for uid in range(2, 41, 2))))
    wanted = tuple((uid, uid) for uid in range(2, 41, 2))
    assert run(mailbox.vanished(inbox, 1)) == wanted
    there = run(mailbox.select("INBOX", claim_recent=False))
    assert mailbox._scanner is None
    monkeypatch.setattr(view, "FEW", 10)
    monkeypatch.setattr(view, "FEW_LOGGED", 10)
    threads: list[Any] = []
    monkeypatch.setattr(mailbox, "_run_in_thread", lambda work: threads.append(work) or at_once(work))
    assert run(mailbox.vanished(inbox, 1)) == wanted
    assert len(threads) == 1
    assert run(mailbox.select("INBOX", claim_recent=False)) == there
    assert len(threads) == 2
    assert run(mailbox.select("INBOX", claim_recent=True)).recent == there.recent == there.uids
    assert run(mailbox.select("INBOX", claim_recent=True)).recent == ()


def test_gaps_go_with_their_folder(mailbox: LocalMailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expunged, "KEPT", 0)
    monkeypatch.setattr(expunged, "LOOK", 1)
    run(mailbox.create("a"))
    add(mailbox, *map(mail, range(3)), folder="a", flags=DELETED)
    run(mailbox.expunge(folder_id(mailbox, "a"), None))
    assert counts(mailbox) == (0, 1)
    run(mailbox.delete("a"))
    assert counts(mailbox) == (0, 0)


def test_the_check_notices_gaps_that_touch(mailbox: LocalMailbox) -> None:
    add(mailbox, *map(mail, range(4)), flags=DELETED)
    inbox = folder_id(mailbox)
    run(mailbox.expunge(inbox, ((1, 4),)))
    connection = mailbox._writer.connection
    connection.execute("DELETE FROM expunged")
    connection.executemany("INSERT INTO gaps(folder_id, first, last, modseq) VALUES(?, ?, ?, 3)", [(inbox, 1, 2), (inbox, 3, 4)])
    assert run(mailbox.check_consistency()) == [f"the gap that ends before UID 3 of folder {inbox} touches the next one"]
    connection.execute("DELETE FROM gaps WHERE first = 3")
    assert any("nobody knows" in problem for problem in run(mailbox.check_consistency()))
    connection.execute("UPDATE gaps SET last = 4")


def test_content_is_no_matter(mailbox: LocalMailbox) -> None:
    """A message that is stored again gets a new UID, and the old one stays gone."""
    inbox = folder_id(mailbox)
    for _ in range(3):
        run(mailbox.append("INBOX", [NewMessage(mail(1), DELETED)]))
        run(mailbox.expunge(inbox, None))
    assert run(mailbox.vanished(inbox, 0)) == ((1, 3),)
