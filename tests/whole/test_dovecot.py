"""The same messages in our server and in Debian's Dovecot: every FETCH item and SEARCH of both, compared.

Each difference must be explained by a rule of :mod:`tests.whole.dovecot_differences`.  ``FE_TEST_MESSAGES`` says how many generated
messages there are beside those of the corpus.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.corpus.mail import Sample, everything
from tests.corpus.varied import varied
from tests.whole.conftest import IN_CI
from tests.whole.daemon import Daemon
from tests.whole.dovecot import PASSWORD, Dovecot
from tests.whole.dovecot_differences import MISSING, RULES, SEARCH_RULES, Difference, Found, Message
from tests.whole.twin import Items, Refused, Server
from tests.whole.values import Value, envelope, flat, sections

COUNT = int(os.environ.get("FE_TEST_MESSAGES", "2000" if IN_CI else "300"))

#: Fields for HEADER.FIELDS: some have several lines, some are in nearly every header, some in none.
FIELDS = "(From Subject received CONTENT-TYPE X-No-Such-Field)"
WHOLE = (
    "FLAGS",
    "INTERNALDATE",
    "RFC822.SIZE", "ENVELOPE", "BODY", "BODYSTRUCTURE", "BODY.PEEK[]", "BODY.PEEK[HEADER]", "BODY.PEEK[TEXT]", "RFC822.HEADER",
    f"BODY.PEEK[HEADER.FIELDS {FIELDS}]", f"BODY.PEEK[HEADER.FIELDS.NOT {FIELDS}]", "BODY.PEEK[]<0.100>", "BODY.PEEK[HEADER]<7.33>",
    "BODY.PEEK[TEXT]<3.4000>", "BODY.PEEK[TEXT]<100000.5>",
)  # fmt: skip
#: What is asked of each part.
PART = ("{}", "{}.MIME", "{}.HEADER", "{}.TEXT", f"{{}}.HEADER.FIELDS {FIELDS}", f"{{}}.HEADER.FIELDS.NOT {FIELDS}")
#: Numbers that most messages have no part for.
NOWHERE = ("9.9", "1.1.9")
MOST_PARTS = 60


@dataclass
class Both:
    """The two servers with the same messages, UIDs counting from 1."""

    samples: list[Sample]
    ours: Server
    theirs: Server

    def fetch(self, asked: list[tuple[int, Items]], found: tuple[dict[int, dict[str, Value]], dict[int, dict[str, Value]]]) -> None:
        """Add to what was found by each; both are at work at the same time."""
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda server: server.fetch(asked), (self.ours, self.theirs)))
        for values, answer in zip(found, answers, strict=True):
            for uid, more in answer.items():
                values.setdefault(uid, {}).update(more)


@pytest.fixture(scope="module")
def both(daemon: Daemon, needs: Callable[[str], str]) -> Iterator[Both]:
    """Everything appended to both, with flags and dates."""
    samples = [*everything(), *varied(COUNT)]
    flags = (rb"()", rb"(\Seen)", rb"(\Flagged \Answered)", rb"(\Draft $Label \Seen)", rb"(\Deleted)")
    start = datetime.datetime(2024, 1, 1, 12)
    arguments = []
    for number in range(len(samples)):
        # Near noon, so that it is the same day in UTC: Dovecot forgets the zone, and SEARCH ON is about the day in it.
        zone = datetime.timezone(datetime.timedelta(hours=number % 21 - 10, minutes=30 * (number % 2)))
        when = (start + datetime.timedelta(days=number % 80, minutes=number % 60)).replace(tzinfo=zone)
        arguments.append(flags[number % len(flags)] + when.strftime(' "%d-%b-%Y %H:%M:%S %z"').encode())
    dovecot = Dovecot(needs("dovecot"))
    try:
        owner = daemon.owner()
        found = Both(
            samples, Server("ours", daemon.port("imap"), owner.address, owner.password), Server("Dovecot", dovecot.port, "u", PASSWORD)
        )
        for server in (found.ours, found.theirs):
            answers = server.append("INBOX", samples, arguments)
            refused = [(sample.name, answer) for sample, answer in zip(samples, answers, strict=True) if not answer.startswith(b"OK")]
            assert len(answers) == len(samples) and not refused, (server.name, refused)
            server.select("INBOX")
        yield found
        found.ours.close()
        found.theirs.close()
    finally:
        dovecot.close()


@pytest.fixture(scope="module")
def differences(both: Both) -> list[tuple[str, Difference]]:
    """All of them, with the names of the messages."""
    uids = range(1, len(both.samples) + 1)
    found: tuple[dict[int, dict[str, Value]], dict[int, dict[str, Value]]] = ({}, {})
    both.fetch([(uid, WHOLE) for uid in uids], found)
    parts: list[tuple[int, Items]] = []
    decoded: list[tuple[int, Items]] = []
    for uid in uids:
        numbers = {number for values in found for number in sections(values[uid]["BODY"])}
        for number in [*sorted(numbers)[:MOST_PARTS], *NOWHERE]:
            items = [f"BODY.PEEK[{section.format(number)}]" for section in PART]
            parts.append((uid, (*items, f"BODY.PEEK[{number}]<0.9>", f"BODY.PEEK[{number}]<5.12>")))
            decoded.append((uid, (f"BINARY.PEEK[{number}]", f"BINARY.SIZE[{number}]")))
    both.fetch(parts, found)
    both.fetch(decoded, found)
    return [
        (sample.name, difference)
        for uid, sample in zip(uids, both.samples, strict=True)
        for difference in _compare(Message(sample.content), found[0][uid], found[1][uid])
    ]


def _compare(message: Message, ours: dict[str, Value], theirs: dict[str, Value]) -> Iterator[Difference]:
    for name in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(name, MISSING), theirs.get(name, MISSING)
        if name == "FLAGS":  # Dovecot keeps \Recent for the one session that there is; ours is as RFC 9051 wants it, or has it too
            mine, other = ({str(flag).lower() for flag in flags} - {"\\recent"} for flags in (mine, other))
        elif name == "INTERNALDATE":
            mine, other = (datetime.datetime.strptime(when.decode(), "%d-%b-%Y %H:%M:%S %z") for when in (mine, other))
        elif name == "ENVELOPE":
            yield from _cells(message, "envelope", envelope(mine), envelope(other))
            continue
        elif name in ("BODY", "BODYSTRUCTURE"):
            yield from _cells(message, "structure", flat(mine), flat(other))
            continue
        if mine != other:
            kind, _, section = name.replace("RFC822.HEADER", "BODY[HEADER]").removesuffix("]").partition("[")
            item = {"BODY": "section", "BINARY": "binary", "BINARY.SIZE": "binary"}.get(kind, "plain") if section else "plain"
            yield Difference(message, item, section or name, mine, other)


def _cells(message: Message, item: str, ours: dict[str, Value], theirs: dict[str, Value]) -> Iterator[Difference]:
    for place in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(place, MISSING), theirs.get(place, MISSING)
        if mine != other:
            yield Difference(message, item, place, mine, other)


@pytest.fixture(scope="module")
def explained(differences: list[tuple[str, Difference]]) -> tuple[set[str], list[str]]:
    """The rules that were needed, each difference being explained by the first one that fits; and the differences that none explains."""
    used: set[str] = set()
    left: list[str] = []
    for name, one in differences:
        rule = next((rule for rule in RULES if rule.explains(one)), None)
        if rule is not None:
            used.add(rule.name)
        else:
            left.append(f"{name}: {one.item} {one.place}\n   ours   {one.ours!r:.300}\n   theirs {one.theirs!r:.300}")
    return used, left


def test_every_difference_is_explained(explained: tuple[set[str], list[str]]) -> None:
    """By a rule that says who is right and why."""
    left = explained[1]
    assert not left, f"{len(left)} differences have no rule\n" + "\n".join(left[:20])


@pytest.mark.skipif(COUNT < 2000, reason="some rules are for what is rare")
def test_every_rule_is_needed(explained: tuple[set[str], list[str]]) -> None:
    assert {rule.name for rule in RULES} - explained[0] == set()


def test_most_messages_are_the_same(both: Both, differences: list[tuple[str, Difference]]) -> None:
    """No rule may hide everything: most messages whose MIME is well-formed have the same structure cell by cell, names' case aside."""
    sound = {sample.name for sample in both.samples if not Message(sample.content).defects}
    cells = {"size", "lines", "children"}
    differ = {name for name, one in differences if one.item == "structure" and one.cell in cells}
    assert len(sound) > len(both.samples) * 0.4
    assert not sound & differ, sorted(sound & differ)[:5]


#: Keys that mean the same in both servers for every message here.
SEARCHES = (
    "ALL",
    "ANSWERED",
    "UNANSWERED",
    "DELETED",
    "UNDELETED",
    "DRAFT",
    "UNDRAFT",
    "FLAGGED",
    "UNFLAGGED",
    "SEEN",
    "UNSEEN",
    "KEYWORD $Label",
    "UNKEYWORD $Label",
    "KEYWORD no-such",
    "BEFORE 20-Jan-2024",
    "ON 20-Jan-2024",
    "SINCE 20-Jan-2024",
    "NOT SINCE 1-Feb-2024",
    "LARGER 1000",
    "SMALLER 1000",
    "LARGER 0",
    "LARGER 4294967295",
    "UID 5:9,*",
    "3:7",
    "7,200:4",
    "*",
    "NOT 5:*",
    "OR SEEN DELETED",
    "OR (SEEN FLAGGED) NOT (DRAFT 1:50)",
    "NOT (OR SEEN (UNDELETED UID 1:40))",
    "NOT NOT SEEN",
    "SEEN SINCE 15-Jan-2024 BEFORE 15-Feb-2024 LARGER 500",
    "SENTSINCE 1-Jan-2024",
    "SENTBEFORE 1-Jan-1990",
    "SENTON 7-Apr-2024",
    "SENTON 13-Mar-2010",
    "SUBJECT plain",
    'SUBJECT "plain subject"',
    "SUBJECT PLAIN",
    "NOT SUBJECT plain",
    'FROM "jane@example.org"',
    'FROM "JOE USER"',
    'TO "first.last"',
    "CC abc",
    'BCC ""',
    'HEADER Message-ID ""',
    'HEADER X-No-Such-Field ""',
    'HEADER X-Mailer "generated"',
    'HEADER References "@example.net"',
    'HEADER List-Id "list"',
    "BODY zulu",
    "BODY yankee NOT BODY zulu",
    'BODY "no such words"',
    "TEXT holiday",
    "TEXT marker-koi",
    "TEXT marker-gb",
    'CHARSET UTF-8 SUBJECT "invoice"',
    "CHARSET US-ASCII TEXT budget",
    "CHARSET X-NO-SUCH TEXT budget",
)


@pytest.mark.parametrize("keys", SEARCHES)
def test_searches(both: Both, keys: str) -> None:
    """UID SEARCH gives the same messages, those aside for which the list has a reason."""
    ours, theirs = both.ours.search(keys.encode()), both.theirs.search(keys.encode())
    if isinstance(ours, Refused) or isinstance(theirs, Refused):
        assert ours == theirs
        return
    assert ours == sorted(set(ours))
    differ = {uid: uid in set(ours) for uid in set(ours) ^ set(theirs)}
    left = [
        f"{both.samples[uid - 1].name}: {'only we' if found else 'only Dovecot'}"
        for uid, found in sorted(differ.items())
        if not any(rule.explains(Found(Message(both.samples[uid - 1].content), keys, found)) for rule in SEARCH_RULES)
    ]
    assert not left, f"{len(left)} of {len(differ)}\n" + "\n".join(left[:10])
