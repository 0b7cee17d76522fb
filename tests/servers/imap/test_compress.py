"""COMPRESS=DEFLATE (RFC 4978) in memory; mbsync and IMAPClient with it are in tests/whole."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from fe_twisted.protocols.imap.deflate import MAX_PIECE, Deflate
from fe_twisted.servers.imap.limits import ImapLimits
from tests.servers.imap.house import Client, House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path, limits=ImapLimits(compress=True))
    yield house
    house.close()


class Compressed:
    """A client that speaks through zlib."""

    def __init__(self, client: Client) -> None:
        self.client = client
        assert client.ask("COMPRESS DEFLATE") == ["t OK compression begins"]
        self._out = zlib.compressobj(wbits=-15)
        self._in = zlib.decompressobj(wbits=-15)

    def send(self, data: bytes) -> None:
        self.client.send(self._out.compress(data) + self._out.flush(zlib.Z_SYNC_FLUSH))

    def take(self) -> bytes:
        return self._in.decompress(self.client.take())

    def ask(self, command: str) -> list[str]:
        self.take()
        self.send(b"t " + command.encode() + b"\r\n")
        return self.take().decode("latin-1").split("\r\n")[:-1]


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_everything_after_ok_is_compressed(house: House, chunk: int) -> None:
    house.fill("INBOX", 20)
    client = Compressed(house.login(chunk=chunk))
    assert client.ask("SELECT INBOX")[-1].startswith("t OK")
    lines = client.ask("FETCH 1:* (FLAGS BODY.PEEK[])")
    assert sum(line.startswith("*") for line in lines) == 20
    content = b"Subject: big\r\n\r\n" + b"0123456789abcdef\r\n" * 5_000
    client.send(b"a APPEND INBOX {%d+}\r\n%b\r\n" % (len(content), content))
    assert b"a OK [APPENDUID" in client.take()
    assert content.decode() in "\r\n".join(client.ask("FETCH 21 BODY.PEEK[]"))
    assert client.ask("LOGOUT")[-1].startswith("t OK")


def test_what_is_answered_is_smaller(house: House) -> None:
    house.fill("INBOX", 200)
    plain = house.login("INBOX")
    plain.take()
    plain.send(b"a FETCH 1:* (ENVELOPE)\r\n")
    octets = len(plain.take())
    client = Compressed(house.login("INBOX"))
    client.send(b"a FETCH 1:* (ENVELOPE)\r\n")
    assert len(client.client.transport.value()) * 4 < octets


def test_once_only_and_only_deflate(house: House) -> None:
    plain = house.login()
    assert plain.ask("COMPRESS LZW")[-1].startswith("t NO [CANNOT]")
    assert "COMPRESS=DEFLATE" in plain.ask("CAPABILITY")[0]
    client = Compressed(plain)
    assert client.ask("COMPRESS DEFLATE")[-1].startswith("t NO [COMPRESSIONACTIVE]")
    assert "COMPRESS" not in client.ask("CAPABILITY")[0]


def test_off_by_default(tmp_path: Path) -> None:
    house = House(tmp_path)
    client = house.login()
    assert "COMPRESS" not in client.ask("CAPABILITY")[0]
    assert client.ask("COMPRESS DEFLATE")[-1].startswith("t BAD")
    assert client.ask("NOOP")[-1].startswith("t OK")
    house.close()


def test_what_was_pipelined_is_not_carried_out(house: House) -> None:
    client = house.login()
    client.send(b"a COMPRESS DEFLATE\r\nb CREATE Injected\r\n")
    assert client.lines() == ["a OK compression begins"]
    assert "Injected" not in "".join(house.login().ask('LIST "" *'))


def test_damaged_input_ends_the_session_only(house: House) -> None:
    client = Compressed(house.login())
    client.client.send(b"\xff\xff\xff\xff not deflate")
    assert b"* BYE" in client.take()
    assert client.client.closing


def test_a_stream_that_ends(house: House) -> None:
    client = Compressed(house.login())
    client.client.send(zlib.compressobj(wbits=-15).flush() + b"more")
    assert client.client.closing


def test_a_bomb_is_never_unpacked_whole(house: House) -> None:
    client = Compressed(house.login())
    client.send(b"a" * 50_000_000)
    # the line is too long, so it is answered and thrown away piece by piece
    for _ in range(20):
        house.clock.advance(0)
        assert client.client.protocol._parser.buffered <= 2 * MAX_PIECE
    assert b"BAD" in client.take() or client.client.closing


def test_any_cut_gives_the_same_octets() -> None:
    chance = random.Random(3)
    data = bytes(chance.choice(b"abcd") for _ in range(200_000))
    packed = Deflate().compress(data)
    reader, made, at = Deflate(), bytearray(), 0
    while at < len(packed):
        size = chance.randrange(1, 5_000)
        reader.feed(packed[at : at + size])
        at += size
        while piece := reader.more():
            assert len(piece) <= MAX_PIECE
            made += piece
    assert bytes(made) == data
    assert reader.waiting == 0
