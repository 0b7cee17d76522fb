"""Commands where they have no business: nothing but the table decides, and every one is answered with its tag."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fe_twisted.protocols.imap.arguments import COMMANDS, UID_COMMANDS
from fe_twisted.servers.imap.protocol import ImapProtocol
from fe_twisted.servers.imap.session import State
from fe_twisted.servers.imap.table import TABLE
from tests.servers.imap.house import House

LINES = {
    "CAPABILITY": "CAPABILITY",
    "NOOP": "NOOP",
    "LOGOUT": "LOGOUT",
    "ID": "ID NIL",
    "STARTTLS": "STARTTLS",
    "LOGIN": "LOGIN hello@example.com wrong",
    "AUTHENTICATE": "AUTHENTICATE PLAIN AGEAYg==",
    "ENABLE": "ENABLE X",
    "NOTIFY": "NOTIFY NONE",
    "UNAUTHENTICATE": "UNAUTHENTICATE",
    "NAMESPACE": "NAMESPACE",
    "SELECT": "SELECT INBOX",
    "EXAMINE": "EXAMINE INBOX",
    "CREATE": "CREATE New",
    "DELETE": "DELETE New",
    "RENAME": "RENAME Trash New",
    "SUBSCRIBE": "SUBSCRIBE New",
    "UNSUBSCRIBE": "UNSUBSCRIBE New",
    "LIST": 'LIST "" *',
    "LSUB": 'LSUB "" *',
    "STATUS": "STATUS INBOX (MESSAGES)",
    "APPEND": "APPEND INBOX {1+}\r\nx",
    "COMPRESS": "COMPRESS LZW",
    "REPLACE": "REPLACE 1 INBOX {1+}\r\nx",
    "IDLE": "IDLE",
    "CHECK": "CHECK",
    "CLOSE": "CLOSE",
    "UNSELECT": "UNSELECT",
    "EXPUNGE": "EXPUNGE",
    "SEARCH": "SEARCH ALL",
    "GETQUOTA": 'GETQUOTA ""',
    "GETQUOTAROOT": "GETQUOTAROOT INBOX",
    "GETMETADATA": "GETMETADATA INBOX /private/comment",
    "SETMETADATA": "SETMETADATA INBOX (/private/comment x)",
    "ESEARCH": "ESEARCH ALL",
    "SORT": "SORT (DATE) UTF-8 ALL",
    "THREAD": "THREAD REFERENCES UTF-8 ALL",
    "FETCH": "FETCH 1:* FLAGS",
    "STORE": "STORE 1:* FLAGS ()",
    "COPY": "COPY 1:* Trash",
    "MOVE": "MOVE 1:* Trash",
}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.close()


def test_the_parser_and_the_table_know_the_same_commands() -> None:
    assert set(COMMANDS) == set(TABLE) == set(LINES)
    assert set(UID_COMMANDS) <= set(TABLE)


WRONG = [(name, state) for name in sorted(LINES) for state in (State.GREETED, State.AUTHENTICATED) if not TABLE[name].states & state]


@pytest.mark.parametrize(("name", "state"), WRONG, ids=lambda value: value if isinstance(value, str) else value.name.lower())
def test_a_command_in_a_state_that_is_not_its_own(house: House, name: str, state: State) -> None:
    client = house.connect() if state is State.GREETED else house.login()
    answer = client.ask(LINES[name])
    assert len(answer) == 1
    assert answer[0].startswith("t BAD ")
    assert client.protocol.session.state is state
    assert house.doorman.asked == (state is State.AUTHENTICATED)


@pytest.mark.parametrize("name", ["DATARECEIVED", "CONNECTIONLOST", "__INIT__", "RUN", "SESSION", "UNAUTH", "XLIST", "DO_LOGIN", "UID"])
def test_no_attribute_is_a_command(house: House, name: str) -> None:
    (answer,) = house.login("INBOX").ask(name)
    assert answer.startswith("t BAD")


def test_nothing_of_twisted_mail_is_inherited() -> None:
    assert not [base for base in ImapProtocol.__mro__ if base.__module__.startswith("twisted.mail")]


def test_a_uid_prefix_where_none_belongs(house: House) -> None:
    client = house.login("INBOX")
    for command in ("UID SELECT INBOX", "UID NOOP", "UID LOGOUT", "UID UID FETCH 1 FLAGS", "UID"):
        assert client.ask(command)[-1].startswith("t BAD")
