"""NOTIFY where time and the network matter: what is told never mixes with anything else, and ends with the session."""

from __future__ import annotations

import re

import pytest

from fe_twisted.storage.mailbox.api import NewMessage
from tests.servers.imap.house import House, Slow, mail
from tests.storage.mailbox.driving import run

WATCH = "NOTIFY SET (SELECTED (MessageNew (BODY.PEEK[]) MessageExpunge FlagChange)) (PERSONAL (MessageNew MessageExpunge))"


def arrive(house: House, size: int = 0, folder: str = "INBOX") -> None:
    run(house.mailbox.append(folder, [NewMessage(mail(1, "x" * size + "\r\n"))]))
    house.clock.advance(0.1)


def test_a_command_waits_until_all_is_told(house: House) -> None:
    """The client reads slowly, and asks while a large new message is on its way."""
    client = house.login("INBOX", network=Slow)
    client.ask(WATCH)
    arrive(house, 1_000_000)
    assert isinstance(client.transport, Slow)
    client.send(b"c1 UID SEARCH ALL\r\n")
    arrive(house, folder="Archive")
    said = b""
    for _ in range(100):
        said += client.transport.move()
        house.clock.advance(0)
    literal = said.index(b"}\r\n") + 3
    size = int(said[said.index(b"{") + 1 : said.index(b"}")])
    assert said[literal + size :].startswith(b")\r\n")
    rest = said[literal + size + 3 :].decode().split("\r\n")
    assert any(line.startswith("* STATUS Archive (MESSAGES 1 ") for line in rest)
    assert rest.index("* SEARCH 1") < rest.index("c1 OK SEARCH completed")
    assert client.transport.most < 400_000


def test_nothing_is_told_while_a_command_runs(house: House) -> None:
    client = house.login("INBOX")
    client.ask(WATCH)
    house.threads.held = True
    client.send(b"s SEARCH BODY nothing\r\n")
    client.take()
    house.threads.held = False
    arrive(house, folder="Archive")
    assert client.take() == b""
    house.threads.work()
    lines = client.lines()
    assert lines[1] == "s OK SEARCH completed"
    assert lines[2].startswith("* STATUS Archive (MESSAGES 1 ")


def test_who_is_gone_gives_the_mailbox_back_when_all_was_told(house: House) -> None:
    client = house.login("INBOX", network=Slow)
    client.ask(WATCH)
    arrive(house, 1_000_000)
    assert house.doorman.inside == 1
    client.drop()
    house.clock.advance(0)
    assert house.doorman.inside == 0


def test_it_ends_with_unauthenticate(house: House) -> None:
    client = house.login("INBOX")
    client.ask(WATCH)
    assert client.ask("UNAUTHENTICATE")[-1].startswith("t OK")
    arrive(house)
    assert client.take() == b""
    assert not house.mailbox._watchers


def test_a_second_notify_takes_the_place_of_the_first(house: House) -> None:
    client = house.login()
    client.ask(WATCH)
    client.ask("NOTIFY SET (MAILBOXES Trash (MessageNew MessageExpunge))")
    assert len(house.mailbox._watchers) == 1
    arrive(house, folder="Archive")
    assert client.take() == b""
    arrive(house, folder="Trash")
    assert client.take().startswith(b"* STATUS Trash (MESSAGES 1 ")


def test_bye_comes_after_what_is_being_told(house: House) -> None:
    client = house.login("INBOX", network=Slow)
    client.ask(WATCH)
    arrive(house, 1_000_000)
    house.factory.shutdown("server is shutting down")
    assert isinstance(client.transport, Slow)
    said = b"".join(client.transport.move() for _ in range(100))
    assert said.endswith(b")\r\n* BYE server is shutting down\r\n")


def test_the_folder_that_is_looked_at_is_deleted(house: House) -> None:
    client = house.login()
    client.ask("CREATE Gone")
    client.ask("SELECT Gone")
    client.ask(WATCH)
    run(house.mailbox.delete("Gone"))
    house.clock.advance(0.1)
    assert client.lines()[-1] == "* BYE the selected mailbox was deleted"
    assert client.closing


def literals(said: bytes) -> bytes:
    """What was said, each literal replaced by three dots; a literal that holds anything but the message fails."""
    plain = b""
    while found := re.search(rb"\{(\d+)\}\r\n", said):
        literal = said[found.end() : found.end() + int(found[1])]
        assert literal == mail(1, "x" * 1_000_000 + "\r\n"), "something stands in the middle of a message"
        plain += said[: found.start()] + b"..."
        said = said[found.end() + int(found[1]) :]
    return plain + said


def test_idle_says_nothing_in_the_middle_of_a_message(house: House) -> None:
    """A new message takes longer to send than IDLE is silent."""
    client = house.login("INBOX", network=Slow)
    client.ask(WATCH)
    client.send(b"i IDLE\r\n")
    client.take()
    arrive(house, 1_000_000)
    assert isinstance(client.transport, Slow)
    said = b""
    for _ in range(30):
        said += client.transport.move()
        house.clock.advance(50)
    lines = literals(said).decode().split("\r\n")
    assert lines[:3] == ["* 1 EXISTS", "* 1 RECENT", "* 1 FETCH (BODY[] ...)"]
    assert set(lines[3:]) == {"* OK still here", ""}


def test_a_long_command_says_nothing_in_the_middle_of_a_message(house: House) -> None:
    """INPROGRESS is due while a new message is being told at the end of a command."""
    client = house.login("INBOX", network=Slow)
    client.ask(WATCH)
    house.threads.held = True
    client.send(b"s SEARCH BODY nothing\r\n")
    house.threads.held = False
    arrive(house, 1_000_000)
    client.take()
    house.threads.work()
    assert isinstance(client.transport, Slow)
    said = b""
    for _ in range(30):
        said += client.transport.move()
        house.clock.advance(11)
    lines = literals(said).decode().split("\r\n")
    assert lines == ["* SEARCH", "* 1 EXISTS", "* 1 RECENT", "* 1 FETCH (BODY[] ...)", "s OK SEARCH completed", ""]


def test_autologout_waits_until_all_is_told(house: House) -> None:
    client = house.login("INBOX", network=Slow)
    client.ask(WATCH)
    house.clock.advance(1_700)
    arrive(house, 1_000_000)
    assert isinstance(client.transport, Slow)
    said = b""
    for _ in range(60):
        said += client.transport.move()
        house.clock.advance(100)
    lines = literals(said).decode().split("\r\n")
    assert lines[2] == "* 1 FETCH (BODY[] ...)"
    assert lines[3].startswith("* BYE idle")


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        ("(PERSONAL (MessageNew MessageExpunge))", "INBOX A A/B A/B/C Trash"),
        ("(MAILBOXES Trash NONE) (PERSONAL (MessageNew MessageExpunge))", "INBOX A A/B A/B/C"),
        ("(PERSONAL (MessageNew MessageExpunge)) (MAILBOXES Trash NONE)", "INBOX A A/B A/B/C Trash"),
        ("(SUBTREE A/B NONE) (SUBTREE A (MessageNew MessageExpunge))", "A"),
        ("(SUBTREE (A/B inbox) (MessageNew MessageExpunge))", "INBOX A/B A/B/C"),
        ("(SUBTREE-ONE A (MessageNew MessageExpunge))", "A A/B"),
        ("(MAILBOXES A (MailboxName)) (MAILBOXES (A Trash) (MessageNew MessageExpunge))", "A Trash"),
        ("(INBOXES (MessageNew MessageExpunge))", "INBOX"),
        ("(SUBSCRIBED (MessageNew MessageExpunge))", "A/B"),
        ("(SUBSCRIBED (MailboxName))", ""),
    ],
)
def test_which_mailboxes_are_told_of(house: House, groups: str, told: str) -> None:
    names = ("INBOX", "A", "A/B", "A/B/C", "Trash")
    client = house.login()
    for name in names[1:4]:
        run(house.mailbox.create(name))
    for name in run(house.mailbox.subscriptions()):
        run(house.mailbox.subscribe(name, False))
    run(house.mailbox.subscribe("A/B", True))
    lines = client.ask(f"NOTIFY SET STATUS {groups}")
    assert lines[-1] == "t OK NOTIFY completed"
    standard = {"Archive", "Drafts", "Junk", "Sent"}
    assert {line.split()[2] for line in lines[:-1]} - standard == set(told.split())
    for name in names:
        run(house.mailbox.append(name, [NewMessage(mail(1))]))
    house.clock.advance(0.1)
    assert sorted(line.split()[2] for line in client.lines()) == sorted(told.split())


def test_who_subscribes_later_is_told_from_then_on(house: House) -> None:
    client = house.login()
    run(house.mailbox.create("A"))
    client.ask("NOTIFY SET (SUBSCRIBED (MessageNew MessageExpunge SubscriptionChange))")
    run(house.mailbox.append("A", [NewMessage(mail(1))]))
    house.clock.advance(0.1)
    assert client.take() == b""
    run(house.mailbox.subscribe("A", True))
    house.clock.advance(0.1)
    assert client.lines() == ['* LIST (\\HasNoChildren \\Subscribed) "/" A']
    run(house.mailbox.append("A", [NewMessage(mail(2))]))
    house.clock.advance(0.1)
    assert client.lines()[0].startswith("* STATUS A (MESSAGES 2 UIDNEXT 3 ")
