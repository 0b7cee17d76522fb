"""COPY (RFC 3501 section 6.4.7) and MOVE (RFC 6851)."""

from __future__ import annotations

from fe_twisted.base.errors import NoSuchFolder, TryCreate
from fe_twisted.protocols.imap import responses
from fe_twisted.protocols.imap.commands import Command, Copy
from fe_twisted.servers.imap.names import canonical
from fe_twisted.servers.imap.reply import Reply, no
from fe_twisted.servers.imap.session import Session, arguments


async def copy(session: Session, command: Command) -> Reply:
    """All of the messages or none."""
    wanted = arguments(command, Copy)
    view = session.selected
    uids = view.addressed(wanted.messages, uid=command.uid)
    try:
        copied = await session.mailbox.copy(view.folder_id, uids, canonical(wanted.mailbox))
    except NoSuchFolder as error:
        raise TryCreate(reason=error.reason) from error
    if not copied.source:
        return Reply("no such messages, nothing was copied")
    if "UIDPLUS" in session.hidden:
        return Reply("COPY completed")
    return Reply("COPY completed", responses.copyuid(copied.uidvalidity, copied.source, copied.target))


async def move(session: Session, command: Command) -> Reply:
    """In one step.  COPYUID goes before the EXPUNGE responses (RFC 6851 section 4.3), which the end of the command sends."""
    wanted = arguments(command, Copy)
    view = session.selected
    if view.read_only:
        return no("the mailbox is selected read-only", "READ-ONLY")
    uids = view.addressed(wanted.messages, uid=command.uid)
    try:
        moved = await session.mailbox.move(view.folder_id, uids, canonical(wanted.mailbox))
    except NoSuchFolder as error:
        raise TryCreate(reason=error.reason) from error
    if moved.source and "UIDPLUS" not in session.hidden:
        code = responses.copyuid(moved.uidvalidity, moved.source, moved.target)
        session.wire.write(responses.untagged("OK", "where they went", code=code))
    return Reply("MOVE completed", highest=bool(moved.source))
