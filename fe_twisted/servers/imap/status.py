"""STATUS (RFC 3501 section 6.3.10)."""

from __future__ import annotations

from fe_twisted.base.errors import BadSyntax
from fe_twisted.protocols.imap import responses
from fe_twisted.protocols.imap.commands import Command, Status
from fe_twisted.servers.imap.names import canonical
from fe_twisted.servers.imap.reply import Reply
from fe_twisted.servers.imap.session import Session, arguments
from fe_twisted.storage.mailbox.api import FolderStatus


def values(counters: FolderStatus, items: tuple[str, ...], append_limit: int) -> list[tuple[str, int | str]]:
    """Name and value of each item, in the order asked.

    :param append_limit: the largest message that APPEND takes, in octets: the same for all mailboxes (RFC 7889).
    :raises BadSyntax: an item that we do not know.
    """
    known: dict[str, int] = {
        "MESSAGES": counters.messages,
        "RECENT": counters.recent,
        "UIDNEXT": counters.uidnext,
        "UIDVALIDITY": counters.uidvalidity,
        "UNSEEN": counters.unseen,
        "APPENDLIMIT": append_limit,
    }
    unknown = [item for item in items if item not in known]
    if unknown:
        raise BadSyntax(f"unknown STATUS item {unknown[0]}")
    return [(item, known[item]) for item in items]


async def status(session: Session, command: Command) -> Reply:
    """Counters of a mailbox, waiting mail included."""
    wanted = arguments(command, Status)
    await session.poll()
    counters = await session.mailbox.status(canonical(wanted.mailbox))
    session.wire.write(responses.status(counters.name, values(counters, wanted.items, session.limits.message_size), utf8=session.utf8))
    return Reply("STATUS completed")
