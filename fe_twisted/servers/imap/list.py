"""LIST and LSUB (RFC 3501 sections 6.3.8 and 6.3.9), extended (RFC 5258, RFC 5819, RFC 6154), CHILDREN (RFC 3348)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fe_twisted.base.errors import NoSuchFolder
from fe_twisted.protocols.imap import responses
from fe_twisted.protocols.imap.commands import Command, List
from fe_twisted.servers.imap.names import matcher, parents
from fe_twisted.servers.imap.reply import Reply
from fe_twisted.servers.imap.session import Session, arguments
from fe_twisted.servers.imap.status import check_items, write_status
from fe_twisted.storage.mailbox.api import Folder

#: Lines between two looks at whether the client still takes them.
_LINES = 200


def attributes(session: Session, folder: Folder, *, extended: bool = False) -> list[str]:
    r"""What LIST says of a name.

    :param extended: the command is one of RFC 5258, whose client knows ``\NonExistent``.
    """
    flags = []
    if extended or "CHILDREN" not in session.hidden:
        flags.append("\\HasChildren" if folder.has_children else "\\HasNoChildren")
    if not folder.selectable:
        flags.append("\\NonExistent" if session.rev2 or extended else "\\Noselect")
    if folder.special_use and "SPECIAL-USE" not in session.hidden:
        flags.append(folder.special_use)
    return flags


async def list_folders(session: Session, command: Command) -> Reply:
    """Every name that matches one of the patterns and the selection options, once."""
    wanted = arguments(command, List)
    if wanted.status:
        check_items(session, wanted.status)
        await session.poll()
    if wanted.patterns == ("",) and not wanted.selection and not wanted.returns:  # only the separator is asked for
        session.wire.write(responses.listed("", ["\\Noselect"], utf8=session.utf8))
        return Reply("LIST completed")
    found = _Names(session, wanted, await session.mailbox.folders(), frozenset(await session.mailbox.subscriptions()))
    for count, name in enumerate(found.names()):
        session.wire.write(found.line(name))
        if wanted.status and found.has_status(name):
            await _status(session, name, wanted.status)
        if count % _LINES == _LINES - 1:
            await session.wire.drained()
    await session.wire.drained()
    return Reply("LIST completed")


async def _status(session: Session, name: str, items: tuple[str, ...]) -> None:
    """The STATUS response of one mailbox among several; none for one that was deleted since (RFC 5819 section 2)."""
    try:
        await write_status(session, name, items)
    except NoSuchFolder:
        return


class _Names:
    """The names that one LIST answers (RFC 5258 section 3.3)."""

    def __init__(self, session: Session, wanted: List, folders: list[Folder], subscribed: frozenset[str]) -> None:
        self._session = session
        self._options = frozenset(wanted.selection)
        self._extended = bool(wanted.selection or wanted.returns or len(wanted.patterns) > 1)
        self._shows_subscribed = "SUBSCRIBED" in self._options or "SUBSCRIBED" in wanted.returns
        self._folders = {folder.name: folder for folder in folders}
        self._subscribed = subscribed
        self._matchers: list[Callable[[str], bool]] = [matcher(wanted.reference, pattern) for pattern in wanted.patterns]
        self._criteria = [option for option in ("SUBSCRIBED", "SPECIAL-USE") if option in self._options]
        #: Names that have something selected below them, and those of them whose LIST would else not show it.
        self._above: set[str] = set()
        self._needed: set[str] = set()
        if "RECURSIVEMATCH" in self._options:
            self._look_below()

    def _matches(self, name: str) -> bool:
        return any(match(name) for match in self._matchers)

    def _is_selected(self, name: str) -> bool:
        if "SUBSCRIBED" in self._options and name not in self._subscribed:
            return False
        folder = self._folders.get(name)
        if "SPECIAL-USE" in self._options and (folder is None or not folder.special_use):
            return False
        return folder is not None or "SUBSCRIBED" in self._options

    def _known(self) -> Iterable[str]:
        """All names there are, INBOX first."""
        names = [*self._folders]
        if "SUBSCRIBED" in self._options:
            names = sorted({*names, *self._subscribed}, key=lambda name: (name != "INBOX", name))
        return names

    def _look_below(self) -> None:
        for name in self._known():
            if self._is_selected(name):
                self._above.update(parents(name))
                if not self._matches(name):  # RFC 5258 section 3.5: what is listed itself needs no parent to tell of it
                    self._needed.update(parents(name))

    def names(self) -> list[str]:
        """Those to be listed, in order."""
        names = [name for name in self._known() if self._is_selected(name) or name in self._needed]
        names += sorted(self._needed.difference(self._known()))
        return [name for name in names if self._matches(name)]

    def line(self, name: str) -> bytes:
        """The LIST response."""
        folder = self._folders.get(name)
        flags = attributes(self._session, folder, extended=self._extended) if folder is not None else ["\\NonExistent"]
        if self._shows_subscribed and name in self._subscribed:
            flags.append("\\Subscribed")
        childinfo = self._criteria if name in self._above else []
        return responses.listed(name, flags, utf8=self._session.utf8, childinfo=childinfo)

    def has_status(self, name: str) -> bool:
        """Whether STATUS is sent for the name (RFC 5819 section 2): it can be selected, and was not only listed for what is below."""
        folder = self._folders.get(name)
        return folder is not None and folder.selectable and self._is_selected(name)


async def list_subscribed(session: Session, command: Command) -> Reply:
    r"""Every subscribed name that matches; with ``%`` also the parents of those below, as ``\Noselect``."""
    wanted = arguments(command, List)
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
