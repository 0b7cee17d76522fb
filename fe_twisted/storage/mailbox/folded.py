"""The form in which texts are kept for SEARCH and in which SEARCH compares them."""

from __future__ import annotations

from fe_twisted.protocols.mime.text import fold


def folded(text: str) -> str:
    """Folded (:func:`fe_twisted.protocols.mime.text.fold`), and without what SQLite's text functions cannot carry.

    They stop at NUL, and a lone surrogate cannot be written as UTF-8; both become the replacement character.
    """
    found = fold(text).replace("\0", "\ufffd")
    return found if found.isascii() else found.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
