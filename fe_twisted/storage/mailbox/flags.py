"""Flag names and the integer they are kept as (one bit each)."""

from __future__ import annotations

from collections.abc import Iterable

import apsw

from fe_twisted.base.errors import LimitReached
from fe_twisted.storage.mailbox.api import FIRST_KEYWORD_BIT, MAX_KEYWORD, MAX_KEYWORDS, SYSTEM_FLAGS

_SYSTEM = {name.lower(): bit for name, bit in SYSTEM_FLAGS.items()}


def load_keywords(connection: apsw.Connection) -> tuple[str, ...]:
    """All keywords in the order of their bits."""
    return tuple(str(name) for (name,) in connection.execute("SELECT name FROM keywords ORDER BY number"))


def mask_of(names: Iterable[str], keywords: Iterable[str]) -> int:
    """The mask of those names that are known; unknown keywords count for nothing (no message has them)."""
    known = {name.lower(): 1 << (number + FIRST_KEYWORD_BIT) for number, name in enumerate(keywords)} | _SYSTEM
    mask = 0
    for name in names:
        mask |= known.get(name.lower(), 0)
    return mask


def make_mask(connection: apsw.Connection, names: Iterable[str]) -> int:
    """The mask of the names; new keywords get a bit of their own.

    :raises LimitReached: the mailbox has no bit left (58 different keywords), or a new one is too long.
    """
    mask = 0
    for name in sorted(names):
        bit = _SYSTEM.get(name.lower())
        mask |= bit if bit is not None else 1 << (_keyword(connection, name) + FIRST_KEYWORD_BIT)
    return mask


def _keyword(connection: apsw.Connection, name: str) -> int:
    number = connection.execute("SELECT number FROM keywords WHERE name = ?", (name,)).get
    if number is not None:
        return int(number)
    if len(name) > MAX_KEYWORD:
        raise LimitReached(f"a keyword is longer than {MAX_KEYWORD} characters")
    count = int(connection.execute("SELECT count(*) FROM keywords").get)
    if count >= MAX_KEYWORDS:
        raise LimitReached(f"too many different keywords, a mailbox has room for {MAX_KEYWORDS}")
    connection.execute("INSERT INTO keywords(number, name) VALUES(?, ?)", (count, name))
    return count
