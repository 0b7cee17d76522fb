"""STORE (RFC 3501 section 6.4.6)."""

from __future__ import annotations

from fe_twisted.protocols.imap.commands import Command, Store
from fe_twisted.protocols.imap.ranges import count, render
from fe_twisted.servers.imap.reply import Reply, no
from fe_twisted.servers.imap.session import Session, arguments
from fe_twisted.servers.imap.update import announce_keywords, enable_condstore, tell_flags
from fe_twisted.servers.imap.view import View
from fe_twisted.storage.mailbox.api import Stored


async def store(session: Session, command: Command) -> Reply:
    """Change flags and answer the new ones; with .SILENT only what others changed is told."""
    wanted = arguments(command, Store)
    view = session.selected
    if view.read_only:
        return no("the mailbox is selected read-only", "READ-ONLY")
    uids = view.addressed(wanted.messages, uid=command.uid)
    if wanted.unchanged_since is not None:
        enable_condstore(session)
    if not uids:
        return Reply("STORE completed")
    stored = await session.mailbox.store(view.folder_id, uids, wanted.action, wanted.flags, unchanged_since=wanted.unchanged_since)
    view.remember_own(stored)
    announce_keywords(session, view)
    if not wanted.silent or session.condstore:  # RFC 7162 section 3.1.3: the new modseq is told in any case
        tell_flags(session, view, stored.changed, uid=command.uid, flags=not wanted.silent)
        await session.wire.drained()
    missing = not command.uid and len(stored.changed) + count(stored.modified) < count(uids)
    if stored.modified:
        return _modified(view, stored, uid=command.uid, missing=missing)
    if missing:
        return Reply("some of the messages were expunged", "EXPUNGEISSUED")
    return Reply("STORE completed")


def _modified(view: View, stored: Stored, *, uid: bool, missing: bool) -> Reply:
    """Some messages were changed by others since (RFC 7162 section 3.1.3); what they are now is told at the end of the command."""
    failed = stored.modified if uid else view.uids.sequences(stored.modified)
    code = f"MODIFIED {render(failed).decode('ascii')}"
    if missing:
        return no("some of the messages were expunged", code)
    return Reply("some of the messages were changed by others", code)
