"""The way from a user name and a password to an open mailbox, and out of it again when the directory says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from fe_twisted.app.rooms import Rooms
from fe_twisted.base import log
from fe_twisted.base.addresses import parse_address
from fe_twisted.base.errors import MailError, Moved, WrongPassword
from fe_twisted.protocols.sasl.scram import Answer
from fe_twisted.services.login.authenticate import Login, Opened, ScramAttempt
from fe_twisted.storage.directory.api import Alias, AliasState
from fe_twisted.storage.directory.lookup import Lookups
from fe_twisted.storage.mailbox.api import Mailbox
from fe_twisted.storage.mailbox.local import LocalMailbox
from fe_twisted.storage.mailbox.registry import OpenMailboxes


class DirectoryDoor:
    """Opens the mailboxes of those whom the directory knows; see :class:`fe_twisted.servers.imap.door.Door`.

    The command line changes the directory while the server runs.  :meth:`look`, called every second, notices it: sessions of
    an alias that was removed, switched off or given a new mailbox are ended, and the file is let go.  A new password for the same
    mailbox ends nothing; it counts from the next login.

    :param expel: ends all sessions of a mailbox.
    """

    def __init__(self, login: Login, lookups: Lookups, mailboxes: Rooms, expel: Callable[[str], object]) -> None:
        self._login = login
        self._lookups = lookups
        self._mailboxes = mailboxes
        self._expel = expel
        #: The address that each open mailbox was opened for.
        self._addresses: dict[str, str] = {}
        #: What clients of an address are not told of, as of its last login.
        self._hidden: dict[str, frozenset[str]] = {}
        self._generation = -1

    async def login(self, user: bytes, password: bytes, peer: str) -> tuple[str, Mailbox]:
        """See the interface."""
        return await self._enter(await self._login.authenticate(user, password, peer=peer))

    async def scram(self, user: str, peer: str) -> DirectoryScram:
        """See the interface."""
        return DirectoryScram(self, await self._login.scram(user, peer=peer))

    async def _enter(self, opened: Opened) -> tuple[str, Mailbox]:
        """Open the file, unless the right to it has just gone.

        :raises WrongPassword:
        """
        mailbox_id = opened.alias.mailbox_id or ""
        mailbox = await self._open(opened)
        try:
            # Looked up again: what changed before this line is seen here, and what changes after it is seen by look().
            found = await self._lookups.login(parse_address(opened.alias.address))
            if found is None or not _may(found[0], mailbox_id):
                raise WrongPassword
        except BaseException:
            self._mailboxes.release(mailbox)
            raise
        self._addresses[mailbox_id] = opened.alias.address
        self._hidden[opened.alias.address] = frozenset(found[0].hidden)
        # Mail that waited moves in; SELECT waits for it, the answer to LOGIN does not.
        Deferred.fromCoroutine(mailbox.poll()).addErrback(_poll_failed, mailbox_id)
        return opened.alias.address, mailbox

    async def _open(self, opened: Opened) -> Mailbox:
        """Open it where it is, though it was moved since it was looked up.

        :raises WrongPassword:
        """
        alias, tries = opened.alias, 0
        while True:
            try:
                return await self._mailboxes.open(opened.alias.mailbox_id or "", alias.location, opened.mailbox_key)
            except Moved:
                tries += 1
                if tries > 2:
                    raise
            found = await self._lookups.login(parse_address(opened.alias.address))
            if found is None or not _may(found[0], opened.alias.mailbox_id or ""):
                raise WrongPassword
            alias = found[0]

    def hidden(self, address: str) -> frozenset[str]:
        """See the interface."""
        return self._hidden.get(address, frozenset())

    def leave(self, mailbox: Mailbox) -> None:
        """See the interface."""
        self._mailboxes.release(mailbox)

    async def look(self) -> None:
        """Compare the open mailboxes with the directory, if that changed since the last time."""
        generation = await self._lookups.generation()
        if generation == self._generation:
            return
        for mailbox_id, address in list(self._addresses.items()):
            if self._mailboxes.get(mailbox_id) is None:
                del self._addresses[mailbox_id]
                self._hidden.pop(address, None)
                continue
            found = await self._lookups.login(parse_address(address))
            if found is None or not _may(found[0], mailbox_id):
                log.event("login.revoked", address=address, mailbox=mailbox_id)
                self._addresses.pop(mailbox_id, None)
                self._expel(mailbox_id)
                await self._mailboxes.evict(mailbox_id)
        # Only now, so that a failure on the way is tried again.
        self._generation = generation


class DirectoryScram:
    """A login by SCRAM that has begun; see :class:`fe_twisted.servers.imap.door.Scram`."""

    def __init__(self, door: DirectoryDoor, attempt: ScramAttempt) -> None:
        self.salt = attempt.salt
        self.iterations = attempt.iterations
        self._door = door
        self._attempt = attempt

    async def finish(self, answer: Answer | None) -> tuple[str, Mailbox, bytes]:
        """See the interface."""
        opened, signature = await self._attempt.finish(answer)
        address, mailbox = await self._door._enter(opened)
        return address, mailbox, signature


class Ward:
    """Takes back mailboxes that were opened over links when nobody has them any more.

    Who opened them looks after the rest (see :class:`DirectoryDoor`), but may be slow, or somebody who should not be trusted with it.
    """

    def __init__(self, lookups: Lookups, mailboxes: OpenMailboxes[LocalMailbox]) -> None:
        self._lookups = lookups
        self._mailboxes = mailboxes
        self._generation = -1

    async def look(self) -> None:
        """Compare the open mailboxes with the directory, if that changed since the last time."""
        generation = await self._lookups.generation()
        if generation == self._generation:
            return
        for mailbox_id in self._mailboxes.ids():
            owner = await self._lookups.owner(mailbox_id)
            if owner is None or owner.state is not AliasState.ENABLED:
                log.event("mailbox.revoked", mailbox=mailbox_id)
                await self._mailboxes.evict(mailbox_id)
        self._generation = generation


def _may(alias: Alias, mailbox_id: str) -> bool:
    return alias.mailbox_id == mailbox_id and alias.state is AliasState.ENABLED


def _poll_failed(failure: Failure, mailbox_id: str) -> None:
    """The mail stays where it is, and the next poll tries again."""
    error = cast(BaseException, failure.value)
    if isinstance(error, MailError):
        log.warning("merge.failed", mailbox=mailbox_id, reason=error.reason or str(error))
    else:
        log.failure("merge.failed", error, mailbox=mailbox_id)
