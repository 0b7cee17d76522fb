"""Delivery to wherever the directory says that a mailbox is."""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Callable
from typing import Protocol

from twisted.internet.defer import Deferred

from fe_twisted.base import errors, log
from fe_twisted.base.addresses import Address, parse_address
from fe_twisted.base.clock import Clock
from fe_twisted.storage.directory.api import Alias

#: Seconds before each new look at the directory, while a mailbox is being moved; then the sender is asked to come again.
PAUSES = (0.0, 0.5, 2.0)


class Deliverer(Protocol):
    """:class:`~fe_twisted.services.deliver.deliver.Deliver` or :class:`~fe_twisted.services.deliver.remote.RemoteDeliver`."""

    async def deliver(self, alias: Alias, content: bytes, delivery_id: bytes, received_at: datetime.datetime) -> None:
        """Return when it is durable."""


class Route:
    """Delivery on a box that has some of the mailboxes, or none.

    :param location: what the directory calls this primary.
    :param here: delivers to it; None where no mailbox is.
    :param elsewhere: delivers to other primaries; None where there are none.
    :param recipient: looks an alias up, such as :meth:`fe_twisted.storage.directory.lookup.Lookups.recipient`.
    """

    def __init__(
        self,
        location: str,
        here: Deliverer | None,
        elsewhere: Deliverer | None,
        recipient: Callable[[Address], Awaitable[Alias]],
        clock: Clock,
    ) -> None:
        self._location = location
        self._here = here
        self._elsewhere = elsewhere
        self._recipient = recipient
        self._clock = clock

    async def deliver(self, alias: Alias, content: bytes, delivery_id: bytes, received_at: datetime.datetime) -> None:
        """See :meth:`fe_twisted.services.deliver.deliver.Deliver.deliver`.

        A mailbox that turns out to have been moved is looked up again; the delivery id keeps the message from being stored twice.

        :raises Moved: it goes on being moved.
        :raises PrimaryAway: nobody here knows the way to its location.
        :raises UnknownRecipient: the alias was removed meanwhile.
        :raises fe_twisted.base.errors.MailError: what the place said.
        """
        for pause in PAUSES:
            try:
                await self._place(alias).deliver(alias, content, delivery_id, received_at)
                return
            except errors.Moved as error:
                log.event("deliver.moved", mailbox=alias.mailbox_id, delivery=delivery_id.hex(), reason=error.reason)
            if pause:
                await self._pause(pause)
            alias = await self._recipient(parse_address(alias.address))
        await self._place(alias).deliver(alias, content, delivery_id, received_at)

    def _place(self, alias: Alias) -> Deliverer:
        """:raises PrimaryAway:"""
        place = self._here if alias.location == self._location and self._here is not None else self._elsewhere
        # Without any link every mailbox is here, and one that is not is said to be missing.
        place = place or self._here
        if place is None:
            raise errors.PrimaryAway(reason=f"no way to {alias.location}")
        return place

    def _pause(self, seconds: float) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        self._clock.callLater(seconds, waiting.callback, None)
        return waiting
