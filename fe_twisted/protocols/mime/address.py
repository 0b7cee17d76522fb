"""Address lists of header fields (RFC 5322 section 3.4, with the obsolete forms of section 4.4), from any octets."""

from __future__ import annotations

import re
from typing import NamedTuple

_TOKENS = re.compile(
    rb"(?P<space>[\s]++)"
    rb"|(?P<atom>[^\s()<>@,;:\\\".\[\]]++)"
    rb"|\"(?P<quoted>(?>(?:[^\"\\]++|\\.)*))\"?"
    rb"|(?P<special>[<>@,;:.])"
    rb"|(?P<comment>\()"
    rb"|(?P<literal>\[[^\[\]]*+\]?)"
    rb"|(?P<other>.)",
    re.DOTALL,
)
#: What nearly all lists are made of, read in one step: ``Jane Doe <jane@example.org>``, ``"Doe, Jane" <…>``, ``jane@example.org``.
_USUAL = re.compile(
    rb"[ \t]*+(?:(?>(?:\"([^\"\\]++)\"|([^\s()<>@,;:\\\".\[\]]++(?>(?: [^\s()<>@,;:\\\".\[\]]++)*)))?)[ \t]*+<([\w.+=-]++)@([\w.-]++)>"
    rb"|([\w.+=-]++)@([\w.-]++))[ \t]*+(?:,|$)",
    re.ASCII,
)
_PARENTHESES = re.compile(rb"\\.|[()]", re.DOTALL)
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
#: An address list longer than this is cut; the header itself keeps it all.
_MAX_ADDRESSES = 10_000


class Address(NamedTuple):
    """A mailbox, or a mark of a group: ``(None, group, None)`` begins one and ``(None, None, None)`` ends it.

    :param name: the display name as it was sent (encoded words not decoded, quoting removed), or None.
    :param mailbox: the local part, quoting removed; empty when it is missing.
    :param host: the domain; empty when it is missing, since NIL would mean a group (RFC 9051 section 7.5.2).
    :param route: the domains that stand before the address in ``<@one,@two:user@host>`` (RFC 5322 section 4.4), or None.
    """

    name: bytes | None
    mailbox: bytes | None
    host: bytes | None
    route: bytes | None = None


def parse(value: bytes) -> list[Address]:
    """The addresses of an unfolded field value.  A comment serves as display name where there is no other."""
    found: list[Address] = []
    position = 0
    while position < len(value) and len(found) < _MAX_ADDRESSES:
        usual = _USUAL.match(value, position)
        if usual is None:
            return _Parser(value).run()
        quoted, words, mailbox, host, bare_mailbox, bare_host = usual.groups()
        found.append(Address((quoted or words or b"").strip() or None, mailbox or bare_mailbox, host or bare_host))
        position = usual.end()
    return found


class _Parser:
    """Reads tokens and keeps the pieces of the address it is in."""

    def __init__(self, value: bytes) -> None:
        self._value = value
        self._found: list[Address] = []
        self._group = False
        self._clear()

    def _clear(self) -> None:
        #: Before "<" or "@": whether white space came before it, and the word or dot.  A display name or a local part.
        self._words: list[tuple[bool, bytes]] = []
        self._cut = 0  # words from here on can be a local part: nothing but dots divides them
        self._dot = True  # the last one was a dot, or there was none
        self._local: list[bytes] | None = None
        self._host: list[bytes] | None = None
        self._comment = b""
        self._route: list[bytes] = []
        self._angle = False
        self._closed = False  # ">" was read
        self._space = False

    def run(self) -> list[Address]:
        """Reads all of it."""
        value, position, end = self._value, 0, len(self._value)
        match = _TOKENS.match
        while position < end and len(self._found) < _MAX_ADDRESSES:
            token = match(value, position)
            assert token is not None  # the last alternative takes any octet
            kind = token.lastgroup
            position = token.end()
            if kind == "atom":
                self._word(token[0])
            elif kind == "space":
                self._space = True
            elif kind == "special":
                self._special(token[0])
            elif kind == "quoted":
                self._word(_unescape(token["quoted"]))
            elif kind == "comment":
                position = self._read_comment(position)
            else:
                self._word(token[0])
        self._flush()
        if self._group:
            self._found.append(Address(None, None, None))
        return self._found

    def _word(self, word: bytes) -> None:
        if self._closed:
            return
        if self._host and self._space and not self._angle and word != b"." and self._host[-1] != b".":
            self._flush()  # "a@b c@d": the comma is missing
        if self._host is not None:
            self._host.append(word)
        elif self._local is not None:
            self._local.append(word)
        else:
            if self._space and not self._dot:
                self._cut = len(self._words)
            self._words.append((self._space, word))
            self._dot = False
        self._space = False

    def _special(self, char: bytes) -> None:
        if char == b".":
            if self._local is None:
                self._words.append((False, b"."))
                self._dot = True
            else:
                self._word(b".")
            self._space = False
        elif char == b"<":
            if self._local is not None:
                self._flush()  # the comma is missing
            self._angle, self._local, self._host = True, [], None
        elif char == b"@":
            if self._closed:
                return
            if self._local is None:
                self._local = [word for _, word in self._words[self._cut :]]
                self._words = self._words[: self._cut]
            elif self._host:
                self._local += [b"@", *self._host]  # <a@b@c>: the last one divides
            self._host = []
        elif char == b">":
            self._closed = self._angle
        elif char == b"," and self._angle and self._host is not None and self._local == []:
            self._route.append(b"@" + b"".join(self._host))  # <@a,@b:user@host> (RFC 5322 section 4.4)
            self._host = None
        elif char == b":" and self._angle:
            if self._host is not None and self._local == []:
                self._route.append(b"@" + b"".join(self._host))
            self._local, self._host = [], None
        elif char == b",":
            self._flush()
        elif char == b":":
            self._begin_group()
        else:
            self._flush()
            if self._group:
                self._found.append(Address(None, None, None))
                self._group = False

    def _begin_group(self) -> None:
        if not self._group and self._local is None:
            self._found.append(Address(None, self._phrase(), None))
            self._group = True
            self._clear()

    def _flush(self) -> None:
        """The end of one address."""
        name = self._phrase()
        if self._local is not None:
            local, host = b"".join(self._local), b"".join(self._host or ())
        elif not self._words:
            self._clear()
            return
        elif self._cut == 0:
            local, host, name = name, b"", b""
        else:
            local = host = b""  # "John Doe" and nothing else
        self._found.append(Address(name or self._comment or None, local, host, b",".join(self._route) or None))
        self._clear()

    def _phrase(self) -> bytes:
        return b"".join([b" " + word if space else word for space, word in self._words]).strip()

    def _read_comment(self, position: int) -> int:
        """Past the parenthesis that closes the one before ``position``; its text is kept (comments nest)."""
        depth, end = 1, len(self._value)
        for found in _PARENTHESES.finditer(self._value, position):
            if found[0] == b"(":
                depth += 1
            elif found[0] == b")":
                depth -= 1
                if depth == 0:
                    end = found.start()
                    break
        self._comment = _unescape(self._value[position:end]).strip()
        self._space = True
        return end + 1


def _unescape(text: bytes) -> bytes:
    return _ESCAPE.sub(rb"\1", text) if b"\\" in text else text
