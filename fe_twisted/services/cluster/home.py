"""Whether a mailbox belongs to this primary: the directory alone decides, whatever files lie about."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from fe_twisted.base.errors import Moved

M = TypeVar("M")


class Places(Protocol):
    """What is asked of :class:`fe_twisted.storage.directory.lookup.Lookups`."""

    async def location_of(self, mailbox_id: str) -> str | None:
        """Which primary has a mailbox; None when nobody has it (any more)."""

    async def elsewhere(self, location: str) -> dict[str, str]:
        """The locations of all mailboxes that are not at ``location``."""

    async def set_location(self, mailbox_id: str, location: str, replaces: str) -> None:
        """See :meth:`fe_twisted.storage.directory.api.Directory.set_location`."""


class Home:
    """This primary among others.

    :param location: what the directory calls it.
    """

    def __init__(self, location: str, places: Places) -> None:
        self.location = location
        self.places = places
        #: Mailboxes on their way here or away: each goes one way at a time.
        self.busy: set[str] = set()

    async def check(self, mailbox_id: str) -> None:
        """Return if the mailbox belongs here, or to nobody.

        :raises Moved: it belongs to another primary.
        :raises fe_twisted.base.errors.MailError: the directory cannot be asked.
        """
        location = await self.places.location_of(mailbox_id)
        if location not in (self.location, None):
            raise Moved(reason=f"{mailbox_id} is at {location}")

    def guard(self, opener: Callable[[str, bytes], Awaitable[M]]) -> Callable[[str, bytes], Awaitable[M]]:
        """The same opener for :class:`~fe_twisted.storage.mailbox.registry.OpenMailboxes`, which first asks the directory.

        It is called under the registry's lock, which a move holds until the directory has changed: so nobody opens the old copy.
        """

        async def guarded(mailbox_id: str, key: bytes) -> M:
            await self.check(mailbox_id)
            return await opener(mailbox_id, key)

        return guarded
