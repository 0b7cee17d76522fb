"""Untagged responses that tell a session what others did to its folder (RFC 3501 sections 5.2, 7.3, 7.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from fe_twisted.protocols.imap import responses
from fe_twisted.protocols.imap.commands import FetchItem
from fe_twisted.protocols.imap.ranges import from_sorted
from fe_twisted.protocols.imap.render import compile_items
from fe_twisted.protocols.imap.search import Ranges
from fe_twisted.servers.imap.reply import Ended
from fe_twisted.servers.imap.session import Session
from fe_twisted.servers.imap.view import View
from fe_twisted.storage.mailbox.api import MAX_KEYWORDS, SYSTEM_FLAGS

#: Messages that are told of in one block, so that what is made for them stays in the processor's cache.
_TOLD_AT_ONCE = 500

#: Where in ``(uid, mask, modseq)`` a column is.
_NEWS = {"uid": 0, "flags": 1, "modseq": 2}


def is_behind(session: Session, *, expunges: bool, owed: bool = False) -> bool:
    """Whether :func:`synchronise` would have anything to say; asked around every command, so it does no I/O.

    :param owed: the command itself expunged messages, so that the client must hear of it even if NOTIFY says nothing else.
    """
    view = session.view
    if view is None or (session.notifier is not None and not session.notifier.selected and not owed):
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
    news: list[tuple[int, int, int]] = []
    added: Ranges = ()
    before = len(view.uids)
    if session.mailbox.modseq(view.folder_id) != view.modseq:
        changes = await session.mailbox.changes(view.folder_id, view.modseq, view.uidnext, claim_recent=claims_recent(view))
        if not changes.exists:
            session.deselect()
            raise Ended("the selected mailbox was deleted")
        news = view.learn(changes)
        added = from_sorted(uid for uid, _, _ in changes.added)
    grown = len(view.uids) > before
    if expunges and view.gone:
        tell_expunged(session, view)
    if grown:
        write_exists(session, view)
    announce_keywords(session, view)
    notifier = session.notifier
    # From here on the view counts this as told, and what follows may fail; so it is written before anything is waited for.
    if news and (notifier is None or "FLAGCHANGE" in notifier.selected):
        tell_flags(session, view, news, uid=uid)
    if notifier is not None and added:
        await notifier.arrived(added)
    if news:
        await session.wire.drained()


def claims_recent(view: View) -> bool:
    r"""Whether new messages become ``\Recent`` in this session and in no other."""
    return view.has_recent and not view.read_only


def write_exists(session: Session, view: View) -> None:
    """EXISTS, and RECENT for a client that knows it."""
    session.wire.write(responses.exists(len(view.uids)))
    if view.has_recent:
        session.wire.write(responses.recent(view.recent_count()))


def tell_expunged(session: Session, view: View) -> None:
    """EXPUNGE or VANISHED for the messages that are gone (RFC 7162 section 3.2.10, RFC 9586 section 3.4)."""
    if session.qresync or session.uid_only:
        session.wire.write(responses.vanished(view.gone))
        view.forget()
    else:
        session.wire.write(responses.expunged(view.forget()))
    if view.low_told:
        view.low_told = False
        tell_highest(session, view)


def tell_highest(session: Session, view: View) -> None:
    """Up to which modseq the client has been told everything."""
    session.wire.write(responses.untagged("OK", "all was told up to here", code=f"HIGHESTMODSEQ {view.told}"))


def tell_held(session: Session) -> None:
    """Lest a client that has seen higher modseqs believes that it knows of all expunged messages (RFC 7162 section 3.2)."""
    view = session.view
    if view is not None and view.gone and session.condstore:
        view.low_told = True
        tell_highest(session, view)


def enable_condstore(session: Session) -> None:
    """The client has issued a CONDSTORE enabling command (RFC 7162 section 3.1)."""
    if not session.condstore:
        session.condstore = True
        if session.view is not None:
            tell_highest(session, session.view)


def names_uid(session: Session, uid: bool) -> bool:
    """Whether FETCH responses that were not asked for name the UID as an item (RFC 7162 section 3.2.4, RFC 9051 section 7.5.2).

    :param uid: the command was prefixed with UID.
    """
    return (uid or session.condstore or session.rev2) and not session.uid_only


def tell_flags(session: Session, view: View, news: Sequence[tuple[int, int, int]], *, uid: bool, flags: bool = True) -> None:
    """FETCH responses with the flags of ``(uid, mask, modseq)`` messages, ascending by UID.

    :param flags: False for the modseq alone.
    """
    names = (("UID", names_uid(session, uid)), ("FLAGS", flags), ("MODSEQ", session.condstore))
    items = tuple([FetchItem(name) for name, wanted in names if wanted])
    plan = compile_items(items, uid_only=session.uid_only)
    at = [_NEWS[column] for column in plan.columns]
    for start in range(0, len(news), _TOLD_AT_ONCE):
        part = [tuple([row[i] for i in at]) for row in news[start : start + _TOLD_AT_ONCE]]
        lines = plan.render(part, view.uids.sequence_numbers([row[0] for row in part]), view.flag_lists)
        session.wire.write(b"".join(cast("list[bytes]", lines)))


def announce_keywords(session: Session, view: View) -> None:
    """FLAGS and PERMANENTFLAGS, when there is a keyword that the client does not know yet (RFC 3501 section 7.2.6)."""
    keywords = session.mailbox.keywords()
    if len(keywords) == view.keywords:
        return
    view.keywords = len(keywords)
    write_flags(session, view)


def write_flags(session: Session, view: View) -> None:
    r"""Which flags there are, and which of them last; ``\*``: new keywords may be made, while there is room for another."""
    keywords = session.mailbox.keywords()
    names = [*SYSTEM_FLAGS, *keywords]
    more = ["\\*"] if len(keywords) < MAX_KEYWORDS else []
    permanent = [] if view.read_only else [*names, *more]
    session.wire.write(responses.flags(names))
    session.wire.write(responses.untagged("OK", "flags that last", code=f"PERMANENTFLAGS ({' '.join(permanent)})"))
