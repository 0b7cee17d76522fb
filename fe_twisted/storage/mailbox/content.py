"""How a message's octets are laid down and put together again.

The header and the body lie apart; large attachments are cut out of the body and stored once for the whole mailbox; what is left is
compressed where that pays.  Nothing is decoded or normalised: putting the pieces together gives the octets that came in, and that is
compared before they are stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import apsw
import zstandard

from fe_twisted.base.errors import DamagedFile
from fe_twisted.protocols.mime.message import Message

PLAIN, ZSTD = 0, 1

#: Below this compression is not worth a page less.
COMPRESS_FROM = 512
#: Compressed data is kept only when it saves at least an eighth.
COMPRESS_WORTH = 7 / 8

_LEVEL = 3


@dataclass(frozen=True, slots=True)
class Pieces:
    """A message as it is laid down.

    :param header: with its final empty line.
    :param body: what is left of the body without the attachments: coding and octets.
    :param cuts: position and octets of each attachment, in order.
    """

    header: bytes
    body: tuple[int, bytes]
    cuts: tuple[tuple[int, bytes], ...]


def pack(data: bytes) -> tuple[int, bytes]:
    """``(coding, octets to store)``: compressed where that pays."""
    if len(data) >= COMPRESS_FROM:
        packed = zstandard.ZstdCompressor(level=_LEVEL).compress(data)
        if len(packed) < len(data) * COMPRESS_WORTH:
            return ZSTD, packed
    return PLAIN, data


def unpack(coding: int, data: bytes) -> bytes:
    """The inverse of :func:`pack`.

    :raises DamagedFile: the octets cannot be what pack() made.
    """
    if coding == PLAIN:
        return data
    try:
        return zstandard.ZstdDecompressor().decompress(data)
    except zstandard.ZstdError as error:
        raise DamagedFile(reason=f"compressed content: {error}") from error


def divide(content: bytes, message: Message) -> Pieces:
    """Lay the octets of a message out, and see that they come out again; if not, it stays in one piece.  Needs no database."""
    remainder: list[bytes] = []
    cuts: list[tuple[int, bytes]] = []
    at = message.header_size
    for offset, length in message.attachments:
        if offset < at or offset + length > len(content):
            continue  # a part that overlaps another stays where it is
        cuts.append((offset, content[offset : offset + length]))
        remainder.append(content[at:offset])
        at = offset + length
    remainder.append(content[at:])
    header, body = content[: message.header_size], pack(b"".join(remainder))
    if cuts:
        whole = _interleave(header, unpack(*body), ((position, len(data), PLAIN, data) for position, data in cuts))
        if b"".join(whole) != content:
            cuts, body = [], (PLAIN, content[message.header_size :])
    return Pieces(header, body, tuple(cuts))


def store_content(connection: apsw.Connection, message_id: int, pieces: Pieces) -> None:
    """Write the octets of a message into ``headers``, ``bodies``, ``cuts`` and ``attachments``.

    :param message_id: its row in ``messages``, already there.
    """
    connection.execute("INSERT INTO headers(message_id, data) VALUES(?, ?)", (message_id, pieces.header))
    connection.execute("INSERT INTO bodies(message_id, coding, data) VALUES(?, ?, ?)", (message_id, *pieces.body))
    for position, data in pieces.cuts:
        attachment_id = _store_attachment(connection, data)
        connection.execute("INSERT INTO cuts(message_id, position, attachment_id) VALUES(?, ?, ?)", (message_id, position, attachment_id))


def _store_attachment(connection: apsw.Connection, data: bytes) -> int:
    digest = hashlib.sha256(data).digest()
    found = connection.execute("SELECT id FROM attachments WHERE digest = ?", (digest,)).get
    if found is not None:
        return int(found)
    coding, stored = pack(data)
    if unpack(coding, stored) != data:
        coding, stored = PLAIN, data
    connection.execute("INSERT INTO attachments(digest, size, coding, data) VALUES(?, ?, ?, ?)", (digest, len(data), coding, stored))
    return connection.last_insert_rowid()


def load_header(connection: apsw.Connection, message_id: int) -> bytes:
    """The header with its final empty line.

    :raises DamagedFile: it is not there.
    """
    data = connection.execute("SELECT data FROM headers WHERE message_id = ?", (message_id,)).get
    if data is None:
        raise DamagedFile(reason=f"message {message_id} has no header")
    return bytes(data)


def load_content(connection: apsw.Connection, message_id: int) -> bytes:
    """The message as it was received.

    :raises DamagedFile: a piece is missing.
    """
    row = connection.execute(
        "SELECT h.data, b.coding, b.data, EXISTS(SELECT 1 FROM cuts c WHERE c.message_id = h.message_id)"
        " FROM headers h JOIN bodies b ON b.message_id = h.message_id WHERE h.message_id = ?",
        (message_id,),
    ).fetchone()
    if row is None:
        raise DamagedFile(reason=f"message {message_id} has no content")
    return assemble(connection, message_id, *row)


def assemble(connection: apsw.Connection, message_id: int, header: bytes, coding: int, body: bytes, cut: int) -> bytes:
    """Put a message together from its row of headers and bodies.

    :param cut: whether attachments were cut out of it.
    """
    remainder = unpack(coding, body)
    if not cut:
        return header + remainder
    cuts = connection.execute(
        "SELECT c.position, a.size, a.coding, a.data FROM cuts c JOIN attachments a ON a.id = c.attachment_id"
        " WHERE c.message_id = ? ORDER BY c.position",
        (message_id,),
    )
    return b"".join(_interleave(header, remainder, cuts))


def _interleave(header: bytes, remainder: bytes, cuts: Iterable[tuple[int, int, int, bytes]]) -> Iterable[bytes]:
    yield header
    at, used = len(header), 0
    for position, size, coding, data in cuts:
        gap = position - at
        yield remainder[used : used + gap]
        yield unpack(coding, data)
        used += gap
        at = position + size
    yield remainder[used:]
