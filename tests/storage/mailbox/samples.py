"""Messages, and the short ways to put them in and get them out."""

from __future__ import annotations

import base64
from typing import Any

from fe_twisted.storage.mailbox.api import Mailbox, NewMessage
from tests.storage.mailbox.driving import collect, run

ALL = ((1, 0xFFFFFFFF),)


def mail(number: int = 1, body: bytes = b"hello\r\n") -> bytes:
    return b"From: a@example.com\r\nSubject: number %d\r\nMessage-ID: <%d@example.com>\r\n\r\n" % (number, number) + body


def with_attachment(number: int, size: int = 20_000) -> bytes:
    data = base64.encodebytes(bytes(range(256)) * (size // 256)).replace(b"\n", b"\r\n")
    return (
        (
            b"From: a@example.com\r\nSubject: file %d\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
            b"--b\r\nContent-Type: text/plain\r\n\r\nnumber %d\r\n"
            b"--b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n" % (number, number)
        )
        + data
        + b"\r\n--b--\r\nepilogue\r\n"
    )


def add(mailbox: Mailbox, *contents: bytes, folder: str = "INBOX", flags: frozenset[str] = frozenset()) -> list[int]:
    return list(run(mailbox.append(folder, [NewMessage(content, flags) for content in contents])).uids)


def rows(mailbox: Mailbox, folder: str, *columns: Any) -> list[Any]:
    selected = run(mailbox.select(folder, claim_recent=False))
    return run(collect(mailbox.fetch(selected.folder_id, ALL, columns)))


def folder_id(mailbox: Mailbox, name: str = "INBOX") -> int:
    return run(mailbox.select(name, claim_recent=False)).folder_id
