"""NOTIFY (RFC 5465): the client says what it wants to be told of, and is told without asking.

What happens is noticed by watching the mailbox and told between two commands, or while IDLE waits.  What to tell is found by comparing
with what was known before, so nothing is missed and nothing is told twice.  Events that the client caused itself are told like all others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from fe_twisted.base import log
from fe_twisted.base.errors import Later, MailError, NoSuchFolder
from fe_twisted.protocols.imap import responses
from fe_twisted.protocols.imap.commands import Command, EventGroup, Notify
from fe_twisted.protocols.imap.metadata import changed
from fe_twisted.protocols.imap.ranges import union
from fe_twisted.protocols.imap.render import compile_items
from fe_twisted.protocols.imap.search import Ranges
from fe_twisted.servers.imap.fetch import answer
from fe_twisted.servers.imap.idle import AGAIN
from fe_twisted.servers.imap.list import attributes
from fe_twisted.servers.imap.names import INBOX, SEPARATOR, canonical
from fe_twisted.servers.imap.reply import Disconnected, Ended, Reply, no
from fe_twisted.servers.imap.session import Session, arguments
from fe_twisted.servers.imap.status import values
from fe_twisted.servers.imap.update import is_behind, names_uid, synchronise
from fe_twisted.servers.imap.view import View
from fe_twisted.storage.mailbox.api import Folder, FolderStatus

#: As the standard spells them; AnnotationChange belongs to RFC 5257, which is not here.
SUPPORTED = (
    "MessageNew",
    "MessageExpunge",
    "FlagChange",
    "MailboxName",
    "SubscriptionChange",
    "MailboxMetadataChange",
    "ServerMetadataChange",
)
_KNOWN = frozenset(name.upper() for name in SUPPORTED)
_ROOTS = ("/private", "/shared")

#: Hashes of values by entry; the values themselves may be long.
Annotations = dict[str, int]


async def notify(session: Session, command: Command) -> Reply:
    """NOTIFY SET and NOTIFY NONE; what was asked for before ends."""
    wanted = arguments(command, Notify)
    if any(group.events - _KNOWN for group in wanted.groups):
        return no("an event that is not supported", f"BADEVENT ({' '.join(SUPPORTED)})")
    await session.poll()
    events = Events(session, wanted.groups)
    await events.learn()
    if session.notifier is not None:
        session.notifier.stop()
    session.notifier = events
    if wanted.status:
        await events.tell_all()
    return Reply("NOTIFY completed")


class Events:
    """What one client wants to be told of, and what it was told last."""

    def __init__(self, session: Session, groups: tuple[EventGroup, ...]) -> None:
        self._session = session
        self._groups = [group for group in groups if not group.which.startswith("SELECTED")]
        own = [group for group in groups if group.which.startswith("SELECTED")]
        self.selected: frozenset[str] = own[0].events if own else frozenset()
        self.immediate = bool(own) and own[0].which == "SELECTED"
        self._items = own[0].items if own else ()
        #: New messages of this view whose data items were not sent yet.
        self._owed: Ranges = ()
        self._owed_in: View | None = None
        self._dirty: set[int] = set()
        self._renamed = False
        self._call: Any = None
        self._stopped = False
        self._folders: dict[int, Folder] = {}
        self._subscribed: frozenset[str] = frozenset()
        self._counters: dict[int, FolderStatus] = {}
        self._annotations: dict[str, Annotations] = {}
        self._unwatch: Callable[[], None] = session.mailbox.watch(self._heard)

    def stop(self) -> None:
        """See :class:`~fe_twisted.servers.imap.session.Notifier`."""
        self._unwatch()
        self._stopped = True
        self._dirty.clear()
        self._renamed = False
        self._owed, self._owed_in = (), None
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    # -- what is known ----------------------------------------------------------------------------

    async def learn(self) -> None:
        """How things are now, so that only what happens from here on is told."""
        mailbox = self._session.mailbox
        self._folders = {folder.id: folder for folder in await mailbox.folders()}
        self._subscribed = frozenset(await mailbox.subscriptions())
        for folder in self._folders.values():
            if folder.selectable and self._of(folder.name, "MESSAGENEW"):
                self._counters[folder.id] = await mailbox.status(folder.name)
            if folder.selectable and self._of(folder.name, "MAILBOXMETADATACHANGE"):
                self._annotations[folder.name] = await self._annotated(folder.name)
        if self._wants_server():
            self._annotations[""] = await self._annotated("")

    async def tell_all(self) -> None:
        """STATUS of every mailbox but the selected one whose messages are watched (section 3.1)."""
        for folder_id, counters in sorted(self._counters.items()):
            if folder_id != self._selected_id():
                items = ["MESSAGES", "UIDNEXT", "UIDVALIDITY"]
                shows = self._of(counters.name, "FLAGCHANGE") and "CONDSTORE" not in self._session.hidden
                if shows or self._session.condstore:
                    items.append("HIGHESTMODSEQ")
                self._write_status(counters, items)

    def _of(self, name: str, event: str) -> bool:
        """Whether the client wants to know of this event of this mailbox; NONE for it hides it from the groups that follow."""
        for group in self._groups:
            if (not group.events or event in group.events) and self._covers(group, name):
                return bool(group.events)
        return False

    def _covers(self, group: EventGroup, name: str) -> bool:
        match group.which:
            case "PERSONAL":
                return True
            case "INBOXES":  # mail is delivered nowhere else
                return name == INBOX
            case "SUBSCRIBED":
                return name in self._subscribed
            case "MAILBOXES":
                return name in map(canonical, group.names)
            case "SUBTREE-ONE":  # RFC 7377 section 2.2
                return not {name, name.rpartition(SEPARATOR)[0]}.isdisjoint(map(canonical, group.names))
            case _:
                return any(name == top or name.startswith(top + SEPARATOR) for top in map(canonical, group.names))

    def _wants_server(self) -> bool:
        return any("SERVERMETADATACHANGE" in group.events for group in self._groups)

    def _selected_id(self) -> int:
        view = self._session.view
        return view.folder_id if view is not None else 0

    async def _annotated(self, name: str) -> Annotations:
        try:
            return {entry: hash(value) for entry, value in await self._session.mailbox.get_metadata(name, _ROOTS, -1)}
        except NoSuchFolder:
            return {}

    # -- noticing ---------------------------------------------------------------------------------

    def _heard(self, folder_id: int, modseq: int) -> None:
        if not folder_id or folder_id not in self._folders or not modseq:
            self._renamed = True
        if folder_id:
            self._dirty.add(folder_id)
        if self._call is None:
            self._call = self._session.clock.callLater(self._session.limits.push_delay, self._due)

    def _due(self) -> None:
        self._call = None
        self.at_rest()

    def at_rest(self) -> None:
        """See :class:`~fe_twisted.servers.imap.session.Notifier`."""
        if (self._dirty or self._renamed or self._owed) and self._call is None:
            self._session.wire.between(self._tell())

    async def arrived(self, uids: Ranges) -> None:
        """See :class:`~fe_twisted.servers.imap.session.Notifier`: the data items that the client wants of new messages."""
        if self._items and not self._stopped:
            self._owed = union(self._owed, uids) if self._owed_in is self._session.view else uids
            self._owed_in = self._session.view
            await self._settle()

    async def _settle(self) -> None:
        """Send what is owed of new messages; it stays owed until all of it was sent, since the view counts them as told."""
        session, view = self._session, self._session.view
        if view is not None and self._owed_in is view:
            uid = names_uid(session, uid=False)
            plan = compile_items(self._items, uid=uid, modseq=session.condstore, uid_only=session.uid_only)
            await answer(session, view, plan, self._owed, 0)
        self._owed, self._owed_in = (), None

    # -- telling ----------------------------------------------------------------------------------

    async def _tell(self) -> None:
        dirty, self._dirty = self._dirty, set()
        renamed, self._renamed = self._renamed, False
        session = self._session
        try:
            if self._owed:
                await self._settle()
            if self._selected_id() in dirty:
                expunges = self.immediate or session.wire.idling
                if is_behind(session, expunges=expunges):
                    await synchronise(session, expunges=expunges, uid=False)
            if renamed:
                await self._tell_names()
            for folder_id in sorted(dirty):
                await self._tell_folder(folder_id)
            if renamed and self._wants_server():
                await self._tell_annotations("")
            await session.wire.drained()
        except Disconnected:
            pass
        except Ended as ended:
            session.wire.bye(str(ended))
        except Later as error:  # of a primary that is away, perhaps, which tells of this change only once
            log.warning("imap.notify_failed", conn=session.wire.id, reason=error.reason or error.public)
            self._dirty |= dirty
            self._renamed |= renamed
            if self._call is None and not self._stopped:
                self._call = session.clock.callLater(AGAIN, self._due)
        except MailError as error:  # what was not told now is still a difference at the next change, but for what cannot be read
            self._owed, self._owed_in = (), None
            log.failure("imap.notify_failed", error, conn=session.wire.id, reason=error.reason)

    async def _tell_folder(self, folder_id: int) -> None:
        """What happened in one folder: STATUS unless it is selected, and annotations (sections 5.1 to 5.3, 5.6)."""
        folder = self._folders.get(folder_id)
        if folder is None or not folder.selectable:
            return
        if self._of(folder.name, "MAILBOXMETADATACHANGE"):
            await self._tell_annotations(folder.name)
        if not self._of(folder.name, "MESSAGENEW"):
            return
        try:
            now = await self._session.mailbox.status(folder.name)
        except NoSuchFolder:
            return
        before = self._counters.get(folder_id)
        self._counters[folder_id] = now
        if folder_id == self._selected_id():
            return
        condstore = self._session.condstore
        known = (before.messages, before.uidnext) if before is not None else (0, 1)  # a new mailbox is empty
        if known != (now.messages, now.uidnext):
            self._write_status(now, ["MESSAGES", "UIDNEXT", "UIDVALIDITY", *(["HIGHESTMODSEQ"] if condstore else [])])
        elif before is not None and self._of(folder.name, "FLAGCHANGE") and (condstore or before.unseen != now.unseen):
            self._write_status(now, ["UIDVALIDITY", "UNSEEN", *(["HIGHESTMODSEQ"] if condstore else [])])

    def _write_status(self, counters: FolderStatus, items: list[str]) -> None:
        session = self._session
        told = values(counters, tuple(items), session.limits.message_size)
        session.wire.write(responses.status(counters.name, told, utf8=session.utf8))

    async def _tell_annotations(self, name: str) -> None:
        now = await self._annotated(name)
        before = self._annotations.get(name, {})
        self._annotations[name] = now
        entries = sorted(entry for entry in now.keys() | before.keys() if now.get(entry) != before.get(entry))
        if entries:
            self._session.wire.write(changed(name, entries, utf8=self._session.utf8))

    async def _tell_names(self) -> None:
        """LIST for every name that came, went or got another name, and for subscriptions (sections 5.4, 5.5)."""
        mailbox = self._session.mailbox
        folders = {folder.id: folder for folder in await mailbox.folders()}
        subscribed = frozenset(await mailbox.subscriptions())
        before, self._folders = self._folders, folders
        subscribed_before, self._subscribed = self._subscribed, subscribed
        told: dict[str, str] = {}
        for name, oldname in _renamed(before, folders):
            if self._of(name, "MAILBOXNAME") or self._of(oldname, "MAILBOXNAME"):
                told[name] = oldname
        for name in _came_and_went(before, folders):
            if self._of(name, "MAILBOXNAME"):
                told.setdefault(name, "")
        for name in sorted(subscribed ^ subscribed_before):
            if self._of(name, "SUBSCRIPTIONCHANGE"):
                told.setdefault(name, "")
        by_name = {folder.name: folder for folder in folders.values()}
        for name, oldname in told.items():
            self._write_list(by_name.get(name), name, oldname)

    def _write_list(self, folder: Folder | None, name: str, oldname: str) -> None:
        session = self._session
        flags = attributes(session, folder, extended=True) if folder is not None else ["\\NonExistent"]
        if name in self._subscribed:
            flags.append("\\Subscribed")
        session.wire.write(responses.listed(name, flags, utf8=session.utf8, oldname=oldname))


def _renamed(before: dict[int, Folder], now: dict[int, Folder]) -> Iterable[tuple[str, str]]:
    """New and old name of every renamed folder, but not of those that only went along with the folder above."""
    both = [(folder.name, before[folder.id].name) for folder in now.values() if folder.id in before]
    moved = {name: oldname for name, oldname in both if name != oldname}
    for name, oldname in moved.items():
        parent, oldparent = name.rpartition(SEPARATOR)[0], oldname.rpartition(SEPARATOR)[0]
        if not parent or moved.get(parent) != oldparent:
            yield name, oldname


def _came_and_went(before: dict[int, Folder], now: dict[int, Folder]) -> Iterable[str]:
    """Names of folders that were made or deleted, each with its direct parent."""
    for one, other in ((now, before), (before, now)):
        for folder in one.values():
            if folder.selectable and folder.id not in other:
                yield folder.name
                parent = folder.name.rpartition(SEPARATOR)[0]
                if parent:
                    yield parent
