r"""The short way that a FETCH of one message takes: the same answers as the long way gives, and never where it may not be taken."""

from __future__ import annotations

from collections.abc import Iterator

import apsw
import pytest

from fe_twisted.servers.imap import protocol, table
from fe_twisted.storage.mailbox.api import LARGE, NewMessage
from tests.servers.imap.house import Client, House, Slow, mail
from tests.storage.mailbox.driving import run

#: What is asked of a folder with the messages 1 (seen), 2 and 4 (more than LARGE octets); 3 was expunged.
ITEMS = (
    "FLAGS",
    "(FLAGS)",
    "(uid flags internaldate rfc822.size envelope bodystructure)",
    "ALL",
    "(SAVEDATE EMAILID THREADID PREVIEW)",
    "BODY.PEEK[]",
    "BODY.PEEK[]<5.20>",
    "(FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT DATE)])",
    "(BODY.PEEK[HEADER] BODY.PEEK[TEXT])",
    "BODY.PEEK[1.MIME]",
    "BINARY.PEEK[1]",
    "BODY[]",
    "RFC822",
    "MODSEQ",
    "(FLAGS) (CHANGEDSINCE 1)",
    "(FLAGS) (PARTIAL 1:1)",
    "NONSENSE",
    "(FLAGS",
    "",
)
SETS = ("1", "2", "3", "4", "5", "9999999999", "4294967295", "0", "01", "1,2", "1:2", "*", "$")
COMMANDS = [f"{prefix}FETCH {messages} {items}" for prefix in ("", "UID ") for messages in SETS for items in ITEMS]


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the commands that were answered at once."""
    found: list[str] = []

    def at_once(session: table.Session, command: table.Command) -> table.Reply | None:
        reply = table.at_once(session, command)
        if reply is not None:
            found.append(command.name)
        return reply

    monkeypatch.setattr(protocol, "at_once", at_once)
    return found


@pytest.fixture
def folder(house: House) -> House:
    house.fill("INBOX", 1, frozenset({"\\Seen", "$Forwarded"}))
    run(house.mailbox.append("INBOX", [NewMessage(mail(2)), NewMessage(mail(3)), NewMessage(mail(4, "x" * LARGE + "\r\n"))]))
    inbox = run(house.mailbox.select("INBOX", claim_recent=False))
    run(house.mailbox.store(inbox.folder_id, ((3, 3),), "add", frozenset({"\\Deleted"})))
    run(house.mailbox.expunge(inbox.folder_id, None))
    return house


def answers(house: House, before: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    for command in COMMANDS:
        client = house.login()
        for line in before:
            client.ask(line)
        yield command, client.ask(command)
        client.ask("LOGOUT")
        client.drop()


@pytest.mark.parametrize(
    "before", [("EXAMINE INBOX",), ("ENABLE UIDONLY", "EXAMINE INBOX"), ("ENABLE QRESYNC IMAP4rev2", "EXAMINE INBOX"), ()], ids=str
)
def test_both_ways_give_the_same(folder: House, taken: list[str], monkeypatch: pytest.MonkeyPatch, before: tuple[str, ...]) -> None:
    short = dict(answers(folder, before))
    number = len(taken)
    assert bool(number) == bool(before)
    monkeypatch.setattr(protocol, "at_once", lambda session, command: None)
    for command, lines in answers(folder, before):
        assert short[command] == lines, command
    assert len(taken) == number


def test_the_commonest_commands_take_it(folder: House, taken: list[str]) -> None:
    client = folder.login("INBOX")
    for command in ("UID FETCH 2 BODY.PEEK[]", "FETCH 2 (FLAGS)", "uid fetch 1 (UID BODY.PEEK[HEADER])", "FETCH 2 BODY.PEEK[]<0.10>"):
        taken.clear()
        assert client.ask(command)[-1] == "t OK FETCH completed"
        assert taken == ["FETCH"], command


def test_what_sets_seen_takes_the_long_way(folder: House, taken: list[str]) -> None:
    client = folder.login("INBOX")
    assert client.ask("UID FETCH 2 BODY[TEXT]")[0].startswith("* 2 FETCH (UID 2 FLAGS (\\Seen")
    assert not taken


def test_news_are_told_before_it_is_taken_again(folder: House, taken: list[str]) -> None:
    client = folder.login("INBOX")
    other = folder.login("INBOX")
    other.ask("STORE 1 +FLAGS ($NewKeyword)")
    said = client.ask("UID FETCH 2 FLAGS")
    assert [line for line in said if line.startswith("* FLAGS") and "$NewKeyword" in line]
    assert any(line.startswith("* 1 FETCH") and "$NewKeyword" in line for line in said)
    assert not taken
    assert client.ask("UID FETCH 2 FLAGS")[-1] == "t OK FETCH completed"
    assert taken


def test_a_keyword_that_only_the_row_shows_is_announced(folder: House, taken: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader sees a commit before the reactor hears of it."""
    client = folder.login("INBOX")
    read = folder.mailbox.fetch_one

    def fetch_one(*arguments: object) -> object:
        if not client.protocol.session.mailbox.keywords()[1:]:
            run(folder.mailbox.store(1, ((2, 2),), "add", frozenset({"$Late"})))
        return read(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(folder.mailbox, "fetch_one", fetch_one)
    said = client.ask("UID FETCH 2 FLAGS")
    assert not taken
    assert any(line.startswith("* FLAGS") and "$Late" in line for line in said)


def test_numbers_of_messages_that_are_gone_take_the_long_way(folder: House, taken: list[str]) -> None:
    client = folder.login("INBOX")
    inbox = run(folder.mailbox.select("INBOX", claim_recent=False))
    run(folder.mailbox.store(inbox.folder_id, ((2, 2),), "add", frozenset({"\\Deleted"})))
    run(folder.mailbox.expunge(inbox.folder_id, None))
    assert client.ask("FETCH 2 FLAGS")[-1].startswith("t OK [EXPUNGEISSUED]")
    assert client.ask("FETCH 1 FLAGS")[0].startswith("* 1 FETCH")  # number 2 is still there for the client
    assert not taken
    assert "* 2 EXPUNGE" in client.ask("NOOP")


def test_hidden_capabilities_and_notify_take_the_long_way(folder: House, taken: list[str]) -> None:
    folder.doorman.hides = frozenset({"PREVIEW"})
    client = folder.login("INBOX")
    assert client.ask("FETCH 1 PREVIEW")[-1].startswith("t BAD")
    folder.doorman.hides = frozenset()
    client = folder.login("INBOX")
    client.ask("NOTIFY SET (SELECTED (MessageNew MessageExpunge))")
    assert client.ask("FETCH 1 FLAGS")[-1] == "t OK FETCH completed"
    assert not taken


def test_who_does_not_read_is_waited_for(folder: House, taken: list[str]) -> None:
    """Of commands sent at once no more is answered than the network takes, and one message."""
    run(folder.mailbox.append("INBOX", [NewMessage(mail(5, "y" * 300_000 + "\r\n"))]))
    client = folder.login("INBOX", network=Slow)
    assert isinstance(client.transport, Slow)
    client.transport.move()
    taken.clear()
    client.send(b"".join(b"a%d UID FETCH 5 BODY.PEEK[]\r\n" % number for number in range(20)))
    assert client.transport.most < 700_000
    said = b""
    for _ in range(2000):
        said += client.transport.move()
        folder.clock.advance(0)
    assert said.count(b" OK FETCH completed\r\n") == 20


def test_trouble_is_answered_the_long_way(folder: House, taken: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    client: Client = folder.login("INBOX")

    def broken(*arguments: object) -> None:
        raise apsw.CorruptError("no such page")

    monkeypatch.setattr(folder.mailbox, "fetch_one", broken)
    assert client.ask("UID FETCH 2 FLAGS")[-1] == "t OK FETCH completed"
    assert not taken
