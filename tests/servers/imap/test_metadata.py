"""Limits of annotations (RFC 5464 section 4.3); the rest is in the dialogues."""

from __future__ import annotations

from fe_twisted.servers.imap.limits import ImapLimits
from fe_twisted.storage.mailbox.metadata import MAX_ENTRIES, MAX_OCTETS
from tests.servers.imap.house import House

MAX_VALUE = ImapLimits().literal


def test_a_value_that_is_too_long(house: House) -> None:
    client = house.login()
    assert client.ask(b"SETMETADATA INBOX (/private/comment {%d+}\r\n%b)" % (MAX_VALUE, b"x" * MAX_VALUE))[-1].startswith("t OK")
    refused = client.ask(b"SETMETADATA INBOX (/private/comment ~{%d+}\r\n%b)" % (MAX_VALUE + 1, b"x" * (MAX_VALUE + 1)))
    assert refused[-1].startswith("t NO [METADATA MAXSIZE 65536] ")
    waiting = client.ask(b"SETMETADATA INBOX (/private/comment {%d}" % (MAX_VALUE + 1))
    assert waiting[-1].startswith("t NO [METADATA MAXSIZE 65536] ")
    answer = client.ask("GETMETADATA (MAXSIZE 65535) INBOX /private/comment")
    assert answer == ["t OK [METADATA LONGENTRIES 65536] GETMETADATA completed"]


def test_too_many_entries(house: House) -> None:
    client = house.login()
    for start in range(0, MAX_ENTRIES, 100):
        values = " ".join(f'/private/n/{number} "{number}"' for number in range(start, start + 100))
        assert client.ask(f"SETMETADATA INBOX ({values})")[-1] == "t OK SETMETADATA completed"
    assert client.ask('SETMETADATA INBOX (/private/n/0 "again" /private/one "more")')[-1].startswith("t NO [METADATA TOOMANY]")
    assert client.ask("GETMETADATA INBOX (/private/n/0 /private/one)")[0] == '* METADATA INBOX (/private/n/0 "0" /private/one NIL)'
    assert client.ask('SETMETADATA INBOX (/private/n/0 NIL /private/one "more")')[-1] == "t OK SETMETADATA completed"


def test_wildcards_of_sql_are_none_here(house: House) -> None:
    client = house.login()
    assert client.ask('SETMETADATA INBOX (/private/a_b/x "1" /private/acb/y "2")')[-1] == "t OK SETMETADATA completed"
    assert client.ask("GETMETADATA (DEPTH infinity) INBOX /private/a_b")[0] == '* METADATA INBOX (/private/a_b/x "1")'


def test_values_that_are_too_long_together(house: House) -> None:
    client = house.login()
    value = b"x" * MAX_VALUE
    for number in range(MAX_OCTETS // MAX_VALUE):
        assert client.ask(b"SETMETADATA INBOX (/private/n/%d {%d+}\r\n%b)" % (number, MAX_VALUE, value))[-1].startswith("t OK")
    assert client.ask('SETMETADATA Sent (/private/one "more")')[-1].startswith("t NO [LIMIT]")
    assert client.ask('SETMETADATA INBOX (/private/n/0 "short")')[-1] == "t OK SETMETADATA completed"
    assert client.ask('SETMETADATA Sent (/private/one "more")')[-1] == "t OK SETMETADATA completed"
