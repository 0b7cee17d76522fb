"""The part tree of a message: where in its octets every MIME part begins and ends (RFC 2045, 2046).

Computed once, when a message is stored, and kept beside it, so that ``BODY[1.2.MIME]`` is a slice and never a parse.
All offsets count octets from the start of the message.
"""

from __future__ import annotations

from dataclasses import dataclass

import cbor2


@dataclass(frozen=True, slots=True)
class Part:
    """One MIME entity.

    :param start: first octet of its header.
    :param body: first octet of its body (after the empty line; equal to ``end`` when there is none).
    :param end: one past its last octet; the CRLF before a boundary delimiter belongs to the delimiter.
    :param type: lower-case ``type/subtype`` as it was declared or defaulted.
    :param encoding: lower-case Content-Transfer-Encoding, ``7bit`` by default.
    :param charset: the charset parameter as declared, or an empty string.
    :param filename: decoded file name, or an empty string.
    :param attachment: Content-Disposition says attachment.
    :param children: the parts of a multipart, or the one message inside a message/rfc822 part (its root).
    """

    start: int
    body: int
    end: int
    type: str
    encoding: str = "7bit"
    charset: str = ""
    filename: str = ""
    attachment: bool = False
    children: tuple[Part, ...] = ()

    @property
    def is_multipart(self) -> bool:
        """Its children are numbered 1 … n."""
        return self.type.startswith("multipart/")

    @property
    def is_message(self) -> bool:
        """Its only child is a whole message, with a header and a body of its own."""
        return self.type in ("message/rfc822", "message/global") and bool(self.children)


def dump(root: Part) -> bytes:
    """The tree as octets, for a database column."""
    return cbor2.dumps(_plain(root))


def load(data: bytes) -> Part:
    """The inverse of :func:`dump`."""
    return _part(cbor2.loads(data))


def _plain(part: Part) -> list[object]:
    return [
        part.start,
        part.body,
        part.end,
        part.type,
        part.encoding,
        part.charset,
        part.filename,
        part.attachment,
        [_plain(child) for child in part.children],
    ]


def _part(plain: list[object]) -> Part:
    start, body, end, kind, encoding, charset, filename, attachment, children = plain
    return Part(  # the types were checked when dump() took them from a Part
        start,  # type: ignore[arg-type]
        body,  # type: ignore[arg-type]
        end,  # type: ignore[arg-type]
        kind,  # type: ignore[arg-type]
        encoding,  # type: ignore[arg-type]
        charset,  # type: ignore[arg-type]
        filename,  # type: ignore[arg-type]
        bool(attachment),
        tuple(_part(child) for child in children),  # type: ignore[attr-defined]
    )
