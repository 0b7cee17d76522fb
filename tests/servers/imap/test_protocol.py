"""One connection: order, waiting, limits, and ends of every kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher

from fe_twisted.base.errors import DiskFull, Later, StorageFailed, TooManyConnections
from fe_twisted.servers.connection import ConnectionLimit
from fe_twisted.servers.imap.limits import ImapLimits
from fe_twisted.storage.mailbox.api import NewMessage
from tests.servers.imap.house import PASSWORD, House, Slow, mail
from tests.storage.mailbox.driving import ID, run


@pytest.fixture
def events() -> Iterator[list[dict[str, Any]]]:
    """All that is logged."""
    seen: list[dict[str, Any]] = []
    globalLogPublisher.addObserver(seen.append)
    yield seen
    globalLogPublisher.removeObserver(seen.append)


def logged(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [event["fields"] for event in events if event.get("event") == name]


# -- order ----------------------------------------------------------------------------------------


def test_pipelined_select_and_fetch_in_one_segment_even_when_select_has_to_wait(house: House) -> None:
    house.fill("INBOX", 2)
    client = house.login()
    client.take()
    house.threads.held = True
    client.send(b"a SELECT INBOX\r\nb FETCH 1:* UID\r\nc NOOP\r\n")
    assert client.take() == b""
    house.threads.work()
    lines = client.lines()
    tagged = [line.split()[0] for line in lines if not line.startswith("*")]
    assert tagged == ["a", "b", "c"]
    assert lines.index("* 1 FETCH (UID 1)") > lines.index("a OK [READ-WRITE] SELECT completed")


def test_commands_that_wait_are_answered_in_the_order_sent(house: House) -> None:
    house.fill("INBOX", 3)
    client = house.login("INBOX")
    house.threads.held = True
    client.send(b"1 STORE 1 +FLAGS (\\Seen)\r\n2 COPY 1:2 Sent\r\n3 SEARCH BODY message\r\n")
    client.send(b"4 EXPUNGE\r\n5 STATUS Sent (MESSAGES)\r\n6 CREATE New\r\n")
    house.threads.work()
    lines = client.lines()
    assert [line.split()[0] for line in lines if line[0] != "*"] == list("123456")
    assert "* STATUS Sent (MESSAGES 2)" in lines


def test_create_is_not_answered_before_it_is_done(house: House) -> None:
    client = house.login()
    client.take()
    house.threads.held = True
    client.send(b"a CREATE New\r\n")
    assert client.take() == b""
    house.threads.work()
    (line,) = client.lines()
    assert line.startswith("a OK ") and line.endswith(" CREATE completed")


def test_ten_thousand_pipelined_commands_leave_others_their_turn(house: House) -> None:
    busy, other = house.login(), house.login()
    busy.take()
    busy.send(b"".join(b"%d NOOP\r\n" % number for number in range(1000)))
    assert len(busy.lines()) == house.factory.limits.commands_per_turn
    assert other.ask("NOOP") == ["t OK NOOP completed"]
    for _ in range(10):
        house.clock.advance(0)
    assert busy.lines()[-1] == "999 OK NOOP completed"


# -- bounded memory -------------------------------------------------------------------------------


def test_input_behind_a_running_command_is_not_read_without_end(house: House) -> None:
    client = house.login("INBOX")
    house.threads.held = True
    client.send(b"a CREATE New\r\n")
    for _ in range(20):
        client.send(b"n NOOP\r\n" * 1024)
        if client.transport.producerState == "paused":
            break
    assert client.protocol._parser.buffered < 2 * house.factory.limits.input_buffer
    assert client.transport.producerState == "paused"
    house.threads.work()
    for _ in range(200):
        house.clock.advance(0)
    assert client.transport.producerState == "producing"
    assert client.lines()[-1] == "n OK NOOP completed"


def test_a_large_fetch_to_a_slow_client_holds_little_memory(house: House) -> None:
    big = "x" * 70 + "\r\n"
    run(house.mailbox.append("INBOX", [NewMessage(mail(number, big * 10_000)) for number in range(4)]))
    house.fill("INBOX", 200)
    client = house.login("INBOX", network=Slow)
    slow = client.transport
    assert isinstance(slow, Slow)
    slow.move()
    slow.most = 0
    client.send(b"a FETCH 1:* (UID BODY.PEEK[])\r\n")
    received = slow.move()
    for _ in range(200):
        if received.endswith(b"a OK FETCH completed\r\n"):
            break
        received += slow.move()
    assert received.endswith(b"a OK FETCH completed\r\n")
    assert len(received) > 2_880_000
    assert slow.most < 65_536 + 65_536 + house.factory.limits.output_block


def test_a_client_that_does_not_read_is_cut_off(house: House) -> None:
    run(house.mailbox.append("INBOX", [NewMessage(mail(1, "x" * 900_000))]))
    client = house.login("INBOX", network=Slow)
    client.send(b"a FETCH 1 BODY.PEEK[]\r\n")
    house.clock.advance(house.factory.limits.stall + 1)
    assert client.transport.disconnected
    client.drop()
    assert house.doorman.inside == 0


def test_the_message_comes_whole_through_pieces(house: House) -> None:
    content = mail(1, "".join(f"{number}\r\n" for number in range(60_000)))
    run(house.mailbox.append("INBOX", [NewMessage(content)]))
    client = house.login("INBOX", network=Slow)
    slow = client.transport
    assert isinstance(slow, Slow)
    slow.move()
    client.send(b"a UID FETCH 1 BODY.PEEK[]\r\n")
    received = b""
    while not received.endswith(b"a OK FETCH completed\r\n"):
        more = slow.move()
        assert more
        received += more
    assert b"{%d}\r\n%b" % (len(content), content) in received


# -- ends -----------------------------------------------------------------------------------------


def test_the_mailbox_is_given_back_only_after_the_running_command(house: House) -> None:
    client = house.login("INBOX")
    house.threads.held = True
    client.send(b"a CREATE New\r\n")
    client.drop()
    assert house.doorman.inside == 1
    house.threads.work()
    assert house.doorman.inside == 0
    assert "New" in [folder.name for folder in run(house.mailbox.folders())]


def test_a_client_that_leaves_during_login_gets_no_mailbox(house: House) -> None:
    waiting: Deferred[None] = Deferred()
    house.doorman.before = lambda: waiting
    client = house.connect()
    client.send(b"a LOGIN hello@example.com secret\r\n")
    client.drop()
    waiting.callback(None)
    assert house.doorman.inside == 0
    assert not house.factory.live


def test_a_client_that_leaves_during_fetch(house: House) -> None:
    house.fill("INBOX", 300)
    run(house.mailbox.append("INBOX", [NewMessage(mail(1, "x" * 900_000))]))
    client = house.login("INBOX", network=Slow)
    client.send(b"a FETCH 1:* BODY.PEEK[]\r\n")
    assert house.doorman.inside == 1
    client.drop()
    assert house.doorman.inside == 0


@pytest.mark.parametrize("command", [b"a IDLE\r\n", b"a AUTHENTICATE PLAIN\r\n"])
def test_a_client_that_leaves_while_a_line_is_awaited(house: House, command: bytes) -> None:
    client = house.login() if b"IDLE" in command else house.connect()
    client.send(command)
    client.drop()
    assert house.doorman.inside == 0
    assert not house.factory.live


def test_end_sessions_reaches_those_of_the_mailbox_only(house: House) -> None:
    idle, outside = house.login("INBOX"), house.connect()
    idle.send(b"a IDLE\r\n")
    idle.take()
    outside.take()
    assert house.factory.end_sessions("nobody", "the password was changed") == 0
    assert house.factory.end_sessions(ID, "the password was changed") == 1
    assert idle.lines() == ["* BYE the password was changed"]
    assert idle.closing
    assert outside.take() == b""
    assert not outside.closing


def test_a_running_command_is_finished_before_bye(house: House) -> None:
    client = house.login()
    client.take()
    house.threads.held = True
    client.send(b"a CREATE New\r\nb CREATE Other\r\n")
    house.factory.end_sessions(ID, "bye")
    assert client.take() == b""
    house.threads.work()
    created, bye = client.lines()
    assert created.endswith("CREATE completed")
    assert bye == "* BYE bye"
    assert client.closing


def test_shutdown_waits_for_all(house: House) -> None:
    clients = [house.login(), house.connect()]
    done: list[None] = []
    house.factory.shutdown().addCallback(done.append)
    assert [client.lines()[-1] for client in clients] == ["* BYE server is shutting down"] * 2
    assert not done
    for client in clients:
        client.drop()
    assert done


def test_shutdown_in_the_middle_of_append_stores_nothing(house: House) -> None:
    client = house.login()
    client.send(b"a APPEND INBOX {40}\r\nSubject: 1\r\n")
    client.take()
    house.factory.shutdown()
    assert client.lines() == ["* BYE server is shutting down"]
    assert client.closing
    client.send(b"\r\n".ljust(28) + b"\r\n")
    assert house.login().ask("STATUS INBOX (MESSAGES)")[0] == "* STATUS INBOX (MESSAGES 0)"


def test_shutdown_of_nobody_is_done_at_once(house: House) -> None:
    done: list[None] = []
    house.factory.shutdown().addCallback(done.append)
    assert done


# -- a process that is being replaced -------------------------------------------------------------

REPLACED = "* BYE this process is being replaced, connect again"


def test_dismiss_serves_who_has_only_just_come(house: House) -> None:
    """Accepted the moment before: it logs in and is answered; when it has nothing more to ask it hears of the end."""
    client = house.connect()
    assert house.factory.dismiss() == 1
    house.clock.advance(9)
    assert house.factory.dismiss() == 1
    assert not client.closing
    client.take()
    assert client.ask("LOGIN hello@example.com secret")[-1].startswith("t OK")
    house.factory.dismiss()
    house.clock.advance(1.9)
    house.factory.dismiss()
    assert client.ask("SELECT INBOX")[-1].startswith("t OK")
    house.clock.advance(1.9)
    house.factory.dismiss()
    assert client.take() == b""
    house.clock.advance(0.1)
    assert house.factory.dismiss() == 1
    assert client.lines() == [REPLACED]
    assert client.closing
    client.drop()
    assert house.factory.dismiss() == 0


def test_dismiss_ends_idle_and_silent_sessions_at_once(house: House) -> None:
    silent, idle = house.login("INBOX"), house.login("INBOX")
    house.clock.advance(2)
    idle.send(b"a IDLE\r\n")
    silent.take()
    idle.take()
    assert house.factory.dismiss() == 2
    assert silent.lines() == idle.lines() == [REPLACED]
    assert silent.closing and idle.closing


def test_dismiss_lets_a_command_end_and_its_client_ask_more(house: House) -> None:
    client = house.login()
    client.take()
    house.threads.held = True
    client.send(b"a CREATE New\r\n")
    house.clock.advance(8)
    house.factory.dismiss()
    house.threads.work()
    house.factory.dismiss()
    (created,) = client.lines()
    assert created.endswith("CREATE completed")
    house.threads.held = False
    assert client.ask("SELECT New")[-1].startswith("t OK")


@pytest.mark.parametrize("begun", [b"a NO", b"a APPEND INBOX {40}\r\n", b"a APPEND INBOX {40}\r\nSubject:", b"a SELECT {100000+}\r\nabc"])
def test_dismiss_waits_for_the_rest_of_a_command(house: House, begun: bytes) -> None:
    """In the middle of a line, a literal, or one that is thrown away."""
    client = house.login()
    client.send(begun)
    client.take()
    house.clock.advance(9)
    assert house.factory.dismiss() == 1
    assert not client.closing
    if b"APPEND" in begun:
        client.send(b"Subject: 1\r\n\r\n".ljust(40)[max(0, len(begun) - len(b"a APPEND INBOX {40}\r\n")) :] + b"\r\n")
        assert client.lines()[-1].startswith("a OK [APPENDUID")


def test_dismiss_cuts_no_large_answer(house: House) -> None:
    run(house.mailbox.append("INBOX", [NewMessage(mail(1, "x" * 70 + "\r\n") + b"y" * 400_000)]))
    client = house.login("INBOX", network=Slow)
    slow = client.transport
    assert isinstance(slow, Slow)
    slow.move()
    client.send(b"a FETCH 1 BODY[]\r\n")
    got = slow.move()
    for _ in range(40):
        house.clock.advance(1)
        house.factory.dismiss()
        got += slow.move()
        if b"a OK" in got:
            break
    assert got.endswith(b"a OK FETCH completed\r\n") and len(got) > 400_000
    house.clock.advance(2)
    house.factory.dismiss()
    assert slow.move() == REPLACED.encode() + b"\r\n"


def test_a_connection_that_does_not_close_is_aborted(house: House) -> None:
    client = house.connect()
    client.ask("LOGOUT")
    assert client.closing
    assert not client.transport.disconnected
    house.clock.advance(house.factory.limits.linger)
    assert client.transport.disconnected


def test_input_after_logout_is_ignored(house: House) -> None:
    client = house.connect()
    client.take()
    client.send(b"a LOGOUT\r\nb LOGIN hello@example.com secret\r\n")
    client.send(b"c NOOP\r\n")
    assert client.lines() == ["* BYE logging out", "a OK LOGOUT completed"]
    assert house.doorman.asked == 0


# -- limits ---------------------------------------------------------------------------------------


def test_too_many_connections_from_one_address(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.factory.connections = house.connections = ConnectionLimit(total=3, per_address=2)
    first = house.connect(peer="192.0.2.1")
    house.connect(peer="192.0.2.1")
    refused = house.connect(peer="192.0.2.1")
    assert refused.lines() == ["* BYE too many connections, try again later"]
    assert refused.closing
    house.connect(peer="192.0.2.2")
    assert house.connect(peer="192.0.2.3").closing
    first.drop()
    assert not house.connect(peer="192.0.2.3").closing
    house.close()


def test_no_handshake_for_one_too_many(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.factory.connections = house.connections = ConnectionLimit(total=0, per_address=2)
    refused = house.connect(secure=True)
    assert refused.transport.disconnected
    assert refused.take() == b""
    house.close()


def test_bad_commands_end_the_connection(house: House) -> None:
    client = house.connect()
    client.take()
    client.send(b"a FROB\r\n" * 60)
    lines = client.lines()
    assert len(lines) == house.factory.limits.bad_commands + 1
    assert lines[-1].startswith("* BYE")
    assert client.closing


def test_login_under_tls_needs_no_setting(tmp_path: Path) -> None:
    house = House(tmp_path, plaintext_login_from_loopback=False)
    plain, secure = house.connect(), house.connect(secure=True, peer="192.0.2.1")
    assert "LOGINDISABLED" in plain.lines()[0]
    assert "AUTH=PLAIN" in secure.lines()[0]
    assert plain.ask("LOGIN hello@example.com secret")[-1].startswith("t NO [PRIVACYREQUIRED]")
    assert house.doorman.asked == 0
    assert secure.ask("LOGIN hello@example.com secret")[-1].startswith("t OK")
    house.close()


def test_a_limit_that_is_set_is_kept(tmp_path: Path) -> None:
    house = House(tmp_path, limits=ImapLimits(message_size=100))
    client = house.login()
    assert client.ask("APPEND INBOX {101}")[-1].split()[1:3] == ["NO", "[TOOBIG]"]
    assert client.ask("APPEND INBOX {5+}\r\nhello")[-1].startswith("t OK")
    house.close()


# -- errors ---------------------------------------------------------------------------------------


def failing(error: Exception) -> Callable[..., Any]:
    async def fail(*arguments: Any, **options: Any) -> Any:
        raise error

    return fail


def test_a_bug_costs_one_command_and_is_logged_once(house: House, monkeypatch: pytest.MonkeyPatch, events: list[dict[str, Any]]) -> None:
    client = house.login()
    monkeypatch.setattr(house.mailbox, "create", failing(ZeroDivisionError("secret path /var/mail")))
    answer = client.ask("CREATE New")
    assert answer == [f"t NO [SERVERBUG] internal error [conn {client.protocol.id}]"]
    assert client.ask("NOOP") == ["t OK NOOP completed"]
    assert [fields["command"] for fields in logged(events, "imap.failed")] == ["CREATE"]


def test_a_full_disk_is_no_bug(house: House, monkeypatch: pytest.MonkeyPatch, events: list[dict[str, Any]]) -> None:
    client = house.login()
    monkeypatch.setattr(house.mailbox, "append", failing(DiskFull(reason="/var/mail")))
    assert client.ask("APPEND INBOX {5+}\r\nhello") == ["t NO [UNAVAILABLE] insufficient system storage"]
    assert not logged(events, "imap.failed")


def test_a_broken_disk_tells_the_connection_but_not_the_reason(
    house: House, monkeypatch: pytest.MonkeyPatch, events: list[dict[str, Any]]
) -> None:
    client = house.login()
    monkeypatch.setattr(house.mailbox, "folders", failing(StorageFailed(reason="/var/mail/x is zeros")))
    assert client.ask('LIST "" *') == [f"t NO [SERVERBUG] storage failure, nothing was stored [conn {client.protocol.id}]"]
    assert [fields["reason"] for fields in logged(events, "imap.failed")] == ["/var/mail/x is zeros"]


def test_waiting_mail_that_cannot_be_moved_keeps_nobody_from_the_rest(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.fill("INBOX", 1)
    monkeypatch.setattr(house.mailbox, "poll", failing(Later("the disk is full")))
    client = house.login("INBOX")
    assert client.ask("FETCH 1 UID")[-1] == "t OK FETCH completed"


def test_a_login_that_cannot_be_done_now_is_no_wrong_password(house: House) -> None:
    house.doorman.login = failing(Later())  # type: ignore[method-assign]
    client = house.connect()
    for _ in range(house.factory.limits.login_failures + 1):
        assert client.ask("LOGIN hello@example.com secret")[-1].startswith("t NO [UNAVAILABLE]")
    assert not client.closing


def test_who_is_refused_unheard_is_sent_away_too(house: House) -> None:
    house.doorman.login = failing(TooManyConnections())  # type: ignore[method-assign]
    client = house.connect()
    for _ in range(house.factory.limits.login_failures):
        assert client.ask("LOGIN hello@example.com secret")[0].startswith("t NO [LIMIT]")
    assert client.closing


def test_what_is_logged(house: House, events: list[dict[str, Any]]) -> None:
    client = house.connect()
    client.ask("LOGIN hello@example.com wrong-password")
    client.ask(b"LOGIN hello@example.com " + PASSWORD)
    house.clock.advance(2)
    client.ask("LOGOUT")
    client.drop()
    (connected,), (failed,), (entered,), (left,) = (
        logged(events, name) for name in ("imap.connected", "imap.login_failed", "imap.login", "imap.logout")
    )
    assert connected["peer"] == failed["peer"] == "127.0.0.1"
    assert failed["address"] == entered["address"] == left["address"] == "hello@example.com"
    assert left["seconds"] == 2
    assert left["received"] > 80
    assert left["sent"] > 200
    assert len({fields["conn"] for fields in (connected, failed, entered, left)}) == 1
    assert "wrong-password" not in repr(events)
    assert "secret" not in repr([event.get("fields") for event in events])
