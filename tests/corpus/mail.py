"""Real and generated messages as input for tests.

Real ones come from what is on the machine: the data of CPython's own ``test_email`` and sample messages that Debian packages ship
(``spamassassin``, ``mailman3``, installed or unpacked in a folder that :data:`FOLDERS_VARIABLE` names).  Generated ones cover charsets,
encoded words, RFC 2231, nesting, and headers that break the rules.

SMTP and APPEND carry lines that end in CR LF, so every message is brought to that form first; nothing else about it is changed.
"""

from __future__ import annotations

import os
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from email.header import Header
from email.message import EmailMessage
from email.mime.base import MIMEBase
from email.mime.message import MIMEMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path

#: Folders with unpacked Debian packages, separated by ``:``.
FOLDERS_VARIABLE = "FE_TEST_CORPUS"

#: Where packages put sample messages, relative to ``/`` or to a folder that a package was unpacked in.
_SAMPLES = (
    "usr/share/doc/spamassassin/examples/sample-*.txt*",
    "usr/lib/python3/dist-packages/mailman/**/tests/data/*.eml",
    "usr/lib/python3/dist-packages/mailman/**/tests/*.eml",
    "usr/lib/python3*/test/test_email/data/msg_*.txt",
)


@dataclass(frozen=True)
class Sample:
    """One message.

    :param words: ASCII words that stand in its text or subject after decoding, so that SEARCH TEXT must find the message by each.
    """

    name: str
    content: bytes
    words: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name


def crlf(content: bytes) -> bytes:
    """Every line end as CR LF, and one at the end."""
    lines = re.split(rb"\r\n|\r|\n", content)
    if lines[-1] == b"":
        lines.pop()
    return b"".join(line + b"\r\n" for line in lines)


def from_python() -> list[Sample]:
    """CPython's ``test_email`` data, if the running Python was installed with its tests."""
    folder = Path(sysconfig.get_path("stdlib")) / "test" / "test_email" / "data"
    return [_file(f"cpython/{path.name}", path) for path in sorted(folder.glob("msg_*.txt"))]


def from_packages() -> list[Sample]:
    """Sample messages of Debian packages that are installed, or unpacked in one of the folders of :data:`FOLDERS_VARIABLE`."""
    roots = [Path("/"), *(Path(name) for name in os.environ.get(FOLDERS_VARIABLE, "").split(":") if name)]
    found: dict[str, Sample] = {}
    for root in roots:
        for pattern in _SAMPLES:
            for path in sorted(root.glob(pattern)):
                name = f"debian/{path.relative_to(root)}"
                if path.is_file() and path.suffix != ".gz":
                    found[name] = _file(name, path)
    return list(found.values())


def _file(name: str, path: Path) -> Sample:
    content = crlf(path.read_bytes())
    return Sample(name, content, _plain_words(content))


def _plain_words(content: bytes) -> tuple[str, ...]:
    """A word of the first Subject that needs no decoding; every server must find it by SEARCH SUBJECT."""
    header = content.partition(b"\r\n\r\n")[0]
    subject = re.search(rb"^Subject:([^\r\n]*)$", header.replace(b"\r\n", b"\n"), re.MULTILINE | re.IGNORECASE)
    if subject is None or b"=?" in subject[1]:
        return ()
    return tuple(word.decode() for word in re.findall(rb"[A-Za-z]{5,}", subject[1])[:1])


def generated() -> Iterator[Sample]:
    """Messages made for this purpose."""
    yield from _charsets()
    yield from _structures()
    yield from _rule_breakers()


#: A charset, a text in it, and an ASCII word that stands inside the text.
_TEXTS = (
    ("us-ascii", "plain words marker-ascii", "marker-ascii"),
    ("utf-8", "Grüße aus Köln — 東京 🎉 marker-utf", "marker-utf"),
    ("iso-8859-1", "Déjà vu, ça va marker-latin", "marker-latin"),
    ("iso-8859-2", "Zażółć gęślą jaźń marker-polish", "marker-polish"),
    ("iso-8859-15", "Prix 10 € marker-euro", "marker-euro"),
    ("windows-1251", "Привет, мир marker-cyrillic", "marker-cyrillic"),
    ("windows-1252", "“quoted” — text marker-quoted", "marker-quoted"),
    ("koi8-r", "Съешь ещё этих мягких булок marker-koi", "marker-koi"),
    ("iso-2022-jp", "日本語のメール marker-jis", "marker-jis"),
    ("shift_jis", "日本語のメール marker-sjis", "marker-sjis"),
    ("euc-jp", "日本語のメール marker-eucjp", "marker-eucjp"),
    ("gb2312", "简体中文邮件 marker-gb", "marker-gb"),
    ("gb18030", "简体中文邮件 €𠀀 marker-gbk", "marker-gbk"),
    ("big5", "繁體中文郵件 marker-big", "marker-big"),
    ("euc-kr", "한국어 메일 marker-korean", "marker-korean"),
    ("iso-8859-7", "Καλημέρα κόσμε marker-greek", "marker-greek"),
    ("iso-8859-8", "שלום עולם marker-hebrew", "marker-hebrew"),
    ("iso-8859-6", "مرحبا بالعالم marker-arabic", "marker-arabic"),
    ("tis-620", "สวัสดีชาวโลก marker-thai", "marker-thai"),
    ("utf-7", "Grüße marker-seven", "marker-seven"),
    ("utf-16", "Grüße marker-sixteen", "marker-sixteen"),
)


def _charsets() -> Iterator[Sample]:
    """Each charset in each transfer encoding that can carry it, and as encoded words in the header."""
    for charset, text, word in _TEXTS:
        raw = text.encode(charset)
        for encoding in ("base64", "quoted-printable", "8bit"):
            if encoding == "8bit" and (charset == "utf-16" or b"\n" in raw or b"\r" in raw):
                continue
            part = MIMEBase("text", "plain", charset=charset)
            part["From"] = "a@example.net"
            part["Subject"] = f"charset {charset} {encoding}"
            part["Content-Transfer-Encoding"] = encoding
            part["Message-ID"] = f"<{charset}.{encoding}@example.net>"
            yield Sample(f"charset/{charset}-{encoding}", crlf(part.as_bytes()) + _body(raw, encoding), (word,))
        if charset not in ("utf-7", "utf-16"):
            note = MIMEText("see the subject", "plain")
            note["Subject"] = Header(text, charset=charset)
            note["From"] = "a@example.net"
            yield Sample(f"charset/{charset}-encoded-word", crlf(note.as_bytes()), (word,))


def _body(raw: bytes, encoding: str) -> bytes:
    import base64
    import quopri

    if encoding == "base64":
        return base64.encodebytes(raw).replace(b"\n", b"\r\n")
    if encoding == "quoted-printable":
        return quopri.encodestring(raw).replace(b"\n", b"\r\n") + b"\r\n"
    return raw + b"\r\n"


def _structures() -> Iterator[Sample]:
    """Attachments, alternatives, RFC 2231 names, messages in messages, empty parts."""
    message = EmailMessage()
    message["From"] = "Ünïcode Sender <sender@example.net>"
    message["To"] = "Undisclosed: a@example.com, b@example.com;"
    message["Subject"] = "Rechnung für März"
    message.set_content("text version marker-alternative\n")
    message.add_alternative("<p>html version</p>\n", subtype="html")
    message.add_attachment(bytes(range(256)) * 40, maintype="application", subtype="octet-stream", filename="Übersicht März 2024.bin")
    message.add_attachment("attached text marker-attached\n", filename='naïve; "quoted".txt')
    yield Sample("structure/alternative-attachments", crlf(message.as_bytes()), ("marker-alternative",))

    outer = MIMEMultipart("mixed")
    outer["Subject"] = "forwarded"
    outer.attach(MIMEText("see below", "plain"))
    outer.attach(MIMEMessage(message))
    digest = MIMEMultipart("digest")
    digest.attach(MIMEMessage(message))
    digest.attach(MIMEMessage(message))
    outer.attach(digest)
    yield Sample("structure/message-in-message", crlf(outer.as_bytes()), ("forwarded",))

    deep = MIMEText("the innermost text marker-deep")
    for level in range(40):
        around = MIMEMultipart("mixed", boundary=f"level{level}")
        around.attach(deep)
        deep = around  # type: ignore[assignment]
    deep["Subject"] = "nested"
    yield Sample("structure/nested-40", crlf(deep.as_bytes()), ("marker-deep",))

    yield Sample(
        "structure/rfc2231",
        b"Subject: parameters\r\nMIME-Version: 1.0\r\nContent-Type: application/x-stuff;\r\n"
        b" title*0*=us-ascii'en'This%20is%20even%20more%20;\r\n"
        b' title*1*=%2A%2A%2Afun%2A%2A%2A%20;\r\n title*2="isn\'t it!"\r\n'
        b"Content-Disposition: attachment; filename*=utf-8''%e2%82%ac%20rates.txt; size=3\r\n\r\nabc\r\n",
        ("parameters",),
    )
    yield Sample(
        "structure/bounce",
        b"From: MAILER-DAEMON@example.net\r\nSubject: Undelivered\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\r\nsorry\r\n"
        b"--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example.net\r\n\r\n"
        b"Final-Recipient: rfc822; marker-failed@example.org\r\nAction: failed\r\nStatus: 5.1.1\r\n"
        b"--b\r\nContent-Type: text/rfc822-headers\r\n\r\nSubject: marker-returned\r\n--b--\r\n",
        ("marker-failed", "marker-returned"),
    )
    yield Sample("structure/empty-body", b"Subject: nothing follows\r\nFrom: a@example.net\r\n\r\n", ("follows",))
    yield Sample("structure/dots", b"Subject: dots\r\n\r\n.\r\n..\r\n.hidden\r\n...\r\n.\r\nend marker-dots\r\n", ("marker-dots",))
    yield Sample("structure/long-line", b"Subject: long\r\n\r\n" + b"0123456789" * 9_000 + b"\r\nmarker-long\r\n", ("marker-long",))
    yield Sample(
        "structure/format-flowed",
        b"Subject: flowed\r\nContent-Type: text/plain; format=flowed; delsp=yes\r\n\r\n"
        b"a soft \r\nbreak marker-flowed\r\n-- \r\nsignature\r\n",
        ("marker-flowed",),
    )
    yield Sample(
        "structure/encoded-boundary",
        b"Subject: encoded\r\nContent-Type: multipart/mixed; boundary*=us-ascii'en'b%2Dc\r\n\r\n--b-c\r\n\r\nmarker-encoded\r\n--b-c--\r\n",
        ("marker-encoded",),
    )
    yield Sample("structure/uuencoded", b"Subject: old\r\n\r\nbegin 644 f.txt\r\n#0V%T\r\n`\r\nend\r\nmarker-uu\r\n", ("marker-uu",))


def _rule_breakers() -> Iterator[Sample]:
    """What should not be, and is: each must be stored and given back as it is."""
    yield Sample(
        "broken/8bit-header", b"Subject: Gr\xfc\xdfe r\xe4w\r\nFrom: J\xf6rg <j@example.net>\r\n\r\nmarker-raw\r\n", ("marker-raw",)
    )
    yield Sample(
        "broken/utf8-header", "Subject: Grüße marker-header\r\nFrom: Jörg <j@example.net>\r\n\r\nx\r\n".encode(), ("marker-header",)
    )
    yield Sample("broken/no-header", b"\r\nonly a body marker-body\r\n", ("marker-body",))
    yield Sample("broken/no-blank-line", b"Subject: headeronly\r\n", ("headeronly",))
    yield Sample("broken/no-colon", b"Subject: first\r\nthis is no field\r\nTo: x@example.com\r\n\r\nmarker-colon\r\n", ())
    yield Sample(
        "broken/trailing-semicolon", b"Subject: semi\r\nContent-Type: text/plain; charset=utf-8;\r\n\r\nmarker-semi\r\n", ("marker-semi",)
    )
    yield Sample(
        "broken/unknown-charset", b"Subject: odd\r\nContent-Type: text/plain; charset=x-klingon\r\n\r\nmarker-odd \xff\r\n", ("marker-odd",)
    )
    yield Sample(
        "broken/unknown-encoding", b"Subject: enc\r\nContent-Transfer-Encoding: x-rot13\r\n\r\nzba marker-enc\r\n", ("marker-enc",)
    )
    yield Sample(
        "broken/bad-base64",
        b"Subject: b64 marker-bad\r\nContent-Transfer-Encoding: base64\r\n\r\n!!!!not base64====\r\nQQ\r\n",
        ("marker-bad",),
    )
    yield Sample(
        "broken/no-closing-boundary",
        b"Subject: open\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\npreamble\r\n--b\r\n\r\nmarker-open\r\n",
        ("marker-open",),
    )
    yield Sample("broken/no-boundary", b"Subject: none\r\nContent-Type: multipart/mixed\r\n\r\nmarker-none\r\n", ())
    yield Sample(
        "broken/boundary-of-parent",
        b"Subject: same\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
        b"--b\r\n\r\nmarker-same\r\n--b--\r\n--b--\r\n",
        (),
    )
    yield Sample("broken/nul", b"Subject: nul marker-nul\r\n\r\nbefore\0after\r\n", ("marker-nul",))
    yield Sample(
        "broken/control",
        b"Subject: ctl marker-ctl\r\n\r\n" + bytes(b for b in range(1, 256) if b not in b"\r\n") + b"\r\n",
        ("marker-ctl",),
    )
    yield Sample("broken/huge-field", b"Subject: huge\r\nX-Long: " + b"word " * 15_000 + b"\r\n\r\nmarker-huge\r\n", ("marker-huge",))
    yield Sample("broken/folded-nothing", b"Subject:\r\n \r\n folded marker-fold\r\nTo:\r\n\r\nx\r\n", ())
    yield Sample(
        "broken/addresses",
        b"From: <>\r\nTo: (comment only)\r\nCc: a b c <unclosed@example.net\r\n"
        b'Reply-To: @route:x@example.net, "un"closed" <y>\r\nSender: ,,,\r\n'
        b"Date: yesterday at noon\r\nSubject: wild\r\n\r\nmarker-wild\r\n",
        ("marker-wild",),
    )
    yield Sample(
        "broken/repeated",
        b"Subject: one\r\nSubject: two\r\nFrom: a@x\r\nFrom: b@x\r\nDate: Mon, 99 Foo 2024\r\n\r\nmarker-twice\r\n",
        ("marker-twice",),
    )


def everything() -> list[Sample]:
    """All that can be had here, no two with the same content."""
    unique: dict[bytes, Sample] = {}
    for sample in (*from_python(), *from_packages(), *generated()):
        unique.setdefault(sample.content, sample)
    return list(unique.values())
