"""FETCH (RFC 3501 section 6.4.5)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import cast

from fe_twisted.base.errors import BadSyntax
from fe_twisted.protocols.imap.commands import Command, Fetch
from fe_twisted.protocols.imap.ranges import count
from fe_twisted.protocols.imap.render import FetchPlan, compile_items
from fe_twisted.protocols.imap.search import Ranges
from fe_twisted.servers.imap.reply import Reply
from fe_twisted.servers.imap.session import Session, Wire, arguments
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
    if wanted.changed_since is not None or wanted.vanished:
        raise BadSyntax("CHANGEDSINCE is not supported")
    view = session.selected
    uids = view.addressed(wanted.messages, uid=command.uid)
    plan = compile_items(wanted.items, uid=command.uid)
    if plan.sets_seen and uids and not view.read_only and await _set_seen(session, view, uids):
        plan = compile_items(wanted.items, uid=command.uid, flags=True)
    found = await _answer(session, view, plan, uids) if uids else 0
    if not command.uid and found < count(uids):
        # RFC 5530: what was asked for was expunged by another session, which this one may not be told of yet.
        return Reply("some of the messages were expunged", "EXPUNGEISSUED")
    return Reply("FETCH completed")


async def _set_seen(session: Session, view: View, uids: Ranges) -> bool:
    """Whether any flag changed by it."""
    before = session.mailbox.modseq(view.folder_id)
    stored = await session.mailbox.store(view.folder_id, uids, "add", SEEN)
    view.remember_own(stored)
    return stored.modseq != before


async def _answer(session: Session, view: View, plan: FetchPlan, uids: Ranges) -> int:
    """Returns how many messages there were."""
    columns = cast("tuple[Column, ...]", plan.columns)
    uid_at = columns.index("uid")
    found = 0
    batches: AsyncIterator[list[Row]] = session.mailbox.fetch(view.folder_id, uids, columns)
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
