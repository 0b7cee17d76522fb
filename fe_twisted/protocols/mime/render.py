"""ENVELOPE, BODY and BODYSTRUCTURE in the octets that FETCH sends (RFC 3501 section 7.4.2, RFC 9051 section 7.5.2).

Strings are quoted; those with octets that a quoted string cannot hold, or longer than 1,000 octets, are literals.  NUL, which not even a
literal may hold, is sent as ``?``.  Names, media types and encodings keep their case.
"""

from __future__ import annotations

import re

from fe_twisted.protocols.mime import address, header, parameters
from fe_twisted.protocols.mime.entity import MAX_FIELD, Entity

_PLAIN = re.compile(rb"[ !#-\[\]-~]{0,1000}")
_QUOTABLE = re.compile(rb"[\t -~]{0,1000}")
_SPECIAL = re.compile(rb"([\"\\])")
_LANGUAGE = re.compile(rb"[^\s,()]+")
_COMMENT = re.compile(rb"\([^()]*+\)")
#: RFC 2045 section 5.2: what has no Content-Type, or a broken one, is text in ASCII.
_NO_CHARSET = b'("CHARSET" "us-ascii")'


def string(value: bytes | None) -> bytes:
    """An nstring."""
    if value is None:
        return b"NIL"
    if _PLAIN.fullmatch(value):
        return b'"%b"' % value
    if _QUOTABLE.fullmatch(value):
        return b'"%b"' % _SPECIAL.sub(rb"\\\1", value)
    value = value.replace(b"\0", b"?")
    return b"{%d}\r\n%b" % (len(value), value)


def envelope(entity: Entity) -> bytes:
    """The ENVELOPE of a message.  Sender and Reply-To are From where they are missing or empty."""
    author = _addresses(entity, b"from")
    return b"(%b %b %b %b %b %b %b %b %b %b)" % (
        string(entity.field(b"date")),
        string(entity.field(b"subject")),
        author,
        _addresses(entity, b"sender", author),
        _addresses(entity, b"reply-to", author),
        _addresses(entity, b"to"),
        _addresses(entity, b"cc"),
        _addresses(entity, b"bcc"),
        string(entity.field(b"in-reply-to")),
        string(entity.field(b"message-id")),
    )


def _addresses(entity: Entity, name: bytes, default: bytes = b"NIL") -> bytes:
    """The address list of all fields with this name together."""
    if name not in entity.first:
        return default
    values = [value for key, value in entity.fields if key.lower() == name]
    joined = header.unfold(values[0][:MAX_FIELD]) if len(values) == 1 else b",".join(map(header.unfold, values))[:MAX_FIELD]
    found = address.parse(joined)
    if not found:
        return default
    texts = [(string(one.name), string(one.route), string(one.mailbox), string(one.host)) for one in found]
    return b"(%b)" % b"".join([b"(%b %b %b %b)" % text for text in texts])


def structures(content: bytes, root: Entity) -> tuple[bytes, bytes]:
    """BODYSTRUCTURE and BODY of a message."""
    full: list[bytes] = []
    basic: list[bytes] = []
    _Structure(content, full, basic).write(root)
    return b"".join(full), b"".join(basic)


class _Structure:
    """Writes both forms in one walk."""

    def __init__(self, content: bytes, full: list[bytes], basic: list[bytes]) -> None:
        self._content = content
        self._full = full
        self._basic = basic

    def _both(self, text: bytes) -> None:
        self._full.append(text)
        self._basic.append(text)

    def write(self, entity: Entity) -> None:
        """One body, its children within."""
        self._both(b"(")
        if entity.is_multipart:
            for child in entity.children:
                self.write(child)
            self._both(b" " + string(entity.sub))
            self._full.append(b" " + _pairs(entity.parameters))
        else:
            self._leaf(entity)
        if entity.first:
            self._full.append(b" %b %b %b" % (_disposition(entity), _languages(entity), string(entity.field(b"content-location"))))
        else:
            self._full.append(b" NIL NIL NIL")
        self._both(b")")

    def _leaf(self, entity: Entity) -> None:
        main, sub = entity.main, entity.sub
        if entity.kind in ("message/rfc822", "message/global") and not entity.children:
            # the grammar demands an envelope and a structure after these types, and there is none to be had
            main, sub = b"APPLICATION", b"OCTET-STREAM"
        is_text = entity.kind.startswith("text/")
        given = _NO_CHARSET if entity.defaulted and is_text else _pairs(entity.parameters)
        self._both(
            b"%b %b %b %b %b %b %d"
            % (
                string(main),
                string(sub),
                given,
                string(entity.field(b"content-id")),
                string(entity.field(b"content-description")),
                string(entity.encoding or b"7BIT"),
                entity.end - entity.body,
            )
        )
        if entity.is_message:
            child = entity.children[0]
            self._both(b" " + envelope(child) + b" ")
            self.write(child)
        if is_text or entity.is_message:
            self._both(b" %d" % self._content.count(b"\n", entity.body, entity.end))
        self._full.append(b" " + string(entity.field(b"content-md5")))


def _pairs(pairs: parameters.Parameters) -> bytes:
    if not pairs:
        return b"NIL"
    return b"(%b)" % b" ".join([b"%b %b" % (string(name), string(value)) for name, value in parameters.joined(pairs)])


def _disposition(entity: Entity) -> bytes:
    found = entity.disposition
    return b"(%b %b)" % (string(found[0]), _pairs(found[1])) if found else b"NIL"


def _languages(entity: Entity) -> bytes:
    """RFC 3282: one tag is a string, several are a list; comments are no part of it."""
    tags = _LANGUAGE.findall(_COMMENT.sub(b" ", entity.field(b"content-language") or b""))
    if not tags:
        return b"NIL"
    return string(tags[0]) if len(tags) == 1 else b"(%b)" % b" ".join(map(string, tags))
