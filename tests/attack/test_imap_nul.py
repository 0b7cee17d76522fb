"""NUL, 8-bit garbage and control characters in commands: a tagged error, and the session goes on."""

from __future__ import annotations

import pytest

from fe_twisted.protocols.imap.commands import Append, BadCommand, Command, NeedContinuation
from fe_twisted.protocols.imap.parse import Parser

LINES = [
    b"a LOGIN joe \0",
    b'a LOGIN joe "\0"',
    b"a LOGIN joe {1+}\r\n\0",
    b"a LOGIN joe {1}\r\n\0",
    b"a SELECT \xff\xfe",
    b'a SELECT "\xff\xfe"',
    b"a SELECT {2+}\r\n\0\0",
    b"a SELECT \x1b[2J",
    b"a STORE 1 FLAGS (\x7f)",
    b"a FETCH 1 (FLAGS\0)",
    b"a SEARCH SUBJECT {1+}\r\n\0",
    b'a SEARCH SUBJECT "\xff"',
    b"a NOOP\0",
    b"a \0",
    b"a NO\0OP",
    b"a \xd0\x9d\xd0\x9e",
    b"a SEARCH CHARSET \0 ALL",
    b"a SEARCH CHARSET {1+}\r\n\0 ALL",
]


@pytest.mark.parametrize("utf8", [False, True])
@pytest.mark.parametrize("line", LINES)
def test_a_tagged_error_and_on(line: bytes, utf8: bool) -> None:
    parser = Parser()
    parser.authenticated = True
    parser.utf8 = utf8
    parser.feed(line + b"\r\nb NOOP\r\n")
    made = [event for event in parser.events() if not isinstance(event, NeedContinuation)]
    assert len(made) == 2
    assert isinstance(made[0], BadCommand) and made[0].tag == "a" and not made[0].fatal
    assert made[0].text.isascii() and made[0].text.isprintable()
    assert made[1] == Command("b", "NOOP")


def test_every_octet_alone_in_every_place() -> None:
    """No octet at any place of some command lines makes anything but an event."""
    for line in (b"a LOGIN joe {2+}\r\nhi", b'a LIST (SUBSCRIBED) "" (a "b")', b"a FETCH 1:2 (BODY.PEEK[1.MIME]<0.5>)", b"a SEARCH OR 1 $"):
        for place in range(len(line)):
            for octet in range(256):
                parser = Parser()
                parser.authenticated = True
                parser.feed(line[:place] + bytes((octet,)) + line[place + 1 :] + b"\r\n")
                for event in parser.events():
                    assert isinstance(event, Command | BadCommand | NeedContinuation)


def test_a_message_may_hold_nul() -> None:
    """Mail with NUL exists, and was perhaps delivered to us; a client that copies it must not be turned away."""
    parser = Parser()
    parser.authenticated = True
    parser.feed(b"a APPEND x {3+}\r\na\0b\r\n")
    event = parser.next_event()
    assert isinstance(event, Command) and isinstance(event.arguments, Append)
    assert event.arguments.messages[0].content == b"a\0b"
