r"""``\\Recent``: claimed in memory at once, in the file soon after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from fe_twisted.storage.mailbox import local, words
from fe_twisted.storage.mailbox.files import MailboxFiles
from fe_twisted.storage.mailbox.local import LocalMailbox, open_mailbox
from fe_twisted.storage.mailbox.recent import Claims
from tests.storage.mailbox.driving import ID, KEY, at_once, nothing_waits, run
from tests.storage.mailbox.samples import add, mail


class Threads:
    """At once, or when told to."""

    def __init__(self) -> None:
        self.held = False
        self.jobs: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def run(self, function: Callable[[], Any]) -> Deferred[Any]:
        if not self.held:
            return at_once(function)
        self.jobs.append((function, Deferred()))
        return self.jobs[-1][1]

    def work(self) -> None:
        while self.jobs:
            function, done = self.jobs.pop(0)
            at_once(function).chainDeferred(done)


def in_file(mailbox: LocalMailbox) -> int:
    return int(mailbox._reader.execute("SELECT first_recent FROM folders WHERE name = 'INBOX'").get)


def test_a_claim_waits_for_no_commit_and_is_written(files: MailboxFiles, clock: Clock) -> None:
    files.create(ID, KEY)
    threads = Threads()
    mailbox = run(open_mailbox(files, ID, KEY, threads.run, clock, nothing_waits))
    add(mailbox, mail(1), mail(2))
    threads.held = True
    first = run(mailbox.select("INBOX", claim_recent=True))
    assert first.recent == ((1, 2),)
    assert in_file(mailbox) == 1
    assert run(mailbox.select("INBOX", claim_recent=True)).recent == ()
    assert run(mailbox.select("INBOX", claim_recent=False)).recent == ()
    assert run(mailbox.changes(first.folder_id, 0, 1, claim_recent=True)).recent == ()
    assert run(mailbox.status("INBOX")).recent == 0
    threads.work()
    assert in_file(mailbox) == 3
    threads.held = False
    add(mailbox, mail(3))
    threads.held = True
    assert run(mailbox.changes(first.folder_id, 0, 3, claim_recent=True)).recent == ((3, 3),)
    closing = Deferred.fromCoroutine(mailbox.close())
    threads.held = False
    threads.work()
    assert closing.called
    mailbox = run(open_mailbox(files, ID, KEY, at_once, clock, nothing_waits))
    assert in_file(mailbox) == 4, "closing writes the last claim"
    run(mailbox.close())


def test_a_claim_does_not_wait_for_a_whole_index(files: MailboxFiles, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "MESSAGES", 1)
    monkeypatch.setattr(local, "INDEX_BEHIND", 1)
    files.create(ID, KEY)
    threads = Threads()
    mailbox = run(open_mailbox(files, ID, KEY, threads.run, clock, nothing_waits))
    with monkeypatch.context() as patch:
        patch.setattr(mailbox, "index", lambda: None)
        add(mailbox, *map(mail, range(20)))
    threads.held = True
    mailbox.index()
    run(mailbox.select("INBOX", claim_recent=True))
    left = []
    while in_file(mailbox) == 1:
        function, done = threads.jobs.pop(0)
        at_once(function).chainDeferred(done)
        left.append(words.unindexed(mailbox._reader))
    assert left[-1] >= 10
    threads.held = False
    threads.work()
    run(mailbox.close())


def test_a_claim_while_one_is_being_written_is_written_too(files: MailboxFiles, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    files.create(ID, KEY)
    mailbox = run(open_mailbox(files, ID, KEY, at_once, clock, nothing_waits))
    inbox = run(mailbox.select("INBOX", claim_recent=False)).folder_id
    add(mailbox, mail(1))
    before = run(mailbox.changes(inbox, 0, 1, claim_recent=False))
    write = Claims._write

    def and_one_more(claims: Claims, connection: Any) -> None:
        write(claims, connection)
        monkeypatch.undo()
        claims.claim(before, inbox, 9, None)

    monkeypatch.setattr(Claims, "_write", and_one_more)
    run(mailbox.select("INBOX", claim_recent=True))
    assert in_file(mailbox) == 9
    run(mailbox.close())


def test_a_claim_that_cannot_be_written_is_written_with_the_next(
    mailbox: LocalMailbox, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    add(mailbox, mail(1))
    monkeypatch.setattr(Claims, "_write", lambda claims, connection: 1 / 0)
    assert run(mailbox.select("INBOX", claim_recent=True)).recent == ((1, 1),)
    monkeypatch.undo()
    assert in_file(mailbox) == 1
    assert run(mailbox.select("INBOX", claim_recent=True)).recent == ()
    add(mailbox, mail(2))
    assert run(mailbox.select("INBOX", claim_recent=True)).recent == ((2, 2),)
    assert in_file(mailbox) == 3
