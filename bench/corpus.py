"""Messages for the benchmarks: seeded, so that every run and every server gets the same.

Words have a Zipf-like distribution over a vocabulary of 20,000, so that an index of them has work to do and compression is as good as with
real text, not better.  In a mailbox's mix most messages are short text, many are text and HTML, and some carry attachments, as base64.
"""

from __future__ import annotations

import base64
import datetime
import functools
import itertools
import random
from collections.abc import Iterator

#: In few messages, and in most of them.
RARE, COMMON = "zyxomma", "about"
_ONSETS = ["b", "c", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "st", "tr", "br"]
_SYLLABLES = [onset + vowel for onset in _ONSETS for vowel in ["a", "e", "i", "o", "u", "ai", "ou"]]
START = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)


@functools.cache
def _vocabulary() -> list[str]:
    maker = random.Random(4711)
    words = dict.fromkeys("".join(maker.choices(_SYLLABLES, k=maker.choice((1, 2, 2, 3, 3, 4)))) for _ in range(40_000))
    return [COMMON, *itertools.islice(words, 20_000)]


class Words:
    """Text of any length."""

    def __init__(self, seed: int) -> None:
        self._vocabulary = _vocabulary()
        self._weights = list(itertools.accumulate(1 / (rank + 3) for rank in range(len(self._vocabulary))))
        self.random = random.Random(seed)

    def words(self, count: int) -> list[str]:
        """So many words."""
        return self.random.choices(self._vocabulary, cum_weights=self._weights, k=count)

    def text(self, octets: int) -> str:
        """Lines of about 70 characters, CRLF, about so many octets."""
        lines: list[str] = []
        size = 0
        while size < octets:
            line = " ".join(self.words(12))[:76]
            lines.append(line)
            size += len(line) + 2
        return "\r\n".join(lines) + "\r\n"


def plain(number: int, octets: int, words: Words) -> bytes:
    """A message of plain text of so many octets in all."""
    head = (
        f"From: Sender {number} <sender{number % 97}@example.org>\r\nTo: hello@example.com\r\nSubject: {' '.join(words.words(4))}\r\n"
        f"Date: Thu, 01 Jan 2026 10:00:00 +0000\r\nMessage-ID: <{number}.{words.random.getrandbits(48):x}@example.org>\r\n\r\n"
    )
    return (head + words.text(max(0, octets - len(head)))).encode()[: octets - 2].rstrip(b"\r\n") + b"\r\n"


class Mailbox:
    """The mix of a mailbox, 10.7 KB a message in the mean, in threads, over the year 2025 (Dovecot takes no date that is still to come).

    :param count: how many messages.
    """

    def __init__(self, count: int, seed: int = 1) -> None:
        self.count = count
        self._seed = seed

    def __iter__(self) -> Iterator[tuple[datetime.datetime, tuple[str, ...], bytes]]:
        """Date, flags and content of each message."""
        words = Words(self._seed)
        choose = words.random
        recent: list[tuple[str, str]] = []
        files = [base64.encodebytes(choose.randbytes(choose.randint(8_000, 60_000))).replace(b"\n", b"\r\n") for _ in range(200)]
        step = datetime.timedelta(days=365) / self.count
        for number in range(self.count):
            date = START + step * number
            identity = f"<{number}.{choose.getrandbits(40):x}@mail{number % 13}.example.org>"
            subject, references = " ".join(words.words(choose.randint(2, 7))).capitalize(), ""
            if recent and choose.random() < 0.5:
                parent, topic = choose.choice(recent[-40:])
                subject, references = f"Re: {topic}", f"In-Reply-To: {parent}\r\nReferences: {parent}\r\n"
            recent.append((identity, subject.removeprefix("Re: ")))
            text = words.text(int(min(40_000, choose.lognormvariate(7.2, 1.0))))
            if number % 1000 == 77:
                text += f"Here is the word {RARE}.\r\n"
            flags = tuple(name for name, share in (("\\Seen", 0.9), ("\\Flagged", 0.03), ("\\Answered", 0.2)) if choose.random() < share)
            head = _head(number, date, subject, identity, references, choose)
            yield date, flags, head + _body(number, text, files, choose)


def _head(number: int, date: datetime.datetime, subject: str, identity: str, references: str, choose: random.Random) -> bytes:
    person = choose.randrange(400)
    copies = f"Cc: Carol {number % 7} <carol{number % 7}@example.net>\r\n" if number % 5 == 0 else ""
    if number % 11 == 0:
        subject = f"=?utf-8?B?{base64.b64encode(('Grüße ' + subject)[:40].encode()).decode()}?="
    return (
        f"Return-Path: <person{person}@example.org>\r\n"
        f"Received: from mx{number % 9}.example.org (mx{number % 9}.example.org [192.0.2.{number % 250}])\r\n"
        f"\tby mail.example.com with ESMTPS id {number:012x}\r\n\tfor <hello@example.com>; {date:%a, %d %b %Y %H:%M:%S +0000}\r\n"
        f"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=s1;\r\n\th=from:to:subject:date:message-id;\r\n"
        f"\tbh={base64.b64encode(choose.randbytes(32)).decode()};\r\n\tb={base64.b64encode(choose.randbytes(96)).decode()}\r\n"
        f'From: "Person {person}" <person{person}@example.org>\r\nTo: Hello <hello@example.com>\r\n{copies}'
        f"Subject: {subject}\r\nDate: {date:%a, %d %b %Y %H:%M:%S +0000}\r\nMessage-ID: {identity}\r\n{references}"
        "MIME-Version: 1.0\r\n"
    ).encode()


def _body(number: int, text: str, files: list[bytes], choose: random.Random) -> bytes:
    """The Content-Type field, the empty line and the body: 45 % text, 40 % text and HTML, 15 % with an attachment."""
    kind = choose.random()
    plain_part = b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + text.encode()
    if kind < 0.45:
        return plain_part
    markup = "".join(f'<p class="c{index % 5}">{line}</p>\r\n' for index, line in enumerate(text.split("\r\n")))
    html = b"Content-Type: text/html; charset=utf-8\r\n\r\n<html><body>\r\n" + markup.encode() + b"</body></html>\r\n"
    mark = b"=_%012x" % number
    both = b"".join((b'Content-Type: multipart/alternative; boundary="', mark, b'"\r\n\r\n'))
    both += b"".join(b"--" + mark + b"\r\n" + part for part in (plain_part, html)) + b"--" + mark + b"--\r\n"
    if kind < 0.85:
        return both
    name = b"file%d.pdf" % (number % 50)
    file = b'Content-Type: application/pdf; name="' + name + b'"\r\nContent-Transfer-Encoding: base64\r\n'
    file += b'Content-Disposition: attachment; filename="' + name + b'"\r\n\r\n' + choose.choice(files)
    outer = b"=_o%012x" % number
    parts = b"".join(b"--" + outer + b"\r\n" + part for part in (both, file))
    return b'Content-Type: multipart/mixed; boundary="' + outer + b'"\r\n\r\n' + parts + b"--" + outer + b"--\r\n"
