"""The MX session where time, order and other sessions matter."""

from __future__ import annotations

import pytest

from fe_twisted.base.errors import DiskFull
from fe_twisted.servers.smtp.limits import MxLimits
from fe_twisted.servers.smtp.session import HIGH_WATER
from tests.servers.smtp.world import World

ENVELOPE = b"EHLO x.example.org\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<hello@example.com>\r\n"
MESSAGE = b"Subject: x\r\n\r\ntext\r\n.\r\n"


def codes(text: str) -> list[str]:
    """The reply codes, one for each reply."""
    return [line[:3] for line in text.splitlines() if line[3:4] == " "]


def test_replies_keep_their_order_when_lookups_are_slow() -> None:
    """Each RCPT is answered before the next command is looked at (twisted-mail.md section 2, fault d)."""
    world = World()
    world.directory.slow = True
    wire = world.connect()
    got = wire.send(ENVELOPE + b"RCPT TO:<nobody@example.com>\r\nNOOP\r\nDATA\r\n" + MESSAGE)
    assert codes(got) == ["220", "250", "250"]
    world.directory.answer()
    assert codes(wire.read()) == ["250"]
    assert len(world.directory.waiting) == 1
    world.directory.answer()
    assert codes(wire.read()) == ["550", "250", "354", "250"]


def test_quit_waits_for_the_delivery() -> None:
    """221 never comes before the 250 of the message (fault c)."""
    world = World()
    world.mailboxes.slow = True
    wire = world.connect()
    wire.send(ENVELOPE + b"DATA\r\n" + MESSAGE + b"QUIT\r\n")
    assert wire.read() == ""
    assert not wire.closed
    world.mailboxes.finish()
    assert codes(wire.read()) == ["250", "221"]
    assert wire.closed


def test_lost_inside_the_message_stores_nothing() -> None:
    """And gives back what it took."""
    world = World()
    wire = world.connect()
    wire.send(ENVELOPE + b"DATA\r\n" + MESSAGE[:-3])
    assert world.factory.budget.free < world.factory.shared.limits.in_flight
    wire.lose()
    assert world.mailboxes.stored == []
    assert world.factory.budget.free == world.factory.shared.limits.in_flight
    assert world.clock.getDelayedCalls() == []


def test_lost_during_the_delivery_delivers() -> None:
    """The message was complete; the client will send it again, which is better than losing it."""
    world = World()
    world.mailboxes.slow = True
    wire = world.connect()
    wire.send(ENVELOPE + b"DATA\r\n" + MESSAGE)
    wire.lose()
    assert world.factory.budget.free < world.factory.shared.limits.in_flight
    world.mailboxes.finish()
    assert len(world.mailboxes.stored) == 1
    assert wire.read() == ""
    assert world.factory.budget.free == world.factory.shared.limits.in_flight
    assert world.factory.delivering == 0


def test_a_client_that_goes_on_sending_is_told_to_wait() -> None:
    """Back-pressure: above HIGH_WATER octets behind a delivery the transport is paused, and resumed after it."""
    world = World(MxLimits(commands=10**6))
    world.mailboxes.slow = True
    wire = world.connect()
    wire.send(ENVELOPE + b"DATA\r\n" + MESSAGE)
    wire.send(b"NOOP\r\n" * 5000)
    assert wire.transport.producerState == "producing"
    wire.send(b"NOOP\r\n" * (HIGH_WATER // 6))
    assert wire.transport.producerState == "paused"
    world.mailboxes.finish()
    assert wire.transport.producerState == "producing"
    assert len(codes(wire.read())) == 1 + 5000 + HIGH_WATER // 6


def test_a_failing_disk_is_temporary() -> None:
    """452, 451 for anything that is no MailError, and the session goes on (fault g)."""
    world = World()
    wire = world.connect()
    wire.send(ENVELOPE)
    world.mailboxes.fails["hello@example.com"] = DiskFull()
    assert wire.send(b"DATA\r\n" + MESSAGE).splitlines()[-1] == "452 4.3.1 insufficient system storage [id c0ffee]"
    world.mailboxes.fails["hello@example.com"] = ZeroDivisionError("a bug")
    got = wire.send(ENVELOPE + b"DATA\r\n" + MESSAGE)
    assert got.splitlines()[-1] == "451 4.3.0 internal error [id c0ffee]"
    world.mailboxes.fails.clear()
    assert codes(wire.send(ENVELOPE + b"DATA\r\n" + MESSAGE))[-1] == "250"


def test_a_bug_in_the_directory_is_temporary(monkeypatch: pytest.MonkeyPatch) -> None:
    """RCPT says 451 and the other recipients live on."""
    world = World()
    wire = world.connect()
    monkeypatch.setattr(world.directory, "aliases", None)
    assert codes(wire.send(ENVELOPE))[-1] == "451"
    monkeypatch.undo()
    assert codes(wire.send(b"RCPT TO:<hello@example.com>\r\n")) == ["250"]


def test_too_much_mail_at_once() -> None:
    """All sessions together hold no more than in_flight octets; the others are asked to come again."""
    world = World(MxLimits(in_flight=1000))
    first, second = world.connect(), world.connect()
    first.send(ENVELOPE + b"DATA\r\n" + b"x" * 600 + b"\r\n")
    got = second.send(ENVELOPE + b"DATA\r\n" + b"x" * 600 + b"\r\n.\r\n")
    assert got.splitlines()[-1] == "452 4.3.1 too much mail at once, try again later [id c0ffee]"
    assert codes(first.send(b".\r\n")) == ["250"]
    assert world.factory.budget.free == 1000
    assert codes(second.send(ENVELOPE + b"DATA\r\n" + b"x" * 600 + b"\r\n.\r\n"))[-1] == "250"


def test_a_message_that_will_be_refused_is_not_kept() -> None:
    """Once a flaw is seen, the memory is free before the message is at its end."""
    world = World()
    wire = world.connect()
    wire.send(ENVELOPE + b"DATA\r\n" + b"x" * 600 + b"\r\n")
    wire.send(b"bare\nnewline")
    assert world.factory.budget.free == world.factory.shared.limits.in_flight
    assert codes(wire.send(b"\r\n.\r\n")) == ["550"]


def test_connections_per_address() -> None:
    """The third of one address is refused, one of another is not, and room is made when one goes."""
    world = World(per_address=2)
    first, _second = world.connect(), world.connect()
    third = world.connect()
    assert third.read() == "421 4.7.0 mx.example.com too many connections, try again later [id c0ffee]\r\n"
    assert third.closed
    third.lose()
    assert world.connect("192.0.2.8").read().startswith("220")
    first.lose()
    assert world.connect().read().startswith("220")


def test_a_client_that_never_hangs_up_is_cut_off() -> None:
    """After our last word the connection is aborted when it does not end by itself."""
    world = World()
    wire = world.connect()
    wire.send(b"QUIT\r\n")
    assert wire.closed
    assert not wire.transport.aborted
    world.clock.advance(world.factory.shared.limits.closing)
    assert wire.transport.aborted


def test_session_over_during_a_delivery_waits_for_it() -> None:
    """The 250 is said before the 421."""
    world = World(MxLimits(session=10, idle=5))
    world.mailboxes.slow = True
    wire = world.connect()
    wire.send(ENVELOPE + b"DATA\r\n" + MESSAGE)
    world.clock.pump([5, 5])
    assert not wire.closed
    world.mailboxes.finish()
    assert codes(wire.read()) == ["250", "421"]
    assert wire.closed


def test_shutdown() -> None:
    """Idle sessions get 421 at once; a delivery is finished and answered first, and shutdown waits for it."""
    world = World()
    idle, busy = world.connect(), world.connect()
    world.mailboxes.slow = True
    busy.send(ENVELOPE + b"DATA\r\n" + MESSAGE)
    idle.read()
    over: list[object] = []
    world.factory.shutdown().addCallback(over.append)
    assert idle.read() == "421 4.3.2 mx.example.com shutting down, closing [id c0ffee]\r\n"
    assert idle.closed
    assert not over
    world.mailboxes.finish()
    assert over == [None]
    assert codes(busy.read()) == ["250", "421"]
    assert busy.closed


def test_shutdown_in_the_middle_of_a_message_stores_nothing() -> None:
    """The client reads its 421 whatever it goes on to send."""
    world = World()
    wire = world.connect()
    wire.send(ENVELOPE + b"DATA\r\nSubject: x\r\n")
    over: list[object] = []
    world.factory.shutdown().addCallback(over.append)
    assert wire.read() == "421 4.3.2 mx.example.com shutting down, closing [id c0ffee]\r\n"
    assert over == [None]
    assert not wire.closed
    assert wire.send(b"\r\ntext\r\n.\r\n") == ""
    assert world.mailboxes.stored == []
    world.clock.advance(world.factory.shared.limits.closing)
    assert wire.transport.aborted


DISMISSED = "421 4.3.2 mx.example.com shutting down, closing [id c0ffee]\r\n"


def test_dismiss_serves_who_has_only_just_come() -> None:
    """Accepted the moment before the process was replaced: a message is taken, whatever pauses the client makes within it."""
    world = World()
    wire = world.connect()
    for piece in (b"EHLO x.example.org\r\n", b"MAIL FROM:<a@example.org>\r\n", b"RCPT TO:<hello@example.com>\r\n", b"DATA\r\n", b"a: b"):
        assert world.factory.dismiss() == 1
        world.clock.advance(1.9)
        wire.send(piece)
    world.clock.advance(9)
    assert world.factory.dismiss() == 1
    assert codes(wire.send(b"\r\n.\r\n")) == ["250"]
    assert len(world.mailboxes.stored) == 1
    world.factory.dismiss()
    assert wire.read() == ""
    world.clock.advance(2)
    world.factory.dismiss()
    assert wire.read() == DISMISSED
    wire.protocol.connectionLost()
    assert world.factory.dismiss() == 0


def test_dismiss_ends_those_between_two_messages() -> None:
    world = World()
    idle, greeted, half, begun = (world.connect() for _ in range(4))
    idle.send(b"EHLO x.example.org\r\n")
    half.send(b"EHLO x.example.org\r\nMAIL FR")
    begun.send(b"EHLO x.example.org\r\nMAIL FROM:<a@example.org>\r\n")
    greeted.read()
    world.clock.advance(5)
    assert world.factory.dismiss() == 4
    assert idle.read() == DISMISSED
    assert idle.closed and not (greeted.closed or half.closed or begun.closed)
    assert codes(greeted.send(b"EHLO x.example.org\r\n")) == ["250"]


def test_dismiss_waits_for_deliveries() -> None:
    """Also for one whose client has gone."""
    world = World()
    world.mailboxes.slow = True
    wire, lost = world.connect(), world.connect()
    for each in (wire, lost):
        each.send(ENVELOPE + b"DATA\r\n" + MESSAGE)
    lost.protocol.connectionLost()
    world.clock.advance(5)
    assert world.factory.dismiss() == 3
    world.mailboxes.finish()
    world.mailboxes.finish()
    assert codes(wire.read())[-1] == "250"
    assert world.factory.dismiss() == 1
    assert wire.read() == ""
    world.clock.advance(2)
    world.factory.dismiss()
    assert wire.read() == DISMISSED


def test_a_client_that_speaks_before_the_greeting() -> None:
    """It costs one of its errors; the commands are answered after the greeting."""
    world = World(MxLimits(greeting_delay=2, errors=2))
    early, polite = world.connect(), world.connect()
    assert early.send(b"NOOP\r\nFOO\r\n") == ""
    assert polite.read() == ""
    world.clock.advance(2)
    assert codes(early.read()) == ["220", "250", "500", "421"]
    assert codes(polite.send(b"NOOP\r\nFOO\r\n")) == ["220", "250", "500"]


def test_partial_failure_names_the_recipients() -> None:
    """A reply of several lines, each with the code."""
    world = World()
    world.mailboxes.fails["world@example.com"] = DiskFull()
    wire = world.connect()
    got = wire.send(ENVELOPE + b"RCPT TO:<world@example.com>\r\nDATA\r\n" + MESSAGE)
    assert got.splitlines()[-2:] == [
        "451-4.3.0 not stored for all recipients, send it again",
        "451 4.3.0 <world@example.com>: insufficient system storage [id c0ffee]",
    ]


def test_every_refusal_carries_the_connection_id() -> None:
    """So that a postmaster on the other side can quote it."""
    wire = World().connect()
    wire.read()
    for line in (b"FOO", b"MAIL FROM:<a@b.example>", b"HELO ()", b"EXPN x", b"x" * 5000):
        assert wire.send(line + b"\r\n").endswith(" [id c0ffee]\r\n")
