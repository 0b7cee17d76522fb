"""A short APPEND that names one large message many times (RFC 3502 with RFC 4469) must not make the server build them all in memory."""

from __future__ import annotations

from pathlib import Path

from fe_twisted.servers.imap.limits import ImapLimits
from tests.servers.imap.house import House


def test_all_messages_of_one_append_are_bounded(tmp_path: Path) -> None:
    house = House(tmp_path, limits=ImapLimits(message_size=10_000))
    client = house.login()
    large = b"Subject: x\r\n\r\n" + b"a" * 7_000
    client.ask(b"APPEND INBOX {%d+}\r\n%b" % (len(large), large))
    one = ' CATENATE (URL "/INBOX/;UID=1")'
    assert client.ask("APPEND INBOX" + 2 * one)[-1].startswith("t OK")
    assert client.ask("APPEND INBOX" + 500 * one)[-1].startswith("t NO [TOOBIG]")
    assert "* STATUS INBOX (MESSAGES 3)" in client.ask("STATUS INBOX (MESSAGES)")
    house.close()
