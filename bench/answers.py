"""What an IMAP answer says, in a form in which the answers of two servers can be compared."""

from __future__ import annotations

import hashlib
import re
from typing import Any

_TOKEN = re.compile(rb'[ ]*(?:(\()|(\))|"((?:[^"\\]|\\.)*)"|\{(\d+)\}\r\n|([^ ()"{\r\n]*\[[^\]]*\](?:<\d+>)?|[^ ()"\r\n]+)|(\r\n))')
_LITERAL = re.compile(rb"\{(\d+)\}\r\n")


def lines(answer: bytes) -> list[Any]:
    """Every line as a nested list: atoms and strings are bytes, NIL is None."""
    found: list[Any] = []
    line: list[Any] = []
    stack: list[list[Any]] = [line]
    position = 0
    while position < len(answer):
        match = _TOKEN.match(answer, position)
        if match is None:
            raise ValueError(f"no IMAP at {position}: {answer[position : position + 60]!r}")
        position = match.end()
        match match.lastindex:
            case 1:
                inner: list[Any] = []
                stack[-1].append(inner)
                stack.append(inner)
            case 2:
                stack.pop()
            case 3:
                stack[-1].append(re.sub(rb"\\(.)", rb"\1", match[3]))
            case 4:
                size = int(match[4])
                stack[-1].append(answer[position : position + size])
                position += size
            case 5:
                stack[-1].append(None if match[5].upper() == b"NIL" else match[5])
            case _:
                found.append(line)
                line = []
                stack = [line]
    return found


def fetched(answer: bytes) -> dict[int, dict[bytes, Any]]:
    """The FETCH answers: by sequence number, the items."""
    found: dict[int, dict[bytes, Any]] = {}
    for line in lines(answer):
        if len(line) == 4 and line[0] == b"*" and line[2] == b"FETCH":
            items = line[3]
            found.setdefault(int(line[1]), {}).update({name.upper(): value for name, value in zip(items[::2], items[1::2], strict=True)})
    return found


def flags(answer: bytes) -> object:
    r"""Number and flags of each message, without ``\Recent``, which depends on who looked before."""
    return {number: frozenset(items[b"FLAGS"]) - {rb"\Recent"} for number, items in fetched(answer).items()}


def overview(answer: bytes) -> object:
    """Everything but FLAGS, in upper case where IMAP does not tell case apart."""
    found: dict[int, object] = {}
    for number, items in fetched(answer).items():
        items.pop(b"FLAGS", None)
        items[b"INTERNALDATE"] = items[b"INTERNALDATE"].lstrip(b" 0")  # date-day-fixed is (SP DIGIT), and 01 to Dovecot
        items[b"BODYSTRUCTURE"] = _upper(items[b"BODYSTRUCTURE"])
        found[number] = items
    return found


def _upper(value: Any) -> Any:
    if isinstance(value, list):
        return [_upper(one) for one in value]
    return value.upper() if isinstance(value, bytes) else value


def literals(answer: bytes) -> object:
    """A digest of all literals, in order, and how many there are."""
    digest = hashlib.sha256()
    count = position = 0
    while (match := _LITERAL.search(answer, position)) is not None:
        position = match.end() + int(match[1])
        digest.update(b"%s:" % match[1] + answer[match.end() : position])
        count += 1
    return count, digest.hexdigest()


def header_fields(answer: bytes) -> object:
    """The fields of each message in no order of theirs."""
    found: dict[int, object] = {}
    for number, items in fetched(answer).items():
        value = next(value for name, value in items.items() if name.startswith(b"BODY["))
        found[number] = sorted(re.split(rb"\r\n(?![ \t])", value))
    return found


def changed(answer: bytes) -> object:
    """How many messages were told to have changed."""
    return len(re.findall(rb"^\* \d+ FETCH ", answer, re.MULTILINE))


def numbers(answer: bytes) -> object:
    """The numbers that SEARCH found, as a set."""
    return frozenset(_listed(answer, b"SEARCH"))


def order(answer: bytes) -> object:
    """The numbers that SORT found, in its order."""
    return _listed(answer, b"SORT")


def _listed(answer: bytes, name: bytes) -> tuple[int, ...]:
    for line in answer.split(b"\r\n"):
        if line.startswith(b"* " + name):
            return tuple(map(int, line.split()[2:]))
    raise ValueError(f"no {name.decode()} in the answer: {answer[:200]!r}")


def threads(answer: bytes) -> object:
    """The threads, each as it is written, in no order."""
    for line in lines(answer):
        if line[:2] == [b"*", b"THREAD"]:
            return frozenset(map(repr, line[2:]))
    raise ValueError("no THREAD in the answer")


def exists(answer: bytes) -> object:
    """How many messages SELECT says there are."""
    found = re.search(rb"^\* (\d+) EXISTS", answer, re.MULTILINE)
    if found is None:
        raise ValueError("no EXISTS in the answer")
    return int(found[1])


def copied(answer: bytes) -> object:
    """The source UIDs of COPYUID."""
    found = re.search(rb"\[COPYUID \d+ ([\d:,]+) ([\d:,]+)\]", answer)
    if found is None:
        raise ValueError(f"no COPYUID in the answer: {answer[:200]!r}")
    return found[1]


def expunged(answer: bytes) -> object:
    """How many messages went."""
    return len(re.findall(rb"^\* \d+ EXPUNGE", answer, re.MULTILINE))
