"""Header fields as they stand in the octets (RFC 5322 section 2.2), whatever the line endings."""

from __future__ import annotations

import re

#: A field: its name, and its value with the line breaks of folding still in it.  Possessive, so nothing is tried twice.
_FIELD = re.compile(rb"^([!-9;-~]++)[ \t]*+:[ \t]*+([^\n]*+(?>(?:\n[ \t][^\n]*+)*))", re.MULTILINE)
_EMPTY_LINE = re.compile(rb"\n\r?\n")
#: What a header can begin with: a field, or the separator line of an mbox that somebody left in.
_BEGINNING = re.compile(rb"[!-9;-~]++[ \t]*+:|>?From ")


def body_offset(content: bytes, start: int, end: int) -> int:
    """Where the body of the entity in ``content[start:end]`` begins: after the first empty line.

    Equal to ``end`` when there is no empty line, and to ``start`` when the first line is no field: then all is body.
    """
    if not _BEGINNING.match(content, start, end):
        if content.startswith(b"\r\n", start, end):
            return start + 2
        return start + 1 if content.startswith(b"\n", start, end) else start
    found = _EMPTY_LINE.search(content, start, end)
    return found.end() if found else end


def split(header: bytes) -> list[tuple[bytes, bytes]]:
    """Names as written and values as written (still folded), in order.  Lines that are no field are passed over."""
    return _FIELD.findall(header)


def unfold(value: bytes) -> bytes:
    """The value on one line, without white space around it (RFC 5322 section 2.2.3)."""
    if b"\n" in value:
        value = value.replace(b"\r\n", b"").replace(b"\n", b"")
    return value.strip(b" \t\r")
