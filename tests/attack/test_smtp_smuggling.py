"""SMTP smuggling: text that another server takes for the end of a message must not be taken for it here, nor passed on.

A front server that sees ``LF . LF`` (or any of the like) as text, before a server that sees the end of the message in it, lets an author
put a second message with a forged envelope into the first.  Here the message ends at CR LF . CR LF only, and one that contains a bare CR
or LF is refused as a whole, so that no server behind us can be tricked either.
"""

from __future__ import annotations

import pytest

from tests.servers.smtp.world import World

ENVELOPE = b"EHLO x.example.org\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<hello@example.com>\r\n"
SECOND = b"MAIL FROM:<boss@example.com>\r\nRCPT TO:<world@example.com>\r\nDATA\r\nSubject: forged\r\n\r\nx\r\n.\r\n"

FAKE_ENDS = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\n",
    b"\r\n.\r",
    b"\n.\r",
    b"\r.\n",
    b"\r\r\n.\r\r\n",
    b"\n\n.\n\n",
    b"\r\n\x00.\r\n\n",
    b"\r\n.\x00\r\n\r",
    b"\n\r.\n\r",
    b"\r\n.\r\r\n",
    b"\r\n.\n\r\n",
]


@pytest.mark.parametrize("end", FAKE_ENDS)
@pytest.mark.parametrize("size", [0, 1, 3])
def test_data(end: bytes, size: int) -> None:
    """One DATA, one refusal, nothing stored, and the smuggled commands never answered."""
    world = World()
    wire = world.connect()
    wire.send(ENVELOPE + b"DATA\r\n")
    wire.read()
    got = wire.send(b"Subject: x\r\n\r\ntext" + end + SECOND, size)
    # The real end is the one after the forged text.
    assert got == "550 5.6.0 message contains a bare CR or LF; lines must end in CR LF [id c0ffee]\r\n"
    assert world.mailboxes.stored == []
    assert wire.send(b"NOOP\r\n") == "250 2.0.0 ok\r\n"


@pytest.mark.parametrize("end", FAKE_ENDS)
@pytest.mark.parametrize("size", [0, 1, 3])
def test_bdat(end: bytes, size: int) -> None:
    """The same by BDAT, where not even CR LF . CR LF ends anything."""
    world = World()
    wire = world.connect()
    wire.send(ENVELOPE)
    body = b"Subject: x\r\n\r\ntext" + end + SECOND
    got = wire.send(b"BDAT %d LAST\r\n" % len(body) + body, size)
    assert got == "550 5.6.0 message contains a bare CR or LF; lines must end in CR LF [id c0ffee]\r\n"
    assert world.mailboxes.stored == []


def test_terminator_inside_bdat_is_text() -> None:
    """CR LF . CR LF in a chunk is kept as it is."""
    world = World()
    wire = world.connect()
    wire.send(ENVELOPE)
    body = b"Subject: x\r\n\r\ntext\r\n.\r\n" + SECOND
    assert wire.send(b"BDAT %d LAST\r\n" % len(body) + body).startswith("250 2.0.0 accepted")
    assert [address for address, _ in world.mailboxes.stored] == ["hello@example.com"]
    assert world.mailboxes.stored[0][1].endswith(body)


def test_newline_cut_between_chunks() -> None:
    """A CR at the end of one chunk and something else than LF at the beginning of the next is a bare CR."""
    world = World()
    wire = world.connect()
    wire.send(ENVELOPE)
    assert wire.send(b"BDAT 2\r\na\r") == "250 2.0.0 chunk received\r\n"
    assert wire.send(b"BDAT 2 LAST\r\nb\r").startswith("550 5.6.0")
    assert world.mailboxes.stored == []


@pytest.mark.parametrize("separator", [b"\n", b"\r", b"\r\r\n\n", b"\n\r"])
def test_commands_behind_a_bare_newline(separator: bytes) -> None:
    """A command line with a bare CR or LF is one bad command, whose second half is not run."""
    world = World()
    wire = world.connect()
    wire.read()
    got = wire.send(b"NOOP" + separator + b"QUIT\r\nNOOP\r\n")
    assert got.startswith("500 5.5.2 ")
    assert got.endswith("\r\n250 2.0.0 ok\r\n")
    assert not wire.closed


def test_refused_chunk_is_not_commands() -> None:
    """BDAT out of order: its octets are consumed, although they look like commands."""
    world = World()
    wire = world.connect()
    wire.send(b"EHLO x\r\n")
    got = wire.send(b"BDAT %d LAST\r\n" % len(SECOND) + SECOND + b"NOOP\r\n")
    assert got == "503 5.5.1 bad sequence of commands [id c0ffee]\r\n250 2.0.0 ok\r\n"
    assert world.mailboxes.stored == []


def test_chunk_of_unreadable_size_ends_the_connection() -> None:
    """Where its octets end cannot be known, so nothing after it is read."""
    world = World()
    wire = world.connect()
    wire.send(ENVELOPE)
    assert wire.send(b"BDAT 0x40 LAST\r\n" + SECOND).startswith("501 5.5.2 syntax: BDAT size [LAST]")
    assert wire.protocol.closing
    assert world.mailboxes.stored == []
