"""How octets are laid down: what is compressed, and what a large message takes of memory on its way in."""

from __future__ import annotations

import base64
import random
import tracemalloc

import pytest

from fe_twisted.storage.mailbox import content
from fe_twisted.storage.mailbox.content import ATTACHMENT_WORTH, FRAME, FRAMES, PLAIN, TRIED, ZSTD, pack, unpack
from fe_twisted.storage.mailbox.local import LocalMailbox
from tests.storage.mailbox.samples import add, rows

MIB = 1024 * 1024
NOISE = random.Random(7).randbytes(3 * MIB)


@pytest.mark.parametrize(
    ("data", "worth", "coding"),
    [
        (b"ab" * 100, 7 / 8, PLAIN),
        (b"ab" * 1_000, 7 / 8, ZSTD),
        (b"ab" * FRAME, 7 / 8, FRAMES),
        (NOISE[: FRAME // 2], 7 / 8, PLAIN),
        (NOISE, 7 / 8, PLAIN),
        (base64.b64encode(NOISE), ATTACHMENT_WORTH, PLAIN),
        (bytes(TRIED * FRAME) + NOISE[:FRAME], ATTACHMENT_WORTH, FRAMES),
    ],
)
def test_what_is_packed_comes_out_again(data: bytes, worth: float, coding: int) -> None:
    for given in (data, memoryview(data)):
        found = pack(given, worth)
        assert found[0] == coding
        assert unpack(coding, bytes(found[1])) == data


def test_a_large_file_is_not_compressed_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    compress = content._coders.compress
    monkeypatch.setattr(content._coders, "compress", lambda data: tried.append(len(data)) or compress(data))
    assert pack(NOISE * 4)[0] == PLAIN
    assert len(tried) == TRIED


def attached(data: bytes) -> bytes:
    return (
        b"From: a@example.com\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
        b"--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n"
        b"--b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n" + data + b"\r\n--b--\r\nafter\r\n"
    )


@pytest.mark.parametrize(
    "message",
    [
        attached(base64.encodebytes(NOISE * 4).replace(b"\n", b"\r\n")),
        attached(base64.encodebytes(bytes(12 * MIB)).replace(b"\n", b"\r\n")),
        b"From: a@example.com\r\nContent-Type: application/octet-stream\r\n\r\n" + NOISE * 4,
    ],
    ids=["noise", "zeros", "one part"],
)
def test_a_large_message_is_not_copied_on_its_way_in(mailbox: LocalMailbox, message: bytes) -> None:
    add(mailbox, b"Subject: warm\r\n\r\nup\r\n")
    tracemalloc.start()
    try:
        add(mailbox, message)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 * MIB
    found = mailbox._reader.execute("SELECT id FROM messages ORDER BY id DESC LIMIT 1").get
    assert content.load_content(mailbox._reader, int(found)) == message
    assert rows(mailbox, "INBOX", "size")[1] == (len(message),)
