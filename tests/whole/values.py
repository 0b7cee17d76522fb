"""IMAP responses as Python values, written from the grammar alone (RFC 3501 section 9) and with nothing of ours in it."""

from __future__ import annotations

import re
from typing import Any

#: A string is bytes, a list is a list, NIL is None, a number is an int, and everything else is an :class:`Atom`.
Value = Any

_TOKEN = re.compile(
    rb'(?P<space> +)|(?P<open>\()|(?P<close>\))|"(?P<quoted>(?:[^"\\\r\n]|\\["\\])*)"|~?\{(?P<literal>[0-9]+)\}\r\n'
    rb"|(?P<item>(?:BODY|BINARY|BINARY\.SIZE)\[[^\]]*\](?:<[0-9]+>)?)|(?P<number>[0-9]+)(?=[ )]|\Z)|(?P<atom>[^ ()\"{\r\n]+)"
)


class Atom(str):
    """A word that is not in quotation marks."""

    __slots__ = ()


def parse(text: bytes) -> list[Value]:
    """The values of one response, or of a piece of it.

    :raises ValueError: what no client could read, with the place.
    """
    whole: list[Value] = []
    stack = [whole]
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValueError(f"unreadable at {at}: {text[max(0, at - 40) : at + 40]!r}")
        at = found.end()
        kind = found.lastgroup
        if kind == "open":
            stack[-1].append(inner := [])  # type: ignore[var-annotated]
            stack.append(inner)
        elif kind == "close":
            stack.pop()
            if not stack:
                raise ValueError(f"too many ) at {at}")
        elif kind == "quoted":
            stack[-1].append(re.sub(rb'\\(["\\])', rb"\1", found["quoted"]))
        elif kind == "literal":
            length = int(found["literal"])
            if len(text) < at + length:
                raise ValueError(f"literal cut short at {at}")
            stack[-1].append(text[at : at + length])
            at += length
        elif kind == "number":
            stack[-1].append(int(found["number"]))
        elif kind in ("atom", "item"):
            word = Atom(found[0].decode("latin-1"))
            stack[-1].append(None if word.upper() == "NIL" else word)
    if len(stack) != 1:
        raise ValueError("unclosed (")
    return whole


def fetched(response: bytes) -> dict[str, Value] | None:
    """The items of ``* n FETCH (…)`` with their names in upper case; None for any other response.

    :raises ValueError: see :func:`parse`; also when an item comes twice.
    """
    found = re.match(rb"\* [0-9]+ FETCH (?=\()", response)
    if found is None:
        return None
    ((*items,),) = parse(response[found.end() :])
    pairs = dict(zip((str(name).upper() for name in items[::2]), items[1::2], strict=True))
    if len(pairs) * 2 != len(items):
        raise ValueError(f"an item comes twice: {response[:200]!r}")
    return pairs


def flat(body: list[Value], at: str = "") -> dict[str, Value]:
    """A BODY or BODYSTRUCTURE as a table: ``1.2:size`` is what part 1.2 has there; a message inside part 2 is ``2m``.

    What BODY has no place for is missing; parameters are lists of pairs.
    """
    if isinstance(body[0], list):
        children = [child for child in body if isinstance(child, list)][: _leading_lists(body)]
        table: dict[str, Value] = {f"{at}:children": len(children)}
        for number, child in enumerate(children, 1):
            table |= flat(child, f"{at}.{number}" if at and not at.endswith("m") else f"{at}{number}")
        rest = body[len(children) :]
        table |= {f"{at}:{name}": value for name, value in zip(("subtype", "parameters"), rest, strict=False)}
        return table | _extension(at, rest[2:])
    table = {f"{at}:{name}": value for name, value in zip(_BASIC, body, strict=False)}
    rest = body[len(_BASIC) :]
    kind = f"{_lower(body[0])}/{_lower(body[1])}"
    if kind == "message/rfc822" or (kind == "message/global" and rest and isinstance(rest[0], list)):
        table |= envelope(rest[0], f"{at}m:") | flat(rest[1], f"{at}m") | {f"{at}:lines": rest[2]}
        rest = rest[3:]
    elif kind.startswith("text/"):
        table[f"{at}:lines"] = rest[0]
        rest = rest[1:]
    return table | ({f"{at}:md5": rest[0]} if rest else {}) | _extension(at, rest[1:])


_BASIC = ("type", "subtype", "parameters", "id", "description", "encoding", "size")
_ENVELOPE = ("date", "subject", "from", "sender", "reply-to", "to", "cc", "bcc", "in-reply-to", "message-id")


def _leading_lists(body: list[Value]) -> int:
    return next((number for number, value in enumerate(body) if not isinstance(value, list)), len(body))


def _lower(value: Value) -> str:
    return value.decode("latin-1").lower() if isinstance(value, bytes) else ""


def _extension(at: str, rest: list[Value]) -> dict[str, Value]:
    return {f"{at}:{name}": value for name, value in zip(("disposition", "language", "location"), rest, strict=False)}


def envelope(values: list[Value], at: str = "") -> dict[str, Value]:
    """An ENVELOPE as a table."""
    return {f"{at}{name}": value for name, value in zip(_ENVELOPE, values, strict=True)}


def sections(body: list[Value]) -> list[str]:
    """The numbers of all parts, as ``BODY[…]`` has them (RFC 3501 section 6.4.5)."""
    places = [name.rpartition(":") for name in flat(body)]
    leaves = {_number(at) for at, _, item in places if item == "size"}
    multiparts = {_number(at) for at, _, item in places if item == "children" and at and not at.endswith("m")}
    return sorted(leaves | multiparts)


def _number(at: str) -> str:
    """``2mm1`` is ``2.1.1``: what is no multipart has one part, its body."""
    whole = at if at[:1].isdigit() else "1" + at
    return re.sub(r"m(?=[0-9])", ".", re.sub(r"m(?![0-9])", ".1", whole))
