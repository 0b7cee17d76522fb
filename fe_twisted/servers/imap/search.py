"""SEARCH (RFC 3501 section 6.4.4) and its extended answers (RFC 4731, RFC 5182, RFC 9394, RFC 9051 section 6.4.4)."""

from __future__ import annotations

from fe_twisted.base.errors import BadSyntax, UnknownCharset
from fe_twisted.protocols.imap import responses
from fe_twisted.protocols.imap.commands import Command, Search
from fe_twisted.protocols.imap.ranges import from_sorted, union, window
from fe_twisted.protocols.imap.search import Ranges
from fe_twisted.servers.imap.program import has_modseq, resolved
from fe_twisted.servers.imap.reply import Reply
from fe_twisted.servers.imap.session import Session, arguments
from fe_twisted.servers.imap.update import enable_condstore
from fe_twisted.servers.imap.view import View


async def search(session: Session, command: Command) -> Reply:
    """The messages that match, among those that the client knows; an answer even when there is none."""
    wanted = arguments(command, Search)
    view = session.selected
    if session.utf8_accept and wanted.charset is not None:
        raise BadSyntax("CHARSET cannot be given once UTF8=ACCEPT is enabled")  # RFC 6855 section 3
    program = resolved(wanted.program, view)
    returns = ("ALL",) if wanted.returns is None and session.rev2 else wanted.returns
    if returns is not None and "SAVE" in returns:
        view.saved = ()  # also when it fails from here on (RFC 5182 section 2.1)
    if wanted.unknown_charset:
        raise UnknownCharset
    modseq = has_modseq(program)
    if modseq:
        enable_condstore(session)
    found, numbers = _known(view, await session.mailbox.search(view.folder_id, program))
    if returns is None:
        hits = found if command.uid else numbers
        highest = await highest_modseq(session, view.folder_id, from_sorted(found)) if modseq else 0
        session.wire.write(responses.search(hits, highest))
    else:
        await _extended(session, command, wanted, returns, from_sorted(found), modseq=modseq)
    await session.wire.drained()
    return Reply("SEARCH completed")


def _known(view: View, uids: list[int]) -> tuple[list[int], list[int]]:
    """Those that the client knows, and their numbers."""
    numbers = view.uids.sequence_numbers(uids)
    known = [number for number in numbers if number is not None]
    if len(known) < len(uids):
        uids = [uid for uid, number in zip(uids, numbers, strict=True) if number is not None]
    return uids, known


async def _extended(session: Session, command: Command, wanted: Search, returns: tuple[str, ...], found: Ranges, *, modseq: bool) -> None:
    """An ESEARCH response, unless all that was asked for is to save the result."""
    view = session.selected
    partial = wanted.partial
    page = window(found, partial.low, partial.high, newest=partial.newest) if partial is not None else ()
    named = returned(found, returns, page)
    if "SAVE" in returns:
        view.saved = named
        if returns == ("SAVE",):
            return
    highest = await highest_modseq(session, view.folder_id, named) if modseq else 0

    def shown(uids: Ranges) -> Ranges:
        return uids if command.uid else view.uids.sequences(uids)

    told = (partial.text, shown(page)) if partial is not None else None
    session.wire.write(responses.esearch(command.tag, command.uid, returns, shown(found), highest, page=told))


def returned(found: Ranges, returns: tuple[str, ...], page: Ranges) -> Ranges:
    """The messages whose mod-sequence counts and that SAVE keeps (RFC 4731 section 3.2, RFC 5182 section 2.1, RFC 9394 section 3.2).

    That is all of them, unless the answer names but the page, the first or the last.
    """
    if {"ALL", "COUNT"}.intersection(returns) or returns == ("SAVE",):
        return found
    if found and "MIN" in returns:
        page = union(page, ((found[0][0], found[0][0]),))
    if found and "MAX" in returns:
        page = union(page, ((found[-1][1], found[-1][1]),))
    return page


async def highest_modseq(session: Session, folder_id: int, uids: Ranges) -> int:
    """The highest mod-sequence of these messages, 0 for none."""
    highest = 0
    if uids:
        async for rows in session.mailbox.fetch(folder_id, uids, ("modseq",)):
            highest = max(highest, *(row[0] for row in rows))
    return highest
