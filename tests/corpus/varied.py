"""Any number of messages that differ from each other in as many ways as mail does; the same seed gives the same messages.

Each is put together from rules and from breaches of them, at every level: address lists, dates, folding, encoded words, charsets, transfer
encodings, parameters (RFC 2231 too), nested multiparts and messages, delimiters that are missing, doubled, or the beginning of another one.
"""

from __future__ import annotations

import base64
import quopri
import random
from collections.abc import Iterator

from tests.corpus.mail import Sample

# fmt: off
_WORDS = (
    "alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliet", "kilo", "lima", "mike",
    "november", "oscar",
    "papa", "quebec", "romeo", "sierra", "tango", "uniform", "victor", "whiskey", "xray", "yankee", "zulu", "invoice", "meeting", "report",
    "holiday", "budget", "Grüße", "naïve", "東京", "Привет",
)
_CHARSETS = (
    "us-ascii", "utf-8", "UTF-8", "iso-8859-1", "ISO-8859-15", "windows-1252", "koi8-r", "shift_jis", "gb18030", "x-unknown",
)
_ENCODINGS = (
    "7bit", "8bit", "binary", "base64", "quoted-printable", "Base64", "QUOTED-PRINTABLE", "BASE64 ", '"base64"', "x-uuencode",
    "base64 (really)", "", "7-bit",
)
#: What RFC 5322 allows, section 4.4 included, in a list too.
_MAILBOXES = (
    "joe@example.net", "Joe User <joe@example.net>", '"Doe, Jane" <jane@example.org>', "jane@example.org (Jane Doe)", "<joe@example.net>",
    "=?utf-8?q?J=C3=B6rg?= <joerg@example.net>", "=?iso-8859-1?B?SvZyZw==?= =?utf-8?Q?M=C3=BCller?= <jm@example.net>",
    '"quoted \\"inside\\"" <q@example.net>', '"local part"@example.net', "first.last@sub.example.net", "a.b.c <abc@example.net>",
    "joe@[127.0.0.1]", "Joe (the (nested) user) Doe <joe@example.net>", "<@relay.example:joe@example.net>", "joe @ example.net",
    '"joe@example.net" <joe@example.net>', "Jörg <raw8bit@example.net>", "", "undisclosed-recipients:;",
    "Friends: a@example.net, B <b@example.net>;", "Empty:;, after@example.net", "joe\t<joe@example.net>", "(only a comment)", ", ,",
    "Mr. T <t@example.net>", "ünï@exämple.net",
)
#: What it does not.
_BAD_MAILBOXES = (
    "postmaster", "joe@example.net <joe@example.net>", "joe@example.net;", "Joe <joe@>", "Joe <@example.net>", "<>", "Joe User",
    '"unclosed <joe@example.net>', "Joe <joe@example.net", "joe@@example.net", "a@example.net b@example.net",
    "Joe <joe@example.net> trailing", "x@y@z.example", "Joe, User <j@example.net>", "a,b,c", "joe.@example.net", ".joe@example.net",
    "Team: x@example.net",
)
_DATES = (
    "Mon, 15 Jan 2024 10:20:30 +0100", "15 Jan 2024 10:20:30 GMT", "Thu,  1 Feb 2024 01:02 -0800 (PST)", "Fri, 29 Feb 1980 00:00:00 EST",
    "Wed, 31 Dec 99 23:59:59 +0000", "yesterday", "", "Mon, 99 Foo 2024 99:99:99 +9999", "Sat, 13 Mar 2010\r\n 11:22:33 +0530",
    "2024-03-01T10:00:00Z", "Sun, 7 Apr 2024 08:00:00 Z",
)
#: What RFC 2045 section 5.1 allows.
_TYPES = (
    "text/plain", "text/html", "TEXT/Plain", "text/calendar; method=REQUEST", "text/x-diff", "text/plain; format=flowed; delsp=yes",
    'text/plain; name="a b.txt"', "application/octet-stream", "application/pdf; name=report.pdf", "image/png",
    "image/jpeg; name*=utf-8''%e2%82%ac.jpg", "audio/x-wav", 'application/x-stuff; title*0*=us-ascii\'en\'This%20is; title*1=" more"',
    "message/delivery-status", 'message/partial; number=1; total=2; id="x"',
    'message/external-body; access-type=local-file; name="/tmp/x"', "application/pkcs7-signature; name=smime.p7s",
    "text/plain; charset=utf-8; charset=us-ascii", "text/plain; (comment) charset=us-ascii (comment)",
    'text/plain; x="semi;colon"; y="back\\\\slash and \\"quote\\""',
)
#: What it does not.
_BAD_TYPES = (
    "text/plain; name=a b.txt", "text", "text/", "/plain", "text/plain; charset", "text/plain;", "text/plain; charset=", "text / plain",
    "text/plain charset=utf-8", "multipart", 'application/json; a=1;b="2" ; C = 3', 'text/plain; charset="utf-8',
    "video/mp4; =novalue; x==y", "",
)
_DISPOSITIONS = (
    "inline", "attachment", "attachment; filename=report.pdf", 'attachment; filename="a b; c.txt"', "ATTACHMENT; FILENAME=X",
    "attachment; filename*=utf-8''%e2%82%ac%20rates.txt; size=3", "attachment; filename*0=long; filename*1=name.txt",
    'inline; filename="=?utf-8?B?w6QuYmlu?="', "", "attachment;", 'attachment; filename="Jörg.txt"', "form-data; name=x",
)
_MULTIPARTS = (
    "mixed", "alternative", "related", "digest", "signed", "report", "parallel", "x-unknown", "MIXED", "encrypted",
)
_BOUNDARIES = (
    "b", "bb", "b-", "=_simple", "----=_Part_1.2", "a'b()c+_,-./:=?d", "with space in",
    "0123456789" * 7,
    "x" * 90, "b--", "--", "=",
)
_OTHERS = (
    ("X-Mailer", "generated 1.0"), ("Received", "from a by b; Mon, 15 Jan 2024 10:20:30 +0100"),
    ("Received", "from c\r\n\tby d\r\n\twith ESMTP; Mon, 15 Jan 2024 10:20:29 +0100"), ("X-Empty", ""),
    ("List-Id", "A list <list.example.net>"),
    ("X-Long", "word " * 300),
    ("Mime-version", "1.0 (comment)"), ("X-8bit", "Grüße"), ("X-Tab", "\tvalue\t"), ("Comments", "a\r\n b\r\n c"),
    ("Content-Language", "de"), ("Content-Language", "de, en"), ("Content-Location", "http://example.net/x"),
    ("Content-MD5", "Q2hlY2sgSW50ZWdyaXR5IQ=="), ("Content-ID", "<part@example.net>"), ("Content-Description", "a description"),
    ("Content-Description", "=?utf-8?q?=C3=A4?="), ("Status", "RO"), ("X-Folded-Empty", "\r\n "),
    ("Content-Description", 'with "quotes" and \\ backslash'), ("Content-ID", " <spaced@example.net> "),
    ("Content-Language", "en (comment), , fr"), ("Content-Description", "folded\r\n over\r\n\tlines"),
)
_SUBJECTS = (
    "plain subject", "Re: Fwd: plain subject", "=?utf-8?Q?Gr=C3=BC=C3=9Fe_aus?= =?utf-8?Q?_K=C3=B6ln?=", "=?iso-8859-1?B?R3L832U=?=",
    "folded\r\n over two lines", "folded\r\n\tby a tab", "", 'with "quotes" and \\ backslash', "raw Grüße", "Grüße", "  two  spaces  ",
    "=?utf-8?X?broken?=", "=?utf-8?Q?unfinished", "folded\r\n \r\n over an empty line", "tab\there",
    "x" * 1200,
)
_MESSAGES = ("message/rfc822", "message/rfc822", "Message/RFC822", "message/rfc822; name=x.eml", "message/global")
_ODD_PARTS = (b"", b"\r\n", b"\r\n\r\n", b"no header and no empty line", b"X-Only: header\r\n", b"Content-Type: text/plain")
_ODD_LINES = ("--", "-- ", "--b", "--bb", "--=_simple", ".", "", "", "From here", "Subject: no header")
# fmt: on


def varied(count: int, seed: int = 20_240_229) -> Iterator[Sample]:
    """Messages numbered from 0; the first of a longer row are those of a shorter one."""
    for number in range(count):
        yield Sample(f"varied/{seed}-{number}", _Writer(random.Random(seed * 1_000_003 + number)).message(0))


class _Writer:
    """Makes one message; every decision comes from ``chance``."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._parts = 0

    def _often(self, share: float) -> bool:
        return self._chance.random() < share

    def _octets(self, text: str) -> bytes:
        """UTF-8, or Latin-1 where it can be: headers in both are on the way."""
        if self._often(0.5):
            return text.encode("latin-1", "ignore")
        return text.encode()

    def _field(self, name: str, value: str) -> bytes:
        case = self._chance.choice((str, str, str, str.lower, str.upper))
        divider = self._chance.choice((": ", ": ", ": ", ": ", ":", ":\t", " : ", ":  ", ":\r\n "))
        return self._octets(case(name) + divider + value) + b"\r\n"

    def message(self, depth: int) -> bytes:
        """A whole message, with CR LF at every line end."""
        fields: list[bytes] = []
        for name, share in (("From", 0.95), ("Sender", 0.2), ("Reply-To", 0.2), ("To", 0.9), ("Cc", 0.4), ("Bcc", 0.1)):
            if self._often(share):
                fields.append(self._field(name, self._addresses()))
                if self._often(0.03):
                    fields.append(self._field(name, self._addresses()))
        if self._often(0.9):
            fields.append(self._field("Subject", self._chance.choice(_SUBJECTS) if self._often(0.6) else self._words(6)))
        if self._often(0.9):
            fields.append(self._field("Date", self._chance.choice(_DATES)))
        if self._often(0.8):
            form = self._chance.choice(("<{}@example.net>", "{}@example.net", "<{} @example.net>", " <{}@x>  "))
            fields.append(self._field("Message-ID", form.format(self._token())))
        if self._often(0.3):
            answered = f"<{self._token()}@example.net>" * self._chance.choice((1, 1, 2))
            fields.append(self._field("In-Reply-To", answered + self._chance.choice(("", " from Joe"))))
        if self._often(0.3):
            ids = (f"<{self._token()}@example.net>" for _ in range(self._chance.randint(1, 5)))
            fields.append(self._field("References", "\r\n ".join(ids)))
        if self._often(0.9):
            fields.append(b"MIME-Version: 1.0\r\n")
        return self._entity(depth, fields)

    def _entity(self, depth: int, fields: list[bytes]) -> bytes:
        """Header and body of a message or of a part; ``fields`` go into the header."""
        self._parts += 1
        for name, value in self._chance.sample(_OTHERS, self._chance.choice((0, 0, 1, 2, 4))):
            fields.append(self._field(name, value))
        nested = depth < 5 and self._parts < 25
        if nested and self._often(0.5 if depth == 0 else 0.3):
            body = self._multipart(depth, fields)
        elif nested and self._often(0.12):
            body = self._embedded(depth, fields)
        else:
            body = self._leaf(fields)
        self._chance.shuffle(fields)
        if self._often(0.02):
            odd = self._chance.choice(
                (b"this is no field\r\n", b"From joe Mon Jan 15 10:20:30 2024\r\n", b": no name\r\n", b"\xff\xfe: 8bit\r\n")
            )
            fields.insert(self._chance.randint(0, len(fields)), odd)
        if self._often(0.02):
            return b"".join(fields)  # a header that nothing follows
        return b"".join(fields) + b"\r\n" + body

    def _addresses(self) -> str:
        kinds = _MAILBOXES + _BAD_MAILBOXES if self._often(0.25) else _MAILBOXES
        found = [self._chance.choice(kinds) for _ in range(self._chance.choice((1, 1, 1, 2, 3, 6)))]
        return self._chance.choice((", ", ",", ",\r\n ", ",\r\n\t", " , ")).join(found)

    def _words(self, most: int) -> str:
        return " ".join(self._chance.choice(_WORDS) for _ in range(self._chance.randint(1, most)))

    def _token(self) -> str:
        return f"{self._chance.getrandbits(48):x}"

    # -- bodies -------------------------------------------------------------------------------------

    def _multipart(self, depth: int, fields: list[bytes]) -> bytes:
        boundary = self._chance.choice(_BOUNDARIES) if self._often(0.6) else f"=_{self._token()}"
        kind = self._chance.choice(_MULTIPARTS)
        # mostly quoted, as it must be for many of them
        parameter = f'boundary="{boundary}"' if self._often(0.8) else f"boundary={boundary}"
        if self._often(0.03):
            parameter = self._chance.choice(("", 'boundary=""', "boundary", f"boundary*0={boundary[:1]}; boundary*1={boundary[1:]}"))
        if self._often(0.2):
            parameter += self._chance.choice(
                ("; charset=utf-8", '; type="text/plain"', "; report-type=delivery-status", "; micalg=pgp-sha1", "; x=", ";")
            )
        fields.append(
            self._field("Content-Type", f"multipart/{kind};{self._chance.choice((' ', '', chr(13) + chr(10) + chr(9)))}{parameter}")
        )
        if self._often(0.05):
            fields.append(self._field("Content-Transfer-Encoding", self._chance.choice(_ENCODINGS)))
        if self._often(0.1):
            fields.append(self._field("Content-Disposition", self._chance.choice(_DISPOSITIONS)))
        mark = b"--" + boundary.encode()
        pieces: list[bytes] = []
        if self._often(0.3):
            pieces.append(self._text().encode() + b"\r\n")
        for _ in range(self._chance.choice((0,) + (1, 1, 2, 2, 2, 3, 4) * 4)):
            pieces.append(mark + self._chance.choice((b"",) * 48 + (b" ", b" ", b"\t  ", b"x", b"-")) + b"\r\n")
            pieces.append(self._part(depth))
            if self._often(0.98):
                pieces.append(b"\r\n")
        if self._often(0.9):
            pieces.append(mark + b"--" + self._chance.choice((b"\r\n",) * 16 + (b"", b"", b"  \r\n", b"-\r\n")))
        if self._often(0.2):
            pieces.append(self._text().encode() + b"\r\n")
        return b"".join(pieces)

    def _part(self, depth: int) -> bytes:
        if self._often(0.04):
            return self._chance.choice(_ODD_PARTS)
        if self._often(0.1):
            return b"\r\n" + self._text().encode()
        return self._entity(depth + 1, [])

    def _embedded(self, depth: int, fields: list[bytes]) -> bytes:
        fields.append(self._field("Content-Type", self._chance.choice(_MESSAGES)))
        if self._often(0.2):
            fields.append(self._field("Content-Transfer-Encoding", self._chance.choice(("7bit", "8bit", "binary", "base64"))))
        if self._often(0.3):
            fields.append(self._field("Content-Disposition", self._chance.choice(_DISPOSITIONS)))
        return self.message(depth + 1)

    def _text(self) -> str:
        lines = [self._words(10) for _ in range(self._chance.choice((0, 1, 1, 3, 10)))]
        if self._often(0.1):
            lines.append(self._chance.choice(_ODD_LINES))
        return "\r\n".join(lines)

    def _leaf(self, fields: list[bytes]) -> bytes:
        charset = self._chance.choice(_CHARSETS)
        encoding = self._chance.choice(_ENCODINGS)
        if self._often(0.9):
            kind = self._chance.choice(_TYPES) if self._often(0.5) else f"text/{self._chance.choice(('plain', 'html'))}; charset={charset}"
            fields.append(self._field("Content-Type", self._chance.choice(_BAD_TYPES) if self._often(0.06) else kind))
            if self._often(0.02):
                fields.append(self._field("Content-Type", self._chance.choice(_TYPES)))
        if encoding or self._often(0.1):
            fields.append(self._field("Content-Transfer-Encoding", encoding))
        if self._often(0.3):
            fields.append(self._field("Content-Disposition", self._chance.choice(_DISPOSITIONS)))
        if self._often(0.3):
            raw = (
                self._chance.randbytes(self._chance.choice((0, 1, 57, 300)))
                .replace(b"\0", b"0")
                .replace(b"\r", b"c")
                .replace(b"\n", b"\r\n")
            )
        else:
            try:
                raw = self._text().encode(charset, "replace")
            except LookupError:
                raw = self._text().encode()
        return self._encoded(raw, encoding.strip().strip('"').lower())

    def _encoded(self, raw: bytes, encoding: str) -> bytes:
        """The body in its transfer encoding; now and then damaged."""
        if encoding.startswith("base64"):
            coded = base64.encodebytes(raw).replace(b"\n", b"\r\n")
            if self._often(0.1):
                spaced = coded.replace(b"\r\n", b" \r\n")
                coded = self._chance.choice((coded[:-3], coded.replace(b"=", b""), b"!!" + coded, coded + b"trailing text\r\n", spaced))
        elif encoding == "quoted-printable":
            coded = quopri.encodestring(raw).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
            if self._often(0.1):
                coded += self._chance.choice((b"=", b"=\r\n", b"=ZZ", b"trailing  \r\n", b"=3d=3D=\r\n\r\n", b"soft =  \r\nbreak"))
        else:
            coded = raw
        if self._often(0.8) and not coded.endswith(b"\r\n"):
            coded += b"\r\n"
        return coded
