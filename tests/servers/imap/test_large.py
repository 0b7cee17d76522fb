"""FETCH and CATENATE of messages that are read in stretches: the same answers as for small ones, and never all of it in memory."""

from __future__ import annotations

import base64
import random
import re

import pytest

from fe_twisted.base.errors import NoSuchMessage
from fe_twisted.protocols.imap.commands import Command, Fetch, Section
from fe_twisted.protocols.imap.parse import Parser
from fe_twisted.protocols.mime.parse import parse
from fe_twisted.protocols.mime.section import decode, find, section
from fe_twisted.storage.mailbox.api import LARGE, NewMessage
from tests.servers.imap.house import Client, House, Slow
from tests.storage.mailbox.driving import run

NOISE = random.Random(3).randbytes(900_000)
INNER = b"Subject: inner\r\nX-Other: y\r\n\r\n" + b"a line of the inner message\r\n" * 5_000
CONTENT = (
    b"Subject: outer\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n"
    b"--b\r\nContent-Type: application/x-a\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    + base64.encodebytes(NOISE).replace(b"\n", b"\r\n")
    + b"\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n"
    + INNER
    + b"\r\n--b\r\nContent-Transfer-Encoding: x-rot13\r\n\r\nuryyb\r\n--b--\r\n"
)

ITEMS = [
    "BODY[]", "RFC822", "BODY[]<0.10>", "BODY[]<5.700000>", "BODY[]<99999999.5>", "BODY[TEXT]", "RFC822.TEXT",
    "RFC822.HEADER", "BODY[HEADER.FIELDS (SUBJECT)]", "BODY[1]", "BODY[2]", "BODY[2]<1000.600000>", "BODY[2.MIME]",
    "BODY[3]", "BODY[3.HEADER]", "BODY[3.TEXT]", "BODY[3.TEXT]<7.9>", "BODY[3.HEADER.FIELDS (SUBJECT)]",
    "BODY[3.HEADER.FIELDS.NOT (SUBJECT)]<2.6>", "BODY[3.1]", "BODY[9]", "BODY[2.1]", "BODY[4]", "BINARY[]",
    "BINARY[]<3.4>", "BINARY[2]", "BINARY[2]<800000.200000>", "BINARY[3]", "BINARY.SIZE[2]", "BINARY.SIZE[]",
    "BINARY[9]",
]  # fmt: skip


def asked(item: str) -> tuple[Section, tuple[int, int] | None]:
    parser = Parser()
    parser.feed(b"a FETCH 1 " + item.encode() + b"\r\n")
    event = parser.next_event()
    assert isinstance(event, Command) and isinstance(event.arguments, Fetch)
    (found,) = event.arguments.items
    named = {"RFC822": Section(), "RFC822.TEXT": Section((), "TEXT"), "RFC822.HEADER": Section((), "HEADER")}
    return named.get(found.name) or found.section or Section(), found.partial


def expected(item: str) -> bytes | None:
    """The octets that the item means, computed from the whole message."""
    wanted, partial = asked(item)
    root = parse(CONTENT).root
    if item.startswith("BINARY") and wanted.path:
        found = find(root, wanted.path)
        octets = decode(found[0], CONTENT[found[0].body : found[0].end]) if found else None
    else:
        octets = section(root, wanted, lambda start, end: CONTENT[start:end])
    if octets is not None and partial:
        octets = octets[partial[0] : partial[0] + partial[1]]
    return octets


def said(house: House, client: Client) -> bytes:
    assert isinstance(client.transport, Slow)
    out = b""
    while client.transport.held:
        out += client.transport.move()
        house.clock.advance(0)
    return out


@pytest.fixture
def large(house: House) -> Client:
    """A client of a mailbox with the large message, between two others."""
    small = [NewMessage(b"Subject: small %d\r\n\r\n" % number) for number in (1, 2)]
    run(house.mailbox.append("INBOX", [small[0], NewMessage(CONTENT), small[1]]))
    assert len(CONTENT) > LARGE
    client = house.login("INBOX", network=Slow)
    client.ask("STORE 1:* +FLAGS.SILENT (\\Seen)")
    said(house, client)
    return client


@pytest.mark.parametrize("item", ITEMS)
def test_items(house: House, large: Client, item: str) -> None:
    large.send(f"f FETCH 2 ({item} UID)\r\n".encode())
    answer = said(house, large)
    octets = expected(item)
    if item.startswith("BINARY.SIZE"):
        assert answer == b"* 2 FETCH (UID 2 %b %d)\r\nf OK FETCH completed\r\n" % (item.encode(), len(octets or b""))
    elif octets is None:
        assert answer == b"* 2 FETCH (UID 2 %b NIL)\r\nf OK FETCH completed\r\n" % item.encode()
    else:
        found = re.match(rb"\* 2 FETCH \(UID 2 (.+?) (~?)\{(\d+)\}\r\n", answer)
        assert found, answer[:100]
        assert found[1] == re.sub(r"<(\d+)\.\d+>", r"<\1>", item).encode()
        assert answer[found.end() :] == octets + b")\r\nf OK FETCH completed\r\n"
        assert int(found[3]) == len(octets)
        assert not found[2] or item.startswith("BINARY")


def test_unknown_encodings(house: House, large: Client) -> None:
    large.send(b"f FETCH 2 (BINARY[4])\r\n")
    assert said(house, large).startswith(b"f NO [UNKNOWN-CTE]")


def test_between_small_ones(house: House, large: Client) -> None:
    large.send(b"f FETCH 1:* (BODY[] BODY[1])\r\n")
    answer = said(house, large)
    assert answer.startswith(
        b"* 1 FETCH (BODY[] {20}\r\nSubject: small 1\r\n\r\n BODY[1] {0}\r\n)\r\n* 2 FETCH (BODY[] {%d}\r\n" % len(CONTENT)
    )
    assert answer.endswith(
        CONTENT
        + b" BODY[1] {5}\r\nhello)\r\n* 3 FETCH (BODY[] {20}\r\nSubject: small 2\r\n\r\n BODY[1] {0}\r\n)\r\nf OK FETCH completed\r\n"
    )


def test_a_message_that_is_removed_while_it_is_sent_ends_the_connection(house: House, large: Client) -> None:
    """Its length was told, so nothing else can be said any more."""
    other = house.login("INBOX")
    large.send(b"f FETCH 2 BODY[]\r\n")
    other.ask("STORE 2 +FLAGS (\\Deleted)")
    other.ask("EXPUNGE")
    house.clock.advance(1)
    answer = said(house, large)
    assert large.closing
    literal = answer.index(b"}\r\n") + 3
    assert CONTENT.startswith(answer[literal:]) and b"f OK" not in answer


@pytest.mark.parametrize(
    ("url", "octets"),
    [
        ("/INBOX/;UID=2", CONTENT),
        ("/INBOX/;UID=2/;SECTION=2/;PARTIAL=5.600000", expected("BODY[2]<5.600000>")),
        ("/INBOX/;UID=2/;SECTION=3.HEADER.FIELDS%20(Subject)/;PARTIAL=2", (expected("BODY[3.HEADER.FIELDS (SUBJECT)]") or b"")[2:]),
        ("/;UID=2/;SECTION=3.TEXT/;PARTIAL=9.9", expected("BODY[3.TEXT]<9.9>")),
    ],
)
def test_catenate(house: House, large: Client, url: str, octets: bytes) -> None:
    large.send(f'c APPEND Drafts CATENATE (URL "{url}")\r\nd SELECT Drafts\r\nf FETCH 1 BODY.PEEK[]\r\n'.encode())
    answer = said(house, large)
    assert b"c OK" in answer
    assert answer.endswith(b"* 1 FETCH (BODY[] {%d}\r\n%b)\r\nf OK FETCH completed\r\n" % (len(octets), octets))


def test_catenate_of_a_message_that_is_removed_meanwhile(house: House, large: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async def octets(message: int, start: int, end: int) -> bytes:
        raise NoSuchMessage

    monkeypatch.setattr(house.mailbox, "octets", octets)
    large.send(b'c APPEND Drafts CATENATE (URL "/INBOX/;UID=2")\r\n')
    assert said(house, large).startswith(b"c NO [BADURL /INBOX/;UID=2] ")
