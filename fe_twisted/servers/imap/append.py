"""APPEND (RFC 3501 section 6.3.11, RFC 4315), of several messages at once too (RFC 3502)."""

from __future__ import annotations

from fe_twisted.base.errors import NoSuchFolder, TryCreate
from fe_twisted.protocols.imap import responses
from fe_twisted.protocols.imap.commands import Append, Command
from fe_twisted.servers.imap.names import canonical
from fe_twisted.servers.imap.reply import Reply
from fe_twisted.servers.imap.session import Session, arguments
from fe_twisted.storage.mailbox.api import NewMessage


async def append(session: Session, command: Command) -> Reply:
    """Store the messages, all or none; durable before OK."""
    wanted = arguments(command, Append)
    messages = [NewMessage(message.content, message.flags, message.internaldate) for message in wanted.messages]
    try:
        appended = await session.mailbox.append(canonical(wanted.mailbox), messages)
    except NoSuchFolder as error:  # RFC 3501 6.3.11: TRYCREATE, not NONEXISTENT
        raise TryCreate(reason=error.reason) from error
    return Reply("APPEND completed", responses.appenduid(appended.uidvalidity, appended.uids))
