"""CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE, NAMESPACE (RFC 3501 section 6.3, RFC 2342)."""

from __future__ import annotations

from fe_twisted.base.errors import Refused
from fe_twisted.protocols.imap import responses
from fe_twisted.protocols.imap.commands import Command, Create, Mailbox, Rename
from fe_twisted.servers.imap.names import SEPARATOR, canonical
from fe_twisted.servers.imap.reply import Reply
from fe_twisted.servers.imap.session import Session, arguments

#: Octets of a whole name in UTF-8; clients that mirror folders as files cannot do with more.
MAX_NAME = 1000


def _new_name(name: str) -> str:
    """A name for CREATE or RENAME; one separator at its end only says that children will come (RFC 3501 section 6.3.3).

    :raises Refused: it cannot be the name of a mailbox.
    """
    name = canonical(name.removesuffix(SEPARATOR))
    if not name or "" in name.split(SEPARATOR):
        raise Refused("mailbox name has an empty level")
    if len(name.encode("utf-8", "replace")) > MAX_NAME:
        raise Refused(f"mailbox name is longer than {MAX_NAME} octets")
    return name


async def namespace(session: Session, command: Command) -> Reply:
    """One personal name space; there are no other users' and no shared mailboxes."""
    session.wire.write(responses.namespace(SEPARATOR))
    return Reply("NAMESPACE completed")


async def create(session: Session, command: Command) -> Reply:
    """RFC 3501 section 6.3.3."""
    wanted = arguments(command, Create)
    if len(wanted.special_use) > 1:
        raise Refused("a mailbox can have one special use")
    await session.mailbox.create(_new_name(wanted.mailbox), *wanted.special_use)
    return Reply("CREATE completed")


async def delete(session: Session, command: Command) -> Reply:
    """RFC 3501 section 6.3.4.  Who deletes the mailbox that it has selected has none selected afterwards; others who have it hear BYE."""
    await session.mailbox.delete(canonical(arguments(command, Mailbox).mailbox))
    if session.view is not None and session.mailbox.modseq(session.view.folder_id) == 0:
        session.deselect()
    return Reply("DELETE completed")


async def rename(session: Session, command: Command) -> Reply:
    """RFC 3501 section 6.3.5."""
    names = arguments(command, Rename)
    await session.mailbox.rename(canonical(names.old), _new_name(names.new))
    return Reply("RENAME completed")


async def subscribe(session: Session, command: Command) -> Reply:
    """SUBSCRIBE and UNSUBSCRIBE; the name need not exist (RFC 3501 section 6.3.6)."""
    await session.mailbox.subscribe(canonical(arguments(command, Mailbox).mailbox), command.name == "SUBSCRIBE")
    return Reply(f"{command.name} completed")
