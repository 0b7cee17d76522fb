"""Mailbox names as the server compares them, and LIST patterns (RFC 3501 sections 5.1, 6.3.8)."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

SEPARATOR = "/"
INBOX = "INBOX"

#: More than this in one pattern is no search but an attack.
MAX_PATTERN = 2048


def canonical(name: str) -> str:
    """The one form of a name: NFC, INBOX in upper case also as the first level.

    «Café» typed on one device and on another must be one mailbox (RFC 9051 section 5.1 asks for Net-Unicode, RFC 5198).
    """
    name = unicodedata.normalize("NFC", name)
    first, separator, rest = name.partition(SEPARATOR)
    return INBOX + separator + rest if first.upper() == INBOX else name


def parents(name: str) -> list[str]:
    """The names above, topmost first: ``a``, ``a/b`` for ``a/b/c``."""
    levels = name.split(SEPARATOR)
    return [SEPARATOR.join(levels[:count]) for count in range(1, len(levels))]


def matcher(reference: str, pattern: str) -> Callable[[str], bool]:
    """A test whether a name matches ``reference`` joined with ``pattern``.

    ``*`` matches anything, ``%`` anything within a level; the first level INBOX matches in any case.  The time is proportional to the
    lengths multiplied, whatever the pattern: it is an automaton over bits, not a regular expression.
    """
    whole = unicodedata.normalize("NFC", reference + pattern)[:MAX_PATTERN]
    first, separator, rest = whole.partition(SEPARATOR)
    exact, folded = _automaton(whole), _automaton(first.upper() + separator + rest)

    def matches(name: str) -> bool:
        if name == INBOX or name.startswith(INBOX + SEPARATOR):
            return folded(name)
        return exact(name)

    return matches


def _automaton(pattern: str) -> Callable[[str], bool]:
    # State i means: the first i characters of the pattern have matched.  A wildcard's state may stay on a character (loop) and
    # be passed without one (skip).
    stars = percents = 0
    literal: dict[str, int] = {}
    for position, character in enumerate(pattern):
        bit = 1 << position
        if character == "*":
            stars |= bit
        elif character == "%":
            percents |= bit
        else:
            literal[character] = literal.get(character, 0) | bit
    wild = stars | percents
    final = 1 << len(pattern)

    def close(states: int) -> int:
        passed = states & wild
        while passed:
            new = (passed << 1) & ~states
            states |= new
            passed = new & wild
        return states

    start = close(1)

    def matches(name: str) -> bool:
        states = start
        for character in name:
            loops = states & (stars if character == SEPARATOR else wild)
            states = close(loops | (states & literal.get(character, 0)) << 1)
            if not states:
                return False
        return bool(states & final)

    return matches
