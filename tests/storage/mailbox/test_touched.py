"""What changed since a modseq, whatever the log still knows."""

from __future__ import annotations

import pytest

from fe_twisted.storage.mailbox import touched
from fe_twisted.storage.mailbox.local import LocalMailbox
from tests.storage.mailbox.driving import run
from tests.storage.mailbox.samples import ALL, add, folder_id, mail, rows


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
    assert mailbox._reader.execute("SELECT logged_since FROM folders WHERE id = ?", (inbox,)).get == 8


def test_many_ranges_become_one(mailbox: LocalMailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(touched, "MAX_RANGES", 2)
    add(mailbox, *map(mail, range(9)))
    inbox = folder_id(mailbox)
    run(mailbox.store(inbox, ((1, 1), (4, 5)), "add", frozenset({"two"})))
    assert logged(mailbox) == 3
    run(mailbox.store(inbox, ((2, 2), (4, 4), (6, 8)), "add", frozenset({"three"})))
    assert logged(mailbox) == 4
    expect(mailbox)


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
