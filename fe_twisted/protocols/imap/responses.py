"""Whole IMAP response lines, each with its CR LF (skeleton of the interface)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fe_twisted.protocols.imap.search import Ranges


def tagged(tag: str, condition: str, text: str, code: str = "") -> bytes:
    """``a1 OK [CODE] text``; condition is OK, NO or BAD."""
    raise NotImplementedError


def untagged(condition: str, text: str, code: str = "") -> bytes:
    """``* OK [CODE] text``; condition is OK, NO, BAD, BYE or PREAUTH."""
    raise NotImplementedError


def continuation(text: str = "ready") -> bytes:
    """``+ text``; a base64 challenge or a sentence."""
    raise NotImplementedError


def capability(names: Iterable[str]) -> bytes:
    """``* CAPABILITY …``."""
    raise NotImplementedError


def search(numbers: Iterable[int], modseq: int = 0) -> bytes:
    """``* SEARCH 1 2 3``, with ``(MODSEQ n)`` unless 0."""
    raise NotImplementedError


def esearch(tag: str, uid: bool, returns: Sequence[str], found: Ranges, modseq: int = 0) -> bytes:
    """``* ESEARCH (TAG "a1") UID MIN 1 ALL 1:3`` (RFC 4731)."""
    raise NotImplementedError


def listed(
    name: str, attributes: Iterable[str], *, utf8: bool = False, command: str = "LIST", separator: str | None = "/", childinfo: Sequence[str] = ()
) -> bytes:
    r"""``* LIST (\HasNoChildren) "/" INBOX``; ``childinfo`` such as ``SUBSCRIBED`` (RFC 5258)."""
    raise NotImplementedError


def status(name: str, items: Iterable[tuple[str, int | str]], *, utf8: bool = False) -> bytes:
    """``* STATUS INBOX (MESSAGES 3 UIDNEXT 9)``; an ``int`` as it is, a ``str`` in parentheses (MAILBOXID)."""
    raise NotImplementedError


def flags(names: Iterable[str]) -> bytes:
    r"""``* FLAGS (\Seen …)``."""
    raise NotImplementedError


def exists(count: int) -> bytes:
    """``* 3 EXISTS``."""
    raise NotImplementedError


def recent(count: int) -> bytes:
    """``* 0 RECENT``."""
    raise NotImplementedError


def expunged(numbers: Iterable[int]) -> bytes:
    """``* 3 EXPUNGE`` lines in the order given."""
    raise NotImplementedError


def vanished(uids: Ranges, *, earlier: bool = False) -> bytes:
    """``* VANISHED (EARLIER) 1:3`` (RFC 7162); empty for no UIDs."""
    raise NotImplementedError


def identity(fields: Iterable[tuple[str, str | None]]) -> bytes:
    """``* ID ("name" "…")`` (RFC 2971), ``* ID NIL`` for none."""
    raise NotImplementedError


def namespace(separator: str = "/") -> bytes:
    """``* NAMESPACE (("" "/")) NIL NIL``: one personal name space (RFC 2342)."""
    raise NotImplementedError


def enabled(names: Iterable[str]) -> bytes:
    """``* ENABLED …`` (RFC 5161)."""
    raise NotImplementedError


def appenduid(uidvalidity: int, uids: Sequence[int]) -> str:
    """``APPENDUID 1 5:6`` for the brackets of the tagged OK (RFC 4315)."""
    raise NotImplementedError


def copyuid(uidvalidity: int, source: Sequence[int], target: Sequence[int]) -> str:
    """``COPYUID 1 1:3 7:9`` (RFC 4315)."""
    raise NotImplementedError
