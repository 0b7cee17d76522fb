"""Who takes a message from another server, and its way into the mailboxes.

**One answer for many recipients.**  SMTP has one reply for all recipients after the data (RFC 5321 section 4.2.5), but each recipient's
delivery succeeds or fails by itself.  :attr:`Result.failure` is that reply:

* all stored: none, that is 250;
* none stored: an error that asks for a retry if there is one, else the first;
* some stored, at least one of the others may work later: 451, so that the sender keeps the message and sends it again;
* some stored, the others never: 554 with a line for each that failed, so that its author hears of it.  (By then RCPT has accepted them, so
  this is rare.)

**No duplicates from that 451.**  A delivery carries an id, and a mailbox stores one id once.  For a transaction with several recipients
whose message has a Message-ID, the id is a digest of sender, recipient and the bytes as received: the sender's retry is not stored again
where it already lies.  A retry for only one of the recipients is recognised too, while the failed attempt is remembered (in memory,
bounded).  All other deliveries have random ids: messages that are equal to the last byte, but have one recipient or no Message-ID, may be
two messages to their author, and both are stored.  Losing mail is worse than a duplicate.

**Disabled aliases** (see :class:`~fe_twisted.storage.directory.api.AliasState`): discarding ones count as stored.  A deferring one answers
421 4.2.1 to RCPT, as the setting promises; 421 would permit the server to hang up (RFC 5321 section 3.8), ours does not, because other
recipients of the same transaction are not to suffer from it.
"""

from __future__ import annotations

import datetime
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.defer import Deferred, gatherResults

from fe_twisted.base import ids, log
from fe_twisted.base.addresses import Address
from fe_twisted.base.errors import Later, MailError, MailLoop, NotReady, Ours, RecipientDeferred, RecipientDisabled, SmtpStatus, Theirs
from fe_twisted.protocols.smtp import trace
from fe_twisted.protocols.smtp.address import Sender
from fe_twisted.services.receive.reasons import Reason, reason_of
from fe_twisted.storage.directory.api import Alias, AliasState

#: Octets of message copies (each recipient's has its own trace fields) that one transaction may have in memory at once.
COPIES = 64 << 20
#: Most deliveries of one transaction at once.
PARALLEL = 16
#: How many partly failed messages are remembered; 32 octets each.
REMEMBERED = 10_000


class PartlyStored(Later):
    """Some recipients have the message, and for some it may work later."""

    default = "not stored for all recipients, send it again"
    smtp = SmtpStatus(451, "4.3.0")
    named = Reason.PARTLY_STORED


class PartlyRefused(Theirs):
    """Some recipients have the message, the others will never."""

    default = "not stored for all recipients"
    smtp = SmtpStatus(554, "5.3.0")
    named = Reason.PARTLY_STORED


class FindRecipient(Protocol):
    """What this service needs of :class:`fe_twisted.storage.directory.lookup.Lookups`."""

    async def recipient(self, address: Address) -> Alias:
        """:raises UnknownDomain, UnknownRecipient:"""


class Deliverer(Protocol):
    """What this service needs of :class:`fe_twisted.services.deliver.deliver.Deliver`."""

    async def deliver(self, alias: Alias, content: bytes, delivery_id: bytes, received_at: datetime.datetime) -> None:
        """Return when the bytes are durable; an id that is stored already is success.

        :raises MailError: nothing was stored.
        """


@dataclass(frozen=True, slots=True)
class Client:
    """Who brings the message.

    :param connection: the connection id.
    :param address: its IP address.
    :param helo: the name it gave.
    :param extended: greeted with EHLO.
    :param tls: ``(version, cipher, key-exchange group)`` or None.
    """

    connection: str
    address: str
    helo: str
    extended: bool
    tls: tuple[str, str, str] | None


@dataclass(frozen=True, slots=True)
class Recipient:
    """A recipient that was accepted: the address as RCPT gave it, in normal form, and the alias that takes its mail."""

    address: Address
    alias: Alias


@dataclass(frozen=True, slots=True)
class Transaction:
    """A complete message with its envelope.

    :param id: goes into ``Received``, the reply and the log.
    :param recipients: each once.
    :param content: as received, dots unstuffed, every line end CR LF.
    """

    id: str
    client: Client
    sender: Sender
    recipients: tuple[Recipient, ...]
    content: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one recipient; ``error`` is None when it has the message."""

    recipient: Recipient
    reason: Reason
    error: MailError | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a transaction, in the order of its recipients."""

    outcomes: tuple[Outcome, ...]

    @property
    def failure(self) -> MailError | None:
        """The error that the one reply of SMTP has to show, or None for 250; see the module's text."""
        errors = [outcome.error for outcome in self.outcomes if outcome.error is not None]
        if not errors:
            return None
        later = next((error for error in errors if error.smtp.code < 500), None)
        if len(errors) == len(self.outcomes):
            return later or errors[0]
        kind = PartlyRefused if later is None else PartlyStored
        lines = [kind.default]
        lines += [f"<{outcome.recipient.address}>: {outcome.error}" for outcome in self.outcomes if outcome.error]
        return kind("\n".join(lines))


class Receive:
    """The decisions about incoming mail.

    :param hostname: our name, for ``Received``.
    :param now: gives the time, aware.
    :param max_hops: a message with more ``Received`` fields is looping (RFC 5321 section 6.3).
    """

    def __init__(
        self,
        lookups: FindRecipient,
        deliver: Deliverer,
        *,
        hostname: str,
        now: Callable[[], datetime.datetime],
        max_hops: int = 50,
    ) -> None:
        self._lookups = lookups
        self._deliver = deliver
        self._hostname = hostname
        self._now = now
        self._max_hops = max_hops
        #: Digests of messages that were stored for some recipients only.
        self._partial: OrderedDict[bytes, None] = OrderedDict()

    async def recipient(self, address: Address) -> Recipient:
        """Whether mail for this address is taken.

        :raises UnknownDomain: not ours, and this is no relay.
        :raises UnknownRecipient, RecipientDisabled, RecipientDeferred: as the names say.
        :raises NotReady: nobody has made a password for the alias yet.
        """
        alias = await self._lookups.recipient(address)
        match alias.state:
            case AliasState.REJECT:
                raise RecipientDisabled
            case AliasState.DEFER:
                raise RecipientDeferred
            case AliasState.ENABLED if alias.mailbox_id is None:
                raise NotReady
        return Recipient(address.normalise(), alias)

    async def accept(self, transaction: Transaction) -> Result:
        """Store a message for each of its recipients; when it returns, whatever has no error is durable.

        :raises MailLoop: it has been through too many servers.
        """
        hops = trace.count_fields(transaction.content, b"received")
        if hops > self._max_hops:
            raise MailLoop(reason=f"{hops} Received fields")
        received_at = self._now()
        hop = self._hop(transaction, received_at)
        stable = self._stable(transaction)
        jobs = list(enumerate(transaction.recipients))
        outcomes: dict[int, Outcome] = {}
        waiting = iter(jobs)

        async def work(source: Iterator[tuple[int, Recipient]]) -> None:
            for number, recipient in source:
                outcomes[number] = await self._deliver_one(transaction, recipient, hop, stable)

        at_once = max(1, min(len(jobs), PARALLEL, COPIES // (len(transaction.content) + 1)))
        if at_once == 1:
            await work(waiting)
        else:
            await gatherResults([Deferred.fromCoroutine(work(waiting)) for _ in range(at_once)])
        result = Result(tuple(outcomes[number] for number, _ in jobs))
        self._remember(transaction, result, stable)
        return result

    def _hop(self, transaction: Transaction, received_at: datetime.datetime) -> trace.Hop:
        client = transaction.client
        protocol = trace.protocol_name(extended=client.extended, tls=client.tls is not None, utf8=transaction.sender.smtputf8)
        return trace.Hop(client.helo, client.address, self._hostname, protocol, transaction.id, received_at, client.tls)

    async def _deliver_one(self, transaction: Transaction, recipient: Recipient, hop: trace.Hop, stable: bytes | None) -> Outcome:
        """One recipient's delivery; every error becomes its outcome, so that the others go on."""
        fields = {"conn": transaction.client.connection, "id": transaction.id, "recipient": recipient.alias.address}
        if recipient.alias.state is AliasState.DISCARD:
            log.event("receive.done", reason=Reason.DISCARDED, **fields)
            return Outcome(recipient, Reason.DISCARDED)
        sender = transaction.sender.address
        address = str(recipient.address) if recipient.address.domain else recipient.alias.address
        content = b"".join(
            (
                trace.return_path(str(sender) if sender else ""),
                trace.delivered_to(address),
                trace.received(hop, address),
                transaction.content,
            )
        )
        delivery_id = ids.delivery_id() if stable is None else _digest(stable, address.encode())[:16]
        try:
            await self._deliver.deliver(recipient.alias, content, delivery_id, hop.received_at)
        except MailError as error:
            reason = reason_of(error)
            log.warning("receive.failed", reason=reason, why=error.reason or error.public, **fields)
            return Outcome(recipient, reason, error)
        except Exception as error:
            log.failure("receive.failed", error, reason=Reason.FAILED, **fields)
            return Outcome(recipient, Reason.FAILED, Ours())
        log.event("receive.done", reason=Reason.STORED, **fields)
        return Outcome(recipient, Reason.STORED)

    # -- the retry of a message that was stored for some ------------------------------------------

    def _stable(self, transaction: Transaction) -> bytes | None:
        """What the delivery ids are derived from when they have to be the same in a retry, or None for random ones."""
        several = len(transaction.recipients) > 1
        if not several and not self._partial:
            return None
        if not trace.count_fields(transaction.content, b"message-id"):
            return None
        sender = transaction.sender.address
        digest = _digest(str(sender).encode() if sender else b"", transaction.content)
        return digest if several or digest in self._partial else None

    def _remember(self, transaction: Transaction, result: Result, stable: bytes | None) -> None:
        """Keep, or forget, that this message is stored for some of its recipients only."""
        if stable is None:
            return
        failed = sum(outcome.error is not None for outcome in result.outcomes)
        if 0 < failed < len(result.outcomes):
            self._partial[stable] = None
            self._partial.move_to_end(stable)
            if len(self._partial) > REMEMBERED:
                self._partial.popitem(last=False)


def _digest(*parts: bytes) -> bytes:
    """SHA-256 over parts that cannot run into each other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.digest()
