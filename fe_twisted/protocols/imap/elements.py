"""What several commands have in common: mailbox names, sequence sets, flags, dates (RFC 3501 section 9)."""

from __future__ import annotations

import datetime
import re

from fe_twisted.protocols.imap import utf7
from fe_twisted.protocols.imap.commands import SAVED, Partial, SequenceSet
from fe_twisted.protocols.imap.grammar import MAX_NUMBER, Reader

#: Most items in one sequence set.  A line of 64 KiB cannot hold more than 32,768; the limit matters for longer lines only.
MAX_ITEMS = 50_000

SYSTEM_FLAGS = {flag.upper(): flag for flag in ("\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft")}

_SET = re.compile(rb"[0-9:,*]++")
_PARTIAL = re.compile(rb"(-?)([1-9][0-9]{0,9}):(-?)([1-9][0-9]{0,9})(?![0-9])")
_FLAG = re.compile(rb"\\?[!#$&'+,\-./0-9:;<=>?@A-Z\[^_`a-z|}~]++")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_DATE = re.compile(rb'("?)([0-9]{1,2})-([A-Za-z]{3})-([0-9]{4})\1')
_DATE_TIME = re.compile(
    rb'"(?P<day>[ 0-9]?[0-9])-(?P<month>[A-Za-z]{3})-(?P<year>[0-9]{4})'
    rb' (?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2}) (?P<sign>[+-])(?P<ahead>[0-9]{2})(?P<past>[0-9]{2})"'
)
_MONTH_NAMES = b"JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC"
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES.split(), 1)}


# -- mailbox names --------------------------------------------------------------------------------


def mailbox(reader: Reader) -> str:
    """A mailbox name as Unicode, INBOX (alone or as first level) in upper case."""
    start = reader.at
    return mailbox_text(reader, reader.astring("a mailbox name"), start)


def mailbox_text(reader: Reader, octets: bytes, start: int) -> str:
    """The name or pattern that these octets, read at ``start``, stand for.

    Control characters and line separators are refused: RFC 9051 section 5.1 forbids them, and no answer could show them.
    """
    try:
        name = octets.decode("utf-8") if reader.utf8 else utf7.decode(octets)
    except ValueError:
        reader.fail("a mailbox name is not valid " + ("UTF-8" if reader.utf8 else "modified UTF-7 ('&' is written '&-')"), start)
    if _CONTROL.search(name):
        reader.fail("a mailbox name holds a control character", start)
    if name[:5].upper() == "INBOX" and name[5:6] in ("", "/"):
        name = "INBOX" + name[5:]
    return name


# -- sequence sets --------------------------------------------------------------------------------


def sequence_set(reader: Reader) -> SequenceSet:
    """``1:3,7,9:*``, or :data:`SAVED` for ``$`` (RFC 5182)."""
    if reader.take(b"$"):
        return SAVED
    start = reader.at
    text = reader.match(_SET, "a sequence set")[0]
    if text.count(b",") >= MAX_ITEMS:
        reader.fail(f"more than {MAX_ITEMS} items in a sequence set", start)
    made: list[tuple[int | None, int | None]] = []
    for item in text.split(b","):
        first, colon, second = item.partition(b":")
        low = _sequence_number(reader, first, start)
        made.append((low, _sequence_number(reader, second, start) if colon else low))
    return tuple(made)


def _sequence_number(reader: Reader, text: bytes, start: int) -> int | None:
    if text == b"*":
        return None
    # RFC 3501 section 9: nz-number, 32 bits; the length is asked first because int() of a long string is slow
    if len(text) > 10 or not text.isdigit() or text[0] == 0x30 or (value := int(text)) > MAX_NUMBER:
        reader.fail("expected message numbers from 1 to 4294967295, ':' and '*' in a sequence set", start)
    return value


def partial(reader: Reader) -> Partial:
    """``1:100``, or ``-1:-100`` from the end (RFC 9394 section 4)."""
    start = reader.at
    found = reader.match(_PARTIAL, "a range such as 1:100 or -1:-100")
    low, high = sorted((int(found[2]), int(found[4])))
    if found[1] != found[3] or high > MAX_NUMBER:
        reader.fail("expected a range such as 1:100 or -1:-100", start)
    return Partial(low, high, bool(found[1]), found[0].decode("ascii"))


# -- flags ----------------------------------------------------------------------------------------


def flag(reader: Reader) -> str:
    r"""One flag or keyword that a client may set; system flags in their canonical spelling, never ``\Recent``."""
    start = reader.at
    text = reader.match(_FLAG, "a flag")[0].decode("ascii")
    if text[0] != "\\":
        return text
    known = SYSTEM_FLAGS.get(text.upper())
    if known is None:
        # RFC 3501 section 9: \Recent is flag-fetch only; other names with a backslash are for future standards
        reader.fail("expected a keyword or one of \\Answered, \\Flagged, \\Deleted, \\Seen, \\Draft", start)
    return known


def flag_list(reader: Reader) -> frozenset[str]:
    """``(flag flag)``, also empty."""
    return frozenset(reader.parenthesised(flag, empty=True))


# -- dates ----------------------------------------------------------------------------------------


def date(reader: Reader) -> datetime.date:
    """``1-Feb-1994``, with or without quotes."""
    start = reader.at
    found = reader.match(_DATE, "a date such as 1-Feb-1994")
    month = _MONTHS.get(found[3].upper())
    try:
        return datetime.date(int(found[4]), month or 0, int(found[2]))
    except ValueError:
        reader.fail("no such date", start)


def date_time(reader: Reader) -> datetime.datetime:
    """``" 7-Feb-1994 21:52:25 -0800"`` with its zone; a leap second becomes the second before it."""
    start = reader.at
    found = reader.match(_DATE_TIME, 'a date-time such as " 7-Feb-1994 21:52:25 -0800"')
    zone = datetime.timedelta(hours=int(found["ahead"]), minutes=int(found["past"]))
    try:
        if int(found["past"]) > 59:
            raise ValueError("zone minutes")
        moment = datetime.datetime(
            int(found["year"]),
            _MONTHS.get(found["month"].upper(), 0),
            int(found["day"]),
            int(found["hour"]),
            int(found["minute"]),
            min(int(found["second"]), 59) if found["second"] <= b"60" else 60,
            tzinfo=datetime.timezone(-zone if found["sign"] == b"-" else zone),
        )
        moment.astimezone(datetime.UTC)  # the first and last days of the calendar cannot be told in UTC
    except (ValueError, OverflowError):
        reader.fail("no such date and time", start)
    return moment
