"""A client that wants to use up the server: every limit, and that over-long input never changes what the rest of it means."""

from __future__ import annotations

import pytest

from fe_twisted.servers.smtp.limits import MxLimits
from tests.servers.smtp.world import World

ENVELOPE = b"EHLO x.example.org\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<hello@example.com>\r\n"
FORGED = b"MAIL FROM:<boss@example.com>\r\nRCPT TO:<world@example.com>\r\nDATA\r\nforged\r\n"


@pytest.mark.parametrize("length", [998, 16_385, 99_998])
def test_a_long_line_of_text_is_text(length: int) -> None:
    """twisted.mail drops to commands at 16,384 octets (twisted-mail.md section 2, fault b)."""
    world = World()
    wire = world.connect()
    wire.send(ENVELOPE + b"DATA\r\n")
    body = b"x" * length + b"\r\n" + FORGED
    assert wire.send(body + b".\r\n", 4096).splitlines()[-1].startswith("250 2.0.0 accepted")
    assert [address for address, _ in world.mailboxes.stored] == ["hello@example.com"]
    assert world.mailboxes.stored[0][1].endswith(body)


def test_a_far_too_long_line_of_text_is_refused_text() -> None:
    """550, once, and none of the lines after it is a command."""
    world = World()
    wire = world.connect()
    wire.send(ENVELOPE + b"DATA\r\n")
    wire.read()
    got = wire.send(b"x" * 100_001 + b"\r\n" + FORGED + b".\r\nNOOP\r\n", 5000)
    assert got == "550 5.6.0 message contains a line that is too long [id c0ffee]\r\n250 2.0.0 ok\r\n"
    assert world.mailboxes.stored == []


def test_a_long_command_is_one_error() -> None:
    """500, and its tail is not a command."""
    wire = World().connect()
    wire.read()
    got = wire.send(b"NOOP " + b"x" * 5000 + b" QUIT\r\nNOOP\r\n", 1000)
    assert got == "500 5.5.2 command line too long [id c0ffee]\r\n250 2.0.0 ok\r\n"


def test_a_command_without_end_is_not_kept() -> None:
    """A megabyte without a line end takes no memory."""
    wire = World().connect()
    for _ in range(64):
        wire.send(b"x" * 16_384)
    assert wire.protocol.parser.buffered < 2


def test_announced_size() -> None:
    """SIZE above the limit is refused before a single octet of the message comes."""
    wire = World().connect()
    wire.send(b"EHLO x\r\n")
    for size in (52_428_801, 10**19):
        assert wire.send(b"MAIL FROM:<a@example.org> SIZE=%d\r\n" % size).startswith("552 5.3.4 message too large")
    assert wire.send(b"MAIL FROM:<a@example.org> SIZE=52428800\r\n").startswith("250")


@pytest.mark.parametrize("bdat", [False, True])
def test_a_message_above_the_limit(bdat: bool) -> None:
    """It is read to its end without being kept, refused, and the session goes on."""
    world = World(MxLimits(message_size=100_000))
    wire = world.connect()
    wire.send(ENVELOPE)
    body = (b"x" * 998 + b"\r\n") * 300
    if bdat:
        wire.send(b"BDAT %d LAST\r\n" % len(body))
    else:
        wire.send(b"DATA\r\n")
    kept = 0
    for start in range(0, len(body), 10_000):
        wire.read()
        wire.send(body[start : start + 10_000])
        kept = max(kept, world.factory.shared.limits.in_flight - world.factory.budget.free)
    got = wire.read() if bdat else wire.send(b".\r\n")
    assert 50_000 < kept <= 100_000
    assert got in ("", "552 5.3.4 message too large [id c0ffee]\r\n")
    assert wire.send(b"NOOP\r\n").endswith("250 2.0.0 ok\r\n")
    assert world.mailboxes.stored == []
    assert world.factory.budget.free == world.factory.shared.limits.in_flight


def test_a_message_without_end() -> None:
    """Above four times the limit the connection ends, after the reply had time to arrive."""
    world = World(MxLimits(message_size=1000))
    wire = world.connect()
    wire.send(ENVELOPE + b"DATA\r\n")
    wire.read()
    got = wire.send((b"x" * 78 + b"\r\n") * 51)
    assert got == "552 5.3.4 message too large [id c0ffee]\r\n"
    assert wire.send(b".\r\nNOOP\r\n") == ""
    world.clock.advance(world.factory.shared.limits.closing)
    assert wire.transport.aborted


def test_a_chunk_without_end() -> None:
    """The same when the size is announced: not one octet of it is waited for."""
    world = World(MxLimits(message_size=1000))
    wire = world.connect()
    wire.send(ENVELOPE)
    assert wire.send(b"BDAT 4001\r\n").startswith("552 5.3.4")
    assert wire.protocol.closing


def test_recipients() -> None:
    """The 101st is 452 4.5.3 and the first hundred stay (RFC 5321 section 4.5.3.1.10)."""
    world = World()
    wire = world.connect()
    wire.send(b"EHLO x\r\nMAIL FROM:<a@example.org>\r\n")
    got = wire.send(b"".join(b"RCPT TO:<hello+%d@example.com>\r\n" % number for number in range(101)))
    lines = got.splitlines()[-101:]
    assert all(line.startswith("250 2.1.5") for line in lines[:100])
    assert lines[100].startswith("452 4.5.3 too many recipients")
    assert wire.send(b"DATA\r\nx\r\n.\r\n").splitlines()[-1].startswith("250 2.0.0 accepted")
    assert len(world.mailboxes.stored) == 100


def test_errors() -> None:
    """The twentieth refusal ends the session: nobody guesses addresses here all day."""
    wire = World().connect()
    wire.send(b"EHLO x\r\nMAIL FROM:<a@example.org>\r\n")
    wire.read()
    got = wire.send(b"".join(b"RCPT TO:<guess%d@example.com>\r\n" % number for number in range(100)))
    lines = got.splitlines()
    assert len(lines) == 21
    assert all(line.startswith("550 5.1.1") for line in lines[:20])
    assert lines[20].startswith("421 4.7.0 mx.example.com too many errors")
    assert wire.closed


def test_commands() -> None:
    """The one after the last is 421."""
    wire = World(MxLimits(commands=10)).connect()
    wire.read()
    lines = wire.send(b"NOOP\r\n" * 50).splitlines()
    assert len(lines) == 11
    assert lines[10].startswith("421 4.7.0 mx.example.com too many commands")
    assert wire.closed


def test_empty_chunks_are_commands() -> None:
    """BDAT 0 for ever is as limited as NOOP."""
    wire = World(MxLimits(commands=10)).connect()
    wire.send(ENVELOPE)
    lines = wire.send(b"BDAT 0\r\n" * 50).splitlines()
    assert len(lines) == 8
    assert lines[7].startswith("421 4.7.0 mx.example.com too many commands")


def test_transactions() -> None:
    """The one after the last is 421."""
    wire = World(MxLimits(transactions=3)).connect()
    wire.send(b"EHLO x\r\n")
    lines = wire.send(b"MAIL FROM:<a@example.org>\r\nRSET\r\n" * 5).splitlines()
    assert [line[:3] for line in lines] == ["250"] * 6 + ["421"]
    assert wire.closed


def test_octet_by_octet_for_ever() -> None:
    """A client that sends one octet just before each timeout is ended by the limit on the session."""
    world = World()
    wire = world.connect()
    wire.send(ENVELOPE + b"DATA\r\n")
    got = ""
    for _ in range(11):
        world.clock.advance(170)
        got += wire.send(b"x")
    assert got.startswith("421 4.4.2 mx.example.com session took too long")
    assert world.mailboxes.stored == []
