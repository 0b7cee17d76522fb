"""ESEARCH: one search in several mailboxes, an answer for each in which something was found (RFC 7377)."""

from __future__ import annotations

from fe_twisted.base.errors import BadSyntax, NoSuchFolder, UnknownCharset
from fe_twisted.protocols.imap import responses
from fe_twisted.protocols.imap.commands import Command
from fe_twisted.protocols.imap.multisearch import MultiSearch, Source
from fe_twisted.protocols.imap.ranges import from_sorted, resolve, window
from fe_twisted.protocols.imap.search import And, Key, Not, Or, Recent, Saved, Sequence, Uids, UidSequence
from fe_twisted.servers.imap.names import SEPARATOR, canonical
from fe_twisted.servers.imap.program import has_modseq, resolved
from fe_twisted.servers.imap.reply import Reply
from fe_twisted.servers.imap.search import highest_modseq, returned
from fe_twisted.servers.imap.session import Session, arguments
from fe_twisted.servers.imap.update import enable_condstore
from fe_twisted.storage.mailbox.api import Folder

_SELECTED = (Source("SELECTED"),)


async def multisearch(session: Session, command: Command) -> Reply:
    """Always UIDs; mailboxes that are not there, or hold nothing that matches, are passed over."""
    wanted = arguments(command, MultiSearch)
    if "SAVE" in wanted.returns and wanted.sources != _SELECTED:
        raise BadSyntax("a result is saved for the selected mailbox only")
    if wanted.unknown_charset:
        if session.view is not None:
            session.view.saved = ()  # RFC 5182 section 2.1
        raise UnknownCharset
    if has_modseq(wanted.program):
        enable_condstore(session)
    await session.poll()
    for folder in await _folders(session, wanted.sources):
        try:
            await _search(session, command, wanted, folder)
        except NoSuchFolder:  # it was deleted just now
            continue
        await session.wire.drained()
    return Reply("ESEARCH completed")


async def _search(session: Session, command: Command, wanted: MultiSearch, folder: Folder) -> None:
    view = session.view
    here = view is not None and view.folder_id == folder.id
    counters = await session.mailbox.status(folder.name)
    if wanted.sources == _SELECTED and view is not None:
        program = resolved(wanted.program, view)
    else:
        program = _anywhere(wanted.program, counters.uidnext - 1)
    if here and view is not None:
        program = And((Uids(view.uids.ranges), program))
    if "SAVE" in wanted.returns and view is not None:
        view.saved = ()  # also when it fails from here on
    found = from_sorted(await session.mailbox.search(folder.id, program))
    partial = wanted.partial
    page = window(found, partial.low, partial.high, newest=partial.newest) if partial is not None else ()
    named = returned(found, wanted.returns, page)
    if "SAVE" in wanted.returns and view is not None:
        view.saved = named
        if wanted.returns == ("SAVE",):
            return
    if not found:
        return
    highest = await highest_modseq(session, folder.id, named) if has_modseq(wanted.program) else 0
    told = (partial.text, page) if partial is not None else None
    where = responses.source(folder.name, counters.uidvalidity, utf8=session.utf8)
    session.wire.write(responses.esearch(command.tag, True, wanted.returns, found, highest, page=told, where=where))


async def _folders(session: Session, sources: tuple[Source, ...]) -> list[Folder]:
    """Those that are meant, each once.

    :raises BadSyntax: the selected mailbox, and there is none.
    """
    folders = [folder for folder in await session.mailbox.folders() if folder.selectable]
    subscribed = set(await session.mailbox.subscriptions()) if any(source.kind == "SUBSCRIBED" for source in sources) else set()
    chosen: set[str] = set()
    for source in sources:
        names = {canonical(name) for name in source.names}
        if source.kind == "SELECTED":
            if session.view is None:
                raise BadSyntax("no mailbox is selected")
            selected = session.view.folder_id
            chosen |= {folder.name for folder in folders if folder.id == selected}
        elif source.kind == "INBOXES":
            chosen.add("INBOX")
        elif source.kind == "SUBSCRIBED":
            chosen |= subscribed
        else:
            chosen |= {folder.name for folder in folders if source.kind == "PERSONAL" or _is_among(folder.name, names, source)}
    return [folder for folder in folders if folder.name in chosen]


def _is_among(name: str, names: set[str], source: Source) -> bool:
    if name in names:
        return True
    levels = name.split(SEPARATOR)
    if source.kind == "SUBTREE":
        return any(SEPARATOR.join(levels[:count]) in names for count in range(1, len(levels)))
    return source.kind == "SUBTREE-ONE" and SEPARATOR.join(levels[:-1]) in names


def _anywhere(key: Key, last: int) -> Key:
    """The program for a mailbox that need not be selected.

    :param last: what ``*`` means there.
    :raises BadSyntax: a key that means something in the selected mailbox only (RFC 7377 section 2.1).
    """
    match key:
        case And(keys):
            return And(tuple(_anywhere(inner, last) for inner in keys))
        case Or(left, right):
            return Or(_anywhere(left, last), _anywhere(right, last))
        case Not(inner):
            return Not(_anywhere(inner, last))
        case UidSequence(items):
            return Uids(resolve(items, last))
        case Sequence() | Saved() | Recent():
            raise BadSyntax("message numbers, $ and RECENT have a meaning in the selected mailbox only")
        case _:
            return key
