"""How much memory answers and uploads take, however much they are: less than 50 MiB more, the largest messages included."""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.whole.conftest import IN_CI
from tests.whole.daemon import Daemon, Owner
from tests.whole.wire import Imap

MIB = 1024 * 1024
#: Octets that are asked for at once.
MANY = (1024 if IN_CI else 192) * MIB
BOUND = 50 * MIB


@contextmanager
def bounded(daemon: Daemon) -> Iterator[None]:
    """The daemon's memory may at no moment be so much more than before."""
    daemon.forget_peak()
    before = daemon.rss()
    yield
    grown = daemon.peak() - before
    print(f"{grown / MIB:.1f} MiB")
    assert grown < BOUND, f"grew by {grown / MIB:.1f} MiB"


def message(size: int) -> bytes:
    """One with an attachment of so many octets."""
    noise = base64.encodebytes(random.Random(size).randbytes(size * 57 // 78)).replace(b"\n", b"\r\n")
    return (
        b"Subject: large\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhello\r\n"
        b"--b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n" + noise + b"--b--\r\n"
    )


def many(imap: Imap, content: bytes) -> int:
    """Fill INBOX with copies; the octets of all of them."""
    assert b"OK" in imap.append(content)[-1]
    octets = len(content)
    while octets < MANY:
        assert b"OK" in imap.ask(b"UID COPY 1:* INBOX")[-1]
        octets *= 2
    imap.ask(b"NOOP")
    return octets


def stream(imap: Imap, command: bytes) -> int:
    """Send a command and throw its answer away; the octets of it."""
    tag = imap.command(command)
    octets, end = 0, b""
    while not end.endswith(b"\r\n") or b"\r\n" + tag + b" " not in end:
        piece = imap.socket.recv(MIB)
        assert piece, "the connection ended"
        octets += len(piece)
        end = (end + piece)[-200:]
    assert b"\r\n" + tag + b" OK" in end
    return octets


@pytest.mark.parametrize("size", [20_000, 2 * MIB, 45 * MIB])
def test_answers(daemon: Daemon, owner: Owner, size: int) -> None:
    with Imap(daemon, owner, "INBOX", timeout=120, door="imap") as imap:
        octets = many(imap, message(size))
        with bounded(daemon):
            assert stream(imap, b"FETCH 1:* BODY.PEEK[]") > octets
        with bounded(daemon):
            assert stream(imap, b"FETCH 1:* BODY.PEEK[2]") > octets * 0.9
        if size == 45 * MIB:
            with bounded(daemon):
                for start in range(0, 20):
                    assert stream(imap, b"FETCH 1 BODY.PEEK[]<%d.65536>" % (start * 65_536)) > 65_536


@pytest.mark.parametrize("size", [20_000, 45 * MIB])
def test_a_client_that_stops_reading(daemon: Daemon, owner: Owner, size: int) -> None:
    with Imap(daemon, owner, "INBOX", timeout=120, door="imap") as imap:
        many(imap, message(size))
        with bounded(daemon):
            for _ in range(20):
                imap.command(b"FETCH 1:* BODY.PEEK[]")
            time.sleep(2)


def test_uploads_and_the_first_look_at_a_big_mailbox(daemon: Daemon, owner: Owner) -> None:
    """Thousands of messages by APPEND, indexed as they come; then everything about all of them."""
    chance = random.Random(1)
    words = [bytes(chance.choices(b"abcdefghijklmnopqrstuvwxyz", k=chance.randint(3, 12))) for _ in range(5_000)]
    count = 4_000 if IN_CI else 1_000
    with Imap(daemon, owner, "INBOX", timeout=120, door="imap") as imap:
        with bounded(daemon):
            for start in range(0, count, 50):
                contents = [
                    b"Message-ID: <%d@example.org>\r\nSubject: %d\r\n\r\n%b\r\n"
                    % (number, number, b" ".join(chance.choices(words, k=1_500)))
                    for number in range(start, start + 50)
                ]
                assert b"OK" in imap.ask(b"APPEND INBOX " + b" ".join(b"{%d+}\r\n%b" % (len(one), one) for one in contents))[-1]
        for _ in range(4):
            imap.ask(b"UID COPY 1:* INBOX")
    with Imap(daemon, owner, timeout=120, door="imap") as imap, bounded(daemon):
        for command in (
            b"SELECT INBOX",
            b"FETCH 1:* (UID FLAGS ENVELOPE BODYSTRUCTURE)",
            b"SORT (SUBJECT) UTF-8 ALL",
            b"THREAD REFERENCES UTF-8 ALL",
            b"SEARCH BODY " + words[0],
        ):
            stream(imap, command)
