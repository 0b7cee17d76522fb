"""Mailbox keys on the link: wrapped under keys that live as long as the connection."""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_NONCE = 12


class LinkKeys:
    """Wraps what goes out and unwraps what comes in; each direction has a key of its own, so nothing can be sent back as one's own.

    :param secret: the link secret, 32 octets.
    :param transcript: the digest of the handshake, fresh for each connection.
    :param calling: True for the side that calls.
    """

    __slots__ = ("_incoming", "_outgoing")

    def __init__(self, secret: bytes, transcript: bytes, *, calling: bool) -> None:
        to_primary = _direction(secret, transcript, b"to primary")
        to_secondary = _direction(secret, transcript, b"to secondary")
        self._outgoing, self._incoming = (to_primary, to_secondary) if calling else (to_secondary, to_primary)

    def wrap(self, mailbox_id: str, key: bytes | bytearray) -> bytes:
        """The key, for the other end of this connection only."""
        nonce = os.urandom(_NONCE)
        return nonce + self._outgoing.encrypt(nonce, key, _bound(mailbox_id))

    def unwrap(self, mailbox_id: str, wrapped: bytes) -> bytes:
        """The key that the other end wrapped.

        :raises ValueError: another connection's, another mailbox's, or changed in any bit.
        """
        try:
            return self._incoming.decrypt(wrapped[:_NONCE], wrapped[_NONCE:], _bound(mailbox_id))
        except (InvalidTag, ValueError) as error:
            raise ValueError("the key was not wrapped for this mailbox on this connection") from error

    def __repr__(self) -> str:
        return "<LinkKeys>"


def _direction(secret: bytes, transcript: bytes, label: bytes) -> AESGCM:
    return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=transcript, info=b"forwardemail link keys " + label).derive(secret))


def _bound(mailbox_id: str) -> bytes:
    return b"mailbox key " + mailbox_id.encode()
