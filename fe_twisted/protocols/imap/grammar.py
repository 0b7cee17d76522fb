"""The lexical level of IMAP: atoms, strings, numbers, lists (RFC 3501 section 9, RFC 9051 section 9).

A :class:`Reader` goes once over one whole command.  Its text is what was received without the octets of literals: the announcement ``{5}``
and the CR LF after it stay where they were, and the literals lie beside it in order.  CR LF stands nowhere else in the text, so an
announcement cannot be confused with anything.

Two things are taken more widely than the grammar says, both harmless and both sent by real clients: octets above 127 in quoted
strings (LOGIN and SEARCH; whoever needs text decodes it), and NUL in a literal where the caller says so (APPEND of a message that
holds NUL).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

from fe_twisted.base.errors import BadSyntax

Value = TypeVar("Value")

#: Characters of an atom, for use inside a pattern's brackets; ASTRING-CHAR adds ``]``, list-char adds ``]%*``.
ATOM_CHARS = rb"!#$&'+,\-./0-9:;<=>?@A-Z\[^_`a-z|}~"

#: A tag is any ASTRING-CHAR but ``+`` (RFC 3501 section 9).
TAG = rb"[!#$&',\-./0-9:;<=>?@A-Z\[\]^_`a-z|}~]++"

_ATOM = re.compile(rb"[" + ATOM_CHARS + rb"]++")
_ASTRING = re.compile(rb"[" + ATOM_CHARS + rb"\]]++")
_PATTERN = re.compile(rb"[" + ATOM_CHARS + rb"\]%*]++")
_QUOTED = re.compile(rb'"([^"\\\r\n\x00]*+(?>(?:\\["\\][^"\\\r\n\x00]*+)*))"')
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_LITERAL = re.compile(rb"(~?)\{[0-9]++\+?\}\r\n")
_NUMBER = re.compile(rb"[0-9]++")

#: Largest ``number`` (RFC 3501) and ``number64`` (RFC 9051), and the digits that the larger one has.
MAX_NUMBER = (1 << 32) - 1
MAX_NUMBER64 = (1 << 63) - 1
_DIGITS = 19


class Reader:
    """One command's octets and how far they have been read.

    Every method reads from where the one before ended, and raises :class:`BadSyntax` with what was expected and where.

    :param text: the command line(s), announcements of literals included, without the final CR LF.
    :param literals: the octets of the literals, in order.
    :param utf8: names of mailboxes are UTF-8 (RFC 9051, RFC 6855) and not modified UTF-7.
    """

    __slots__ = ("at", "literals", "text", "used", "utf8")

    def __init__(self, text: bytes, literals: Sequence[bytes] = (), *, utf8: bool = False, at: int = 0) -> None:
        self.text = text
        self.literals = literals
        self.utf8 = utf8
        self.at = at
        self.used = 0

    def fail(self, problem: str, at: int | None = None) -> NoReturn:
        """:raises BadSyntax: ``problem`` and the octet, counted from 1 with literals included, where it is."""
        octet = (self.at if at is None else at) + sum(len(literal) for literal in self.literals[: self.used]) + 1
        raise BadSyntax(f"{problem} at octet {octet}")

    # -- single characters ------------------------------------------------------------------------

    def ended(self) -> bool:
        """Nothing is left."""
        return self.at == len(self.text)

    def end(self) -> None:
        """Require that nothing is left."""
        if self.at != len(self.text):
            self.fail("expected the end of the command")

    def sees(self, octets: bytes) -> bool:
        """These octets come next (and stay)."""
        return self.text.startswith(octets, self.at)

    def take(self, octets: bytes) -> bool:
        """Pass over these octets if they come next."""
        if self.text.startswith(octets, self.at):
            self.at += len(octets)
            return True
        return False

    def expect(self, octets: bytes) -> None:
        """Pass over these octets, which must come next."""
        if not self.take(octets):
            self.fail("expected a space" if octets == b" " else f"expected '{octets.decode('ascii')}'")

    def space(self) -> None:
        """Pass over the one space that separates arguments."""
        self.expect(b" ")

    # -- words ------------------------------------------------------------------------------------

    def match(self, pattern: re.Pattern[bytes], expected: str) -> re.Match[bytes]:
        """Pass over what the pattern matches here; ``expected`` names it in the error."""
        found = pattern.match(self.text, self.at)
        if found is None:
            self.fail(f"expected {expected}")
        self.at = found.end()
        return found

    def atom(self, expected: str = "an atom") -> str:
        """An atom, as written."""
        return self.match(_ATOM, expected)[0].decode("ascii")

    def word(self, expected: str = "a word") -> str:
        """An atom in upper case."""
        return self.atom(expected).upper()

    def number(self, maximum: int = MAX_NUMBER, minimum: int = 0) -> int:
        """A decimal number within bounds."""
        start = self.at
        digits = self.match(_NUMBER, "a number")[0].lstrip(b"0") or b"0"
        value = int(digits) if len(digits) <= _DIGITS else maximum + 1
        if not minimum <= value <= maximum:
            self.fail(f"expected a number from {minimum} to {maximum}", start)
        return value

    # -- strings ----------------------------------------------------------------------------------

    def sees_string(self) -> bool:
        """A quoted string or a literal comes next."""
        return self.text.startswith((b'"', b"{", b"~{"), self.at)

    def quoted(self) -> bytes:
        """A quoted string, without quotes and backslashes."""
        octets = self.match(_QUOTED, "a quoted string")[1]
        return _ESCAPED.sub(rb"\1", octets) if b"\\" in octets else octets

    def literal(self, *, binary: bool = False) -> bytes:
        """A literal; with ``binary`` also ``~{n}`` (RFC 3516), and NUL in either kind."""
        start = self.at
        found = self.match(_LITERAL, "a literal")
        if found[1] and not binary:
            self.fail("a binary literal is not allowed here", start)
        octets = self.literals[self.used]
        if not binary and b"\0" in octets:
            self.fail("a literal holds NUL", start)
        self.used += 1
        return octets

    def string(self, expected: str = "a string") -> bytes:
        """A quoted string or a literal."""
        if self.sees(b'"'):
            return self.quoted()
        if self.sees(b"{"):
            return self.literal()
        self.fail(f"expected {expected}")

    def nstring(self) -> bytes | None:
        """A string, or None for NIL."""
        if self.sees_string():
            return self.string()
        if self.text[self.at : self.at + 3].upper() == b"NIL":
            self.at += 3
            return None
        self.fail("expected a string or NIL")

    def astring(self, expected: str = "a string") -> bytes:
        """An atom (which may hold ``]``) or a string."""
        if self.sees_string():
            return self.string(expected)
        return self.match(_ASTRING, expected)[0]

    def list_pattern(self) -> bytes:
        """A string, or an atom that may hold ``%`` and ``*`` (list-mailbox)."""
        if self.sees_string():
            return self.string()
        return self.match(_PATTERN, "a mailbox pattern")[0]

    # -- lists ------------------------------------------------------------------------------------

    def parenthesised(self, read: Callable[[Reader], Value], *, empty: bool = False) -> tuple[Value, ...]:
        """``(a b c)``; ``()`` only when ``empty`` allows it."""
        self.expect(b"(")
        if empty and self.take(b")"):
            return ()
        made = [read(self)]
        while not self.take(b")"):
            if not self.take(b" "):
                self.fail("expected a space or ')'")
            made.append(read(self))
        return tuple(made)
