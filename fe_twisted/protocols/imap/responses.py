"""Whole IMAP response lines, each with its CR LF (RFC 3501 section 7, RFC 9051 section 7).

Texts for people come from our own code and errors; :func:`_text` still makes them safe, so that nothing a client sent can end a line early.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from fe_twisted.protocols.imap import ranges
from fe_twisted.protocols.imap.search import Ranges
from fe_twisted.protocols.imap.strings import flag_list, mailbox_name, quoted, string

#: Everything but printable US-ASCII, as :meth:`str.translate` wants it, would be endless; so only what breaks a line is named.
_BREAKING = {0: "?", 10: " ", 13: " "}


def _text(text: str) -> bytes:
    """A sentence for the client: one line of US-ASCII, never empty (RFC 9051 section 9, resp-text)."""
    if text.isascii() and text.isprintable():  # nearly always
        return text.encode("ascii") or b"-"
    return text.translate(_BREAKING).encode("ascii", "replace") or b"-"


def _condition(prefix: bytes, condition: str, text: str, code: str) -> bytes:
    if not code:
        return prefix + _plain(condition, text)
    return b"%b %b [%b] %b\r\n" % (prefix, condition.encode("ascii"), _text(code).replace(b"]", b"?"), _text(text))


@lru_cache(maxsize=256)
def _plain(condition: str, text: str) -> bytes:
    """What most commands end with is always the same."""
    return b" %b %b\r\n" % (condition.encode("ascii"), _text(text))


def tagged(tag: str, condition: str, text: str, code: str = "") -> bytes:
    """``a1 OK [CODE] text``; condition is OK, NO or BAD, the code may have arguments."""
    return _condition(tag.encode("ascii"), condition, text, code)


def untagged(condition: str, text: str, code: str = "") -> bytes:
    """``* OK [CODE] text``; condition is OK, NO, BAD, BYE or PREAUTH."""
    return _condition(b"*", condition, text, code)


def continuation(text: str = "ready") -> bytes:
    """``+ text``: a sentence, or a base64 challenge, which may be empty (RFC 9051 section 7.6)."""
    return b"+ " + text.translate(_BREAKING).encode("ascii", "replace") + b"\r\n"


def capability(names: Iterable[str]) -> bytes:
    """``* CAPABILITY IMAP4rev1 …``."""
    return f"* CAPABILITY {' '.join(names)}\r\n".encode("ascii")


def enabled(names: Iterable[str]) -> bytes:
    """``* ENABLED …`` (RFC 5161 section 3.2), also for none."""
    return " ".join(["* ENABLED", *names]).encode("ascii") + b"\r\n"


def identity(fields: Iterable[tuple[str, str | None]]) -> bytes:
    """``* ID ("name" "…")`` (RFC 2971), ``* ID NIL`` for no fields."""
    pairs = [b"%b %b" % (string(name.encode()), b"NIL" if value is None else string(value.encode())) for name, value in fields]
    return b"* ID %b\r\n" % (b"(" + b" ".join(pairs) + b")" if pairs else b"NIL")


def namespace(separator: str = "/") -> bytes:
    """``* NAMESPACE (("" "/")) NIL NIL``: one personal name space and no others (RFC 2342)."""
    return b'* NAMESPACE (("" %b)) NIL NIL\r\n' % quoted(separator)


# -- mailboxes ------------------------------------------------------------------------------------


def listed(
    name: str,
    attributes: Iterable[str],
    *,
    utf8: bool = False,
    command: str = "LIST",
    separator: str | None = "/",
    childinfo: Sequence[str] = (),
    oldname: str = "",
) -> bytes:
    r"""``* LIST (\HasNoChildren) "/" INBOX``.

    :param command: LIST or LSUB.
    :param separator: None for NIL, a flat name.
    :param childinfo: ``SUBSCRIBED`` when a name below matches the selection (RFC 5258 section 3.5).
    :param oldname: what the client called it, when that is another spelling (RFC 9051 section 6.3.9.7).
    """
    items = []
    if childinfo:
        items.append(b'"CHILDINFO" (' + b" ".join(quoted(item) for item in childinfo) + b")")
    if oldname:
        items.append(b'"OLDNAME" (%b)' % mailbox_name(oldname, utf8=utf8))
    extended = b" (" + b" ".join(items) + b")" if items else b""
    return b"* %b %b %b %b%b\r\n" % (
        command.encode("ascii"),
        flag_list(attributes),
        b"NIL" if separator is None else quoted(separator),
        mailbox_name(name, utf8=utf8),
        extended,
    )


def status(name: str, items: Iterable[tuple[str, int | str]], *, utf8: bool = False) -> bytes:
    """``* STATUS INBOX (MESSAGES 3 UIDNEXT 9)``.

    An ``int`` is written as it is, a ``str`` in parentheses, as MAILBOXID has it (RFC 8474 section 4.3).
    """
    words = [f"{item} {value}" if isinstance(value, int) else f"{item} ({value})" for item, value in items]
    return b"* STATUS %b (%b)\r\n" % (mailbox_name(name, utf8=utf8), " ".join(words).encode("ascii"))


def flags(names: Iterable[str]) -> bytes:
    r"""``* FLAGS (\Seen …)``."""
    return b"* FLAGS %b\r\n" % flag_list(names)


def exists(count: int) -> bytes:
    """``* 3 EXISTS``."""
    return b"* %d EXISTS\r\n" % count


def recent(count: int) -> bytes:
    """``* 0 RECENT``."""
    return b"* %d RECENT\r\n" % count


# -- messages -------------------------------------------------------------------------------------


def search(numbers: Sequence[int], modseq: int = 0) -> bytes:
    """``* SEARCH 1 2 3``, also for no numbers, with ``(MODSEQ n)`` unless 0 (RFC 7162 section 3.1.5)."""
    return _numbered(b"* SEARCH", numbers, modseq)


def sort(numbers: Sequence[int], modseq: int = 0) -> bytes:
    """``* SORT 3 1 2``, also for no numbers, with ``(MODSEQ n)`` unless 0 (RFC 5256 section 4, RFC 7162 section 3.1.6)."""
    return _numbered(b"* SORT", numbers, modseq)


#: Numbers that are written by one format: of very many the format and what it needs would not stay in the processor's cache.
_WRITTEN_AT_ONCE = 1024


def _numbered(word: bytes, numbers: Sequence[int], modseq: int) -> bytes:
    words = [word]
    for start in range(0, len(numbers), _WRITTEN_AT_ONCE):
        part = tuple(numbers[start : start + _WRITTEN_AT_ONCE])
        words.append(b" %d" * len(part) % part)
    words.append(b" (MODSEQ %d)\r\n" % modseq if modseq else b"\r\n")
    return b"".join(words)


def esearch(
    tag: str,
    uid: bool,
    returns: Sequence[str],
    found: Ranges,
    modseq: int = 0,
    *,
    page: tuple[str, Ranges] | None = None,
    where: bytes = b"",
) -> bytes:
    """``* ESEARCH (TAG "a1") UID MIN 1 MAX 9 ALL 1:3,9 COUNT 4`` (RFC 4731 section 3.1).

    MIN, MAX and ALL are left out when nothing was found; COUNT is not.

    :param returns: the options asked for; SAVE shows nothing.
    :param modseq: the highest mod-sequence of what is returned, or 0.
    :param where: of what mailbox the answer is, as :func:`source` writes it (RFC 7377).
    :param page: the range of PARTIAL as the client wrote it, and what is in it (RFC 9394).
    """
    words = [b'* ESEARCH (TAG "%b"%b)' % (tag.encode("ascii"), where)]
    if uid:
        words.append(b"UID")
    if found and "MIN" in returns:
        words.append(b"MIN %d" % found[0][0])
    if found and "MAX" in returns:
        words.append(b"MAX %d" % found[-1][1])
    if found and "ALL" in returns:
        words.append(b"ALL " + ranges.render(found))
    if page is not None:
        words.append(b"PARTIAL (%b %b)" % (page[0].encode("ascii"), ranges.render(page[1]) or b"NIL"))
    if "COUNT" in returns:
        words.append(b"COUNT %d" % ranges.count(found))
    if found and modseq:
        words.append(b"MODSEQ %d" % modseq)
    return b" ".join(words) + b"\r\n"


def source(name: str, uidvalidity: int, *, utf8: bool = False) -> bytes:
    """`` MAILBOX INBOX UIDVALIDITY 1`` for :func:`esearch` (RFC 7377 section 3)."""
    return b" MAILBOX %b UIDVALIDITY %d" % (mailbox_name(name, utf8=utf8), uidvalidity)


def expunged(numbers: Iterable[int]) -> bytes:
    """``* 3 EXPUNGE`` lines in the order given, as :meth:`~.ranges.UidList.remove` returns them."""
    return b"".join([b"* %d EXPUNGE\r\n" % number for number in numbers])


def vanished(uids: Ranges, *, earlier: bool = False) -> bytes:
    """``* VANISHED (EARLIER) 1:3`` (RFC 7162 section 3.2.10); nothing at all for no UIDs."""
    return b"* VANISHED %b%b\r\n" % (b"(EARLIER) " if earlier else b"", ranges.render(uids)) if uids else b""


def appenduid(uidvalidity: int, uids: Sequence[int]) -> str:
    """``APPENDUID 1 5:6`` for the brackets of the tagged OK (RFC 4315 section 3)."""
    return f"APPENDUID {uidvalidity} {ranges.render_sequence(uids).decode('ascii')}"


def copyuid(uidvalidity: int, source: Sequence[int], target: Sequence[int]) -> str:
    """``COPYUID 1 1:3 7:9`` (RFC 4315 section 3), both sets in the order given; an empty string when nothing was copied."""
    if not source:
        return ""
    return f"COPYUID {uidvalidity} {ranges.render_sequence(source).decode('ascii')} {ranges.render_sequence(target).decode('ascii')}"
