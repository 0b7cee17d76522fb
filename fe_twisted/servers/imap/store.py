"""STORE (RFC 3501 section 6.4.6)."""

from __future__ import annotations

from fe_twisted.base.errors import BadSyntax
from fe_twisted.protocols.imap.commands import Command, Store
from fe_twisted.protocols.imap.ranges import count
from fe_twisted.servers.imap.reply import Reply, no
from fe_twisted.servers.imap.session import Session, arguments
from fe_twisted.servers.imap.update import announce_keywords, tell_flags


async def store(session: Session, command: Command) -> Reply:
    """Change flags and answer the new ones; with .SILENT only what others changed is told."""
    wanted = arguments(command, Store)
    view = session.selected
    if wanted.unchanged_since is not None:
        raise BadSyntax("UNCHANGEDSINCE is not supported")
    if view.read_only:
        return no("the mailbox is selected read-only")
    uids = view.addressed(wanted.messages, uid=command.uid)
    if not uids:
        return Reply("STORE completed")
    stored = await session.mailbox.store(view.folder_id, uids, wanted.action, wanted.flags)
    view.remember_own(stored)
    announce_keywords(session, view)
    if not wanted.silent:
        tell_flags(session, view, ((uid, mask) for uid, mask, _ in stored.changed), uid=command.uid)
        await session.wire.drained()
    if not command.uid and len(stored.changed) < count(uids):
        return Reply("some of the messages were expunged", "EXPUNGEISSUED")
    return Reply("STORE completed")
