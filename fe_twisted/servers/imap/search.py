"""SEARCH (RFC 3501 section 6.4.4)."""

from __future__ import annotations

from fe_twisted.base.errors import BadSyntax
from fe_twisted.protocols.imap import responses
from fe_twisted.protocols.imap.commands import Command, Search
from fe_twisted.protocols.imap.ranges import intersect, resolve
from fe_twisted.protocols.imap.search import And, Key, Not, Or, Recent, Saved, Sequence, Uids, UidSequence
from fe_twisted.servers.imap.reply import Reply
from fe_twisted.servers.imap.session import Session, arguments
from fe_twisted.servers.imap.view import View


async def search(session: Session, command: Command) -> Reply:
    """The messages that match, among those that the client knows; an answer even when there is none."""
    wanted = arguments(command, Search)
    if wanted.returns is not None:
        raise BadSyntax("SEARCH RETURN is not supported")
    view = session.selected
    found = await session.mailbox.search(view.folder_id, resolved(wanted.program, view))
    numbers = view.uids.sequence_numbers(found)
    if command.uid:
        hits = [uid for uid, number in zip(found, numbers, strict=True) if number is not None]
    else:
        hits = [number for number in numbers if number is not None]
    session.wire.write(responses.search(hits))
    return Reply("SEARCH completed")


def resolved(key: Key, view: View) -> Key:
    r"""The program with every key that only this session understands (numbers, ``*``, ``\Recent``) replaced by UIDs.

    :raises BadSyntax: ``$`` without SEARCHRES.
    """
    match key:
        case And(keys):
            return And(tuple(resolved(inner, view) for inner in keys))
        case Or(left, right):
            return Or(resolved(left, view), resolved(right, view))
        case Not(inner):
            return Not(resolved(inner, view))
        case Sequence(items):
            return Uids(view.uids.uids(resolve(items, len(view.uids), clamp=True)))
        case UidSequence(items):
            return Uids(intersect(resolve(items, view.uids.last), view.uids.ranges))
        case Recent():
            return Uids(view.recent)
        case Saved():
            raise BadSyntax("no search result was saved")
        case _:
            return key
