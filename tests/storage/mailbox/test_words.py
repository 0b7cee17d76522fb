"""The full-text index follows the messages, and nobody can tell by the answers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock

from fe_twisted.protocols.imap.search import Body, Text
from fe_twisted.storage.mailbox import discarded, words
from fe_twisted.storage.mailbox.files import PAGE_SIZE, MailboxFiles
from fe_twisted.storage.mailbox.folded import folded
from fe_twisted.storage.mailbox.local import LocalMailbox, open_mailbox
from fe_twisted.storage.mailbox.schema import MIGRATIONS
from tests.storage.mailbox.driving import ID, KEY, at_once, nothing_waits, run
from tests.storage.mailbox.samples import ALL, add, folder_id, mail


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    """So many messages go into the index together."""
    monkeypatch.setattr(words, "MESSAGES", 4)
    return 4


def indexed(mailbox: LocalMailbox) -> int:
    return int(mailbox._reader.execute("SELECT count(*) FROM terms").get) // 2


def test_a_message_is_found_before_and_after_it_is_indexed(mailbox: LocalMailbox, few: int, clock: Clock) -> None:
    add(mailbox, mail(1, b"a needle in the hay\r\n"), mail(2))
    inbox = folder_id(mailbox)
    assert indexed(mailbox) == 0
    assert run(mailbox.search(inbox, Body("needle"))) == [1]
    add(mailbox, mail(3), mail(4))
    assert indexed(mailbox) == 4
    assert run(mailbox.search(inbox, Body("needle"))) == [1]
    assert run(mailbox.search(inbox, Text("number 2"))) == [2]
    assert not clock.getDelayedCalls(), "nothing is left to do"


def test_many_are_indexed_and_a_few_are_left(mailbox: LocalMailbox, few: int) -> None:
    add(mailbox, *(mail(number) for number in range(3 * few + 1)))
    assert indexed(mailbox) == 3 * few
    assert len(run(mailbox.search(folder_id(mailbox), Body("hello")))) == 3 * few + 1


def test_long_texts_go_a_few_at_a_time(mailbox: LocalMailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    add(mailbox, *(mail(number, b"word " * 400) for number in range(4)), mail(4, b"long " * 4000), mail(5))
    monkeypatch.setattr(words, "OCTETS", 5_000)
    with mailbox._writer.connection as connection:
        found = [words.index_some(connection) for _ in range(5)]
    assert found == [2, 2, 1, 0, 0]
    assert run(mailbox.search(folder_id(mailbox), Body("long"))) == [5]


def test_long_texts_do_not_wait_for_others(mailbox: LocalMailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "OCTETS", 5_000)
    add(mailbox, mail(1, b"long " * 4000))
    assert indexed(mailbox) == 1


def test_what_is_removed_before_it_is_indexed_never_is(mailbox: LocalMailbox, few: int) -> None:
    add(mailbox, mail(1), mail(2), flags=frozenset({"\\Deleted"}))
    run(mailbox.expunge(folder_id(mailbox), None))
    assert run(mailbox.check_consistency()) == []
    add(mailbox, *(mail(number) for number in range(3, 3 + few)))
    assert indexed(mailbox) == few


def test_what_was_left_is_indexed_at_the_next_opening(files: MailboxFiles, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    files.create(ID, KEY)
    mailbox = run(open_mailbox(files, ID, KEY, at_once, clock, nothing_waits))
    add(mailbox, *map(mail, range(4)))
    run(mailbox.close())
    monkeypatch.setattr(words, "MESSAGES", 4)
    mailbox = run(open_mailbox(files, ID, KEY, at_once, clock, nothing_waits))
    assert indexed(mailbox) == 4
    run(mailbox.close())
    assert files.check(ID, KEY) == []


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("DELETE FROM terms WHERE rowid = 3", "the words of message 1 in the full-text index are not those of its text"),
        (
            "INSERT INTO terms(rowid, words) VALUES(99, 'number')",
            "the full-text index has row 99 of a message that is not there, or not yet",
        ),
        ("DELETE FROM grams WHERE rowid = 1", "page 1 of the vocabulary is not in the trigram index"),
        (
            "UPDATE vocabulary SET words = CAST(replace(CAST(words AS TEXT), 'hello', 'h') AS BLOB)",
            "a word of row 3 is not in the vocabulary",
        ),
    ],
)
def test_the_check_notices(files: MailboxFiles, clock: Clock, few: int, damage: str, sentence: str) -> None:
    files.create(ID, KEY)
    mailbox = run(open_mailbox(files, ID, KEY, at_once, clock, nothing_waits))
    add(mailbox, *map(mail, range(4)))
    mailbox._writer.connection.execute(damage)
    run(mailbox.close())
    assert sentence in files.check(ID, KEY)


def test_a_failure_is_tried_again_with_the_next_message(
    mailbox: LocalMailbox, few: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "index_some", lambda connection: 1 / 0)
        add(mailbox, *map(mail, range(4)))
    assert indexed(mailbox) == 0
    add(mailbox, mail(5))
    assert indexed(mailbox) == 4


def test_when_more_is_gone_than_there_is_it_is_made_anew(mailbox: LocalMailbox, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "FORGOTTEN", 2)
    add(mailbox, *(mail(number, b"gone%d\r\n" % number) for number in range(4)), flags=frozenset({"\\Deleted"}))
    add(mailbox, *(mail(number, b"kept\r\n") for number in range(4, 8)))
    inbox = folder_id(mailbox)
    vocabulary = "SELECT count(*) FROM vocabulary WHERE instr(words, CAST(? AS BLOB))"
    run(mailbox.expunge(inbox, ((1, 3),)))
    assert mailbox._reader.execute(vocabulary, ("gone1",)).get == 1
    run(mailbox.expunge(inbox, None))
    assert indexed(mailbox) == 4
    assert mailbox._reader.execute(vocabulary, ("gone1",)).get == 0
    assert mailbox._reader.execute(vocabulary, ("kept",)).get == 1
    assert run(mailbox.search(inbox, Body("kept"))) == [5, 6, 7, 8]
    assert run(mailbox.search(inbox, Body("gone"))) == []
    assert discarded.waiting(mailbox._reader) == []


def test_it_is_made_anew_again_and_again(mailbox: LocalMailbox, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "FORGOTTEN", 4)
    for turn in range(4):
        add(mailbox, *(mail(100 * turn + number, b"gone%d\r\n" % number) for number in range(4)), flags=frozenset({"\\Deleted"}))
        assert indexed(mailbox) == 4
        run(mailbox.expunge(folder_id(mailbox), None))
        assert mailbox._reader.execute("SELECT count(*) FROM orphans").get == indexed(mailbox) == 0
        assert discarded.waiting(mailbox._reader) == []


@pytest.mark.parametrize("guarded", [False, True])
def test_what_there_was_is_emptied_in_pieces(
    mailbox: LocalMailbox, few: int, clock: Clock, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    """The index is made anew at once, twice, and what is left of the old ones never goes with anything that somebody waits for."""
    monkeypatch.setattr(words, "FORGOTTEN", 4)
    monkeypatch.setattr(discarded, "ROWS", 2)
    monkeypatch.setattr(discarded, "SMALL_ROWS", 1)
    inbox = folder_id(mailbox)
    monkeypatch.setattr(mailbox, "discard", lambda: None)
    for turn in range(2):
        add(mailbox, *(mail(100 * turn + number, b"gone%d\r\n" % number) for number in range(4)), flags=frozenset({"\\Deleted"}))
        assert indexed(mailbox) == 4
        if guarded:
            monkeypatch.setattr(mailbox._writer, "_transact", lambda works: mailbox._writer._try(works, guarded=True))
        run(mailbox.expunge(inbox, None))
        assert indexed(mailbox) == 0
        assert len(discarded.waiting(mailbox._reader)) == 7 * (turn + 1)
        assert run(mailbox.check_consistency()) == []
    add(mailbox, *(mail(number, b"kept\r\n") for number in range(4)))
    assert run(mailbox.search(inbox, Body("kept"))) == [9, 10, 11, 12]
    commits = mailbox._writer.commits
    monkeypatch.undo()
    mailbox.discard()
    assert discarded.waiting(mailbox._reader) == []
    assert mailbox._writer.commits > commits + 14
    assert run(mailbox.search(inbox, Body("kept"))) == [9, 10, 11, 12]
    assert not clock.getDelayedCalls()


def damage(files: MailboxFiles, table: str) -> None:
    """As a disk does it: the page from which a table is read is no longer what was written."""
    with contextlib.closing(files.open(ID, KEY)) as connection:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        page = int(connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).get)
    damage_page(files, page)


def damage_page(files: MailboxFiles, page: int) -> None:
    """The same for any page."""
    with open(files.path(ID), "r+b") as file:
        file.seek((page - 1) * PAGE_SIZE + 100)
        file.write(b"damaged")


INDEX = [f"{table}_{part}" for table in ("terms", "grams") for part in ("data", "idx", "docsize", "config")]


@pytest.mark.parametrize("table", [*INDEX, "vocabulary", "vocabulary_common"])
def test_an_index_that_is_damaged_is_made_anew(
    files: MailboxFiles, clock: Clock, few: int, table: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Every answer is right all the time, and what is removed goes for good."""
    files.create(ID, KEY)
    mailbox = run(open_mailbox(files, ID, KEY, at_once, clock, nothing_waits))
    add(mailbox, *(mail(number, b"needle%d in the hay\r\n" % number) for number in range(8)))
    inbox = folder_id(mailbox)
    run(mailbox.close())
    damage(files, table)
    mailbox = run(open_mailbox(files, ID, KEY, at_once, clock, nothing_waits))
    assert run(mailbox.search(inbox, Body("needle3"))) == [4]
    assert run(mailbox.search(inbox, Text("needle3 in"))) == [4]
    run(mailbox.store(inbox, ((2, 2),), "add", frozenset({"\\Deleted"})))
    run(mailbox.expunge(inbox, None))
    add(mailbox, *(mail(number, b"needle%d in the hay\r\n" % number) for number in range(8, 12)))
    # What no search reads is noticed only now that more is to come in; then three are left over of eleven.
    assert indexed(mailbox) == (8 if table in ("grams_docsize", "vocabulary_common") else 11)
    assert mailbox._reader.execute("SELECT count(*) FROM orphans").get == 0
    assert discarded.waiting(mailbox._reader) == []
    run(mailbox.close())
    caplog.clear()
    mailbox = run(open_mailbox(files, ID, KEY, at_once, clock, nothing_waits))
    assert [run(mailbox.search(inbox, Body(f"needle{number}"))) for number in (0, 1, 8)] == [[1], [11, 12], [9]]
    assert not caplog.records, "nothing is wrong with the new one"
    with mailbox._writer.connection:
        assert list(words.problems(mailbox._writer.connection)) == []
    run(mailbox.close())


def test_whatever_page_of_the_index_is_damaged(files: MailboxFiles, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made anew, and of what is not of it nothing has changed."""
    monkeypatch.setattr(words, "MESSAGES", 32)
    files.create(ID, KEY)
    mailbox = run(open_mailbox(files, ID, KEY, at_once, clock, nothing_waits))
    add(mailbox, *(mail(number, b" ".join(b"w%dx%d" % (number, word) for word in range(150)) + b" needle\r\n") for number in range(40)))
    run(mailbox.close())
    with contextlib.closing(files.open(ID, KEY)) as connection:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        pages: list[Any] = connection.execute(
            "SELECT pageno FROM dbstat WHERE name GLOB 'terms*' OR name GLOB 'grams*' OR name GLOB 'vocabulary*'"
        ).fetchall()
        mail_before = connection.execute("SELECT id, digest FROM messages").fetchall()
    assert len(pages) > 20, "root pages and others"
    whole = files.path(ID).read_bytes()
    for (page,) in pages:
        files.path(ID).write_bytes(whole)
        damage_page(files, page)
        with contextlib.closing(files.open(ID, KEY)) as connection:
            with connection:
                assert words.renew(connection) == 40
            with connection:
                while words.index_some(connection):
                    pass
            with connection:
                assert len(words.holding(connection, "needle", words.BOTH) or ()) == 32, page
                assert list(words.problems(connection)) == []
                assert connection.execute("SELECT id, digest FROM messages").fetchall() == mail_before


def test_damage_to_the_index_undoes_nothing_else(files: MailboxFiles, clock: Clock, few: int) -> None:
    """Even where one transaction holds both."""
    files.create(ID, KEY)
    mailbox = run(open_mailbox(files, ID, KEY, at_once, clock, nothing_waits))
    add(mailbox, *map(mail, range(8)))
    inbox = folder_id(mailbox)
    run(mailbox.close())
    damage(files, "terms_data")
    jobs: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def later(job: Callable[[], Any]) -> Deferred[Any]:
        jobs.append((job, Deferred()))
        return jobs[-1][1]

    opening = Deferred.fromCoroutine(open_mailbox(files, ID, KEY, later, clock, nothing_waits))
    job, waiting = jobs.pop()
    waiting.callback(job())
    found: list[LocalMailbox] = []
    opening.addCallback(found.append)
    (mailbox,) = found
    mailbox._writer.submit(lambda connection: words.forget(connection, 1)).addErrback(lambda failure: None)
    results: list[Any] = []
    stored = Deferred.fromCoroutine(mailbox.store(inbox, ((3, 3),), "add", frozenset({"\\Seen"})))
    mailbox._writer.submit(lambda connection: words.forget(connection, 2)).addErrback(lambda failure: None)
    stored.addBoth(results.append)
    while jobs:
        job, waiting = jobs.pop(0)
        waiting.callback(job())
    assert results[0].changed == [(3, 1, results[0].modseq)]
    closing = Deferred.fromCoroutine(mailbox.close())
    while jobs:
        job, waiting = jobs.pop(0)
        waiting.callback(job())
    assert closing.called


#: Separators, what folds to more or fewer characters, what joins with its neighbour, what is not seen, what UTF-8 or SQLite cannot carry.
letters = st.sampled_from("ab1 \n.-ßé日" + "Iİıﬁΐς\u0301\u0345\u1100\u1161\u00ad\u200d\u202eא😀²\0\x85\u2028\ufffe\ud800")
texts = st.text(letters, max_size=30) | st.text(st.sampled_from("abc"), min_size=60, max_size=200)


@given(texts, st.text(letters, min_size=1, max_size=8), st.integers(0, 150), st.integers(1, words.PATTERN))
def test_a_pattern_is_in_a_text_when_it_is_in_one_of_its_words(text: str, pattern: str, start: int, length: int) -> None:
    text = folded(text)
    for looked_for in (folded(pattern), text[start : start + length]):
        if words.is_word(looked_for):
            assert any(looked_for.encode() in word for word in words.words_of(text)) == (looked_for in text)


@given(texts)
def test_a_long_text_has_the_words_of_its_pieces(text: str) -> None:
    text = folded(text)
    whole = words.words_of(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "STEP", 5)
        assert words.words_of(text) == whole


@settings(max_examples=60, deadline=None)
@given(st.lists(texts, min_size=1, max_size=6), st.lists(st.text(letters, min_size=1, max_size=6), max_size=6), st.data())
def test_what_the_index_says_of_any_pattern(bodies: list[str], patterns: list[str], data: st.DataObject) -> None:
    connection = apsw.Connection(":memory:")
    for migration in MIGRATIONS:
        for _ in connection.execute(migration):
            pass
    connection.pragma("foreign_keys", False)
    stored = [folded(body) for body in bodies]
    for number, body in enumerate(stored, 1):
        connection.execute("INSERT INTO texts(message_id, header, body) VALUES(?, '\nsubject: x\n', ?)", (number, body))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "MESSAGES", data.draw(st.integers(1, 2)))
        patch.setattr(words, "PAGE", 2)
        while words.index_some(connection):
            pass
    last = connection.execute(f"SELECT {words.INDEXED}").get
    cut = [body[at : at + 12] for body in stored for at in (0, 3, 70)]
    for pattern in {folded(pattern) for pattern in patterns + cut} - {""}:
        there = {number for number, body in enumerate(stored, 1) if pattern in body and number <= last}
        found = words.holding(connection, pattern, (words.BODY,))
        if words.is_word(pattern) and len(pattern) >= words.GRAM:
            assert found == there
        elif found is not None:
            assert there <= found


def test_large_messages_are_prepared_in_a_thread(files: MailboxFiles, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "OCTETS", 100_000_000)  # none of them goes into the index, which has threads too
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
