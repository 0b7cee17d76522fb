"""CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE, NAMESPACE (RFC 3501 section 6.3, RFC 2342)."""

from __future__ import annotations

from collections.abc import Sequence

from fe_twisted.base.errors import Refused, SpecialUseRefused
from fe_twisted.protocols.imap import responses
from fe_twisted.protocols.imap.commands import Command, Create, Mailbox, Rename
from fe_twisted.servers.imap.names import SEPARATOR, canonical
from fe_twisted.servers.imap.reply import Reply
from fe_twisted.servers.imap.session import Session, arguments

#: Octets of a whole name in UTF-8; clients that mirror folders as files cannot do with more.
MAX_NAME = 1000

#: What a mailbox can be given (RFC 6154 section 2, RFC 8457); ``\\All`` and ``\\Flagged`` would be views of others, which we have not.
_SPECIAL_USES = frozenset(("\\Archive", "\\Drafts", "\\Important", "\\Junk", "\\Sent", "\\Trash"))


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


def only_use(uses: Sequence[str]) -> str:
    """The one special use, or an empty string for none.

    :raises SpecialUseRefused: there are several, or a mailbox cannot have it.
    """
    if len(uses) > 1:
        raise SpecialUseRefused("a mailbox can have one special use")
    if not _SPECIAL_USES.issuperset(uses):
        raise SpecialUseRefused
    return "".join(uses)


async def namespace(session: Session, command: Command) -> Reply:
    """One personal name space; there are no other users' and no shared mailboxes."""
    session.wire.write(responses.namespace(SEPARATOR))
    return Reply("NAMESPACE completed")


async def create(session: Session, command: Command) -> Reply:
    """RFC 3501 section 6.3.3."""
    wanted = arguments(command, Create)
    use = only_use(wanted.special_use)
    name = _new_name(wanted.mailbox)
    made = await session.mailbox.create(name, use)
    if session.rev2 and name != wanted.mailbox.removesuffix(SEPARATOR):  # RFC 9051 section 6.3.4
        session.wire.write(responses.listed(name, [], utf8=session.utf8, oldname=wanted.mailbox))
    return Reply("CREATE completed", f"MAILBOXID ({made})" if "OBJECTID" not in session.hidden else "")  # RFC 8474 section 4.1


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
