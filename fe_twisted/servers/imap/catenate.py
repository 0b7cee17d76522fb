"""CATENATE: a message made of texts and of parts of messages that are here already (RFC 4469)."""

from __future__ import annotations

from fe_twisted.base.errors import MailError, MessageTooLarge
from fe_twisted.protocols.imap.append import BadUrl, EmptyMessage
from fe_twisted.protocols.imap.commands import AppendMessage, MessageUrl
from fe_twisted.protocols.mime.parts import load
from fe_twisted.protocols.mime.section import section
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
    content, parts = bytes(row[0]), row[1]
    octets = content if url.section is None else section(load(parts), url.section, lambda start, end: content[start:end])
    if octets is None:
        raise BadUrl(url.text)
    if url.partial is None:
        return octets
    origin, count = url.partial
    return octets[origin:] if count is None else octets[origin : origin + count]


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
