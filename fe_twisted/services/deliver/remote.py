"""Delivery from a secondary: through the link to the primary that has the mailbox, or, when it cannot be reached, into a queue of this box.

What is queued is sealed to its recipient before it touches the disk, so this box is a backup MX whose queue nobody can read.  It is handed
over when the link is back.  A message goes by its delivery id all the way; one that reached the primary although its answer did not come
back is recognised there, whichever way it comes the second time.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from fe_twisted.base import errors, faults, log
from fe_twisted.base.clock import Clock
from fe_twisted.clients.link.link import Link
from fe_twisted.protocols.cluster.values import encode
from fe_twisted.services.cluster.host import DELIVERY, HANDOVER, Delivery, Handover, Sealed
from fe_twisted.storage.directory.api import Alias
from fe_twisted.storage.spool.item import Waiting
from fe_twisted.storage.spool.queue import Queue

#: Seconds that the primary may take to answer before the message is queued here.
TIMEOUT = 20.0

#: One handover: messages at most, and octets at most (a larger message goes alone).
BATCH_MESSAGES = 200
BATCH_BYTES = 8 * 1024 * 1024

#: Seconds between two looks whether something waits that could not be handed over.
AGAIN = 60.0


class RemoteDeliver:
    """In the place of :class:`fe_twisted.services.deliver.deliver.Deliver` on a box without mailboxes.

    :param link_of: the link to the primary that has an alias's mailbox, by its ``location``; None when there is none.
    :param location_of: the location of a mailbox, for what waits from before a restart; None when nobody has it any more.
    """

    def __init__(
        self,
        link_of: Callable[[str], Link | None],
        location_of: Callable[[str], Deferred[str | None]],
        queue: Queue,
        clock: Clock,
        *,
        timeout: float = TIMEOUT,
    ) -> None:
        self._link_of = link_of
        self._location_of = location_of
        self._queue = queue
        self._clock = clock
        self._timeout = timeout
        self._handing = False
        self._more = False
        self._timer: Any = None
        self._running = False

    async def deliver(self, alias: Alias, content: bytes, delivery_id: bytes, received_at: datetime.datetime) -> None:
        """See :meth:`fe_twisted.services.deliver.deliver.Deliver.deliver`.

        :raises NotReady: the alias has no mailbox yet.
        :raises fe_twisted.base.errors.MailError: what the primary answered, or that this box could not keep it either.
        """
        if alias.mailbox_id is None or alias.sealing_key is None:
            raise errors.NotReady
        link = self._link_of(alias.location)
        # Without a connection there is nothing to wait for: the queue is as good a promise.
        if link is not None and link.connected and await self._send(link, alias, content, delivery_id, received_at):
            return
        await self._queue.spool.add(alias.mailbox_id, alias.sealing_key, Waiting(delivery_id, received_at, content))
        faults.reach("remote.queued")
        log.event("deliver.queued", mailbox=alias.mailbox_id, delivery=delivery_id.hex(), octets=len(content))
        self.hand_over()

    def start(self) -> None:
        """Hand over what waits, now and whenever there is something."""
        self._running = True
        self.hand_over()

    async def stop(self) -> None:
        """Close the queue."""
        self._running = False
        self._stop_timer()
        await self._queue.spool.close()

    def hand_over(self) -> None:
        """Hand over what waits, unless that goes on already; to be called when a link is connected, see :meth:`Link.when_connected`."""
        self._more = True
        if self._running and not self._handing:
            self._handing = True
            self._stop_timer()
            Deferred.fromCoroutine(self._all()).addBoth(self._done)

    # -- inside -----------------------------------------------------------------------------------

    async def _send(self, link: Link, alias: Alias, content: bytes, delivery_id: bytes, received_at: datetime.datetime) -> bool:
        """Whether the primary has it.  Of a primary that did not answer nobody knows; then the queue repeats the delivery by its id.

        :raises fe_twisted.base.errors.MailError: what the primary answered.
        """
        body = encode(DELIVERY, Delivery(alias.address, content, delivery_id, received_at))
        try:
            await link.ask("deliver", alias.mailbox_id or "", body, timeout=self._timeout, patience=0.0)
        except errors.PrimaryAway as error:
            log.warning("deliver.away", link=link.name, delivery=delivery_id.hex(), reason=error.reason)
            return False
        log.debug("deliver.sent", link=link.name, mailbox=alias.mailbox_id, delivery=delivery_id.hex(), octets=len(content))
        return True

    async def _all(self) -> None:
        while self._more and self._running:
            self._more = False
            for mailbox_id in self._queue.ids():
                location = await self._location_of(mailbox_id)
                link = self._link_of(location) if location is not None else None
                if link is not None and link.connected:
                    await self._mailbox(link, mailbox_id)

    async def _mailbox(self, link: Link, mailbox_id: str) -> None:
        """Hand over what waits for one mailbox; what the primary does not take stays."""
        spool = self._queue.spool
        while rows := await spool.take(mailbox_id, BATCH_MESSAGES, BATCH_BYTES):
            body = encode(HANDOVER, Handover(tuple(Sealed(row.delivery_id, row.sealed) for row in rows)))
            try:
                await link.ask("handover", mailbox_id, body, patience=0.0)
            except errors.MailError as error:
                log.warning("handover.failed", link=link.name, mailbox=mailbox_id, reason=error.reason or error.public)
                return
            faults.reach("remote.handed")
            await spool.remove(mailbox_id, [row.delivery_id for row in rows])
            log.event("handover.done", link=link.name, mailbox=mailbox_id, messages=len(rows))
        await spool.remove_if_empty(mailbox_id)

    def _done(self, result: Any) -> None:
        self._handing = False
        if isinstance(result, Failure):
            log.failure("handover.failed", result.value or RuntimeError("unknown"))
        if self._running and self._queue.ids():
            self._stop_timer()
            self._timer = self._clock.callLater(AGAIN, self._again)

    def _again(self) -> None:
        self._timer = None
        self.hand_over()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            timer, self._timer = self._timer, None
            timer.cancel()
