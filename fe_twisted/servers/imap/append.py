"""APPEND (RFC 3501 section 6.3.11, RFC 4315), of several messages at once too (RFC 3502), and REPLACE (RFC 8508)."""

from __future__ import annotations

from fe_twisted.base.errors import MessageTooLarge, NoSuchFolder, NotFound, TryCreate
from fe_twisted.protocols.imap import responses
from fe_twisted.protocols.imap.commands import Append, Command, Replace
from fe_twisted.servers.imap.catenate import made
from fe_twisted.servers.imap.names import canonical
from fe_twisted.servers.imap.reply import Reply, no
from fe_twisted.servers.imap.session import Session, arguments
from fe_twisted.servers.imap.view import View
from fe_twisted.storage.mailbox.api import Appended, NewMessage


async def append(session: Session, command: Command) -> Reply:
    """Store the messages, all or none; durable before OK."""
    wanted = arguments(command, Append)
    messages: list[NewMessage] = []
    # The parser bounds literals; what URLs bring is bounded here, lest a short command fills the memory.
    room = 2 * session.limits.message_size
    for message in wanted.messages:
        messages.append(await made(session, message))
        room -= len(messages[-1].content)
        if room < 0:
            raise MessageTooLarge(f"messages larger than {2 * session.limits.message_size} octets in all")
    try:
        appended = await session.mailbox.append(canonical(wanted.mailbox), messages)
    except NoSuchFolder as error:  # RFC 3501 6.3.11: TRYCREATE, not NONEXISTENT
        raise TryCreate(reason=error.reason) from error
    return Reply("APPEND completed", _code(session, appended))


async def replace(session: Session, command: Command) -> Reply:
    """Store a message and remove another in one step.  APPENDUID goes before the EXPUNGE response (RFC 8508 section 3.4)."""
    wanted = arguments(command, Replace)
    view = session.selected
    if view.read_only:
        return no("the mailbox is selected read-only", "READ-ONLY")
    uid = _addressed(view, wanted.number, uid=command.uid)
    message = await made(session, wanted.message)
    try:
        appended = await session.mailbox.replace(view.folder_id, uid, canonical(wanted.mailbox), message)
    except NoSuchFolder as error:
        raise TryCreate(reason=error.reason) from error
    session.wire.write(responses.untagged("OK", "replacement message ready", code=_code(session, appended)))
    return Reply("REPLACE completed")


def _code(session: Session, appended: Appended) -> str:
    return "" if "UIDPLUS" in session.hidden else responses.appenduid(appended.uidvalidity, appended.uids)


def _addressed(view: View, number: int | None, *, uid: bool) -> int:
    """The UID of the one message.

    :raises BadSyntax: no message has this number.
    :raises NotFound: no message has this UID.
    """
    found = view.addressed(((number, number),), uid=uid)
    if not found:
        raise NotFound("no such message")
    return found[0][0]
