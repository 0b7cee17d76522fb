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
