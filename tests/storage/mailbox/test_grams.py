"""The trigram index follows the messages, and nobody can tell by the answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock

from fe_twisted.protocols.imap.search import Body, Text
from fe_twisted.storage.mailbox import grams
from fe_twisted.storage.mailbox.files import MailboxFiles
from fe_twisted.storage.mailbox.local import INDEX_PAUSE, LocalMailbox, open_mailbox
from tests.storage.mailbox.driving import ID, KEY, at_once, nothing_waits, run
from tests.storage.mailbox.samples import ALL, add, folder_id, mail


def indexed(mailbox: LocalMailbox) -> int:
    return int(mailbox._reader.execute("SELECT count(*) FROM grams").get)


def test_a_message_is_found_before_and_after_it_is_indexed(mailbox: LocalMailbox, clock: Clock) -> None:
    add(mailbox, mail(1, b"a needle in the hay\r\n"), mail(2))
    inbox = folder_id(mailbox)
    assert indexed(mailbox) == 0
    assert run(mailbox.search(inbox, Body("needle"))) == [1]
    clock.advance(INDEX_PAUSE)
    assert indexed(mailbox) == 2
    assert run(mailbox.search(inbox, Body("needle"))) == [1]
    assert run(mailbox.search(inbox, Text("number 2"))) == [2]
    assert not clock.getDelayedCalls(), "nothing is left to do"


def test_many_are_indexed_at_once_and_the_rest_soon(mailbox: LocalMailbox, clock: Clock) -> None:
    add(mailbox, *(mail(number) for number in range(grams.MESSAGES + 7)))
    assert indexed(mailbox) == grams.MESSAGES
    assert len(run(mailbox.search(folder_id(mailbox), Body("hello")))) == grams.MESSAGES + 7
    clock.advance(INDEX_PAUSE)
    assert indexed(mailbox) == grams.MESSAGES + 7


def test_long_texts_go_a_few_at_a_time(mailbox: LocalMailbox, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grams, "OCTETS", 5_000)
    add(mailbox, *(mail(number, b"word " * 400) for number in range(4)), mail(4, b"long " * 4000), mail(5))
    with mailbox._writer.connection as connection:
        found = [grams.index_some(connection) for _ in range(6)]
    assert found == [2, 2, 1, 1, 0, 0]
    assert run(mailbox.search(folder_id(mailbox), Body("long"))) == [5]
    clock.advance(INDEX_PAUSE)


def test_what_is_removed_before_it_is_indexed_never_is(mailbox: LocalMailbox, clock: Clock) -> None:
    add(mailbox, mail(1), mail(2), flags=frozenset({"\\Deleted"}))
    run(mailbox.expunge(folder_id(mailbox), None))
    assert run(mailbox.check_consistency()) == []
    clock.advance(INDEX_PAUSE)
    assert indexed(mailbox) == 0
    add(mailbox, mail(3))
    clock.advance(INDEX_PAUSE)
    assert indexed(mailbox) == 1


def test_what_was_left_is_indexed_at_the_next_opening(files: MailboxFiles, clock: Clock) -> None:
    files.create(ID, KEY)
    mailbox = run(open_mailbox(files, ID, KEY, at_once, clock, nothing_waits))
    add(mailbox, mail(1), mail(2))
    run(mailbox.close())
    assert not clock.getDelayedCalls()
    mailbox = run(open_mailbox(files, ID, KEY, at_once, clock, nothing_waits))
    assert indexed(mailbox) == 2
    run(mailbox.close())
    assert files.check(ID, KEY) == []


def test_the_check_notices_an_index_with_gaps(files: MailboxFiles, clock: Clock) -> None:
    files.create(ID, KEY)
    mailbox = run(open_mailbox(files, ID, KEY, at_once, clock, nothing_waits))
    add(mailbox, mail(1), mail(2))
    clock.advance(INDEX_PAUSE)
    mailbox._writer.connection.execute("DELETE FROM grams WHERE rowid = 1")
    run(mailbox.close())
    assert files.check(ID, KEY) == ["message 1 is not in the full-text index"]


def test_a_failure_is_tried_again_with_the_next_message(
    mailbox: LocalMailbox, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(grams, "index_some", lambda connection: 1 / 0)
    add(mailbox, mail(1))
    clock.advance(INDEX_PAUSE)
    monkeypatch.undo()
    assert indexed(mailbox) == 0
    add(mailbox, mail(2))
    clock.advance(INDEX_PAUSE)
    assert indexed(mailbox) == 2


def test_large_messages_are_prepared_in_a_thread(files: MailboxFiles, clock: Clock) -> None:
    threads: list[int] = []

    def counted(function: Callable[[], Any]) -> Deferred[Any]:
        threads.append(1)
        return execute(function)

    files.create(ID, KEY)
    mailbox = run(open_mailbox(files, ID, KEY, counted, clock, nothing_waits))
    used: list[int] = []
    for body in (b"small\r\n", b"x" * 100_000, b"y" * 3_000_000):
        threads.clear()
        add(mailbox, mail(1, body))
        used.append(len(threads))
    assert used == [1, 2, 2]
    assert run(mailbox.search(folder_id(mailbox), Body("yyy"))) == [3]
    run(mailbox.store(folder_id(mailbox), ALL, "add", frozenset({"\\Seen"})))
    run(mailbox.close())
    assert files.check(ID, KEY) == []
