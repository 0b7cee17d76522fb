"""Real and generated mail through every door and back, byte for byte."""

from __future__ import annotations

import imaplib
import re
from collections.abc import Iterator

import pytest

from tests.corpus.mail import Sample, everything
from tests.whole.daemon import Daemon, Owner, as_sent, contents, simple

SAMPLES = everything()


@pytest.fixture(scope="module")
def owner(daemon: Daemon) -> Owner:
    """One alias for the whole corpus."""
    return daemon.owner()


@pytest.fixture(scope="module")
def delivered(daemon: Daemon, owner: Owner) -> dict[str, int]:
    """Every sample delivered by MX while the owner is away; the UID of each."""
    for sample in SAMPLES:
        daemon.send(owner.address, sample.content, options=["BODY=8BITMIME"])
    return {sample.name: number for number, sample in enumerate(SAMPLES, 1)}


@pytest.fixture(scope="module")
def inbox(daemon: Daemon, owner: Owner, delivered: dict[str, int]) -> Iterator[imaplib.IMAP4_SSL]:
    """The owner's session after everything was delivered."""
    client = daemon.login(owner)
    yield client
    client.logout()


@pytest.fixture(scope="module")
def drafts(daemon: Daemon, owner: Owner) -> Iterator[imaplib.IMAP4_SSL]:
    """A session with Drafts, where the samples are appended."""
    client = daemon.login(owner, "Drafts")
    yield client
    client.logout()


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_delivered_and_fetched(inbox: imaplib.IMAP4_SSL, delivered: dict[str, int], sample: Sample) -> None:
    """BODY[] is what was sent; size, header and text agree with it; ENVELOPE and BODYSTRUCTURE are there."""
    uid = str(delivered[sample.name])
    (stored,) = contents(inbox, uid)
    assert as_sent(stored) == sample.content
    status, data = inbox.uid("FETCH", uid, "(RFC822.SIZE ENVELOPE BODYSTRUCTURE BODY FLAGS INTERNALDATE)")
    assert status == "OK"
    raw = b"".join(b"".join(item) if isinstance(item, tuple) else item for item in data)
    assert re.search(rb"RFC822\.SIZE %d\b" % len(stored), raw)
    assert b"ENVELOPE (" in raw and b"BODYSTRUCTURE (" in raw
    (header,) = [item[1] for item in inbox.uid("FETCH", uid, "(BODY.PEEK[HEADER])")[1] if isinstance(item, tuple)]
    (text,) = [item[1] for item in inbox.uid("FETCH", uid, "(BODY.PEEK[TEXT])")[1] if isinstance(item, tuple)] or [b""]
    assert header + text == stored or header + text == stored + b"\r\n"
    (middle,) = [item[1] for item in inbox.uid("FETCH", uid, "(BODY.PEEK[]<7.100>)")[1] if isinstance(item, tuple)]
    assert middle == stored[7:107]


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_appended_and_fetched(drafts: imaplib.IMAP4_SSL, sample: Sample) -> None:
    """APPEND keeps every byte."""
    status, data = drafts.append("Drafts", "", "", sample.content)
    assert status == "OK", data
    found = re.search(rb"APPENDUID \d+ (\d+)", data[0])
    assert found is not None
    assert contents(drafts, found[1].decode()) == [sample.content]


@pytest.mark.parametrize("sample", [sample for sample in SAMPLES if sample.words], ids=str)
def test_search_finds_it(inbox: imaplib.IMAP4_SSL, delivered: dict[str, int], sample: Sample) -> None:
    """SEARCH TEXT finds a message by words of it, decoded from whatever charset and encoding."""
    for word in sample.words:
        status, data = inbox.uid("SEARCH", "CHARSET", "UTF-8", "TEXT", f'"{word}"')
        assert status == "OK"
        assert str(delivered[sample.name]).encode() in data[0].split(), word


def test_mailbox_is_consistent_afterwards(daemon: Daemon, owner: Owner, delivered: dict[str, int]) -> None:
    answer = daemon.json("mailbox", "check", owner.address, "--password-stdin", stdin=owner.password + "\n")
    assert answer["problems"] == []


def test_search_in_other_scripts(daemon: Daemon) -> None:
    """A search for Cyrillic, Japanese and accented words finds them in every charset that they came in."""
    owner = daemon.owner()
    wanted = {
        "Привет": ("windows-1251", "koi8-r", "utf-8", "iso-8859-5"),
        "日本語": ("iso-2022-jp", "shift_jis", "euc-jp", "utf-8"),
        "Größe": ("iso-8859-1", "windows-1252", "utf-8", "utf-7"),
    }
    place: dict[str, list[bytes]] = {word: [] for word in wanted}
    number = 0
    with daemon.smtp() as client:
        for word, charsets in wanted.items():
            for charset in charsets:
                number += 1
                head = f"Subject: x\r\nContent-Type: text/plain; charset={charset}\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
                client.sendmail(
                    "a@example.net", owner.address, head.encode() + f"text {word} text".encode(charset) + b"\r\n", ["BODY=8BITMIME"]
                )
                place[word].append(str(number).encode())
        client.sendmail("a@example.net", owner.address, simple("none of them"))
    session = daemon.login(owner)
    for word, expected in place.items():
        session.literal = word.encode()  # type: ignore[attr-defined]
        assert session.uid("SEARCH", "CHARSET", "UTF-8", "BODY")[1][0].split() == expected, word
    session.logout()
