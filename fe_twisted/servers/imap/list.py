"""LIST and LSUB (RFC 3501 sections 6.3.8 and 6.3.9), CHILDREN (RFC 3348), SPECIAL-USE (RFC 6154)."""

from __future__ import annotations

from fe_twisted.base.errors import BadSyntax
from fe_twisted.protocols.imap import responses
from fe_twisted.protocols.imap.commands import Command, List
from fe_twisted.servers.imap.names import matcher, parents
from fe_twisted.servers.imap.reply import Reply
from fe_twisted.servers.imap.session import Session, arguments
from fe_twisted.storage.mailbox.api import Folder

#: Lines between two looks at whether the client still takes them.
_LINES = 200


def attributes(session: Session, folder: Folder) -> list[str]:
    """What LIST says of a name."""
    flags = ["\\HasChildren" if folder.has_children else "\\HasNoChildren"]
    if not folder.selectable:
        flags.append("\\NonExistent" if session.rev2 else "\\Noselect")
    if folder.special_use:
        flags.append(folder.special_use)
    return flags


async def list_folders(session: Session, command: Command) -> Reply:
    """Every name that matches one of the patterns, once."""
    wanted = _plain(arguments(command, List))
    if wanted.patterns == ("",):  # only the separator is asked for
        session.wire.write(responses.listed("", ["\\Noselect"], utf8=session.utf8))
        return Reply("LIST completed")
    matches = [matcher(wanted.reference, pattern) for pattern in wanted.patterns]
    found = [folder for folder in await session.mailbox.folders() if any(match(folder.name) for match in matches)]
    await _answer(session, "LIST", [(folder.name, attributes(session, folder)) for folder in found])
    return Reply("LIST completed")


async def list_subscribed(session: Session, command: Command) -> Reply:
    r"""Every subscribed name that matches; with ``%`` also the parents of those below, as ``\Noselect``."""
    wanted = _plain(arguments(command, List))
    subscribed = sorted(await session.mailbox.subscriptions())
    known = {folder.name: folder for folder in await session.mailbox.folders()}
    found: dict[str, list[str]] = {}
    for pattern in wanted.patterns:
        match = matcher(wanted.reference, pattern)
        for name in subscribed:
            if match(name):
                selectable = name in known and known[name].selectable
                found[name] = [] if selectable else ["\\Noselect"]
            elif "%" in pattern:
                # RFC 3501 6.3.9: "foo/bar" is subscribed, "foo" is not: "%" answers "foo" and that it is not subscribed itself.
                for parent in parents(name):
                    if match(parent):
                        found.setdefault(parent, ["\\Noselect"])
    await _answer(session, "LSUB", sorted(found.items()))
    return Reply("LSUB completed")


async def _answer(session: Session, command: str, lines: list[tuple[str, list[str]]]) -> None:
    for start in range(0, len(lines), _LINES):
        for name, flags in lines[start : start + _LINES]:
            session.wire.write(responses.listed(name, flags, utf8=session.utf8, command=command))
        await session.wire.drained()


def _plain(wanted: List) -> List:
    """:raises BadSyntax: options of LIST-EXTENDED (RFC 5258), which is not announced."""
    if wanted.selection or wanted.returns or wanted.status or len(wanted.patterns) != 1:
        raise BadSyntax("LIST takes a reference and one pattern")
    return wanted
