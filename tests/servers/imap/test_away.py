"""What a client is told while its mailbox cannot be asked: nothing wrong, and all of it as soon as that is over."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.logger import LogLevel, globalLogPublisher

from fe_twisted.base.errors import PrimaryAway
from fe_twisted.servers.imap.idle import AGAIN
from fe_twisted.storage.mailbox.api import NewMessage
from tests.servers.imap.house import House, mail
from tests.storage.mailbox.driving import run


class Away:
    """Mailbox methods that fail as long as the primary is away."""

    def __init__(self, house: House, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.now = True
        for name in names:
            monkeypatch.setattr(house.mailbox, name, self._failing(getattr(house.mailbox, name)))

    def _failing(self, method: Any) -> Any:
        async def ask(*arguments: Any, **named: Any) -> Any:
            if self.now:
                raise PrimaryAway(reason="the link is not running")
            return await method(*arguments, **named)

        return ask


class Unreadable:
    """A mailbox that messages cannot be fetched from."""

    def __init__(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = True
        fetch = house.mailbox.fetch

        async def ask(*arguments: Any, **named: Any) -> Any:
            if self.now:
                raise PrimaryAway(reason="the link is not running")
            async for batch in fetch(*arguments, **named):
                yield batch

        monkeypatch.setattr(house.mailbox, "fetch", ask)


@pytest.fixture
def errors() -> Any:
    """What is logged as an error of ours."""
    found: list[Any] = []

    def observe(event: Any) -> None:
        if event.get("log_level") in (LogLevel.error, LogLevel.critical) or "log_failure" in event:
            found.append(event)

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)


def test_idle_tells_it_when_the_primary_is_back(house: House, monkeypatch: pytest.MonkeyPatch, errors: list[Any]) -> None:
    client = house.login("INBOX")
    client.send(b"i IDLE\r\n")
    client.take()
    away = Away(house, monkeypatch, "changes")
    run(house.mailbox.append("INBOX", [NewMessage(mail(1))]))
    house.clock.advance(0.1)
    house.clock.advance(AGAIN - 1)
    assert client.take() == b""
    away.now = False
    house.clock.advance(1)
    assert client.lines() == ["* 1 EXISTS", "* 1 RECENT"]
    assert errors == []
    client.send(b"DONE\r\n")
    assert client.lines() == ["i OK IDLE completed"]


def test_idle_may_end_meanwhile(house: House, monkeypatch: pytest.MonkeyPatch, errors: list[Any]) -> None:
    client = house.login("INBOX")
    client.send(b"i IDLE\r\n")
    client.take()
    away = Away(house, monkeypatch, "changes")
    run(house.mailbox.append("INBOX", [NewMessage(mail(1))]))
    house.clock.advance(0.1)
    client.drop()
    house.clock.advance(0.1)
    assert not [call for call in house.clock.getDelayedCalls() if "Pushing" in repr(call.func)]
    away.now = False
    assert errors == []


def test_notify_tells_it_when_the_primary_is_back(house: House, monkeypatch: pytest.MonkeyPatch, errors: list[Any]) -> None:
    client = house.login("INBOX")
    client.ask("NOTIFY SET (PERSONAL (MessageNew MessageExpunge MailboxName))")
    away = Away(house, monkeypatch, "status", "folders")
    run(house.mailbox.append("Archive", [NewMessage(mail(1))]))
    run(house.mailbox.create("Letters"))
    house.clock.advance(0.1)
    house.clock.advance(AGAIN - 1)
    assert client.take() == b""
    away.now = False
    house.clock.advance(1)
    said = client.take().decode()
    assert '"/" Letters' in said
    assert "* STATUS Archive (MESSAGES 1 " in said
    assert errors == []


def test_notify_owes_what_could_not_be_read(house: House, monkeypatch: pytest.MonkeyPatch, errors: list[Any]) -> None:
    """The primary goes away when it has told what changed, and before a new message was read."""
    run(house.mailbox.append("INBOX", [NewMessage(mail(1))]))
    client = house.login("INBOX")
    client.ask("NOTIFY SET (SELECTED (MessageNew (BODY.PEEK[HEADER.FIELDS (SUBJECT)]) MessageExpunge FlagChange))")
    inbox = run(house.mailbox.select("INBOX", claim_recent=False)).folder_id
    unreadable = Unreadable(house, monkeypatch)
    run(house.mailbox.store(inbox, ((1, 1),), "add", frozenset({"\\Flagged"})))
    run(house.mailbox.append("INBOX", [NewMessage(mail(2))]))
    house.clock.advance(0.1)
    assert client.lines() == ["* 2 EXISTS", "* 2 RECENT", "* 1 FETCH (FLAGS (\\Flagged \\Recent))"]
    house.clock.advance(AGAIN)
    assert client.take() == b""
    unreadable.now = False
    house.clock.advance(AGAIN)
    said = client.take()
    assert said.startswith(b"* 2 FETCH (") and b"Subject: " in said
    house.clock.advance(AGAIN)
    assert client.take() == b""
    assert errors == []


def test_notify_owes_it_when_a_command_was_to_tell_it(house: House, monkeypatch: pytest.MonkeyPatch, errors: list[Any]) -> None:
    """The command fails, and what it did not tell comes after it; what is owed of a folder ends with looking at it."""
    client = house.login("INBOX")
    client.ask("NOTIFY SET (SELECTED (MessageNew (BODY.PEEK[]) MessageExpunge))")
    unreadable = Unreadable(house, monkeypatch)
    run(house.mailbox.append("INBOX", [NewMessage(mail(1))]))
    client.ask("NOOP")
    unreadable.now = False
    house.clock.advance(AGAIN)
    said = client.take()
    assert said.count(b" FETCH (") == 1
    client.ask("NOOP")
    unreadable.now = True
    run(house.mailbox.append("INBOX", [NewMessage(mail(2))]))
    house.clock.advance(0.1)
    assert client.lines() == ["* 2 EXISTS", "* 2 RECENT"]
    client.ask("SELECT Archive")
    unreadable.now = False
    house.clock.advance(AGAIN)
    assert client.take() == b""
    assert errors == []


def test_logout_waits_for_nobody(house: House, monkeypatch: pytest.MonkeyPatch, errors: list[Any]) -> None:
    """Found with a session that had news while the primary was away: its goodbye took a minute."""
    client = house.login("INBOX")
    asked: list[str] = []
    changes = house.mailbox.changes

    async def ask(*arguments: Any, **named: Any) -> Any:
        asked.append("changes")
        return await changes(*arguments, **named)

    monkeypatch.setattr(house.mailbox, "changes", ask)
    run(house.mailbox.append("INBOX", [NewMessage(mail(1))]))
    client.send(b"l LOGOUT\r\n")
    assert client.lines() == ["* BYE logging out", "l OK LOGOUT completed"]
    assert asked == [] and errors == []
