"""SEARCH against a slow reference: every key, any nesting, with and without the full-text index."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from fe_twisted.protocols.imap.search import (
    All,
    And,
    Body,
    Compare,
    Date,
    DateOf,
    EmailId,
    Flag,
    Header,
    Key,
    Modseq,
    Not,
    Or,
    Regex,
    Sequence,
    Size,
    Text,
    ThreadId,
    Uids,
    Within,
)
from fe_twisted.protocols.mime.text import fold
from fe_twisted.storage.mailbox import search, words
from fe_twisted.storage.mailbox.api import NewMessage
from fe_twisted.storage.mailbox.files import MailboxFiles
from fe_twisted.storage.mailbox.local import LocalMailbox, open_mailbox
from fe_twisted.storage.mailbox.words import unindexed
from tests.storage.mailbox.driving import ID, KEY, at_once, collect, nothing_waits, run
from tests.storage.mailbox.samples import add, mail

NOW = 1_790_000_000
WORDS = ("alpha", "beta", "Gamma", "straße", "Ω", "a b", "100%", "under_score", 'quo"te', "it's", "日本語", "Müller", "x")
#: Message n is in the thread that message n % THREADS began.
THREADS = 7
FLAGS = ("\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft", "$Forwarded", "Work")


@dataclass(frozen=True)
class Sample:
    """A message and what a reader knows of it without any index."""

    uid: int
    subject: str
    sender: str
    to: str
    extra: str | None
    body: str
    flags: frozenset[str]
    received: datetime.datetime
    sent: datetime.datetime | None
    content: bytes


def encoded(text: str) -> str:
    import email.header

    return text if text.isascii() else email.header.Header(text, "utf-8").encode()


def sample(number: int) -> Sample:
    pick = lambda step, offset=0: WORDS[(number * step + offset) % len(WORDS)]  # noqa: E731 - three letters that keep the table readable
    zone = datetime.timezone(datetime.timedelta(hours=(number % 25) - 12))
    received = datetime.datetime(2026, 1, 1 + number % 28, (number * 7) % 24, 30, tzinfo=zone)
    sent = None if number % 5 == 0 else received - datetime.timedelta(days=number % 4, hours=number % 24)
    subject, body = f"{pick(3)} {pick(5, 1)}", f"{pick(7)} lorem {pick(2, 3)}\r\n{pick(11, 2)} ipsum"
    extra = None if number % 3 else pick(1)
    lines = [
        f"From: {encoded(pick(2))} <from{number}@example.com>",
        f"To: to{number % 4}@example.org",
        *([f"Message-ID: <m{number}@example.com>"] if number % 11 != 10 else []),
        *([f"References: <m{number % THREADS}@example.com>"] if number >= THREADS else []),
        f"Subject: {encoded(subject)}",
        *([f"Date: {sent.strftime('%a, %d %b %Y %H:%M:%S %z')}"] if sent else []),
        *([f"X-Extra: {encoded(extra)}"] if extra is not None else []),
        *(["X-Empty:"] if number % 2 else []),
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
    ]
    return Sample(
        uid=number + 1,
        subject=subject,
        sender=f"{pick(2)} <from{number}@example.com>",
        to=f"to{number % 4}@example.org",
        extra=extra,
        body=body,
        flags=frozenset(flag for position, flag in enumerate(FLAGS) if (number >> position % 6) & 1 and (number + position) % 3),
        received=received,
        sent=sent,
        content=("\r\n".join(lines) + "\r\n\r\n" + body + "\r\n").encode(),
    )


SAMPLES = [sample(number) for number in range(60)]


def holds(needle: str, *haystacks: str) -> bool:
    return any(fold(needle) in fold(haystack) for haystack in haystacks)


def compared(compare: Compare, left: object, right: object) -> bool:
    if compare is Compare.BEFORE:
        return left < right  # type: ignore[operator, no-any-return]
    if compare is Compare.ON:
        return left == right
    return left >= right if compare is Compare.SINCE else left > right  # type: ignore[operator, no-any-return]


def header_values(message: Sample, name: str) -> list[str]:
    import email
    import email.header
    import email.policy

    parsed = email.message_from_bytes(message.content, policy=email.policy.compat32)
    values = parsed.get_all(name) or []
    return [str(email.header.make_header(email.header.decode_header(value))) for value in values]


def reference(key: Key, message: Sample, modseqs: dict[int, int]) -> bool:
    """The answer by looking at one message."""
    match key:
        case All():
            return True
        case And(keys):
            return all(reference(part, message, modseqs) for part in keys)
        case Or(left, right):
            return reference(left, message, modseqs) or reference(right, message, modseqs)
        case Not(inner):
            return not reference(inner, message, modseqs)
        case Uids(ranges):
            return any(first <= message.uid <= last for first, last in ranges)
        case Flag(name):
            return name.lower() in {flag.lower() for flag in message.flags}
        case Header(name, value):
            return any(holds(value, found) for found in header_values(message, name))
        case Body(value):
            return holds(value, message.body)
        case Text(value):
            whole = [f"{line}" for line in message.content.decode().split("\r\n\r\n")[0].split("\r\n")]
            decoded = [f"subject: {message.subject}", f"from: {message.sender}", f"x-extra: {message.extra or ''}"]
            plain = [line for line in whole if not line.startswith(("Subject:", "From:", "X-Extra:"))]
            return holds(value, message.body, *decoded, *plain)
        case Date(of, compare, day):
            if of is DateOf.SENT:
                return message.sent is not None and compared(compare, message.sent.date(), day)
            if of is DateOf.SAVED:
                return compared(compare, datetime.datetime.fromtimestamp(NOW, datetime.UTC).date(), day)
            return compared(compare, message.received.date(), day)
        case Size(compare, octets):
            return compared(compare, len(message.content), octets)
        case Modseq(value):
            return modseqs[message.uid] >= value
        case EmailId(value):
            return message.uid == int(value)
        case ThreadId(number):
            return (message.uid - 1) % THREADS == number
        case Regex(name, pattern):
            found = {"subject": message.subject, "from": message.sender, "body": message.body}[name]
            return re.search(pattern, " ".join(fold(found).split()), re.IGNORECASE) is not None
        case Within(younger, seconds):
            age = NOW - message.received.timestamp()
            return age <= seconds if younger else age >= seconds
    raise AssertionError(key)


texts = st.sampled_from(
    (
        *WORDS,
        "lorem",
        "ipsum",
        "psu",
        "ALPHA",
        "STRASSE",
        "a",
        "example.com",
        "nowhere",
        "lorem  alpha",
        "from1",
        '"',
        "m alp",
        "om1@exam",
        "alph",
        ": a",
    )
)
days = st.dates(datetime.date(2025, 12, 25), datetime.date(2026, 2, 5))
ranges = st.lists(st.tuples(st.integers(1, 70), st.integers(0, 10)), max_size=30).map(
    lambda pairs: tuple(sorted({(first, first + length) for first, length in pairs}))
)
leaves: st.SearchStrategy[Key] = st.one_of(
    st.just(All()),
    ranges.map(lambda found: Uids(disjoint(found))),
    st.sampled_from((*FLAGS, "\\seen", "work", "Unknown")).map(Flag),
    st.builds(Header, st.sampled_from(("Subject", "FROM", "to", "X-Extra", "X-Empty", "X-None", "date")), texts | st.just("")),
    texts.map(Body),
    texts.map(Text),
    st.builds(Date, st.sampled_from(DateOf), st.sampled_from((Compare.BEFORE, Compare.ON, Compare.SINCE)), days),
    st.builds(Size, st.sampled_from((Compare.BEFORE, Compare.LARGER)), st.integers(200, 500)),
    st.integers(0, 80).map(Modseq),
    st.integers(1, 70).map(lambda uid: EmailId(str(uid))),
    st.integers(0, THREADS).map(ThreadId),
    st.builds(Regex, st.sampled_from(("subject", "from", "body")), st.sampled_from(("l(pha|orem)", "^a", "ip.+m$", r"\bx\b", "o{2}", "ü"))),
    st.builds(Within, st.booleans(), st.integers(0, 400 * 86400)),
)
programs = st.recursive(
    leaves,
    lambda inner: st.one_of(
        inner.map(Not), st.builds(Or, inner, inner), st.lists(inner, min_size=1, max_size=4).map(lambda keys: And(tuple(keys)))
    ),
    max_leaves=8,
)


def disjoint(found: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    out: list[tuple[int, int]] = []
    for first, last in found:
        if out and first <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(out[-1][1], last))
        else:
            out.append((first, last))
    return tuple(out)


@pytest.fixture(scope="module", params=["indexed", "half of it is indexed", "more than a few are left", "nothing is indexed"])
def filled(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[LocalMailbox]:
    at_once_, expected, few = {
        "indexed": (20, 0, 128),
        "half of it is indexed": (35, 25, 128),
        "more than a few are left": (35, 25, 24),
        "nothing is indexed": (100, 60, 128),
    }[request.param]
    clock = Clock()
    clock.advance(NOW)
    files = MailboxFiles(Path(tmp_path_factory.mktemp("search")))
    files.create(ID, KEY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "MESSAGES", at_once_)
        mailbox = run(open_mailbox(files, ID, KEY, at_once, clock, nothing_waits))
        for message in SAMPLES:
            run(mailbox.append("INBOX", [NewMessage(message.content, message.flags, message.received)]))
        run(mailbox.append("Archive", [NewMessage(SAMPLES[0].content)]))
        assert unindexed(mailbox._reader) == expected
        patch.setattr(search, "FEW_UNINDEXED", few)
        yield mailbox
    run(mailbox.close())


def known(key: Key, mailbox: LocalMailbox) -> Key:
    """The program with the ids that the mailbox has given: EMAILID by UID, THREADID by the message that began the thread."""
    match key:
        case And(keys):
            return And(tuple(known(part, mailbox) for part in keys))
        case Or(left, right):
            return Or(known(left, mailbox), known(right, mailbox))
        case Not(inner):
            return Not(known(inner, mailbox))
        case EmailId(value):
            found = run(collect(mailbox.fetch(1, ((int(value), int(value)),), ("emailid",))))
            return EmailId(found[0][0].decode() if found else "0" * 24)
        case ThreadId(number):
            found = run(collect(mailbox.fetch(1, ((number + 1, number + 1),), ("threadid",)))) if number < THREADS else []
            return ThreadId(found[0][0] if found else 0)
        case _:
            return key


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(programs)
def test_answers_are_those_of_the_reference(filled: LocalMailbox, program: Key) -> None:
    modseqs = {message.uid: message.uid + 1 for message in SAMPLES}
    expected = [message.uid for message in SAMPLES if reference(program, message, modseqs)]
    assert run(filled.search(1, known(program, filled))) == expected


@pytest.mark.parametrize(
    "value", ["日本語", "日本", "ß", "SS", "Ω", "ω", "müller", "MÜLLER", 'quo"te', "it's", "100%", "%", "_", "*", "\0"]
)
def test_awkward_texts(filled: LocalMailbox, value: str) -> None:
    expected = [message.uid for message in SAMPLES if holds(value, message.body)]
    assert run(filled.search(1, Body(value))) == expected


def test_other_folders_do_not_answer(filled: LocalMailbox) -> None:
    archive = run(filled.select("Archive", claim_recent=False)).folder_id
    assert run(filled.search(archive, Body("lorem"))) == [1]


def test_a_key_of_the_session_is_a_bug(filled: LocalMailbox) -> None:
    with pytest.raises(ValueError, match="Sequence"):
        run(filled.search(1, Sequence(((1, None),))))


def test_many_ranges_in_one_program(filled: LocalMailbox) -> None:
    odd = tuple((uid, uid) for uid in range(1, 61, 2))
    assert run(filled.search(1, And((Uids(odd), Not(Uids(((31, 60),))))))) == list(range(1, 31, 2))


def test_texts_are_compared_only_where_it_matters(mailbox: LocalMailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """While many messages are not in the index, nobody pays for those that the rest of the program excludes."""
    monkeypatch.setattr(search, "FEW_UNINDEXED", 3)
    add(mailbox, *map(mail, range(9)))
    add(mailbox, *map(mail, range(20, 29)), folder="Archive")
    compared: list[object] = []

    def instr(*values: Any) -> int:
        compared.append(values)
        return int(values[0].find(values[1]) + 1)

    assert run(mailbox.search(1, Body("hello"))) == list(range(1, 10))
    assert mailbox._scanner is not None
    mailbox._scanner.create_scalar_function("instr", instr, 2, deterministic=True)
    assert run(mailbox.search(1, And((Uids(((3, 3),)), Body("hello"))))) == [3]
    assert len(compared) == 1
    assert run(mailbox.search(1, And((Body("hello"), Flag("\\Flagged"))))) == []
    assert len(compared) == 1
    assert run(mailbox.search(1, Body("hello"))) == list(range(1, 10))
    assert len(compared) == 10


def plans(mailbox: LocalMailbox, program: Key) -> str:
    """How SQLite goes about the search."""
    asked: list[tuple[str, Any]] = []

    def trace(cursor: apsw.Cursor, sql: str, values: Any) -> bool:
        asked.append((sql, values))
        return True

    reader = mailbox._reader
    reader.exec_trace = trace
    run(mailbox.search(1, program))
    reader.exec_trace = None
    sql, values = next(each for each in asked if each[0].startswith("SELECT e.id"))
    return " ".join(str(row[3]) for row in reader.execute("EXPLAIN QUERY PLAN " + sql, values))


def test_days_are_found_by_their_index(filled: LocalMailbox) -> None:
    """All that is asked for is in it, or it leaves few messages over; of many it would take longer to look each up."""
    days = sorted(message.received.date() for message in SAMPLES)
    late, early = days[-3], days[3]
    since_late, since_early = (Date(DateOf.INTERNAL, Compare.SINCE, day) for day in (late, early))
    seen = Flag("\\Seen")
    assert "COVERING INDEX entries_day" in plans(filled, since_early)
    assert "COVERING INDEX entries_day" in plans(filled, And((Uids(((1, 1000),)), since_early)))
    assert "INDEX entries_day" in plans(filled, And((since_late, seen)))
    assert "entries_day" not in plans(filled, And((since_early, seen)))
    for program in (since_late, since_early, And((since_late, seen)), Or(since_late, Not(since_early)), Not(since_late)):
        expected = [message.uid for message in SAMPLES if reference(program, message, {})]
        assert run(filled.search(1, program)) == expected
        assert expected or isinstance(program, And)
