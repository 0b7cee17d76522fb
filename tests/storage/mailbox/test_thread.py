"""THREAD against a slow reading of RFC 5256 section 3, the examples of the standard, and hostile References."""

from __future__ import annotations

import random
import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fe_twisted.protocols.imap.search import All, Not, Uids
from fe_twisted.protocols.imap.sort import Algorithm, threads
from fe_twisted.protocols.mime.order import pack
from fe_twisted.storage.mailbox import thread as threading
from fe_twisted.storage.mailbox.api import NewMessage
from fe_twisted.storage.mailbox.local import LocalMailbox
from fe_twisted.storage.mailbox.thread import by_references, by_subject
from tests.storage.mailbox.driving import run

Row = tuple[int, int, str, int, int, bytes]


class Container:
    """A message, or one that is not there (uid 0)."""

    def __init__(self) -> None:
        self.row: Row | None = None
        self.parent: Container | None = None
        self.children: list[Container] = []

    def ancestors(self) -> list[Container]:
        found, at = [], self.parent
        while at is not None:
            found.append(at)
            at = at.parent
        return found

    def put_below(self, parent: Container | None) -> None:
        if self.parent is not None:
            self.parent.children.remove(self)
        self.parent = parent
        if parent is not None:
            parent.children.append(self)

    def moment(self) -> tuple[int, int]:
        return (self.row[1], self.row[0]) if self.row else min(child.moment() for child in self.children)

    def first(self) -> Row:
        return self.row or min(self.children, key=Container.moment).first()


def _slow(rows: list[Row]) -> list[Any]:
    """The six steps, one after the other.  Returns nested lists ``[uid, child, child]``."""
    table: dict[int, Container] = {}
    everything: list[Container] = []

    def container(identity: int) -> Container:
        if identity not in table:
            table[identity] = Container()
            everything.append(table[identity])
        return table[identity]

    taken: set[int] = set()
    mine: list[Container] = []
    for row in rows:  # which container is whose is settled first, since a reference may come before its message
        if row[4] and row[4] not in taken:
            taken.add(row[4])
            own = container(row[4])
        else:
            own = Container()
            everything.append(own)
        own.row = row
        mine.append(own)
    for row, own in zip(rows, mine, strict=True):
        last = None
        for at in range(0, len(row[5]), 8):
            here = container(int.from_bytes(row[5][at : at + 8], "little"))
            if last is not None and here.parent is None and here is not last and here not in last.ancestors():
                here.put_below(last)
            last = here
        if own.parent is not last:
            own.put_below(None)
            if last is not None and last is not own and own not in last.ancestors():
                own.put_below(last)
    root = Container()  # step 2
    for each in everything:
        if each.parent is None:
            each.put_below(root)
    _prune(root, root)
    _sort(root)
    _join(root)
    _sort_all(root)
    return [_nested(child) for child in root.children]


def _prune(at: Container, root: Container) -> None:
    for child in list(at.children):
        _prune(child, root)
        if child.row is None and (not child.children or at is not root or len(child.children) == 1):
            for grandchild in list(child.children):
                grandchild.put_below(at)
            child.put_below(None)


def _sort(at: Container) -> None:
    at.children.sort(key=Container.moment)


def _sort_all(at: Container) -> None:
    for child in at.children:
        _sort_all(child)
    _sort(at)


def _join(root: Container) -> None:
    table: dict[str, Container] = {}
    for child in root.children:
        subject, reply = child.first()[2], child.first()[3]
        if not subject:
            continue
        held = table.get(subject)
        if held is None or (held.row is not None and (child.row is None or (held.first()[3] and not reply))):
            table[subject] = child
    for child in list(root.children):
        subject, reply = child.first()[2], child.first()[3]
        held = table.get(subject)
        if held is None or held is child:
            continue
        if held.row is None and child.row is None:
            for grandchild in list(child.children):
                grandchild.put_below(held)
            child.put_below(None)
        elif held.row is None or (reply and not held.first()[3]):
            child.put_below(held)
        else:
            dummy = Container()
            dummy.put_below(root)
            held.put_below(dummy)
            child.put_below(dummy)
            table[subject] = dummy


def _nested(at: Container) -> list[Any]:
    return [at.row[0] if at.row else 0, *[_nested(child) for child in at.children]]


def _outline(nested: list[Any], depth: int = 0) -> list[tuple[int, int]]:
    return [(nested[0], depth), *[pair for child in nested[1:] for pair in _outline(child, depth + 1)]]


ROW = st.tuples(
    st.integers(0, 3),
    st.sampled_from(["", "A", "B"]),
    st.booleans(),
    st.integers(0, 8),
    st.lists(st.integers(1, 9), max_size=4, unique=True),
)


def _rows(drawn: list[tuple[int, str, bool, int, list[int]]]) -> list[Row]:
    return [(uid, sent, subject, int(reply), own, pack(references)) for uid, (sent, subject, reply, own, references) in enumerate(drawn, 1)]


@settings(max_examples=400, deadline=None)
@given(st.lists(ROW, max_size=12).map(_rows))
def test_references_against_the_steps_of_the_standard(rows: list[Row]) -> None:
    expected = [pair for nested in _slow(rows) for pair in _outline(nested)]
    found = by_references(rows)
    assert list(found) == expected
    assert sorted(uid for uid, _ in found if uid) == [row[0] for row in rows]


@settings(max_examples=200, deadline=None)
@given(st.lists(ROW, max_size=12).map(_rows))
def test_ordered_subject_against_the_rules(rows: list[Row]) -> None:
    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row[1], row[0])):
        groups.setdefault(row[2], []).append(row)
    expected = [(row[0], int(at > 0)) for group in groups.values() for at, row in enumerate(group)]
    assert list(by_subject(rows)) == expected


def _read(tokens: list[str], depth: int = 0) -> list[tuple[int, int]]:
    """One thread-list as a client reads it (RFC 5256 section 5)."""
    assert tokens.pop(0) == "("
    found: list[tuple[int, int]] = []
    if tokens[0] == "(":
        found.append((0, depth))
        depth += 1
    while tokens[0].isdigit():
        found.append((int(tokens.pop(0)), depth))
        depth += 1
    branches = 0
    while tokens[0] == "(":
        found += _read(tokens, depth)
        branches += 1
    assert branches != 1
    assert tokens.pop(0) == ")"
    return found


@settings(max_examples=150, deadline=None)
@given(st.lists(ROW, max_size=12).map(_rows))
def test_a_client_reads_from_the_response_what_was_meant(rows: list[Row]) -> None:
    outline = list(by_references(rows))
    made = threads(outline)
    response = made.response(made.uids).decode()
    assert response.startswith("* THREAD ") or (not rows and response == "* THREAD\r\n")
    assert ") (" not in response
    assert "  " not in response
    tokens = re.findall(r"[0-9]+|[()]", response)
    found: list[tuple[int, int]] = []
    while tokens:
        found += _read(tokens)
    assert found == outline


def test_the_example_of_the_standard() -> None:
    # RFC 5256 section 4: (2)(3 6 (4 23)(44 7 96))
    outline = [(2, 0), (3, 0), (6, 1), (4, 2), (23, 3), (44, 2), (7, 3), (96, 4)]
    made = threads(outline)
    assert made.response(made.uids) == b"* THREAD (2)(3 6 (4 23)(44 7 96))\r\n"


def test_a_message_that_is_not_there_has_no_number() -> None:
    made = threads([(0, 0), (3, 1), (5, 1), (6, 2)])
    assert made.response([3, 5, 6]) == b"* THREAD ((3)(5 6))\r\n"


def _linked(count: int, references: Any) -> list[Row]:
    return [(uid, uid, "", 0, uid, pack(references(uid))) for uid in range(1, count + 1)]


def test_a_thread_may_be_ten_thousand_deep() -> None:
    rows = _linked(10_000, lambda uid: [uid - 1] if uid > 1 else [])
    made = threads(by_references(rows))
    assert made.response(made.uids).startswith(b"* THREAD (1 2 3 4 ")
    rows = _linked(10_000, lambda uid: [uid + 1])
    assert list(by_references(rows))[:2] == [(10_000, 0), (9_999, 1)]


def test_loops_are_not_made() -> None:
    assert list(by_references(_linked(3, lambda uid: [uid % 3 + 1]))) == [(3, 0), (2, 1), (1, 2)]
    assert list(by_references(_linked(1, lambda uid: [1]))) == [(1, 0)]


def test_hostile_references_take_no_minutes() -> None:
    chance = random.Random(5)
    # a chain of a million ids that are not there, and links that have to be looked at for loops all along it
    chain = _linked(4_000, lambda uid: [10_000 + 99 * uid + at for at in range(100)])
    tangled = _linked(4_000, lambda uid: [chance.randrange(1, 4_000) for _ in range(100)])
    for rows in (chain, tangled):
        started = time.process_time()
        assert sorted(uid for uid, _ in by_references(rows) if uid) == list(range(1, 4_001))
        assert time.process_time() - started < 8


def _mail(number: int, subject: str, *references: int) -> NewMessage:
    fields = [f"Message-ID: <{number}@x>", f"Subject: {subject}", f"Date: 1 May 2024 00:00:{number:02d} +0000"]
    if references:
        fields.append("References: " + " ".join(f"<{reference}@x>" for reference in references))
    return NewMessage(("\r\n".join(fields) + "\r\n\r\n").encode())


def test_in_a_mailbox(mailbox: LocalMailbox) -> None:
    run(
        mailbox.append(
            "INBOX", [_mail(1, "a"), _mail(2, "Re: a", 1), _mail(3, "b"), _mail(4, "Re: a", 1, 2), _mail(5, "c", 77), _mail(6, "d", 77)]
        )
    )
    folder = run(mailbox.select("INBOX", claim_recent=False)).folder_id
    for _ in range(2):  # the second time from what was kept
        found = run(mailbox.thread(folder, All(), Algorithm.REFERENCES))
        assert found.response(found.uids) == b"* THREAD (1 2 4)(3)((5)(6))\r\n"
        found = run(mailbox.thread(folder, All(), Algorithm.ORDEREDSUBJECT))
        assert found.response(found.uids) == b"* THREAD (1 (2)(4))(3)(5)(6)\r\n"
    # without the message between, its reply belongs to the one above
    found = run(mailbox.thread(folder, Not(Uids(((2, 2),))), Algorithm.REFERENCES))
    assert found.response(found.uids) == b"* THREAD (1 4)(3)((5)(6))\r\n"
    run(mailbox.store(folder, ((1, 1),), "add", frozenset({"\\Deleted"})))
    run(mailbox.expunge(folder, None))
    found = run(mailbox.thread(folder, All(), Algorithm.REFERENCES))
    assert found.response(found.uids) == b"* THREAD (2 4)(3)((5)(6))\r\n"
    run(mailbox.append("INBOX", [_mail(7, "Re: c")]))
    found = run(mailbox.thread(folder, All(), Algorithm.REFERENCES))
    assert found.response(found.uids) == b"* THREAD (2 4)(3)((5)(6)(7))\r\n"


def test_many_runs_of_uids_are_read_in_one_sweep(mailbox: LocalMailbox) -> None:
    run(mailbox.append("INBOX", [_mail(number, "x") for number in range(1, 31)]))
    folder = run(mailbox.select("INBOX", claim_recent=False)).folder_id
    program = Uids(tuple((uid, uid) for uid in range(1, 31, 2)))
    few = run(mailbox.thread(folder, program, Algorithm.REFERENCES))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "_MAX_SPANS", 3)
        mailbox._threading._kept = None
        assert run(mailbox.thread(folder, program, Algorithm.REFERENCES)) == few
    assert sorted(few.uids) == list(range(1, 31, 2))
