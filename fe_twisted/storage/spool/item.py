"""What is sealed: one message with all that its delivery needs, bound to its mailbox and its delivery id."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import cbor2

from fe_twisted.protocols.crypto.seal import SealingKey, seal

#: The version of the CBOR map.
_VERSION = 1


class Unreadable(Exception):
    """The row does not open with the mailbox's key, or is not what it says on the outside."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One delivery.

    :param delivery_id: 16 octets, unique for this message and recipient; the same again is the same delivery.
    :param received_at: aware.
    :param content: the message as received.
    :param folder: where the owner will find it.
    :param flags: names of flags that it gets.
    """

    delivery_id: bytes
    received_at: datetime.datetime
    content: bytes
    folder: str = "INBOX"
    flags: frozenset[str] = frozenset()

    def seal(self, public_key: bytes, mailbox_id: str) -> bytes:
        """Close it for the owner of ``public_key``.

        :raises ValueError: not a public key.
        """
        content = {
            "v": _VERSION,
            "delivery_id": self.delivery_id,
            "received_at": self.received_at.isoformat(),
            "folder": self.folder,
            "flags": sorted(self.flags),
            "content": self.content,
        }
        return seal(public_key, cbor2.dumps(content), _info(mailbox_id, self.delivery_id))


def unseal(sealed: bytes, key: SealingKey, mailbox_id: str, delivery_id: bytes) -> Waiting:
    """Open a row.

    :raises Unreadable: see there; the text says why, and holds no content.
    """
    try:
        value: Any = cbor2.loads(key.open(sealed, _info(mailbox_id, delivery_id)))
        if value["v"] != _VERSION:
            raise Unreadable(f"version {value['v']!r}")
        item = Waiting(
            delivery_id=bytes(value["delivery_id"]),
            received_at=datetime.datetime.fromisoformat(value["received_at"]),
            content=bytes(value["content"]),
            folder=str(value["folder"]),
            flags=frozenset(str(flag) for flag in value["flags"]),
        )
    except (ValueError, cbor2.CBORDecodeError, KeyError, TypeError, AttributeError) as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from error
    if item.delivery_id != delivery_id or item.received_at.tzinfo is None:
        raise Unreadable("the inside does not match the outside")
    return item


def _info(mailbox_id: str, delivery_id: bytes) -> bytes:
    """The context of the seal: a row that is moved to another mailbox, or given another id, does not open."""
    return b"spool " + mailbox_id.encode() + b" " + delivery_id
