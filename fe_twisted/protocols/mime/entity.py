"""Finds the parts of a message in its octets (RFC 2046 section 5.1), whatever those are.

A multipart is divided from the outside in: the next delimiter of the outer multipart is the end of everything inside, so a missing closing
delimiter damages only its own part.  A delimiter is a whole line (``--boundary`` or ``--boundary--``, then white space), so a boundary may
begin with another one.  Nothing here walks over lines; the work is bounded by :data:`MAX_SCAN_FACTOR` times the message.

What a tolerant reader sees in broken structure:

* a multipart without a boundary, without any delimiter, or nested too deep has one text/plain child that holds its whole body;
* past :data:`MAX_PARTS` the part that is being read holds the rest of its multipart and is not divided;
* a message/rfc822 part that is transfer-encoded (RFC 2045 section 6.4 forbids it) or nested too deep is a leaf.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from fe_twisted.protocols.mime import header, parameters
from fe_twisted.protocols.mime.parts import Part

#: Levels of nesting that are divided; also the bound of every recursion over the tree.
MAX_DEPTH = 100
#: Parts that are divided in all.
MAX_PARTS = 10_000
#: Searching for delimiters, all levels together, reads at most so many times the message (and 4 MiB) before the rest stays undivided.
MAX_SCAN_FACTOR = 24
#: Octets of headers, those of all parts together, in which fields are looked for.
MAX_HEADERS = 4 * 1024 * 1024
#: Octets of one field that are looked at; the rest of a longer one is only part of the header's octets.
MAX_FIELD = 256 * 1024
#: Delimiter-like lines that are looked at one by one before a regular expression is made for the boundary.
_MAX_NEAR_MISSES = 64
_UNENCODED = (b"7bit", b"8bit", b"binary", b"")

_Default = tuple[bytes, bytes]
_TEXT: _Default = (b"TEXT", b"PLAIN")
_MESSAGE: _Default = (b"MESSAGE", b"RFC822")


class Entity:
    """One MIME entity: its octets, its header fields and its children.

    :ivar fields: name and still folded value of every field.
    :ivar main, sub: the media type as written, or the default in upper case.
    :ivar kind: ``main/sub`` in lower case.
    :ivar defaulted: there is no Content-Type that could be read.
    :ivar encoding: Content-Transfer-Encoding as written, or empty.
    :ivar disposition: Content-Disposition's kind and parameters, or None.
    """

    __slots__ = (
        "body",
        "children",
        "defaulted",
        "disposition",
        "encoding",
        "end",
        "fields",
        "first",
        "kind",
        "main",
        "parameters",
        "start",
        "sub",
    )

    def __init__(self, head: bytes, start: int, body: int, end: int, default: _Default) -> None:
        self.start, self.body, self.end = start, body, end
        self.fields = header.split(head)
        #: Lower-case name to the first value of that name.
        self.first: dict[bytes, bytes] = {}
        for name, value in self.fields:
            self.first.setdefault(name.lower(), value)
        self.children: list[Entity] = []
        self.main, self.sub = default
        self.parameters: parameters.Parameters = []
        self.defaulted = True
        declared = self.field(b"content-type")
        if declared is not None:
            media = parameters.media_type(declared)
            if media is None:
                self.main, self.sub = _TEXT
            else:
                self.main, self.sub, self.parameters = media
                self.defaulted = False
        self.kind = (self.main + b"/" + self.sub).lower().decode("ascii")
        encoding = self.field(b"content-transfer-encoding")
        self.encoding = parameters.token(encoding) if encoding else b""
        disposition = self.field(b"content-disposition")
        self.disposition = parameters.disposition(disposition) if disposition else None

    def field(self, name: bytes) -> bytes | None:
        """The unfolded value of the first field with this lower-case name, or None."""
        value = self.first.get(name)
        return None if value is None else header.unfold(value[:MAX_FIELD])

    @property
    def is_multipart(self) -> bool:
        """Its children are numbered."""
        return self.kind.startswith("multipart/")

    @property
    def is_message(self) -> bool:
        """A whole message is inside, as its only child."""
        return bool(self.children) and self.kind in ("message/rfc822", "message/global")


def scan(content: bytes) -> Entity:
    """The entity tree of any octets."""
    return _Scanner(content).entity(0, len(content), _TEXT, 0)


def part(entity: Entity) -> Part:
    """The tree as it is stored."""
    disposition = entity.disposition
    filename = parameters.decoded(disposition[1], b"filename") if disposition else ""
    pairs = entity.parameters
    return Part(
        start=entity.start,
        body=entity.body,
        end=entity.end,
        type=entity.kind,
        encoding=entity.encoding.lower().decode("ascii") or "7bit",
        charset=parameters.decoded(pairs, b"charset") if pairs else "",
        filename=filename or (parameters.decoded(pairs, b"name") if pairs else ""),
        attachment=disposition is not None and disposition[0].lower() == b"attachment",
        children=tuple([part(child) for child in entity.children]),
    )


class _Scanner:
    """Counts parts and work while it goes down."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._parts = 0
        self._headers = MAX_HEADERS
        self._work = 4 * 1024 * 1024 + MAX_SCAN_FACTOR * len(content)

    def entity(self, start: int, end: int, default: _Default, depth: int) -> Entity:
        """The entity in ``content[start:end]``."""
        self._parts += 1
        body = header.body_offset(self._content, start, end)
        head = self._content[start : min(body, start + self._headers)]
        self._headers -= len(head)
        found = Entity(head, start, body, end, default)
        if found.kind.startswith("multipart/"):
            self._multipart(found, depth)
        elif found.kind in ("message/rfc822", "message/global") and found.encoding.lower() in _UNENCODED and self._may_divide(found, depth):
            found.children.append(self.entity(found.body, end, _TEXT, depth + 1))
        return found

    def _may_divide(self, entity: Entity, depth: int) -> bool:
        self._work -= entity.end - entity.body
        return depth < MAX_DEPTH and self._parts < MAX_PARTS and self._work >= 0

    def _multipart(self, entity: Entity, depth: int) -> None:
        pairs = entity.parameters
        boundary = parameters.get(pairs, b"boundary") or parameters.decoded(pairs, b"boundary").encode("utf-8", "replace")
        if boundary and entity.body < entity.end and self._may_divide(entity, depth):
            default = _MESSAGE if entity.kind == "multipart/digest" else _TEXT
            start = -1
            for line, after, last in self._delimiters(boundary.rstrip(b" \t"), entity.body, entity.end):
                if start >= 0:
                    # nothing at all between two delimiters is no part: the line break between them belongs to the first one
                    if line >= start or (last and not entity.children):
                        entity.children.append(self.entity(start, max(start, line), default, depth + 1))
                    else:
                        self._parts += 1  # work all the same
                start = -1 if last else after
                if last:
                    break
                if self._parts >= MAX_PARTS:
                    break
            if start >= 0:
                entity.children.append(self.entity(start, entity.end, default, depth + 1))
        if not entity.children:
            self._parts += 1
            entity.children.append(Entity(b"", entity.body, entity.body, entity.end, _TEXT))

    def _delimiters(self, boundary: bytes, body: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """For each delimiter line: where the octets before it end, where the line ends, and whether it is the closing one."""
        content = self._content
        mark = b"\n--" + boundary
        position = max(body - 1, 0)  # the body follows a line break, which may be the delimiter's
        misses = 0
        while (found := content.find(mark, position, end)) >= 0:
            if misses > _MAX_NEAR_MISSES:
                yield from self._matches(mark, found, end)
                return
            after = content.find(b"\n", found + len(mark), end)
            rest = content[found + len(mark) : after if after >= 0 else end].rstrip(b" \t\r")
            if rest and (rest[:2] != b"--" or len(rest) > 2):
                misses += 1
                position = found + len(mark)
                continue
            before = found - 1 if found > 0 and content[found - 1] == 13 else found
            yield before, after + 1 if after >= 0 else end, bool(rest)
            if after < 0:
                return
            position = after

    def _matches(self, mark: bytes, position: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """The same, for a body made of lines that nearly are delimiters."""
        content = self._content
        line = re.compile(re.escape(mark) + rb"(?>(--)?)[ \t\r]*+(?:\n|\Z)")
        while found := line.search(content, position, end):
            start = found.start()
            yield start - 1 if start > 0 and content[start - 1] == 13 else start, found.end(), found[1] is not None
            position = max(found.end() - 1, start + 1)
