"""What a message becomes before it is stored: all the work that needs no database, so that the transaction is short."""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass

from fe_twisted.base.ids import object_id
from fe_twisted.protocols.mime import order
from fe_twisted.protocols.mime.message import Message
from fe_twisted.protocols.mime.order import Order
from fe_twisted.protocols.mime.parse import parse
from fe_twisted.protocols.mime.parts import dump
from fe_twisted.storage.mailbox.content import Pieces, divide
from fe_twisted.storage.mailbox.folded import folded
from fe_twisted.storage.mailbox.rows import iso

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True, slots=True)
class Prepared:
    """One content and the rows that it becomes, but for their number.

    :param content: as received.
    :param digest: its SHA-256.
    :param row: the columns of ``messages`` after ``digest`` and before ``thread``, and those after ``thread``.
    :param keys: what decides to which thread it belongs.
    :param pieces: how its octets are laid down.
    :param fields, orders: the columns of these tables after ``message_id``.
    :param texts: header and body as they are searched.
    """

    content: bytes
    digest: bytes
    row: tuple[object, ...]
    rendered: tuple[bytes, ...]
    keys: Order
    pieces: Pieces
    fields: tuple[str, ...]
    orders: tuple[object, ...]
    preview: str
    texts: tuple[str, str]


def prepare(content: bytes) -> Prepared:
    """Any octets, ready to be stored.  Needs processor time and no database; may be called in any thread."""
    message = parse(content)
    sent = message.sent
    return Prepared(
        content=content,
        digest=hashlib.sha256(content).digest(),
        row=(
            object_id(),
            message.size,
            message.header_size,
            iso(sent) if sent else None,
            sent.toordinal() if sent else None,
            message.message_id,
        ),
        rendered=(message.envelope, message.body, message.bodystructure, dump(message.root)),
        keys=message.order,
        pieces=divide(content, message),
        fields=(folded(message.subject), folded(message.sender), folded(message.to), folded(message.cc), folded(message.bcc)),
        orders=_orders(message),
        preview=message.preview,
        texts=("\n" + "".join([f"{name}: {folded(value)}\n" for name, value in message.headers]), folded(message.text)),
    )


def _orders(message: Message) -> tuple[object, ...]:
    keys = message.order
    return (
        None if message.sent is None else int((message.sent - _EPOCH).total_seconds()),
        keys.subject,
        int(keys.reply),
        keys.sender,
        keys.to,
        keys.cc,
        keys.sender_name,
        keys.to_name,
        keys.identity,
        order.pack(keys.references),
    )
