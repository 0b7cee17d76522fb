"""SORT, ESORT and THREAD (RFC 5256, RFC 5267 section 3, RFC 5957, RFC 7162 section 3.1.6)."""

from __future__ import annotations

from fe_twisted.base.errors import UnknownCharset
from fe_twisted.protocols.imap import responses
from fe_twisted.protocols.imap.commands import Command
from fe_twisted.protocols.imap.ranges import from_sorted, in_order
from fe_twisted.protocols.imap.search import And, Key, Uids
from fe_twisted.protocols.imap.sort import Sort, Thread
from fe_twisted.servers.imap.program import has_modseq, resolved
from fe_twisted.servers.imap.reply import Reply
from fe_twisted.servers.imap.search import highest_modseq
from fe_twisted.servers.imap.session import Session, arguments
from fe_twisted.servers.imap.update import enable_condstore
from fe_twisted.servers.imap.view import View


async def sort(session: Session, command: Command) -> Reply:
    """The messages that match, in order; with RETURN as an ESEARCH response, whose ranges keep that order."""
    wanted = arguments(command, Sort)
    view = session.selected
    program = _known(wanted.program, view)
    saves = wanted.returns is not None and "SAVE" in wanted.returns
    if saves:
        view.saved = ()  # also when it fails from here on (RFC 5182 section 2.1)
    if wanted.unknown_charset:
        raise UnknownCharset
    modseq = has_modseq(program)
    if modseq:
        enable_condstore(session)
    found = await session.mailbox.sort(view.folder_id, program, wanted.criteria)
    named = from_sorted(sorted(_returned(found, wanted.returns))) if modseq or saves else ()
    highest = await highest_modseq(session, view.folder_id, named) if modseq else 0
    hits = found if command.uid else [number for number in view.uids.sequence_numbers(found) if number is not None]
    if wanted.returns is None:
        session.wire.write(responses.sort(hits, highest))
    else:
        if saves:
            view.saved = named
        if wanted.returns != ("SAVE",):
            session.wire.write(responses.esearch(command.tag, command.uid, wanted.returns, in_order(hits), highest))
    await session.wire.drained()
    return Reply("SORT completed")


async def thread(session: Session, command: Command) -> Reply:
    """The messages that match, as threads."""
    wanted = arguments(command, Thread)
    view = session.selected
    found = await session.mailbox.thread(view.folder_id, _known(wanted.program, view), wanted.algorithm)
    numbers = found.uids if command.uid else [number or 0 for number in view.uids.sequence_numbers(found.uids)]
    session.wire.write(found.response(numbers))
    await session.wire.drained()
    return Reply("THREAD completed")


def _returned(found: list[int], returns: tuple[str, ...] | None) -> set[int]:
    """The messages whose mod-sequence counts and that SAVE keeps: all, unless only the first or the last is asked for.

    In the order they were sorted, so it is not :func:`fe_twisted.servers.imap.search.returned`.
    """
    if returns is None or {"ALL", "COUNT"}.intersection(returns) or returns == ("SAVE",):
        return set(found)
    return set((found[:1] if "MIN" in returns else []) + (found[-1:] if "MAX" in returns else []))


def _known(program: Key, view: View) -> Key:
    """The program, for messages only that this session has a number for."""
    return And((Uids(view.uids.ranges), resolved(program, view)))
