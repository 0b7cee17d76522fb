"""SELECT, EXAMINE, CLOSE, UNSELECT (RFC 3501 sections 6.3.1, 6.3.2, 6.4.2, RFC 3691), resynchronisation (RFC 7162 section 3.2.5)."""

from __future__ import annotations

from fe_twisted.base.errors import BadSyntax, UidRequired
from fe_twisted.protocols.imap import responses
from fe_twisted.protocols.imap.commands import Command, Resync, Select
from fe_twisted.protocols.imap.ranges import contains, intersect, resolve, subtract
from fe_twisted.servers.imap.list import attributes
from fe_twisted.servers.imap.names import canonical
from fe_twisted.servers.imap.reply import Reply
from fe_twisted.servers.imap.session import Session, arguments
from fe_twisted.servers.imap.update import tell_flags, tell_highest, write_exists, write_flags
from fe_twisted.servers.imap.view import View
from fe_twisted.storage.mailbox.api import Selected


async def select(session: Session, command: Command) -> Reply:
    """Look at a folder.  Whatever happens, the one before is left (RFC 3501 section 6.3.1)."""
    wanted = arguments(command, Select)
    if wanted.resync is not None and not session.qresync:
        raise BadSyntax("QRESYNC needs ENABLE QRESYNC")  # RFC 7162 section 3.2.5
    if wanted.resync is not None and wanted.resync.match is not None and session.uid_only:
        raise UidRequired
    read_only = command.name == "EXAMINE"
    if session.view is not None:
        session.deselect()
        if "CONDSTORE" not in session.hidden:
            session.wire.write(responses.untagged("OK", "the mailbox before is closed", code="CLOSED"))
    if wanted.condstore:
        session.condstore = True
    await session.poll()
    mailbox = session.mailbox
    selected = await mailbox.select(canonical(wanted.mailbox), claim_recent=not read_only and not session.rev2)
    view = View(mailbox, selected, read_only=read_only, has_recent=not session.rev2, uid_only=session.uid_only)
    view.keywords = len(mailbox.keywords())
    await _describe(session, view, selected, wanted.mailbox)
    session.select(view)
    resync = wanted.resync
    if resync is not None and resync.uidvalidity == selected.status.uidvalidity:
        await _resynchronise(session, view, resync)
    return Reply(f"{command.name} completed", "READ-ONLY" if read_only else "READ-WRITE")


async def _describe(session: Session, view: View, selected: Selected, asked: str) -> None:
    """The untagged responses of SELECT."""
    wire, status = session.wire, selected.status
    write_flags(session, view)
    write_exists(session, view)
    unseen = view.uids.seq(selected.first_unseen) if selected.first_unseen else None
    if unseen is not None and not session.rev2 and not session.uid_only:
        wire.write(responses.untagged("OK", "the first unseen message", code=f"UNSEEN {unseen}"))
    wire.write(responses.untagged("OK", "UIDs are valid", code=f"UIDVALIDITY {status.uidvalidity}"))
    wire.write(responses.untagged("OK", "the next UID", code=f"UIDNEXT {status.uidnext}"))
    if "CONDSTORE" not in session.hidden:
        tell_highest(session, view)
    if "OBJECTID" not in session.hidden:
        wire.write(responses.untagged("OK", "the mailbox's own id", code=f"MAILBOXID ({status.object_id})"))
    if session.rev2:  # RFC 9051 section 6.3.2
        for folder in await session.mailbox.folders():
            if folder.id == view.folder_id:
                oldname = asked if asked != folder.name else ""
                wire.write(responses.listed(folder.name, attributes(session, folder), utf8=session.utf8, oldname=oldname))


async def _resynchronise(session: Session, view: View, resync: Resync) -> None:
    """What happened to the messages that the client knows (RFC 7162 section 3.2.5.1).

    The match data only spares a server that does not remember every EXPUNGE; this one does.  A client that claims to know a modseq that
    was never reached (the mailbox came back from a backup) is told everything.
    """
    since = resync.modseq if resync.modseq <= view.modseq else 0
    changes = await session.mailbox.changes(view.folder_id, since, view.uidnext, claim_recent=False)
    last = view.uidnext - 1
    known = resolve(resync.known, last) if resync.known is not None else ((1, last),) if last else ()
    gone = changes.vanished if since else known
    session.wire.write(responses.vanished(subtract(intersect(gone, known), view.uids.ranges), earlier=True))
    tell_flags(session, view, [row for row in changes.changed if contains(known, row[0])], uid=True)
    await session.wire.drained()


async def close(session: Session, command: Command) -> Reply:
    r"""CLOSE removes messages with ``\Deleted`` without telling; UNSELECT and a read-only folder remove nothing."""
    view = session.selected
    if command.name == "CLOSE" and not view.read_only:
        await session.mailbox.expunge(view.folder_id, None)
    session.deselect()
    return Reply(f"{command.name} completed")
