"""What changed since a modseq, whatever the log still knows."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from fe_twisted.storage.mailbox import touched, view
from fe_twisted.storage.mailbox.api import Changes, NewMessage
from fe_twisted.storage.mailbox.files import MailboxFiles
from fe_twisted.storage.mailbox.local import LocalMailbox, open_mailbox
from fe_twisted.storage.mailbox.rows import folder_of, runs
from fe_twisted.storage.mailbox.schema import UID_MASK
from fe_twisted.storage.mailbox.touched import coarse
from tests.storage.mailbox.driving import ID, KEY, at_once, nothing_waits, run
from tests.storage.mailbox.samples import ALL, add, folder_id, mail, rows

#: What bounds the log and the questions, and the least that makes sense.
LIMITS = {"MAX_RANGES": 1, "MAX_SPANS": 1, "KEPT": 1, "LOOK": 1, "MAX_ROWS": 1, "SCATTERED": 0, "FEW": 0, "FEW_LOGGED": 0}


def logged(mailbox: LocalMailbox) -> int:
    return int(mailbox._reader.execute("SELECT count(*) FROM touched").get)


def expect(mailbox: LocalMailbox) -> None:
    """Changes since every modseq there was are those of the messages."""
    inbox = folder_id(mailbox)
    modseqs = rows(mailbox, "INBOX", "uid", "modseq")
    for since in range(mailbox.modseq(inbox) + 1):
        changed = run(mailbox.changes(inbox, since, 1_000, claim_recent=False)).changed
        assert [(uid, modseq) for uid, _, modseq in changed] == [row for row in modseqs if row[1] > since]


def test_only_so_much_is_kept(mailbox: LocalMailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(touched, "KEPT", 4)
    monkeypatch.setattr(touched, "LOOK", 3)
    add(mailbox, *map(mail, range(6)))
    inbox = folder_id(mailbox)
    for turn in range(12):
        run(mailbox.store(inbox, ((1 + turn % 5, 1 + turn % 5),), "add" if turn % 2 else "replace", frozenset({f"k{turn}"})))
        expect(mailbox)
        assert logged(mailbox) <= touched.KEPT + touched.LOOK
    assert mailbox._reader.execute("SELECT logged_since FROM folders WHERE id = ?", (inbox,)).get == 9


def test_nothing_is_kept_longer_because_messages_are_removed(mailbox: LocalMailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages come and go by turns, so that a modseq in two is that of an EXPUNGE or of a MOVE."""
    monkeypatch.setattr(touched, "KEPT", 4)
    monkeypatch.setattr(touched, "LOOK", 2)
    inbox = folder_id(mailbox)
    for turn in range(12):
        (uid,) = add(mailbox, mail(turn), flags=frozenset({"\\Deleted"}))
        if turn % 2:
            run(mailbox.expunge(inbox, None))
        else:
            run(mailbox.move(inbox, ((uid, uid),), "Archive"))
        assert mailbox._reader.execute("SELECT count(*) FROM touched WHERE folder_id = ?", (inbox,)).get <= 6
    expect(mailbox)


def test_scattered_changes_fill_nothing(mailbox: LocalMailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the file nor, when somebody asks for all of them, the memory."""
    monkeypatch.setattr(touched, "MAX_ROWS", 20)
    monkeypatch.setattr(touched, "SCATTERED", 3)
    add(mailbox, *map(mail, range(12)))
    inbox = folder_id(mailbox)
    for turn in range(12):
        run(mailbox.store(inbox, tuple((uid, uid) for uid in range(1 + turn % 2, 12, 2)), "add", frozenset({f"k{turn}"})))
        assert logged(mailbox) <= 20
        expect(mailbox)


def test_a_long_log_is_not_read_as_a_whole(mailbox: LocalMailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    add(mailbox, *map(mail, range(12)))
    inbox = folder_id(mailbox)
    for uid in range(1, 12, 2):
        run(mailbox.store(inbox, ((uid, uid),), "add", frozenset({"k"})))
    monkeypatch.setattr(touched, "MAX_ROWS", 4)
    monkeypatch.setattr(view, "FEW_LOGGED", 2)
    folder = folder_of(mailbox._reader, inbox)
    assert folder is not None
    assert touched.touched_since(mailbox._reader, folder, folder.modseq - 4) == ((5, 5), (7, 7), (9, 9), (11, 11))
    assert touched.touched_since(mailbox._reader, folder, folder.modseq - 5) == ((1, UID_MASK),)
    expect(mailbox)


def test_many_ranges_become_few(mailbox: LocalMailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(touched, "MAX_RANGES", 2)
    add(mailbox, *map(mail, range(9)))
    inbox = folder_id(mailbox)
    run(mailbox.store(inbox, ((1, 1), (4, 5)), "add", frozenset({"two"})))
    assert logged(mailbox) == 3
    run(mailbox.store(inbox, ((2, 2), (4, 4), (7, 8)), "add", frozenset({"three"})))
    assert mailbox._reader.execute("SELECT first, last FROM touched WHERE modseq = 4").fetchall() == [(2, 4), (7, 8)]
    expect(mailbox)


uid_sets = st.sets(st.integers(1, 12), min_size=1, max_size=6).map(lambda uids: runs(sorted(uids)))
steps = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 4)),
    st.tuples(st.just("store"), uid_sets, st.sampled_from(["add", "remove", "replace"]), st.sampled_from(["\\Deleted", "k1", "k2"])),
    st.tuples(st.sampled_from(["copy", "move"]), uid_sets, st.sampled_from(["INBOX", "Archive"])),
    st.tuples(st.just("expunge"), uid_sets),
)


async def take(mailbox: LocalMailbox, inbox: int, step: Any) -> None:
    match step:
        case "append", count:
            await mailbox.append("INBOX", [NewMessage(mail(number)) for number in range(count)])
        case "store", uids, action, flag:
            await mailbox.store(inbox, uids, action, frozenset({flag}))
        case "copy", uids, target:
            await mailbox.copy(inbox, uids, target)
        case "move", uids, target:
            await mailbox.move(inbox, uids, target)
        case "expunge", uids:
            await mailbox.expunge(inbox, uids)


@settings(max_examples=30, deadline=None)
@given(st.lists(steps, min_size=3, max_size=15), st.fixed_dictionaries({name: st.sampled_from([0, 1, 2, 5, 1000]) for name in LIMITS}))
def test_whatever_happened_the_changes_are_those_that_there_were(history: list[Any], limits: dict[str, int]) -> None:
    """Since every moment of a history, however little of it is kept."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        for name, limit in limits.items():
            patch.setattr(view if name.startswith("FEW") else touched, name, max(limit, LIMITS[name]))
        files = MailboxFiles(Path(folder))
        files.create(ID, KEY)
        mailbox = run(open_mailbox(files, ID, KEY, at_once, Clock(), nothing_waits))
        inbox = folder_id(mailbox)
        moments: dict[int, tuple[int, dict[int, Any]]] = {}
        for step in [("append", 3), *history]:
            run(take(mailbox, inbox, step))
            now = {uid: (uid, flags, modseq) for uid, flags, modseq in rows(mailbox, "INBOX", "uid", "flags", "modseq")}
            moments[mailbox.modseq(inbox)] = run(mailbox.status("INBOX")).uidnext, now
        for modseq, (uidnext, then) in moments.items():
            found = run(mailbox.changes(inbox, modseq, uidnext, claim_recent=False))
            assert found.changed == [row for uid, row in now.items() if row[2] > modseq and uid < uidnext]
            assert found.added == [row for uid, row in now.items() if uid >= uidnext]
            vanished = {uid for first, last in found.vanished for uid in range(first, last + 1)}
            assert then.keys() - now.keys() <= vanished <= set(range(1, found.uidnext)) - now.keys()
        assert run(mailbox.check_consistency()) == []
        run(mailbox.close())


def test_scattered_messages_stay_scattered(mailbox: LocalMailbox) -> None:
    add(mailbox, *map(mail, range(80)))
    run(mailbox.store(folder_id(mailbox), tuple((uid, uid) for uid in range(1, 80, 4)), "add", frozenset({"\\Seen"})))
    assert mailbox._reader.execute("SELECT max(last - first), count(*) FROM touched WHERE modseq = 3").fetchall() == [(0, 20)]


def test_the_widest_gaps_stay() -> None:
    ranges = ((1, 1), (3, 4), (9, 9), (11, 12), (30, 30))
    assert coarse(ranges, 5) == ranges
    assert coarse(ranges, 3) == ((1, 4), (9, 12), (30, 30))
    assert coarse(ranges, 1) == ((1, 30),)


@pytest.mark.parametrize(("few", "few_logged", "spans"), [(0, 100, 512), (100, 0, 512), (3, 3, 2), (100, 100, 2)])
def test_what_takes_long_is_found_in_a_thread(
    mailbox: LocalMailbox, monkeypatch: pytest.MonkeyPatch, few: int, few_logged: int, spans: int
) -> None:
    monkeypatch.setattr(view, "FEW", few)
    monkeypatch.setattr(view, "FEW_LOGGED", few_logged)
    monkeypatch.setattr(touched, "MAX_SPANS", spans)
    add(mailbox, *map(mail, range(9)))
    inbox = folder_id(mailbox)
    for uid in (8, 2, 5):
        run(mailbox.store(inbox, ((uid, uid),), "add", frozenset({f"k{uid}", "\\Deleted"})))
    expect(mailbox)
    assert (mailbox._scanner is not None) == (few < 100 or few_logged < 100)
    before = mailbox.modseq(inbox)
    run(mailbox.expunge(inbox, None))
    assert run(mailbox.changes(inbox, before, 10, claim_recent=False)).vanished == ((2, 2), (5, 5), (8, 8))


def test_what_is_recent_is_given_away_once_whatever_takes_long(mailbox: LocalMailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sessions ask, and both are answered by the thread before either has what is recent."""
    monkeypatch.setattr(view, "FEW", 0)
    inbox = folder_id(mailbox)
    add(mailbox, mail(1))
    waiting: list[tuple[Any, Deferred[Any]]] = []

    def later(work: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        waiting.append((work(), done))
        return done

    monkeypatch.setattr(mailbox, "_run_in_thread", later)
    found: list[Changes] = []
    for _ in range(2):
        Deferred.fromCoroutine(mailbox.changes(inbox, 1, 1, claim_recent=True)).addCallback(found.append)
    while waiting:
        answer, done = waiting.pop()
        done.callback(answer)
    assert [changes.recent for changes in found] == [((1, 1),), ()]


def test_copies_and_moves_are_logged_in_their_folder(mailbox: LocalMailbox) -> None:
    add(mailbox, *map(mail, range(4)))
    inbox, archive = folder_id(mailbox), folder_id(mailbox, "Archive")
    run(mailbox.copy(inbox, ((2, 3),), "Archive"))
    run(mailbox.move(inbox, ((1, 1),), "Archive"))
    run(mailbox.move(inbox, ((2, 2),), "INBOX"))
    expect(mailbox)
    assert [uid for uid, _, _ in run(mailbox.changes(archive, 2, 9, claim_recent=False)).changed] == [3]


def test_the_check_notices_a_gap(mailbox: LocalMailbox) -> None:
    add(mailbox, mail(1))
    run(mailbox.store(folder_id(mailbox), ALL, "add", frozenset({"\\Seen"})))
    connection = mailbox._writer.connection
    gone = connection.execute("DELETE FROM touched WHERE modseq = 3 RETURNING folder_id, modseq, first, last").fetchall()
    found = run(mailbox.check_consistency())
    connection.execute("INSERT INTO touched(folder_id, modseq, first, last) VALUES(?, ?, ?, ?)", gone[0])
    assert found == [f"entry {(folder_id(mailbox) << 32) + 1} has a modseq that the log of changes does not know"]
