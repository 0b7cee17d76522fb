"""Regular expressions for the search key ``X-REGEX`` (an extension of ours, see docs/rfcs.md).

The engine is RE2, whose time grows with the text and the pattern multiplied and never faster; it knows no back references and no
look-around (https://github.com/google/re2/wiki/Syntax).  Patterns and programs are bounded, so that the product is too.

Texts are compared as SEARCH keeps them: folded, and with every run of white space as one space.  So case never matters, ``^`` and ``$`` are
the beginning and the end of the whole field or body, white space aside, and no pattern needs to care for line breaks.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import re2  # type: ignore[import-untyped]

from fe_twisted.base.errors import BadSyntax

#: Characters of a pattern, octets of memory of its automaton, and instructions of its program.
MAX_PATTERN = 500
MAX_MEMORY = 2 << 20
MAX_PROGRAM = 5_000
#: Octets of one message's text that are looked at.
MAX_TEXT = 1 << 20


@lru_cache(maxsize=64)
def compiled(pattern: str) -> Any:
    """The automaton; its ``search`` takes UTF-8.

    :raises BadSyntax: not a pattern, or one that is too large.
    """
    if len(pattern) > MAX_PATTERN:
        raise BadSyntax(f"regular expression longer than {MAX_PATTERN} characters")
    options = re2.Options()
    options.max_mem = MAX_MEMORY
    options.case_sensitive = False
    options.never_capture = True
    options.log_errors = False
    try:
        made = re2.compile(pattern, options)
    except (re2.error, UnicodeEncodeError) as error:
        raise BadSyntax(f"not a regular expression: {_shown(error)}") from None
    if made.programsize > MAX_PROGRAM:
        raise BadSyntax("regular expression too large")
    return made


def matches(pattern: str, text: str) -> bool:
    """Whether the pattern matches somewhere in the text, of which no more than :data:`MAX_TEXT` octets are looked at.

    :raises BadSyntax: not a pattern.
    """
    octets = text.strip().encode("utf-8", "replace")[:MAX_TEXT]
    return compiled(pattern).search(octets) is not None


def _shown(error: Exception) -> str:
    """What the engine says, as one line."""
    words = error.args[0] if error.args else ""
    text = words.decode("utf-8", "replace") if isinstance(words, bytes) else str(words)
    return "".join([character if character.isprintable() else "?" for character in text])[:200] or "?"
