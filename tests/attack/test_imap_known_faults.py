"""One test for each way in which ``twisted.mail.imap4`` is known to break, so that none of it comes back here.

What an attacker gains by them is mostly a dropped connection, a blocked reactor or a lost message.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fe_twisted.storage.mailbox.api import NewMessage
from tests.servers.imap.house import Client, House, mail
from tests.storage.mailbox.driving import run

BROKEN = [
    b"Content-Type: text/plain; charset=utf-8;\r\n\r\nx",
    b"Content-Type: multipart/mixed\r\n\r\n--\r\n",
    b"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\nContent-Type: message/rfc822\r\n\r\n--a--\r\n",
    b'Content-Type: ;;;===\r\nContent-Disposition: attachment; filename="\xff\\"\r\n\r\n\x00\x01',
    b"Subject: \xe4\xf6\xfc \x00 8-bit\r\nFrom: \xff\xfe\r\nTo: group: a@b, c;, nobody, @, <>\r\n\r\nx",
    b"no header at all",
    b"\r\n\r\n",
    b"\x00",
    b"Content-Type: message/rfc822\r\n\r\nContent-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\ny",
    b"From:\r\nSubject\r\n: x\r\n\tfolded\r\n\r\nbody with bare\nLF and bare\rCR",
]

FETCHED = [
    "ENVELOPE",
    "BODYSTRUCTURE",
    "BODY",
    "FULL",
    "BODY.PEEK[HEADER]",
    "BODY.PEEK[1]",
    "BODY.PEEK[7.2.TEXT]",
    "BODY.PEEK[1.MIME]",
    "RFC822.TEXT",
]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.close()


@pytest.fixture
def client(house: House) -> Client:
    house.fill("INBOX", 3)
    return house.login("INBOX")


def test_partial_fetch_is_honoured(client: Client) -> None:
    whole = mail(1)
    client.take()
    client.send(b"a FETCH 1 BODY.PEEK[]<0.20>\r\nb FETCH 1 BODY.PEEK[]<20.10000>\r\n")
    said = client.take()
    assert b"BODY[]<0> {20}\r\n" + whole[:20] + b")" in said
    assert b"BODY[]<20> {%d}\r\n" % (len(whole) - 20) + whole[20:] + b")" in said


def test_seen_is_set_without_peek(client: Client) -> None:
    assert any("\\Seen" in line for line in client.ask("FETCH 1 BODY[]"))
    assert client.ask("SEARCH SEEN")[0] == "* SEARCH 1"
    assert any("\\Seen" in line for line in client.ask("FETCH 2 RFC822.TEXT"))
    client.ask("FETCH 3 (RFC822.HEADER BODY.PEEK[] ENVELOPE)")
    assert client.ask("SEARCH SEEN")[0] == "* SEARCH 1 2"


@pytest.mark.parametrize(
    "key",
    [
        "FROM sender",
        "TO hello",
        "NOT CC x",
        "NOT BCC x",
        "SUBJECT mail",
        'HEADER Message-ID ""',
        "SINCE 1-Jan-2020",
        "BEFORE 1-Jan-2050",
        "ON 21-Sep-2026",
        "SENTSINCE 16-Jul-1996",
        "SENTON 17-Jul-1996",
        "SENTBEFORE 18-Jul-1996",
        "UNKEYWORD $x",
        "CHARSET utf-8 TEXT message",
        "(OR SEEN UNSEEN)",
        "LARGER 1",
        "SMALLER 99999",
        "UID 1:*",
        "1:*",
    ],
)
def test_every_search_key_answers(client: Client, key: str) -> None:
    assert client.ask(f"SEARCH {key}") == ["* SEARCH 1 2 3", "t OK SEARCH completed"]


def test_an_empty_result_of_search_is_answered(client: Client) -> None:
    assert client.ask("SEARCH TEXT nowhere") == ["* SEARCH", "t OK SEARCH completed"]


def test_append_without_flags_and_without_target(client: Client) -> None:
    assert client.ask("APPEND Sent {1+}\r\nx")[-1].startswith("t OK [APPENDUID ")
    assert client.ask("APPEND Nowhere {1+}\r\nx") == ["t NO [TRYCREATE] no such mailbox, create it first"]
    assert not [line for line in client.ask("APPEND Sent {1+}\r\ny") if "EXISTS" in line]


def test_copy_to_nowhere_is_trycreate(client: Client) -> None:
    assert client.ask("COPY 1 Nowhere") == ["t NO [TRYCREATE] no such mailbox, create it first"]


def test_select_says_all_that_rfc_3501_demands(house: House) -> None:
    house.fill("INBOX", 1)
    said = "\n".join(house.login().ask("SELECT INBOX"))
    needed = ("* FLAGS (", "* 1 EXISTS", "* 1 RECENT", "[UNSEEN 1]", "[PERMANENTFLAGS (", "[UIDNEXT 2]", "[UIDVALIDITY ", "[READ-WRITE]")
    assert [one for one in needed if one not in said] == []


@pytest.mark.parametrize("password", [b'"a\\"b"', b'"a\\\\b"', b'{3}\r\na"b', b'{3+}\r\na"b'])
def test_quoted_passwords(house: House, password: bytes) -> None:
    """They are wrong here, but they are understood."""
    client = house.connect()
    client.take()
    client.send(b"a LOGIN hello@example.com " + password + b"\r\n")
    assert client.lines()[-1].startswith("a NO [AUTHENTICATIONFAILED]")


def test_literal_plus_is_no_command(house: House) -> None:
    client = house.login()
    client.take()
    client.send(b"a CREATE {15+}\r\nb CREATE Evil!!\r\nc NOOP\r\n")
    assert [line.split()[:2] for line in client.lines()] == [["a", "OK"], ["c", "OK"]]


def test_an_empty_literal_as_last_argument_waits_for_the_client(house: House) -> None:
    client = house.connect()
    client.take()
    client.send(b"a LOGIN hello@example.com {0}\r\n")
    assert client.lines() == ["+ ready"]
    assert house.doorman.asked == 0
    client.send(b"\r\n")
    assert client.lines()[-1].startswith("a NO")


@pytest.mark.parametrize(
    "items", ["FROB", "(ALL FROB)", "BODY[", "BODY[]<1>", "BODY[HEADER.FIELDS ()]", "BODY[0]", "BODY[MIME]", "BODY[99999999999]", ""]
)
def test_bad_fetch_items(client: Client, items: str) -> None:
    assert client.ask(f"FETCH 1 {items}")[-1].startswith("t BAD")
    assert not client.closing


@pytest.mark.parametrize("macro", ["ALL", "FAST", "FULL", "(FLAGS)", '(BODY[HEADER.FIELDS ("SUBJECT" {4+}\r\nFROM)])'])
def test_good_fetch_items(client: Client, macro: str) -> None:
    assert client.ask(f"FETCH 1 {macro}")[-1] == "t OK FETCH completed"


@pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
def test_broken_messages_cost_no_connection_and_lose_no_octet(house: House, content: bytes) -> None:
    run(house.mailbox.append("INBOX", [NewMessage(content)]))
    client = house.login("INBOX")
    for items in FETCHED:
        assert client.ask(f"FETCH 1 {items}")[-1] == "t OK FETCH completed", items
    client.take()
    client.send(b"a FETCH 1 BODY.PEEK[]\r\n")
    assert b"BODY[] {%d}\r\n%b)" % (len(content), content) in client.take() or len(content) == 0
    client.send(b"b FETCH 1 ENVELOPE\r\n")
    assert b"\x00" not in client.take()


def test_sequence_sets_of_any_size_take_no_time(client: Client) -> None:
    wanted = ",".join(str(number) for number in range(1, 22_000, 2))
    started = time.process_time()
    assert client.ask(f"UID FETCH {wanted} UID")[-1] == "t OK FETCH completed"
    assert client.ask("UID FETCH 1:4294967295 UID")[-1] == "t OK FETCH completed"
    assert client.ask("FETCH *:* UID") == ["* 3 FETCH (UID 3)", "t OK FETCH completed"]
    assert client.ask("UID STORE 4:4294967295 +FLAGS (\\Seen)") == ["t OK STORE completed"]
    assert time.process_time() - started < 1


def test_status_of_something_unknown_is_answered(client: Client) -> None:
    assert client.ask("STATUS INBOX (MESSAGES FROB)")[-1].startswith("t BAD")


def test_idle_ends_with_done_only_and_tells_expunges(house: House, client: Client) -> None:
    client.take()
    client.send(b"a IDLE\r\n")
    assert client.lines() == ["+ idling"]
    run(house.mailbox.move(run(house.mailbox.folders())[0].id, ((2, 2),), "Trash"))
    house.clock.advance(0.1)
    assert client.lines() == ["* 2 EXPUNGE"]
    client.send(b"nonsense\r\nb NOOP\r\n")
    assert [line.split()[:2] for line in client.lines()] == [["a", "BAD"], ["b", "OK"]]


def test_list_of_nothing_gives_the_separator(client: Client) -> None:
    assert client.ask('LIST "" ""') == ['* LIST (\\Noselect) "/" ""', "t OK LIST completed"]


@pytest.mark.parametrize("name", ["&AGE-", "&", "a&b", "&Jjo", "&2AA-", "&AGEAYg-", '"tab\there"'])
def test_modified_utf7_has_one_spelling(client: Client, name: str) -> None:
    assert client.ask(f"CREATE {name}")[-1].split()[1] in ("BAD", "NO")


def test_errors_carry_the_tag_of_their_command(client: Client) -> None:
    client.take()
    client.send(b"x1 FETCH\r\nx2 SELECT\r\nx3 LIST (\r\nx4 STORE 1 +FLAGS\r\nx5 UID\r\nx6\r\n")
    assert [line.split()[:2] for line in client.lines()] == [[f"x{number}", "BAD"] for number in range(1, 7)]


def test_text_of_errors_cannot_break_the_line(client: Client) -> None:
    for evil in (b'a SELECT "x\\\r\ny"\r\n', b"b SELECT \xff\xff\r\n", b"c \x1b[2J\r\n", "d CREATE é\r\n".encode()):
        client.take()
        client.send(evil)
        for line in client.take().split(b"\r\n"):
            assert all(0x20 <= octet < 0x7F for octet in line)
