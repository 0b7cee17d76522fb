"""Messages above LARGE are stored in frames and read in stretches."""

from __future__ import annotations

import base64
import random

import apsw
import pytest

from fe_twisted.base.errors import DamagedFile, NoSuchMessage
from fe_twisted.base.settings import SETTINGS
from fe_twisted.storage.mailbox.api import LARGE
from fe_twisted.storage.mailbox.content import FRAME, FRAMES, PLAIN, ZSTD, pack, unpack
from fe_twisted.storage.mailbox.local import LocalMailbox
from tests.storage.mailbox.driving import run
from tests.storage.mailbox.samples import ALL, add, folder_id, rows

CHANCE = random.Random(7)
NOISE = CHANCE.randbytes(700_000)
TEXT = b"".join(b"line %d of a long text\r\n" % number for number in range(60_000))
HEAD = b"Subject: large\r\nMIME-Version: 1.0\r\n"


def part(kind: bytes, encoding: bytes, body: bytes) -> bytes:
    return b"--b\r\nContent-Type: %b\r\nContent-Transfer-Encoding: %b\r\n\r\n%b\r\n" % (kind, encoding, body)


def lines(data: bytes) -> bytes:
    return base64.encodebytes(data).replace(b"\n", b"\r\n")


MULTIPART = HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
MESSAGES = {
    "text": HEAD + b"\r\n" + TEXT,
    "noise": HEAD + b"\r\n" + NOISE * 2,
    "two attachments": MULTIPART
    + part(b"text/plain", b"8bit", b"hello")
    + part(b"application/x-a", b"base64", lines(NOISE))
    + b"\r\nbetween\r\n"
    + part(b"application/x-b", b"binary", NOISE)
    + b"--b--\r\nepilogue\r\n",
    "text between": MULTIPART
    + part(b"application/x-a", b"base64", lines(NOISE[:40_000]))
    + part(b"text/plain", b"8bit", TEXT)
    + part(b"application/x-b", b"base64", lines(NOISE[40_000:80_000]))
    + b"--b--\r\n",
    "header": b"".join(b"X-Field-%d: %b\r\n" % (number, b"x" * 900) for number in range(1_300)) + b"\r\nbody\r\n",
}


@pytest.mark.parametrize("name", MESSAGES)
def test_every_stretch_is_what_was_stored(mailbox: LocalMailbox, name: str) -> None:
    content = MESSAGES[name]
    assert len(content) > LARGE
    add(mailbox, content, b"Subject: small\r\n\r\nsmall\r\n")
    (_, handle), (_, small) = rows(mailbox, "INBOX", "uid", "content")
    assert small == b"Subject: small\r\n\r\nsmall\r\n"
    assert handle & 0xFFFFFFFF == len(content)
    step = 524_288
    assert b"".join(run(mailbox.octets(handle, at, at + step)) for at in range(0, len(content), step)) == content
    edges = [0, 1, len(HEAD), FRAME - 1, FRAME, FRAME + 1, LARGE, len(content) - 1, len(content), len(content) + 9]
    edges += [CHANCE.randrange(len(content)) for _ in range(10)]
    for start in edges:
        for length in (0, 1, 100, FRAME, 3 * FRAME):
            assert run(mailbox.octets(handle, start, start + length)) == content[start : start + length], (start, length)


def test_a_message_that_is_gone(mailbox: LocalMailbox) -> None:
    add(mailbox, MESSAGES["text"])
    ((handle,),) = rows(mailbox, "INBOX", "content")
    run(mailbox.store(folder_id(mailbox), ALL, "add", frozenset({"\\Deleted"})))
    run(mailbox.expunge(folder_id(mailbox), None))
    with pytest.raises(NoSuchMessage):
        run(mailbox.octets(handle, 0, 10))


@pytest.mark.parametrize(
    ("data", "coding"),
    [(b"x" * 511, PLAIN), (TEXT[:FRAME], ZSTD), (TEXT[: FRAME + 1], FRAMES), (TEXT, FRAMES), (NOISE, PLAIN), (b"", PLAIN)],
    ids=["short", "one frame", "a little more", "many", "noise", "empty"],
)
def test_packing(data: bytes, coding: int) -> None:
    packed = pack(data)
    assert packed[0] == coding
    assert unpack(*packed) == data


@pytest.mark.parametrize(
    "damaged",
    [b"", b"\1", b"\xff\xff\xff\xff", pack(TEXT)[1][:-1], pack(TEXT)[1][:9]],
    ids=["empty", "short", "no index", "cut", "cut early"],
)
def test_damaged_frames(damaged: bytes) -> None:
    with pytest.raises(DamagedFile):
        unpack(FRAMES, damaged)


def test_the_longest_message_that_can_be_set_can_be_stored(mailbox: LocalMailbox) -> None:
    """Or it would be taken, and then never come to rest."""
    longest = next(setting.maximum for setting in SETTINGS if setting.name == "message_size_limit")
    assert longest is not None
    assert longest + 1_000_000 < mailbox._reader.limit(apsw.SQLITE_LIMIT_LENGTH)
