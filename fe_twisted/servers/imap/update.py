"""Untagged responses that tell a session what others did to its folder (RFC 3501 sections 5.2, 7.3, 7.4)."""

from __future__ import annotations

from collections.abc import Iterable

from fe_twisted.protocols.imap import responses
from fe_twisted.servers.imap.reply import Ended
from fe_twisted.servers.imap.session import Session
from fe_twisted.servers.imap.view import View
from fe_twisted.storage.mailbox.api import SYSTEM_FLAGS


def is_behind(session: Session, *, expunges: bool) -> bool:
    """Whether :func:`synchronise` would have anything to say; asked around every command, so it does no I/O."""
    view = session.view
    if view is None:
        return False
    mailbox = session.mailbox
    return mailbox.modseq(view.folder_id) != view.modseq or len(mailbox.keywords()) != view.keywords or (expunges and bool(view.gone))


async def synchronise(session: Session, *, expunges: bool, uid: bool) -> None:
    """Bring the client up to date with its folder; costs nothing when nothing happened.

    :param expunges: EXPUNGE may be sent; otherwise messages that are gone keep their numbers for now.
    :param uid: FETCH responses name the UID, too.
    :raises Ended: the folder was deleted.
    """
    view = session.view
    if view is None:
        return
    news: list[tuple[int, int]] = []
    before = len(view.uids)
    if session.mailbox.modseq(view.folder_id) != view.modseq:
        changes = await session.mailbox.changes(view.folder_id, view.modseq, view.uidnext, claim_recent=not view.read_only)
        if not changes.exists:
            session.deselect()
            raise Ended("the selected mailbox was deleted")
        news = view.learn(changes)
    grown = len(view.uids) > before
    if expunges and view.gone:
        session.wire.write(responses.expunged(view.forget()))
    if grown:
        session.wire.write(responses.exists(len(view.uids)))
        session.wire.write(responses.recent(view.recent_count()))
    announce_keywords(session, view)
    if news:
        tell_flags(session, view, news, uid=uid)
        await session.wire.drained()


def tell_flags(session: Session, view: View, news: Iterable[tuple[int, int]], *, uid: bool) -> None:
    """FETCH responses with the flags of ``(uid, mask)`` messages."""
    lines = []
    for number, mask in news:
        sequence = view.uids.seq(number)
        if sequence is not None:
            what = b"UID %d FLAGS %s" % (number, view.flags(mask, number)) if uid else b"FLAGS " + view.flags(mask, number)
            lines.append(b"* %d FETCH (%s)\r\n" % (sequence, what))
    session.wire.write(b"".join(lines))


def announce_keywords(session: Session, view: View) -> None:
    """FLAGS and PERMANENTFLAGS, when there is a keyword that the client does not know yet (RFC 3501 section 7.2.6)."""
    keywords = session.mailbox.keywords()
    if len(keywords) == view.keywords:
        return
    view.keywords = len(keywords)
    write_flags(session, view)


def write_flags(session: Session, view: View) -> None:
    r"""Which flags there are, and which of them last; ``\*``: new keywords may be made."""
    names = [*SYSTEM_FLAGS, *session.mailbox.keywords()]
    permanent = [] if view.read_only else [*names, "\\*"]
    session.wire.write(responses.flags(names))
    session.wire.write(responses.untagged("OK", "flags that last", code=f"PERMANENTFLAGS ({' '.join(permanent)})"))
