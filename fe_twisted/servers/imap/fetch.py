"""FETCH (RFC 3501 section 6.4.5)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import cast

from fe_twisted.base import log
from fe_twisted.base.errors import BadSyntax, MailError
from fe_twisted.protocols.imap import responses
from fe_twisted.protocols.imap.commands import Command, Fetch
from fe_twisted.protocols.imap.ranges import count, from_sorted, intersect, resolve, subtract, window
from fe_twisted.protocols.imap.render import FetchPlan, Piece, Unread, compile_items
from fe_twisted.protocols.imap.search import Ranges
from fe_twisted.servers.imap.reply import Disconnected, Reply
from fe_twisted.servers.imap.session import Session, Wire, arguments
from fe_twisted.servers.imap.update import enable_condstore, is_behind, names_uid
from fe_twisted.servers.imap.view import View
from fe_twisted.storage.mailbox.api import SEEN, Column, Row

#: One response longer than this is written in pieces, so that a 50 MB message is not encrypted and buffered at once.
PIECE = 65_536
#: How much of a large message is read at once.
STRETCH = 524_288


async def fetch(session: Session, command: Command) -> Reply:
    """Answer from batches of rows; the batch in hand and the transport's buffer are all that is in memory."""
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
    if not uids:
        found = 0
    elif plan.sets_seen and not view.read_only:
        telling = compile_items(
            wanted.items,
            uid=names_uid(session, command.uid),
            flags=True,
            modseq=session.condstore or wanted.changed_since is not None,
            uid_only=session.uid_only,
        )
        found = await answer(session, view, plan, uids, since, telling=telling)
    else:
        found = await answer(session, view, plan, uids, since)
    if not command.uid and wanted.changed_since is None and found < count(uids):
        # RFC 5530: what was asked for was expunged by another session, which this one may not be told of yet.
        return Reply("some of the messages were expunged", "EXPUNGEISSUED")
    return Reply("FETCH completed")


#: What :func:`fetch_one` ends with.
_COMPLETED = Reply("FETCH completed")


def fetch_one(session: Session, command: Command) -> Reply | None:
    """The FETCH that clients send most, one message and nothing set by it, answered at once; None, and nothing written, for any other.

    To be called where no other command is carried out.
    """
    wanted, view = command.arguments, session.view
    if view is None or view.gone or not isinstance(wanted, Fetch) or len(wanted.messages) != 1:
        return None
    number, last = wanted.messages[0]
    if not number or number != last or wanted.changed_since is not None or wanted.partial is not None:
        return None
    if command.uid:
        uid, sequence = number, view.uids.seq(number)
    else:
        uid, sequence = view.uids.uid(number) if number <= len(view.uids) and not session.uid_only else 0, number
    if not uid or sequence is None:
        return None
    plan = compile_items(wanted.items, uid=command.uid and not session.uid_only, uid_only=session.uid_only)
    if (plan.sets_seen and not view.read_only) or "modseq" in plan.columns:
        return None
    rows = session.mailbox.fetch_one(view.folder_id, uid, cast("tuple[Column, ...]", plan.columns))
    if not rows:
        return None
    pieces = plan.render(rows, (sequence,), view.flag_lists)
    if "content" in plan.columns and any(isinstance(piece, Unread) for piece in pieces):
        return None
    if is_behind(session, expunges=False):  # now, for what was read may be newer than what was known before
        return None
    session.wire.write(b"".join(cast("list[bytes]", pieces)))
    return _COMPLETED


async def _tell_vanished(session: Session, view: View, wanted: Fetch) -> None:
    """Which of the UIDs asked for were expunged since (RFC 7162 section 3.2.6).

    Messages that still have a number here are told of by VANISHED without EARLIER: the client must count them out.  ``*`` stands for
    the highest UID that there ever was, or an expunged last message would never be told.
    """
    gone = await session.mailbox.vanished(view.folder_id, wanted.changed_since or 0)
    asked = resolve(wanted.messages, view.uidnext - 1)
    session.wire.write(responses.vanished(subtract(intersect(gone, asked), view.uids.ranges), earlier=True))


async def answer(session: Session, view: View, plan: FetchPlan, uids: Ranges, since: int, *, telling: FetchPlan | None = None) -> int:
    r"""FETCH responses of the messages that changed after modseq ``since``; returns how many there were.

    :param telling: messages become ``\Seen``, a batch at a time and just before it is sent, so that a FETCH that is cut off has marked
        nothing that was still far from being sent.  A batch in which flags changed is answered by this plan, which tells them (RFC 9051
        section 6.4.5); its columns hold those of ``plan``.
    """
    columns = cast("tuple[Column, ...]", (telling or plan).columns)
    uid_at = columns.index("uid")
    found = 0
    batches: AsyncIterator[list[Row]] = session.mailbox.fetch(view.folder_id, uids, columns, changed_since=since)
    try:
        async for rows in batches:
            found += len(rows)
            numbers = view.uids.sequence_numbers([row[uid_at] for row in rows])
            if telling is None:
                pieces = plan.render(rows, numbers, view.flag_lists)
            else:
                used, seen = await _see(session, view, plan, telling, rows)
                pieces = used.render(seen, numbers, view.flag_lists)
            if "content" not in plan.columns:  # no more than a batch has, all of it read
                await _send_read(session.wire, cast("list[bytes]", pieces))
            else:
                await _send(session, pieces)
    finally:
        # A generator that is left halfway holds its read transaction until it is closed.
        close = getattr(batches, "aclose", None)
        if close is not None:
            await close()
    return found


async def _see(session: Session, view: View, plan: FetchPlan, telling: FetchPlan, rows: list[Row]) -> tuple[FetchPlan, list[Row]]:
    r"""Set ``\Seen``; the plan to answer with, and the rows as it wants them.

    :param rows: by the columns of ``telling``.
    """
    columns = telling.columns
    uid_at, flags_at = columns.index("uid"), columns.index("flags")
    unseen = [row[uid_at] for row in rows if not row[flags_at] & SEEN]
    if not unseen:
        wanted = [columns.index(column) for column in plan.columns]
        return plan, [tuple([row[at] for at in wanted]) for row in rows]
    stored = await session.mailbox.store(view.folder_id, from_sorted(unseen), "add", frozenset({"\\Seen"}))
    view.remember_own(stored)
    modseq_at = columns.index("modseq") if "modseq" in columns else -1
    now = {uid: (flags, modseq) for uid, flags, modseq in stored.changed}
    fresh: list[Row] = []
    for row in rows:
        values = list(row)
        if row[uid_at] in now:
            values[flags_at], modseq = now[row[uid_at]]
            if modseq_at >= 0:
                values[modseq_at] = modseq
        fresh.append(tuple(values))
    return telling, fresh


async def _send(session: Session, pieces: list[Piece]) -> None:
    """Pieces in blocks that the transport can take at once."""
    wire = session.wire
    block: list[bytes] = []
    octets = 0
    wire.amid = True
    try:
        for piece in pieces:
            if isinstance(piece, Unread):
                await _write(wire, block)
                await _read_on(session, piece)
                block, octets = [], 0
                continue
            block.append(piece)
            octets += len(piece)
            if octets >= PIECE:
                await _write(wire, block)
                block, octets = [], 0
        wire.write(b"".join(block))
    finally:
        wire.amid = False
    await wire.drained()


async def _send_read(wire: Wire, pieces: list[bytes]) -> None:
    """The same where all of it was read already."""
    wire.amid = True
    try:
        await _write(wire, pieces)
    finally:
        wire.amid = False


async def _write(wire: Wire, block: list[bytes]) -> None:
    data = b"".join(block)
    if len(data) < 2 * PIECE:
        wire.write(data)
        await wire.drained()
        return
    for start in range(0, len(data), PIECE):
        wire.write(data[start : start + PIECE])
        await wire.drained()


async def _read_on(session: Session, unread: Unread) -> None:
    """What is left of a large message, a stretch at a time.

    :raises Disconnected: it cannot be read.  Its length was told already, so there is no way to say that, other than to close.
    """
    wire = session.wire
    whole: list[bytes] = []
    try:
        for start in range(unread.start, unread.end, STRETCH):
            octets = await session.mailbox.octets(unread.message, start, min(start + STRETCH, unread.end))
            if unread.make is not None:
                whole.append(octets)
                continue
            for at in range(0, len(octets), PIECE):
                wire.write(octets[at : at + PIECE])
                await wire.drained()
    except MailError as error:
        log.failure("imap.cut_off", error, conn=wire.id, reason=error.reason)
        wire.close()
        raise Disconnected from error
    if unread.make is not None:
        for piece in unread.make(b"".join(whole)):
            wire.write(piece)
