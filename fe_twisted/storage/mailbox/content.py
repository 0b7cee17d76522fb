"""How a message's octets are laid down and put together again.

The header and the body lie apart; large attachments are cut out of the body and stored once for the whole mailbox; what is left is
compressed where that pays.  Nothing is decoded or normalised: putting the pieces together gives the octets that came in, and that is
compared before they are stored.

What is long is compressed in frames that can be read one by one, so that a large message never has to be in memory as a whole to be sent,
and a client that asks for it piece by piece gets each piece at the cost of that piece.
"""

from __future__ import annotations

import hashlib
import struct
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import apsw
import zstandard

from fe_twisted.base.errors import DamagedFile, NoSuchMessage
from fe_twisted.protocols.mime.message import Message
from fe_twisted.protocols.mime.section import summary
from fe_twisted.storage.mailbox.api import LARGE

#: Coding of a stored piece: as it is, as one zstd frame, or as several (:func:`_frames`).
PLAIN, ZSTD, FRAMES = 0, 1, 2
#: Added to the coding of a body: the message has more than LARGE octets, and is read in pieces.
IN_PIECES = 4

#: Below this compression is not worth a page less.
COMPRESS_FROM = 512
#: Compressed data is kept only when it saves at least an eighth.
COMPRESS_WORTH = 7 / 8
#: Of an attachment more than the quarter that is only base64: to undo that each time it is read costs more than to read more.
ATTACHMENT_WORTH = 5 / 8
#: Octets in one of several frames, before they are compressed.
FRAME = 256 * 1024

#: After so many frames it is asked whether compression pays, lest a large file be compressed in vain.
TRIED = 8

#: Octets from which on a row gets its octets a little at a time, so that SQLite needs no copy of them.
WRITTEN_IN_PIECES = 1024 * 1024

_LEVEL = 3

#: Octets of a message, or a view of them: to take a large one apart must not copy it.
Octets = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Pieces:
    """A message as it is laid down.

    :param header: with its final empty line.
    :param summary: the fields of it that clients list.
    :param body: what is left of the body without the attachments: coding and octets.
    :param cuts: position and octets of each attachment, in order.
    """

    header: bytes
    summary: bytes
    body: tuple[int, Octets]
    cuts: tuple[tuple[int, Octets], ...]


class _Coders(threading.local):
    """Of each kind one for each thread: to make one costs more than to use it on a message, and two threads must not use the same."""

    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(level=_LEVEL).compress
        self.decompress = zstandard.ZstdDecompressor().decompress


_coders = _Coders()


def pack(data: Octets, worth: float = COMPRESS_WORTH) -> tuple[int, Octets]:
    """``(coding, octets to store)``: compressed where that pays.

    :param worth: how much of it there may be left after compression for that.
    """
    if len(data) < COMPRESS_FROM:
        return PLAIN, data
    coding, packed = (ZSTD, _coders.compress(data)) if len(data) <= FRAME else (FRAMES, _frames(data, worth))
    return (coding, packed) if packed and len(packed) < len(data) * worth else (PLAIN, data)


def _frames(data: Octets, worth: float) -> bytes:
    """The number of frames, the length of each (32 bits, little-endian), and the frames; empty when the first show that it does not pay."""
    view = memoryview(data)
    frames: list[bytes] = []
    for start in range(0, len(data), FRAME):
        # A copy, since what the library returns keeps as much memory as a frame that cannot be compressed would take.
        frames.append(bytes(memoryview(_coders.compress(view[start : start + FRAME]))))
        if len(frames) == TRIED and sum(map(len, frames)) >= TRIED * FRAME * worth:
            return b""
    return b"".join([struct.pack(f"<{len(frames) + 1}I", len(frames), *map(len, frames)), *frames])


def unpack(coding: int, data: bytes) -> bytes:
    """The inverse of :func:`pack`.

    :raises DamagedFile: the octets cannot be what pack() made.
    """
    if coding == PLAIN:
        return data
    return _decompressed(data) if coding == ZSTD else b"".join(_unpacked(coding, data))


def _unpacked(coding: int, data: Octets) -> Iterator[Octets]:
    """The same, a frame at a time."""
    if coding == PLAIN:
        yield data
    elif coding == ZSTD:
        yield _decompressed(data)
    else:
        view = memoryview(data)
        for start, end in _ends(data):
            yield _decompressed(view[start:end])


def _same(pieces: Iterable[Octets], content: Octets, at: int = 0) -> bool:
    """Whether the pieces together are the content, from a position on."""
    view = memoryview(content)
    for piece in pieces:
        if view[at : at + len(piece)] != piece:
            return False
        at += len(piece)
    return at == len(content)


def _decompressed(data: Octets) -> bytes:
    try:
        return _coders.decompress(data)
    except zstandard.ZstdError as error:
        raise DamagedFile(reason=f"compressed content: {error}") from error


def _ends(index: Octets) -> list[tuple[int, int]]:
    """Where each frame begins and ends.

    :param index: what :func:`_frames` made, or its beginning.
    """
    try:
        (count,) = struct.unpack_from("<I", index)
        lengths = struct.unpack_from(f"<{count}I", index, 4)
    except struct.error as error:
        raise DamagedFile(reason="compressed content: no index") from error
    found: list[tuple[int, int]] = []
    at = 4 + 4 * count
    for length in lengths:
        found.append((at, at + length))
        at += length
    return found


def divide(content: bytes, message: Message) -> Pieces:
    """Lay the octets of a message out, and see that they come out again; if not, it stays in one piece.  Needs no database."""
    view = memoryview(content)
    remainder: list[Octets] = []
    cuts: list[tuple[int, Octets]] = []
    at = message.header_size
    for offset, length in message.attachments:
        if offset < at or offset + length > len(content):
            continue  # a part that overlaps another stays where it is
        cuts.append((offset, view[offset : offset + length]))
        remainder.append(view[at:offset])
        at = offset + length
    remainder.append(view[at:])
    header, body = content[: message.header_size], pack(remainder[0] if len(remainder) == 1 else b"".join(remainder))
    if cuts:
        rest = b"".join(_unpacked(*body))
        if not _same(interleave(header, rest, ((position, len(data), PLAIN, data) for position, data in cuts)), content):
            cuts, body = [], (PLAIN, view[message.header_size :])
    if len(content) > LARGE:
        body = body[0] | IN_PIECES, body[1]
    return Pieces(header, summary(header), body, tuple(cuts))


def store_content(connection: apsw.Connection, message_id: int, pieces: Pieces) -> None:
    """Write the octets of a message into ``headers``, ``summaries``, ``bodies``, ``cuts`` and ``attachments``.

    :param message_id: its row in ``messages``, already there.
    """
    connection.execute("INSERT INTO headers(message_id, data) VALUES(?, ?)", (message_id, pieces.header))
    connection.execute("INSERT INTO summaries(message_id, data) VALUES(?, ?)", (message_id, pieces.summary))
    coding, body = pieces.body
    connection.execute("INSERT INTO bodies(message_id, coding, data) VALUES(?, ?, ?)", (message_id, coding, _room(body)))
    _fill(connection, "bodies", message_id, body)
    for position, data in pieces.cuts:
        attachment_id = _store_attachment(connection, data)
        connection.execute("INSERT INTO cuts(message_id, position, attachment_id) VALUES(?, ?, ?)", (message_id, position, attachment_id))


def _store_attachment(connection: apsw.Connection, data: Octets) -> int:
    digest = hashlib.sha256(data).digest()
    found = connection.execute("SELECT id FROM attachments WHERE digest = ?", (digest,)).get
    if found is not None:
        return int(found)
    coding, stored = pack(data, ATTACHMENT_WORTH)
    if coding != PLAIN and not _same(_unpacked(coding, stored), data):
        coding, stored = PLAIN, data
    values = (digest, len(data), coding, _room(stored))
    connection.execute("INSERT INTO attachments(digest, size, coding, data) VALUES(?, ?, ?, ?)", values)
    row_id = connection.last_insert_rowid()
    _fill(connection, "attachments", row_id, stored)
    return row_id


def _room(data: Octets) -> Octets | apsw.zeroblob:
    """What stands for the octets until :func:`_fill`: they themselves, or zeros."""
    return apsw.zeroblob(len(data)) if len(data) > WRITTEN_IN_PIECES else data


def _fill(connection: apsw.Connection, table: str, row_id: int, data: Octets) -> None:
    """Write the octets, if it was only room that was made for them."""
    if len(data) > WRITTEN_IN_PIECES:
        view = memoryview(data)
        with connection.blob_open("main", table, "data", row_id, True) as blob:
            for start in range(0, len(data), WRITTEN_IN_PIECES):
                blob.write(view[start : start + WRITTEN_IN_PIECES])


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
    remainder = unpack(coding & ~IN_PIECES, body)
    if not cut:
        return header + remainder
    cuts = connection.execute(
        "SELECT c.position, a.size, a.coding, a.data FROM cuts c JOIN attachments a ON a.id = c.attachment_id"
        " WHERE c.message_id = ? ORDER BY c.position",
        (message_id,),
    )
    return b"".join(interleave(header, remainder, cuts))


def interleave(header: bytes, remainder: bytes, cuts: Iterable[tuple[int, int, int, Octets]]) -> Iterator[Octets]:
    """The octets of a message.

    :param remainder: the body without the attachments.
    :param cuts: position, size, coding and octets of each attachment, in order.
    """
    yield header
    at, used = len(header), 0
    for position, size, coding, data in cuts:
        gap = position - at
        yield remainder[used : used + gap]
        yield from _unpacked(coding, data)
        used += gap
        at = position + size
    yield remainder[used:]


# -- a piece at a time ----------------------------------------------------------------------------


#: The size of a message in the number that it is read by.
_SIZE_BITS = 32


def handle_of(connection: apsw.Connection, message_id: int) -> int:
    """The number by which a large message is read."""
    return message_id << _SIZE_BITS | int(connection.execute("SELECT size FROM messages WHERE id = ?", (message_id,)).get)


def read_octets(connection: apsw.Connection, handle: int, start: int, end: int) -> bytes:
    """``content[start:end]``, at the cost of these octets and not of the whole message.

    :param handle: see :func:`handle_of`.
    :raises NoSuchMessage: it was removed for good.
    :raises DamagedFile:
    """
    message_id = handle >> _SIZE_BITS
    row = connection.execute(
        "SELECT length(h.data), b.coding FROM headers h JOIN bodies b ON b.message_id = h.message_id WHERE h.message_id = ?", (message_id,)
    ).fetchone()
    if row is None:
        raise NoSuchMessage(reason=f"message {message_id} is not there")
    pieces: list[bytes] = []
    for table, row_id, coding, first, last, position in _layout(connection, message_id, *row):
        low, high = max(start, position), min(end, position + last - first)
        if low < high:
            pieces.append(_stretch(connection, table, row_id, coding, first + low - position, first + high - position))
    return b"".join(pieces)


def _layout(connection: apsw.Connection, message_id: int, header: int, coding: int) -> Iterator[tuple[str, int, int, int, int, int]]:
    """Which octets of which row stand where: ``(table, row, coding, first, last, position in the message)``."""
    yield "headers", message_id, PLAIN, 0, header, 0
    coding &= ~IN_PIECES
    at, used = header, 0
    cuts: Iterator[tuple[int, int, int, int]] = connection.execute(
        "SELECT c.position, a.id, a.size, a.coding FROM cuts c JOIN attachments a ON a.id = c.attachment_id"
        " WHERE c.message_id = ? ORDER BY c.position",
        (message_id,),
    )
    for position, attachment, size, packed in cuts:
        yield "bodies", message_id, coding, used, used + position - at, at
        yield "attachments", attachment, packed, 0, size, position
        used += position - at
        at = position + size
    yield "bodies", message_id, coding, used, used + (1 << 62), at


def _stretch(connection: apsw.Connection, table: str, row_id: int, coding: int, start: int, end: int) -> bytes:
    """Octets of one stored piece; fewer where it ends before."""
    blob = connection.blob_open("main", table, "data", row_id, False)
    try:
        if coding == ZSTD:
            return _decompressed(blob.read())[start:end]
        if coding == PLAIN:
            return _piece(blob, start, end)
        (count,) = struct.unpack("<I", _piece(blob, 0, 4))
        frames = _ends(_piece(blob, 0, 4 + 4 * count))[start // FRAME : -(-end // FRAME)]
        found = b"".join([_decompressed(_piece(blob, *frame)) for frame in frames])
        return found[start % FRAME :][: end - start]
    finally:
        blob.close()


def _piece(blob: apsw.Blob, start: int, end: int) -> bytes:
    start = min(start, blob.length())
    blob.seek(start)
    return blob.read(min(end, blob.length()) - start)
