"""EXPUNGE (RFC 3501 section 6.4.3) and UID EXPUNGE (RFC 4315 section 2.1)."""

from __future__ import annotations

from fe_twisted.protocols.imap.commands import Command, Expunge
from fe_twisted.servers.imap.reply import Reply, no
from fe_twisted.servers.imap.session import Session, arguments


async def expunge(session: Session, command: Command) -> Reply:
    r"""Remove messages with ``\Deleted``; the end of the command tells which."""
    view = session.selected
    if view.read_only:
        return no("the mailbox is selected read-only", "READ-ONLY")
    uids = view.addressed(arguments(command, Expunge).messages, uid=True) if command.uid else None
    gone = uids is None or bool(uids)
    if gone:
        gone = bool((await session.mailbox.expunge(view.folder_id, uids)).uids)
    return Reply("EXPUNGE completed", highest=gone)
