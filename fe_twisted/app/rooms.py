"""The mailboxes that are open in this process, wherever their files are."""

from __future__ import annotations

from typing import cast

from fe_twisted.base.errors import PrimaryAway
from fe_twisted.storage.mailbox.api import Mailbox
from fe_twisted.storage.mailbox.local import LocalMailbox
from fe_twisted.storage.mailbox.registry import OpenMailboxes
from fe_twisted.storage.mailbox.remote import RemoteMailbox


class Rooms:
    """Two registries as one.

    :param location: what the directory calls the mailboxes whose files this process has.
    :param here: those; None in a worker and at a secondary.
    :param away: those that are open over a link; None where there is no link.
    """

    def __init__(self, location: str, here: OpenMailboxes[LocalMailbox] | None, away: OpenMailboxes[RemoteMailbox] | None) -> None:
        self._location = location
        self._here = here
        self._away = away

    async def open(self, mailbox_id: str, location: str, key: bytes) -> Mailbox:
        """Open a mailbox, for one session more; to be given back once with :meth:`release`.

        :raises PrimaryAway: no way leads to its location.
        :raises fe_twisted.base.errors.MailError: as :meth:`~fe_twisted.storage.mailbox.registry.OpenMailboxes.open`.
        """
        if self._here is not None and (location == self._location or self._away is None):
            # Without any link the only mailboxes are here, and one that is not is said to be missing.
            return await self._here.open(mailbox_id, key)
        if self._away is None:
            raise PrimaryAway(reason=f"no link to {location}")
        return await self._away.open(mailbox_id, key)

    def release(self, mailbox: Mailbox) -> None:
        """A session is done with it."""
        if self._here is not None:
            self._here.release(cast(LocalMailbox, mailbox))
        if self._away is not None:
            self._away.release(cast(RemoteMailbox, mailbox))

    def get(self, mailbox_id: str) -> Mailbox | None:
        """The mailbox if it is open."""
        found = self._here.get(mailbox_id) if self._here is not None else None
        return found or (self._away.get(mailbox_id) if self._away is not None else None)

    async def evict(self, mailbox_id: str) -> None:
        """Take a mailbox from all its sessions."""
        if self._here is not None:
            await self._here.evict(mailbox_id)
        if self._away is not None:
            await self._away.evict(mailbox_id)
