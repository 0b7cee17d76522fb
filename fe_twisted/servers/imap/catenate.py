"""CATENATE: a message made of texts and of parts of messages that are here already (RFC 4469)."""

from __future__ import annotations

from fe_twisted.base.errors import MailError, MessageTooLarge, NoSuchMessage
from fe_twisted.protocols.imap.append import BadUrl, EmptyMessage
from fe_twisted.protocols.imap.commands import AppendMessage, MessageUrl, Section
from fe_twisted.protocols.mime.parts import load
from fe_twisted.protocols.mime.section import fields, place
from fe_twisted.servers.imap.fetch import STRETCH
from fe_twisted.servers.imap.names import canonical
from fe_twisted.servers.imap.session import Session
from fe_twisted.storage.mailbox.api import NewMessage


async def made(session: Session, message: AppendMessage) -> NewMessage:
    """The message to be stored.

    :raises BadUrl, MessageTooLarge, EmptyMessage:
    """
    content = await _together(session, message.parts) if message.parts else message.content
    return NewMessage(content, message.flags, message.internaldate)


async def _together(session: Session, parts: tuple[bytes | MessageUrl, ...]) -> bytes:
    pieces: list[bytes] = []
    left = session.limits.message_size
    for part in parts:
        piece = part if isinstance(part, bytes) else await _fetched(session, part)
        left -= len(piece)
        if left < 0:
            raise MessageTooLarge(f"message larger than {session.limits.message_size} octets")
        pieces.append(piece)
    content = b"".join(pieces)
    if not content:
        raise EmptyMessage
    return content


async def _fetched(session: Session, url: MessageUrl) -> bytes:
    """The octets that a URL names.

    :raises BadUrl: it names nothing.
    """
    folder_id = await _folder(session, url)
    row = None
    async for rows in session.mailbox.fetch(folder_id, ((url.uid, url.uid),), ("content", "parts")):
        row = rows[0]
    if row is None:
        raise BadUrl(url.text)
    content, root, wanted = row[0], load(row[1]), url.section or Section()
    found = place(root, wanted)
    if found is None:
        raise BadUrl(url.text)
    if isinstance(content, bytes):
        octets = content[slice(*found)]
    else:
        start, end = found if wanted.fields else _narrowed(found, url)
        try:
            pieces = [await session.mailbox.octets(content, at, min(at + STRETCH, end)) for at in range(start, end, STRETCH)]
        except NoSuchMessage:
            raise BadUrl(url.text) from None
        octets = b"".join(pieces)
        if not wanted.fields:
            return octets
    if wanted.fields:
        octets = fields(octets, wanted.fields, exclude=wanted.text == "HEADER.FIELDS.NOT")
    return octets[slice(*_narrowed((0, len(octets)), url))]


def _narrowed(whole: tuple[int, int], url: MessageUrl) -> tuple[int, int]:
    """The part that PARTIAL of the URL means."""
    start, end = whole
    origin, count = url.partial or (0, None)
    first = min(start + origin, end)
    return first, end if count is None else min(first + count, end)


async def _folder(session: Session, url: MessageUrl) -> int:
    name = canonical(url.mailbox)
    if not name:
        if session.view is None:
            raise BadUrl(url.text)
        name = session.view.name
    try:
        counters = await session.mailbox.status(name)
    except MailError:
        raise BadUrl(url.text) from None
    if url.uidvalidity not in (None, counters.uidvalidity):
        raise BadUrl(url.text)
    for folder in await session.mailbox.folders():
        if folder.name == counters.name:
            return folder.id
    raise BadUrl(url.text)
