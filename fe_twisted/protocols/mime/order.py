"""What SORT and THREAD compare of a message, computed once (RFC 5256 section 2, RFC 5957, RFC 5051)."""

from __future__ import annotations

import hashlib
import re
import struct
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from fe_twisted.protocols.mime import address, charset, header, words
from fe_twisted.protocols.mime.entity import MAX_FIELD, Entity

#: Characters of a text that are compared; what differs only after them counts as equal.
MAX_COMPARED = 998
#: Message ids kept of one References field: the first, which names the thread, and the newest ones.
MAX_REFERENCES = 100

_SPACES = re.compile(r"[ \t\r\n]+")
_BLOB = r"\[[^\[\]]*+\][ \t]*+"
#: subj-leader and its ``subj-refwd``: any blobs, then "Re:", "Fw:" or "Fwd:" with a blob before its colon.
_LEADER = re.compile(rf"(?>(?:{_BLOB})*)(?:re|fwd?)[ \t]*+(?>(?:{_BLOB})?):|[ \t]++", re.IGNORECASE)
_ONE_BLOB = re.compile(_BLOB)
_FORWARDED = "[fwd:"
_TRAILER = "(fwd)"

_MESSAGE_ID = re.compile(rb"<([^<>\s]+)>")
_QUOTED_LOCAL = re.compile(rb'"((?:[^"\\]|\\.)*)"(@.*)', re.DOTALL)
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Order:
    """The keys of one message; texts are in the form of :func:`comparable`.

    :param subject: the base subject.
    :param reply: the subject says that it is a reply or was forwarded.
    :param sender, to, cc: the local part of the first address, or an empty string.
    :param sender_name, to_name: the display name of the first address, or the address where it has none (RFC 5957).
    :param identity: a number for the Message-ID, 0 when there is none.
    :param references: numbers of the message ids of References, or else the first of In-Reply-To, oldest first.
    """

    subject: str
    reply: bool
    sender: str
    to: str
    cc: str
    sender_name: str
    to_name: str
    identity: int
    references: tuple[int, ...]


def order(entity: Entity) -> Order:
    """The keys of a message.

    :param entity: the root of its tree.
    """
    subject, reply = base_subject(words.decode(entity.field(b"subject") or b""))
    sender, sender_name = _first_address(entity, b"from")
    to, to_name = _first_address(entity, b"to")
    cc, _ = _first_address(entity, b"cc")
    identity = _identities(entity.field(b"message-id") or b"")[:1]
    # RFC 5256 section 3: In-Reply-To counts only without a valid id in References, and only its first id
    references = _identities(entity.field(b"references") or b"") or _identities(entity.field(b"in-reply-to") or b"")[:1]
    references = list(dict.fromkeys(references))
    if len(references) > MAX_REFERENCES:
        references = [references[0], *references[1 - MAX_REFERENCES :]]
    return Order(
        subject=comparable(subject),
        reply=reply,
        sender=comparable(sender),
        to=comparable(to),
        cc=comparable(cc),
        sender_name=comparable(sender_name),
        to_name=comparable(to_name),
        identity=identity[0] if identity else 0,
        references=tuple(references),
    )


def comparable(text: str) -> str:
    """The text in the form in which i;unicode-casemap (RFC 5051) compares: each character in title case, then decomposed."""
    text = text[:MAX_COMPARED]
    if text.isascii():
        return text.upper().replace("\0", "\ufffd")
    titled = "".join([_title(character) for character in text])
    decomposed = unicodedata.normalize("NFKD", titled).replace("\0", "\ufffd")
    return decomposed.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _title(character: str) -> str:
    title = character.title()
    return title if len(title) == 1 else character  # RFC 5051 uses the simple mapping, one character to one


def base_subject(subject: str) -> tuple[str, bool]:
    """The base subject, and whether it is a reply or was forwarded (RFC 5256 section 2.1).

    :param subject: decoded and unfolded.
    """
    text = _SPACES.sub(" ", subject[:MAX_COMPARED])
    start, end, reply = 0, len(text), False
    while True:
        end, trailed = _without_trailer(text, start, end)
        start, led = _without_leader(text, start, end)
        reply = reply or trailed or led
        if text[start : start + len(_FORWARDED)].lower() == _FORWARDED and end - start > len(_FORWARDED) and text[end - 1] == "]":
            start, end, reply = start + len(_FORWARDED), end - 1, True
            continue
        return text[start:end], reply


def _without_trailer(text: str, start: int, end: int) -> tuple[int, bool]:
    """Step 2: ``(fwd)`` and white space at the end."""
    found = False
    while end > start:
        if text[end - 1] in " \t":
            end -= 1
        elif text[max(start, end - len(_TRAILER)) : end].lower() == _TRAILER:
            end -= len(_TRAILER)
            found = True
        else:
            break
    return end, found


def _without_leader(text: str, start: int, end: int) -> tuple[int, bool]:
    """Steps 3 to 5: ``Re:``, ``Fwd:`` and ``[blobs]`` at the beginning, as long as something is left."""
    found = False
    while True:
        leader = _LEADER.match(text, start, end)
        if leader:
            found = found or not leader[0].isspace()
            start = leader.end()
            continue
        blob = _ONE_BLOB.match(text, start, end)
        if blob is None or blob.end() >= end:
            return start, found
        start = blob.end()


def _first_address(entity: Entity, name: bytes) -> tuple[str, str]:
    """Local part and display name of the first address of a field; a group is its name."""
    value = entity.first.get(name)
    if value is None:
        return "", ""
    found = address.parse(header.unfold(value[:MAX_FIELD]))
    if not found:
        return "", ""
    first = found[0]
    local = charset.decode(first.mailbox or b"")
    if first.name:
        return local, words.decode(first.name)
    return local, f"{local}@{charset.decode(first.host)}" if first.host else words.decode(first.mailbox or b"")


def _identities(value: bytes) -> list[int]:
    return [_number(found) for found in _MESSAGE_ID.findall(value)]


def _number(identity: bytes) -> int:
    """63 bits of a hash: equal for equal ids, quick to compare and short to keep; never 0.

    ``"a"@b`` and ``a@b`` are the same id (RFC 5256 section 3).
    """
    quoted = _QUOTED_LOCAL.fullmatch(identity)
    if quoted:
        identity = _ESCAPE.sub(rb"\1", quoted[1]) + quoted[2]
    return int.from_bytes(hashlib.blake2b(identity, digest_size=8).digest(), "big") >> 1 or 1


def pack(numbers: Iterable[int]) -> bytes:
    """References for a database column: 8 octets each."""
    return b"".join([number.to_bytes(8, "little") for number in numbers])


def unpack(data: bytes) -> tuple[int, ...]:
    """The inverse of :func:`pack`."""
    return struct.unpack(f"<{len(data) // 8}q", data)
