"""THREADID: which messages belong together, and that this never changes (RFC 8474 section 5.2)."""

from __future__ import annotations

import itertools

import pytest

from fe_twisted.protocols.imap.search import Not, ThreadId
from fe_twisted.storage.mailbox.local import LocalMailbox
from tests.storage.mailbox.driving import run
from tests.storage.mailbox.samples import ALL, add, folder_id, rows


def message(name: str, *references: str, field: str = "References", subject: str = "x", text: str = "") -> bytes:
    """A message ``<name@example.org>``; an empty name for one without Message-ID."""
    lines = [f"Subject: {subject}"]
    if name:
        lines.append(f"Message-ID: <{name}@example.org>")
    if references:
        lines.append(f"{field}: " + " ".join(f"<{other}@example.org>" for other in references))
    return ("\r\n".join(lines) + f"\r\n\r\n{text}\r\n").encode()


def threads(mailbox: LocalMailbox, folder: str = "INBOX") -> list[int]:
    return [row[0] for row in rows(mailbox, folder, "threadid")]


CONVERSATION = (
    message("root", subject="plans"),
    message("answer", "root", subject="Re: plans"),
    message("second", "root", "answer", subject="something else"),
    message("aside", "root", subject="AW: plans"),
)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
def test_a_conversation_is_one_thread_in_whatever_order_it_comes(mailbox: LocalMailbox, order: tuple[int, ...]) -> None:
    add(mailbox, message("other", subject="plans"))
    for number in order:
        add(mailbox, CONVERSATION[number])
    other, *found = threads(mailbox)
    assert len(set(found)) == 1
    assert other not in found, "the subject alone joins nothing"


def test_the_root_need_not_be_here(mailbox: LocalMailbox) -> None:
    add(mailbox, message("one", "gone"), message("two", "gone"), message("three", "two", field="In-Reply-To"))
    assert len(set(threads(mailbox))) == 1


def test_each_message_without_relatives_is_a_thread(mailbox: LocalMailbox) -> None:
    add(mailbox, message("a"), message("b"), message("", text="c"), message("", text="d"))
    assert len(set(threads(mailbox))) == 4


def test_a_copy_by_another_way_is_in_the_same_thread(mailbox: LocalMailbox) -> None:
    """Once directly and once through a mailing list, which added a footer."""
    add(mailbox, message("a", text="hello"), message("a", text="hello\r\n-- \r\nthe list"))
    assert len(set(threads(mailbox))) == 1


def test_a_message_that_joins_two_threads_changes_neither(mailbox: LocalMailbox) -> None:
    add(mailbox, message("a"), message("b"))
    first, second = threads(mailbox)
    add(mailbox, message("c", "a", "b"), message("d", "a"), message("e", "c"))
    assert threads(mailbox) == [first, second, second, first, second]


def test_it_stays_wherever_the_message_goes(mailbox: LocalMailbox) -> None:
    add(mailbox, *CONVERSATION[:2])
    before = threads(mailbox)
    run(mailbox.copy(folder_id(mailbox), ALL, "Archive"))
    run(mailbox.move(folder_id(mailbox), ALL, "Trash"))
    assert threads(mailbox, "Archive") == threads(mailbox, "Trash") == before


def test_a_thread_is_remembered_while_one_of_it_is_here(mailbox: LocalMailbox) -> None:
    add(mailbox, *CONVERSATION[:2], message("lonely", "somebody"))
    thread, _, lonely = threads(mailbox)
    inbox = folder_id(mailbox)
    known = "SELECT count(*) FROM kin WHERE thread = ?"
    assert mailbox._reader.execute(known, (thread,)).get == 2
    assert mailbox._reader.execute(known, (lonely,)).get == 2
    run(mailbox.store(inbox, ((1, 1), (3, 3)), "add", frozenset({"\\Deleted"})))
    run(mailbox.expunge(inbox, None))
    assert mailbox._reader.execute(known, (thread,)).get == 2
    assert mailbox._reader.execute(known, (lonely,)).get == 0
    add(mailbox, CONVERSATION[3])
    assert threads(mailbox) == [thread, thread]
    run(mailbox.store(inbox, ALL, "add", frozenset({"\\Deleted"})))
    run(mailbox.expunge(inbox, None))
    assert mailbox._reader.execute("SELECT count(*) FROM kin").get == 0


def test_search(mailbox: LocalMailbox) -> None:
    add(mailbox, *CONVERSATION[:2], message("other"))
    thread, _, other = threads(mailbox)
    inbox = folder_id(mailbox)
    assert run(mailbox.search(inbox, ThreadId(thread))) == [1, 2]
    assert run(mailbox.search(inbox, Not(ThreadId(thread)))) == [3]
    assert run(mailbox.search(inbox, ThreadId(other))) == [3]
    assert run(mailbox.search(inbox, ThreadId(0))) == []


def test_a_hundred_references(mailbox: LocalMailbox) -> None:
    """Of a longer list the first and the newest are kept, so the thread is found from either end."""
    names = [f"n{number}" for number in range(300)]
    add(mailbox, message("late", *names), message("n0"), message("n299"), message("n5"))
    late, first, newest, middle = threads(mailbox)
    assert late == first == newest != middle
