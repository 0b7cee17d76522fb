"""Attack: a regular expression that takes for ever, or all memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fe_twisted.base.errors import BadSyntax
from fe_twisted.protocols.imap.regex import MAX_PATTERN, MAX_TEXT, compiled, matches
from fe_twisted.protocols.imap.search import Regex
from fe_twisted.storage.mailbox import search
from fe_twisted.storage.mailbox.api import NewMessage
from tests.servers.imap.house import House
from tests.storage.mailbox.driving import run


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.close()


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "(a*)*c", "(.*a){20}x", "^(([a-z])+.)+[A-Z]([a-z])+$", "(?:a?){60}a{60}z"])
def test_patterns_that_make_others_hang(pattern: str) -> None:
    started = time.process_time()
    assert not matches(pattern, "a" * 50_000 + "!")
    assert time.process_time() - started < 2


@pytest.mark.parametrize("pattern", ["a{1000}{1000}", "(" * 400 + ")" * 100, "x" * (MAX_PATTERN + 1), r"(\pL{1,200}){5}", "\ud800"])
def test_patterns_that_would_be_large(pattern: str) -> None:
    with pytest.raises(BadSyntax):
        compiled(pattern)


def test_only_so_much_text_is_read() -> None:
    assert matches("b$", "a" * (MAX_TEXT - 1) + "b")
    assert not matches("b", "a" * MAX_TEXT + "b")


def test_a_search_gives_up_and_the_session_lives_on(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.fill("INBOX", 3)
    client = house.login("INBOX")
    monkeypatch.setattr(search, "MAX_SECONDS", -1.0)
    assert client.ask('SEARCH X-REGEX TEXT "mess.ge"') == ["t NO [LIMIT] the search took too long; narrow it down"]
    monkeypatch.undo()
    assert client.ask('SEARCH X-REGEX TEXT "mess.ge"')[0] == "* SEARCH 1 2 3"


def test_it_runs_in_the_thread(house: House) -> None:
    run(house.mailbox.append("INBOX", [NewMessage(b"Subject: x\r\n\r\nbody")]))
    assert search.needs_text(Regex("subject", "x"))
    client = house.login("INBOX")
    client.take()
    house.threads.held = True
    client.send(b'a SEARCH X-REGEX SUBJECT "x"\r\n')
    assert client.take() == b""
    house.threads.held = False
    house.threads.work()
    assert b"* SEARCH 1" in client.take()
