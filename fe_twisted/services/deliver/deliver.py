"""Durable delivery to one alias."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from fe_twisted.base import errors, faults, log
from fe_twisted.services.deliver.gate import Gate
from fe_twisted.storage.directory.api import Alias
from fe_twisted.storage.mailbox.api import Mailbox, NewMessage
from fe_twisted.storage.spool.item import Waiting
from fe_twisted.storage.spool.spool import Spool

INBOX = "INBOX"


class Registry(Protocol):
    """What delivery needs to know of :class:`fe_twisted.storage.mailbox.registry.OpenMailboxes`."""

    def get(self, mailbox_id: str) -> Mailbox | None:
        """The mailbox if it is open."""


class Deliver:
    """Delivery into open mailboxes and temporary ones.

    :param exists: whether a mailbox has its file here, such as ``MailboxFiles.exists``.
    :param gate: keeps deliveries out of mailboxes that are being moved away.
    """

    def __init__(self, registry: Registry, spool: Spool, exists: Callable[[str], bool], gate: Gate | None = None) -> None:
        self._registry = registry
        self._spool = spool
        self._exists = exists
        self._gate = gate or Gate()

    async def deliver(self, alias: Alias, content: bytes, delivery_id: bytes, received_at: datetime.datetime) -> None:
        """Store a message for an alias.  When this returns it is durable.

        :param content: the message with its trace header, CRLF lines.
        :param delivery_id: 16 octets, the same when the same delivery is tried again.
        :param received_at: aware.
        :raises NotReady: the alias has no mailbox yet.
        :raises Moved: the mailbox was moved away or removed since the alias was looked up; the alias may have another one by now.
        :raises fe_twisted.base.errors.MailError: it was not stored, or only perhaps; to try again is safe with the same ``delivery_id``.
        """
        if alias.mailbox_id is None or alias.sealing_key is None:
            raise errors.NotReady
        faults.reach("deliver.start")
        async with self._gate.inside(alias.mailbox_id):
            if not await self._append(alias.mailbox_id, content, delivery_id, received_at):
                self._check(alias.mailbox_id)
                await self._seal(alias.mailbox_id, alias.sealing_key, Waiting(delivery_id, received_at, content, INBOX))
            # Again: the file may have gone meanwhile, and what was stored with it.
            self._check(alias.mailbox_id)

    def _check(self, mailbox_id: str) -> None:
        """Nobody would ever read what is stored for a mailbox that is gone, so it must not be acknowledged.

        :raises Moved: it has no file any more.
        """
        if not self._exists(mailbox_id):
            raise errors.Moved(reason=f"the mailbox {mailbox_id} is not there")

    async def _append(self, mailbox_id: str, content: bytes, delivery_id: bytes, received_at: datetime.datetime) -> bool:
        """Into the open mailbox; False if it is not open or could not take it, for a reason that need not keep the message from waiting.

        :raises Theirs, OverQuota: the mailbox will not take this message later either.
        """
        mailbox = self._registry.get(mailbox_id)
        if mailbox is None:
            return False
        try:
            await mailbox.append(INBOX, [NewMessage(content, internaldate=received_at, delivery_id=delivery_id)])
        except (errors.Theirs, errors.OverQuota):
            raise
        except errors.MailError as error:  # closing, busy, damaged, disk
            log.warning("deliver.append", mailbox=mailbox_id, delivery=delivery_id.hex(), reason=error.reason or error.public)
            return False
        except Exception as error:  # a bug in storing must not keep the message out: sealing is a simpler thing
            log.failure("deliver.append", error, mailbox=mailbox_id, delivery=delivery_id.hex())
            return False
        faults.reach("deliver.stored")
        log.debug("deliver.stored", mailbox=mailbox_id, delivery=delivery_id.hex(), octets=len(content))
        return True

    async def _seal(self, mailbox_id: str, public_key: bytes, item: Waiting) -> None:
        """Into the temporary mailbox."""
        await self._spool.add(mailbox_id, public_key, item)
        faults.reach("deliver.sealed")
        log.debug("deliver.sealed", mailbox=mailbox_id, delivery=item.delivery_id.hex(), octets=len(item.content))
        # The owner may have come while it was being sealed, after the poll of the login had looked: then nobody else would look soon.
        mailbox = self._registry.get(mailbox_id)
        if mailbox is not None:
            Deferred.fromCoroutine(_poll(mailbox)).addErrback(_poll_failed, mailbox_id)


async def _poll(mailbox: Mailbox) -> None:
    await mailbox.poll()


def _poll_failed(failure: Any, mailbox_id: str) -> None:
    """The message is durable all the same, and the next poll will take it."""
    log.failure("deliver.poll", failure.value, mailbox=mailbox_id)
