"""SELECT, EXAMINE, CLOSE, UNSELECT (RFC 3501 sections 6.3.1, 6.3.2, 6.4.2, RFC 3691)."""

from __future__ import annotations

from fe_twisted.base.errors import BadSyntax
from fe_twisted.protocols.imap import responses
from fe_twisted.protocols.imap.commands import Command, Select
from fe_twisted.servers.imap.names import canonical
from fe_twisted.servers.imap.reply import Reply
from fe_twisted.servers.imap.session import Session, arguments
from fe_twisted.servers.imap.update import write_flags
from fe_twisted.servers.imap.view import View


async def select(session: Session, command: Command) -> Reply:
    """Look at a folder.  Whatever happens, the one before is left (RFC 3501 section 6.3.1)."""
    wanted = arguments(command, Select)
    read_only = command.name == "EXAMINE"
    session.deselect()
    if wanted.parameters:
        raise BadSyntax(f"unknown parameter {wanted.parameters[0]}")
    await session.poll()
    mailbox, wire = session.mailbox, session.wire
    selected = await mailbox.select(canonical(wanted.mailbox), claim_recent=not read_only)
    view = View(mailbox, selected, read_only=read_only)
    view.keywords = len(mailbox.keywords())
    write_flags(session, view)
    wire.write(responses.exists(len(view.uids)))
    wire.write(responses.recent(view.recent_count()))
    unseen = view.uids.seq(selected.first_unseen) if selected.first_unseen else None
    if unseen is not None:
        wire.write(responses.untagged("OK", "the first unseen message", code=f"UNSEEN {unseen}"))
    wire.write(responses.untagged("OK", "UIDs are valid", code=f"UIDVALIDITY {selected.status.uidvalidity}"))
    wire.write(responses.untagged("OK", "the next UID", code=f"UIDNEXT {selected.status.uidnext}"))
    session.select(view)
    return Reply(f"{command.name} completed", "READ-ONLY" if read_only else "READ-WRITE")


async def close(session: Session, command: Command) -> Reply:
    r"""CLOSE removes messages with ``\Deleted`` without telling; UNSELECT and a read-only folder remove nothing."""
    view = session.selected
    if command.name == "CLOSE" and not view.read_only:
        await session.mailbox.expunge(view.folder_id, None)
    session.deselect()
    return Reply(f"{command.name} completed")
