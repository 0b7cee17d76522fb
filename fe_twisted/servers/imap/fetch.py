"""FETCH (RFC 3501 section 6.4.5)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import cast

from fe_twisted.base.errors import BadSyntax
from fe_twisted.protocols.imap import responses
from fe_twisted.protocols.imap.commands import Command, Fetch
from fe_twisted.protocols.imap.ranges import count, from_sorted, intersect, resolve, subtract, window
from fe_twisted.protocols.imap.render import FetchPlan, compile_items
from fe_twisted.protocols.imap.search import Ranges
from fe_twisted.servers.imap.reply import Reply
from fe_twisted.servers.imap.session import Session, Wire, arguments
from fe_twisted.servers.imap.update import enable_condstore, names_uid
from fe_twisted.servers.imap.view import View
from fe_twisted.storage.mailbox.api import Column, Row

SEEN = frozenset({"\\Seen"})

#: One response longer than this is written in pieces, so that a 50 MB message is not encrypted and buffered at once.
PIECE = 65_536


async def fetch(session: Session, command: Command) -> Reply:
    r"""Answer from batches of rows; the batch in hand and the transport's buffer are all that is in memory.

    Items that are no PEEK set ``\Seen`` first, so that the flags in the answer are right.
    """
    wanted = arguments(command, Fetch)
    view = session.selected
    if wanted.vanished and not session.qresync:
        raise BadSyntax("VANISHED needs ENABLE QRESYNC")  # RFC 7162 section 3.2.6
    uids = view.addressed(wanted.messages, uid=command.uid)
    if wanted.partial is not None:
        uids = window(uids, wanted.partial.low, wanted.partial.high, newest=wanted.partial.newest)
    since = wanted.changed_since or 0
    if since or any(item.name == "MODSEQ" for item in wanted.items):
        enable_condstore(session)
    if wanted.vanished:
        await _tell_vanished(session, view, wanted)
    uid = command.uid and not session.uid_only
    plan = compile_items(wanted.items, uid=uid, modseq=since > 0, uid_only=session.uid_only)
    if plan.sets_seen and uids and not view.read_only:
        if since:  # those that answer, and no others, become seen
            uids, since = await _changed(session, view, uids, since), 0
        if uids and await _set_seen(session, view, uids):
            plan = compile_items(
                wanted.items,
                uid=names_uid(session, command.uid),
                flags=True,
                modseq=session.condstore or wanted.changed_since is not None,
                uid_only=session.uid_only,
            )
    found = await answer(session, view, plan, uids, since) if uids else 0
    if not command.uid and wanted.changed_since is None and found < count(uids):
        # RFC 5530: what was asked for was expunged by another session, which this one may not be told of yet.
        return Reply("some of the messages were expunged", "EXPUNGEISSUED")
    return Reply("FETCH completed")


async def _tell_vanished(session: Session, view: View, wanted: Fetch) -> None:
    """Which of the UIDs asked for were expunged since (RFC 7162 section 3.2.6).

    Messages that still have a number here are told of by VANISHED without EARLIER: the client must count them out.  ``*`` stands for
    the highest UID that there ever was, or an expunged last message would never be told.
    """
    gone = await session.mailbox.vanished(view.folder_id, wanted.changed_since or 0)
    asked = resolve(wanted.messages, view.uidnext - 1)
    session.wire.write(responses.vanished(subtract(intersect(gone, asked), view.uids.ranges), earlier=True))


async def _changed(session: Session, view: View, uids: Ranges, since: int) -> Ranges:
    """Those of the messages that changed after the modseq."""
    found: list[int] = []
    async for rows in session.mailbox.fetch(view.folder_id, uids, ("uid",), changed_since=since):
        found += [row[0] for row in rows]
    return from_sorted(found)


async def _set_seen(session: Session, view: View, uids: Ranges) -> bool:
    """Whether any flag changed by it."""
    before = session.mailbox.modseq(view.folder_id)
    stored = await session.mailbox.store(view.folder_id, uids, "add", SEEN)
    view.remember_own(stored)
    return stored.modseq != before


async def answer(session: Session, view: View, plan: FetchPlan, uids: Ranges, since: int) -> int:
    """FETCH responses of the messages that changed after modseq ``since``; returns how many there were."""
    columns = cast("tuple[Column, ...]", plan.columns)
    uid_at = columns.index("uid")
    found = 0
    batches: AsyncIterator[list[Row]] = session.mailbox.fetch(view.folder_id, uids, columns, changed_since=since)
    try:
        async for rows in batches:
            found += len(rows)
            numbers = view.uids.sequence_numbers([row[uid_at] for row in rows])
            pieces = plan.render(rows, numbers, view.flags)
            if not plan.writers:  # only short lines
                session.wire.write(b"".join(pieces))
                await session.wire.drained()
            else:
                await _send(session.wire, pieces)
    finally:
        # A generator that is left halfway holds its read transaction until it is closed.
        close = getattr(batches, "aclose", None)
        if close is not None:
            await close()
    return found


async def _send(wire: Wire, pieces: list[bytes]) -> None:
    for piece in pieces:
        if len(piece) <= PIECE:
            wire.write(piece)
            continue
        for start in range(0, len(piece), PIECE):
            wire.write(piece[start : start + PIECE])
            await wire.drained()
    await wire.drained()
