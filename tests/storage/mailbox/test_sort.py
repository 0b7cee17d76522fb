"""SORT against a slow comparison of every pair, and what is kept between two of them."""

from __future__ import annotations

import datetime
import unicodedata
from functools import cmp_to_key

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fe_twisted.base.errors import NoSuchFolder
from fe_twisted.protocols.imap.search import All, And, Flag, Header, Key, Not, Uids, Within
from fe_twisted.protocols.imap.sort import Criterion, SortKey
from fe_twisted.storage.mailbox import sort
from fe_twisted.storage.mailbox.api import NewMessage
from fe_twisted.storage.mailbox.local import LocalMailbox
from tests.storage.mailbox.driving import run

DAY = datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC)

#: (sort key, header value) of each choice; what is equal after folding has the same key.
NAMES = [("ANN", "Ann"), ("ANN", "aNN"), ("BOB", "bob"), ("", None), ("\u00c9VE", "\u00e9ve")]
SUBJECTS = [
    ("", None),
    ("ALPHA", "alpha"),
    ("ALPHA", "Re: [x] Alpha"),
    ("BETA", "beta (fwd)"),
    ("[O]", "[o]"),
    ("GAMMA", "[Fwd: gamma]"),
]
DATES = [None, "broken", DAY, DAY + datetime.timedelta(hours=5), DAY - datetime.timedelta(days=400)]
ZONES = [0, 330, -480]

MESSAGE = st.fixed_dictionaries(
    {
        "from": st.sampled_from(NAMES),
        "to": st.sampled_from(NAMES),
        "cc": st.sampled_from(NAMES),
        "subject": st.sampled_from(SUBJECTS),
        "date": st.sampled_from(DATES),
        "zone": st.sampled_from(ZONES),
        "arrival": st.integers(0, 3),
        "padding": st.integers(0, 2),
    }
)
CRITERIA = st.lists(st.builds(Criterion, st.sampled_from(SortKey), st.booleans()), min_size=1, max_size=3, unique_by=lambda one: one.key)


def _content(message: dict, number: int) -> bytes:
    lines = [f"X-Number: {number:06d}"]
    if message["subject"][1] is not None:
        lines.append(f"Subject: {message['subject'][1]}")
    if message["date"] == "broken":
        lines.append("Date: yesterday, I think")
    elif message["date"] is not None:
        moment = message["date"].astimezone(datetime.timezone(datetime.timedelta(minutes=message["zone"])))
        lines.append(f"Date: {moment:%d %b %Y %H:%M:%S %z}")
    for name in ("from", "to", "cc"):
        value = message[name][1]
        if value is not None:
            lines.append(f"{name.title()}: Display {value} <{value}@example.org>, other@example.org")
    return ("\r\n".join(lines) + "\r\n\r\n" + "x" * message["padding"]).encode()


def _received(message: dict) -> datetime.datetime:
    return DAY + datetime.timedelta(minutes=message["arrival"])


def _key(message: dict, number: int, key: SortKey) -> object:
    def decomposed(text: str) -> str:
        return unicodedata.normalize("NFKD", text)

    match key:
        case SortKey.ARRIVAL:
            return _received(message)
        case SortKey.DATE:
            return message["date"] if isinstance(message["date"], datetime.datetime) else _received(message)
        case SortKey.SIZE:
            return len(_content(message, number))
        case SortKey.SUBJECT:
            return message["subject"][0]
        case SortKey.FROM | SortKey.TO | SortKey.CC:
            return decomposed(message[key.value.lower()][0])
        case _:
            name = message["from" if key is SortKey.DISPLAYFROM else "to"][0]
            return decomposed(f"DISPLAY {name}") if name else ""


def _slow(messages: list[dict], criteria: list[Criterion]) -> list[int]:
    def compare(left: int, right: int) -> int:
        for criterion in criteria:
            one, two = _key(messages[left - 1], left, criterion.key), _key(messages[right - 1], right, criterion.key)
            if one != two:
                return (-1 if one < two else 1) * (-1 if criterion.reverse else 1)  # type: ignore[operator]
        return left - right

    return sorted(range(1, len(messages) + 1), key=cmp_to_key(compare))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(MESSAGE, min_size=1, max_size=12), st.lists(CRITERIA, min_size=8, max_size=8))
def test_against_a_comparison_of_every_pair(mailbox: LocalMailbox, messages: list[dict], programs: list[list[Criterion]]) -> None:
    name = f"Folder {len(run(mailbox.folders()))}"
    run(mailbox.create(name))
    run(mailbox.append(name, [NewMessage(_content(m, n), internaldate=_received(m)) for n, m in enumerate(messages, 1)]))
    folder = run(mailbox.select(name, claim_recent=False)).folder_id
    for criteria in programs:
        expected = _slow(messages, criteria)
        assert run(mailbox.sort(folder, All(), criteria)) == expected
        some = [uid for uid in expected if uid % 2]
        odd = tuple((uid, uid) for uid in sorted(some))
        assert run(mailbox.sort(folder, Uids(odd), criteria)) == some


def _subjects(mailbox: LocalMailbox, *subjects: str) -> int:
    run(mailbox.append("INBOX", [NewMessage(f"Subject: {subject}\r\n\r\n{subject}".encode()) for subject in subjects]))
    return run(mailbox.select("INBOX", claim_recent=False)).folder_id


def test_what_is_kept_stays_right(mailbox: LocalMailbox) -> None:
    folder = _subjects(mailbox, "d", "b", "c")
    by_subject = [Criterion(SortKey.SUBJECT)]
    assert run(mailbox.sort(folder, All(), by_subject)) == [2, 3, 1]
    assert run(mailbox.sort(folder, All(), by_subject)) == [2, 3, 1]
    _subjects(mailbox, "a")
    assert run(mailbox.sort(folder, All(), by_subject)) == [4, 2, 3, 1]
    run(mailbox.store(folder, ((3, 3),), "add", frozenset({"\\Deleted"})))
    assert run(mailbox.sort(folder, Flag("\\Deleted"), by_subject)) == [3]
    assert run(mailbox.sort(folder, Not(Flag("\\Deleted")), by_subject)) == [4, 2, 1]
    run(mailbox.expunge(folder, None))
    assert run(mailbox.sort(folder, All(), by_subject)) == [4, 2, 1]
    _subjects(mailbox, "c")
    assert run(mailbox.sort(folder, All(), by_subject)) == [4, 2, 5, 1]
    assert run(mailbox.sort(folder, All(), [Criterion(SortKey.SUBJECT, True)])) == [1, 5, 2, 4]
    assert run(mailbox.sort(folder, Header("subject", "a"), by_subject)) == [4]


def test_nothing_is_searched_when_nothing_changed(mailbox: LocalMailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _subjects(mailbox, "d", "b", "c")
    by_subject = [Criterion(SortKey.SUBJECT)]
    asked = []
    real = sort.search
    monkeypatch.setattr(sort, "search", lambda *arguments: asked.append(arguments) or real(*arguments))

    def ask(program: Key) -> list[int]:
        return run(mailbox.sort(folder, program, by_subject))

    assert ask(All()) == [2, 3, 1]
    assert len(asked) == 1
    for program in (All(), Uids(((1, 3),)), And((Uids(((1, 9),)), All()))):
        assert ask(program) == [2, 3, 1]
    assert len(asked) == 1
    # less than everything, or what depends on flags and time, is searched
    for program, expected in ((Uids(((1, 2),)), [2, 1]), (Uids(()), []), (Not(Flag("x")), [2, 3, 1]), (Within(True, 9), [2, 3, 1])):
        assert ask(program) == expected
    assert len(asked) == 5
    # a flag that changed, and a message that went
    run(mailbox.store(folder, ((3, 3),), "add", frozenset({"\\Deleted"})))
    assert ask(All()) == [2, 3, 1]
    assert ask(All()) == [2, 3, 1]
    assert len(asked) == 6
    run(mailbox.expunge(folder, None))
    assert ask(All()) == [2, 1]
    assert ask(All()) == [2, 1]
    assert len(asked) == 7


def test_orders_that_are_kept_are_few(mailbox: LocalMailbox) -> None:
    folder = _subjects(mailbox, "b", "a")
    for key in SortKey:
        for reverse in (False, True):
            assert sorted(run(mailbox.sort(folder, All(), [Criterion(key, reverse)]))) == [1, 2]
    assert len(mailbox._orders._kept) <= 8


def test_a_folder_that_is_gone(mailbox: LocalMailbox) -> None:
    run(mailbox.create("Gone"))
    folder = run(mailbox.select("Gone", claim_recent=False)).folder_id
    run(mailbox.delete("Gone"))
    with pytest.raises(NoSuchFolder):
        run(mailbox.sort(folder, All(), [Criterion(SortKey.DATE)]))
